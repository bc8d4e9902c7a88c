//! Whether a run may go on under a configuration that is not the one it began with.

use std::collections::BTreeMap;

use super::error::ConfigError;
use super::keys::KEYS;
use super::tables::Config;

/// Tables of which no key decides the bits of a run, but for those of [`BOUND`].
const FREE_TABLES: [&str; 3] = ["cluster.", "checkpoint.", "telemetry."];
/// Keys that do not decide the bits of a run. (Data and initial tensors are compared by digest, wherever they lie.)
const FREE: [&str; 5] = ["run.name", "run.eval_every_epochs", "run.eval_train", "data.path", "model.init"];
/// Keys of free tables that do.
const BOUND: [&str; 1] = ["cluster.reduce"];

/// Checks that a run in a folder may go on under a new configuration: everything that decides its bits must agree. Paths,
/// names, the number of workers and threads, deadlines and checkpoints may differ.
///
/// # Errors
/// [`ConfigError::NotResumable`] with the first key that differs.
pub fn resumable(old: &Config, new: &Config) -> Result<(), ConfigError> {
    let is_free = |key: &str| FREE.contains(&key) || FREE_TABLES.iter().any(|table| key.starts_with(table));
    let decides = |key: &str| BOUND.contains(&key) || !is_free(key);
    let (old, new): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (old.values().into_iter().collect(), new.values().into_iter().collect());
    let keys = KEYS.iter().map(|key| key.path).filter(|key| decides(key));
    let unset = "no value".to_string();
    for key in keys {
        let (before, now) = (old.get(key).unwrap_or(&unset), new.get(key).unwrap_or(&unset));
        if before != now {
            return Err(ConfigError::NotResumable { key: key.into(), old: before.clone(), new: now.clone() });
        }
    }
    Ok(())
}
