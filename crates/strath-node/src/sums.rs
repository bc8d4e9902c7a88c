//! What a rank adds up over a step, in the number format that `cluster.reduce` asks for.

use strath_collective::Payload;
use strath_core::config::Reduce;
use strath_core::fixed::{GRADIENT_LIMIT, OutOfRange};
use strath_cuda::{Fetch, GpuError, Vector};

use crate::flat::{Checks, Flat, FlatPart, Integers, Place, SumError, counted_from};

/// A lane's ascent gradient as it is put together.
#[derive(Debug)]
pub enum LaneSum {
    /// The lane is one micro-batch: its gradient, untouched, once it is there.
    One(Option<Flat>),
    /// Several micro-batches, 96 fractional bits: the integers of a [`WideSum`](strath_core::fixed::WideSum).
    Wide {
        /// Upper halves, 48 fractional bits.
        high: Integers,
        /// Lower halves, 96 fractional bits.
        low: Integers,
        /// The last gradient, whose values are spent: room for the next, and in the end for the rounded sum.
        spent: Option<Flat>,
    },
    /// Several micro-batches under `reduce = "f32"` or `"bf16"`. Epsilon is always exchanged in f32.
    Floats {
        /// The sum.
        sum: Flat,
        /// The last gradient, room for the next.
        spent: Option<Flat>,
    },
}

impl LaneSum {
    /// An empty sum for a lane of `pieces` micro-batches and `len` parameters.
    ///
    /// # Errors
    /// The device's.
    pub fn new(reduce: Reduce, pieces: usize, len: usize, place: &Place) -> Result<Self, GpuError> {
        Ok(match reduce {
            _ if pieces == 1 => Self::One(None),
            Reduce::Exact => Self::Wide { high: place.integers(len)?, low: place.integers(len)?, spent: None },
            Reduce::F32 | Reduce::Bf16 => Self::Floats { sum: place.zeros(len)?, spent: None },
        })
    }

    /// Adds a micro-batch's gradient, weighted by its part of the lane. One pass: 4 bytes a value where it is the lane's only one
    /// (only its range is checked), else 36 (`f32` and `bf16`: 12).
    ///
    /// # Errors
    /// [`SumError`] with the first value that is not finite, or too large for the exact sum, on a device among the [`Checks`]; the sum is then of no
    /// use.
    pub fn add(&mut self, gradient: Flat, weight: f64) -> Result<Checks, SumError> {
        Ok(match self {
            Self::One(sum) => {
                let checks = gradient.check_finite()?;
                *sum = Some(gradient);
                checks
            }
            Self::Wide { high, low, spent } => {
                let checks = gradient.all().add_wide((high, low), weight, GRADIENT_LIMIT)?;
                *spent = Some(gradient);
                checks
            }
            Self::Floats { sum, spent } => {
                let checks = gradient.all().add_floats(sum, 0, weight, f32::INFINITY)?;
                *spent = Some(gradient);
                checks
            }
        })
    }

    /// The gradient that was added last, where its values are spent.
    pub fn spent(&mut self) -> Option<Flat> {
        match self {
            Self::One(_) => None,
            Self::Wide { spent, .. } | Self::Floats { spent, .. } => spent.take(),
        }
    }

    /// The lane's gradient, where one rank holds all of it. A wide sum is rounded in one pass, 20 bytes a value.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// Where nothing was added to a lane of one micro-batch.
    pub fn finish(self) -> Result<Flat, GpuError> {
        match self {
            Self::One(sum) => Ok(sum.expect("the lane's gradient was added")),
            Self::Floats { sum, .. } => Ok(sum),
            Self::Wide { high, low, spent } => {
                let mut rounded = spent.map_or_else(|| high.floats(), Ok)?;
                Integers::round_wide(&high, &low, &mut rounded)?;
                Ok(rounded)
            }
        }
    }

    /// This rank's part of it, to be reduced with the others'.
    ///
    /// # Errors
    /// The device's.
    pub fn into_payload(self) -> Result<Payload, GpuError> {
        Ok(match self {
            Self::One(sum) => Payload::Floats(sum.map_or_else(|| Ok(Vec::new()), Flat::into_host)?),
            Self::Floats { sum, .. } => Payload::Floats(sum.into_host()?),
            Self::Wide { high, low, .. } => Payload::Wide { high: high.into_host()?, low: low.into_host()? },
        })
    }
}

/// A [`LaneSum`] in the process's memory, where nothing but a value can be at fault: what measurements add up.
#[derive(Debug)]
pub struct HostSum(LaneSum);

/// Why no operation on it fails for another reason.
const IN_MEMORY: &str = "vectors in the process's memory need no device";

impl HostSum {
    /// An empty sum of `pieces` vectors of `len` values.
    pub fn new(reduce: Reduce, pieces: usize, len: usize) -> Self {
        Self(LaneSum::new(reduce, pieces, len, &Place::default()).expect(IN_MEMORY))
    }

    /// Adds a vector, weighted.
    ///
    /// # Errors
    /// [`OutOfRange`] as [`LaneSum::add`].
    pub fn add(&mut self, vector: Vec<f32>, weight: f64) -> Result<(), OutOfRange> {
        self.0.add(Flat::Host(vector), weight).and_then(Checks::settle).map_err(|error| match error {
            SumError::OutOfRange(found) => found,
            SumError::Gpu(_) => unreachable!("{IN_MEMORY}"),
        })
    }

    /// The vector that was added last, where its values are spent.
    pub fn spent(&mut self) -> Option<Vec<f32>> {
        self.0.spent().map(|spent| spent.into_host().expect(IN_MEMORY))
    }

    /// The sum.
    ///
    /// # Panics
    /// As [`LaneSum::finish`].
    pub fn finish(self) -> Vec<f32> {
        self.0.finish().and_then(Flat::into_host).expect(IN_MEMORY)
    }

    /// This rank's part of it, to be reduced with the others'.
    pub fn into_payload(self) -> Payload {
        self.0.into_payload().expect(IN_MEMORY)
    }
}

/// The sum over micro-batches of their weighted descent gradients.
#[derive(Debug)]
pub enum DescentSum {
    /// None yet, of so many parameters, for an exact sum.
    None(usize, Place),
    /// One micro-batch of an exact sum: its weighted values, half the bytes of its fixed-point ones.
    One(Flat, Place),
    /// Several, 48 fractional bits: the integers of a [`FixedSum`](strath_core::fixed::FixedSum).
    Exact(Integers),
    /// `f32`, sent as such.
    Floats(Flat),
    /// `f32`, sent as `bf16`.
    Halves(Flat),
}

impl DescentSum {
    /// An empty sum of `len` parameters.
    ///
    /// # Errors
    /// The device's.
    pub fn new(reduce: Reduce, len: usize, place: &Place) -> Result<Self, GpuError> {
        Ok(match reduce {
            Reduce::Exact => Self::None(len, place.clone()),
            Reduce::F32 => Self::Floats(place.zeros(len)?),
            Reduce::Bf16 => Self::Halves(place.zeros(len)?),
        })
    }

    /// Adds a micro-batch's gradient, weighted by its part of the batch. One pass: 20 bytes a value, in `f32` and `bf16` 12.
    ///
    /// # Errors
    /// [`SumError`] with the first value that is not finite, or too large for the exact sum, on a device among the [`Checks`]; the sum is then of no
    /// use.
    pub fn add(&mut self, gradient: FlatPart<'_>, weight: f64) -> Result<Checks, SumError> {
        self.begin()?;
        self.add_at(0, gradient, weight)
    }

    /// Makes room for one more micro-batch, whose gradient may come in pieces.
    ///
    /// # Errors
    /// The device's.
    pub fn begin(&mut self) -> Result<(), GpuError> {
        match self {
            Self::None(len, place) => *self = Self::One(place.zeros(*len)?, place.clone()),
            Self::One(terms, place) => {
                let mut sum = place.integers(terms.len())?;
                match terms.all().add_fixed(&mut sum, 0, 1.0, GRADIENT_LIMIT) {
                    // A weighted value is no larger than the value, which was checked, or is about to be found out.
                    Ok(_) => {}
                    Err(SumError::Gpu(error)) => return Err(error),
                    Err(SumError::OutOfRange(found)) => debug_assert!(false, "{found:?} in terms that were checked"),
                }
                *self = Self::Exact(sum);
            }
            Self::Exact(_) | Self::Floats(_) | Self::Halves(_) => {}
        }
        Ok(())
    }

    /// Adds a piece of the gradient of the micro-batch that has [begun](Self::begin): the values from `at` on, each once.
    ///
    /// # Errors
    /// As [`add`](Self::add), the index counted from the beginning of the sum.
    pub fn add_at(&mut self, at: usize, piece: FlatPart<'_>, weight: f64) -> Result<Checks, SumError> {
        let added = match self {
            Self::None(..) => unreachable!("a micro-batch has begun"),
            Self::One(terms, _) => piece.add_floats(terms, at, weight, GRADIENT_LIMIT),
            Self::Exact(sum) => piece.add_fixed(sum, at, weight, GRADIENT_LIMIT),
            Self::Floats(sum) | Self::Halves(sum) => piece.add_floats(sum, at, weight, f32::INFINITY),
        };
        counted_from(at, added)
    }

    /// This rank's part, to be reduced with the others'.
    ///
    /// # Errors
    /// The device's.
    pub fn into_payload(self) -> Result<Payload, GpuError> {
        Ok(match self {
            Self::None(len, _) => Payload::Weighted(vec![0.0; len]),
            Self::One(terms, _) => Payload::Weighted(terms.into_host()?),
            Self::Exact(sum) => Payload::Exact(sum.into_host()?),
            Self::Floats(sum) => Payload::Floats(sum.into_host()?),
            Self::Halves(sum) => Payload::Halves(sum.into_host()?),
        })
    }

    /// This rank's part on its way to the host, to be reduced with the others' once it is there; the device goes on.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// Where it does not lie on a device, or no micro-batch has begun.
    pub fn leave(self) -> Result<Leaving, GpuError> {
        Ok(match self {
            Self::One(Flat::Device(terms), _) => Leaving::Floats(terms.fetch()?, Payload::Weighted),
            Self::Exact(Integers::Device(sum)) => Leaving::Integers(sum.fetch()?),
            Self::Floats(Flat::Device(sum)) => Leaving::Floats(sum.fetch()?, Payload::Floats),
            Self::Halves(Flat::Device(sum)) => Leaving::Floats(sum.fetch()?, Payload::Halves),
            other => unreachable!("{other:?} does not leave a device"),
        })
    }

    /// This rank's part, where it lies on a device that can add it to others'; else the sum, to be [reduced](Self::into_payload).
    ///
    /// # Errors
    /// The device's.
    pub fn on_device(mut self) -> Result<Result<OnDevice, Self>, GpuError> {
        if matches!(self, Self::None(..)) {
            self.begin()?;
        }
        if matches!(self, Self::One(Flat::Device(_), _)) {
            self.begin()?;
        }
        Ok(match self {
            Self::Exact(Integers::Device(sum)) => Ok(OnDevice::Integers(sum)),
            Self::Floats(Flat::Device(sum)) => Ok(OnDevice::Floats(sum)),
            sum => Err(sum),
        })
    }
}

/// A sum on its way from a device to the host.
#[derive(Debug)]
pub enum Leaving {
    /// f32, and what they are reduced as.
    Floats(Fetch<f32>, fn(Vec<f32>) -> Payload),
    /// 48 fractional bits.
    Integers(Fetch<i64>),
}

impl Leaving {
    /// Waits for it: what is reduced with the others'.
    ///
    /// # Errors
    /// The device's.
    pub fn arrived(self) -> Result<Payload, GpuError> {
        Ok(match self {
            Self::Floats(values, payload) => payload(values.take()?),
            Self::Integers(values) => Payload::Exact(values.take()?),
        })
    }
}

/// A sum on a device.
#[derive(Debug)]
pub enum OnDevice {
    /// 48 fractional bits.
    Integers(Vector<i64>),
    /// f32.
    Floats(Vector<f32>),
}

impl OnDevice {
    /// What it comes to, to the bits of one that is reduced through the hosts.
    ///
    /// # Errors
    /// The device's.
    pub fn rounded(self) -> Result<Flat, GpuError> {
        match self {
            Self::Integers(sum) => {
                let sum = Integers::Device(sum);
                let mut rounded = sum.floats()?;
                sum.round_fixed(&mut rounded)?;
                Ok(rounded)
            }
            Self::Floats(sum) => Ok(Flat::Device(sum)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use strath_core::Layout;
    use strath_core::fixed::{FixedSum, GRADIENT_BITS, WideSum};
    use strath_sam::Perturbation;

    use super::*;

    fn lane(reduce: Reduce, pieces: usize, len: usize) -> LaneSum {
        LaneSum::new(reduce, pieces, len, &Place::default()).unwrap()
    }

    fn descent(reduce: Reduce, len: usize) -> DescentSum {
        DescentSum::new(reduce, len, &Place::default()).unwrap()
    }

    fn outside(added: &Result<Checks, SumError>) -> Option<usize> {
        match added {
            Err(SumError::OutOfRange(OutOfRange { index })) => Some(*index),
            _ => None,
        }
    }

    #[test]
    fn a_lane_of_one_micro_batch_keeps_its_gradient_to_the_bit() {
        let gradient = vec![1e-30, -3.0, 0.1];
        let mut sum = lane(Reduce::Exact, 1, 3);
        sum.add(Flat::Host(gradient.clone()), 1.0).and_then(Checks::settle).unwrap();
        assert_eq!(sum.finish().unwrap().into_host().unwrap(), gradient);
        assert_eq!(outside(&lane(Reduce::Exact, 1, 2).add(Flat::Host(vec![0.0, f32::NAN]), 1.0)), Some(1));
    }

    #[test]
    fn every_format_names_the_first_value_that_is_not_finite() {
        for reduce in [Reduce::Exact, Reduce::F32, Reduce::Bf16] {
            let bad = [1.0, 2.0, f32::INFINITY];
            assert_eq!(outside(&descent(reduce, 3).add(FlatPart::Host(&bad), 0.5)), Some(2), "{reduce:?}");
            assert_eq!(outside(&lane(reduce, 2, 3).add(Flat::Host(bad.to_vec()), 0.5)), Some(2), "{reduce:?}");
        }
    }

    #[test]
    fn sums_have_the_integers_of_the_definition_and_round_as_it_does() {
        let mut draws = strath_core::random::Stream::new(7, strath_core::random::Purpose::Probe);
        let len = 100_003;
        let (mut descent, mut fixed) = (descent(Reduce::Exact, len), FixedSum::gradient(len));
        let (mut lanes, mut wide) = ([0, 1].map(|_| lane(Reduce::Exact, 5, len)), WideSum::zeros(len));
        for _ in 0..5 {
            let values: Vec<f32> =
                (0..len).map(|_| (draws.uniform() - 0.5) * 2f32.powi(draws.below(60) as i32 - 44)).collect();
            descent.add(FlatPart::Host(&values), 0.2).and_then(Checks::settle).unwrap();
            fixed.add(&values, 0.2).unwrap();
            wide.add(&values, 0.2).unwrap();
            for lane in &mut lanes {
                lane.add(Flat::Host(values.clone()), 0.2).and_then(Checks::settle).unwrap();
            }
        }
        assert_eq!(descent.into_payload().unwrap(), Payload::Exact(fixed.into_entries()));
        let [rounded, sent] = lanes;
        assert_eq!(rounded.finish().unwrap().into_host().unwrap(), wide.to_f32());
        let (high, low) = wide.into_halves();
        assert_eq!(sent.into_payload().unwrap(), Payload::Wide { high, low });
    }

    #[test]
    fn an_exact_sum_of_one_micro_batch_stays_in_f32_and_becomes_fixed_point_with_the_second() {
        let payload = |micro_batches: &[[f32; 2]]| {
            let mut sum = descent(Reduce::Exact, 2);
            for micro_batch in micro_batches {
                sum.add(FlatPart::Host(micro_batch), 0.5).and_then(Checks::settle).unwrap();
            }
            sum.into_payload().unwrap()
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
        let mut one = descent(Reduce::Exact, 4);
        one.add(FlatPart::Host(&values), 1.0 / 3.0).and_then(Checks::settle).unwrap();
        let Payload::Weighted(terms) = one.into_payload().unwrap() else { panic!("one micro-batch stays in f32") };
        of_terms.add(&terms, 1.0).unwrap();
        assert_eq!(plain, of_terms);
        let mut beyond = descent(Reduce::Exact, 2);
        assert_eq!(outside(&beyond.add(FlatPart::Host(&[0.0, GRADIENT_LIMIT]), 0.1)), Some(1));
    }

    fn ascent(seed: u64, splits: &[usize], entries: usize, scale: f32) -> Vec<f32> {
        let mut draws = strath_core::random::Stream::new(seed, strath_core::random::Purpose::Probe);
        let m: usize = splits.iter().sum();
        let mut sum = HostSum::new(Reduce::Exact, splits.len(), entries);
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
                perturbation.epsilon(&ascent(seed, &splits, entries, scale), &vec![1.0; entries], &mut epsilon);
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
