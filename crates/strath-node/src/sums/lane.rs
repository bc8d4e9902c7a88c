//! The sum of a lane's ascent gradient.

use strath_collective::Payload;
use strath_core::config::Reduce;
use strath_core::fixed::{GRADIENT_LIMIT, OutOfRange};
use strath_cuda::GpuError;

use crate::flat::{Checks, Flat, Integers, Place, SumError};

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
