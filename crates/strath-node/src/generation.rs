//! A generation made ready on one rank: its state decoded, its ring connected, its work laid out.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use strath_collective::{Collective, CollectiveError, Identity, Member, Patience, RingTls};
use strath_core::config::{Config, WeightDecay};
use strath_core::{Assignment, Digest, Evaluations, Finish, Generation, Rank, Step};
use strath_data::{Loader, SplitName};
use strath_model::Model;
use strath_protocol::message::{Admitted, Assign, FailureKind, Job, Phase, Split, State};
use strath_rpc::{ClientTls, Credentials};
use strath_sam::Optimizer;

use crate::checkpoint::{self, CheckpointError};
use crate::evaluate::{EvaluateError, evaluate};
use crate::feed::Audience;
use crate::flat::{Place, Weights};
use crate::gpus::Offer;
use crate::measure::{MeasureError, Measurement, Measuring};
use crate::pace::Pace;
use crate::prepare::Prepared;
use crate::resident::Resident;
use crate::state::TrainingState;
use crate::step::Stepper;
use crate::trainer::{Told, Training, kind_of, kind_of_collective, lost_peer};
use crate::verify;
use crate::whereabouts::Whereabouts;
use crate::worker::cores;

/// Ranks of a generation connect to each other within this time, or one of them is given up.
const RING_DEADLINE: Duration = Duration::from_secs(10);
/// A state that one of them is sent first comes with at least so many bytes a second.
const LEAST_BYTES_PER_S: usize = 1 << 20;

/// A generation that is connected and waits for the start.
pub(crate) struct Ready {
    pub(crate) generation: Generation,
    pub(crate) peers: Arc<Collective>,
    pub(crate) work: Work,
    /// What this rank offers to sums of GPUs.
    pub(crate) offer: Offer,
}

/// What a rank does in a generation.
pub(crate) enum Work {
    Train(Box<Training>),
    Evaluate(Box<Evaluating>),
    Measure(Box<Measure>),
}

/// A measurement on this rank.
pub(crate) struct Measure {
    measuring: Measuring,
    /// What ranks agree on at the end.
    weights: Digest,
    rank: Rank,
    step: Step,
}

/// What a rank needs to evaluate a checkpoint.
pub(crate) struct Evaluating {
    prepared: Prepared,
    loader: Loader,
    weights: Weights,
    statistics: Vec<f32>,
    checkpoint: Digest,
    split: Split,
    rank: Rank,
    world_size: u32,
    step: Step,
}

/// A state between two generations, and its digest: whoever has ended the generation takes it, as that takes its time.
pub(crate) type Held = (Arc<TrainingState>, Digest);

/// A state that is held from now on.
pub(crate) fn held(state: TrainingState) -> Held {
    let digest = verify::digest(&state);
    (Arc::new(state), digest)
}

/// What a generation begins with.
pub(crate) struct Beginning {
    pub(crate) prepared: Prepared,
    pub(crate) listener: TcpListener,
    /// The worker's certificate, where it has one: then its ring is encrypted too.
    pub(crate) tls: Option<ClientTls>,
    pub(crate) admitted: Admitted,
    pub(crate) assign: Assign,
    /// The state that the coordinator sent.
    pub(crate) sent: Option<State>,
    /// The state that this worker holds.
    pub(crate) kept: Option<Held>,
    /// Those who will join the generation.
    pub(crate) audience: Audience,
}

/// Why a generation was not connected.
pub(crate) struct NotConnected {
    pub(crate) message: String,
    /// Whose fault it is.
    pub(crate) kind: FailureKind,
    /// The state that it was to begin with, where there is one.
    pub(crate) state: Option<Held>,
}

/// Connects the ring of a generation and makes everything ready for its first step, unless it is `cancelled` before.
pub(crate) fn connect(beginning: Beginning, cancelled: &AtomicBool) -> Result<Ready, NotConnected> {
    let Beginning { prepared, listener, tls, admitted, assign, sent, kept, audience } = beginning;
    let own = |error: &dyn std::fmt::Display| NotConnected {
        message: error.to_string(),
        kind: FailureKind::Own,
        state: None,
    };
    let config = prepared.config.clone();
    let plan = config.plan().map_err(|error| own(&error))?;
    let assignment =
        Assignment::from_bounds(assign.bounds.clone(), plan.micro_batches().len()).map_err(|error| own(&error))?;
    strath_kernels::threads::set(threads(&config, &assign));
    let state = match kept.filter(|_| assign.keeps) {
        // Only a hand-over that is still under way has it too.
        Some((kept, _)) => Arc::try_unwrap(kept).unwrap_or_else(|kept| (*kept).clone()),
        None => initial_state(&prepared, &config, sent.as_ref(), assign.state_source()).map_err(|error| own(&error))?,
    };
    let slots: usize = state.optimizer.slots().iter().map(|(_, values)| values.len()).sum();
    let bytes = size_of::<f32>() * (state.weights.len() + state.statistics.len() + slots);
    let to_be_sent = if assign.some_are_sent { bytes.div_ceil(LEAST_BYTES_PER_S) } else { 0 };
    let deadline = RING_DEADLINE + Duration::from_secs(to_be_sent as u64);
    let tls = tls.map(|tls| ring_tls(tls.credentials())).transpose().map_err(|error| own(&error))?;
    let patience = Patience::with_lease(deadline, Duration::from_millis(config.cluster.lease_ms));
    let peers = match ring(listener, &admitted, &assign, &config, tls.as_ref(), patience, cancelled) {
        Ok(peers) => Arc::new(peers),
        Err(error) => {
            let kind = kind_of_collective(&error);
            return Err(NotConnected { message: error.to_string(), kind, state: Some(held(state)) });
        }
    };
    let seed = config.run.seed;
    let loader =
        Loader::new(prepared.dataset.clone(), plan.batch(), seed, config.data.shuffle, config.data.augment.clone());
    let world_size = assign.members.len() as u32;
    let place = Place::from(prepared.model.gpu());
    let offer = if world_size > 1 && admitted.job == Job::Train {
        Offer::of(&prepared, tls.is_some(), assign.rank)
    } else {
        Offer::default()
    };
    let work = match &admitted.job {
        Job::Evaluate(split) => Work::Evaluate(Box::new(Evaluating {
            checkpoint: checkpoint::digest(&prepared.model, &state.weights, &state.statistics),
            prepared,
            loader,
            weights: place.weights(state.weights).map_err(|error| own(&error))?,
            statistics: state.statistics,
            split: *split,
            rank: assign.rank,
            world_size,
            step: assign.start,
        })),
        Job::Measure(measurement) => {
            let measurement = Measurement::from_text(measurement).map_err(|error| own(&error))?;
            let weights = checkpoint::digest(&prepared.model, &state.weights, &state.statistics);
            let TrainingState { weights: at, statistics, .. } = state;
            let measuring = Measuring { prepared, loader, weights: at, statistics, checkpoint: weights, measurement };
            Work::Measure(Box::new(Measure { measuring, weights, rank: assign.rank, step: assign.start }))
        }
        Job::Train => {
            let finish = finish(&prepared, assign.steps.0);
            let Prepared { dataset, model, numerics, .. } = prepared;
            let train_examples = dataset.split(SplitName::Train).len() as u64;
            let evaluations = Evaluations::of(&config, train_examples, assign.steps.0);
            let checkpoint_every = config.checkpoint.every_steps;
            let state = match Resident::new(state, &place) {
                Ok(state) => state,
                Err((error, state)) => {
                    let (message, kind) = (error.to_string(), FailureKind::Machine);
                    return Err(NotConnected { message, kind, state: Some(held(*state)) });
                }
            };
            let stepper = Stepper::new(config, model, loader, plan, &assignment, &peers, finish)
                .map_err(|error| own(&error))?
                .with_audience(audience);
            Work::Train(Box::new(Training {
                stepper,
                state,
                unsettled: assign.unsettled,
                peers: peers.clone(),
                communicator: None,
                rank: assign.rank,
                world_size,
                finish,
                evaluations,
                checkpoint_every,
                data: dataset.digest(),
                numerics,
                pace: Pace::default(),
            }))
        }
    };
    Ok(Ready { generation: assign.generation, peers, work, offer })
}

/// The state that the generation starts from: what the coordinator sent, or the seed's.
fn initial_state(
    prepared: &Prepared,
    config: &Config,
    state: Option<&State>,
    source: &str,
) -> Result<TrainingState, String> {
    let model = &prepared.model;
    let optimizer = optimizer(config, model);
    let epoch_loss = config.run.stop_loss.map(|_| 0.0);
    let Some(state) = state else {
        let (weights, statistics) = (model.initial(config.run.seed).into(), model.initial_statistics());
        return Ok(TrainingState { step: 0, weights, statistics, optimizer, epoch_loss });
    };
    let decoded = if state.optimizer.is_empty() {
        checkpoint::decode_model(model, &state.model).map(|(weights, statistics)| TrainingState {
            step: state.step.0,
            weights: weights.into(),
            statistics,
            optimizer,
            epoch_loss,
        })
    } else {
        let decoded = checkpoint::decode(model, &state.model, &state.optimizer, optimizer);
        decoded.and_then(|state| match (epoch_loss, state.epoch_loss) {
            (Some(_), None) => Err(CheckpointError::NoEpochLoss),
            (None, _) => Ok(TrainingState { epoch_loss, ..state }),
            _ => Ok(state),
        })
    };
    decoded.map_err(|error| format!("{source}: {error}"))
}

/// When a run of so many planned steps is over.
pub(crate) fn finish(prepared: &Prepared, steps: u64) -> Finish {
    Finish::of(&prepared.config, prepared.dataset.split(SplitName::Train).len() as u64, steps)
}

/// The run's optimizer, its state zero.
pub(crate) fn optimizer(config: &Config, model: &Model) -> Optimizer {
    let decay = match config.sam.weight_decay {
        WeightDecay::Outside => config.optimizer.weight_decay,
        WeightDecay::Inside => 0.0,
    };
    Optimizer::new(&config.optimizer, decay, model.parameters().len())
}

fn ring(
    listener: TcpListener,
    admitted: &Admitted,
    assign: &Assign,
    config: &Config,
    tls: Option<&RingTls>,
    patience: Patience,
    cancelled: &AtomicBool,
) -> Result<Collective, CollectiveError> {
    let world_size = assign.members.len() as u32;
    let Assign { generation, rank, ticket, .. } = *assign;
    let identity = Identity { run: admitted.run, generation, rank, world_size, ticket };
    let members: Vec<Member> = (0..world_size)
        .zip(&assign.members)
        .map(|(rank, member)| Member { rank: Rank(rank), address: member.ring_address })
        .collect();
    let how = (config.cluster.algorithm, config.cluster.transport);
    Collective::connect_unless(listener, identity, &members, how, tls, patience, cancelled)
}

/// What a worker with this certificate shows to its peers.
///
/// # Errors
/// rustls's, where certificate and key do not fit together.
pub fn ring_tls(credentials: &Credentials) -> Result<RingTls, String> {
    let Credentials { authority, chain, key, name } = credentials;
    let tls = RingTls::new(authority.clone(), chain.clone(), key.clone_key(), name);
    tls.map_err(|error| format!("this worker's certificate cannot be used on the ring: {error}"))
}

/// `cluster.threads`, or the cores of this host over the members on it.
fn threads(config: &Config, assign: &Assign) -> usize {
    let here = assign.members.get(assign.rank.index()).map(|member| member.ring_address.ip());
    let beside = assign.members.iter().filter(|member| Some(member.ring_address.ip()) == here).count();
    config.cluster.threads.unwrap_or(cores() / beside.max(1)).max(1)
}

impl Work {
    /// The state that it would have begun with, where that is of use to the next generation.
    pub(crate) fn into_state(self) -> Option<TrainingState> {
        match self {
            // One that was not trained is as it came.
            Self::Train(training) => training.state.into_host().ok(),
            Self::Evaluate(_) | Self::Measure(_) => None,
        }
    }
}

impl Measure {
    pub(crate) fn run(
        self,
        peers: &Collective,
        cancelled: &AtomicBool,
        here: &Whereabouts,
        mut tell: impl FnMut(Told),
    ) {
        let Self { measuring, weights, rank, step } = self;
        let result = measuring.run(peers, cancelled, here, &mut |advance| tell(Told::Measuring(advance)));
        match result {
            Ok(result) => {
                if rank == Rank(0) {
                    tell(Told::Measured(result));
                }
                tell(Told::Finished { step: step.0, weights, stopped: false });
            }
            // Whoever cancelled it knows.
            Err(MeasureError::Cancelled | MeasureError::Collective(CollectiveError::Aborted { .. })) => {}
            Err(error) => {
                let kind = match &error {
                    MeasureError::Collective(error) => kind_of_collective(error),
                    _ => FailureKind::Own,
                };
                tell(Told::Failed { step: step.0, phase: Phase::Evaluate, message: error.to_string(), kind });
            }
        }
    }
}

impl Evaluating {
    pub(crate) fn run(self, peers: &Collective, here: &Whereabouts, mut tell: impl FnMut(Told)) {
        let split = match self.split {
            Split::Train => SplitName::Train,
            Split::Validation => SplitName::Validation,
            Split::Test => SplitName::Test,
            Split::Noisy => SplitName::Noisy,
        };
        let model = &self.prepared.model;
        let (step, rank, world_size) = (self.step, self.rank, self.world_size);
        here.enter(step.0, Phase::Evaluate);
        match evaluate(model, &self.weights, &self.statistics, &self.loader, split, peers, rank, world_size, step) {
            Ok(evaluation) => {
                if rank == Rank(0) {
                    tell(Told::Evaluated { step: step.0, split, evaluation });
                }
                tell(Told::Finished { step: step.0, weights: self.checkpoint, stopped: false });
            }
            Err(error) => {
                let lost = if let EvaluateError::Collective(error) = &error { lost_peer(error) } else { None };
                tell(Told::Failed {
                    step: step.0,
                    phase: Phase::Evaluate,
                    message: error.to_string(),
                    kind: kind_of(lost),
                });
            }
        }
    }
}
