//! Configurations from little text.

use std::path::Path;

use strath_core::config::{Config, ConfigError, Effective, Layers};

/// The shortest legal file.
pub(crate) const MINIMAL: &str = "[data]\nkind = \"digits\"\n[model]\nkind = \"convnet\"\n";

/// A file of this text over the defaults.
pub(crate) fn layers(text: &str) -> Result<Layers, ConfigError> {
    Layers::new().file(text, "run.toml", Path::new("/configs"))
}

/// The configuration of a file of this text.
pub(crate) fn resolve(text: &str) -> Result<Effective, ConfigError> {
    layers(text)?.resolve()
}

/// [`MINIMAL`] and a `--set` for each assignment.
pub(crate) fn with(assignments: &[&str]) -> Result<Effective, ConfigError> {
    let start = layers(MINIMAL)?;
    assignments.iter().try_fold(start, |layers, set| layers.set(set, Path::new("/here")))?.resolve()
}

/// The valid configuration of these assignments.
pub(crate) fn config(assignments: &[&str]) -> Config {
    with(assignments).unwrap().config
}

/// The error of these assignments.
pub(crate) fn refusal(assignments: &[&str]) -> ConfigError {
    with(assignments).expect_err("this configuration is wrong")
}
