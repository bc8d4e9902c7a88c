//! Adding weighted vectors up, in f32 and in integers.

use strath_core::fixed::OutOfRange;
use strath_cuda::lanes::{self, Outside};
use strath_cuda::{Gpu, GpuError};
use strath_kernels::vector;

use super::{Flat, FlatPart, Integers, apart};

/// Why a vector was not added.
#[derive(Debug, thiserror::Error)]
pub enum SumError {
    /// A value that is not finite or too large; the sum is of no use then.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// The device's error.
    #[error(transparent)]
    Gpu(#[from] GpuError),
}

/// The outcome of adding a piece whose first value is the value `at` of the whole, counted from the beginning of that.
pub(crate) fn counted_from(at: usize, added: Result<Checks, SumError>) -> Result<Checks, SumError> {
    match added {
        Ok(mut checks) => {
            checks.0.iter_mut().for_each(|check| check.from += at);
            Ok(checks)
        }
        Err(SumError::OutOfRange(OutOfRange { index })) => Err(OutOfRange { index: at + index }.into()),
        Err(error @ SumError::Gpu(_)) => Err(error),
    }
}

/// What a sum on the host found.
fn host(found: Option<usize>) -> Result<(), SumError> {
    found.map_or(Ok(()), |index| Err(OutOfRange { index }.into()))
}

/// What sums on a device have found, which nobody has waited for: whether a value was not finite, or too large. On the host that is told at once.
#[derive(Debug, Default)]
#[must_use = "a sum with such a value is of no use"]
pub struct Checks(Vec<Check>);

/// What one sum has found.
#[derive(Debug)]
pub struct Check {
    /// The index of the first value that was added.
    pub from: usize,
    /// Counted from there.
    pub outside: Outside,
}

impl Checks {
    /// These too.
    pub(crate) fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// The same, the one of the first values first: of several at fault that one is told.
    pub(crate) fn in_order(mut self) -> Self {
        self.0.sort_by_key(|check| check.from);
        self
    }

    /// Each of them.
    pub fn into_each(self) -> impl Iterator<Item = Check> {
        self.0.into_iter()
    }

    /// Waits for all of them.
    ///
    /// # Errors
    /// [`SumError`]: with the first value that was at fault.
    pub fn settle(self) -> Result<(), SumError> {
        for Check { from, outside } in self.0 {
            host(outside.first()?.map(|index| from + index))?;
        }
        Ok(())
    }
}

/// What a sum on the host found: nothing is left to be told.
fn told(found: Option<usize>) -> Result<Checks, SumError> {
    host(found).map(|()| Checks::default())
}

/// A sum on a device.
fn device(gpu: &Gpu, sum: impl FnOnce(&mut Outside) -> Result<(), GpuError>) -> Result<Checks, SumError> {
    let mut outside = Outside::none(gpu)?;
    sum(&mut outside)?;
    Ok(Checks(vec![Check { from: 0, outside }]))
}

impl FlatPart<'_> {
    fn values(self) -> usize {
        match self {
            Self::Host(values) => values.len(),
            Self::Device(values) => values.len(),
        }
    }

    /// Adds `f32(weight v)` to the entries of `sum` from `at` on, in integers of 2^-48.
    ///
    /// # Errors
    /// [`SumError`]: with the first value whose magnitude is not below `limit`, counted from the first of these. On a device it is among the [`Checks`].
    pub fn add_fixed(self, sum: &mut Integers, at: usize, weight: f64, limit: f32) -> Result<Checks, SumError> {
        let place = at..at + self.values();
        match (sum, self) {
            (Integers::Host(sum), Self::Host(values)) => {
                told(vector::add_fixed(&mut sum[place], values, weight, limit))
            }
            (Integers::Device(sum), Self::Device(values)) => device(&sum.gpu().clone(), |outside| {
                lanes::add_fixed(&mut sum.part_mut(place), values, weight, limit, outside)
            }),
            _ => apart(),
        }
    }

    /// The same to all of a sum of two halves, of which the lower has 48 bits more.
    ///
    /// # Errors
    /// As [`add_fixed`](Self::add_fixed).
    pub fn add_wide(
        self,
        (high, low): (&mut Integers, &mut Integers),
        weight: f64,
        limit: f32,
    ) -> Result<Checks, SumError> {
        match (high, low, self) {
            (Integers::Host(high), Integers::Host(low), Self::Host(values)) => {
                told(vector::add_wide(high, low, values, weight, limit))
            }
            (Integers::Device(high), Integers::Device(low), Self::Device(values)) => {
                device(&high.gpu().clone(), |outside| {
                    lanes::add_wide((&mut high.all_mut(), &mut low.all_mut()), values, weight, limit, outside)
                })
            }
            _ => apart(),
        }
    }

    /// The same as [`add_fixed`](Self::add_fixed) in f32.
    ///
    /// # Errors
    /// As there.
    pub fn add_floats(self, sum: &mut Flat, at: usize, weight: f64, limit: f32) -> Result<Checks, SumError> {
        let place = at..at + self.values();
        match (sum, self) {
            (Flat::Host(sum), Self::Host(values)) => told(vector::add_floats(&mut sum[place], values, weight, limit)),
            (Flat::Device(sum), Self::Device(values)) => device(&sum.gpu().clone(), |outside| {
                lanes::add_floats(&mut sum.part_mut(place), values, weight, limit, outside)
            }),
            _ => apart(),
        }
    }
}

impl Flat {
    /// Checks that every value is finite.
    ///
    /// # Errors
    /// [`SumError`]: with the first that is not.
    pub fn check_finite(&self) -> Result<Checks, SumError> {
        match self {
            Self::Host(values) => told(vector::first_out_of_range(values, f32::INFINITY)),
            Self::Device(values) => device(values.gpu(), |outside| lanes::find_outside(values, f32::INFINITY, outside)),
        }
    }
}

impl Integers {
    /// Zeros as many as these, where these lie.
    ///
    /// # Errors
    /// The device's.
    pub fn floats(&self) -> Result<Flat, GpuError> {
        match self {
            Self::Host(values) => Ok(Flat::Host(vec![0.0; values.len()])),
            Self::Device(values) => values.gpu().zeros(values.len()).map(Flat::Device),
        }
    }

    /// The sum of [`FlatPart::add_fixed`], rounded once.
    ///
    /// # Errors
    /// The device's.
    pub fn round_fixed(&self, rounded: &mut Flat) -> Result<(), GpuError> {
        match (self, rounded) {
            (Self::Host(sum), Flat::Host(rounded)) => {
                vector::round_fixed(sum, rounded);
                Ok(())
            }
            (Self::Device(sum), Flat::Device(rounded)) => lanes::round_fixed(sum, rounded),
            _ => apart(),
        }
    }

    /// The sum of [`FlatPart::add_wide`], rounded once.
    ///
    /// # Errors
    /// The device's.
    pub fn round_wide(high: &Self, low: &Self, rounded: &mut Flat) -> Result<(), GpuError> {
        match (high, low, rounded) {
            (Self::Host(high), Self::Host(low), Flat::Host(rounded)) => {
                vector::round_wide(high, low, rounded);
                Ok(())
            }
            (Self::Device(high), Self::Device(low), Flat::Device(rounded)) => lanes::round_wide(high, low, rounded),
            _ => apart(),
        }
    }
}
