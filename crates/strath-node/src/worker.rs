//! A worker's runtime: carries out what its state machine decides, with a session, a ring and a training thread.

use std::any::Any;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use strath_collective::Collective;
use strath_core::{Generation, Rank, Step, Timestamp};
use strath_data::SplitName;
use strath_protocol::message::{
    Admitted, Assign, CoordinatorMessage, DataSummary, EvalReport, FailureKind, FailureReport, Finished, Phase,
    Prepared as PreparedMessage, Progress, Purpose, Register, Split, State, StepReport,
};
use strath_protocol::{Worker, WorkerCommand, WorkerEvent, WorkerOutcome};
use strath_rpc::{ClientTls, RpcError, Session, SessionSender};
use tokio::sync::mpsc;

use crate::generation::{Ready, Work, connect};
use crate::prepare::{PrepareError, Prepared, prepare};
use crate::trainer::{Told, kind_of};
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

/// Joins a run and takes part until it ends. `stop`: each message is a request to stop, as by a signal; `leave`: why to leave at
/// once, without finishing the step.
///
/// # Errors
/// [`WorkerError`].
pub async fn run(
    settings: WorkerSettings,
    mut stop: mpsc::Receiver<()>,
    mut leave: mpsc::Receiver<String>,
) -> Result<WorkerEnd, WorkerError> {
    let mut session = tokio::select! {
        session = Session::connect(&settings.coordinator, settings.connect_timeout, settings.tls.as_ref()) => session?,
        Some(()) = stop.recv() => return Ok(WorkerEnd::Stopped),
        Some(reason) = leave.recv() => return Err(WorkerError::Failed(format!("left before it joined: {reason}"))),
    };
    let (listener, advertised) = listen(&settings, session.local_address())?;
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
        listener: Some(listener),
        data: settings.data.clone(),
        stop: Arc::new(AtomicBool::new(false)),
        here: Arc::new(if settings.trace.is_some() { Whereabouts::recorded() } else { Whereabouts::default() }),
        rank: Rank(0),
        generation: Generation(0),
        start: Step(0),
        admitted: None,
        prepared: None,
        ready: None,
        peers: None,
    };
    let mut flush = FLUSH;
    let outcome = loop {
        if let Some(outcome) = runtime.carry_out().await {
            break outcome;
        }
        let deadline = runtime.machine.next_deadline().map(|deadline| deadline.since(now()));
        let event = tokio::select! {
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
    if let Some(peers) = &runtime.peers {
        peers.abort();
    }
    session.finish(flush).await;
    if let (Some(path), Some(recorder)) = (&settings.trace, runtime.here.recorder()) {
        // The run is what counts; whoever asked for the trace is told that a part is missing.
        if let Err(error) = recorder.write(path, runtime.rank) {
            tracing::warn!("{error}");
        }
    }
    match outcome {
        WorkerOutcome::Done => Ok(WorkerEnd::Done),
        WorkerOutcome::Stopped => Ok(WorkerEnd::Stopped),
        WorkerOutcome::Failed { message } => Err(WorkerError::Failed(message)),
    }
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

/// What other threads report to the session's task.
enum Report {
    Prepared(Box<Result<Prepared, PrepareError>>),
    Connected(Box<Result<Ready, (String, Option<Rank>)>>),
    /// Of the training thread of a generation.
    Told(Generation, Told),
    /// A thread panicked in this phase, with this message.
    Panicked(Generation, Phase, String),
}

struct Runtime {
    machine: Worker,
    sender: SessionSender,
    events: mpsc::Sender<Report>,
    listener: Option<TcpListener>,
    data: Option<PathBuf>,
    stop: Arc<AtomicBool>,
    /// Where the training thread is.
    here: Arc<Whereabouts>,
    /// The rank in it.
    rank: Rank,
    /// The generation that the training thread works in; 0 before the first.
    generation: Generation,
    /// Completed steps that the generation began with.
    start: Step,
    admitted: Option<Admitted>,
    prepared: Option<Prepared>,
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
                WorkerCommand::Exit(outcome) => return Some(outcome),
            }
        }
        None
    }

    fn prepare(&mut self, admitted: Admitted) {
        let (configuration, data) = (admitted.configuration.clone(), self.data.clone());
        self.admitted = Some(admitted);
        self.spawn(Generation(0), Phase::Preparing, move |events| {
            let prepared = prepare(&configuration, data);
            // Nobody listens any more where the session has ended; so below.
            let _ = events.blocking_send(Report::Prepared(Box::new(prepared)));
        });
    }

    fn connect(&mut self, assign: Assign, state: Option<State>) {
        let (Some(prepared), Some(listener), Some(admitted)) =
            (self.prepared.take(), self.listener.take(), self.admitted.clone())
        else {
            return;
        };
        (self.generation, self.start, self.rank) = (assign.generation, assign.start, assign.rank);
        self.spawn(assign.generation, Phase::Connecting, move |events| {
            let ready = connect(prepared, listener, &admitted, &assign, state.as_ref());
            let _ = events.blocking_send(Report::Connected(Box::new(ready)));
        });
    }

    fn run(&mut self) {
        let Some(Ready { generation, peers, work }) = self.ready.take() else { return };
        let (stop, here) = (self.stop.clone(), self.here.clone());
        here.enter(self.start.0, Phase::Ascent);
        self.spawn(generation, Phase::Ascent, move |events| {
            let tell = |told| _ = events.blocking_send(Report::Told(generation, told));
            match work {
                Work::Train(training) => training.run(&stop, &here, tell),
                Work::Evaluate(evaluating) => evaluating.run(&peers, &here, tell),
            }
        });
    }

    /// What a report means to the machine.
    fn take(&mut self, report: Report) -> WorkerEvent {
        match report {
            Report::Prepared(prepared) => match *prepared {
                Ok(prepared) => {
                    let message = summarise(&prepared);
                    self.prepared = Some(prepared);
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
            Report::Connected(ready) => match *ready {
                Ok(ready) => {
                    let generation = ready.generation;
                    self.peers = Some(ready.peers.clone());
                    self.ready = Some(ready);
                    WorkerEvent::RingConnected(generation)
                }
                Err((message, lost)) => failed(self.generation, self.start, Phase::Connecting, message, kind_of(lost)),
            },
            Report::Told(generation, told) => translate(generation, told),
            Report::Panicked(generation, phase, message) => {
                let (step, last, _) = self.here.get();
                let phase = if last == Phase::Joining { phase } else { last };
                let message = format!("a fault of the program, please report it: {message}");
                failed(generation, step.max(self.start), phase, message, FailureKind::Own)
            }
        }
    }
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
