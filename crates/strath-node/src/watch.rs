//! What a rank finds out of its lanes while it takes a step: the words of the [`Board`], and in a step that is surveyed the sums.
//!
//! | what | passes over a vector | bytes a value |
//! | --- | --- | --- |
//! | each micro-batch of a lane whose turn it is, or that is surveyed: the products of `g_v` and `h` | 1 | 8 |
//! | surveyed, each lane: `g_v` into the sum | 1 | 36 |
//! | epsilon anew, its norm, its SHA-256, and whether w + epsilon is what the lane is lifted to | 2, 1, 1, 1 | 12, 4, 4, 12 |
//! | epsilon into the sum | 1 | 20 |
//! | a forward of the next lane's examples | | |
//! | surveyed, each rank: SHA-256 of w, twice | 2 | 4 |
//! | the sums of all ranks | | on the wire 20, and 4 to 12 |
//!
//! Nothing of it is read by what moves the weights.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use strath_collective::{Bucket, Collective, CollectiveError, Payload, Pending, Reduced};
use strath_core::config::{Config, Direction, WeightDecay};
use strath_core::digest::Hasher;
use strath_core::fixed::GRADIENT_LIMIT;
use strath_core::{Digest, Fault, Plan, Step, Telemetry};
use strath_kernels::vector::{self, Products};
use strath_sam::{BatchFacts, Lift, Perturbation, lanes};

use crate::board::{Board, OfLane, OfMicroBatch};
use crate::ladder::{Climb, Rungs, Sent};
use crate::share::LanePart;

/// One value of a pass over two gradients takes as long as so many floating-point operations of a network: some 1 ns, where a core does 100 a ns.
const OPERATIONS_A_VALUE: f64 = 100.0;
/// What the products may take of the time that a run computes: half of what telemetry may.
const MOST_OF_A_STEP: f64 = 0.01;

/// What is told of lanes under a configuration: the same for every step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scope {
    /// Whether epsilon points up the gradient: a random one has no lift, slope or angle to compare with it.
    along_gradient: bool,
    /// Whether losses have every term that gradients have.
    losses_are_whole: bool,
    /// Whether the epsilon of a lane can be tried on the next.
    crosses: bool,
    /// Of a run's lanes in the order of steps, every so many-th is asked for the products of its gradients: where a network has many parameters
    /// for its arithmetic, a pass over them is no small part of a step.
    stride: u64,
}

impl Scope {
    /// What is told under `config`, of a network of so many `parameters` that needs so many `flops` for a pass over the batch.
    pub(crate) fn new(config: &Config, plan: &Plan, parameters: usize, flops: f64) -> Self {
        let along_gradient = config.sam.direction == Direction::Gradient;
        let losses_are_whole = config.sam.weight_decay == WeightDecay::Outside || config.optimizer.weight_decay == 0.0;
        let lanes = plan.lanes();
        let are_equal = lanes.len() > 1 && lanes.windows(2).all(|pair| pair[0].size == pair[1].size);
        let of_products = OPERATIONS_A_VALUE * plan.micro_batches().len() as f64 * parameters as f64;
        // Two passes a step.
        let share = of_products / (2.0 * flops);
        let least = if share.is_finite() { (share / MOST_OF_A_STEP).ceil().max(1.0) as u64 } else { 1 };
        // With a factor in common some lanes would never be asked.
        // Of so many numbers in a row as there are lanes one has none.
        let lanes = lanes.len() as u64;
        let stride = (least..least.saturating_add(lanes)).find(|stride| gcd(*stride, lanes) == 1).unwrap_or(1);
        Self { along_gradient, losses_are_whole, crosses: along_gradient && losses_are_whole && are_equal, stride }
    }
}

/// What a rank has found out of a step's lanes.
pub(crate) struct Watch {
    scope: Scope,
    /// The run's lanes before this step's.
    lanes_before: u64,
    board: Board,
    survey: Option<Sums>,
    ladder: Option<(Arc<Rungs>, Climb)>,
}

/// A rank's part of a survey.
struct Sums {
    /// SHA-256 of w before the passes.
    weights: Digest,
    /// `sum_v (m_v / B) g_v`, 96 fractional bits.
    ascent: (Vec<i64>, Vec<i64>),
    /// `sum_v (m_v / B) e_v`, 48 fractional bits.
    epsilon: Vec<i64>,
    /// A lane's epsilon.
    scratch: Vec<f32>,
    /// Whether a value was beyond what the sums hold. That is no fault: the step itself may well hold it.
    are_spoilt: bool,
}

/// A survey's sums on their way.
pub(crate) struct InFlight {
    ascent: Pending,
    epsilon: Pending,
}

/// A survey's sums over all ranks, the same bits on each.
pub(crate) struct Reduction {
    /// G0.
    ascent: Vec<f32>,
    /// Mean epsilon.
    epsilon: Vec<f32>,
}

impl Watch {
    /// Begins to watch a step, from w where it is surveyed.
    pub(crate) fn new(
        scope: Scope,
        plan: &Plan,
        step: Step,
        surveyed: Option<&[f32]>,
        rungs: Option<&Arc<Rungs>>,
    ) -> Self {
        let is_surveyed = surveyed.is_some();
        let ladder = rungs.filter(|_| is_surveyed).map(|rungs| (rungs.clone(), rungs.begin()));
        let groups = ladder.as_ref().map_or(&[][..], |(rungs, _)| rungs.groups());
        let survey = surveyed.map(|weights| {
            let zeros = || vec![0; weights.len()];
            Sums {
                weights: digest(weights),
                ascent: (zeros(), zeros()),
                epsilon: zeros(),
                scratch: vec![0.0; weights.len()],
                are_spoilt: false,
            }
        });
        let lanes_before = step.0.wrapping_mul(plan.lanes().len() as u64);
        Self { scope, lanes_before, board: Board::new(plan, is_surveyed, groups), survey, ladder }
    }

    /// Whether the step is surveyed.
    pub(crate) fn is_survey(&self) -> bool {
        self.survey.is_some()
    }

    /// Whether a lane is asked for the products of its gradients: the same on every rank.
    pub(crate) fn takes(&self, lane: usize) -> bool {
        let is_its_turn = self.lanes_before.wrapping_add(lane as u64).is_multiple_of(self.scope.stride);
        self.scope.along_gradient && (is_its_turn || self.is_survey())
    }

    /// A micro-batch's loss at w.
    pub(crate) fn clean(&mut self, micro_batch: usize, loss: f64) {
        self.board.write(OfMicroBatch::Clean, micro_batch, loss);
    }

    /// Whether ascent gradients of micro-batches are on their way up a ladder.
    pub(crate) fn climbs(&self) -> bool {
        self.ladder.is_some()
    }

    /// Surveyed: the ascent gradient of a micro-batch, `share` of the batch, on its way up the ladder.
    pub(crate) fn climb(
        &mut self,
        peers: &Collective,
        step: Step,
        plan: &Plan,
        micro_batch: usize,
        gradient: &[f32],
        share: f64,
    ) {
        if let Some((rungs, climb)) = &mut self.ladder {
            climb.add(rungs, (peers, step, plan.lanes().len()), micro_batch, gradient, share);
        }
    }

    /// Surveyed: groups of the ladder whose gradient has come, or with `all` also those still on their way.
    pub(crate) fn groups(
        &mut self,
        peers: &Collective,
        step: Step,
        plan: &Plan,
        len: usize,
        all: bool,
    ) -> Option<(Arc<Rungs>, Sent)> {
        let (rungs, climb) = self.ladder.as_mut()?;
        if all {
            climb.send_rest(rungs, (peers, step, plan.lanes().len()), len);
        }
        Some((rungs.clone(), climb.arrived(all)))
    }

    /// Surveyed: the gradient of a group, of which this rank speaks.
    pub(crate) fn group(&mut self, group: usize, squares: f64) {
        self.board.write_group(group, squares);
    }

    /// Whether an epsilon's lift can be compared with a gradient's length.
    pub(crate) fn lifts(&self) -> bool {
        self.scope.along_gradient && self.scope.losses_are_whole
    }

    /// Surveyed: the loss of a micro-batch under the epsilon of its group of a rung.
    pub(crate) fn rung(&mut self, rung: usize, micro_batch: usize, loss: f64) {
        self.board.write_rung(rung, micro_batch, loss);
    }

    /// Surveyed: the ascent gradient of a lane, whole.
    pub(crate) fn ascent(&mut self, plan: &Plan, part: &LanePart, gradient: &[f32], perturbation: &Perturbation) {
        let Some(Sums { ascent: (high, low), are_spoilt, .. }) = &mut self.survey else { return };
        if part.is_first {
            *are_spoilt |= vector::add_wide(high, low, gradient, plan.lane_weight(part.lane), GRADIENT_LIMIT).is_some();
            if !self.scope.along_gradient {
                self.board.write_lane(OfLane::Squares, part.lane, perturbation.squares(gradient));
            }
        }
    }

    /// A lane that has been lifted; told by its first part.
    pub(crate) fn lift(&mut self, part: &LanePart, lift: Lift) {
        if part.is_first {
            self.board.write_lane(OfLane::DualNorm, part.lane, lift.dual_norm);
        }
    }

    /// Surveyed: audits the epsilon of `direction` that w was `lifted` by, to the bit, or to so much of the values that `slack` is not 0.
    pub(crate) fn epsilon(
        &mut self,
        plan: &Plan,
        part: &LanePart,
        (perturbation, radius, lift, slack): (&Perturbation, f64, Lift, f32),
        direction: &[f32],
        weights: &[f32],
        lifted: &[f32],
    ) {
        let Some(Sums { epsilon, scratch, are_spoilt, .. }) = &mut self.survey else { return };
        // With the length that it was lifted by: a device adds that up in another order.
        perturbation.epsilon_of(lift.dual_norm, direction, weights, scratch);
        let found = digest(scratch);
        for k in part.micro_batches.clone() {
            self.board.write_epsilon(k, found);
        }
        if part.is_first {
            let mut values = lifted.iter().zip(weights).zip(&*scratch);
            let is_lifted = values
                .all(|((lifted, w), e)| *lifted == w + e || (lifted - (w + e)).abs() <= slack * (w.abs() + e.abs()));
            let deviation = perturbation.extent(scratch, weights) / radius - 1.0;
            self.board.write_lane(OfLane::Deviation, part.lane, if is_lifted { deviation } else { f64::MAX });
            *are_spoilt |= vector::add_fixed(epsilon, scratch, plan.lane_weight(part.lane), GRADIENT_LIMIT).is_some();
        }
    }

    /// A micro-batch's loss at w + epsilon.
    pub(crate) fn perturbed(&mut self, micro_batch: usize, loss: f64) {
        self.board.write(OfMicroBatch::Perturbed, micro_batch, loss);
    }

    /// The products of a lane's `g_v` and a micro-batch's h, where it [is asked](Self::takes) for them.
    pub(crate) fn products(&mut self, plan: &Plan, part: &LanePart, micro_batch: usize, products: Products) {
        let Products { aa, ab, bb } = products;
        self.board.write(OfMicroBatch::Along, micro_batch, ab);
        let of_lane = &plan.lanes()[part.lane].micro_batches;
        if micro_batch == of_lane.start {
            self.board.write_lane(OfLane::Squares, part.lane, aa);
        }
        if of_lane.len() == 1 {
            self.board.write_lane(OfLane::DescentSquares, part.lane, bb);
        }
    }

    /// Surveyed: the micro-batches of the next lane that this rank is to try its epsilon of a lane on: one for each that it holds, so that
    /// the work is as evenly shared as the step's.
    pub(crate) fn crossed(&self, plan: &Plan, part: &LanePart) -> Range<usize> {
        if self.survey.is_none() || !self.scope.crosses {
            return 0..0;
        }
        let lanes = plan.lanes();
        let (own, next) = (&lanes[part.lane].micro_batches, &lanes[(part.lane + 1) % lanes.len()].micro_batches);
        let shifted = |k: usize| next.start + (k - own.start);
        shifted(part.micro_batches.start)..shifted(part.micro_batches.end)
    }

    /// Surveyed: the loss of a micro-batch under the epsilon of the lane before its own.
    pub(crate) fn cross(&mut self, micro_batch: usize, loss: f64) {
        self.board.write(OfMicroBatch::Crossed, micro_batch, loss);
    }

    /// After the passes, with w as it is then where the step is surveyed: sends the survey's sums on their way. The [`words`](Self::words)
    /// are whole from then on.
    pub(crate) fn send(&mut self, peers: &Collective, step: Step, surveyed: Option<&[f32]>) -> Option<InFlight> {
        let (sums, weights) = self.survey.take().zip(surveyed)?;
        let Sums { weights: before, ascent: (high, low), epsilon, are_spoilt, .. } = sums;
        let are_spoilt = are_spoilt || self.ladder.as_ref().is_some_and(|(_, climb)| climb.is_spoilt);
        self.board.count(digest(weights) != before, are_spoilt);
        let everyone = || 0..peers.identity().world_size;
        let ascent = Payload::Wide { high, low };
        let ascent = peers.all_reduce(step, Bucket::SURVEY_ASCENT, everyone(), ascent, Fault::NONE);
        let epsilon = peers.all_reduce(step, Bucket::SURVEY_EPSILON, everyone(), Payload::Exact(epsilon), Fault::NONE);
        Some(InFlight { ascent, epsilon })
    }

    /// This rank's words, which every other is to know.
    pub(crate) fn words(&self) -> &[i64] {
        self.board.words()
    }

    /// What the lanes of all ranks told: of the `words` of all, and where the step was surveyed of what was `reduced`, and of w.
    pub(crate) fn told(
        self,
        plan: &Plan,
        config: &Config,
        perturbation: &Perturbation,
        words: &[i64],
        reduced: Option<(&Reduction, &[f32])>,
    ) -> Telemetry {
        let is_surveyed = reduced.is_some();
        let taken: Vec<bool> = (0..plan.lanes().len()).map(|lane| is_surveyed || self.takes(lane)).collect();
        let Self { scope, board, ladder, .. } = self;
        let board = board.reduced(words);
        let facts = board.lanes(plan, |m| config.sam.radius(m), |lane| taken[lane]);
        let mut told = Telemetry::default();
        if scope.along_gradient {
            told = lanes::telemetry(&facts, scope.losses_are_whole);
        }
        if let Some((Reduction { ascent, epsilon }, weights)) = reduced {
            let audit = board.audit(plan);
            let batch = BatchFacts {
                squares: perturbation.squares(ascent),
                epsilon: perturbation.extent(epsilon, weights),
                crossed: scope.crosses.then(|| board.crossed(plan)),
            };
            let mut survey = lanes::survey(&facts, &batch, audit, scope.losses_are_whole);
            if let Some((rungs, _)) = &ladder {
                let lifts = scope.along_gradient && scope.losses_are_whole;
                survey.ladder = board.ladder(plan, rungs.groups(), &facts, lifts);
            }
            if !scope.along_gradient {
                // A random epsilon has no lift of first order that another radius could match.
                survey.rho_equivalent = None;
            }
            if board.sums_are_spoilt() {
                // Values beyond 2^15 are in no sum: what is made of sums has no value.
                survey = strath_core::Survey { audit, transfer: survey.transfer, ..Default::default() };
            }
            told.survey = Some(Box::new(survey));
        }
        told
    }
}

impl InFlight {
    /// Waits for the sums over all ranks.
    ///
    /// # Errors
    /// As [`Pending::wait`].
    pub(crate) fn wait(self, deadline: Duration) -> Result<Reduction, CollectiveError> {
        let floats = |pending: Pending| {
            let (reduced, _) = pending.wait(deadline)?;
            let Reduced::Floats(values) = reduced else { unreachable!("fixed-point sums are reduced to floats") };
            Ok(values)
        };
        Ok(Reduction { ascent: floats(self.ascent)?, epsilon: floats(self.epsilon)? })
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn digest(values: &[f32]) -> Digest {
    Hasher::new().floats(values).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(sets: &str, parameters: usize, flops: f64) -> (Scope, Plan) {
        let text = format!("[data]\nkind = \"digits\"\n[model]\nkind = \"convnet\"\n{sets}");
        let config = Config::from_toml(&text).unwrap();
        let plan = config.plan().unwrap();
        (Scope::new(&config, &plan, parameters, flops), plan)
    }

    #[test]
    fn products_are_asked_for_as_often_as_they_cost_one_per_cent_and_of_every_lane() {
        // A network of 270,000 parameters and 40 million multiply-adds an example: next to nothing.
        let (cheap, _) = scope("[sam]\nm = 32\n", 270_000, 64.0 * 6.0 * 40e6);
        assert_eq!(cheap.stride, 1);
        for m in [1, 2, 4, 8, 16, 32] {
            // Each parameter serves once an example.
            let (dear, plan) = scope(&format!("[sam]\nm = {m}\n"), 1_000_000, 64.0 * 6e6);
            let lanes = plan.lanes().len();
            let share = OPERATIONS_A_VALUE * lanes as f64 / (2.0 * 64.0 * 6.0);
            assert!(dear.stride as f64 >= share / 0.01, "m = {m}: {}", dear.stride);
            let mut asked = vec![0; lanes];
            for step in 0..dear.stride {
                let watch = Watch::new(dear, &plan, Step(step), None, None);
                (0..lanes).filter(|lane| watch.takes(*lane)).for_each(|lane| asked[lane] += 1);
            }
            assert_eq!(asked, vec![1; lanes], "in so many steps each lane is asked once");
        }
    }

    #[test]
    fn a_survey_asks_every_lane_unless_epsilon_is_random() {
        for (direction, asks) in [("gradient", true), ("random", false)] {
            let (scope, plan) = scope(&format!("[sam]\nm = 8\ndirection = \"{direction}\"\n"), 1_000_000, 64.0 * 6e6);
            let watch = Watch::new(scope, &plan, Step(5), Some(&[]), None);
            assert!((0..8).all(|lane| watch.takes(lane) == asks));
        }
    }

    #[test]
    fn an_epsilon_is_tried_on_the_next_lane_by_whoever_holds_its_like() {
        let (scope, plan) = scope("[batch]\nmicro = 8\n[sam]\nm = 32\n", 10, 1.0);
        let watch = Watch::new(scope, &plan, Step(0), Some(&[]), None);
        let part = |lane, micro_batches| LanePart { lane, micro_batches, ranks: 0..1, is_first: false };
        assert_eq!(watch.crossed(&plan, &part(0, 1..3)), 5..7);
        assert_eq!(watch.crossed(&plan, &part(1, 4..8)), 0..4, "after the last comes the first");
        let unequal = self::scope("[sam]\nm = [32, 16, 16]\n", 10, 1.0);
        let watch = Watch::new(unequal.0, &unequal.1, Step(0), Some(&[]), None);
        assert!(watch.crossed(&unequal.1, &part(0, 0..1)).is_empty());
    }
}
