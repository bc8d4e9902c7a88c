//! Whole steps on the emulated device: how often the host waits for it, and what is told of a step that has diverged.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::sync::Arc;

use strath_collective::Collective;
use strath_core::config::{Compute, Config};
use strath_core::{After, Assignment, Finish, Generation, RunId};
use strath_cuda::Gpu;
use strath_data::{Dataset, Loader};
use strath_emulator::Emulator;
use strath_model::{Method, Model};
use strath_node::flat::Place;
use strath_node::outcome::{StepError, StepOutcome};
use strath_node::resident::Resident;
use strath_node::state::TrainingState;
use strath_node::step::Stepper;
use strath_sam::Optimizer;

/// A run of one rank, somewhere.
struct Run {
    stepper: Stepper,
    state: Resident,
    peers: Arc<Collective>,
}

impl Run {
    /// A small network on the digits; `spoil` may change its weights.
    fn new(gpu: Option<&Gpu>, sets: &str, spoil: impl FnOnce(&mut [f32])) -> Self {
        let text = format!("[data]\nkind = \"digits\"\n[model]\nkind = \"convnet\"\n[batch]\nsize = 64\n{sets}");
        let config = Config::from_toml(&text).unwrap();
        let dataset = Arc::new(Dataset::load(&config.data, 0).unwrap());
        let model = Model::build(&config.model.kind, dataset.shape(), dataset.classes(), Method::Auto).unwrap();
        let model = model.on(gpu.cloned());
        let plan = config.plan().unwrap();
        let mut weights = model.initial(0);
        spoil(&mut weights);
        let state = TrainingState {
            step: 0,
            optimizer: Optimizer::new(&config.optimizer, config.optimizer.weight_decay, weights.len()),
            weights: Arc::new(weights),
            statistics: model.initial_statistics(),
            epoch_loss: None,
        };
        let state = Resident::new(state, &Place::from(gpu)).map_err(|(error, _)| error).unwrap();
        let peers = Arc::new(Collective::alone(RunId(1), Generation(1)));
        let loader = Loader::new(dataset, plan.batch(), 0, true, Vec::new());
        let finish = Finish::of(&config, 64, 100);
        let assignment = Assignment::balanced(&plan, 1);
        let stepper = Stepper::new(config, model, loader, plan, &assignment, &peers, finish).unwrap();
        Self { stepper, state, peers }
    }

    fn step(&mut self) -> Result<StepOutcome, StepError> {
        self.stepper.sam_step(&mut self.state, &self.peers, After::GoOn, |_| {})
    }
}

#[test]
fn a_step_of_many_lanes_waits_for_the_device_no_more_often_than_one_of_two() {
    let Some(gpu) = Emulator::or_skip(Compute::F32).map(Gpu::new) else { return };
    let waits = |sets: &str| {
        let mut run = Run::new(Some(&gpu), sets, |_| {});
        let each = [0, 1, 2].map(|_| {
            let before = gpu.waits();
            run.step().unwrap();
            gpu.waits() - before
        });
        assert_eq!(each, [each[0]; 3], "{sets}");
        each[0]
    };
    let few = waits("[sam]\nm = 32\n");
    // For what it told, and for the norm of the gradient.
    assert_eq!(few, 2);
    for sets in ["[sam]\nm = 4\n", "micro = 4\n[sam]\nm = 16\n", "[sam]\nrho = 0.0\nm = 8\n"] {
        assert_eq!(waits(sets), few, "{sets}");
    }
}

#[test]
fn what_a_device_tells_later_is_what_the_processor_tells_at_once() {
    let Some(gpu) = Emulator::or_skip(Compute::F32).map(Gpu::new) else { return };
    for sets in ["[sam]\nm = 16\n", "micro = 8\n[sam]\nm = 16\n", "[sam]\nrho = 0.0\nm = 32\n"] {
        let [here, there] = [None, Some(&gpu)].map(|gpu| {
            let mut run = Run::new(gpu, sets, |_| {});
            [0, 1].map(|_| run.step().unwrap())
        });
        for (here, there) in here.iter().zip(&there) {
            let close = |a: f64, b: f64| assert!((a - b).abs() <= 1e-4 * a.abs(), "{sets}: {a} {b}");
            close(here.clean_loss, there.clean_loss);
            close(here.perturbed_loss, there.perturbed_loss);
            close(here.epsilon_norm, there.epsilon_norm);
            close(here.gradient_norm, there.gradient_norm);
            assert_eq!(here.zero_gradient_lanes, there.zero_gradient_lanes);
        }
    }
}

#[test]
fn a_step_that_has_diverged_is_told_alike() {
    let Some(gpu) = Emulator::or_skip(Compute::F32).map(Gpu::new) else { return };
    for sets in
        ["[sam]\nm = 16\n", "micro = 8\n[sam]\nm = 16\n", "[sam]\nrho = 0.0\nm = 32\n", "[sam]\nm = 64\nrho = 1e38\n"]
    {
        for value in [f32::NAN, 1e30, 0.1] {
            let [here, there] = [None, Some(&gpu)].map(|gpu| {
                let mut run = Run::new(gpu, sets, |weights| weights[3] = value);
                run.step().map(|_| ()).map_err(|error| error.to_string())
            });
            assert_eq!(here, there, "{sets} {value}");
            assert!(here.is_err() || value == 0.1, "{sets} {value}");
        }
    }
}
