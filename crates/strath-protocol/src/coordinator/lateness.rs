//! Whom the others wait for, and why.

use strath_core::{Spread, Timestamp, WorkerId};

use super::joining::Supply;
use super::{Coordinator, Session, Stage, Standing};

/// A worker slower than this share of the others' rate is late: they wait for it at every step.
const LATE: f64 = 0.7;

impl Coordinator {
    /// Why the others wait for a worker, where they do; it changes nothing.
    pub(super) fn why_late(&self, session: &Session, now: Timestamp) -> Option<String> {
        let silent_ms = now.since(session.heard).as_millis() as u64;
        let lease_ms = self.settings.config.cluster.lease_ms;
        if silent_ms > lease_ms / 2 {
            return Some(format!("silent for {silent_ms} of {lease_ms} ms"));
        }
        match (&self.stage, session.standing) {
            // They wait for the next generation, which does not begin without it.
            (_, Standing::Preparing) if self.any(Standing::Ready) => Some("still loads its data and model".into()),
            (Stage::Connecting, Standing::Connecting) => self.why_not_connected(session),
            (Stage::Regrouping(_), Standing::Halting) if self.any(Standing::Ready) => {
                Some(format!("has not left generation {} yet, {}", self.generation, self.place(session)))
            }
            (Stage::Running | Stage::Connecting, Standing::Ready) => session.apart_since.map(|since| {
                let seconds = now.since(since).as_secs();
                format!("is left out for {seconds} s so far, as its host and another's do not reach each other")
            }),
            (Stage::Regrouping(_), Standing::Ready) => {
                let (worker, _) = session.identity.as_ref()?;
                let step = self.asked_of(*worker)?;
                Some(format!("hands over its state of step {step}"))
            }
            (Stage::Running, Standing::Running) => self.why_slow(session, now),
            _ => None,
        }
    }

    fn any(&self, standing: Standing) -> bool {
        self.sessions.values().any(|session| session.standing == standing && !session.is_retiring)
    }

    /// Why a rank's ring is not connected, where the others' are, or wait for nothing else.
    fn why_not_connected(&self, session: &Session) -> Option<String> {
        if session.supply == Supply::Sent {
            let kept = self.settings.start.as_ref();
            let bytes = kept.map_or(0, |start| start.model.len() + start.optimizer.as_ref().map_or(0, |o| o.len()));
            return Some(format!("is sent the state of step {}, {}", session.progress.step, size(bytes)));
        }
        let is_receiving = |s: &Session| s.supply == Supply::Sent && s.standing == Standing::Connecting;
        let waits_itself = self.sessions.values().any(is_receiving) || !self.any(Standing::Connected);
        (!waits_itself).then(|| "connects its ring".into())
    }

    /// Why a rank takes longer for its part of a step than usual, or than the others for theirs where they compute faster.
    fn why_slow(&self, session: &Session, now: Timestamp) -> Option<String> {
        if let Some(why) = self.why_stuck(session, now) {
            return Some(why);
        }
        let (worker, _) = session.identity.as_ref()?;
        let (rate, took) = self.pace(session)?;
        let is_other = |s: &&Session| s.identity.as_ref().is_some_and(|(other, _)| other != worker);
        let others = self.sessions.values().filter(is_other).filter_map(|s| self.pace(s));
        let (rates, times): (Vec<f64>, Vec<f64>) = others.unzip();
        let (others, they_took) = (Spread::of(rates)?.median, Spread::of(times)?.median);
        let is_slow = rate < LATE * others && took * LATE > they_took;
        is_slow.then(|| format!("computes {rate:.0} images/s, others {others:.0}"))
    }

    /// A rank's rate, images per second, and the time that its part of a step takes, in the time of an image; `None` where it idles.
    fn pace(&self, session: &Session) -> Option<(f64, f64)> {
        let rate = Some(session.progress.images_per_s).filter(|rate| *rate > 0.0)?;
        let held = self.assignment.as_ref()?.of(session.rank?).len();
        (held > 0).then(|| (rate, held as f64 / rate))
    }

    /// The step of the state that a worker was asked for.
    fn asked_of(&self, worker: WorkerId) -> Option<strath_core::Step> {
        let Stage::Regrouping(regroup) = &self.stage else { return None };
        let (connection, step) = regroup.asked()?;
        let session = self.sessions.get(&connection)?;
        session.identity.as_ref().is_some_and(|(id, _)| *id == worker).then_some(step)
    }
}

/// A number of bytes for people.
fn size(bytes: usize) -> String {
    const MIB: f64 = (1 << 20) as f64;
    format!("{:.1} MiB", bytes as f64 / MIB)
}
