//! What a later layer takes away from earlier ones: merging key by key would leave options of a kind that is no longer chosen.
//!
//! `--set model.kind=convnet` over a file with `kind = "resnet"` and `depth = 8` means the network with its own options, not
//! a convnet with a depth. What goes is told as a warning, so nothing that was written is ignored in silence.

use super::error::ConfigError;
use super::keys::{KEYS, Key, OnlyWith};
use super::merge::Layer;
use super::origin::Origin;
use super::tree::{assignment, origin_of, word};

const EPOCHS: &str = "run.epochs";
const STEPS: &str = "run.steps";

/// An option that went with the kind it was written for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Replaced {
    /// The option.
    pub(super) key: &'static str,
    /// What became of it, in one line.
    pub(super) story: String,
}

/// A later layer that chooses the length of the run takes the earlier choice away, be it epochs or steps.
///
/// # Errors
/// [`ConfigError::TwoLengths`] where one layer has both.
pub(super) fn keep_the_last_length(layers: &mut [Layer], origins: &[Origin]) -> Result<(), ConfigError> {
    for layer in layers.iter() {
        if let (Some(_), Some(steps)) = (layer.get(EPOCHS), layer.get(STEPS)) {
            return Err(ConfigError::TwoLengths { origin: origin_of(origins, steps) });
        }
    }
    let chosen = layers.iter().rposition(|layer| layer.get(EPOCHS).or(layer.get(STEPS)).is_some());
    for earlier in &mut layers[..chosen.unwrap_or(0)] {
        earlier.remove(EPOCHS);
        earlier.remove(STEPS);
    }
    Ok(())
}

/// An option that was written for a kind which a later layer replaces goes with that kind. Layer 0, the defaults, stays.
pub(super) fn drop_options_of_replaced_kinds(layers: &mut [Layer], origins: &[Origin]) -> Vec<Replaced> {
    let mut dropped = Vec::new();
    for (key, only) in KEYS.iter().filter_map(|key| Some((key, key.only_with?))) {
        if let Some(replaced) = replaced(layers, origins, key, only) {
            layers[1..].iter_mut().for_each(|layer| layer.remove(key.path));
            dropped.push(replaced);
        }
    }
    dropped
}

fn replaced(layers: &[Layer], origins: &[Origin], key: &Key, only: OnlyWith) -> Option<Replaced> {
    let choice = |layers: &[Layer]| layers.iter().rev().find_map(|layer| layer.get(only.choice).cloned());
    let at = layers.iter().rposition(|layer| layer.get(key.path).is_some()).filter(|at| *at > 0)?;
    let (then, now) = (choice(&layers[..=at])?, choice(layers)?);
    let (was, is) = (word(&then)?, word(&now)?);
    if was == is || !only.values.contains(&was.as_str()) {
        return None;
    }
    let origin = origin_of(origins, layers[at].get(key.path)?);
    let story = format!(
        "{} ({origin}) was written for {} and is left out, as {} ({}) replaces it",
        key.path,
        assignment(only.choice, &was),
        assignment(only.choice, &is),
        origin_of(origins, &now)
    );
    Some(Replaced { key: key.path, story })
}
