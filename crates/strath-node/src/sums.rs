//! What a rank adds up over a step, in the number format that `cluster.reduce` asks for.

use strath_collective::Payload;
use strath_core::After;
use strath_core::config::Reduce;
use strath_core::fixed::{
    FixedSum, GRADIENT_BITS, GRADIENT_LIMIT, OutOfRange, STATISTIC_BITS, STATISTIC_LIMIT, to_f64, to_fixed,
};
use strath_kernels::vector;
use strath_sam::Lift;

/// A lane's ascent gradient as it is put together.
#[derive(Debug, Clone)]
pub enum LaneSum {
    /// The lane is one micro-batch: its gradient, untouched.
    One(Vec<f32>),
    /// Several micro-batches, 96 fractional bits: the integers of a [`WideSum`](strath_core::fixed::WideSum).
    Wide {
        /// Upper halves, 48 fractional bits.
        high: Vec<i64>,
        /// Lower halves, 96 fractional bits.
        low: Vec<i64>,
        /// The last gradient, whose values are spent: room for the next, and in the end for the rounded sum.
        spent: Option<Vec<f32>>,
    },
    /// Several micro-batches under `reduce = "f32"` or `"bf16"`. Epsilon is always exchanged in f32.
    Floats {
        /// The sum.
        sum: Vec<f32>,
        /// The last gradient, room for the next.
        spent: Option<Vec<f32>>,
    },
}

impl LaneSum {
    /// An empty sum for a lane of `pieces` micro-batches and `len` parameters.
    pub fn new(reduce: Reduce, pieces: usize, len: usize) -> Self {
        match reduce {
            _ if pieces == 1 => Self::One(Vec::new()),
            Reduce::Exact => Self::Wide { high: vec![0; len], low: vec![0; len], spent: None },
            Reduce::F32 | Reduce::Bf16 => Self::Floats { sum: vec![0.0; len], spent: None },
        }
    }

    /// Adds a micro-batch's gradient, weighted by its part of the lane. One pass: 4 bytes a value where it is the lane's only one
    /// (only its range is checked), else 36 (`f32` and `bf16`: 12).
    ///
    /// # Errors
    /// [`OutOfRange`] with the first value that is not finite, or too large for the exact sum; the sum is then of no use.
    pub fn add(&mut self, gradient: Vec<f32>, weight: f64) -> Result<(), OutOfRange> {
        match self {
            Self::One(sum) => {
                in_range(vector::first_out_of_range(&gradient, f32::INFINITY))?;
                *sum = gradient;
            }
            Self::Wide { high, low, spent } => {
                in_range(vector::add_wide(high, low, &gradient, weight, GRADIENT_LIMIT))?;
                *spent = Some(gradient);
            }
            Self::Floats { sum, spent } => {
                in_range(vector::add_floats(sum, &gradient, weight, f32::INFINITY))?;
                *spent = Some(gradient);
            }
        }
        Ok(())
    }

    /// The gradient that was added last, where its values are spent.
    pub fn spent(&mut self) -> Option<Vec<f32>> {
        match self {
            Self::One(_) => None,
            Self::Wide { spent, .. } | Self::Floats { spent, .. } => spent.take(),
        }
    }

    /// The lane's gradient, where one rank holds all of it. A wide sum is rounded in one pass, 20 bytes a value.
    pub fn finish(self) -> Vec<f32> {
        match self {
            Self::One(sum) | Self::Floats { sum, .. } => sum,
            Self::Wide { high, low, spent } => {
                let mut rounded = spent.unwrap_or_else(|| vec![0.0; high.len()]);
                vector::round_wide(&high, &low, &mut rounded);
                rounded
            }
        }
    }

    /// This rank's part of it, to be reduced with the others'.
    pub fn into_payload(self) -> Payload {
        match self {
            Self::One(sum) | Self::Floats { sum, .. } => Payload::Floats(sum),
            Self::Wide { high, low, .. } => Payload::Wide { high, low },
        }
    }
}

/// The sum over micro-batches of their weighted descent gradients.
#[derive(Debug, Clone)]
pub enum DescentSum {
    /// None yet, of so many parameters, for an exact sum.
    None(usize),
    /// One micro-batch of an exact sum: its weighted values, half the bytes of its fixed-point ones.
    One(Vec<f32>),
    /// Several, 48 fractional bits: the integers of a [`FixedSum`].
    Exact(Vec<i64>),
    /// `f32`, sent as such.
    Floats(Vec<f32>),
    /// `f32`, sent as `bf16`.
    Halves(Vec<f32>),
}

impl DescentSum {
    /// An empty sum of `len` parameters.
    pub fn new(reduce: Reduce, len: usize) -> Self {
        match reduce {
            Reduce::Exact => Self::None(len),
            Reduce::F32 => Self::Floats(vec![0.0; len]),
            Reduce::Bf16 => Self::Halves(vec![0.0; len]),
        }
    }

    /// Adds a micro-batch's gradient, weighted by its part of the batch. One pass: 20 bytes a value, in `f32` and `bf16` 12.
    ///
    /// # Errors
    /// [`OutOfRange`] with the first value that is not finite, or too large for the exact sum; the sum is then of no use.
    pub fn add(&mut self, gradient: &[f32], weight: f64) -> Result<(), OutOfRange> {
        self.begin();
        self.add_at(0, gradient, weight)
    }

    /// Makes room for one more micro-batch, whose gradient may come in pieces.
    pub fn begin(&mut self) {
        match self {
            Self::None(len) => *self = Self::One(vec![0.0; *len]),
            Self::One(terms) => {
                let mut sum = vec![0; terms.len()];
                let outside = vector::add_fixed(&mut sum, terms, 1.0, GRADIENT_LIMIT);
                debug_assert_eq!(outside, None, "a weighted value is no larger than the value, which was checked");
                *self = Self::Exact(sum);
            }
            Self::Exact(_) | Self::Floats(_) | Self::Halves(_) => {}
        }
    }

    /// Adds a piece of the gradient of the micro-batch that has [begun](Self::begin): the values from `at` on, each once.
    ///
    /// # Errors
    /// As [`add`](Self::add), the index counted from the beginning of the sum.
    pub fn add_at(&mut self, at: usize, piece: &[f32], weight: f64) -> Result<(), OutOfRange> {
        let place = at..at + piece.len();
        let found = match self {
            Self::None(_) => unreachable!("a micro-batch has begun"),
            Self::One(terms) => vector::add_floats(&mut terms[place], piece, weight, GRADIENT_LIMIT),
            Self::Exact(sum) => vector::add_fixed(&mut sum[place], piece, weight, GRADIENT_LIMIT),
            Self::Floats(sum) | Self::Halves(sum) => vector::add_floats(&mut sum[place], piece, weight, f32::INFINITY),
        };
        in_range(found.map(|index| at + index))
    }

    /// This rank's part, to be reduced with the others'.
    pub fn into_payload(self) -> Payload {
        match self {
            Self::None(len) => Payload::Weighted(vec![0.0; len]),
            Self::One(terms) => Payload::Weighted(terms),
            Self::Exact(sum) => Payload::Exact(sum),
            Self::Floats(sum) => Payload::Floats(sum),
            Self::Halves(sum) => Payload::Halves(sum),
        }
    }
}

fn in_range(found: Option<usize>) -> Result<(), OutOfRange> {
    found.map_or(Ok(()), |index| Err(OutOfRange { index }))
}

/// A loss that is not finite or reaches 2^15.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LossOutOfRange;

/// The small sums of a step: integers whatever `cluster.reduce` is, so that what is reported never depends on the ranks.
#[derive(Debug, Clone)]
pub struct Tally {
    clean_loss: i64,
    perturbed_loss: i64,
    epsilon_norm: i64,
    zero_gradient_lanes: i64,
    after: After,
    statistics: FixedSum,
}

impl Tally {
    /// An empty tally for a model of `statistics` running statistics; `after`: what this rank was asked to do after the step.
    pub fn new(statistics: usize, after: After) -> Self {
        Self {
            clean_loss: 0,
            perturbed_loss: 0,
            epsilon_norm: 0,
            zero_gradient_lanes: 0,
            after,
            statistics: FixedSum::statistics(statistics),
        }
    }

    /// Adds a micro-batch's mean loss at w, weighted by its part of the batch.
    pub fn add_clean(&mut self, loss: f64, share: f64) -> Result<(), LossOutOfRange> {
        self.clean_loss += fixed_loss(loss, share)?;
        Ok(())
    }

    /// Adds a micro-batch's mean loss at w + epsilon, weighted by its part of the batch.
    pub fn add_perturbed(&mut self, loss: f64, share: f64) -> Result<(), LossOutOfRange> {
        self.perturbed_loss += fixed_loss(loss, share)?;
        Ok(())
    }

    /// Adds a micro-batch's batch-norm statistics, weighted by its part of the batch.
    ///
    /// # Errors
    /// [`OutOfRange`] with the first statistic that is not finite or too large.
    pub fn add_statistics(&mut self, statistics: &[f32], share: f64) -> Result<(), OutOfRange> {
        self.statistics.add(statistics, share)
    }

    /// Counts the epsilon of one of the batch's `lanes`, once a lane. A norm beyond 2^30 counts as that.
    pub fn add_lane(&mut self, lift: Lift, lanes: usize) {
        let norm = lift.epsilon_norm.min(f64::from(STATISTIC_LIMIT));
        self.epsilon_norm += to_fixed(norm / lanes as f64, STATISTIC_BITS);
        self.zero_gradient_lanes += i64::from(lift.is_zero);
    }

    /// The tally as it is reduced, with the `words` of this rank's board behind it.
    pub fn into_payload(self, words: &[i64]) -> Payload {
        let mut integers = vec![self.clean_loss, self.perturbed_loss, self.epsilon_norm, self.zero_gradient_lanes];
        integers.extend(self.after.words());
        integers.extend(self.statistics.into_entries());
        integers.extend(words);
        Payload::Integers(integers)
    }
}

fn fixed_loss(loss: f64, share: f64) -> Result<i64, LossOutOfRange> {
    if loss.abs() < f64::from(GRADIENT_LIMIT) { Ok(to_fixed(loss * share, GRADIENT_BITS)) } else { Err(LossOutOfRange) }
}

/// A reduced [`Tally`].
#[derive(Debug, Clone, PartialEq)]
pub struct Totals {
    /// Mean loss over the batch at w.
    pub clean_loss: f64,
    /// Mean loss over the batch at w + epsilon.
    pub perturbed_loss: f64,
    /// Mean over lanes of the l2 norm of epsilon.
    pub epsilon_norm: f64,
    /// Lanes whose gradient was zero.
    pub zero_gradient_lanes: u64,
    /// What all ranks do after the step.
    pub after: After,
    /// The batch's statistics: means over micro-batches of their means and unbiased variances.
    pub statistics: Vec<f32>,
}

impl Totals {
    /// Reads the integers of a reduced tally for a model of `statistics` running statistics; the board's words follow.
    pub fn read(integers: &[i64], statistics: usize) -> (Self, &[i64]) {
        let [clean, perturbed, epsilon, zero, pause, stop, ref rest @ ..] = *integers else {
            unreachable!("a reduced tally has the length of every rank's, at least six")
        };
        let (statistics, words) = rest.split_at(statistics);
        let totals = Self {
            clean_loss: to_f64(clean, GRADIENT_BITS),
            perturbed_loss: to_f64(perturbed, GRADIENT_BITS),
            epsilon_norm: to_f64(epsilon, STATISTIC_BITS),
            zero_gradient_lanes: zero as u64,
            after: After::agreed([pause, stop]),
            statistics: statistics.iter().map(|s| strath_core::fixed::to_f32(*s, STATISTIC_BITS)).collect(),
        };
        (totals, words)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use strath_core::Layout;
    use strath_core::fixed::WideSum;
    use strath_sam::Perturbation;

    use super::*;

    #[test]
    fn a_lane_of_one_micro_batch_keeps_its_gradient_to_the_bit() {
        let gradient = vec![1e-30, -3.0, 0.1];
        let mut sum = LaneSum::new(Reduce::Exact, 1, 3);
        sum.add(gradient.clone(), 1.0).unwrap();
        assert_eq!(sum.finish(), gradient);
        let mut faulty = LaneSum::new(Reduce::Exact, 1, 2);
        assert_eq!(faulty.add(vec![0.0, f32::NAN], 1.0), Err(OutOfRange { index: 1 }));
    }

    #[test]
    fn every_format_names_the_first_value_that_is_not_finite() {
        for reduce in [Reduce::Exact, Reduce::F32, Reduce::Bf16] {
            let bad = [1.0, 2.0, f32::INFINITY];
            assert_eq!(DescentSum::new(reduce, 3).add(&bad, 0.5), Err(OutOfRange { index: 2 }), "{reduce:?}");
            assert_eq!(LaneSum::new(reduce, 2, 3).add(bad.to_vec(), 0.5), Err(OutOfRange { index: 2 }), "{reduce:?}");
        }
    }

    #[test]
    fn sums_have_the_integers_of_the_definition_and_round_as_it_does() {
        let mut draws = strath_core::random::Stream::new(7, strath_core::random::Purpose::Probe);
        let len = 100_003;
        let (mut descent, mut fixed) = (DescentSum::new(Reduce::Exact, len), FixedSum::gradient(len));
        let (mut lane, mut wide) = (LaneSum::new(Reduce::Exact, 5, len), WideSum::zeros(len));
        for _ in 0..5 {
            let values: Vec<f32> =
                (0..len).map(|_| (draws.uniform() - 0.5) * 2f32.powi(draws.below(60) as i32 - 44)).collect();
            descent.add(&values, 0.2).unwrap();
            fixed.add(&values, 0.2).unwrap();
            wide.add(&values, 0.2).unwrap();
            lane.add(values, 0.2).unwrap();
        }
        assert_eq!(descent.into_payload(), Payload::Exact(fixed.into_entries()));
        assert_eq!(lane.clone().finish(), wide.to_f32());
        let (high, low) = wide.into_halves();
        assert_eq!(lane.into_payload(), Payload::Wide { high, low });
    }

    #[test]
    fn an_exact_sum_of_one_micro_batch_stays_in_f32_and_becomes_fixed_point_with_the_second() {
        let payload = |micro_batches: &[[f32; 2]]| {
            let mut sum = DescentSum::new(Reduce::Exact, 2);
            for micro_batch in micro_batches {
                sum.add(micro_batch, 0.5).unwrap();
            }
            sum.into_payload()
        };
        let unit = 1i64 << GRADIENT_BITS;
        assert_eq!(payload(&[]), Payload::Weighted(vec![0.0, 0.0]));
        assert_eq!(payload(&[[2.0, -1.0]]), Payload::Weighted(vec![1.0, -0.5]));
        assert_eq!(payload(&[[2.0, -1.0], [4.0, 1.0]]), Payload::Exact(vec![3 * unit, 0]));
    }

    #[test]
    fn the_terms_of_one_vector_add_up_to_what_the_vector_does() {
        let values = [0.1f32, -32_767.0, 3e-15, 0.0];
        let (mut plain, mut of_terms) = (FixedSum::gradient(4), FixedSum::gradient(4));
        plain.add(&values, 1.0 / 3.0).unwrap();
        let mut one = DescentSum::new(Reduce::Exact, 4);
        one.add(&values, 1.0 / 3.0).unwrap();
        let Payload::Weighted(terms) = one.into_payload() else { panic!("one micro-batch stays in f32") };
        of_terms.add(&terms, 1.0).unwrap();
        assert_eq!(plain, of_terms);
        let mut beyond = DescentSum::new(Reduce::Exact, 2);
        assert_eq!(beyond.add(&[0.0, GRADIENT_LIMIT], 0.1), Err(OutOfRange { index: 1 }));
    }

    #[test]
    fn a_tally_gives_back_weighted_means() {
        let mut tally = Tally::new(1, After::Stop);
        tally.add_clean(2.0, 0.25).unwrap();
        tally.add_clean(4.0, 0.75).unwrap();
        tally.add_perturbed(8.0, 0.5).unwrap();
        tally.add_statistics(&[6.0], 0.5).unwrap();
        tally.add_lane(Lift { epsilon_norm: 0.5, dual_norm: 1.0, is_zero: false }, 2);
        tally.add_lane(Lift { epsilon_norm: 0.0, dual_norm: 0.0, is_zero: true }, 2);
        assert_eq!(tally.add_clean(f64::NAN, 0.1), Err(LossOutOfRange));
        let Payload::Integers(integers) = tally.into_payload(&[7, -8]) else { panic!("a tally is integers") };
        let (totals, words) = Totals::read(&integers, 1);
        let want = Totals {
            clean_loss: 3.5,
            perturbed_loss: 4.0,
            epsilon_norm: 0.25,
            zero_gradient_lanes: 1,
            after: After::Stop,
            statistics: vec![3.0],
        };
        assert_eq!((totals, words), (want, &[7, -8][..]));
    }

    fn lane(seed: u64, splits: &[usize], entries: usize, scale: f32) -> Vec<f32> {
        let mut draws = strath_core::random::Stream::new(seed, strath_core::random::Purpose::Probe);
        let m: usize = splits.iter().sum();
        let mut sum = LaneSum::new(Reduce::Exact, splits.len(), entries);
        for size in splits {
            // Of both signs, so that they cancel, and none smaller than 2^-20.
            let values = (0..entries).map(|_| {
                let magnitude = (draws.uniform() * 8.0).max(2f32.powi(-20));
                if draws.below(2) == 0 { magnitude * scale } else { -magnitude * scale }
            });
            sum.add(values.collect(), *size as f64 / m as f64).unwrap();
        }
        sum.finish()
    }

    proptest! {
        #[test]
        fn the_epsilon_of_a_split_lane_does_not_depend_on_the_scale_of_its_gradient(
            seed in any::<u64>(), splits in (0usize..6).prop_flat_map(halvings), p in prop_oneof![Just(2.0), 1.05f64..8.0]
        ) {
            let entries = 40;
            let layout = Layout::new([("w".into(), vec![entries])]).unwrap();
            let table = strath_core::config::SamTable {
                rho: 0.05,
                m: strath_core::config::LaneSizes::Batch,
                norm: strath_core::config::Norm::P(p),
                adaptive: false,
                eta: 0.01,
                perturb: strath_core::config::Perturb::All,
                weight_decay: strath_core::config::WeightDecay::Outside,
                rho_rule: strath_core::config::RhoRule::Constant,
                direction: strath_core::config::Direction::Gradient,
            };
            let perturbation = Perturbation::new(&table, &layout, &[false]).unwrap();
            let [plain, small] = [1.0, 2f32.powi(-40)].map(|scale| {
                let mut epsilon = vec![0.0; entries];
                perturbation.epsilon(&lane(seed, &splits, entries, scale), &vec![1.0; entries], &mut epsilon);
                epsilon
            });
            prop_assert!(plain.iter().zip(&small).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }

    /// A lane of 2^times examples cut into micro-batches of powers of two, one halving at a time.
    fn halvings(times: usize) -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(any::<prop::sample::Index>(), times).prop_map(move |cuts| {
            let mut sizes = vec![1usize << times];
            for cut in cuts {
                let at = cut.index(sizes.len());
                if sizes[at] > 1 {
                    sizes[at] /= 2;
                    sizes.insert(at, sizes[at]);
                }
            }
            sizes
        })
    }
}
