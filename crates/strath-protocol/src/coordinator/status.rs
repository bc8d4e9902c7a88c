//! The cluster as the coordinator sees it, for `strath status`.

use strath_core::{Step, Timestamp};

use super::{Coordinator, Stage};
use crate::message::Phase;
use crate::status::{ClusterStatus, WorkerStatus};

impl Coordinator {
    /// The cluster at `now`.
    pub fn status(&self, now: Timestamp) -> ClusterStatus {
        let workers = self.worker_statuses(now);
        let step = workers.iter().filter(|w| w.rank.is_some()).map(|w| w.step).max();
        let stage = match self.stage {
            Stage::Gathering => "gathering",
            Stage::Connecting => "connecting",
            Stage::Running(_) => "running",
            Stage::Ended => "ended",
        };
        ClusterStatus {
            run: self.settings.run,
            name: self.settings.config.run.name.clone(),
            stage: stage.into(),
            generation: self.generation,
            step: step.unwrap_or_else(|| self.settings.start.as_ref().map_or(Step(0), |start| start.step)),
            steps: self.steps,
            last_step: self.last_step.clone(),
            workers,
        }
    }

    fn worker_statuses(&self, now: Timestamp) -> Vec<WorkerStatus> {
        let newest = self.sessions.values().map(|s| s.progress.step).max().unwrap_or_default();
        let lease_ms = self.settings.config.cluster.lease_ms;
        let mut statuses: Vec<WorkerStatus> = self
            .sessions
            .values()
            .filter_map(|session| {
                let (worker, register) = session.identity.as_ref()?;
                let progress = session.progress;
                let silent_ms = now.since(session.heard).as_millis() as u64;
                let held = session
                    .rank
                    .zip(self.assignment.as_ref())
                    .map_or(0, |(rank, assignment)| assignment.of(rank).len());
                Some(WorkerStatus {
                    worker: *worker,
                    host: register.host.clone(),
                    address: session.address,
                    pid: register.pid,
                    rank: session.rank,
                    micro_batches: held as u64,
                    step: progress.step,
                    phase: progress.phase,
                    images_per_s: progress.images_per_s,
                    silent_ms,
                    late: lateness(silent_ms, lease_ms, progress.step, newest, progress.phase),
                })
            })
            .collect();
        statuses.sort_by_key(|status| status.worker);
        statuses
    }
}

/// Why the others wait for a worker, where they do: a heartbeat that is overdue, or a step that the others have passed.
fn lateness(silent_ms: u64, lease_ms: u64, step: Step, newest: Step, phase: Phase) -> String {
    if silent_ms > lease_ms / 2 {
        return format!("silent for {silent_ms} of {lease_ms} ms");
    }
    if step < newest {
        return format!("at step {step} in phase {phase}, others at {newest}");
    }
    String::new()
}
