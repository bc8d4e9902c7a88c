//! The last decisions of a coordinator, with their reasons and times.

use std::collections::VecDeque;

use strath_core::{Timestamp, WorkerId};

use super::Coordinator;
use crate::decision::Decision;
use crate::status::DecisionStatus;

/// How many are remembered.
const REMEMBERED: usize = 32;

/// How many of them a status shows.
const SHOWN: usize = 5;

/// The last decisions, the newest last.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Decisions {
    last: VecDeque<Decided>,
    /// How many of them belong to the event that is being taken in, whose time is noted at its end.
    undated: usize,
}

/// A decision that was made.
#[derive(Debug, Clone, PartialEq)]
struct Decided {
    what: Decision,
    why: String,
    at: Timestamp,
}

impl Decisions {
    /// Notes a decision, unless it is the newest already: one that is still waited for is no news.
    pub(super) fn note(&mut self, what: Decision, why: &str) {
        if self.last.back().is_some_and(|newest| newest.what == what && newest.why == why) {
            return;
        }
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last.push_back(Decided { what, why: why.into(), at: Timestamp::default() });
        self.undated = (self.undated + 1).min(REMEMBERED);
    }

    /// Says when the event happened that was taken in.
    pub(super) fn date(&mut self, now: Timestamp) {
        for decided in self.last.iter_mut().rev().take(self.undated) {
            decided.at = now;
        }
        self.undated = 0;
    }

    /// The newest, the newest last, as a status shows them.
    pub(super) fn shown(&self, now: Timestamp) -> Vec<DecisionStatus> {
        let newest = self.last.iter().skip(self.last.len().saturating_sub(SHOWN));
        newest
            .map(|Decided { what, why, at }| DecisionStatus {
                what: what.to_string(),
                why: why.clone(),
                ago_ms: now.since(*at).as_millis() as u64,
            })
            .collect()
    }

    /// Whether a worker has left, as it was asked to.
    pub(super) fn has_released(&self, worker: WorkerId) -> bool {
        self.last.iter().any(|decided| decided.what == Decision::Releases(worker))
    }
}

impl Coordinator {
    /// Notes what was decided, and why.
    pub(super) fn decide(&mut self, what: Decision, why: &str) {
        self.decisions.note(what, why);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp(Duration::from_millis(ms))
    }

    #[test]
    fn the_newest_are_remembered_each_with_the_time_of_its_event() {
        let mut decisions = Decisions::default();
        for number in 0..100 {
            decisions.note(Decision::Drops(WorkerId(number)), "lost");
            decisions.note(Decision::Releases(WorkerId(number)), "it wanted to leave");
            decisions.date(at(number));
        }
        assert_eq!(decisions.last.len(), REMEMBERED);
        let shown = decisions.shown(at(100));
        assert_eq!(shown.len(), SHOWN);
        let newest = shown.iter().rev().map(|told| (told.what.as_str(), told.ago_ms)).take(3).collect::<Vec<_>>();
        assert_eq!(newest, [("let worker 99 go", 1), ("dropped worker 99", 1), ("let worker 98 go", 2)]);
        assert!(decisions.has_released(WorkerId(98)) && !decisions.has_released(WorkerId(1)));
    }

    #[test]
    fn what_is_decided_again_is_no_news() {
        let mut decisions = Decisions::default();
        for now in 0..3 {
            decisions.note(Decision::Waits, "1 of 2 are there");
            decisions.date(at(now));
        }
        assert_eq!(decisions.shown(at(10)).iter().map(|told| told.ago_ms).collect::<Vec<_>>(), [10]);
        decisions.note(Decision::Waits, "none of 2 is there");
        assert_eq!(decisions.last.len(), 2);
    }
}
