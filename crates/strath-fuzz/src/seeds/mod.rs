//! The inputs to begin with: what is valid, and some of what is nearly so. `cargo run --release --example seeds` writes them to
//! `fuzz/seeds`.

mod control;
mod files;
mod ring;

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Inputs under their names.
pub type Inputs = BTreeMap<String, Vec<u8>>;

/// Inputs of a target of these names.
fn named<N: ToString>(inputs: impl IntoIterator<Item = (N, Vec<u8>)>) -> Inputs {
    inputs.into_iter().map(|(name, bytes)| (name.to_string(), bytes)).collect()
}

/// Every target's inputs.
pub fn all() -> BTreeMap<&'static str, Inputs> {
    let torn = |target: (&'static str, Inputs)| {
        let (name, mut inputs) = target;
        let half = inputs.values().max_by_key(|bytes| bytes.len()).map(|bytes| bytes[..bytes.len() / 2].to_vec());
        inputs.insert("torn".into(), half.unwrap_or_default());
        inputs.insert("empty".into(), Vec::new());
        (name, inputs)
    };
    ring::inputs().into_iter().chain(control::inputs()).chain(files::inputs()).map(torn).collect()
}

/// The folder that holds `seeds` and `findings`, each with a folder a target.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}
