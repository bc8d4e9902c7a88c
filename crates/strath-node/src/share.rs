//! A rank's share of the batch: the lanes it holds alone and those it shares with neighbours.

use std::ops::Range;

use strath_core::{Assignment, Plan, Rank};

/// The part of a lane that one rank computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanePart {
    /// The lane.
    pub lane: usize,
    /// The rank's micro-batches of it.
    pub micro_batches: Range<usize>,
    /// All ranks that hold micro-batches of it.
    pub ranks: Range<u32>,
    /// Whether this part begins the lane, so that the lane is counted here.
    pub is_first: bool,
}

/// The lanes of one rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    own: Vec<LanePart>,
    shared: Vec<LanePart>,
    world_size: u32,
}

impl Share {
    /// The share of `rank`. With `lanes_are_whole` a lane needs one epsilon, so one that several ranks hold is shared;
    /// without, every part stands alone.
    pub fn new(plan: &Plan, assignment: &Assignment, rank: Rank, lanes_are_whole: bool) -> Self {
        let held = assignment.of(rank);
        let mut share = Self { own: Vec::new(), shared: Vec::new(), world_size: assignment.world_size() as u32 };
        for (index, lane) in plan.lanes().iter().enumerate() {
            let start = lane.micro_batches.start.max(held.start);
            let end = lane.micro_batches.end.min(held.end);
            if start >= end {
                continue;
            }
            let ranks = assignment.ranks_of(lane);
            let alone = ranks.len() == 1 || !lanes_are_whole;
            let part = LanePart {
                lane: index,
                micro_batches: start..end,
                ranks: if alone { rank.0..rank.0 + 1 } else { ranks },
                is_first: start == lane.micro_batches.start,
            };
            if alone { share.own.push(part) } else { share.shared.push(part) }
        }
        share
    }

    /// Lanes that this rank holds alone.
    pub fn own(&self) -> &[LanePart] {
        &self.own
    }

    /// Lanes shared with other ranks: at most one with the ranks before it and one with those after it.
    pub fn shared(&self) -> &[LanePart] {
        &self.shared
    }

    /// The micro-batch that this rank descends on last: shared lanes come after its own.
    pub fn last(&self) -> Option<usize> {
        self.shared.last().or(self.own.last()).map(|part| part.micro_batches.end - 1)
    }

    /// Number of ranks.
    pub fn world_size(&self) -> u32 {
        self.world_size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_between_two_shared_lanes_holds_both_ends_and_its_own() {
        // 6 lanes of 4 micro-batches over 3 ranks of 8: ranks share nothing; over 5 ranks they do.
        let plan = Plan::uniform(24, 4, Some(1)).unwrap();
        let assignment = Assignment::balanced(&plan, 5);
        assert_eq!(assignment.bounds(), [0, 5, 10, 15, 20, 24]);
        let share = Share::new(&plan, &assignment, Rank(1), true);
        let part = |lane, micro_batches, ranks, is_first| LanePart { lane, micro_batches, ranks, is_first };
        assert_eq!(share.shared(), [part(1, 5..8, 0..2, false), part(2, 8..10, 1..3, true)]);
        assert_eq!((share.own(), share.last()), (&[][..], Some(9)));
        let plain = Share::new(&plan, &assignment, Rank(1), false);
        assert_eq!(plain.own(), [part(1, 5..8, 1..2, false), part(2, 8..10, 1..2, true)]);
        assert_eq!(plain.shared(), []);
    }

    #[test]
    fn every_micro_batch_is_held_once_and_every_lane_begins_once() {
        for (lanes, micro) in [(vec![16, 8, 4, 4], 4), (vec![32], 1), (vec![4; 8], 2)] {
            let plan = Plan::try_new(32, &lanes, Some(micro)).unwrap();
            for world in 1..10 {
                let assignment = Assignment::balanced(&plan, world);
                let (mut micro_batches, mut begun) = (Vec::new(), 0);
                for rank in 0..world as u32 {
                    let share = Share::new(&plan, &assignment, Rank(rank), true);
                    assert!(share.shared().len() <= 2);
                    for part in share.own().iter().chain(share.shared()) {
                        micro_batches.extend(part.micro_batches.clone());
                        begun += usize::from(part.is_first);
                        assert!(part.ranks.contains(&rank));
                    }
                }
                micro_batches.sort_unstable();
                assert_eq!(micro_batches, (0..plan.micro_batches().len()).collect::<Vec<_>>());
                assert_eq!(begun, lanes.len());
            }
        }
    }
}
