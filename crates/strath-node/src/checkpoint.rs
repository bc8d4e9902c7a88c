//! Training state as safetensors: what a checkpoint's two files hold.
//!
//! `step-N.safetensors` holds the model's tensors under PyTorch's names and nothing else. `step-N.state.safetensors` holds
//! the optimizer's slots as `SLOT/NAME` and, in its metadata under the key `strath`, a JSON object with the [`StateFacts`].

use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use strath_core::digest::{Hasher, weights_sha256};
use strath_core::layout::Entry;
use strath_core::{Digest, Layout};
use strath_model::Model;
use strath_sam::Optimizer;

use crate::state::TrainingState;

const FACTS: &str = "strath";
const FORMAT: u32 = 1;

/// What ties the two files of a checkpoint together and to the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFacts {
    /// Version of this format.
    pub format: u32,
    /// Completed optimizer updates.
    pub step: u64,
    /// `weights_sha256` of the model file beside it.
    pub weights_sha256: String,
    /// SHA-256 of the optimizer's slots in this file, tensors in ascending order of name.
    pub optimizer_sha256: String,
    /// SHA-256 of the data set that was trained on.
    pub data: String,
    /// Digest of the probe step of the machine that wrote it.
    pub numerics: String,
    /// The bits of [`TrainingState::epoch_loss`], where the run has a `run.stop_loss`: decimals would be read back rounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch_loss_bits: Option<u64>,
}

/// Tensors that do not fit the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The bytes are no safetensors file, or a torn one.
    #[error("not a whole safetensors file: {0}; choose another checkpoint")]
    Malformed(String),
    /// A tensor that the model has is missing.
    #[error("tensor {name:?} is missing (and {others} more); this is a checkpoint of another model, check [model]")]
    Missing {
        /// The first missing tensor.
        name: String,
        /// How many more are missing.
        others: usize,
    },
    /// A tensor that the model does not have.
    #[error(
        "tensor {name:?} is not one of the model's (nor are {others} more); this is a checkpoint of another model, check [model]"
    )]
    Unexpected {
        /// The first such tensor.
        name: String,
        /// How many more there are.
        others: usize,
    },
    /// A tensor of another shape.
    #[error(
        "tensor {name:?} has shape {found:?}, expected {expected:?}; this is a checkpoint of another model, check [model]"
    )]
    Shape {
        /// The tensor.
        name: String,
        /// The model's shape.
        expected: Vec<usize>,
        /// The file's.
        found: Vec<usize>,
    },
    /// A tensor of another type than f32.
    #[error("tensor {name:?} is {found}, expected F32")]
    Type {
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// A value that is NaN or infinite.
    #[error("tensor {name:?} holds a value that is not finite; choose an earlier checkpoint")]
    NotFinite {
        /// The tensor.
        name: String,
    },
    /// The state file does not describe itself.
    #[error("the state's metadata has no valid {FACTS:?} entry: {0}")]
    Facts(String),
    /// The state does not belong to the model file beside it.
    #[error(
        "the state belongs to weights {expected}, the model file beside it has {found}; use the checkpoint before it"
    )]
    Torn {
        /// The digest that the state names.
        expected: String,
        /// The digest of the model file.
        found: String,
    },
    /// The optimizer's slots are not those that were written.
    #[error(
        "the optimizer's tensors have SHA-256 {found}, expected {expected}; the file is damaged, use the checkpoint before it"
    )]
    Damaged {
        /// The digest that the state names.
        expected: String,
        /// The digest of what is there.
        found: String,
    },
    /// The state of a run that nothing but its length ends.
    #[error(
        "the state does not say what the epoch's loss is so far, which run.stop_loss goes by: it is of a run without; leave \
         run.stop_loss out, or start from the model file alone with model.init"
    )]
    NoEpochLoss,
    /// The state of another optimizer.
    #[error(transparent)]
    Optimizer(#[from] strath_sam::optimizer::StateMismatch),
}

/// The digest of a state's weights and running statistics.
pub fn digest(model: &Model, weights: &[f32], statistics: &[f32]) -> Digest {
    weights_sha256(&[(model.parameters(), weights), (model.statistics(), statistics)])
}

/// The model file of a state.
pub fn encode_model(model: &Model, weights: &[f32], statistics: &[f32]) -> Vec<u8> {
    let mut tensors = BTreeMap::new();
    collect(&mut tensors, "", model.parameters(), weights);
    collect(&mut tensors, "", model.statistics(), statistics);
    serialize(&tensors, None)
}

/// A file of vectors of one layout, each tensor's name behind a prefix of its vector's.
pub(crate) fn encode_vectors<'a>(layout: &Layout, vectors: impl Iterator<Item = (String, &'a [f32])>) -> Vec<u8> {
    let mut tensors = BTreeMap::new();
    for (prefix, values) in vectors {
        collect(&mut tensors, &prefix, layout, values);
    }
    serialize(&tensors, None)
}

/// The state file of a state.
pub fn encode_state(model: &Model, state: &TrainingState, data: Digest, numerics: Digest) -> Vec<u8> {
    let mut tensors = BTreeMap::new();
    for (slot, values) in state.optimizer.slots() {
        collect(&mut tensors, &format!("{slot}/"), model.parameters(), values);
    }
    let facts = StateFacts {
        format: FORMAT,
        step: state.step,
        weights_sha256: digest(model, &state.weights, &state.statistics).to_string(),
        optimizer_sha256: tensors
            .values()
            .fold(Hasher::new(), |mut hasher, (_, bytes)| {
                hasher.bytes(bytes);
                hasher
            })
            .finish()
            .to_string(),
        data: data.to_string(),
        numerics: numerics.to_string(),
        epoch_loss_bits: state.epoch_loss.map(f64::to_bits),
    };
    let facts = serde_json::to_string(&facts).expect("a struct of numbers and strings is valid JSON");
    serialize(&tensors, Some(HashMap::from([(FACTS.to_string(), facts)])))
}

fn collect(tensors: &mut BTreeMap<String, (Vec<usize>, Vec<u8>)>, prefix: &str, layout: &Layout, values: &[f32]) {
    for entry in layout.entries() {
        let bytes = values[entry.range()].iter().flat_map(|v| v.to_le_bytes()).collect();
        tensors.insert(format!("{prefix}{}", entry.name), (entry.shape.clone(), bytes));
    }
}

fn serialize(tensors: &BTreeMap<String, (Vec<usize>, Vec<u8>)>, metadata: Option<HashMap<String, String>>) -> Vec<u8> {
    let views = tensors.iter().map(|(name, (shape, bytes))| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("the bytes were made for this shape");
        (name, view)
    });
    safetensors::serialize(views, metadata).expect("names are distinct and views were checked")
}

/// Weights and running statistics from a model file; where it holds no running statistics at all, they are those of a new
/// model, and PyTorch's `num_batches_tracked` is passed over.
///
/// # Errors
/// [`CheckpointError`] where the file is not a safetensors file of exactly this model.
pub fn decode_model(model: &Model, bytes: &[u8]) -> Result<(Vec<f32>, Vec<f32>), CheckpointError> {
    let file = parse(bytes)?;
    let known = |name: &str| model.parameters().get(name).is_some() || model.statistics().get(name).is_some();
    let mut strangers: Vec<String> =
        file.names().into_iter().filter(|n| !known(n) && !n.ends_with("num_batches_tracked")).map(Into::into).collect();
    strangers.sort();
    let weights = read(&file, "", model.parameters())?;
    if let Some(name) = strangers.first() {
        return Err(CheckpointError::Unexpected { name: name.clone(), others: strangers.len() - 1 });
    }
    let has_statistics = model.statistics().entries().iter().any(|e| file.tensor(&e.name).is_ok());
    let statistics = if has_statistics { read(&file, "", model.statistics())? } else { model.initial_statistics() };
    Ok((weights, statistics))
}

/// The facts that a state file states about itself.
///
/// # Errors
/// [`CheckpointError`] where it is no state file.
pub fn decode_facts(bytes: &[u8]) -> Result<StateFacts, CheckpointError> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(malformed)?;
    // The whole file is checked too: a truncated one still has its header.
    parse(bytes)?;
    let text = header.metadata().as_ref().and_then(|m| m.get(FACTS)).ok_or(CheckpointError::Facts("none".into()))?;
    let facts: StateFacts = serde_json::from_str(text).map_err(|e| CheckpointError::Facts(e.to_string()))?;
    let found = file_digest(bytes)?.to_string();
    if found != facts.optimizer_sha256 {
        return Err(CheckpointError::Damaged { expected: facts.optimizer_sha256, found });
    }
    if facts.format != FORMAT {
        return Err(CheckpointError::Facts(format!("format {}, expected {FORMAT}", facts.format)));
    }
    Ok(facts)
}

/// The training state from the two files of a checkpoint; `optimizer` is a fresh one of the run's kind.
///
/// # Errors
/// [`CheckpointError`] where a file is not whole, of another model, or the two do not belong together.
pub fn decode(
    model: &Model,
    model_file: &[u8],
    state_file: &[u8],
    mut optimizer: Optimizer,
) -> Result<TrainingState, CheckpointError> {
    let (weights, statistics) = decode_model(model, model_file)?;
    let facts = decode_facts(state_file)?;
    let found = digest(model, &weights, &statistics).to_string();
    if found != facts.weights_sha256 {
        return Err(CheckpointError::Torn { expected: facts.weights_sha256, found });
    }
    let file = parse(state_file)?;
    let slots: Vec<&str> = optimizer.slots().iter().map(|(slot, _)| *slot).collect();
    let slots = slots
        .into_iter()
        .map(|slot| Ok((slot.to_string(), read(&file, &format!("{slot}/"), model.parameters())?)))
        .collect::<Result<Vec<_>, CheckpointError>>()?;
    optimizer.restore(&slots)?;
    let epoch_loss = facts.epoch_loss_bits.map(f64::from_bits);
    if let Some(sum) = epoch_loss.filter(|sum| !sum.is_finite()) {
        return Err(CheckpointError::Facts(format!("the epoch's loss so far is {sum}, expected a finite number")));
    }
    Ok(TrainingState { step: facts.step, weights: weights.into(), statistics, optimizer, epoch_loss })
}

/// The digest of a file's tensors in ascending order of name: `weights_sha256` where it is a model file, of whatever model.
///
/// # Errors
/// [`CheckpointError`] where the file is not a whole safetensors file.
pub fn file_digest(bytes: &[u8]) -> Result<Digest, CheckpointError> {
    let file = parse(bytes)?;
    let mut tensors = file.tensors();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    let mut hasher = Hasher::new();
    for (_, view) in tensors {
        hasher.bytes(view.data());
    }
    Ok(hasher.finish())
}

fn parse(bytes: &[u8]) -> Result<SafeTensors<'_>, CheckpointError> {
    SafeTensors::deserialize(bytes).map_err(malformed)
}

#[expect(clippy::needless_pass_by_value, reason = "map_err hands the error over by value")]
fn malformed(error: safetensors::SafeTensorError) -> CheckpointError {
    CheckpointError::Malformed(error.to_string())
}

fn read(file: &SafeTensors<'_>, prefix: &str, layout: &Layout) -> Result<Vec<f32>, CheckpointError> {
    let missing = |e: &&Entry| file.tensor(&format!("{prefix}{}", e.name)).is_err();
    let mut absent = layout.entries().iter().filter(missing);
    if let Some(first) = absent.next() {
        return Err(CheckpointError::Missing { name: format!("{prefix}{}", first.name), others: absent.count() });
    }
    let mut values = Vec::with_capacity(layout.len());
    for entry in layout.entries() {
        let name = format!("{prefix}{}", entry.name);
        let view = file.tensor(&name).map_err(malformed)?;
        if view.shape() != entry.shape {
            let (expected, found) = (entry.shape.clone(), view.shape().to_vec());
            return Err(CheckpointError::Shape { name, expected, found });
        }
        if view.dtype() != Dtype::F32 {
            return Err(CheckpointError::Type { name, found: format!("{:?}", view.dtype()) });
        }
        let start = values.len();
        values.extend(view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        if values[start..].iter().any(|v| !v.is_finite()) {
            return Err(CheckpointError::NotFinite { name });
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use strath_core::config::{ModelKind, NormLayer, OptimizerKind, OptimizerTable};
    use strath_core::shape::ImageShape;

    use super::*;

    fn model(widths: &[usize]) -> Model {
        let shape = ImageShape { channels: 1, height: 8, width: 8 };
        Model::build(
            &ModelKind::ConvNet { widths: widths.to_vec(), norm: NormLayer::Batch },
            shape,
            10,
            strath_model::Method::Auto,
        )
        .unwrap()
    }

    fn optimizer(model: &Model) -> Optimizer {
        let kind = OptimizerKind::Sgd { momentum: 0.9, nesterov: false };
        let table = OptimizerTable { kind, lr: 0.1, weight_decay: 0.0, clip_norm: None };
        Optimizer::new(&table, 0.0, model.parameters().len())
    }

    fn state(model: &Model) -> TrainingState {
        let mut weights = model.initial(1);
        let mut optimizer = optimizer(model);
        let gradient: Vec<f32> = (0..weights.len()).map(|at| at as f32 * 1e-3).collect();
        optimizer.update(&mut weights, &gradient, 0, 0.1);
        let statistics = model.initial_statistics();
        TrainingState { step: 7, weights: weights.into(), statistics, optimizer, epoch_loss: None }
    }

    #[test]
    fn a_state_survives_its_two_files_to_the_bit() {
        let model = model(&[4, 4]);
        let state = state(&model);
        let model_file = encode_model(&model, &state.weights, &state.statistics);
        let state_file = encode_state(&model, &state, Digest([1; 32]), Digest([2; 32]));
        assert_eq!(decode(&model, &model_file, &state_file, optimizer(&model)), Ok(state.clone()));
        assert_eq!(file_digest(&model_file), Ok(digest(&model, &state.weights, &state.statistics)));
        let facts = decode_facts(&state_file).unwrap();
        assert_eq!((facts.step, facts.data), (7, Digest([1; 32]).to_string()));
    }

    #[test]
    fn what_is_carried_of_an_epochs_loss_survives_to_the_bit_and_is_left_out_where_it_does_not_matter() {
        let model = model(&[4]);
        let plain = state(&model);
        let carrying = TrainingState { epoch_loss: Some(0.1 + 0.2), ..plain.clone() };
        let model_file = encode_model(&model, &plain.weights, &plain.statistics);
        for state in [&plain, &carrying] {
            let state_file = encode_state(&model, state, Digest::default(), Digest::default());
            assert_eq!(decode(&model, &model_file, &state_file, optimizer(&model)).as_ref(), Ok(state));
            let says = String::from_utf8_lossy(&state_file).contains("epoch_loss");
            assert_eq!(says, state.epoch_loss.is_some());
        }
        let broken = TrainingState { epoch_loss: Some(f64::NAN), ..plain };
        let state_file = encode_state(&model, &broken, Digest::default(), Digest::default());
        let refused = decode(&model, &model_file, &state_file, optimizer(&model));
        assert!(matches!(refused, Err(CheckpointError::Facts(_))), "{refused:?}");
    }

    #[test]
    fn every_bit_of_damage_to_weights_and_optimizer_is_noticed() {
        let model = model(&[4]);
        let state = state(&model);
        let state_file = encode_state(&model, &state, Digest::default(), Digest::default());
        let good = encode_model(&model, &state.weights, &state.statistics);
        for at in (good.len() - 400..good.len()).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(decode(&model, &bad, &state_file, optimizer(&model)).is_err(), "byte {at}");
        }
        for at in (state_file.len() - 400..state_file.len()).step_by(7) {
            let mut bad = state_file.clone();
            bad[at] ^= 1;
            assert!(decode_facts(&bad).is_err(), "byte {at} of the optimizer");
        }
        for cut in [0, 7, 100, good.len() - 1] {
            let torn = decode(&model, &good[..cut], &state_file, optimizer(&model));
            assert!(matches!(torn, Err(CheckpointError::Malformed(_))), "{cut}: {torn:?}");
        }
        assert!(matches!(decode_facts(&good), Err(CheckpointError::Facts(_))));
    }

    #[test]
    fn a_checkpoint_of_another_model_is_refused_by_the_first_tensor_that_differs() {
        let (small, large) = (model(&[4]), model(&[4, 8]));
        let file = |m: &Model| encode_model(m, &m.initial(0), &m.initial_statistics());
        assert!(matches!(decode_model(&large, &file(&small)), Err(CheckpointError::Missing { .. })));
        assert!(matches!(decode_model(&model(&[8]), &file(&small)), Err(CheckpointError::Shape { .. })));
        let with_more = {
            let mut tensors = BTreeMap::new();
            collect(&mut tensors, "", small.parameters(), &small.initial(0));
            tensors.insert("stranger".into(), (vec![1], vec![0; 4]));
            serialize(&tensors, None)
        };
        let refused = decode_model(&small, &with_more);
        assert_eq!(refused, Err(CheckpointError::Unexpected { name: "stranger".into(), others: 0 }));
    }

    #[test]
    fn initial_tensors_may_lack_running_statistics() {
        let model = model(&[4]);
        let mut tensors = BTreeMap::new();
        collect(&mut tensors, "", model.parameters(), &model.initial(3));
        let (weights, statistics) = decode_model(&model, &serialize(&tensors, None)).unwrap();
        assert_eq!((weights, statistics), (model.initial(3), model.initial_statistics()));
    }
}
