//! The sum of a rank's descent gradients, and its ways to the other ranks' sums.

use strath_collective::Payload;
use strath_core::config::Reduce;
use strath_core::fixed::GRADIENT_LIMIT;
use strath_cuda::{Fetch, GpuError, Vector};

use crate::flat::{Checks, Flat, FlatPart, Integers, Place, SumError, counted_from};

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
