//! A worker that lives, but whose training does not go on: a processor or an accelerator that hangs, a disk that does not answer.
//!
//! Its heartbeats come, and say for ever the same: step k, and that it computes. How long that is borne is not a constant but follows from
//! how long steps take. Whoever waits for others, evaluates or writes its state down is none that hangs; but where all wait for each other,
//! one of them does, and it is the one that does not leave the generation when it is told to.

use std::time::Duration;

use strath_core::{Spread, Step, Timestamp};

use super::regroup::{LAST_HOLDERS, PATIENCE};
use super::{Coordinator, Session, Stage, Standing};
use crate::event::Connection;
use crate::message::{Phase, Progress};

/// So many steps have to be measured before anything is concluded from them.
const LEAST_MEASURED: usize = 8;
/// A step may take the median and so many MADs,
const DEVIATIONS: f64 = 20.0;
/// and so many times the longest of the newest.
const TIMES_LONGEST: f64 = 4.0;
/// Whatever steps take, so many leases are borne: machines pause.
const LEAST_LEASES: u32 = 5;
/// In the first steps of a generation, which may share the work among fewer and touch their memory for the first time, so many times
/// what was borne in the one before.
const TIMES_BEFORE: u32 = 10;

/// How long a step may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Patience {
    /// What was borne in the generation before, where that was known.
    before: Option<Duration>,
}

impl Patience {
    /// A generation begins; `steps`: what those of the one before took, seconds.
    pub(super) fn begin(&mut self, steps: impl Iterator<Item = f64> + Clone, lease: Duration) {
        self.before = borne(steps, lease).or(self.before);
    }

    /// How long a worker may compute within a step, given what the generation's newest ones took; `None` while too little is known.
    fn now(self, steps: impl Iterator<Item = f64> + Clone, lease: Duration) -> Option<Duration> {
        let measured = borne(steps.clone(), lease);
        measured.or_else(|| Some(self.before?.saturating_mul(TIMES_BEFORE).max(duration(times_longest(steps)))))
    }
}

/// How long is borne where steps have taken so many seconds; `None` where too few are known.
fn borne(steps: impl Iterator<Item = f64> + Clone, lease: Duration) -> Option<Duration> {
    let spread = Spread::of(steps.clone()).filter(|spread| spread.count >= LEAST_MEASURED)?;
    let most = (spread.median + DEVIATIONS * spread.mad).max(times_longest(steps));
    Some(duration(most).max(lease * LEAST_LEASES))
}

/// [`TIMES_LONGEST`] the longest of these, seconds.
fn times_longest(steps: impl Iterator<Item = f64>) -> f64 {
    steps.fold(0.0, f64::max) * TIMES_LONGEST
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// Since when a worker is where its heartbeats say that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stay {
    since: Timestamp,
}

impl Stay {
    /// It is there from now on.
    pub(super) fn at(now: Timestamp) -> Self {
        Self { since: now }
    }

    /// A heartbeat has come, and the one before said `before`.
    pub(super) fn note(&mut self, before: &Progress, progress: &Progress, now: Timestamp) {
        let of = |phase| (computes(phase), waits(phase));
        let place = |progress: &Progress| (progress.generation, progress.step, of(progress.phase));
        if place(before) != place(progress) {
            self.since = now;
        }
    }

    /// What the coordinator has slept through is not held against anybody.
    pub(super) fn forgive(&mut self, gap: Duration, now: Timestamp) {
        self.since = self.since.after(gap).min(now);
    }
}

/// Whether a worker in this phase waits for the others' parts of a sum.
fn waits(phase: Phase) -> bool {
    matches!(phase, Phase::Exchange | Phase::Reduce)
}

/// Whether a worker in this phase waits for nobody.
fn computes(phase: Phase) -> bool {
    matches!(phase, Phase::Ascent | Phase::Descent | Phase::Update)
}

impl Coordinator {
    /// How long a rank may compute within a step. Where that is not known it may take any time, but others wait for it for [`PATIENCE`].
    pub(super) fn patience(&self, now: Timestamp) -> Option<Duration> {
        let has_waited = |session: &Session| {
            let is_waiting = session.standing == Standing::Running && waits(session.progress.phase);
            is_waiting && now.since(session.stay.since) >= PATIENCE
        };
        let unknown = || self.sessions.values().any(has_waited).then_some(PATIENCE);
        self.patience.now(self.balance.steps(), self.settings.lease()).or_else(unknown)
    }

    /// How long a worker computes within a step already, where it is at work; or waits, where it was told to leave the generation and so
    /// has nothing to wait for.
    pub(super) fn computes_for(&self, session: &Session, now: Timestamp) -> Option<Duration> {
        let Progress { generation, phase, .. } = session.progress;
        let since = match (&self.stage, session.standing) {
            _ if generation != self.generation => None,
            (_, Standing::Running | Standing::Halting) if computes(phase) => Some(session.stay.since),
            (Stage::Regrouping(regroup), Standing::Halting) if waits(phase) => regroup.since(),
            _ => None,
        };
        since.map(|since| now.since(since))
    }

    /// The step in which all ranks wait for each other for longer than a step may take. One may be a step ahead: what it needed of the others came, and
    /// what they need of it did not.
    fn all_wait(&self, patience: Duration, now: Timestamp) -> Option<Step> {
        let ranks = || self.sessions.values().filter(|session| session.rank.is_some());
        let has_waited = |session: &Session| {
            let is_there = session.standing == Standing::Running && session.progress.generation == self.generation;
            is_there && waits(session.progress.phase) && now.since(session.stay.since) >= patience
        };
        ranks().all(has_waited).then(|| ranks().map(|session| session.progress.step).min())?
    }

    /// What is to be said of a worker that computes within a step for so long that it may soon be done without.
    pub(super) fn why_stuck(&self, session: &Session, now: Timestamp) -> Option<String> {
        let (computes, patience) = (self.computes_for(session, now)?, self.patience(now)?);
        let is_long = computes >= patience / 2;
        is_long
            .then(|| format!("computes for {:.1} s, of at most {:.1}", computes.as_secs_f64(), patience.as_secs_f64()))
    }

    /// Goes on without those whose training hangs, where somebody is left who holds the state, or waits and will; where nobody is, all
    /// are waited for longer.
    pub(super) fn end_the_hanging(&mut self, now: Timestamp) {
        let may_do_without = matches!(self.stage, Stage::Running | Stage::Regrouping(_)) && self.survives();
        if !may_do_without || self.agreed.is_some() || now < self.next_look_for_hanging {
            return;
        }
        self.next_look_for_hanging = now.after(self.settings.lease() / 4);
        let Some(patience) = self.patience(now) else { return };
        if let Some(step) = self.all_wait(patience, now) {
            let why = self.why_so_long(patience);
            return self.regroup(format!("all ranks wait for each other at step {step}, {why}"));
        }
        let computes =
            |session: &Session, most: Duration| self.computes_for(session, now).is_some_and(|so_far| so_far >= most);
        let is_well = |session: &Session| match session.standing {
            Standing::Running | Standing::Halting => !computes(session, patience),
            Standing::Ready => session.held.is_some() && !session.is_retiring,
            _ => false,
        };
        let is_held = self.sessions.values().any(is_well);
        let patience = if is_held { patience } else { patience.max(PATIENCE).saturating_mul(LAST_HOLDERS) };
        let hanging: Vec<(Connection, String)> = self
            .sessions
            .iter()
            .filter(|(_, session)| computes(session, patience))
            .map(|(connection, session)| {
                let for_s = self.computes_for(session, now).unwrap_or_default().as_secs_f64();
                let place = self.place(session);
                (
                    *connection,
                    format!("{} hangs {place} for {for_s:.1} s, {}", session.name(), self.why_so_long(patience)),
                )
            })
            .collect();
        for (connection, message) in hanging {
            if !self.survives() {
                break;
            }
            let worker = self.sessions.get(&connection).and_then(|session| session.identity.as_ref());
            self.hung.extend(worker.map(|(worker, _)| *worker));
            self.leave(connection, message);
        }
    }

    fn why_so_long(&self, patience: Duration) -> String {
        let usual = Spread::of(self.balance.steps())
            .map_or(String::new(), |spread| format!(" where one takes {:.3} s", spread.median));
        format!("longer than the {:.1} s that a step may take{usual}", patience.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(2);

    fn seconds(steps: &[f64]) -> impl Iterator<Item = f64> + Clone {
        steps.iter().copied()
    }

    #[test]
    fn what_is_borne_follows_from_how_long_steps_take() {
        assert_eq!(borne(seconds(&[1.0; LEAST_MEASURED - 1]), LEASE), None);
        // Short ones: machines pause.
        assert_eq!(borne(seconds(&[0.01; 15]), LEASE), Some(5 * LEASE));
        // Long ones, all alike.
        assert_eq!(borne(seconds(&[60.0; 15]), LEASE), Some(Duration::from_secs(240)));
        // As long ones of very different lengths.
        let uneven = [30.0, 90.0, 45.0, 75.0, 60.0, 40.0, 80.0, 60.0];
        assert_eq!(borne(seconds(&uneven), LEASE), Some(Duration::from_secs(460)), "60 and 20 times 20");
        assert_eq!(borne(seconds(&[f64::INFINITY; 15]), LEASE), Some(Duration::MAX));
    }

    #[test]
    fn the_first_steps_of_a_generation_may_take_longer() {
        let mut patience = Patience::default();
        assert_eq!(patience.now(seconds(&[]), LEASE), None);
        patience.begin(seconds(&[0.1; 8]), LEASE);
        assert_eq!(patience.now(seconds(&[0.1]), LEASE), Some(Duration::from_secs(100)));
        assert_eq!(patience.now(seconds(&[0.1; 8]), LEASE), Some(Duration::from_secs(10)));
        // One that had no time to measure changes nothing.
        patience.begin(seconds(&[0.1; 3]), LEASE);
        assert_eq!(patience.now(seconds(&[]), LEASE), Some(Duration::from_secs(100)));
    }
}
