//! The parameters of a pass, and where their gradients go: flat vectors, in the layout of the model.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use strath_core::Layout;

use crate::error::ModelError;

/// The parameters of a pass.
pub(crate) struct Parameters<W = Vec<f32>> {
    layout: Arc<Layout>,
    weights: Arc<W>,
}

/// One parameter of a pass, for a layer and its way back.
pub(crate) struct Parameter<W = Vec<f32>> {
    pub(crate) weights: Arc<W>,
    pub(crate) range: Range<usize>,
    pub(crate) shape: Vec<usize>,
}

impl<W> Parameters<W> {
    pub(crate) fn new(layout: Arc<Layout>, weights: Arc<W>) -> Self {
        Self { layout, weights }
    }

    /// The parameter `prefix.name`.
    pub(crate) fn get(&self, prefix: &str, name: &str) -> Result<Parameter<W>, ModelError> {
        let full = if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") };
        let entry = self.layout.get(&full).ok_or(ModelError::NoGradient { name: full })?;
        Ok(Parameter { weights: self.weights.clone(), range: entry.range(), shape: entry.shape.clone() })
    }
}

impl Parameter {
    pub(crate) fn values(&self) -> &[f32] {
        &self.weights[self.range.clone()]
    }
}

/// What is told of each parameter's gradient as soon as it is there: its range in the model's layout, and its values.
pub type Listener = Box<dyn FnMut(Range<usize>, &[f32]) + Send>;

/// Where the gradients of a pass's parameters go.
#[derive(Clone, Default)]
pub(crate) struct Sink(Arc<Mutex<Filling>>);

#[derive(Default)]
struct Filling {
    gradient: Vec<f32>,
    listener: Option<Listener>,
}

impl Sink {
    /// A sink that fills a vector of the model's length.
    pub(crate) fn new(gradient: Vec<f32>, listener: Option<Listener>) -> Self {
        Self(Arc::new(Mutex::new(Filling { gradient, listener })))
    }

    /// Calls `write` with the place of one parameter's gradient; every parameter is used by one layer, which fills it.
    pub(crate) fn fill(&self, parameter: &Parameter, write: impl FnOnce(&mut [f32])) {
        let Filling { gradient, listener } = &mut *self.lock();
        let place = &mut gradient[parameter.range.clone()];
        write(place);
        if let Some(listener) = listener {
            listener(parameter.range.clone(), place);
        }
    }

    /// The filled vector; a copy would be left to whoever still holds the sink.
    pub(crate) fn into_gradient(self) -> Vec<f32> {
        let Filling { gradient, listener } = std::mem::take(&mut *self.lock());
        drop(listener);
        gradient
    }

    fn lock(&self) -> MutexGuard<'_, Filling> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
