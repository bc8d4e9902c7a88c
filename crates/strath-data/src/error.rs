//! What can be wrong with data: the file, what was found, what was expected, what to do.

use std::io;
use std::path::PathBuf;

/// Data that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file is not there.
    #[error("{} is missing{}; {advice}", path.display(), if *or_gz { ", plain or as .gz" } else { "" })]
    Missing {
        /// The file.
        path: PathBuf,
        /// Whether a gzipped one would do.
        or_gz: bool,
        /// How to get it.
        advice: &'static str,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file begins with another magic number.
    #[error("{} begins with the magic number {found:#010x}, expected {expected:#010x} of an IDX file of {what}; bring it anew, named .gz if it is packed", path.display())]
    Magic {
        /// The file.
        path: PathBuf,
        /// What was found.
        found: u32,
        /// What was expected.
        expected: u32,
        /// What the file should hold.
        what: &'static str,
    },
    /// A file is shorter or longer than it says, or than its records allow.
    #[error("{} has {found} bytes, expected {expected}; it is truncated or not of this data set, bring it anew", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes found, unpacked.
        found: u64,
        /// Bytes expected, or what they have to be.
        expected: String,
    },
    /// Images of another size than the data set's.
    #[error("{} has images of {found}, expected {expected}; check data.kind, or convert the images to safetensors", path.display())]
    ImageSize {
        /// The file.
        path: PathBuf,
        /// The size found.
        found: String,
        /// The size expected.
        expected: String,
    },
    /// As many labels as images are needed.
    #[error("{} has {labels} labels for {images} images; expected as many; they do not belong together, bring both anew", path.display())]
    Count {
        /// The file of the labels.
        path: PathBuf,
        /// Labels.
        labels: usize,
        /// Images.
        images: usize,
    },
    /// A label that is no class.
    #[error("{} gives example {example} the label {label}, expected 0 to {} for {classes} classes; check data.kind and data.classes, or bring the file anew", path.display(), classes.saturating_sub(1))]
    Label {
        /// The file.
        path: PathBuf,
        /// The example, from 0.
        example: usize,
        /// Its label.
        label: i64,
        /// Number of classes.
        classes: usize,
    },
    /// A split without examples.
    #[error("{} has no {split} examples, expected at least one; bring it anew", path.display())]
    Empty {
        /// The file or folder.
        path: PathBuf,
        /// The split.
        split: &'static str,
    },
    /// A share of the training examples that comes to none.
    #[error(
        "data.validation = {share} of {examples} training examples is none, expected at least one; raise it, or leave it out"
    )]
    Validation {
        /// The share.
        share: f64,
        /// Training examples that there are, after `train_limit`.
        examples: usize,
    },
    /// A safetensors file that does not hold what it should.
    #[error("{}: {tensor}: found {found}, expected {expected}; write the file anew", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// `data.train_limit` beyond the data.
    #[error("data.train_limit = {limit}, but there are only {examples} training examples; lower it or leave it out")]
    Limit {
        /// The limit.
        limit: usize,
        /// The examples.
        examples: usize,
    },
    /// An augmentation larger than the image.
    #[error(
        "data.augment: {augmentation} does not fit images of {height}x{width}, expected at most their shorter side; lower it"
    )]
    Augmentation {
        /// The augmentation.
        augmentation: String,
        /// Height of an image.
        height: usize,
        /// Width of an image.
        width: usize,
    },
    /// A data set that cannot be fetched.
    #[error("found the name {name:?}, expected a data set that can be fetched: fashion-mnist; {advice}")]
    UnknownSet {
        /// The name.
        name: String,
        /// Where the named one comes from, if it is known.
        advice: &'static str,
    },
    /// A download failed.
    #[error("cannot fetch {address}: {reason}; try again, or give another address that has the files with --from")]
    Fetch {
        /// The address.
        address: String,
        /// Why.
        reason: String,
    },
    /// A file with other bytes than the data set's.
    #[error("{what} has SHA-256 {found} (unpacked), expected {expected}; {advice}")]
    Digest {
        /// The file or address.
        what: String,
        /// The digest found.
        found: String,
        /// The digest expected.
        expected: String,
        /// What to do.
        advice: &'static str,
    },
}

impl DataError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { action, path: path.into(), source }
    }
}
