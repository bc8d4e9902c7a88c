//! A few words for each micro-batch and lane of a step, which every rank comes to know.
//!
//! Each word has one rank that writes it (whoever holds the micro-batch; for a lane whoever holds its first), and is 0 on all others. So a
//! sum of integers over ranks brings every rank every word, bit for bit: whatever is made of them is a function of the plan, not of who
//! computed what. It travels with the step's tally.

use std::collections::BTreeSet;

use strath_core::{Audit, Digest, Plan, Rung};
use strath_sam::LaneFacts;

use crate::ladder::Group;

/// A word of a micro-batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfMicroBatch {
    /// Its loss at w.
    Clean,
    /// Its loss at w + epsilon of its lane.
    Perturbed,
    /// `g_v . h`, the lane's ascent gradient by this micro-batch's descent gradient.
    Along,
    /// Surveyed: its loss at w + epsilon of the lane before its own.
    Crossed,
    /// Surveyed: the digest of the lane's epsilon as its holder has it, the first half.
    Epsilon,
    /// The second.
    EpsilonRest,
}

/// A word of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfLane {
    /// `||g_v||^2`
    Squares,
    /// `||t g_v||_q`
    DualNorm,
    /// `||h_v||^2`, of a lane of one micro-batch.
    DescentSquares,
    /// Surveyed: relative deviation of `||e_v / t||_p` from the radius.
    Deviation,
}

/// Words of a micro-batch at every step, and in one that is surveyed; then those of a lane; then those of the batch.
const MICRO_BATCH: [usize; 2] = [3, 6];
const LANE: [usize; 2] = [3, 4];
const BATCH: [usize; 2] = [0, 2];

/// The words of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    micro_batches: usize,
    lanes: usize,
    is_surveyed: bool,
    /// The groups of a ladder, and its rungs above the lanes.
    groups: usize,
    rungs: usize,
    words: Vec<i64>,
}

impl Board {
    /// An empty board for the lanes of a plan, and for the `groups` of its ladder, where it is surveyed for one: a word a group (`||g||^2`), and
    /// one a micro-batch and rung (its loss under the epsilon of its group).
    pub fn new(plan: &Plan, is_surveyed: bool, groups: &[Group]) -> Self {
        let (micro_batches, lanes) = (plan.micro_batches().len(), plan.lanes().len());
        let of = usize::from(is_surveyed);
        let rungs = groups.last().map_or(0, |group| group.rung);
        let ladder = groups.len() + rungs * micro_batches;
        let words = vec![0; MICRO_BATCH[of] * micro_batches + LANE[of] * lanes + ladder + BATCH[of]];
        Self { micro_batches, lanes, is_surveyed, groups: groups.len(), rungs, words }
    }

    /// Writes a word of a micro-batch.
    pub fn write(&mut self, of: OfMicroBatch, micro_batch: usize, value: f64) {
        let at = self.of_micro_batch(of, micro_batch);
        self.words[at] = value.to_bits() as i64;
    }

    /// Writes a word of a lane.
    pub fn write_lane(&mut self, of: OfLane, lane: usize, value: f64) {
        let at = self.of_lane(of, lane);
        self.words[at] = value.to_bits() as i64;
    }

    /// Writes the digest of a lane's epsilon for one of its micro-batches, its first 16 bytes.
    pub fn write_epsilon(&mut self, micro_batch: usize, epsilon: Digest) {
        for (of, word) in [OfMicroBatch::Epsilon, OfMicroBatch::EpsilonRest].into_iter().zip(epsilon.words()) {
            let at = self.of_micro_batch(of, micro_batch);
            self.words[at] = word as i64;
        }
    }

    /// Writes `||g||^2` of a group.
    pub fn write_group(&mut self, group: usize, squares: f64) {
        let at = self.of_group(group);
        self.words[at] = squares.to_bits() as i64;
    }

    /// Writes the loss of a micro-batch under the epsilon of its group of a rung.
    pub fn write_rung(&mut self, rung: usize, micro_batch: usize, loss: f64) {
        let at = self.of_rung(rung, micro_batch);
        self.words[at] = loss.to_bits() as i64;
    }

    /// What lanes of every size would be: the plan's own first. `lifts`: whether they were lifted.
    pub fn ladder(&self, plan: &Plan, groups: &[Group], facts: &[LaneFacts], lifts: bool) -> Vec<Rung> {
        let finite = |value: f64| Some(value).filter(|value| value.is_finite());
        let own = facts.first().map(|lane| Rung {
            m: lane.size as u64,
            gradient_norm: facts.iter().map(|lane| lane.share * lane.squares.sqrt()).sum(),
            lift: finite(facts.iter().map(|lane| lane.share * lane.lift).sum()).filter(|_| lifts),
        });
        let above = (1..=self.rungs).map(|rung| {
            let of_rung = || groups.iter().enumerate().filter(move |(_, group)| group.rung == rung);
            let (mut norms, mut gain, mut examples) = (0.0, 0.0, 0);
            for (index, group) in of_rung() {
                norms += f64::from_bits(self.words[self.of_group(index)] as u64).sqrt();
                for k in group.micro_batches.clone() {
                    let loss = f64::from_bits(self.words[self.of_rung(rung, k)] as u64);
                    gain += plan.micro_batches()[k].size as f64 * (loss - self.micro_batch(OfMicroBatch::Clean, k));
                }
                examples += group.size;
            }
            Rung {
                m: of_rung().next().map_or(0, |(_, group)| group.size) as u64,
                gradient_norm: norms / of_rung().count() as f64,
                lift: finite(gain / examples as f64).filter(|_| lifts),
            }
        });
        own.into_iter().chain(above).collect()
    }

    /// Counts that w has moved on this rank, or that its part of a sum is of no use.
    pub fn count(&mut self, moved_weights: bool, spoilt_sums: bool) {
        let start = self.words.len() - BATCH[1];
        self.words[start] += i64::from(moved_weights);
        self.words[start + 1] += i64::from(spoilt_sums);
    }

    /// The words as they travel.
    pub fn words(&self) -> &[i64] {
        &self.words
    }

    /// The board of all ranks, of the words as they came back.
    #[must_use]
    pub fn reduced(self, words: &[i64]) -> Self {
        assert_eq!(words.len(), self.words.len(), "as many words come back as were sent");
        Self { words: words.to_vec(), ..self }
    }

    /// Whether some rank's part of the survey's sums is of no use.
    pub fn sums_are_spoilt(&self) -> bool {
        self.is_surveyed && self.words[self.words.len() - 1] > 0
    }

    /// What the words say of each lane; `radius` of a lane by its size, `taken` whether its products were.
    pub fn lanes(&self, plan: &Plan, radius: impl Fn(usize) -> f64, taken: impl Fn(usize) -> bool) -> Vec<LaneFacts> {
        let facts = |(v, lane): (usize, &strath_core::plan::Lane)| {
            let weight = |k: usize| plan.micro_batches()[k].size as f64 / lane.size as f64;
            // In the order of the plan, whoever held what.
            let sum = |of: &dyn Fn(usize) -> f64| lane.micro_batches.clone().map(|k| weight(k) * of(k)).sum::<f64>();
            let descent_squares = self.lane(OfLane::DescentSquares, v);
            LaneFacts {
                size: lane.size,
                share: plan.lane_weight(v),
                radius: radius(lane.size),
                squares: self.lane(OfLane::Squares, v),
                dual_norm: self.lane(OfLane::DualNorm, v),
                lift: sum(&|k| self.micro_batch(OfMicroBatch::Perturbed, k) - self.micro_batch(OfMicroBatch::Clean, k)),
                along: taken(v).then(|| sum(&|k| self.micro_batch(OfMicroBatch::Along, k))),
                descent_squares: (taken(v) && lane.micro_batches.len() == 1).then_some(descent_squares),
            }
        };
        plan.lanes().iter().enumerate().map(facts).collect()
    }

    /// Mean over the batch of what a lane's loss gains under the epsilon of the lane before it.
    pub fn crossed(&self, plan: &Plan) -> f64 {
        let gain = |k: usize| self.micro_batch(OfMicroBatch::Crossed, k) - self.micro_batch(OfMicroBatch::Clean, k);
        let share = |k: usize| plan.micro_batches()[k].size as f64 / plan.batch() as f64;
        (0..self.micro_batches).map(|k| share(k) * gain(k)).sum()
    }

    /// What the step attests of its epsilons.
    pub fn audit(&self, plan: &Plan) -> Audit {
        let epsilon = |k: usize| [OfMicroBatch::Epsilon, OfMicroBatch::EpsilonRest].map(|of| self.word(of, k));
        let has_direction = |v: &usize| self.lane(OfLane::DualNorm, *v) > 0.0;
        let (with, without): (Vec<usize>, Vec<usize>) = (0..self.lanes).partition(has_direction);
        let mut distinct = BTreeSet::new();
        let (mut split_lanes, mut deviation) = (0, 0.0);
        for v in with {
            let of_lane: BTreeSet<[i64; 2]> = plan.lanes()[v].micro_batches.clone().map(epsilon).collect();
            split_lanes += u64::from(of_lane.len() > 1);
            distinct.extend(of_lane);
            // A deviation that is none of any size is the largest there is.
            let of_radius = self.lane(OfLane::Deviation, v).abs();
            deviation = if of_radius.is_finite() { of_radius.max(deviation) } else { f64::MAX };
        }
        Audit {
            lanes: self.lanes as u64,
            zero_gradient_lanes: without.len() as u64,
            distinct_epsilons: distinct.len() as u64,
            split_lanes,
            radius_deviation: deviation,
            moved_weights: self.words[self.words.len() - BATCH[1]] as u64,
        }
    }

    fn of_micro_batch(&self, of: OfMicroBatch, micro_batch: usize) -> usize {
        of as usize * self.micro_batches + micro_batch
    }

    fn of_lane(&self, of: OfLane, lane: usize) -> usize {
        MICRO_BATCH[usize::from(self.is_surveyed)] * self.micro_batches + of as usize * self.lanes + lane
    }

    fn of_group(&self, group: usize) -> usize {
        self.words.len() - BATCH[1] - self.rungs * self.micro_batches - self.groups + group
    }

    fn of_rung(&self, rung: usize, micro_batch: usize) -> usize {
        self.words.len() - BATCH[1] - (self.rungs + 1 - rung) * self.micro_batches + micro_batch
    }

    fn word(&self, of: OfMicroBatch, micro_batch: usize) -> i64 {
        self.words[self.of_micro_batch(of, micro_batch)]
    }

    fn micro_batch(&self, of: OfMicroBatch, micro_batch: usize) -> f64 {
        f64::from_bits(self.word(of, micro_batch) as u64)
    }

    fn lane(&self, of: OfLane, lane: usize) -> f64 {
        f64::from_bits(self.words[self.of_lane(of, lane)] as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two lanes of 8 and 4 examples in micro-batches of 4.
    fn plan() -> Plan {
        Plan::try_new(12, &[8, 4], Some(4)).unwrap()
    }

    /// A board on which every word of some micro-batches, and of lanes that begin there, is written.
    fn part(micro_batches: std::ops::Range<usize>) -> Board {
        let plan = plan();
        let mut board = Board::new(&plan, true, &[]);
        for k in micro_batches.clone() {
            board.write(OfMicroBatch::Clean, k, 1.0);
            board.write(OfMicroBatch::Perturbed, k, 2.0 + k as f64);
            board.write(OfMicroBatch::Along, k, -0.1 * (k + 1) as f64);
            board.write(OfMicroBatch::Crossed, k, 4.0);
            board.write_epsilon(k, Digest::of(&[plan.micro_batches()[k].lane as u8]));
        }
        for (v, lane) in plan.lanes().iter().enumerate() {
            if micro_batches.contains(&lane.micro_batches.start) {
                board.write_lane(OfLane::Squares, v, 4.0);
                board.write_lane(OfLane::DualNorm, v, 2.0);
                board.write_lane(OfLane::DescentSquares, v, 9.0);
                board.write_lane(OfLane::Deviation, v, -1e-8 * v as f64);
            }
        }
        board.count(false, false);
        board
    }

    fn sum(parts: &[Board]) -> Board {
        let len = parts[0].words().len();
        let words: Vec<i64> = (0..len).map(|at| parts.iter().map(|part| part.words()[at]).sum()).collect();
        parts[0].clone().reduced(&words)
    }

    #[test]
    fn words_do_not_tell_who_wrote_them() {
        let alone = part(0..3);
        assert_eq!(sum(&[part(0..1), part(1..2), part(2..3)]), alone);
        assert_eq!(sum(&[part(0..2), part(2..3)]), alone);
    }

    #[test]
    fn what_a_lane_is_follows_from_its_micro_batches() {
        let board = part(0..3);
        let lanes = board.lanes(&plan(), |m| m as f64 / 100.0, |_| true);
        let first = LaneFacts {
            size: 8,
            share: 8.0 / 12.0,
            radius: 0.08,
            squares: 4.0,
            dual_norm: 2.0,
            lift: 1.5,
            along: Some(0.5 * -0.1 + 0.5 * -0.2),
            descent_squares: None,
        };
        assert_eq!(lanes[0], first);
        assert_eq!((lanes[1].lift, lanes[1].descent_squares), (3.0, Some(9.0)));
        assert!((board.crossed(&plan()) - 3.0).abs() < 1e-12);
        let other = board.lanes(&plan(), |_| 0.1, |v| v == 0)[1];
        assert_eq!((other.along, other.descent_squares, other.lift), (None, None, 3.0));
    }

    #[test]
    fn an_audit_counts_epsilons_and_what_is_wrong() {
        let good = Audit { lanes: 2, distinct_epsilons: 2, radius_deviation: 1e-8, ..Audit::default() };
        assert_eq!(part(0..3).audit(&plan()), good);
        let mut split = part(0..3);
        split.write_epsilon(1, Digest::of(b"another"));
        split.count(true, true);
        let found = split.audit(&plan());
        assert_eq!(found, Audit { distinct_epsilons: 3, split_lanes: 1, moved_weights: 1, ..good });
        assert!(split.sums_are_spoilt() && !part(0..3).sums_are_spoilt() && !found.passed());
        let mut zero = part(0..3);
        zero.write_lane(OfLane::DualNorm, 0, 0.0);
        zero.write_lane(OfLane::Deviation, 1, f64::NAN);
        let found = zero.audit(&plan());
        assert_eq!((found.zero_gradient_lanes, found.distinct_epsilons, found.radius_deviation), (1, 1, f64::MAX));
    }

    #[test]
    fn a_board_without_a_survey_is_short() {
        assert_eq!(Board::new(&plan(), false, &[]).words().len(), 3 * 3 + 2 * 3);
        assert!(!Board::new(&plan(), false, &[]).sums_are_spoilt());
    }

    #[test]
    fn a_ladder_is_a_mean_over_the_groups_of_each_rung() {
        let plan = Plan::uniform(16, 4, Some(4)).unwrap();
        let groups = crate::ladder::groups(&plan);
        let mut board = Board::new(&plan, true, &groups);
        for k in 0..4 {
            board.write(OfMicroBatch::Clean, k, 1.0);
            board.write(OfMicroBatch::Perturbed, k, 2.0);
            board.write_lane(OfLane::Squares, k, 16.0);
            board.write_rung(1, k, 1.5 + k as f64);
            board.write_rung(2, k, 1.25);
        }
        board.write_group(0, 4.0);
        board.write_group(1, 16.0);
        board.write_group(2, 1.0);
        board.count(false, false);
        let facts = board.lanes(&plan, |_| 0.1, |_| true);
        let rung = |m, gradient_norm, lift| Rung { m, gradient_norm, lift: Some(lift) };
        let expected = vec![rung(4, 4.0, 1.0), rung(8, 3.0, 2.0), rung(16, 1.0, 0.25)];
        assert_eq!(board.ladder(&plan, &groups, &facts, true), expected);
        assert!(board.ladder(&plan, &groups, &facts, false).iter().all(|rung| rung.lift.is_none()));
        assert_eq!(board.audit(&plan).moved_weights, 0);
    }
}
