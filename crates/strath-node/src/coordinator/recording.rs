//! What a coordinator keeps of its run: lines of metrics, and states on the disk.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use strath_core::telemetry::NoiseScale;
use strath_core::{Generation, Step};
use strath_protocol::message::{Purpose, State, StepReport};
use strath_protocol::{CoordinatorEvent as Event, Place, Record, Start, SurveyStatus};

use super::{CoordinatorError, Runtime, lock};
use crate::files::FileError;
use crate::lane_keys::LaneKeys;
use crate::metrics::{ClusterLine, EvalLine, Line, MemberLine, MetricsLog, StepLine};
use crate::progress::Happening;
use crate::run_folder::{CoordinatorFile, RunFolder, RunFolderError};
use crate::tensorboard::EventFile;
use crate::worker::host_name;

/// What is kept of a run.
pub(super) struct RunRecord {
    pub(super) folder: Arc<Mutex<RunFolder>>,
    pub(super) metrics: MetricsLog,
    events: EventFile,
    /// What the surveys in `metrics` come to.
    noise: NoiseScale,
    /// A generation that has been formed and has not started: what its line will say.
    formed: Option<ClusterLine>,
    /// Whether a generation has started under this coordinator: the time before the first is not that of a change.
    is_change: bool,
}

impl RunRecord {
    /// Opens the record of a run that goes on from `start`, or further where its workers `went_on` meanwhile, and says where its
    /// coordinator is.
    pub(super) fn open(
        folder: RunFolder,
        start: Option<&Start>,
        went_on: bool,
        address: SocketAddr,
    ) -> Result<Self, CoordinatorError> {
        let step = if went_on { u64::MAX } else { start.map_or(0, |start| start.step.0) };
        let (metrics, events) = logs(&folder, step)?;
        let noise = metrics.noise_scale();
        folder.write_coordinator(&CoordinatorFile {
            address: address.to_string(),
            pid: std::process::id(),
            host: host_name(),
            run: folder.run().to_string(),
        })?;
        Ok(Self { folder: Arc::new(Mutex::new(folder)), metrics, events, noise, formed: None, is_change: false })
    }

    /// Cuts off what was noted after `step`.
    pub(super) fn rewind(&mut self, step: Step) -> Result<(), RunFolderError> {
        (self.metrics, self.events) = logs(&lock(&self.folder), step.0)?;
        self.noise = self.metrics.noise_scale();
        Ok(())
    }
}

/// The metrics up to `step`, and the same for TensorBoard.
fn logs(folder: &RunFolder, step: u64) -> Result<(MetricsLog, EventFile), FileError> {
    let metrics = MetricsLog::open(&folder.metrics(), step)?;
    let events = EventFile::create(folder.path(), &host_name(), unix_seconds(), metrics.lines())?;
    Ok((metrics, events))
}

impl Runtime {
    fn epoch(&self, step: Step) -> f64 {
        let examples = lock(&self.machine).data().map_or(0, |data| data.train_examples);
        if examples == 0 { 0.0 } else { step.0 as f64 * self.config.batch.size as f64 / examples as f64 }
    }

    /// Notes something in the metrics, and tells the run's owner.
    pub(super) fn record(&mut self, record: Record) -> Result<(), RunFolderError> {
        let time = unix_seconds();
        match record {
            Record::Warning(message) => (self.observer)(Happening::Warning(message)),
            Record::Generation { generation, members, step, steps, cause } => {
                self.steps = steps.0;
                let epoch = self.epoch(step);
                let world_size = members.len() as u64;
                let member = |place: Place| MemberLine {
                    worker: place.worker.0,
                    host: place.host,
                    micro_batches: place.micro_batches as u64,
                };
                self.note_unstarted()?;
                if let Some(record) = &mut self.record {
                    record.formed = Some(ClusterLine {
                        step: step.0,
                        epoch,
                        time,
                        generation: generation.0,
                        world_size,
                        members: members.into_iter().map(member).collect(),
                        cause,
                        change_s: None,
                    });
                }
                (self.observer)(Happening::Began { from: step.0, steps: steps.0, world_size });
            }
            Record::Measuring { done, of } => (self.observer)(Happening::Measuring { done, of }),
            Record::Started(generation) => self.started(generation, time)?,
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

    /// The generation that was formed last takes its first step: how long the change took is known.
    fn started(&mut self, generation: Generation, time: f64) -> Result<(), RunFolderError> {
        let Some(record) = &mut self.record else { return Ok(()) };
        let Some(formed) = record.formed.take_if(|formed| formed.generation == generation.0) else { return Ok(()) };
        let last_step = record.metrics.steps().last().map(|line| line.time);
        // Unix time may have been set back in between.
        let change_s = last_step.filter(|_| record.is_change).map(|last| (time - last).max(0.0));
        record.is_change = true;
        self.append(&Line::Cluster(ClusterLine { time, change_s, ..formed }))
    }

    /// Notes a generation that has ended before it started, where there is one.
    pub(super) fn note_unstarted(&mut self) -> Result<(), RunFolderError> {
        let formed = self.record.as_mut().and_then(|record| record.formed.take());
        formed.map_or(Ok(()), |formed| self.append(&Line::Cluster(formed)))
    }

    fn step_line(&mut self, report: &StepReport, time: f64) -> StepLine {
        let mut noise = self.record.as_ref().map(|record| record.noise).unwrap_or_default();
        let lanes = LaneKeys::new(&report.telemetry, &mut noise);
        // One that is on record already is passed over there, and so here.
        if let Some(record) = self.record.as_mut().filter(|record| report.step.0 > record.metrics.newest().0) {
            record.noise = noise;
        }
        if let Some(survey) = &report.telemetry.survey {
            *lock(&self.survey) = Some(SurveyStatus {
                step: report.step,
                rho_equivalent: survey.rho_equivalent,
                noise_scale: lanes.noise_scale,
                coherence: survey.coherence,
                audit: survey.audit,
            });
        }
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
            lanes: Box::new(lanes),
        }
    }

    fn append(&mut self, line: &Line) -> Result<(), RunFolderError> {
        let Some(record) = &mut self.record else { return Ok(()) };
        if record.metrics.append(line.clone())? {
            record.events.append(line)?;
        }
        Ok(())
    }

    /// Writes a state down beside the event loop, so that a slow disk delays no heartbeat, and after the one before it, so that of two
    /// checkpoints the older is there first.
    pub(super) fn save(&mut self, state: State) {
        let Some(record) = &self.record else { return };
        let (folder, sender) = (record.folder.clone(), self.saved.clone());
        let (sync, keep) = (record.metrics.sync(), self.config.checkpoint.keep);
        let (step, purpose) = (state.step, state.purpose);
        let write = move || {
            sync.and_then(|sync| sync())?;
            let folder = lock(&folder);
            match state.purpose {
                Purpose::Final => folder.write_final(&state.model),
                Purpose::Checkpoint | Purpose::Start | Purpose::Handover => {
                    folder.write_checkpoint(state.step.0, &state.model, &state.optimizer, keep)
                }
            }
        };
        let before = self.saving.take();
        self.saving = Some(tokio::spawn(async move {
            if let Some(before) = before {
                // However it ended, it has said so itself.
                let _ = before.await;
            }
            let event = match tokio::task::spawn_blocking(write).await {
                Ok(Ok(())) => Event::Saved { step, purpose },
                Ok(Err(error)) => Event::WriteFailed { message: error.to_string() },
                Err(error) => {
                    Event::WriteFailed { message: format!("the state of step {step} was not written: {error}") }
                }
            };
            // Nobody listens any more where the run has ended.
            let _ = sender.send(event).await;
        }));
    }
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
