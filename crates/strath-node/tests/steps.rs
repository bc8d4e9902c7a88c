//! Whole steps on the emulated device: how often the host waits for it, and what is told of a step that has diverged.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use strath_collective::{Collective, Identity, Member};
use strath_core::config::{Algorithm, Compute, Config, Transport};
use strath_core::{After, Assignment, Finish, Generation, Rank, RingKey, RunId};
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

/// One rank of a run, somewhere.
struct Run {
    stepper: Stepper,
    state: Resident,
    peers: Arc<Collective>,
}

impl Run {
    /// A small network on the digits, of one rank; `spoil` may change its weights.
    fn new(gpu: Option<&Gpu>, sets: &str, spoil: impl FnOnce(&mut [f32])) -> Self {
        Self::among(Collective::alone(RunId(1), Generation(1)), gpu, sets, spoil)
    }

    /// The same, of one among others.
    fn among(peers: Collective, gpu: Option<&Gpu>, sets: &str, spoil: impl FnOnce(&mut [f32])) -> Self {
        let size = if sets.starts_with("size") { "" } else { "size = 64\n" };
        let model = if sets.contains("[model]") { "" } else { "[model]\nkind = \"convnet\"\n" };
        let text = format!("[data]\nkind = \"digits\"\n{model}[batch]\n{size}{sets}");
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
        let peers = Arc::new(peers);
        let loader = Loader::new(dataset, plan.batch(), 0, true, Vec::new());
        let finish = Finish::of(&config, 64, 100);
        let assignment = Assignment::balanced(&plan, peers.identity().world_size as usize);
        let stepper = Stepper::new(config, model, loader, plan, &assignment, &peers, finish).unwrap();
        Self { stepper, state, peers }
    }

    fn step(&mut self) -> Result<StepOutcome, StepError> {
        self.stepper.sam_step(&mut self.state, &self.peers, After::GoOn, |_| {})
    }
}

/// What each of two ranks does that are connected over loopback, of one host or as if of two.
fn two_ranks<T: Send>(hosts: [&str; 2], does: impl Fn(Collective) -> T + Sync) -> Vec<T> {
    let listeners = hosts.map(|host| TcpListener::bind((host, 0)).unwrap());
    let addresses = listeners.each_ref().map(|listener| listener.local_addr().unwrap());
    let members: Vec<_> = (0..).zip(addresses).map(|(rank, address)| Member { rank: Rank(rank), address }).collect();
    thread::scope(|scope| {
        let (members, does) = (&members, &does);
        let rank = |(rank, listener)| {
            scope.spawn(move || {
                let (run, generation) = (RunId(1), Generation(1));
                let ticket = RingKey([3; 16]).ticket(run, generation);
                let me = Identity { run, generation, rank: Rank(rank), world_size: 2, ticket };
                let how = (Algorithm::Auto, Transport::Tcp);
                does(Collective::connect(listener, me, members, how, Duration::from_secs(20)).unwrap())
            })
        };
        let ranks: Vec<_> = (0..).zip(listeners).map(rank).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

#[test]
fn a_lane_that_two_ranks_share_has_the_bits_of_one_ranks_and_its_fault() {
    // One lane, shared; and three, the middle one shared, on two streams of either.
    for sets in ["micro = 16\n[sam]\nm = 64\n", "size = 48\nmicro = 4\n[sam]\nm = 16\n[cluster]\nstreams = 2\n"] {
        for value in [0.1, f32::NAN, 1e30] {
            let run = |peers: Collective| {
                let gpu = Emulator::or_skip(Compute::F32).map(Gpu::new)?;
                let mut run = Run::among(peers, Some(&gpu), sets, |weights| weights[3] = value);
                let told = run.step().and_then(|_| run.step()).map(|_| ()).map_err(|error| error.to_string());
                let weights: Vec<_> = run.state.on_host().unwrap().weights.iter().map(|w| w.to_bits()).collect();
                Some((told, weights))
            };
            let Some(alone) = run(Collective::alone(RunId(1), Generation(1))) else { return };
            assert_eq!(alone.0.is_ok(), value == 0.1, "{sets} {value}: {:?}", alone.0);
            for rank in two_ranks(["127.0.0.1"; 2], run) {
                let (told, weights) = rank.unwrap();
                assert_eq!(told, alone.0, "{sets}");
                assert!(weights == alone.1, "{sets} {value}");
            }
        }
    }
}

/// What is done to weights before the first step.
type Spoil = fn(&mut [f32]);

/// Has one value of the last layer's no number: the loss is at fault, before anything leaves.
fn no_number(weights: &mut [f32]) {
    *weights.last_mut().unwrap() = f32::NAN;
}

/// What is at fault without an epsilon where the weights are [steep].
const STEEP: &str = "descent gradient of layers.1";

/// Has a neuron of the second layer say next to nothing, and the last layer make much of it: the loss is as it was, and that layer's gradient out of range.
fn steep(weights: &mut [f32]) {
    // Each layer's bias, then its weights.
    let (bias, row, rows) = (64 * 2048 + 2048, 2048, 256);
    let (first, last) = (bias + rows, bias + rows + rows * row + 10);
    weights[first..first + row].iter_mut().for_each(|weight| *weight *= 1e-8);
    (weights[bias], weights[last]) = (0.0, 1e8);
}

#[test]
fn a_gradient_that_leaves_the_device_piece_by_piece_has_the_bits_of_one_that_is_sent_whole_and_its_fault() {
    // One micro-batch a rank and several, a lane that both share, and decay that is part of the loss.
    for sets in [
        "size = 16\n[sam]\nm = 8\n",
        "size = 16\n[sam]\nm = 2\n[cluster]\nstreams = 2\n",
        "size = 16\nmicro = 4\n[sam]\nm = 16\n",
        "size = 16\n[sam]\nm = 4\nweight_decay = \"inside\"\n[optimizer]\nweight_decay = 0.01\n[cluster]\nstreams = 2\n",
        "size = 16\n[sam]\nrho = 0.0\nm = 8\n",
    ] {
        let model = "[model]\nkind = \"mlp\"\nhidden = [2048, 256]\n";
        let spoils: [(Spoil, &str); 3] = [(|_| (), ""), (no_number, "loss"), (steep, STEEP)];
        for (spoil, at_fault) in spoils {
            let run = |peers: Collective| {
                let gpu = Emulator::or_skip(Compute::F32).map(Gpu::new)?;
                let world_size = peers.identity().world_size;
                let mut run = Run::among(peers, Some(&gpu), &format!("{sets}{model}"), spoil);
                let told = run.step().and_then(|first| Ok([first, run.step()?]));
                let pieces = told.as_ref().map_or(0, |steps| steps[1].travelled.len());
                assert_eq!(pieces > 0, world_size == 2 && told.is_ok(), "{sets}");
                let told = told.map(|_| ()).map_err(|error| error.to_string());
                let weights: Vec<_> = run.state.on_host().unwrap().weights.iter().map(|w| w.to_bits()).collect();
                Some((told, weights))
            };
            let Some(alone) = run(Collective::alone(RunId(1), Generation(1))) else { return };
            let error = alone.0.as_ref().err().map_or("", String::as_str);
            // With epsilon it shows in the loss already, or in the sum of a lane's micro-batches.
            let at_fault = if at_fault == STEEP && !sets.contains("rho = 0.0") { "lane" } else { at_fault };
            assert!(error.contains(at_fault) && error.is_empty() == at_fault.is_empty(), "{sets}: {error}");
            let one_host = two_ranks(["127.0.0.1"; 2], run);
            for rank in two_ranks(["127.0.0.1", "127.0.0.2"], run).into_iter().chain(one_host) {
                let (told, weights) = rank.unwrap();
                assert_eq!(told, alone.0, "{sets}");
                assert!(weights == alone.1, "{sets}{at_fault}");
            }
        }
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
    // For what each stream told, and for the norm of the gradient.
    for (streams, few) in [(1, 2), (2, 4)] {
        let streams = format!("[cluster]\nstreams = {streams}\n");
        for sets in [
            "[sam]\nm = 32\n",
            "[sam]\nm = 4\n",
            "micro = 4\n[sam]\nm = 16\n",
            "[sam]\nrho = 0.0\nm = 8\n",
            "[sam]\nm = 8\nnorm = \"inf\"\n",
            "[sam]\nm = 8\nnorm = 3.0\nadaptive = true\n",
            "[sam]\nm = 8\ndirection = \"random\"\n",
        ] {
            assert_eq!(waits(&format!("{sets}{streams}")), few, "{sets}{streams}");
        }
    }
}

/// Settings whose last table may be `cluster`, with a number of streams.
fn on_streams(sets: &str, streams: usize) -> String {
    let table = if sets.contains("[cluster]") { "" } else { "[cluster]\n" };
    format!("{sets}{table}streams = {streams}\n")
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_streams() {
    for sets in [
        "[sam]\nm = 8\n",
        "micro = 4\n[sam]\nm = 16\n",
        "[sam]\nrho = 0.0\nm = 8\n",
        "[sam]\nm = 16\nadaptive = true\nweight_decay = \"inside\"\n[optimizer]\nweight_decay = 0.01\n",
        "[sam]\nm = 16\ndirection = \"random\"\n",
        "[sam]\nm = 16\nnorm = 3.0\n[telemetry]\nevery = 1\n",
        "[sam]\nm = 8\n[cluster]\nreduce = \"f32\"\n",
        "micro = 8\n[sam]\nm = 16\nperturb = \"no-norm\"\n[telemetry]\nevery = 1\n",
    ] {
        let weights = |streams: usize| {
            let gpu = Emulator::or_skip(Compute::F32).map(Gpu::new)?;
            let mut run = Run::new(Some(&gpu), &on_streams(sets, streams), |_| {});
            let told = [0, 1, 2].map(|_| {
                let StepOutcome { clean_loss, perturbed_loss, epsilon_norm, gradient_norm, .. } = run.step().unwrap();
                [clean_loss, perturbed_loss, epsilon_norm, gradient_norm].map(f64::to_bits)
            });
            let weights =
                run.state.on_host().unwrap().weights.iter().map(|weight| weight.to_bits()).collect::<Vec<_>>();
            Some((told, weights))
        };
        let Some(one) = weights(1) else { return };
        // Each on a device of its own, with an order of its own.
        for streams in [2, 2, 3, 7] {
            assert!(weights(streams).unwrap() == one, "{sets}, {streams} streams");
        }
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
