//! The ladder: how long the ascent gradients of coarser lanes would be, from the one ascent pass at the m of the run.
//!
//! ```text
//! rung 2, 4 m   | group 6                                              |
//! rung 1, 2 m   | group 4                   | group 5                  |
//! the run's m   | lane 0      | lane 1      | lane 2     | lane 3      |
//! 2 ranks       |            rank 0                |      rank 1       |
//! ```
//!
//! A group's gradient is the mean of its lanes' where a micro-batch's gradient does not depend on the lane that it is in. Groups are filled
//! as by a binary counter: each micro-batch's gradient goes into the lowest, unrounded, in integers, and a group that a rank is through with
//! goes into the one above it, so that as many vectors are open as there are rungs (twice that where a rank shares lanes with both its
//! neighbours). A group that several ranks hold is summed over them; so every rung has the same bits for any number of workers.

use std::collections::BTreeMap;
use std::ops::Range;

use strath_collective::{Bucket, Collective, Payload, Pending};
use strath_core::fixed::GRADIENT_LIMIT;
use strath_core::{Assignment, Fault, Plan, Step};
use strath_kernels::vector;

/// Consecutive lanes that a coarser lane would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The rung that it is on, from 1.
    pub rung: usize,
    /// Its examples.
    pub size: usize,
    /// Its micro-batches.
    pub micro_batches: Range<usize>,
    /// The group above, which it is half of.
    pub parent: Option<usize>,
}

/// The groups of a plan: rung 1 first, each rung in order. Lanes left over at the end of a rung are in no group of it.
pub fn groups(plan: &Plan) -> Vec<Group> {
    let lanes = plan.lanes();
    let (mut groups, mut first_of_rung) = (Vec::new(), 0);
    for rung in 1.. {
        let count = lanes.len() >> rung;
        if count == 0 {
            return groups;
        }
        let above = first_of_rung + count;
        for at in 0..count {
            let of = &lanes[at << rung..(at + 1) << rung];
            let has_parent = at / 2 < lanes.len() >> (rung + 1);
            groups.push(Group {
                rung,
                size: of.iter().map(|lane| lane.size).sum(),
                micro_batches: of[0].micro_batches.start..of[of.len() - 1].micro_batches.end,
                parent: has_parent.then_some(above + at / 2),
            });
        }
        first_of_rung = above;
    }
    unreachable!("a shift by enough leaves nothing")
}

/// The rungs that one rank holds parts of.
#[derive(Debug, Clone)]
pub(crate) struct Rungs {
    groups: Vec<Group>,
    /// The ranks that hold micro-batches of each.
    ranks: Vec<Range<u32>>,
    /// This rank's micro-batches.
    held: Range<usize>,
}

/// A group of this rank that is not yet whole: the sum over its micro-batches of `(size / B) g`, 96 fractional bits.
struct Open {
    high: Vec<i64>,
    low: Vec<i64>,
    /// Micro-batches of this rank that have not come.
    missing: usize,
}

/// Groups whose sums are under way or there.
pub(crate) type Sent = Vec<(usize, Pending)>;

/// A step's climb.
pub(crate) struct Climb {
    open: BTreeMap<usize, Open>,
    /// Groups on their way to or from the other ranks that hold them.
    sent: Sent,
    /// Whether a value was beyond what the sums hold.
    pub(crate) is_spoilt: bool,
}

impl Rungs {
    pub(crate) fn new(plan: &Plan, assignment: &Assignment, held: Range<usize>) -> Self {
        let groups = groups(plan);
        let holds = |rank: &usize, of: &Range<usize>| {
            let bounds = &assignment.bounds()[*rank..rank + 2];
            bounds[0].max(of.start) < bounds[1].min(of.end)
        };
        let ranks = |group: &Group| {
            let mut holders = (0..assignment.world_size()).filter(|rank| holds(rank, &group.micro_batches));
            let first = holders.next().unwrap_or(0);
            first as u32..holders.next_back().unwrap_or(first) as u32 + 1
        };
        Self { ranks: groups.iter().map(ranks).collect(), groups, held }
    }

    /// Every group of the plan.
    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// This rank's micro-batches of a group.
    pub(crate) fn held(&self, index: usize) -> Range<usize> {
        let of = &self.groups[index].micro_batches;
        self.held.start.max(of.start)..self.held.end.min(of.end)
    }

    /// Whether this rank speaks for a group.
    pub(crate) fn speaks_for(&self, index: usize) -> bool {
        self.held.contains(&self.groups[index].micro_batches.start)
    }

    /// Begins to climb, with every group that this rank holds a part of.
    pub(crate) fn begin(&self) -> Climb {
        let missing = |index: usize| self.held(index).len();
        let of_rank = (0..self.groups.len()).filter(|index| missing(*index) > 0);
        // Vectors are made when the first micro-batch comes.
        let open = of_rank.map(|index| (index, Open { high: Vec::new(), low: Vec::new(), missing: missing(index) }));
        Climb { open: open.collect(), sent: Vec::new(), is_spoilt: false }
    }
}

impl Climb {
    /// Adds the ascent gradient of a micro-batch, `share` of the batch, and sends each group that it completes on this rank. One pass of 36
    /// bytes a value, and of 48 for each group.
    pub(crate) fn add(
        &mut self,
        rungs: &Rungs,
        (peers, step, lanes): (&Collective, Step, usize),
        micro_batch: usize,
        gradient: &[f32],
        share: f64,
    ) {
        let lowest = |(index, _): &(&usize, &mut Open)| {
            let group = &rungs.groups[**index];
            group.rung == 1 && group.micro_batches.contains(&micro_batch)
        };
        let Some((index, open)) = self.open.iter_mut().find(lowest) else { return };
        let mut index = *index;
        open.make_room(gradient.len());
        self.is_spoilt |= vector::add_wide(&mut open.high, &mut open.low, gradient, share, GRADIENT_LIMIT).is_some();
        open.missing -= 1;
        while self.open.get(&index).is_some_and(|open| open.missing == 0) {
            let Some(whole) = self.open.remove(&index) else { return };
            let parent = rungs.groups[index].parent;
            if let Some((parent, above)) = parent.and_then(|parent| Some((parent, self.open.get_mut(&parent)?))) {
                above.make_room(gradient.len());
                add(&mut above.high, &whole.high);
                add(&mut above.low, &whole.low);
                above.missing -= rungs.held(index).len();
                self.send(rungs, (peers, step, lanes), index, whole);
                index = parent;
            } else {
                self.send(rungs, (peers, step, lanes), index, whole);
                return;
            }
        }
    }

    /// After the passes: sends what is not whole because a lane was at fault, so that nobody waits for it.
    pub(crate) fn send_rest(&mut self, rungs: &Rungs, (peers, step, lanes): (&Collective, Step, usize), len: usize) {
        for (index, mut open) in std::mem::take(&mut self.open) {
            open.make_room(len);
            self.send(rungs, (peers, step, lanes), index, open);
        }
    }

    /// Groups whose gradients are there, or with `all` also those still on their way.
    pub(crate) fn arrived(&mut self, all: bool) -> Sent {
        let (mut here, mut away) = (Vec::new(), Vec::new());
        for (index, mut pending) in std::mem::take(&mut self.sent) {
            if all || pending.is_done() { here.push((index, pending)) } else { away.push((index, pending)) }
        }
        self.sent = away;
        here
    }

    fn send(&mut self, rungs: &Rungs, (peers, step, lanes): (&Collective, Step, usize), index: usize, sum: Open) {
        let payload = Payload::Wide { high: sum.high, low: sum.low };
        // Groups are fewer than lanes, whose names they follow.
        let bucket = Bucket::lane((lanes + index) as u32);
        let pending = peers.all_reduce(step, bucket, rungs.ranks[index].clone(), payload, Fault::NONE);
        self.sent.push((index, pending));
    }
}

impl Open {
    fn make_room(&mut self, len: usize) {
        if self.high.is_empty() {
            (self.high, self.low) = (vec![0; len], vec![0; len]);
        }
    }
}

fn add(sum: &mut [i64], terms: &[i64]) {
    sum.iter_mut().zip(terms).for_each(|(sum, term)| *sum = sum.wrapping_add(*term));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use strath_collective::Reduced;
    use strath_core::{Generation, RunId};

    use super::*;

    #[test]
    fn groups_are_whole_and_lie_in_the_one_above() {
        // 5 lanes of 6 examples: two pairs, one four; the last lane is in no group.
        let found = groups(&Plan::uniform(30, 6, Some(3)).unwrap());
        let group = |rung, size, micro_batches, parent| Group { rung, size, micro_batches, parent };
        assert_eq!(found, [group(1, 12, 0..4, Some(2)), group(1, 12, 4..8, Some(2)), group(2, 24, 0..8, None)]);
        assert_eq!(groups(&Plan::uniform(8, 8, Some(2)).unwrap()), []);
        for lanes in 1..40 {
            let groups = groups(&Plan::uniform(lanes, 1, None).unwrap());
            assert!(groups.len() < lanes);
            for child in &groups {
                let Some(parent) = child.parent.map(|parent| &groups[parent]) else { continue };
                assert_eq!((parent.rung, parent.size), (child.rung + 1, 2 * child.size));
                let (outer, inner) = (&parent.micro_batches, &child.micro_batches);
                assert!(outer.start <= inner.start && inner.end <= outer.end);
            }
        }
    }

    #[test]
    fn ranks_that_hold_a_part_of_a_group_are_those_that_sum_it() {
        let plan = Plan::uniform(24, 4, Some(1)).unwrap();
        let assignment = Assignment::balanced(&plan, 5);
        assert_eq!(assignment.bounds(), [0, 5, 10, 15, 20, 24]);
        let rungs = Rungs::new(&plan, &assignment, 5..10);
        assert_eq!(rungs.ranks, [0..2, 1..4, 3..5, 0..4]);
        assert_eq!([0, 1, 2, 3].map(|index| rungs.held(index).len()), [3, 2, 0, 5]);
        assert_eq!([0, 1, 2, 3].map(|index| rungs.speaks_for(index)), [false, true, false, false]);
    }

    #[test]
    fn a_groups_sum_is_that_of_its_micro_batches_in_whatever_order_they_come() {
        let plan = Plan::uniform(7, 1, None).unwrap();
        let peers = Collective::alone(RunId(1), Generation(1));
        let rungs = Rungs::new(&plan, &Assignment::balanced(&plan, 1), 0..7);
        let gradient = |k: usize| vec![k as f32 + 1.0, -0.25 * k as f32];
        for order in [[0, 1, 2, 3, 4, 5, 6], [6, 0, 5, 1, 4, 2, 3]] {
            let (mut climb, at) = (rungs.begin(), (&peers, Step(0), 7));
            for k in order {
                climb.add(&rungs, at, k, &gradient(k), 1.0);
            }
            assert!(climb.open.is_empty(), "every group is whole");
            climb.send_rest(&rungs, at, 2);
            let mut found = climb.arrived(true);
            found.sort_by_key(|(index, _)| *index);
            for (index, pending) in found {
                let (Reduced::Floats(sum), _) = pending.wait(Duration::ZERO).unwrap() else { panic!("floats") };
                let of = rungs.groups()[index].micro_batches.clone();
                let expected: Vec<f32> = (0..2).map(|at| of.clone().map(|k| gradient(k)[at]).sum()).collect();
                assert_eq!(sum, expected, "group {index}");
            }
        }
    }

    #[test]
    fn a_group_that_is_not_whole_is_sent_all_the_same() {
        let plan = Plan::uniform(4, 1, None).unwrap();
        let peers = Collective::alone(RunId(1), Generation(1));
        let rungs = Rungs::new(&plan, &Assignment::balanced(&plan, 1), 0..4);
        let (mut climb, at) = (rungs.begin(), (&peers, Step(0), 4));
        climb.add(&rungs, at, 0, &[f32::NAN], 1.0);
        climb.send_rest(&rungs, at, 1);
        assert!(climb.is_spoilt);
        assert_eq!(climb.arrived(true).len(), 3);
    }
}
