//! Which folder of `runs/` a command means that was given none.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use super::{CONFIG, COORDINATOR, LOCK, has_begun};

/// The folder for a run called `name` under `runs`: the first of `NAME`, `NAME-2`, `NAME-3`, ... that is not there, or that
/// holds only a run which ended before its first step.
pub fn unused_name(runs: &Path, name: &str) -> PathBuf {
    let is_free = |path: &Path| {
        let lock = || File::open(path.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok());
        !path.exists() || (path.join(CONFIG).exists() && !has_begun(path) && lock())
    };
    let mut path = runs.join(name);
    let mut number = 2u64;
    while !is_free(&path) {
        path = runs.join(format!("{name}-{number}"));
        number += 1;
    }
    path
}

/// The newest folder of a run called `name` under `runs`: the highest of `NAME`, `NAME-2`, ... that is there, else `NAME`.
pub fn newest_name(runs: &Path, name: &str) -> PathBuf {
    let number = |entry: fs::DirEntry| {
        entry.file_name().to_str()?.strip_prefix(name)?.strip_prefix('-')?.parse::<u64>().ok().filter(|k| *k >= 2)
    };
    let highest = fs::read_dir(runs).into_iter().flatten().flatten().filter_map(number).max();
    runs.join(highest.map_or_else(|| name.to_string(), |k| format!("{name}-{k}")))
}

/// The folder under `runs` with the newest `coordinator.json` of a coordinator that lives: one that was killed left its file, but not its lock.
pub fn newest_coordinator(runs: &Path) -> Option<PathBuf> {
    let lives = |folder: &Path| {
        let lock = File::open(folder.join(LOCK)).ok()?;
        matches!(lock.try_lock(), Err(TryLockError::WouldBlock)).then_some(())
    };
    let candidates = fs::read_dir(runs).ok()?.flatten().filter_map(|entry| {
        let path = entry.path();
        let modified = fs::metadata(path.join(COORDINATOR)).ok()?.modified().ok()?;
        lives(&path).map(|()| (modified, path))
    });
    candidates.max().map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use strath_core::{Generation, RunId};

    use super::*;
    use crate::run_folder::{Existing, RunFolder};

    #[test]
    fn unused_names_count_from_two() {
        let parent = tempfile::tempdir().unwrap();
        let next = || unused_name(parent.path(), "digits");
        assert_eq!(next(), parent.path().join("digits"));
        fs::create_dir(next()).unwrap();
        assert_eq!(next(), parent.path().join("digits-2"));
        fs::create_dir(next()).unwrap();
        assert_eq!(next(), parent.path().join("digits-3"));
        let mut third = RunFolder::open(&next(), Existing::Refuse, RunId(1)).unwrap();
        third.write_config("[run]\n").unwrap();
        third.persist_generation(Generation(1), &[], Vec::new(), 0).unwrap();
        assert_eq!(next(), parent.path().join("digits-4"), "somebody is at work in the third");
        drop(third);
        assert_eq!(next(), parent.path().join("digits-3"), "the run in it never began");
        fs::remove_dir_all(next()).unwrap();
        assert_eq!(newest_name(parent.path(), "digits"), parent.path().join("digits-2"));
        assert_eq!(newest_name(parent.path(), "other"), parent.path().join("other"));
    }
}
