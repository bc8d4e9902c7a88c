//! What a measurement has reduced so far, on the disk, so that one that is interrupted goes on.
//!
//! A measurement is a program that every rank runs alike: what it does next depends on nothing but its request and on what the ranks have reduced
//! before. So results are written down in their order, and whoever begins anew is given them in that order until there are no more. They are the same
//! bits for any number of workers, so it does not matter who wrote them: of two entries of one number either serves, and what is torn is computed again.
//!
//! ```text
//! file    key of 32 bytes │ entry │ entry │ ...
//! entry   number u64 │ kind u8 │ values u64 │ values │ CRC32C of all before it, u32        little-endian
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;

use strath_core::Digest;

use crate::files::FileError;

/// Bytes before an entry's values.
const HEAD: usize = 17;
/// Bytes after them.
const TAIL: usize = 4;

/// What a rank does with the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads what is there.
    Reads,
    /// Begins it anew where it is another measurement's, cuts off what is torn, and adds to it: one rank alone.
    Writes,
}

/// What was reduced.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// Integer sums.
    Integers(Vec<i64>),
    /// A vector.
    Floats(Vec<f32>),
}

/// The entries of a measurement.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: std::path::PathBuf,
    /// Where each entry begins, by number.
    entries: BTreeMap<u64, (u64, usize)>,
}

impl Log {
    /// Opens the log of the measurement with this key; a file of another measurement counts as empty.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn open(path: &Path, key: Digest, access: Access) -> Result<Self, FileError> {
        let fail = |error| FileError::new("open", path, error);
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(fail)?;
        let mut found = [0; 32];
        let is_ours = match file.read_exact(&mut found) {
            Ok(()) => found == key.0,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(fail(error)),
        };
        if !is_ours && access == Access::Writes {
            file.set_len(0).map_err(fail)?;
            file.seek(SeekFrom::Start(0)).map_err(fail)?;
            file.write_all(&key.0).map_err(fail)?;
        }
        let mut log = Self { file, path: path.into(), entries: BTreeMap::new() };
        if is_ours {
            log.index(access).map_err(fail)?;
        }
        Ok(log)
    }

    /// How many entries there are from the first on without a gap.
    pub fn len(&self) -> u64 {
        self.entries.keys().enumerate().take_while(|(at, number)| *at as u64 == **number).count() as u64
    }

    /// The entry of a number; `None` where it is not there, or not whole.
    pub fn get(&mut self, number: u64) -> Option<Entry> {
        let (start, len) = *self.entries.get(&number)?;
        let mut bytes = vec![0; len];
        self.file.seek(SeekFrom::Start(start)).ok()?;
        self.file.read_exact(&mut bytes).ok()?;
        decode(&bytes).filter(|(found, _)| *found == number).map(|(_, entry)| entry)
    }

    /// Adds an entry, written at once and in one piece.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn append(&mut self, number: u64, entry: &Entry) -> Result<(), FileError> {
        let fail = |error| FileError::new("write", &self.path, error);
        let bytes = encode(number, entry);
        let start = self.file.seek(SeekFrom::End(0)).map_err(fail)?;
        self.file.write_all(&bytes).map_err(fail)?;
        self.entries.insert(number, (start, bytes.len()));
        Ok(())
    }

    /// Finds the whole entries, and cuts off what is not one.
    fn index(&mut self, access: Access) -> std::io::Result<()> {
        let end = self.file.seek(SeekFrom::End(0))?;
        let mut at = 32;
        while at < end {
            self.file.seek(SeekFrom::Start(at))?;
            let mut head = [0; HEAD];
            let length = match self.file.read_exact(&mut head) {
                Ok(()) => length(&head).filter(|length| at + *length as u64 <= end),
                Err(_) => None,
            };
            let Some(length) = length else { break };
            let mut bytes = vec![0; length];
            self.file.seek(SeekFrom::Start(at))?;
            self.file.read_exact(&mut bytes)?;
            let Some((number, _)) = decode(&bytes) else { break };
            self.entries.entry(number).or_insert((at, length));
            at += length as u64;
        }
        if access == Access::Writes { self.file.set_len(at.min(end)) } else { Ok(()) }
    }
}

/// Bytes of the entry that begins so.
fn length(head: &[u8; HEAD]) -> Option<usize> {
    let size = match head[8] {
        0 => size_of::<i64>(),
        1 => size_of::<f32>(),
        _ => return None,
    };
    let values = u64::from_le_bytes(head[9..].try_into().ok()?);
    usize::try_from(values).ok()?.checked_mul(size)?.checked_add(HEAD + TAIL)
}

fn encode(number: u64, entry: &Entry) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    match entry {
        Entry::Integers(values) => {
            bytes.push(0);
            bytes.extend((values.len() as u64).to_le_bytes());
            for value in values {
                bytes.extend(value.to_le_bytes());
            }
        }
        Entry::Floats(values) => {
            bytes.push(1);
            bytes.extend((values.len() as u64).to_le_bytes());
            for value in values {
                bytes.extend(value.to_le_bytes());
            }
        }
    }
    bytes.extend(strath_collective::checksum(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u64, Entry)> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
    let (body, crc) = rest.split_last_chunk::<TAIL>()?;
    if length(head)? != bytes.len()
        || strath_collective::checksum(&bytes[..bytes.len() - TAIL]) != u32::from_le_bytes(*crc)
    {
        return None;
    }
    let number = u64::from_le_bytes(*head.first_chunk()?);
    let entry = if head[8] == 0 {
        Entry::Integers(body.as_chunks().0.iter().map(|value| i64::from_le_bytes(*value)).collect())
    } else {
        Entry::Floats(body.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect())
    };
    Some((number, entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, key: Digest) -> Result<Log, FileError> {
        Log::open(path, key, Access::Writes)
    }

    fn entries() -> [Entry; 3] {
        [Entry::Integers(vec![1, -2]), Entry::Floats(vec![0.5, f32::NAN, -0.0]), Entry::Integers(Vec::new())]
    }

    fn same(a: Option<Entry>, b: &Entry) -> bool {
        match (a, b) {
            (Some(Entry::Floats(a)), Entry::Floats(b)) => {
                a.iter().map(|v| v.to_bits()).eq(b.iter().map(|v| v.to_bits()))
            }
            (a, b) => a.as_ref() == Some(b),
        }
    }

    #[test]
    fn what_was_written_comes_back_and_a_torn_or_flipped_end_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let (path, key) = (folder.path().join("log"), Digest::of(b"a"));
        let mut log = open(&path, key).unwrap();
        for (number, entry) in (0..).zip(&entries()) {
            log.append(number, entry).unwrap();
        }
        drop(log);
        let whole = std::fs::read(&path).unwrap();
        let ends: Vec<usize> = [32, 32 + 21 + 16, 32 + 21 + 16 + 21 + 12, whole.len()].into();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut log = open(&path, key).unwrap();
            let left = ends[1..].iter().filter(|end| **end <= cut).count();
            assert_eq!(log.len(), left as u64, "cut at {cut}");
            assert!((0..left).all(|at| same(log.get(at as u64), &entries()[at])));
            log.append(left as u64, &Entry::Integers(vec![7])).unwrap();
            assert_eq!(open(&path, key).unwrap().get(left as u64), Some(Entry::Integers(vec![7])), "cut at {cut}");
        }
        for at in 32..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 4;
            std::fs::write(&path, &flipped).unwrap();
            let before = ends[1..].iter().filter(|end| **end <= at).count();
            assert_eq!(open(&path, key).unwrap().len(), before as u64, "flipped at {at}");
        }
    }

    #[test]
    fn entries_may_come_twice_and_out_of_order_and_another_measurement_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, key) = (folder.path().join("log"), Digest::of(b"a"));
        let [first, second, third] = entries();
        let mut log = open(&path, key).unwrap();
        for (number, entry) in [(1, &second), (0, &first), (1, &second), (3, &third)] {
            log.append(number, entry).unwrap();
        }
        let mut again = open(&path, key).unwrap();
        assert_eq!(again.len(), 2);
        assert!(same(again.get(1), &second) && again.get(2).is_none());
        let other = Digest::of(b"b");
        assert_eq!(Log::open(&path, other, Access::Reads).unwrap().len(), 0);
        assert_eq!(Log::open(&path, key, Access::Reads).unwrap().len(), 2, "who reads leaves it as it is");
        assert_eq!(open(&path, other).unwrap().len(), 0);
        assert_eq!(open(&path, key).unwrap().len(), 0, "it was emptied");
    }
}
