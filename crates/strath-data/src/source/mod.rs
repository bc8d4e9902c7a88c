//! Where examples come from: a file for each format.

pub(crate) mod cifar;
pub(crate) mod digits;
pub(crate) mod idx;
pub(crate) mod safetensors;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use strath_core::ImageShape;

use crate::dataset::{Normalisation, Split};
use crate::error::DataError;

/// What a source gives.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) shape: ImageShape,
    pub(crate) classes: usize,
    pub(crate) normalisation: Normalisation,
    pub(crate) train: Split,
    pub(crate) test: Split,
}

/// Refuses a label that is no class; `path` holds the labels.
pub(crate) fn check_labels(path: &Path, labels: &[u32], classes: usize) -> Result<(), DataError> {
    match labels.iter().position(|label| *label as usize >= classes) {
        None => Ok(()),
        Some(example) => {
            Err(DataError::Label { path: path.into(), example, label: i64::from(labels[example]), classes })
        }
    }
}

/// Opens a file and says how many bytes it has; `None` where there is none of that name.
fn open_plain(path: &Path) -> Result<Option<(File, u64)>, DataError> {
    let opened = File::open(path).and_then(|file| file.metadata().map(|data| (file, data.len())));
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DataError::io("open", path, error)),
    }
}

/// A file that is read from front to back, unpacked on the way where it is gzipped.
pub(crate) struct Source<'a> {
    path: PathBuf,
    reader: Box<dyn Read + 'a>,
    /// Bytes in all, known without reading where the file is not packed.
    bytes: Option<u64>,
    /// Bytes read so far.
    read: u64,
}

impl<'a> Source<'a> {
    /// Opens `path`, or `path` with `.gz` appended where only that exists.
    pub(crate) fn open(path: &Path, advice: &'static str) -> Result<Self, DataError> {
        if let Some((file, bytes)) = open_plain(path)? {
            return Ok(Self { path: path.into(), reader: Box::new(file), bytes: Some(bytes), read: 0 });
        }
        let mut packed = path.as_os_str().to_owned();
        packed.push(".gz");
        let packed = PathBuf::from(packed);
        match open_plain(&packed)? {
            Some((file, _)) => {
                Ok(Self { path: packed, reader: Box::new(MultiGzDecoder::new(file)), bytes: None, read: 0 })
            }
            None => Err(DataError::Missing { path: path.into(), or_gz: true, advice }),
        }
    }

    /// A file of these bytes.
    pub(crate) fn plain(bytes: &'a [u8]) -> Self {
        Self { path: "a file".into(), reader: Box::new(bytes), bytes: Some(bytes.len() as u64), read: 0 }
    }

    /// A packed one.
    pub(crate) fn packed(bytes: &'a [u8]) -> Self {
        Self { path: "a file.gz".into(), reader: Box::new(MultiGzDecoder::new(bytes)), bytes: None, read: 0 }
    }

    /// The file that was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The next `count` bytes, or as many as there are.
    pub(crate) fn up_to(&mut self, count: u64) -> Result<Vec<u8>, DataError> {
        let mut bytes = Vec::new();
        let result = (&mut self.reader).take(count).read_to_end(&mut bytes);
        result.map_err(|e| DataError::io("read", &self.path, e))?;
        self.read += bytes.len() as u64;
        Ok(bytes)
    }

    /// Everything that is left, which has to be `count` bytes.
    ///
    /// `count` is a header's promise and not to be trusted: a plain file's size is compared with it first, and of a packed
    /// one no more than it and one byte are unpacked, into memory that grows with what comes.
    pub(crate) fn rest(mut self, count: u64) -> Result<Vec<u8>, DataError> {
        let expected = self.read.saturating_add(count);
        if let Some(found) = self.bytes.filter(|found| *found != expected) {
            return Err(DataError::Length { path: self.path, found, expected: expected.to_string() });
        }
        let bytes = self.up_to(count.saturating_add(1))?;
        if bytes.len() as u64 == count {
            return Ok(bytes);
        }
        let more = if self.read > expected { " and no more" } else { "" };
        Err(DataError::Length { path: self.path, found: self.read, expected: format!("{expected}{more}") })
    }
}
