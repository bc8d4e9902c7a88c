//! `strath data fetch` and `verify`: a public data set, checked by digest.

mod download;
mod set;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use strath_core::digest::Hasher;

use crate::error::DataError;
use download::{PATIENCE, Patience, download};
use set::{IF_MISSING, IF_OTHER, PublicFile, known};

/// What was done to a data set, all of whose files are now whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The folder.
    pub folder: PathBuf,
    /// Files that were downloaded.
    pub fetched: usize,
    /// Files that were there already.
    pub kept: usize,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { folder, fetched, kept } = self;
        write!(f, "{}: {} files are whole ({fetched} fetched, {kept} found there)", folder.display(), fetched + kept)
    }
}

/// Downloads the data set `name` into the folder `into`, from the address `from` (default: its public one). Files that are
/// there and whole are kept; a file is checked before it gets its name. `progress` hears file, bytes so far, bytes in all.
///
/// # Errors
/// [`DataError`]; files that were whole before stay.
pub fn fetch(
    name: &str,
    into: &Path,
    from: Option<&str>,
    progress: &mut dyn FnMut(&str, u64, Option<u64>),
) -> Result<Checked, DataError> {
    let set = known(name)?;
    fetch_files(set.files, into, from.unwrap_or(set.address), PATIENCE, progress)
}

/// Checks the files of the data set `name` in the folder `at`, plain or gzipped.
///
/// # Errors
/// [`DataError`] with the first file that is missing or has other bytes.
pub fn verify(name: &str, at: &Path) -> Result<Checked, DataError> {
    verify_files(known(name)?.files, at)
}

fn verify_files(files: &[PublicFile], at: &Path) -> Result<Checked, DataError> {
    for file in files {
        match Found::of(file, at) {
            Found::Plain(path) => check(file, &path, &mut open(&path)?)?,
            Found::Packed(path) => check(file, &path, &mut MultiGzDecoder::new(open(&path)?))?,
            Found::Nothing => {
                return Err(DataError::Missing { path: at.join(file.name), or_gz: true, advice: IF_MISSING });
            }
        }
    }
    Ok(Checked { folder: at.into(), fetched: 0, kept: files.len() })
}

fn fetch_files(
    files: &[PublicFile],
    into: &Path,
    from: &str,
    patience: Patience,
    progress: &mut dyn FnMut(&str, u64, Option<u64>),
) -> Result<Checked, DataError> {
    fs::create_dir_all(into).map_err(|e| DataError::io("make", into, e))?;
    let mut checked = Checked { folder: into.into(), fetched: 0, kept: 0 };
    for file in files {
        let whole = match Found::of(file, into) {
            // Training reads a plain file before a packed one, so that a bad one must not stay beside a good download.
            Found::Plain(path) => check(file, &path, &mut open(&path)?).map(|()| true)?,
            Found::Packed(path) => check(file, &path, &mut MultiGzDecoder::new(open(&path)?)).is_ok(),
            Found::Nothing => false,
        };
        if whole {
            checked.kept += 1;
        } else {
            fetch_file(file, into, from, patience, progress)?;
            checked.fetched += 1;
        }
    }
    Ok(checked)
}

/// Downloads a file under a temporary name, checks it and gives it its own.
fn fetch_file(
    file: &PublicFile,
    into: &Path,
    from: &str,
    patience: Patience,
    progress: &mut dyn FnMut(&str, u64, Option<u64>),
) -> Result<(), DataError> {
    let packed = format!("{}.gz", file.name);
    let address = format!("{}/{packed}", from.trim_end_matches('/'));
    // The process is in the name: two that fetch into one folder never write to the same file.
    let temporary = into.join(format!(".{packed}.{}.part", std::process::id()));
    // Incompressible bytes grow by a few in each block of 64 KiB.
    let limit = file.bytes + file.bytes / 1000 + (64 << 10);
    let done = download(&address, &temporary, limit, patience, &mut |done, all| progress(&packed, done, all))
        .and_then(|()| check_download(file, &address, &temporary))
        .and_then(|()| fs::rename(&temporary, into.join(&packed)).map_err(|e| DataError::io("rename", &temporary, e)))
        .and_then(|()| {
            File::open(into).and_then(|folder| folder.sync_all()).map_err(|e| DataError::io("sync", into, e))
        });
    if done.is_err() {
        // The download has failed already; a leftover that cannot be removed adds nothing.
        let _ = fs::remove_file(&temporary);
    }
    done
}

/// What a folder has of a file, in the order in which training looks for it.
enum Found {
    Plain(PathBuf),
    Packed(PathBuf),
    Nothing,
}

impl Found {
    fn of(file: &PublicFile, folder: &Path) -> Self {
        let (plain, packed) = (folder.join(file.name), folder.join(format!("{}.gz", file.name)));
        if plain.exists() {
            Self::Plain(plain)
        } else if packed.exists() {
            Self::Packed(packed)
        } else {
            Self::Nothing
        }
    }
}

fn open(path: &Path) -> Result<File, DataError> {
    File::open(path).map_err(|e| DataError::io("open", path, e))
}

/// Compares the unpacked bytes of `path` with the data set's.
fn check(file: &PublicFile, path: &Path, unpacked: &mut dyn Read) -> Result<(), DataError> {
    let found = sha256(unpacked, file.bytes).map_err(|e| DataError::io("unpack", path, e))?;
    compare(file, found, path.display().to_string(), IF_OTHER)
}

/// The same for a download, whose errors name the address: the temporary file is about to go.
fn check_download(file: &PublicFile, address: &str, temporary: &Path) -> Result<(), DataError> {
    let found = sha256(&mut MultiGzDecoder::new(open(temporary)?), file.bytes).map_err(|e| DataError::Fetch {
        address: address.into(),
        reason: format!("what came cannot be unpacked ({e})"),
    })?;
    compare(file, found, address.into(), "this address serves something else, give another one with --from")
}

fn compare(file: &PublicFile, found: String, what: String, advice: &'static str) -> Result<(), DataError> {
    if found == file.sha256 {
        return Ok(());
    }
    Err(DataError::Digest { what, found, expected: file.sha256.into(), advice })
}

/// SHA-256 of the first `bytes` bytes and one more: what is longer has another digest and is not followed.
fn sha256(reader: &mut dyn Read, bytes: u64) -> io::Result<String> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 64 << 10];
    let mut reader = reader.take(bytes + 1);
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            return Ok(hasher.finish().to_string());
        }
        hasher.bytes(&buffer[..read]);
    }
}
