//! The cluster as the coordinator sees it, for `strath status`.

use strath_core::{Timestamp, WorkerId};

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
            workers,
        }
    }

    fn worker_statuses(&self, now: Timestamp) -> Vec<WorkerStatus> {
        let lease_ms = self.settings.config.cluster.lease_ms;
        let mut statuses: Vec<WorkerStatus> = self
            .sessions
            .values()
            .filter_map(|session| {
                let (worker, register) = session.identity.as_ref()?;
                let progress = session.progress;
                let others = self.rate_of_others(*worker);
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
                    late: lateness(silent_ms, lease_ms, progress.images_per_s, others),
                })
            })
            .collect();
        statuses.sort_by_key(|status| status.worker);
        statuses
    }

    /// The median rate of the other workers that compute; 0 where there is none.
    fn rate_of_others(&self, worker: WorkerId) -> f64 {
        let others = self.sessions.values().filter(|s| s.identity.as_ref().is_some_and(|(other, _)| *other != worker));
        let mut rates: Vec<f64> = others.map(|s| s.progress.images_per_s).filter(|rate| *rate > 0.0).collect();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied().unwrap_or_default()
    }
}

/// A worker slower than this share of the others' rate is late: they wait for it at every step.
const LATE: f64 = 0.7;

/// Why the others wait for a worker, where they do: its heartbeat is overdue, or it computes more slowly than they.
fn lateness(silent_ms: u64, lease_ms: u64, rate: f64, others: f64) -> String {
    if silent_ms > lease_ms / 2 {
        return format!("silent for {silent_ms} of {lease_ms} ms");
    }
    if rate > 0.0 && rate < LATE * others {
        return format!("computes {rate:.0} images/s, others {others:.0}");
    }
    String::new()
}
