//! Micro-batches handed out by the measured speeds of workers.
//!
//! ```text
//! 12 micro-batches of 1, rates 4 4 4 2 (a second):   balanced 3 3 3 3 takes max(3/4, 3/2) = 1.5 s,   by speed 4 3 3 2 takes 1 s
//! ```
//!
//! A step takes as long as its slowest rank, so what is minimised is `T = max over ranks of load / rate`. Ranks hold runs of consecutive
//! micro-batches, in order: for a given T it is best to fill one rank after the other as far as it goes, so the least T is found by
//! bisection. Of the hand-outs that take T, that with the fewest lanes cut between ranks is taken (such a lane costs an exchange), then the
//! most even one.

use crate::plan::{Assignment, Plan};

/// Who computes what, when workers are known by their speeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BySpeed {
    /// The workers in order of rank, as indices of their rates. Those who get nothing come last: they are spares.
    pub order: Vec<usize>,
    /// What the ranks compute.
    pub assignment: Assignment,
}

impl BySpeed {
    /// Hands out a plan's micro-batches to workers of these rates, in examples a second. A worker that would make a step longer even with
    /// its least share gets none, as does one whose rate is no positive number; where all are such, they count as equal.
    ///
    /// # Panics
    /// Where there are no rates.
    pub fn new(plan: &Plan, rates: &[f64]) -> Self {
        assert!(!rates.is_empty(), "a world has at least one rank");
        let usable = |rate: f64| if rate.is_finite() && rate > 0.0 { rate } else { 0.0 };
        let mut rates: Vec<f64> = rates.iter().map(|rate| usable(*rate)).collect();
        if rates.iter().all(|rate| *rate == 0.0) {
            rates.fill(1.0);
        }
        // The fastest has 1, so that no time is beyond what a float holds.
        let fastest = rates.iter().copied().fold(0.0, f64::max);
        for rate in &mut rates {
            *rate /= fastest;
        }
        let takes = least_time(plan, &rates);
        let bounds = fewest_cuts(plan, &rates, takes);
        let holds = |worker: &usize| bounds[*worker] < bounds[worker + 1];
        let (busy, spare): (Vec<usize>, Vec<usize>) = (0..rates.len()).partition(holds);
        let mut dense: Vec<usize> = std::iter::once(0).chain(busy.iter().map(|worker| bounds[worker + 1])).collect();
        dense.resize(rates.len() + 1, plan.micro_batches().len());
        let assignment = Assignment::from_bounds(dense, plan.micro_batches().len())
            .expect("runs of consecutive micro-batches, from the first to the last");
        Self { order: [busy, spare].concat(), assignment }
    }
}

impl Assignment {
    /// Seconds of a step's passes with ranks of these rates, in examples a second: those of the rank that takes longest.
    pub fn takes(&self, plan: &Plan, rates: &[f64]) -> f64 {
        let upto = prefix_sums(plan);
        let seconds = self.bounds().windows(2).zip(rates).map(|(held, rate)| match upto[held[1]] - upto[held[0]] {
            0 => 0.0,
            load => load as f64 / rate,
        });
        seconds.fold(0.0, f64::max)
    }

    /// How many bounds between ranks lie within a lane: so many lanes have to be exchanged.
    pub fn cuts(&self, plan: &Plan) -> usize {
        let is_cut = |bounds: &&[usize]| bounds[0] < bounds[1] && !is_boundary(plan, bounds[1]);
        self.bounds().windows(2).filter(is_cut).count()
    }
}

/// Examples before each micro-batch, and of all.
fn prefix_sums(plan: &Plan) -> Vec<usize> {
    plan.micro_batches().iter().map(|micro| micro.start).chain([plan.batch()]).collect()
}

/// Whether no lane is cut in two before this micro-batch.
fn is_boundary(plan: &Plan, micro_batch: usize) -> bool {
    let at = |k: usize| plan.micro_batches().get(k).map(|micro| micro.lane);
    micro_batch == 0 || at(micro_batch) != at(micro_batch - 1)
}

fn fits(load: usize, rate: f64, seconds: f64) -> bool {
    load as f64 <= rate * seconds
}

/// The least T in which ranks that are filled in order take everything; the fastest has the rate 1.
fn least_time(plan: &Plan, rates: &[f64]) -> f64 {
    let is_enough = |seconds: f64| {
        let (mut at, micro_batches) = (0, plan.micro_batches());
        for rate in rates {
            let mut load = 0;
            while at < micro_batches.len() && fits(load + micro_batches[at].size, *rate, seconds) {
                load += micro_batches[at].size;
                at += 1;
            }
        }
        at == micro_batches.len()
    };
    // Positive floats are in the order of their bits. The fastest alone takes as long as there are examples.
    let (mut low, mut high) = (0, (plan.batch() as f64).to_bits());
    while low < high {
        let middle = u64::midpoint(low, high);
        if is_enough(f64::from_bits(middle)) { high = middle } else { low = middle + 1 }
    }
    f64::from_bits(high)
}

/// How good a hand-out to some of the ranks is: cut lanes first, then `sum of load^2 / rate`, which is least where all take equally long.
type Cost = (usize, f64);

/// The bounds of the best hand-out in which no rank takes longer than `seconds`, by dynamic programming over ranks.
fn fewest_cuts(plan: &Plan, rates: &[f64], seconds: f64) -> Vec<usize> {
    let upto = prefix_sums(plan);
    let all = plan.micro_batches().len();
    // What the ranks so far cost that hold the first i micro-batches; and where the share of each begins then.
    let mut costs: Vec<Option<Cost>> = vec![None; all + 1];
    costs[0] = Some((0, 0.0));
    let mut begins = Vec::with_capacity(rates.len());
    for rate in rates {
        let (mut next, mut begin) = (costs.clone(), (0..=all).collect::<Vec<usize>>());
        for end in 1..=all {
            let cut = usize::from(!is_boundary(plan, end));
            for start in (0..end).rev().take_while(|start| fits(upto[end] - upto[*start], *rate, seconds)) {
                let Some((cuts, uneven)) = costs[start] else { continue };
                let load = (upto[end] - upto[start]) as f64;
                let cost = (cuts + cut, uneven + load * load / rate);
                if next[end].is_none_or(|known| cost < known) {
                    (next[end], begin[end]) = (Some(cost), start);
                }
            }
        }
        costs = next;
        begins.push(begin);
    }
    let mut bounds = vec![all];
    for begin in begins.iter().rev() {
        bounds.push(begin[bounds[bounds.len() - 1]]);
    }
    bounds.reverse();
    bounds
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::Rank;

    fn shares(plan: &Plan, rates: &[f64]) -> Vec<usize> {
        let BySpeed { order, assignment } = BySpeed::new(plan, rates);
        let mut shares = vec![0; rates.len()];
        for (rank, worker) in (0..).zip(order) {
            shares[worker] = assignment.of(Rank(rank)).len();
        }
        shares
    }

    #[test]
    fn shares_follow_speed_and_what_is_far_too_slow_gets_none() {
        let plan = Plan::uniform(32, 1, None).unwrap();
        assert_eq!(shares(&plan, &[1.0; 4]), [8; 4]);
        assert_eq!(shares(&plan, &[2.0, 2.0, 2.0, 1.0]), [9, 9, 9, 5]);
        assert_eq!(shares(&plan, &[1.0, 0.01, 1.0]), [16, 0, 16]);
        assert_eq!(shares(&plan, &[f64::NAN, 1.0, -1.0, f64::INFINITY, 0.0]), [0, 32, 0, 0, 0]);
        assert_eq!(shares(&plan, &[0.0, f64::NAN]), [16, 16], "nothing is known of either");
        assert_eq!(shares(&plan, &[1e-308, 2e-308]), [11, 21]);
    }

    #[test]
    fn spares_have_the_last_ranks_so_that_no_lane_spans_them() {
        let plan = Plan::uniform(16, 16, Some(1)).unwrap();
        let BySpeed { order, assignment } = BySpeed::new(&plan, &[1.0, 0.001, 1.0]);
        assert_eq!((order, assignment.bounds()), (vec![0, 2, 1], &[0, 8, 16, 16][..]));
        assert_eq!(assignment.ranks_of(&plan.lanes()[0]), 0..2);
    }

    #[test]
    fn lanes_are_cut_only_where_that_saves_time() {
        // 4 lanes of 3: nobody needs more than 6 micro-batches, and the bound lies between two lanes.
        let plan = Plan::uniform(12, 3, Some(1)).unwrap();
        let even = BySpeed::new(&plan, &[1.0, 1.0]).assignment;
        assert_eq!((even.bounds(), even.cuts(&plan)), (&[0, 6, 12][..], 0));
        // 5 ranks take 3 each at best, which needs 4 of them: the fifth is a spare rather than a part of a lane.
        let four = BySpeed::new(&plan, &[1.0; 5]).assignment;
        assert_eq!((four.bounds(), four.cuts(&plan)), (&[0, 3, 6, 9, 12, 12][..], 0));
        let three = BySpeed::new(&plan, &[1.0; 3]).assignment;
        assert_eq!((three.bounds(), three.cuts(&plan)), (&[0, 4, 8, 12][..], 2));
    }

    /// Every hand-out of a plan's micro-batches to this many ranks, in order.
    fn all(plan: &Plan, ranks: usize) -> Vec<Assignment> {
        let micro_batches = plan.micro_batches().len();
        let mut found = vec![vec![0]];
        for rank in 0..ranks {
            let longer = |bounds: Vec<usize>| {
                let from = bounds[bounds.len() - 1];
                let first = if rank + 1 == ranks { micro_batches } else { from };
                (first..=micro_batches).map(move |bound| [&bounds[..], &[bound]].concat())
            };
            found = found.into_iter().flat_map(longer).collect();
        }
        found.into_iter().map(|bounds| Assignment::from_bounds(bounds, micro_batches).unwrap()).collect()
    }

    fn plans() -> impl Strategy<Value = Plan> {
        (prop::collection::vec(1usize..4, 1..4), 1usize..3, any::<bool>()).prop_map(|(lanes, micro, whole)| {
            let lanes: Vec<usize> = lanes.iter().map(|pieces| pieces * micro).collect();
            Plan::try_new(lanes.iter().sum(), &lanes, (!whole).then_some(micro)).unwrap()
        })
    }

    proptest! {
        #[test]
        fn none_is_faster_and_none_as_fast_cuts_fewer_lanes(
            plan in plans(), rates in prop::collection::vec(prop_oneof![0.05f64..10.0, Just(1.0)], 1..5)
        ) {
            let BySpeed { order, assignment } = BySpeed::new(&plan, &rates);
            let mut workers = order.clone();
            workers.sort_unstable();
            prop_assert_eq!(workers, (0..rates.len()).collect::<Vec<_>>());
            let ranked: Vec<f64> = order.iter().map(|worker| rates[*worker]).collect();
            let takes = assignment.takes(&plan, &ranked);
            // A rounding away from the least is as good as it.
            let near = |seconds: f64| seconds <= takes * (1.0 + 1e-12);
            let every = all(&plan, rates.len());
            let fastest = every.iter().map(|other| other.takes(&plan, &rates)).fold(f64::INFINITY, f64::min);
            prop_assert!(near(fastest) && takes <= fastest * (1.0 + 1e-12), "{takes} {fastest}");
            let fewest = every.iter().filter(|other| other.takes(&plan, &rates) <= takes).map(|other| other.cuts(&plan));
            prop_assert!(fewest.min().is_none_or(|fewest| assignment.cuts(&plan) <= fewest));
            prop_assert_eq!(BySpeed::new(&plan, &rates), BySpeed { order, assignment });
        }

        #[test]
        fn of_equal_micro_batches_each_goes_where_it_ends_first(
            count in 1usize..40, rates in prop::collection::vec(1u32..9, 1..6)
        ) {
            let rates: Vec<f64> = rates.into_iter().map(f64::from).collect();
            let plan = Plan::uniform(count, 1, None).unwrap();
            let mut greedy = vec![0usize; rates.len()];
            for _ in 0..count {
                let ends = |rank: &usize| (greedy[*rank] + 1) as f64 / rates[*rank];
                let first = (0..rates.len()).min_by(|a, b| ends(a).total_cmp(&ends(b))).unwrap();
                greedy[first] += 1;
            }
            let takes = |shares: &[usize]| {
                shares.iter().zip(&rates).map(|(share, rate)| *share as f64 / rate).fold(0.0, f64::max)
            };
            let found = shares(&plan, &rates);
            prop_assert_eq!(found.iter().sum::<usize>(), count);
            prop_assert!(takes(&found) <= takes(&greedy) * (1.0 + 1e-12), "{:?} {:?}", found, greedy);
        }
    }
}
