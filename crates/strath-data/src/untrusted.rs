//! Files of data, as the bytes that they hold: for `strath-fuzz`, which looks for bytes that do harm.

use std::path::Path;

use crate::dataset::Split;
use crate::error::DataError;
use crate::source::{Source, cifar, idx, safetensors};

/// How the bytes of a file are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// By gzip.
    Gzip,
}

/// Pixels and labels of a pair of IDX files.
///
/// # Errors
/// [`DataError`].
pub fn idx(images: &[u8], labels: &[u8], packing: Packing) -> Result<(Vec<u8>, Vec<u32>), DataError> {
    let source = match packing {
        Packing::Plain => Source::plain,
        Packing::Gzip => Source::packed,
    };
    idx::examples(source(images), source(labels), "train")
}

/// Pixels and labels of a file of CIFAR-10, or of CIFAR-100 where there are so many `classes`.
///
/// # Errors
/// [`DataError`].
pub fn cifar(bytes: &[u8], classes: usize) -> Result<(Vec<u8>, Vec<u32>), DataError> {
    let format = if classes == 10 { cifar::CIFAR10 } else { cifar::CIFAR100 };
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    cifar::parse(Path::new("a file"), format, "train", bytes, &mut pixels, &mut labels)?;
    Ok((pixels, labels))
}

/// Both splits of a safetensors file, and the values of an image.
///
/// # Errors
/// [`DataError`].
pub fn safetensors(bytes: &[u8], classes: usize) -> Result<(Split, Split, usize), DataError> {
    let loaded = safetensors::parse(Path::new("a file"), bytes, classes)?;
    Ok((loaded.train, loaded.test, loaded.shape.values()))
}
