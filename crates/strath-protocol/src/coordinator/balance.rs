//! Work follows speed: whether micro-batches are handed out anew because ranks do not take equally long.
//!
//! A step takes as long as its slowest rank. Each rank's own speed is known from its heartbeats (waits left out, so that it does not depend
//! on what the others do or on how much it holds); what a step would take under the best hand-out follows from that. Moving costs a pause,
//! and speeds are noisy: it is done where it saves clearly more than noise could, is repaid, and not too often. Where the newest
//! measurements say that it would save enough and their noise says that this may be chance, more of them are asked.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use strath_core::config::Reduce;
use strath_core::{Assignment, BySpeed, Plan, Spread, Step, Timestamp};

use super::{Coordinator, Session, Stage};
use crate::message::{Job, Progress, StepReport};

/// Measurements that a speed is the median of,
const NEWEST: usize = 7;
/// and those that are asked where these are too noisy to tell.
const MOST_MEASURED: usize = 28;
/// So many of them have to be of the generation that is at work.
const LEAST_MEASURED: usize = 3;
/// A move saves at least this share of a step,
const LEAST_GAIN: f64 = 0.1;
/// and so many standard errors of the passes' part of it: by chance alone the slowest of several ranks often seems 3 slower.
const ERRORS: f64 = 4.0;
/// It is repaid so many times over in the steps that are left.
const REPAID: f64 = 2.0;
/// What a move costs, seconds, before one was measured.
const USUAL_COST: f64 = 0.5;
/// Time between two moves, at least.
const BETWEEN: Duration = Duration::from_secs(10);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// What was measured of a worker that has had nothing to do for so long says nothing: it may be as fast as the others by now.
const FORGOTTEN: Duration = Duration::from_secs(300);
/// Steps whose median is the step time.
const STEPS: usize = 15;

/// What is known of a worker's own speed, images a second.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Measured {
    rates: VecDeque<f64>,
    /// The newest, by the step at which it was taken.
    at: Step,
    /// How many are of the generation that is at work.
    fresh: usize,
    /// When the newest was taken.
    when: Timestamp,
}

impl Measured {
    /// A generation begins.
    pub(super) fn begin(&mut self, start: Step) {
        (self.at, self.fresh) = (start, 0);
    }

    /// A heartbeat has come. One that crossed no step brings no news.
    pub(super) fn note(&mut self, progress: &Progress, now: Timestamp) {
        if progress.images_per_s > 0.0 && progress.step > self.at {
            if self.rates.len() == MOST_MEASURED {
                self.rates.pop_front();
            }
            self.rates.push_back(progress.images_per_s);
            (self.at, self.when) = (progress.step, now);
            self.fresh += 1;
        }
    }

    /// The speed by the newest `most` measurements, where it is known.
    fn known(&self, now: Timestamp, most: usize) -> Option<Spread> {
        Spread::of(self.rates.iter().rev().take(most).copied()).filter(|_| now.since(self.when) < FORGOTTEN)
    }
}

/// What the coordinator remembers of hand-outs.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Balance {
    next_look: Timestamp,
    /// When work was moved last.
    moved: Option<Timestamp>,
    /// When the pause of the last move had its first rank rest; `None` once what it cost is known.
    pub(super) rested: Option<Timestamp>,
    /// What a move costs, seconds.
    cost: Option<f64>,
    /// Seconds of the generation's newest steps.
    steps: VecDeque<f64>,
}

impl Balance {
    /// A generation begins.
    pub(super) fn begin(&mut self) {
        self.steps.clear();
    }

    /// Seconds of the generation's newest steps.
    pub(super) fn steps(&self) -> impl Iterator<Item = f64> + Clone {
        self.steps.iter().copied()
    }

    /// A step is complete.
    pub(super) fn note(&mut self, report: &StepReport) {
        if self.steps.len() == STEPS {
            self.steps.pop_front();
        }
        self.steps.push_back(report.seconds);
    }
}

/// What a decision is made from.
#[derive(Debug, Clone, Copy)]
struct Facts<'a> {
    plan: &'a Plan,
    /// The present hand-out.
    assignment: &'a Assignment,
    /// Each rank's speed.
    speeds: &'a [Spread],
    /// Seconds of a step, exchange and all.
    step_s: f64,
    /// Steps until the end of the run.
    left: u64,
    /// Seconds that a move costs.
    cost_s: f64,
    /// Time since the last move.
    since: Option<Duration>,
}

/// What is done about the hand-out, and why.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    /// It stays: work was moved a short while ago.
    TooSoon,
    /// It stays: a move would save less of a step than `least`.
    TooLittle { gain: f64, least: f64 },
    /// It stays: what a move would save until the end of the run does not repay it.
    NotRepaid { saves_s: f64, cost_s: f64 },
    /// It is made anew: the slowest rank's passes take `from_s` now, and those of the slowest then `to_s`.
    Move { from_s: f64, to_s: f64, gain: f64 },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSoon => write!(f, "work was moved less than {} s ago", BETWEEN.as_secs()),
            Self::TooLittle { gain, least } => {
                write!(f, "a move would save {:.0} % of a step, less than {:.0} %", 100.0 * gain, 100.0 * least)
            }
            Self::NotRepaid { saves_s, cost_s } => {
                write!(f, "a move would save {saves_s:.1} s until the end and cost {cost_s:.1} s")
            }
            Self::Move { from_s, to_s, gain } => {
                write!(f, "passes of {from_s:.4} s become {to_s:.4} s, {:.0} % of a step", 100.0 * gain)
            }
        }
    }
}

/// Decides about the hand-out.
fn decide(facts: &Facts<'_>) -> Verdict {
    if facts.since.is_some_and(|since| since < BETWEEN) {
        return Verdict::TooSoon;
    }
    let rates: Vec<f64> = facts.speeds.iter().map(|speed| speed.median).collect();
    let error = facts.speeds.iter().map(Spread::relative_error).fold(0.0, f64::max);
    let from_s = facts.assignment.takes(facts.plan, &rates);
    let step_s = facts.step_s.max(from_s);
    // The errors are those of passes, which are but a part of a step, as is what is gained.
    let least = LEAST_GAIN.max(ERRORS * error * from_s / step_s);
    // No hand-out takes less than this; of most there is no need to know more.
    let ideal = facts.plan.batch() as f64 / rates.iter().sum::<f64>();
    let most = (from_s - ideal) / step_s;
    if most < least {
        return Verdict::TooLittle { gain: most, least };
    }
    let BySpeed { order, assignment } = BySpeed::new(facts.plan, &rates);
    let ranked: Vec<f64> = order.iter().map(|rank| rates[*rank]).collect();
    let to_s = assignment.takes(facts.plan, &ranked);
    let gain = (from_s - to_s) / step_s;
    if gain < least {
        return Verdict::TooLittle { gain, least };
    }
    let saves_s = (from_s - to_s) * facts.left as f64;
    if saves_s < REPAID * facts.cost_s {
        return Verdict::NotRepaid { saves_s, cost_s: facts.cost_s };
    }
    Verdict::Move { from_s, to_s, gain }
}

impl Coordinator {
    /// Whether the run computes the same bits whoever computes what.
    fn may_move(&self) -> bool {
        self.settings.job == Job::Train && self.settings.config.cluster.reduce == Reduce::Exact
    }

    /// Pauses the generation where work is to be handed out anew.
    pub(super) fn consider_moving(&mut self, now: Timestamp) {
        let is_at_work = self.stage == Stage::Running && self.pausing.is_none() && self.agreed.is_none();
        if !is_at_work || !self.may_move() || self.stop_requested || now < self.balance.next_look {
            return;
        }
        self.balance.next_look = now.after(LOOK);
        if !self.balance.steps.is_empty()
            && let Some(rested) = self.balance.rested.take()
        {
            self.balance.cost = Some(now.since(rested).as_secs_f64());
        }
        let Some((verdict, slowest)) = self.judge_hand_out(now) else { return };
        if let Verdict::Move { .. } = verdict {
            self.balance.moved = Some(now);
            self.pause(format!("work follows speed: {slowest} is the slowest; {verdict}"));
        }
    }

    /// What is to be done about the hand-out, and who is slowest; `None` while too little is known.
    fn judge_hand_out(&self, now: Timestamp) -> Option<(Verdict, String)> {
        let (assignment, step) = (self.assignment.as_ref()?, Spread::of(self.balance.steps())?);
        let mut ranked: Vec<&Session> = self.sessions.values().filter(|session| session.rank.is_some()).collect();
        ranked.sort_unstable_by_key(|session| session.rank);
        if ranked.len() != assignment.world_size() || ranked.iter().any(|session| session.finished.is_some()) {
            return None;
        }
        let is_measured = |session: &Session| {
            let idles = session.rank.is_some_and(|rank| assignment.of(rank).is_empty());
            idles || session.measured.fresh >= LEAST_MEASURED
        };
        if !ranked.iter().all(|session| is_measured(session)) {
            return None;
        }
        let plan = self.settings.config.plan().ok()?;
        let judge = |most: usize| {
            let speeds = completed(ranked.iter().map(|session| session.measured.known(now, most)).collect())?;
            let verdict = decide(&Facts {
                plan: &plan,
                assignment,
                speeds: &speeds,
                step_s: step.median,
                left: self.steps.0.saturating_sub(self.recorded().0),
                cost_s: self.balance.cost.unwrap_or(USUAL_COST),
                since: self.balance.moved.map(|moved| now.since(moved)),
            });
            Some((verdict, speeds))
        };
        let (verdict, speeds) = match judge(NEWEST)? {
            (Verdict::TooLittle { gain, .. }, _) if gain >= LEAST_GAIN => judge(MOST_MEASURED)?,
            judged => judged,
        };
        let (session, speed) = ranked.iter().zip(&speeds).min_by(|(_, a), (_, b)| a.median.total_cmp(&b.median))?;
        Some((verdict, format!("{} with {:.0} images/s", session.name(), speed.median)))
    }

    /// Hands out the micro-batches of a new generation to these workers: by speed where that is known and differs, else evenly. Gives
    /// the order of their ranks too.
    pub(super) fn hand_out(&self, plan: &Plan, workers: &[&Session], now: Timestamp) -> BySpeed {
        let even =
            || BySpeed { order: (0..workers.len()).collect(), assignment: Assignment::balanced(plan, workers.len()) };
        let speeds = workers.iter().map(|session| session.measured.known(now, NEWEST)).collect();
        let Some(speeds) = completed(speeds).filter(|_| self.may_move()) else { return even() };
        let rates: Vec<f64> = speeds.iter().map(|speed| speed.median).collect();
        let (even, by_speed) = (even(), BySpeed::new(plan, &rates));
        let ranked: Vec<f64> = by_speed.order.iter().map(|worker| rates[*worker]).collect();
        let (slow, fast) = (even.assignment.takes(plan, &rates), by_speed.assignment.takes(plan, &ranked));
        if fast < (1.0 - LEAST_GAIN) * slow { by_speed } else { even }
    }
}

/// Speeds with those that are not known taken to be the middle of the others; `None` where none is known.
fn completed(speeds: Vec<Option<Spread>>) -> Option<Vec<Spread>> {
    let usual = Spread::of(speeds.iter().flatten().map(|speed| speed.median))?;
    let unknown = Spread { median: usual.median, mad: 0.0, count: 1 };
    Some(speeds.into_iter().map(|speed| speed.unwrap_or(unknown)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speed(median: f64, mad: f64) -> Spread {
        Spread { median, mad, count: NEWEST }
    }

    fn decided(speeds: &[Spread], change: impl FnOnce(&mut Facts<'_>)) -> Verdict {
        let plan = Plan::uniform(32, 1, None).unwrap();
        let assignment = Assignment::balanced(&plan, speeds.len());
        let mut facts =
            Facts { plan: &plan, assignment: &assignment, speeds, step_s: 0.0, left: 1000, cost_s: 0.1, since: None };
        change(&mut facts);
        decide(&facts)
    }

    #[test]
    fn work_moves_away_from_one_at_half_speed_where_that_pays() {
        let (fast, slow) = (speed(100.0, 1.0), speed(50.0, 0.5));
        let speeds = [fast, fast, slow, fast];
        let Verdict::Move { from_s, to_s, gain } = decided(&speeds, |_| ()) else { panic!("it is to move") };
        // 8 micro-batches a rank become 9, 9, 5, 9.
        assert_eq!((from_s, to_s), (0.16, 0.1));
        assert!((gain - 0.375).abs() < 1e-12, "{gain}");
        assert_eq!(decided(&speeds, |facts| facts.since = Some(Duration::from_secs(9))), Verdict::TooSoon);
        assert!(matches!(decided(&speeds, |facts| facts.since = Some(BETWEEN)), Verdict::Move { .. }));
        let saves_s = (0.16 - 0.1) * 3.0;
        assert_eq!(decided(&speeds, |facts| facts.left = 3), Verdict::NotRepaid { saves_s, cost_s: 0.1 });
        // Of a step that is mostly exchange little would be saved.
        assert!(matches!(decided(&speeds, |facts| facts.step_s = 2.0), Verdict::TooLittle { .. }));
        // Speeds are as certain where passes are but a part of a step: 24 % of it are saved, four errors are 14 %.
        let [fast, slow] = [speed(100.0, 8.0), speed(50.0, 4.0)];
        let found = decided(&[fast, fast, slow, fast], |facts| facts.step_s = 0.25);
        assert!(matches!(found, Verdict::Move { .. }), "{found}");
        // Nor where the speeds may be anything.
        let noisy = speed(50.0, 15.0);
        assert!(matches!(decided(&[fast, fast, noisy, fast], |_| ()), Verdict::TooLittle { .. }));
    }

    #[test]
    fn a_difference_that_whole_micro_batches_cannot_make_good_moves_nothing() {
        let verdict = decided(&[speed(100.0, 0.0), speed(100.0, 0.0), speed(95.0, 0.0), speed(100.0, 0.0)], |_| ());
        assert!(matches!(verdict, Verdict::TooLittle { .. }), "{verdict}");
    }

    #[test]
    fn what_is_unknown_counts_as_the_middle_of_what_is() {
        assert_eq!(completed(vec![None, None]), None);
        let known = [speed(10.0, 1.0), speed(30.0, 1.0), speed(20.0, 1.0)].map(Some);
        let all = completed([&known[..], &[None]].concat()).unwrap();
        assert_eq!(all[3], Spread { median: 20.0, mad: 0.0, count: 1 });
    }

    #[test]
    fn a_speed_is_measured_once_a_step_and_forgotten_when_it_is_old() {
        let mut measured = Measured::default();
        let at = |s: u64| Timestamp(Duration::from_secs(s));
        let said = |step, images_per_s| Progress {
            generation: strath_core::Generation(1),
            step: Step(step),
            phase: crate::message::Phase::Ascent,
            images_per_s,
        };
        measured.begin(Step(4));
        for (step, rate) in [(4, 9.0), (5, 0.0), (5, 10.0), (5, 10.0), (6, 12.0)] {
            measured.note(&said(step, rate), at(1));
        }
        assert_eq!((measured.fresh, measured.known(at(2), NEWEST).map(|s| s.count)), (2, Some(2)));
        assert_eq!(measured.known(at(2), 1).map(|s| s.median), Some(12.0), "the newest");
        measured.begin(Step(6));
        assert_eq!((measured.fresh, measured.known(at(300), NEWEST).map(|s| s.median)), (0, Some(12.0)));
        assert_eq!(measured.known(at(301), NEWEST), None);
    }
}
