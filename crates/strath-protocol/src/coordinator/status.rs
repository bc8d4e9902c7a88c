//! The cluster as the coordinator sees it, for `strath status`.

use strath_core::Timestamp;

use super::{Coordinator, Stage};
use crate::status::{ClusterStatus, WorkerStatus};

impl Coordinator {
    /// The cluster at `now`.
    pub fn status(&self, now: Timestamp) -> ClusterStatus {
        let workers = self.worker_statuses(now);
        let step = workers.iter().filter(|w| w.rank.is_some()).map(|w| w.step).max();
        let stage = match self.stage {
            Stage::Returning(_) => "waiting for its workers",
            Stage::Gathering => "gathering",
            Stage::Connecting => "connecting",
            Stage::Running => "running",
            Stage::Regrouping(_) => "regrouping",
            Stage::Draining(_) => "failed, saving",
            Stage::Ended => "ended",
        };
        ClusterStatus {
            run: self.settings.run,
            name: self.settings.config.run.name.clone(),
            stage: stage.into(),
            generation: self.generation,
            step: step.unwrap_or_default().max(self.recorded()),
            steps: self.steps,
            last_step: self.last_step.clone(),
            survey: None,
            workers,
            decisions: self.decisions.shown(now),
        }
    }

    fn worker_statuses(&self, now: Timestamp) -> Vec<WorkerStatus> {
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
                    step: self.step_of(session),
                    phase: progress.phase,
                    images_per_s: progress.images_per_s,
                    silent_ms,
                    late: self.why_late(session, now).unwrap_or_default(),
                })
            })
            .collect();
        statuses.sort_by_key(|status| status.worker);
        statuses
    }
}
