//! A worker's runtime: carries out what its state machine decides, with a session, a ring and a training thread.

use std::any::Any;
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use strath_collective::Collective;
use strath_core::{Digest, Generation, Rank, Step, Timestamp};
use strath_data::SplitName;
use strath_protocol::message::{
    Admitted, Assign, CoordinatorMessage, DataSummary, EvalReport, FailureKind, FailureReport, Finished, Phase,
    Prepared as PreparedMessage, Progress, Purpose, Register, Split, State, StepReport,
};
use strath_protocol::{Worker, WorkerCommand, WorkerEvent, WorkerOutcome};
use strath_rpc::{ClientTls, RpcError, Session, SessionSender};
use tokio::sync::mpsc;

use crate::checkpoint;
use crate::generation::{Beginning, NotConnected, Ready, Work, connect};
use crate::prepare::{PrepareError, Prepared, prepare};
use crate::step::TrainingState;
use crate::trainer::Told;
use crate::verify;
use crate::whereabouts::Whereabouts;

/// Reports on their way from the training thread to the coordinator.
const REPORTS: usize = 256;
/// At the end, what was queued for the coordinator has this long to leave; where the coordinator asked for the end, and so lives, a
/// lease: a state may be under way.
const FLUSH: Duration = Duration::from_millis(500);

/// What a worker is told when it begins.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// The coordinator, host:port.
    pub coordinator: String,
    /// The worker's certificate, and whose coordinator it obeys; `None`: the connection is in clear.
    pub tls: Option<ClientTls>,
    /// The token that the coordinator handed out, where it did.
    pub token: Option<String>,
    /// Where the data lies on this host, where that is not what the configuration says.
    pub data: Option<PathBuf>,
    /// Where the ring listens; by default any port of the local address of the connection to the coordinator.
    pub listen: Option<SocketAddr>,
    /// The address that peers dial; by default where the ring listens.
    pub advertise: Option<SocketAddr>,
    /// How long to wait for a coordinator that is not there yet.
    pub connect_timeout: Duration,
    /// Where to write this rank's part of a trace, if one is wanted.
    pub trace: Option<PathBuf>,
}

/// Why a worker ended without the run being complete.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The coordinator could not be reached.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The ring's port could not be had.
    #[error("cannot listen on {address} for the ring: {source}; choose another with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The advertised address is none of this host's.
    #[error(
        "cannot listen on {address}, which --advertise names: {source}; say with --listen where the ring listens on this host"
    )]
    Advertise {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The ring would listen on every address but advertise none.
    #[error("--listen {address} is every address of this host: say with --advertise which one the other workers reach")]
    NothingToAdvertise {
        /// The address.
        address: SocketAddr,
    },
    /// The run, or this worker, failed.
    #[error("{0}")]
    Failed(String),
}

/// How a worker ended in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerEnd {
    /// The run is complete.
    Done,
    /// The run was stopped after a checkpoint.
    Stopped,
}

/// Joins a run and takes part until it ends. One that loses its coordinator, or is given up by it, joins again as a newcomer. `stop`:
/// each message is a request to stop, as by a signal; `leave`: why to leave at once, without finishing the step.
///
/// # Errors
/// [`WorkerError`].
pub async fn run(
    settings: WorkerSettings,
    mut stop: mpsc::Receiver<()>,
    mut leave: mpsc::Receiver<String>,
) -> Result<WorkerEnd, WorkerError> {
    let here = Arc::new(if settings.trace.is_some() { Whereabouts::recorded() } else { Whereabouts::default() });
    let (mut prepared, mut lost) = (None, None);
    loop {
        let session = tokio::select! {
            session = Session::connect(&settings.coordinator, settings.connect_timeout, settings.tls.as_ref()) => session,
            Some(()) = stop.recv() => return Ok(WorkerEnd::Stopped),
            Some(reason) = leave.recv() => {
                let when = lost.map_or_else(|| "left before it joined".into(), |lost| format!("{lost}; then left"));
                return Err(WorkerError::Failed(format!("{when}: {reason}")));
            }
        };
        let session = match (session, lost) {
            (Ok(session), _) => session,
            (Err(error), Some(lost)) => return Err(WorkerError::Failed(format!("{lost}; then {error}"))),
            (Err(error), None) => return Err(error.into()),
        };
        let outcome = take_part(&settings, session, &here, &mut prepared, &mut stop, &mut leave).await?;
        match outcome {
            WorkerOutcome::Done | WorkerOutcome::Released => return Ok(WorkerEnd::Done),
            WorkerOutcome::Stopped => return Ok(WorkerEnd::Stopped),
            WorkerOutcome::Lost { message } if prepared.is_some() => {
                tracing::warn!("{message}; joining again");
                lost = Some(message);
            }
            WorkerOutcome::Lost { message } | WorkerOutcome::Failed { message } => {
                return Err(WorkerError::Failed(message));
            }
        }
    }
}

/// One session, from the registration to its end.
async fn take_part(
    settings: &WorkerSettings,
    mut session: Session,
    here: &Arc<Whereabouts>,
    prepared: &mut Option<(String, Prepared)>,
    stop: &mut mpsc::Receiver<()>,
    leave: &mut mpsc::Receiver<String>,
) -> Result<WorkerOutcome, WorkerError> {
    let local_address = session.local_address();
    let (listener, advertised) = listen(settings, local_address)?;
    let register = Register {
        version: env!("CARGO_PKG_VERSION").into(),
        token: settings.token.clone(),
        ring_address: advertised,
        host: host_name(),
        pid: std::process::id(),
        cores: cores() as u32,
    };
    let begun = Instant::now();
    let now = move || Timestamp(begun.elapsed());
    let (events, mut inbox) = mpsc::channel(REPORTS);
    let mut runtime = Runtime {
        machine: Worker::new(settings.coordinator.clone(), register, now()),
        sender: session.sender(),
        events,
        later: VecDeque::new(),
        listener: Some(listener),
        stop: Arc::default(),
        cancelled: Arc::default(),
        settings: settings.clone(),
        local_address,
        held: None,
        here: here.clone(),
        rank: Rank(0),
        generation: Generation(0),
        start: Step(0),
        admitted: None,
        prepared: prepared.take(),
        ready: None,
        peers: None,
    };
    let mut flush = FLUSH;
    let outcome = loop {
        if let Some(outcome) = runtime.carry_out().await {
            break outcome;
        }
        let deadline = runtime.machine.next_deadline().map(|deadline| deadline.since(now()));
        let event = if let Some(event) = runtime.later.pop_front() {
            event
        } else {
            tokio::select! {
                // What training has told goes before what the coordinator says: its last word would leave a state behind.
                biased;
                Some(reason) = leave.recv() => WorkerEvent::LeaveRequested { reason },
                Some(()) = stop.recv() => WorkerEvent::StopRequested,
                event = inbox.recv() => event.map_or(WorkerEvent::Tick, |event| runtime.take(event)),
                message = session.receive() => match message {
                    Ok(message) => WorkerEvent::Message(message),
                    Err(error) => WorkerEvent::Disconnected { cause: error.to_string() },
                },
                () = tokio::time::sleep(deadline.unwrap_or(Duration::from_secs(1))) => WorkerEvent::Tick,
            }
        };
        // Before anything else, so that whatever is said now says where training is.
        if let Some(progress) = runtime.progress() {
            // It is rejected before training and after, when there is nothing to say.
            let _ = runtime.machine.handle(progress, now());
        }
        if let (WorkerEvent::Message(CoordinatorMessage::End(_)), Some(admitted)) = (&event, &runtime.admitted) {
            flush = admitted.lease;
        }
        if let Err(rejected) = runtime.machine.handle(event, now()) {
            tracing::debug!("passed over: {rejected}");
        }
    };
    runtime.halt();
    session.finish(flush).await;
    if let (Some(path), Some(recorder)) = (&settings.trace, here.recorder()) {
        // The run is what counts; whoever asked for the trace is told that a part is missing.
        if let Err(error) = recorder.write(path, runtime.rank) {
            tracing::warn!("{error}");
        }
    }
    *prepared = runtime.prepared.take();
    Ok(outcome)
}

/// The ring's listener and the address that peers are told.
fn listen(settings: &WorkerSettings, local: SocketAddr) -> Result<(TcpListener, SocketAddr), WorkerError> {
    // The ring listens on the advertised address only, unless it is told where: behind an address translation, say.
    let address = settings.listen.or(settings.advertise).unwrap_or_else(|| SocketAddr::new(local.ip(), 0));
    let fail = |source| match settings.advertise {
        Some(advertise) if settings.listen.is_none() => WorkerError::Advertise { address: advertise, source },
        _ => WorkerError::Listen { address, source },
    };
    let listener = TcpListener::bind(address).map_err(fail)?;
    let bound = listener.local_addr().map_err(fail)?;
    let advertised = match settings.advertise {
        // Port 0 stands for the port that was had.
        Some(advertise) if advertise.port() == 0 => SocketAddr::new(advertise.ip(), bound.port()),
        Some(advertise) => advertise,
        None if bound.ip().is_unspecified() => return Err(WorkerError::NothingToAdvertise { address: bound }),
        None => bound,
    };
    Ok((listener, advertised))
}

/// A state between two generations, and its digest, which takes too long for the session's task.
type Held = (Arc<TrainingState>, Digest);

/// Why a ring was not connected, whose fault that is, and the state that was to go on with it.
type Unconnected = (String, FailureKind, Option<Held>);

/// A state that is held from now on.
fn held(state: TrainingState) -> Held {
    let digest = verify::digest(&state);
    (Arc::new(state), digest)
}

/// What other threads report to the session's task.
enum Report {
    Prepared(Box<Result<Prepared, PrepareError>>),
    Connected(Generation, Box<Result<Ready, Unconnected>>),
    /// Of the training thread of a generation.
    Told(Generation, Told),
    /// The training thread has ended, with this state, whose digest is taken.
    Rested(Option<Held>),
    /// The state that is held, as files.
    HandedOver(Box<State>),
    /// A thread panicked in this phase, with this message.
    Panicked(Generation, Phase, String),
}

struct Runtime {
    machine: Worker,
    sender: SessionSender,
    events: mpsc::Sender<Report>,
    /// What follows from the event that is being handled.
    later: VecDeque<WorkerEvent>,
    listener: Option<TcpListener>,
    stop: Arc<AtomicBool>,
    /// Whether the generation is over while its ring is being connected.
    cancelled: Arc<AtomicBool>,
    /// Where the ring listens: as it was told, and the address that the coordinator was reached from.
    settings: WorkerSettings,
    local_address: SocketAddr,
    /// The state of the generation that is over.
    held: Option<Held>,
    /// Where the training thread is.
    here: Arc<Whereabouts>,
    /// The rank in it.
    rank: Rank,
    /// The generation that the training thread works in; 0 before the first.
    generation: Generation,
    /// Completed steps that the generation began with.
    start: Step,
    admitted: Option<Admitted>,
    /// Data and model, and the configuration that they are of.
    prepared: Option<(String, Prepared)>,
    ready: Option<Ready>,
    peers: Option<Arc<Collective>>,
}

impl Runtime {
    /// Starts a thread whose panic is reported like any other failure: nobody else would notice it.
    fn spawn(&self, generation: Generation, phase: Phase, work: impl FnOnce(&mpsc::Sender<Report>) + Send + 'static) {
        let events = self.events.clone();
        std::thread::spawn(move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(&events))) {
                // Nobody listens any more where the session has ended.
                let _ = events.blocking_send(Report::Panicked(generation, phase, panic_message(panic.as_ref())));
            }
        });
    }

    /// Where training is; `None` before it begins.
    fn progress(&self) -> Option<WorkerEvent> {
        let (step, phase, images_per_s) = self.here.get();
        let generation = self.generation;
        (phase != Phase::Joining).then_some(WorkerEvent::Progress(Progress { generation, step, phase, images_per_s }))
    }

    /// Carries out what the machine wants; the outcome, where the session is over.
    async fn carry_out(&mut self) -> Option<WorkerOutcome> {
        while let Some(command) = self.machine.poll_command() {
            match command {
                WorkerCommand::Send(message) => {
                    // A session that breaks is told by its receiver, which knows why.
                    let _ = self.sender.send(message).await;
                }
                WorkerCommand::Prepare(admitted) => self.prepare(admitted),
                WorkerCommand::Connect { assign, state } => self.connect(assign, state),
                WorkerCommand::Run => self.run(),
                WorkerCommand::StopAfterStep => self.stop.store(true, Ordering::Relaxed),
                WorkerCommand::Halt => self.halt(),
                WorkerCommand::HandOver(generation) => self.hand_over(generation),
                WorkerCommand::Exit(outcome) => return Some(outcome),
            }
        }
        None
    }

    fn prepare(&mut self, admitted: Admitted) {
        let (configuration, data) = (admitted.configuration.clone(), self.settings.data.clone());
        self.admitted = Some(admitted);
        if let Some((_, prepared)) = self.prepared.as_ref().filter(|(of, _)| *of == configuration) {
            self.later.push_back(WorkerEvent::Prepared(summarise(prepared)));
            return;
        }
        self.spawn(Generation(0), Phase::Preparing, move |events| {
            let prepared = prepare(&configuration, data);
            // Nobody listens any more where the session has ended; so below.
            let _ = events.blocking_send(Report::Prepared(Box::new(prepared)));
        });
    }

    fn connect(&mut self, assign: Assign, state: Option<State>) {
        let (Some((_, prepared)), Some(listener), Some(admitted)) =
            (self.prepared.clone(), self.listener.take(), self.admitted.clone())
        else {
            return;
        };
        let generation = assign.generation;
        (self.generation, self.start, self.rank) = (generation, assign.start, assign.rank);
        self.cancelled = Arc::default();
        self.stop = Arc::default();
        let (cancelled, kept) = (self.cancelled.clone(), self.held.take());
        self.spawn(generation, Phase::Connecting, move |events| {
            // Only a hand-over that is still under way has the state too.
            let kept = kept.map(|(state, _)| Arc::try_unwrap(state).unwrap_or_else(|state| (*state).clone()));
            let beginning = Beginning { prepared, listener, admitted, assign, sent: state, held: kept };
            let ready = connect(beginning, &cancelled).map_err(|error| {
                let NotConnected { message, kind, state } = error;
                (message, kind, state.map(|state| held(*state)))
            });
            let _ = events.blocking_send(Report::Connected(generation, Box::new(ready)));
        });
    }

    /// Ends whatever is at work in the generation. A ring that is connected and not in use rests at once.
    fn halt(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        if let Some(peers) = self.peers.take() {
            peers.abort();
            leave_behind(peers);
        }
        if let Some(Ready { work, peers, .. }) = self.ready.take() {
            self.rests(work.into_state().map(held));
            leave_behind(peers);
        }
    }

    /// The threads of the generation are through. The next needs a listener of its own; its address is what the machine is to know.
    fn rests(&mut self, state: Option<Held>) {
        if let Some(peers) = self.peers.take() {
            leave_behind(peers);
        }
        let held = state.as_ref().map(|(state, digest)| (Step(state.step), *digest));
        self.held = state;
        let event = match listen(&self.settings, self.local_address) {
            Ok((listener, ring_address)) => {
                self.listener = Some(listener);
                WorkerEvent::Rested { generation: self.generation, held, ring_address }
            }
            Err(error) => {
                let step = held.map_or(self.start, |(step, _)| step);
                failed(self.generation, step, Phase::Waiting, error.to_string(), FailureKind::Machine)
            }
        };
        self.later.push_back(event);
    }

    /// The state that is held, as files.
    fn hand_over(&mut self, generation: Generation) {
        let (Some((state, _)), Some((_, prepared))) = (self.held.clone(), self.prepared.clone()) else { return };
        self.spawn(generation, Phase::Waiting, move |events| {
            let model = checkpoint::encode_model(&prepared.model, &state.weights, &state.statistics);
            let optimizer =
                checkpoint::encode_state(&prepared.model, &state, prepared.dataset.digest(), prepared.numerics);
            let (step, purpose) = (Step(state.step), Purpose::Handover);
            drop(state);
            let state = State { generation, step, purpose, model: model.into(), optimizer: optimizer.into() };
            let _ = events.blocking_send(Report::HandedOver(Box::new(state)));
        });
    }

    fn run(&mut self) {
        let Some(Ready { generation, peers, work }) = self.ready.take() else { return };
        let (stop, cancelled, here) = (self.stop.clone(), self.cancelled.clone(), self.here.clone());
        here.enter(self.start.0, Phase::Ascent);
        self.spawn(generation, Phase::Ascent, move |events| {
            let tell = |told| _ = events.blocking_send(Report::Told(generation, told));
            let state = match work {
                Work::Train(training) => Some(held(training.run(&stop, &cancelled, &here, tell))),
                Work::Evaluate(evaluating) => {
                    evaluating.run(&peers, &here, tell);
                    None
                }
            };
            let _ = events.blocking_send(Report::Rested(state));
        });
    }

    /// What a report means to the machine.
    fn take(&mut self, report: Report) -> WorkerEvent {
        match report {
            Report::Prepared(prepared) => match *prepared {
                Ok(prepared) => {
                    let message = summarise(&prepared);
                    let configuration = self.admitted.as_ref().map(|admitted| admitted.configuration.clone());
                    self.prepared = Some((configuration.unwrap_or_default(), prepared));
                    WorkerEvent::Prepared(message)
                }
                Err(error) => WorkerEvent::Failed(FailureReport {
                    generation: Generation(0),
                    step: Step(0),
                    phase: Phase::Preparing,
                    kind: if error.is_of_configuration() { FailureKind::Configuration } else { FailureKind::Own },
                    message: error.to_string(),
                }),
            },
            Report::Connected(generation, ready) => {
                let is_over = self.cancelled.load(Ordering::Relaxed);
                match *ready {
                    Ok(Ready { work, peers, .. }) if is_over => {
                        self.rests(work.into_state().map(held));
                        leave_behind(peers);
                        WorkerEvent::Tick
                    }
                    Ok(ready) => {
                        self.peers = Some(ready.peers.clone());
                        self.ready = Some(ready);
                        WorkerEvent::RingConnected(generation)
                    }
                    Err((message, kind, state)) => {
                        self.rests(state);
                        if is_over && kind != FailureKind::Own {
                            WorkerEvent::Tick
                        } else {
                            failed(generation, self.start, Phase::Connecting, message, kind)
                        }
                    }
                }
            }
            Report::Told(generation, told) => translate(generation, told),
            Report::Rested(state) => {
                self.rests(state);
                WorkerEvent::Tick
            }
            Report::HandedOver(state) => WorkerEvent::StateReady(*state),
            Report::Panicked(generation, phase, message) => {
                let (step, last, _) = self.here.get();
                let phase = if last == Phase::Joining { phase } else { last };
                let message = format!("a fault of the program, please report it: {message}");
                failed(generation, step.max(self.start), phase, message, FailureKind::Machine)
            }
        }
    }
}

/// Lets go of connections, which may take as long as what is still owed to peers takes to leave.
fn leave_behind(peers: Arc<Collective>) {
    std::thread::spawn(move || drop(peers));
}

/// What a word of the training thread of a generation means to the machine.
fn translate(generation: Generation, told: Told) -> WorkerEvent {
    match told {
        Told::Stepped { step, outcome, seconds } => WorkerEvent::Stepped(StepReport {
            generation,
            step: Step(step),
            clean_loss: outcome.clean_loss,
            perturbed_loss: outcome.perturbed_loss,
            lr: outcome.lr,
            gradient_norm: outcome.gradient_norm,
            epsilon_norm: outcome.epsilon_norm,
            zero_gradient_lanes: outcome.zero_gradient_lanes,
            seconds,
            phases: outcome.seconds,
        }),
        Told::Evaluated { step, split, evaluation } => WorkerEvent::Evaluated(EvalReport {
            generation,
            step: Step(step),
            split: match split {
                SplitName::Train => Split::Train,
                SplitName::Test => Split::Test,
            },
            loss: evaluation.loss,
            error: evaluation.error,
        }),
        Told::State { step, is_final, model, optimizer } => WorkerEvent::StateReady(State {
            generation,
            step: Step(step),
            purpose: if is_final { Purpose::Final } else { Purpose::Checkpoint },
            model: model.into(),
            optimizer: optimizer.into(),
        }),
        Told::Finished { step, weights, stopped } => {
            WorkerEvent::Finished(Finished { generation, step: Step(step), weights, stopped })
        }
        Told::Failed { step, phase, message, kind } => failed(generation, Step(step), phase, message, kind),
    }
}

/// What a panic said.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".into())
}

fn failed(generation: Generation, step: Step, phase: Phase, message: String, kind: FailureKind) -> WorkerEvent {
    WorkerEvent::Failed(FailureReport { generation, step, phase, kind, message })
}

fn summarise(prepared: &Prepared) -> PreparedMessage {
    let dataset = &prepared.dataset;
    let shape = dataset.shape();
    PreparedMessage {
        data: DataSummary {
            digest: dataset.digest(),
            train_examples: dataset.split(SplitName::Train).len() as u64,
            test_examples: dataset.split(SplitName::Test).len() as u64,
            channels: shape.channels as u32,
            height: shape.height as u32,
            width: shape.width as u32,
            classes: dataset.classes() as u32,
            mean: dataset.normalisation().mean.clone(),
            std: dataset.normalisation().std.clone(),
        },
        parameters: prepared.model.parameters().len() as u64,
        statistics: prepared.model.statistics().len() as u64,
        numerics: prepared.numerics,
    }
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub(crate) fn host_name() -> String {
    hostname::get().map_or_else(|_| "unknown".into(), |name| name.to_string_lossy().into_owned())
}
