//! A network with the layout of its tensors: the gradient oracle of a training step.

use std::cell::RefCell;
use std::sync::Arc;

use candle_core::{Device, Storage, Tensor};
use strath_core::config::ModelKind;
use strath_core::{ImageShape, Layout};
use strath_cuda::Gpu;
use strath_kernels::conv::Method;
use strath_kernels::{cross_entropy, threads};

use crate::error::ModelError;
use crate::flow::{self, Course, Listener, Norms, Sink};
use crate::init::{Declarations, Declared};
use crate::layer::{self, keeps_graph};
use crate::pass::{Collected, Pass, Phase};
use crate::registry::Network;
use crate::route::Images;
use crate::survey::{Survey, Work};
use crate::tangent::{self, Tangents};

/// How far running statistics move towards a batch's in one step, in PyTorch's sense of momentum.
pub const BATCH_NORM_MOMENTUM: f64 = 0.1;

/// A built-in network for images of one shape.
#[derive(Debug, Clone)]
pub struct Model {
    network: Network,
    shape: ImageShape,
    parameters: Arc<Layout>,
    statistics: Layout,
    method: Method,
    /// As declared, in the order of `parameters`.
    declared: Vec<Declared>,
    batch_norms: Vec<(String, usize, usize)>,
    /// The device that passes are computed on, where it is not the processor.
    gpu: Option<Gpu>,
}

/// What a forward and backward pass found.
#[derive(Debug, Clone, PartialEq)]
pub struct PassReport {
    /// Mean cross-entropy over the examples, smoothed as asked.
    pub loss: f64,
    /// The batch's means and unbiased variances, flat in the layout of the running statistics.
    pub statistics: Vec<f32>,
}

/// What batch norm normalises by.
#[derive(Debug, Clone, Copy)]
pub enum Normalise<'a> {
    /// The statistics of the batch, which depend on the weights.
    ByBatch,
    /// Running statistics, flat in their layout, which do not.
    ByRunning(&'a [f32]),
}

/// One example's evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Cross-entropy, without smoothing.
    pub loss: f64,
    /// Whether the arg-max, the first of several, is the label.
    pub correct: bool,
}

impl Model {
    /// The network of `kind` for images of `shape` and `classes` classes, whose convolutions are computed by `method`.
    ///
    /// # Errors
    /// [`ModelError`] where the options or the images do not fit the network.
    pub fn build(kind: &ModelKind, shape: ImageShape, classes: usize, method: Method) -> Result<Self, ModelError> {
        let mut tensors = Declarations::default();
        let network = Network::build(kind, shape, classes, &mut tensors)?;
        let Declarations { parameters: mut declared, batch_norms } = tensors;
        declared.sort_by(|a, b| a.name.cmp(&b.name));
        let parameters = Layout::new(declared.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())))?;
        let running = |(prefix, channels, _): &(String, usize, usize)| {
            ["running_mean", "running_var"].map(|name| (format!("{prefix}.{name}"), vec![*channels]))
        };
        let statistics = Layout::new(batch_norms.iter().flat_map(running))?;
        let parameters = Arc::new(parameters);
        Ok(Self { network, shape, parameters, statistics, method, declared, batch_norms, gpu: None })
    }

    /// The same, whose losses, gradients and scores are computed on a GPU, or on the processor where there is none; products with the Hessian
    /// are computed on the processor.
    #[must_use]
    pub fn on(self, gpu: Option<Gpu>) -> Self {
        Self { gpu, ..self }
    }

    /// The GPU that passes run on.
    pub fn gpu(&self) -> Option<&Gpu> {
        self.gpu.as_ref()
    }

    /// The trainable tensors, under PyTorch's names.
    pub fn parameters(&self) -> &Arc<Layout> {
        &self.parameters
    }

    /// The running statistics of batch norm; empty without it.
    pub fn statistics(&self) -> &Layout {
        &self.statistics
    }

    /// For each tensor of [`parameters`](Self::parameters) whether it belongs to a normalisation layer.
    pub fn of_norms(&self) -> Vec<bool> {
        self.declared.iter().map(|tensor| tensor.of_norm).collect()
    }

    /// Initial parameters: PyTorch's defaults, each tensor drawn from (seed, its name).
    pub fn initial(&self, seed: u64) -> Vec<f32> {
        self.declared.iter().flat_map(|tensor| tensor.values(seed)).collect()
    }

    /// Initial running statistics: means 0, variances 1.
    pub fn initial_statistics(&self) -> Vec<f32> {
        let value = |name: &str| if name.ends_with("running_var") { 1.0 } else { 0.0 };
        self.statistics.entries().iter().flat_map(|e| vec![value(&e.name); e.len]).collect()
    }

    /// Whether micro-batches of `size` examples can be trained on.
    ///
    /// # Errors
    /// [`ModelError::OneValueAChannel`] where a batch norm would see a single value a channel, which has no variance.
    pub fn micro_batch_allowed(&self, size: usize) -> Result<(), ModelError> {
        match self.batch_norms.iter().find(|(_, _, area)| size * area < 2) {
            None => Ok(()),
            Some((layer, _, area)) => Err(ModelError::OneValueAChannel { layer: layer.clone(), size, area: *area }),
        }
    }

    /// The mean loss over images `[n, C, H, W]` with labels `[n]`, and its gradient, written to `gradient`; training phase, so
    /// that batch norm sees this batch. A loss that is not finite is returned as it is. The weights are shared, not copied.
    ///
    /// # Errors
    /// [`ModelError::Length`] for a vector of another length than the model's, and the tensor library's errors.
    pub fn gradient(
        &self,
        weights: &Arc<Vec<f32>>,
        images: &[f32],
        labels: &[u32],
        label_smoothing: f64,
        gradient: &mut Vec<f32>,
    ) -> Result<PassReport, ModelError> {
        self.gradient_heard(weights, images, labels, label_smoothing, gradient, None)
    }

    /// The same with batch norm normalising by `by`; by running statistics none of the batch are taken, and zeros reported.
    ///
    /// # Errors
    /// As [`gradient`](Self::gradient).
    pub fn gradient_by(
        &self,
        weights: &Arc<Vec<f32>>,
        images: &[f32],
        labels: &[u32],
        label_smoothing: f64,
        by: Normalise<'_>,
        gradient: &mut Vec<f32>,
    ) -> Result<PassReport, ModelError> {
        self.there_and_back(weights, (images, labels), label_smoothing, by, gradient, None)
    }

    /// The same, where `listener` hears of each parameter's gradient during the backward, as soon as it is complete: the last layer's
    /// first.
    ///
    /// # Errors
    /// As [`gradient`](Self::gradient); the listener may have heard a part by then.
    pub fn gradient_heard(
        &self,
        weights: &Arc<Vec<f32>>,
        images: &[f32],
        labels: &[u32],
        label_smoothing: f64,
        gradient: &mut Vec<f32>,
        listener: Option<Listener>,
    ) -> Result<PassReport, ModelError> {
        let by = Normalise::ByBatch;
        self.there_and_back(weights, (images, labels), label_smoothing, by, gradient, listener)
    }

    fn there_and_back(
        &self,
        weights: &Arc<Vec<f32>>,
        (images, labels): (&[f32], &[u32]),
        label_smoothing: f64,
        by: Normalise<'_>,
        gradient: &mut Vec<f32>,
        listener: Option<Listener>,
    ) -> Result<PassReport, ModelError> {
        expect("weights", weights.len(), self.parameters.len())?;
        expect("gradient", gradient.len(), self.parameters.len())?;
        if let Some(gpu) = &self.gpu {
            return self.there_and_back_on(gpu, weights, (images, labels), label_smoothing, by, gradient, listener);
        }
        let norms = self.norms(by)?;
        let images = self.images(images, labels.len())?;
        threads::within(|| {
            let sink = Sink::new(std::mem::take(gradient), listener);
            let course = Course::recording(&self.parameters, weights, norms, sink.clone(), self.method)?;
            let logits = self.network.forward(images, &course)?;
            let (end, loss) = flow::cross_entropy(&logits, &course, labels, label_smoothing)?;
            end.token().backward()?;
            *gradient = sink.into_gradient();
            Ok(PassReport { loss, statistics: self.flat_statistics(&course.collected()) })
        })
    }

    /// The loss of [`gradient`](Self::gradient) alone, to the same bits: one forward, in which batch norm sees this batch.
    ///
    /// # Errors
    /// As [`gradient`](Self::gradient).
    pub fn loss(
        &self,
        weights: &Arc<Vec<f32>>,
        images: &[f32],
        labels: &[u32],
        label_smoothing: f64,
    ) -> Result<f64, ModelError> {
        expect("weights", weights.len(), self.parameters.len())?;
        if let Some(gpu) = &self.gpu {
            return self.loss_on(&Arc::new(gpu.copied(weights)?), images, labels, label_smoothing);
        }
        let images = self.images(images, labels.len())?;
        threads::within(|| {
            let norms = Norms::Batch(RefCell::default());
            let course = Course::passing(&self.parameters, weights, norms, self.method);
            let logits = self.network.forward(images, &course)?;
            Ok(flow::cross_entropy(&logits, &course, labels, label_smoothing)?.1)
        })
    }

    /// The Hessian of the mean loss over images `[n, C, H, W]` with labels `[n]`, batch norm normalising by `by`, times `direction`:
    /// exact, how the gradient moves along the direction (Pearlmutter 1994). Each layer goes forward and back with its derivative beside
    /// it, in less than three gradients' time.
    ///
    /// # Errors
    /// [`ModelError::Length`] for a vector of another length than the model's, and the tensor library's errors.
    pub fn hessian_times(
        &self,
        weights: &Arc<Vec<f32>>,
        images: &[f32],
        labels: &[u32],
        label_smoothing: f64,
        by: Normalise<'_>,
        direction: &Arc<Vec<f32>>,
    ) -> Result<Vec<f32>, ModelError> {
        expect("weights", weights.len(), self.parameters.len())?;
        expect("direction", direction.len(), self.parameters.len())?;
        let norms = self.norms(by)?;
        let images = self.images(images, labels.len())?;
        threads::within(|| {
            let sink = Sink::new(vec![0.0; self.parameters.len()], None);
            let course = Course::recording(&self.parameters, weights, norms, sink.clone(), self.method)?;
            let route = Tangents::along(course, &self.parameters, direction);
            let logits = self.network.forward(images, &route)?;
            tangent::go_back(&logits, labels, label_smoothing)?;
            Ok(sink.into_gradient())
        })
    }

    /// [`hessian_times`](Self::hessian_times) as the gradient of `<gradient, direction>`, by candle's graph differentiated twice: slowly, and
    /// with memory for the graph of every example; what it is tested against.
    ///
    /// # Errors
    /// [`ModelError::NoSecondDerivatives`] in a process whose candle does not keep the graph of gradients, and as there.
    pub fn hessian_times_by_graph(
        &self,
        weights: &[f32],
        images: &[f32],
        labels: &[u32],
        label_smoothing: f64,
        by: Normalise<'_>,
        direction: &[f32],
    ) -> Result<Vec<f32>, ModelError> {
        if !keeps_graph() {
            return Err(ModelError::NoSecondDerivatives);
        }
        expect("weights", weights.len(), self.parameters.len())?;
        expect("direction", direction.len(), self.parameters.len())?;
        let phase = match by {
            Normalise::ByBatch => Phase::Training(RefCell::default()),
            Normalise::ByRunning(statistics) => {
                expect("statistics", statistics.len(), self.statistics.len())?;
                Phase::Evaluation(&self.statistics, statistics)
            }
        };
        let pass = Pass::new(&self.parameters, weights, phase)?;
        let logits = self.network.forward(self.images(images, labels.len())?, &pass)?;
        let gradients = layer::cross_entropy(&logits, labels, label_smoothing)?.0.backward()?;
        let mut along = Tensor::new(0f32, &Device::Cpu)?;
        for (entry, parameter) in self.parameters.entries().iter().zip(pass.parameters()) {
            let gradient =
                gradients.get(parameter).ok_or_else(|| ModelError::NoGradient { name: entry.name.clone() })?;
            let direction = Tensor::from_slice(&direction[entry.range()], entry.shape.clone(), &Device::Cpu)?;
            along = (along + (gradient * direction)?.sum_all()?)?;
        }
        let seconds = along.backward()?;
        let mut product = vec![0.0; self.parameters.len()];
        for (entry, parameter) in self.parameters.entries().iter().zip(pass.parameters()) {
            // A parameter on whose gradient nothing depends, such as a bias that batch norm takes out again, has none.
            if let Some(second) = seconds.get(parameter) {
                copy(&second.contiguous()?, &mut product[entry.range()])?;
            }
        }
        Ok(product)
    }

    /// The score of each of images `[n, C, H, W]` with labels `[n]`; evaluation phase, so that batch norm takes `statistics`.
    ///
    /// # Errors
    /// [`ModelError::Length`] for a vector of another length than the model's, and the tensor library's errors.
    pub fn evaluate(
        &self,
        weights: &Arc<Vec<f32>>,
        statistics: &[f32],
        images: &[f32],
        labels: &[u32],
    ) -> Result<Vec<Score>, ModelError> {
        self.evaluate_by(weights, images, labels, Normalise::ByRunning(statistics)).map(|(scores, _)| scores)
    }

    /// The same with batch norm normalising by `by`, and the statistics of the batch, flat in their layout: zeros by running ones.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate).
    pub fn evaluate_by(
        &self,
        weights: &Arc<Vec<f32>>,
        images: &[f32],
        labels: &[u32],
        by: Normalise<'_>,
    ) -> Result<(Vec<Score>, Vec<f32>), ModelError> {
        expect("weights", weights.len(), self.parameters.len())?;
        if let Some(gpu) = &self.gpu {
            return self.evaluate_on(&Arc::new(gpu.copied(weights)?), images, labels, by);
        }
        let norms = self.norms(by)?;
        let images = self.images(images, labels.len())?;
        threads::within(|| {
            let course = Course::passing(&self.parameters, weights, norms, self.method);
            let logits = self.network.forward(images, &course)?;
            let scores = scores(logits.dims().channels, &logits.values.buffer, labels);
            Ok((scores, self.flat_statistics(&course.collected())))
        })
    }

    /// The products of a pass over `examples` examples, layer by layer, forward order.
    ///
    /// # Errors
    /// [`ModelError`] where the network is not one of its parameters.
    pub fn work(&self, examples: usize) -> Result<Vec<Work>, ModelError> {
        let survey = Survey::new(&self.parameters);
        self.network.forward(Images { values: &[], count: examples, shape: self.shape }, &survey)?;
        Ok(survey.into_work())
    }

    fn norms<'a>(&'a self, by: Normalise<'a>) -> Result<Norms<'a>, ModelError> {
        Ok(match by {
            Normalise::ByBatch => Norms::Batch(RefCell::default()),
            Normalise::ByRunning(statistics) => {
                expect("statistics", statistics.len(), self.statistics.len())?;
                Norms::Running(&self.statistics, statistics)
            }
        })
    }

    /// The layers and what connects them.
    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    pub(crate) fn images<'a>(&self, values: &'a [f32], count: usize) -> Result<Images<'a>, ModelError> {
        expect("images", values.len(), count * self.shape.values())?;
        Ok(Images { values, count, shape: self.shape })
    }

    fn flat_statistics(&self, collected: &[Collected]) -> Vec<f32> {
        let mut flat = vec![0.0; self.statistics.len()];
        for Collected { prefix, mean, unbiased_variance } in collected {
            for (name, values) in [("running_mean", mean), ("running_var", unbiased_variance)] {
                if let Some(entry) = self.statistics.get(&format!("{prefix}.{name}")) {
                    flat[entry.range()].iter_mut().zip(values).for_each(|(to, from)| *to = *from as f32);
                }
            }
        }
        flat
    }
}

/// Each example's loss, without smoothing, and whether its arg-max (the first of several) is its label.
fn scores(classes: usize, logits: &[f32], labels: &[u32]) -> Vec<Score> {
    let losses = cross_entropy::cross_entropy(classes, logits, labels, 0.0);
    let rows = logits.chunks_exact(classes).zip(labels).zip(losses);
    rows.map(|((x, label), loss)| {
        let best = (1..classes).fold(0, |best, at| if x[at] > x[best] { at } else { best });
        Score { loss, correct: best == *label as usize }
    })
    .collect()
}

pub(crate) fn expect(what: &'static str, found: usize, expected: usize) -> Result<(), ModelError> {
    if found == expected { Ok(()) } else { Err(ModelError::Length { what, found, expected }) }
}

fn copy(from: &Tensor, to: &mut [f32]) -> Result<(), ModelError> {
    let (storage, layout) = from.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Err(candle_core::Error::Msg("gradients are on the CPU".into()).into());
    };
    let values = storage.as_slice::<f32>()?;
    to.copy_from_slice(&values[layout.start_offset()..][..to.len()]);
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
