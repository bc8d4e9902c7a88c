//! The plan of a batch: batch -> lanes -> micro-batches -> ranks.
//!
//! ```text
//! batch of 32     |0                              16              24      28      |
//! lanes  m=[16,8,4,4]  lane 0                       lane 1         lane 2  lane 3
//! micro = 4       | 0     1      2      3        | 4      5      | 6     | 7      |
//! 3 ranks         |      rank 0     |      rank 1        |         rank 2         |
//! ```
//!
//! Micro-batches are handed out in order and a rank holds a run of consecutive ones, so a lane larger than a rank's share
//! is spread over neighbouring ranks (here lane 0 over ranks 0 and 1).

use std::ops::Range;

use crate::ids::Rank;

/// The global batch of a step, cut into lanes and micro-batches. The same for every step of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    batch: usize,
    lanes: Vec<Lane>,
    micro_batches: Vec<MicroBatch>,
}

/// A run of consecutive examples of the batch that have one epsilon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    /// Position in the batch of its first example.
    pub start: usize,
    /// Its number of examples, m.
    pub size: usize,
    /// Its micro-batches.
    pub micro_batches: Range<usize>,
}

/// The examples of one forward and backward pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MicroBatch {
    /// The lane it belongs to.
    pub lane: usize,
    /// Position in the batch of its first example.
    pub start: usize,
    /// Its number of examples.
    pub size: usize,
}

/// Why a batch cannot be cut as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A lane or micro-batch without examples.
    #[error("{what} must be at least 1, found 0")]
    Empty {
        /// Which size is 0.
        what: &'static str,
    },
    /// The lanes do not fill the batch exactly.
    #[error("sam.m: lanes of {sum} examples together, expected batch.size = {batch}; choose lane sizes that sum to it")]
    LanesDoNotFillBatch {
        /// What the lane sizes sum to.
        sum: usize,
        /// The batch.
        batch: usize,
    },
    /// A single m that leaves a remainder.
    #[error(
        "sam.m = {m} does not divide batch.size = {batch}; choose a divisor, or a list of lane sizes that sums to it"
    )]
    LaneDoesNotDivideBatch {
        /// Examples a lane.
        m: usize,
        /// The batch.
        batch: usize,
    },
    /// A micro-batch that does not divide a lane.
    #[error("batch.micro = {micro} does not divide the lane of {lane} examples; choose a divisor of every lane")]
    MicroDoesNotDivideLane {
        /// Examples a micro-batch.
        micro: usize,
        /// Examples of the first lane it does not divide.
        lane: usize,
    },
}

impl Plan {
    /// Cuts a batch into lanes of the given sizes and each lane into micro-batches of `micro` examples (`None`: one a lane).
    ///
    /// # Errors
    /// [`PlanError`] where the sizes do not fit together.
    pub fn try_new(batch: usize, lane_sizes: &[usize], micro: Option<usize>) -> Result<Self, PlanError> {
        if batch == 0 {
            return Err(PlanError::Empty { what: "batch.size" });
        }
        if lane_sizes.contains(&0) {
            return Err(PlanError::Empty { what: "sam.m" });
        }
        if micro == Some(0) {
            return Err(PlanError::Empty { what: "batch.micro" });
        }
        let sum = lane_sizes.iter().try_fold(0usize, |sum, m| sum.checked_add(*m)).unwrap_or(usize::MAX);
        if sum != batch {
            return Err(PlanError::LanesDoNotFillBatch { sum, batch });
        }
        let mut plan = Self { batch, lanes: Vec::new(), micro_batches: Vec::new() };
        let mut start = 0;
        for (lane, &size) in lane_sizes.iter().enumerate() {
            let micro = micro.unwrap_or(size);
            if !size.is_multiple_of(micro) {
                return Err(PlanError::MicroDoesNotDivideLane { micro, lane: size });
            }
            let first = plan.micro_batches.len();
            let pieces = (0..size / micro).map(|k| MicroBatch { lane, start: start + k * micro, size: micro });
            plan.micro_batches.extend(pieces);
            plan.lanes.push(Lane { start, size, micro_batches: first..plan.micro_batches.len() });
            start += size;
        }
        Ok(plan)
    }

    /// Cuts a batch into equal lanes of `m`.
    ///
    /// # Errors
    /// [`PlanError`] where the sizes do not fit together.
    pub fn uniform(batch: usize, m: usize, micro: Option<usize>) -> Result<Self, PlanError> {
        if m == 0 {
            return Err(PlanError::Empty { what: "sam.m" });
        }
        if !batch.is_multiple_of(m) {
            return Err(PlanError::LaneDoesNotDivideBatch { m, batch });
        }
        Self::try_new(batch, &vec![m; batch / m], micro)
    }

    /// Examples of the global batch.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// The lanes, in order.
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// The micro-batches, in order.
    pub fn micro_batches(&self) -> &[MicroBatch] {
        &self.micro_batches
    }

    /// The share of the batch that lane `lane` is, m_v / B.
    pub fn lane_weight(&self, lane: usize) -> f64 {
        self.lanes[lane].size as f64 / self.batch as f64
    }
}

/// Which rank computes which micro-batches: a run of consecutive ones each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Rank r holds micro-batches `bounds[r]..bounds[r + 1]`.
    bounds: Vec<usize>,
}

/// Bounds that are no assignment of a plan's micro-batches.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected bounds that rise from 0 to {micro_batches}, found {found:?}")]
pub struct NotAnAssignment {
    /// How many micro-batches there are to hand out.
    pub micro_batches: usize,
    /// What was found.
    pub found: Vec<usize>,
}

impl Assignment {
    /// Hands out a plan's micro-batches so that the largest share, in examples, is as small as it can be. Ranks are
    /// filled in order; those beyond the number of micro-batches idle.
    ///
    /// # Panics
    /// Where `world_size` is 0.
    pub fn balanced(plan: &Plan, world_size: usize) -> Self {
        assert!(world_size > 0, "a world has at least one rank");
        let sizes: Vec<usize> = plan.micro_batches.iter().map(|m| m.size).collect();
        let largest = sizes.iter().copied().max().unwrap_or(0);
        // The least capacity with which filling ranks greedily, in order, needs no more than world_size of them.
        let (mut low, mut high) = (largest, plan.batch);
        while low < high {
            let capacity = usize::midpoint(low, high);
            if ranks_needed(&sizes, capacity) <= world_size {
                high = capacity;
            } else {
                low = capacity + 1;
            }
        }
        let capacity = low;
        let mut bounds = vec![0];
        let mut at = 0;
        for rank in 0..world_size {
            // As much as fits, but one micro-batch is left for every rank that follows.
            let following = world_size - rank - 1;
            let mut taken = 0;
            while at < sizes.len() && taken + sizes[at] <= capacity && (taken == 0 || sizes.len() - at > following) {
                taken += sizes[at];
                at += 1;
            }
            bounds.push(at);
        }
        Self { bounds }
    }

    /// An assignment as it arrived from elsewhere.
    ///
    /// # Errors
    /// [`NotAnAssignment`] unless the bounds rise from 0 to `micro_batches`.
    pub fn from_bounds(bounds: Vec<usize>, micro_batches: usize) -> Result<Self, NotAnAssignment> {
        let rises = bounds.windows(2).all(|pair| pair[0] <= pair[1]);
        if bounds.len() < 2 || bounds[0] != 0 || bounds.last() != Some(&micro_batches) || !rises {
            return Err(NotAnAssignment { micro_batches, found: bounds });
        }
        Ok(Self { bounds })
    }

    /// The bounds, as they travel.
    pub fn bounds(&self) -> &[usize] {
        &self.bounds
    }

    /// Number of ranks.
    pub fn world_size(&self) -> usize {
        self.bounds.len() - 1
    }

    /// The micro-batches of a rank.
    pub fn of(&self, rank: Rank) -> Range<usize> {
        self.bounds[rank.index()]..self.bounds[rank.index() + 1]
    }

    /// The ranks that hold micro-batches of a lane, which are neighbours: those that share the lane's epsilon.
    pub fn ranks_of(&self, lane: &Lane) -> Range<u32> {
        let holds = |rank: usize| {
            let held = self.bounds[rank]..self.bounds[rank + 1];
            held.start < lane.micro_batches.end && lane.micro_batches.start < held.end && !held.is_empty()
        };
        let first = (0..self.world_size()).find(|r| holds(*r)).unwrap_or(0);
        let last = (first..self.world_size()).rev().find(|r| holds(*r)).unwrap_or(first);
        first as u32..last as u32 + 1
    }
}

fn ranks_needed(sizes: &[usize], capacity: usize) -> usize {
    let mut ranks = 0;
    let mut room = 0;
    for &size in sizes {
        if size > room {
            ranks += 1;
            room = capacity;
        }
        room -= size;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_and_micro_batches_tile_the_batch_in_order() {
        let plan = Plan::try_new(32, &[16, 8, 4, 4], Some(4)).unwrap();
        assert_eq!(plan.lanes()[1], Lane { start: 16, size: 8, micro_batches: 4..6 });
        assert_eq!(plan.micro_batches()[5], MicroBatch { lane: 1, start: 20, size: 4 });
        let tiled: Vec<usize> = plan.micro_batches().iter().flat_map(|m| m.start..m.start + m.size).collect();
        assert_eq!(tiled, (0..32).collect::<Vec<_>>());
        assert_eq!(plan.lane_weight(1), 0.25);
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused_by_name() {
        assert_eq!(Plan::uniform(64, 24, None), Err(PlanError::LaneDoesNotDivideBatch { m: 24, batch: 64 }));
        assert_eq!(Plan::try_new(8, &[4, 2], None), Err(PlanError::LanesDoNotFillBatch { sum: 6, batch: 8 }));
        assert_eq!(Plan::try_new(6, &[4, 2], Some(4)), Err(PlanError::MicroDoesNotDivideLane { micro: 4, lane: 2 }));
        assert_eq!(Plan::uniform(4, 0, None), Err(PlanError::Empty { what: "sam.m" }));
        assert_eq!(Plan::uniform(4, 4, Some(0)), Err(PlanError::Empty { what: "batch.micro" }));
        assert_eq!(Plan::try_new(0, &[], None), Err(PlanError::Empty { what: "batch.size" }));
    }

    #[test]
    fn shares_are_as_even_as_whole_micro_batches_allow() {
        let bounds = |plan: &Plan, world| Assignment::balanced(plan, world).bounds().to_vec();
        let eight = Plan::uniform(32, 4, None).unwrap();
        assert_eq!(bounds(&eight, 1), [0, 8]);
        assert_eq!(bounds(&eight, 3), [0, 3, 6, 8]);
        assert_eq!(bounds(&eight, 5), [0, 2, 4, 6, 7, 8]);
        assert_eq!(bounds(&Plan::uniform(8, 4, None).unwrap(), 4), [0, 1, 2, 2, 2]);
        let uneven = Plan::try_new(32, &[16, 8, 4, 4], None).unwrap();
        assert_eq!(bounds(&uneven, 2), [0, 1, 4]);
        assert_eq!(bounds(&uneven, 3), [0, 1, 3, 4]);
    }

    #[test]
    fn every_assignment_covers_every_micro_batch_and_no_busy_rank_idles() {
        for lanes in [vec![8; 4], vec![16, 8, 4, 4], vec![1; 32], vec![4, 4, 8, 16], vec![30, 1, 1]] {
            let plan = Plan::try_new(32, &lanes, None).unwrap();
            for world in 1..40 {
                let assignment = Assignment::balanced(&plan, world);
                let bounds = assignment.bounds();
                assert_eq!(
                    Assignment::from_bounds(bounds.to_vec(), plan.micro_batches().len()),
                    Ok(assignment.clone())
                );
                let busy = bounds.windows(2).filter(|b| b[0] < b[1]).count();
                assert_eq!(busy, world.min(lanes.len()), "{lanes:?} over {world}: {bounds:?}");
                let load = |r: u32| assignment.of(Rank(r)).map(|k| lanes[k]).sum::<usize>();
                let worst = (0..world as u32).map(load).max().unwrap();
                let capacity =
                    (1..=32).find(|c| *c >= *lanes.iter().max().unwrap() && ranks_needed(&lanes, *c) <= world);
                assert_eq!(Some(worst), capacity, "{lanes:?} over {world}: {bounds:?}");
            }
        }
    }

    #[test]
    fn a_lane_larger_than_a_share_is_held_by_neighbours() {
        let plan = Plan::uniform(32, 16, Some(4)).unwrap();
        let assignment = Assignment::balanced(&plan, 3);
        assert_eq!(assignment.bounds(), [0, 3, 6, 8]);
        assert_eq!(assignment.ranks_of(&plan.lanes()[0]), 0..2);
        assert_eq!(assignment.ranks_of(&plan.lanes()[1]), 1..3);
        let whole = Plan::uniform(32, 32, Some(4)).unwrap();
        assert_eq!(Assignment::balanced(&whole, 5).ranks_of(&whole.lanes()[0]), 0..5);
        let idle = Plan::uniform(8, 8, Some(4)).unwrap();
        assert_eq!(Assignment::balanced(&idle, 4).ranks_of(&idle.lanes()[0]), 0..2);
    }
}
