//! Flat vectors of the model's parameters where the model computes: in the process's memory, or in a GPU's. A step is written once, for both.
//!
//! | | host | device |
//! | --- | --- | --- |
//! | passes | `Model::gradient_heard`, `loss`, `evaluate` | `gradient_heard_on`, `loss_on`, `evaluate_on` |
//! | sums, decay, updates | `strath_kernels::vector` | `strath_cuda::lanes`, to the same bits |
//! | norms and products | | the same, added in another order |
//! | epsilon | `strath_sam::Perturbation` | for p = 1, 2 and inf to the same bits, else with the device's own function for powers |
//! | random directions | `strath_sam::draw_direction` | to the same bits |
//!
//! All vectors of a rank lie in one place. What a device finds in passing (losses, norms, whether a value is not finite) stays there until somebody
//! asks: whoever waits for every number has the device idle in between.

mod lane;
mod place;
mod sum;

use std::borrow::{Borrow, Cow};
use std::ops::Range;
use std::sync::Arc;

use strath_cuda::{Element, GpuError, Part, Vector};
use strath_data::Batch;
use strath_model::{DeviceListener, DevicePass, Listener, Model, ModelError, PassReport, Score};

pub use self::lane::LiftOnDevice;
pub use self::place::Place;
pub(crate) use self::sum::counted_from;
pub use self::sum::{Check, Checks, SumError};

/// Values in the process's memory, or in a GPU's.
#[derive(Debug, Clone, Copy)]
pub enum Placed<H, D> {
    /// In the process's memory.
    Host(H),
    /// In a GPU's.
    Device(D),
}

/// A flat vector.
pub type Flat = Placed<Vec<f32>, Vector<f32>>;

/// Some of a flat vector.
pub type FlatPart<'a> = Placed<&'a [f32], Part<'a, f32>>;

/// What a model computes with: a flat vector that passes share and nobody writes meanwhile.
pub type Weights = Placed<Arc<Vec<f32>>, Arc<Vector<f32>>>;

/// Who hears a gradient as it comes.
pub type Hears = Placed<Listener, DeviceListener>;

/// A vector of fixed-point numbers.
pub type Integers = Placed<Vec<i64>, Vector<i64>>;

/// Vectors of a rank that lie in two places.
fn apart() -> ! {
    unreachable!("the vectors of a rank lie in one place")
}

impl Hears {
    fn here(self) -> Listener {
        if let Self::Host(listener) = self { listener } else { apart() }
    }

    fn there(self) -> DeviceListener {
        if let Self::Device(listener) = self { listener } else { apart() }
    }
}

impl<H: Borrow<Vec<f32>>, D: Borrow<Vector<f32>>> Placed<H, D> {
    /// Values.
    pub fn len(&self) -> usize {
        match self {
            Self::Host(values) => values.borrow().len(),
            Self::Device(values) => values.borrow().len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its values, copied where they lie on a device.
    ///
    /// # Errors
    /// The device's.
    pub fn host(&self) -> Result<Cow<'_, [f32]>, GpuError> {
        match self {
            Self::Host(values) => Ok(Cow::Borrowed(values.borrow())),
            Self::Device(values) => values.borrow().to_host().map(Cow::Owned),
        }
    }
}

impl<T: Element> Placed<Vec<T>, Vector<T>> {
    /// Its values, copied where they lie on a device; the vector is spent.
    ///
    /// # Errors
    /// The device's.
    pub fn into_host(self) -> Result<Vec<T>, GpuError> {
        match self {
            Self::Host(values) => Ok(values),
            Self::Device(values) => values.to_host(),
        }
    }
}

impl Flat {
    /// All of its values.
    pub fn all(&self) -> FlatPart<'_> {
        self.part(0..self.len())
    }

    /// Some of its values.
    pub fn part(&self, range: Range<usize>) -> FlatPart<'_> {
        match self {
            Self::Host(values) => FlatPart::Host(&values[range]),
            Self::Device(values) => FlatPart::Device(values.part(range)),
        }
    }

    /// Does something at a place that reads it, between what was asked for where it lies before and what is asked for there afterwards.
    ///
    /// # Errors
    /// The device's.
    pub fn read_at<T>(&self, place: &Place, read: impl FnOnce() -> T) -> Result<T, GpuError> {
        let (Self::Device(values), Some(reader)) = (self, place.gpu()) else { return Ok(read()) };
        reader.follow(values.gpu())?;
        let found = read();
        values.gpu().follow(reader)?;
        Ok(found)
    }
}

impl Weights {
    /// The same weights, to be read at a place.
    ///
    /// # Errors
    /// The device's.
    pub fn read_at(&self, place: &Place) -> Result<Self, GpuError> {
        match (self, place.gpu()) {
            (Self::Device(values), Some(gpu)) => values.lent(gpu).map(Self::Device),
            _ => Ok(self.clone()),
        }
    }

    /// The vector, where nobody else holds it any more.
    pub fn into_flat(self) -> Option<Flat> {
        match self {
            Self::Host(values) => Arc::try_unwrap(values).ok().map(Flat::Host),
            Self::Device(values) => Arc::try_unwrap(values).ok().map(Flat::Device),
        }
    }

    /// The loss and its gradient at these weights, heard as it comes: on a device, as soon as it has been asked for, as nobody waits for it.
    ///
    /// # Errors
    /// As [`Model::gradient_heard`], and [`Model::gradient_heard_on`].
    pub fn gradient(
        &self,
        model: &Model,
        batch: &Batch,
        label_smoothing: f64,
        gradient: &mut Flat,
        listener: Option<Hears>,
    ) -> Result<Placed<PassReport, DevicePass>, ModelError> {
        let Batch { images, labels, .. } = batch;
        match (self, gradient) {
            (Self::Host(weights), Flat::Host(gradient)) => {
                let listener = listener.map(Hears::here);
                model.gradient_heard(weights, images, labels, label_smoothing, gradient, listener).map(Placed::Host)
            }
            (Self::Device(weights), Flat::Device(gradient)) => {
                let listener = listener.map(Hears::there);
                let pass = model.gradient_heard_on(weights, images, labels, label_smoothing, gradient, listener)?;
                Ok(Placed::Device(pass))
            }
            _ => apart(),
        }
    }

    /// The loss at these weights.
    ///
    /// # Errors
    /// As [`Model::loss`].
    pub fn loss(&self, model: &Model, batch: &Batch, label_smoothing: f64) -> Result<f64, ModelError> {
        let Batch { images, labels, .. } = batch;
        match self {
            Self::Host(weights) => model.loss(weights, images, labels, label_smoothing),
            Self::Device(weights) => model.loss_on(weights, images, labels, label_smoothing),
        }
    }

    /// What these weights make of examples, batch norm normalising by running `statistics`.
    ///
    /// # Errors
    /// As [`Model::evaluate`].
    pub fn evaluate(&self, model: &Model, statistics: &[f32], batch: &Batch) -> Result<Vec<Score>, ModelError> {
        let Batch { images, labels, .. } = batch;
        match self {
            Self::Host(weights) => model.evaluate(weights, statistics, images, labels),
            Self::Device(weights) => {
                let by = strath_model::Normalise::ByRunning(statistics);
                model.evaluate_on(weights, images, labels, by).map(|(scores, _)| scores)
            }
        }
    }
}

impl From<Flat> for Weights {
    fn from(flat: Flat) -> Self {
        match flat {
            Flat::Host(values) => Self::Host(Arc::new(values)),
            Flat::Device(values) => Self::Device(Arc::new(values)),
        }
    }
}
