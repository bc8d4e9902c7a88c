//! Files that are written whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}{}", path.display(), advice(source))]
pub struct FileError {
    /// What was tried.
    pub action: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// The system's answer.
    pub source: io::Error,
}

impl FileError {
    /// Says of `source` that it came of doing `action` to `path`.
    pub fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self { action, path: path.into(), source }
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free space there, then continue with --resume (what was written before is whole)"
        }
        io::ErrorKind::PermissionDenied => "; choose a folder that you may write to with --out",
        _ => "",
    }
}

/// Writes `bytes` to `path` through a temporary file beside it: synced, then renamed, then the folder synced, so that
/// whoever looks finds the old file or the new one.
///
/// # Errors
/// [`FileError`]; the temporary file is then removed and `path` is untouched.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    // Who else may read it is the user's umask's to say.
    write_with_mode(path, bytes, 0o666)
}

/// As [`write_whole`], a file that only its owner can read.
///
/// # Errors
/// [`FileError`].
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write_with_mode(path, bytes, 0o600)
}

fn write_with_mode(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.tmp"));
    let written = (|| {
        let mut file = File::options().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    })();
    written.map_err(|source| {
        // The write has failed already; that the leftover could not be removed adds nothing.
        let _ = fs::remove_file(&temporary);
        FileError::new("write", path, source)
    })
}

/// Removes the temporary files that a process which was killed left in `folder`.
///
/// # Errors
/// [`FileError`].
pub fn sweep(folder: &Path) -> Result<(), FileError> {
    let fail = |e| FileError::new("list", folder, e);
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') && name.ends_with(".tmp") {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Reads a whole file.
///
/// # Errors
/// [`FileError`].
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(|source| FileError::new("read", path, source))
}

/// Removes a file; one that is not there is fine.
///
/// # Errors
/// [`FileError`].
pub fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::new("remove", path, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_whole(&path, b"old").unwrap();
        write_whole(&path, b"new").unwrap();
        assert_eq!(read(&path).unwrap(), b"new");
        let inside_a_file = path.join("b");
        assert!(write_whole(&inside_a_file, b"x").is_err());
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["a"]);
        remove(&path).unwrap();
        remove(&path).unwrap();
    }

    #[test]
    fn a_full_disk_says_what_to_do() {
        let full = FileError::new("write", Path::new("/runs/x"), io::ErrorKind::StorageFull.into());
        assert!(full.to_string().contains("free space"), "{full}");
    }
}
