//! The coordinator's runtime: carries out what its state machine decides, with sessions, the run's folder and the clock.

mod recording;

use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use strath_core::config::{Config, MOST_WORKERS, RunLength};
use strath_core::{RingKey, Step, Timestamp};
use strath_protocol::message::{DataSummary, DrainAnswer, EvalReport, Job};
use strath_protocol::{
    ClusterStatus, Coordinator, CoordinatorCommand as Command, CoordinatorEvent as Event, Former, Gather, Outcome,
    Settings, Start, SurveyStatus,
};
use strath_rpc::{DrainCall, RpcError, Server, ServerTls, SessionEvent, SessionHappening};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::local::{Ended, LocalWorkers};
use crate::progress::{Happening, Observer};
use crate::run_folder::{RunFolder, RunFolderError};
use crate::summary::{Examples, Facts, Normalisation, Summary};

use recording::RunRecord;

/// At the end, last words have this long to reach the workers, and local workers as long again to end: with the lease
/// before it, a hung worker ends a run within five seconds.
const GRACE: Duration = Duration::from_millis(600);

/// What a coordinator is told when it begins.
pub struct CoordinatorSettings {
    /// The run's configuration.
    pub config: Config,
    /// Where workers connect.
    pub listener: TcpListener,
    /// The run's folder; `None`: nothing is kept, as for an evaluation.
    pub folder: Option<RunFolder>,
    /// What to do.
    pub job: Job,
    /// When enough workers have come.
    pub gather: Gather,
    /// The coordinator's certificate, and whose workers it admits; `None`: connections are in clear.
    pub tls: Option<ServerTls>,
    /// The token that workers must present.
    pub token: Option<String>,
    /// What the tickets of generations are made from.
    pub ring_key: RingKey,
    /// What to start from.
    pub start: Option<Start>,
    /// Workers on this machine, whose end is the run's.
    pub local: Option<LocalWorkers>,
}

/// How a run ended in order.
#[derive(Debug, Clone, PartialEq)]
pub enum RunEnd {
    /// It is complete.
    Done(Box<Summary>),
    /// A checkpoint was evaluated.
    Evaluated(EvalReport),
    /// A checkpoint was measured, with this result as JSON.
    Measured(String),
    /// It was stopped after a checkpoint of this step, where it had begun.
    Stopped(Option<Step>),
}

/// Why a run ended otherwise.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// The address could not be served.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The run's folder cannot be used.
    #[error(transparent)]
    Folder(#[from] RunFolderError),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] crate::files::FileError),
    /// The configuration does not fit the data or the model.
    #[error("{0}")]
    Misconfigured(String),
    /// The run failed.
    #[error("{0}")]
    Failed(String),
}

/// Runs a coordinator until its run ends. `stop`: each message is a request to stop, as by a signal.
///
/// # Errors
/// [`CoordinatorError`], with one line that says whose fault it was and what to do.
pub async fn run(
    settings: CoordinatorSettings,
    observer: Observer,
    mut stop: mpsc::Receiver<()>,
) -> Result<RunEnd, CoordinatorError> {
    let begun = Instant::now();
    let now = move || Timestamp(begun.elapsed());
    let address = settings.listener.local_addr().map_err(|e| CoordinatorError::Failed(e.to_string()))?;
    let run = settings.folder.as_ref().map_or_else(Default::default, RunFolder::run);
    let generation = settings.folder.as_ref().map_or_else(Default::default, RunFolder::generation);
    // The workers of `train` end with it; others may have gone on.
    let at_work = settings.folder.as_ref().map(RunFolder::at_work).filter(|_| settings.local.is_none());
    let (members, bounds, next_worker) = at_work.unwrap_or_default();
    let went_on = !members.is_empty();
    if let (Some(folder), Some(token)) = (&settings.folder, &settings.token) {
        folder.write_token(token)?;
    }
    let record =
        settings.folder.map(|folder| RunRecord::open(folder, settings.start.as_ref(), went_on, address)).transpose()?;
    let (recorded, evaluated) =
        record.as_ref().filter(|_| went_on).map(|record| record.metrics.newest()).unwrap_or_default();
    let step_s = record.as_ref().filter(|_| went_on).map(|record| record.metrics.newest_step_s()).unwrap_or_default();
    let former = Former { members, bounds, next_worker, recorded: Step(recorded), evaluated, step_s };
    let machine = Arc::new(Mutex::new(Coordinator::new(
        Settings {
            version: env!("CARGO_PKG_VERSION").into(),
            token: settings.token,
            ring_key: settings.ring_key,
            run,
            configuration: settings.config.to_toml(),
            config: settings.config.clone(),
            job: settings.job,
            gather: settings.gather,
            most_workers: MOST_WORKERS as usize,
            generation,
            start: settings.start.clone(),
            former,
        },
        now(),
    )));
    let survey = Arc::<Mutex<Option<SurveyStatus>>>::default();
    let status = {
        let (machine, survey) = (machine.clone(), survey.clone());
        let shown = move || ClusterStatus { survey: *lock(&survey), ..lock(&machine).status(now()) };
        Arc::new(move || Some(shown())) as Arc<dyn Fn() -> Option<ClusterStatus> + Send + Sync>
    };
    let (server, mut sessions, mut drains) = Server::start(settings.listener, settings.tls, status)?;
    let (saved_sender, mut saved) = mpsc::channel(16);
    let mut local = settings.local;
    let mut runtime = Runtime {
        machine,
        server,
        record,
        observer,
        config: settings.config,
        steps: 0,
        survey,
        saved: saved_sender,
        saving: None,
    };
    let workers = match settings.gather {
        Gather::Exactly(workers) | Gather::AtLeast { workers, .. } => workers,
    };
    (runtime.observer)(Happening::Listening { address: address.to_string(), workers });

    let outcome = loop {
        let (event, deadline) = match runtime.carry_out()? {
            Carried::Finished(outcome) => break outcome,
            Carried::Waits(event, deadline) => (event, deadline),
        };
        let event = if let Some(event) = event {
            event
        } else {
            tokio::select! {
                session = sessions.recv() => session.map_or(Event::Tick, translate),
                event = saved.recv() => event.unwrap_or(Event::Tick),
                ended = ended(&mut local) => process_ended(&ended),
                Some(()) = stop.recv() => Event::StopRequested,
                Some(call) = drains.recv() => runtime.answer(call),
                () = tokio::time::sleep(deadline.map_or(Duration::from_secs(1), |d| d.since(now()))) => Event::Tick,
            }
        };
        if let Err(rejected) = lock(&runtime.machine).handle(event, now()) {
            tracing::debug!("passed over: {rejected}");
        }
    };
    runtime.note_unstarted()?;
    let Runtime { server, record, config, machine, .. } = runtime;
    let data = lock(&machine).data().cloned();
    // In order: whoever goes on waits for nobody. Where it cannot be written, a lease is waited in vain.
    if let Some(Err(error)) = record.as_ref().map(|record| lock(&record.folder).persist_end()) {
        tracing::warn!("{error}");
    }
    server.shutdown(GRACE).await;
    if let Some(local) = local.take() {
        local.finish(GRACE).await;
    }
    conclude(outcome, record, &config, data, begun.elapsed())
}

/// Turns the machine's outcome into the run's end; a complete run gets its summary here.
fn conclude(
    outcome: Outcome,
    record: Option<RunRecord>,
    config: &Config,
    data: Option<DataSummary>,
    elapsed: Duration,
) -> Result<RunEnd, CoordinatorError> {
    match outcome {
        Outcome::Evaluated(report) => Ok(RunEnd::Evaluated(report)),
        Outcome::Measured(result) => Ok(RunEnd::Measured(result)),
        Outcome::Stopped { step } => Ok(RunEnd::Stopped(step)),
        Outcome::Misconfigured { message } => Err(CoordinatorError::Misconfigured(message)),
        Outcome::Failed { message } => {
            let newest =
                record.and_then(|record| lock(&record.folder).newest_checkpoint().ok()).and_then(|found| found.0);
            let advice = newest
                .map(|checkpoint| {
                    format!("; the checkpoint of step {} is whole, continue with --resume", checkpoint.step)
                })
                .unwrap_or_default();
            Err(CoordinatorError::Failed(format!("{message}{advice}")))
        }
        Outcome::Done { weights, steps } => {
            let (Some(record), Some(data)) = (record, data) else {
                return Err(CoordinatorError::Failed("the run ended without a folder or data".into()));
            };
            // As it is on the disk.
            let written = lock(&record.folder).final_digest().map_err(CoordinatorError::Failed)?;
            if written != weights {
                return Err(CoordinatorError::Failed(format!(
                    "final.safetensors holds weights {written}, the ranks agree on {weights}; check the disk"
                )));
            }
            let decimal = |values: &[f32]| values.iter().map(|v| shortest(*v)).collect();
            let facts = Facts {
                batch: config.batch.size,
                examples: Examples {
                    train: data.train_examples,
                    validation: data.validation_examples,
                    test: data.test_examples,
                },
                ended_by: ended_by(config, steps, data.train_examples),
                seconds: elapsed.as_secs_f64(),
                normalisation: Normalisation { mean: decimal(&data.mean), std: decimal(&data.std) },
                weights,
            };
            let summary = Summary::new(&record.metrics, facts)
                .ok_or_else(|| CoordinatorError::Failed("the run ended without an evaluation".into()))?;
            lock(&record.folder).write_summary(&summary)?;
            Ok(RunEnd::Done(Box::new(summary)))
        }
    }
}

/// The key that ended a run after so many steps.
fn ended_by(config: &Config, steps: Step, train_examples: u64) -> &'static str {
    match config.run.length {
        _ if steps.0 < config.steps(train_examples as usize) => "run.stop_loss",
        RunLength::Steps(_) => "run.steps",
        RunLength::Epochs(_) => "run.epochs",
    }
}

/// The f64 whose decimal text is that of an f32: 0.286, not 0.28600001335144043.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn translate(session: SessionEvent) -> Event {
    let connection = session.connection;
    match session.what {
        SessionHappening::Connected(address) => Event::Connected { connection, address },
        SessionHappening::Message(message) => Event::Message { connection, message },
        SessionHappening::Disconnected(cause) => Event::Disconnected { connection, cause },
    }
}

async fn ended(local: &mut Option<LocalWorkers>) -> Ended {
    match local {
        Some(local) => local.ended().await,
        None => std::future::pending().await,
    }
}

fn process_ended(ended: &Ended) -> Event {
    let words = if ended.last_words.is_empty() { String::new() } else { format!(": {}", ended.last_words) };
    Event::ProcessEnded { pid: ended.pid, cause: format!("{}{words} (log: {})", ended.status, ended.log.display()) }
}

/// What carrying out the machine's commands came to.
enum Carried {
    /// The run is over.
    Finished(Outcome),
    /// An event of its own, or a wait until the next deadline.
    Waits(Option<Event>, Option<Timestamp>),
}

struct Runtime {
    machine: Arc<Mutex<Coordinator>>,
    server: Server,
    record: Option<RunRecord>,
    observer: Observer,
    config: Config,
    steps: u64,
    /// The newest survey of the lanes, for who asks.
    survey: Arc<Mutex<Option<SurveyStatus>>>,
    saved: mpsc::Sender<Event>,
    /// The newest state on its way to the disk, behind those before it.
    saving: Option<JoinHandle<()>>,
}

impl Runtime {
    /// Answers somebody who wants a worker to leave; what follows for the machine.
    fn answer(&self, call: DrainCall) -> Event {
        let answer = lock(&self.machine).answer(&call.request);
        let leaves = answer == DrainAnswer::Leaves;
        // Whoever asked may be gone: the worker leaves all the same.
        let _ = call.answer.send(answer);
        if leaves { Event::DrainRequested(call.request) } else { Event::Tick }
    }

    fn carry_out(&mut self) -> Result<Carried, CoordinatorError> {
        loop {
            let command = lock(&self.machine).poll_command();
            let Some(command) = command else {
                return Ok(Carried::Waits(None, lock(&self.machine).next_deadline()));
            };
            let done = match command {
                Command::Send { connection, message } => {
                    self.server.send(connection, message);
                    Ok(())
                }
                Command::Close(connection) => {
                    self.server.close(connection);
                    Ok(())
                }
                Command::PersistGeneration { generation, members, bounds, next_worker } => match &self.record {
                    Some(record) => lock(&record.folder).persist_generation(generation, &members, bounds, next_worker),
                    None => Ok(()),
                },
                Command::Rewind(step) => match &mut self.record {
                    Some(record) => record.rewind(step),
                    None => Ok(()),
                },
                Command::Record(record) => self.record(record),
                Command::Save(state) => {
                    self.save(state);
                    Ok(())
                }
                Command::Finish(outcome) => return Ok(Carried::Finished(outcome)),
            };
            // What cannot be written ends the run; whatever is still queued for workers is overtaken by that.
            if let Err(error) = done {
                return Ok(Carried::Waits(Some(Event::WriteFailed { message: error.to_string() }), None));
            }
        }
    }
}
