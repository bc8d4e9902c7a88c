//! The coordinator's runtime: carries out what its state machine decides, with sessions, the run's folder and the clock.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use strath_core::config::Config;
use strath_core::{RingKey, Step, Timestamp};
use strath_protocol::message::{DataSummary, EvalReport, Job, Purpose, State, StepReport};
use strath_protocol::{
    ClusterStatus, Coordinator, CoordinatorCommand as Command, CoordinatorEvent as Event, Gather, Outcome, Record,
    Settings, Start,
};
use strath_rpc::{RpcError, Server, SessionEvent, SessionHappening};
use tokio::sync::mpsc;

use crate::local::{Ended, LocalWorkers};
use crate::metrics::{ClusterLine, EvalLine, Line, MetricsLog, StepLine};
use crate::progress::{Happening, Observer};
use crate::run_folder::{CoordinatorFile, RunFolder, RunFolderError};
use crate::summary::{Facts, Normalisation, Summary};
use crate::tensorboard::EventFile;
use crate::worker::host_name;

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
    /// The token that workers must present.
    pub token: Option<String>,
    /// What ranks show to each other when their rings connect.
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
    let machine = Arc::new(Mutex::new(Coordinator::new(
        Settings {
            version: env!("CARGO_PKG_VERSION").into(),
            token: settings.token,
            ring_key: settings.ring_key,
            run: settings.folder.as_ref().map_or_else(Default::default, RunFolder::run),
            configuration: settings.config.to_toml(),
            config: settings.config.clone(),
            job: settings.job,
            gather: settings.gather,
            generation: settings.folder.as_ref().map_or_else(Default::default, RunFolder::generation),
            start: settings.start.clone(),
        },
        now(),
    )));
    let status = {
        let machine = machine.clone();
        Arc::new(move || Some(lock(&machine).status(now()))) as Arc<dyn Fn() -> Option<ClusterStatus> + Send + Sync>
    };
    let (server, mut sessions) = Server::start(settings.listener, status)?;
    let record = settings.folder.map(|folder| RunRecord::open(folder, settings.start.as_ref(), address)).transpose()?;
    let (saved_sender, mut saved) = mpsc::channel(16);
    let mut local = settings.local;
    let mut runtime =
        Runtime { machine, server, record, observer, config: settings.config, steps: 0, saved: saved_sender };
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
                () = tokio::time::sleep(deadline.map_or(Duration::from_secs(1), |d| d.since(now()))) => Event::Tick,
            }
        };
        if let Err(rejected) = lock(&runtime.machine).handle(event, now()) {
            tracing::debug!("passed over: {rejected}");
        }
    };
    let Runtime { server, record, config, machine, .. } = runtime;
    let data = lock(&machine).data().cloned();
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
        Outcome::Done { weights, .. } => {
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
                train_examples: data.train_examples,
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

/// The f64 whose decimal text is that of an f32: 0.286, not 0.28600001335144043.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
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
    saved: mpsc::Sender<Event>,
}

impl Runtime {
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
                Command::PersistGeneration(generation) => match &self.record {
                    Some(record) => lock(&record.folder).persist_generation(generation),
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

    fn epoch(&self, step: Step) -> f64 {
        let examples = lock(&self.machine).data().map_or(0, |data| data.train_examples);
        if examples == 0 { 0.0 } else { step.0 as f64 * self.config.batch.size as f64 / examples as f64 }
    }

    fn record(&mut self, record: Record) -> Result<(), RunFolderError> {
        let time = unix_seconds();
        match record {
            Record::Warning(message) => (self.observer)(Happening::Warning(message)),
            Record::Generation { generation, world_size, step, steps, cause } => {
                self.steps = steps.0;
                let epoch = self.epoch(step);
                let line = ClusterLine { step: step.0, epoch, time, generation: generation.0, world_size, cause };
                self.append(&Line::Cluster(line))?;
                (self.observer)(Happening::Began { from: step.0, steps: steps.0, world_size });
            }
            Record::Step(report) => {
                let line = self.step_line(&report, time);
                self.append(&Line::Step(line.clone()))?;
                (self.observer)(Happening::Step(line));
            }
            Record::Eval(report) => {
                let line = EvalLine {
                    step: report.step.0,
                    epoch: self.epoch(report.step),
                    time,
                    split: report.split.to_string(),
                    loss: report.loss,
                    error: report.error,
                };
                self.append(&Line::Eval(line.clone()))?;
                (self.observer)(Happening::Eval(line));
            }
        }
        Ok(())
    }

    fn step_line(&self, report: &StepReport, time: f64) -> StepLine {
        StepLine {
            step: report.step.0,
            epoch: self.epoch(report.step),
            time,
            clean_loss: report.clean_loss,
            perturbed_loss: report.perturbed_loss,
            sharpness: report.perturbed_loss - report.clean_loss,
            lr: report.lr,
            gradient_norm: report.gradient_norm,
            epsilon_norm: report.epsilon_norm,
            zero_gradient_lanes: report.zero_gradient_lanes,
            images_per_s: self.config.batch.size as f64 / report.seconds,
            step_s: report.seconds,
            data_s: report.phases.data,
            ascent_s: report.phases.ascent,
            epsilon_s: report.phases.epsilon,
            exchange_s: report.phases.exchange,
            descent_s: report.phases.descent,
            reduce_s: report.phases.reduce,
            update_s: report.phases.update,
        }
    }

    fn append(&mut self, line: &Line) -> Result<(), RunFolderError> {
        let Some(record) = &mut self.record else { return Ok(()) };
        if record.metrics.append(line.clone())? {
            record.events.append(line)?;
        }
        Ok(())
    }

    /// Writes a state down beside the event loop, so that a slow disk delays no heartbeat.
    fn save(&mut self, state: State) {
        let Some(record) = &self.record else { return };
        let (folder, sender) = (record.folder.clone(), self.saved.clone());
        let (sync, keep) = (record.metrics.sync(), self.config.checkpoint.keep);
        tokio::task::spawn_blocking(move || {
            let written = sync.and_then(|sync| sync()).map_err(RunFolderError::from).and_then(|()| {
                let folder = lock(&folder);
                match state.purpose {
                    Purpose::Final => folder.write_final(&state.model),
                    Purpose::Checkpoint | Purpose::Start => {
                        folder.write_checkpoint(state.step.0, &state.model, &state.optimizer, keep)
                    }
                }
            });
            let event = match written {
                Ok(()) => Event::Saved { step: state.step, purpose: state.purpose },
                Err(error) => Event::WriteFailed { message: error.to_string() },
            };
            // Nobody listens any more where the run has ended.
            let _ = sender.blocking_send(event);
        });
    }
}

/// What is kept of a run.
struct RunRecord {
    folder: Arc<Mutex<RunFolder>>,
    metrics: MetricsLog,
    events: EventFile,
}

impl RunRecord {
    /// Opens the record of a run that goes on from `start`, and says where its coordinator is.
    fn open(folder: RunFolder, start: Option<&Start>, address: SocketAddr) -> Result<Self, CoordinatorError> {
        let step = start.map_or(0, |start| start.step.0);
        let metrics = MetricsLog::open(&folder.metrics(), step)?;
        let host = host_name();
        let events = EventFile::create(folder.path(), &host, unix_seconds(), metrics.lines())?;
        folder.write_coordinator(&CoordinatorFile {
            address: address.to_string(),
            pid: std::process::id(),
            host,
            run: folder.run().to_string(),
        })?;
        Ok(Self { folder: Arc::new(Mutex::new(folder)), metrics, events })
    }
}

/// Where a new run starts: at its initial tensors, where the configuration names a file, else at the seed's.
///
/// # Errors
/// [`crate::files::FileError`] where the file cannot be read.
pub fn start_from_init(config: &Config) -> Result<Option<Start>, crate::files::FileError> {
    let Some(path) = &config.model.init else { return Ok(None) };
    Ok(Some(start_from_file(path)?))
}

/// A start at the tensors of a model file, step 0.
///
/// # Errors
/// [`crate::files::FileError`] where the file cannot be read.
pub fn start_from_file(path: &Path) -> Result<Start, crate::files::FileError> {
    let model = crate::files::read(path)?.into();
    let source = path.display().to_string();
    Ok(Start { step: Step(0), source, model, optimizer: None, data: None, numerics: None })
}

/// A start at a checkpoint.
pub fn start_from_checkpoint(found: crate::run_folder::Checkpoint) -> Start {
    Start {
        step: Step(found.step),
        source: found.path.display().to_string(),
        data: found.facts.data.parse().ok(),
        numerics: found.facts.numerics.parse().ok(),
        model: found.model.into(),
        optimizer: Some(found.state.into()),
    }
}
