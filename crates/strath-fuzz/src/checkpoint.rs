//! The two files of a checkpoint.

use std::sync::LazyLock;

use strath_core::config::{ModelKind, NormLayer, OptimizerKind, OptimizerTable};
use strath_core::{Digest, ImageShape};
use strath_model::{Method, Model};
use strath_node::checkpoint::{decode, decode_facts, decode_model, encode_model, encode_state, file_digest};
use strath_node::state::TrainingState;
use strath_sam::Optimizer;

use crate::input::{Input, pieces};
use crate::memory::{USUAL, within};

/// A small network with running statistics.
static MODEL: LazyLock<Model> = LazyLock::new(|| {
    let shape = ImageShape { channels: 1, height: 4, width: 4 };
    let kind = ModelKind::ConvNet { widths: vec![2], norm: NormLayer::Batch };
    Model::build(&kind, shape, 2, Method::Auto).expect("a small network fits a small image")
});

fn optimizer() -> Optimizer {
    let kind = OptimizerKind::Sgd { momentum: 0.9, nesterov: false };
    let table = OptimizerTable { kind, lr: 0.1, weight_decay: 0.0, clip_norm: None };
    Optimizer::new(&table, 0.0, MODEL.parameters().len())
}

/// The two files of a checkpoint of the small network, one after the other.
pub(crate) fn files() -> (Vec<u8>, Vec<u8>) {
    let mut weights = MODEL.initial(1);
    let mut optimizer = optimizer();
    let gradient: Vec<f32> = (0..weights.len()).map(|at| at as f32 * 1e-3).collect();
    optimizer.update(&mut weights, &gradient, 0, 0.1);
    let (weights, statistics) = (weights.into(), MODEL.initial_statistics());
    let state = TrainingState { step: 7, weights, statistics, optimizer, epoch_loss: Some(0.5) };
    let (data, numerics) = (Digest([1; 32]), Digest([2; 32]));
    (encode_model(&MODEL, &state.weights, &state.statistics), encode_state(&MODEL, &state, data, numerics))
}

/// A model file and a state file, each with its length before it.
pub fn checkpoint(bytes: &[u8]) {
    LazyLock::force(&MODEL);
    let mut input = Input::new(bytes);
    let [model, state] = [input.piece(), input.piece()];
    within(USUAL, bytes, || {
        let digest = file_digest(model);
        let facts = decode_facts(state);
        let decoded = decode_model(&MODEL, model);
        assert!(decoded.is_err() || digest.is_ok(), "read, and not whole");
        if let Ok((weights, statistics)) = &decoded {
            assert!(weights.iter().chain(statistics).all(|value| value.is_finite()));
            let again = encode_model(&MODEL, weights, statistics);
            assert_eq!(decode_model(&MODEL, &again), decoded, "the model as it would be written again");
        }
        let Ok(whole) = decode(&MODEL, model, state, optimizer()) else { return };
        assert!(decoded.is_ok() && facts.is_ok_and(|facts| facts.step == whole.step));
        let (data, numerics) = (Digest::default(), Digest::default());
        let again = pieces([
            encode_model(&MODEL, &whole.weights, &whole.statistics),
            encode_state(&MODEL, &whole, data, numerics),
        ]);
        let mut again = Input::new(&again);
        assert_eq!(decode(&MODEL, again.piece(), again.piece(), optimizer()), Ok(whole));
    });
}
