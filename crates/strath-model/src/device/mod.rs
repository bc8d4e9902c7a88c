//! The training route on a GPU: the same tokens in candle's graph, whose values lie in the device's memory.
//!
//! Activations are of the numbers that the device computes with: f32, or bf16 between weights and gradients of f32.
//!
//! A pass uploads its examples and goes forward and back without waiting for the device; its losses and the batch's statistics lie there until
//! somebody asks.

mod course;

use std::sync::Arc;

use strath_core::Layout;
use strath_cuda::layers::{loss, pointwise};
use strath_cuda::{Activation, Gpu, GpuError, Number, Part, Vector, bf16};

pub use self::course::DeviceListener;
use self::course::{Course, Norms, Sink};
use crate::error::{Computed, ModelError};
use crate::flow::{Backward, Dims, Listener, Memory, Parameter, Tape, Values};
use crate::model::{Model, Normalise, PassReport, Score, expect};

impl<A: Activation> Memory for Vector<A> {
    type Outcome = Outcome;

    fn values(&self) -> usize {
        self.len()
    }

    fn add_to(&self, sum: &mut Self) -> Outcome {
        Outcome(pointwise::add_to(self, sum))
    }

    fn settled(outcome: Outcome) -> candle_core::Result<()> {
        outcome.0.map_err(candle_core::Error::wrap)
    }
}

/// What a layer's way back on a device comes to.
pub(crate) struct Outcome(Result<(), GpuError>);

impl Default for Outcome {
    fn default() -> Self {
        Self(Ok(()))
    }
}

impl Parameter<Vector<f32>> {
    fn part(&self) -> Part<'_, f32> {
        self.weights.part(self.range.clone())
    }
}

/// What a forward and backward pass on a device found, which lies there: a [`PassReport`] that nobody has waited for.
#[derive(Debug)]
pub struct DevicePass {
    /// Cross-entropy of each example, smoothed as asked.
    pub losses: Vector<f64>,
    /// The batch's means and unbiased variances, flat in the layout of the running statistics.
    pub statistics: Vector<f32>,
}

impl DevicePass {
    /// What its losses and statistics say.
    pub fn told(losses: &[f64], statistics: Vec<f32>) -> PassReport {
        PassReport { loss: mean(losses), statistics }
    }

    /// The same on the host; waits for the device.
    ///
    /// # Errors
    /// The device's.
    pub fn report(self) -> Computed<PassReport> {
        Ok(Self::told(&self.losses.to_host()?, self.statistics.to_host()?))
    }
}

/// The mean of examples' losses.
fn mean(losses: &[f64]) -> f64 {
    losses.iter().sum::<f64>() / losses.len() as f64
}

/// An activation on a device.
type Flow<A> = crate::flow::Flow<Vector<A>>;

impl Model {
    /// As [`gradient_by`](Self::gradient_by), with weights and gradient on a device, which is not waited for.
    ///
    /// # Errors
    /// [`ModelError::Length`] for a vector of another length than the model's, and the device's errors.
    pub fn gradient_on(
        &self,
        weights: &Arc<Vector<f32>>,
        images: &[f32],
        labels: &[u32],
        label_smoothing: f64,
        by: Normalise<'_>,
        gradient: &mut Vector<f32>,
    ) -> Computed<DevicePass> {
        self.gradient_in(weights, (images, labels), label_smoothing, by, gradient, None)
    }

    /// The same by the batch's own statistics, heard as it comes: as soon as a parameter's gradient has been asked of the stream of the weights, the last layer's first.
    ///
    /// # Errors
    /// As [`gradient_on`](Self::gradient_on), and the listener's.
    pub fn gradient_heard_on(
        &self,
        weights: &Arc<Vector<f32>>,
        images: &[f32],
        labels: &[u32],
        label_smoothing: f64,
        gradient: &mut Vector<f32>,
        listener: Option<DeviceListener>,
    ) -> Computed<DevicePass> {
        self.gradient_in(weights, (images, labels), label_smoothing, Normalise::ByBatch, gradient, listener)
    }

    /// The same in what the device multiplies in.
    fn gradient_in(
        &self,
        weights: &Arc<Vector<f32>>,
        examples: (&[f32], &[u32]),
        label_smoothing: f64,
        by: Normalise<'_>,
        gradient: &mut Vector<f32>,
        listener: Option<DeviceListener>,
    ) -> Computed<DevicePass> {
        expect("weights", weights.len(), self.parameters().len())?;
        expect("gradient", gradient.len(), self.parameters().len())?;
        match weights.gpu().activations() {
            Number::F32 => self.gradient_of::<f32>(weights, examples, label_smoothing, by, gradient, listener),
            Number::Bf16 => self.gradient_of::<bf16>(weights, examples, label_smoothing, by, gradient, listener),
        }
    }

    fn gradient_of<A: Activation>(
        &self,
        weights: &Arc<Vector<f32>>,
        (images, labels): (&[f32], &[u32]),
        label_smoothing: f64,
        by: Normalise<'_>,
        gradient: &mut Vector<f32>,
        listener: Option<DeviceListener>,
    ) -> Computed<DevicePass> {
        let gpu = weights.gpu().clone();
        let images = self.images(images, labels.len())?;
        let (norms, tape, none) = (self.norms_on(&gpu, by)?, Tape::recording()?, gpu.stale(0)?);
        let labels = gpu.copied(labels)?;
        let sink = Sink::new(std::mem::replace(gradient, none), listener);
        let course = Course::<A>::new(&gpu, tape, self.parameters(), weights, norms, sink.clone());
        let logits = self.network().forward(images, &course);
        let losses = logits.and_then(|logits| go_back(&gpu, &logits, &course, &labels, label_smoothing));
        // Whatever went wrong, the vector is the caller's.
        *gradient = sink.into_gradient();
        let statistics = course.into_statistics().map_or_else(|| gpu.zeros(self.statistics().len()), Ok)?;
        Ok(DevicePass { losses: losses?, statistics })
    }

    /// The same with weights and gradient on the host. The listener hears of every parameter once the pass is over, the last layer's first.
    #[expect(clippy::too_many_arguments, reason = "those of a pass, and the device")]
    pub(crate) fn there_and_back_on(
        &self,
        gpu: &Gpu,
        weights: &[f32],
        (images, labels): (&[f32], &[u32]),
        label_smoothing: f64,
        by: Normalise<'_>,
        gradient: &mut [f32],
        listener: Option<Listener>,
    ) -> Computed<PassReport> {
        let weights = Arc::new(gpu.copied(weights)?);
        let mut there = gpu.stale(gradient.len())?;
        let pass = self.gradient_on(&weights, images, labels, label_smoothing, by, &mut there)?;
        there.download(gradient)?;
        let report = pass.report()?;
        if let Some(mut listener) = listener {
            for entry in self.parameters().entries().iter().rev() {
                listener(entry.range(), &gradient[entry.range()]);
            }
        }
        Ok(report)
    }

    /// As [`loss`](Self::loss), with weights on a device.
    ///
    /// # Errors
    /// As [`gradient_on`](Self::gradient_on).
    pub fn loss_on(
        &self,
        weights: &Arc<Vector<f32>>,
        images: &[f32],
        labels: &[u32],
        label_smoothing: f64,
    ) -> Computed<f64> {
        expect("weights", weights.len(), self.parameters().len())?;
        match weights.gpu().activations() {
            Number::F32 => self.loss_of::<f32>(weights, images, labels, label_smoothing),
            Number::Bf16 => self.loss_of::<bf16>(weights, images, labels, label_smoothing),
        }
    }

    fn loss_of<A: Activation>(
        &self,
        weights: &Arc<Vector<f32>>,
        images: &[f32],
        labels: &[u32],
        label_smoothing: f64,
    ) -> Computed<f64> {
        let (logits, _) = self.logits_of::<A>(weights, images, labels.len(), Normalise::ByBatch)?;
        let labels = weights.gpu().copied(labels)?;
        let (losses, _) = loss::cross_entropy(&logits.values.buffer, &labels, label_smoothing, 0.0)?;
        Ok(mean(&losses.to_host()?))
    }

    /// As [`evaluate_by`](Self::evaluate_by), with weights on a device.
    ///
    /// # Errors
    /// As [`gradient_on`](Self::gradient_on).
    pub fn evaluate_on(
        &self,
        weights: &Arc<Vector<f32>>,
        images: &[f32],
        labels: &[u32],
        by: Normalise<'_>,
    ) -> Computed<(Vec<Score>, Vec<f32>)> {
        expect("weights", weights.len(), self.parameters().len())?;
        match weights.gpu().activations() {
            Number::F32 => self.scores_of::<f32>(weights, images, labels, by),
            Number::Bf16 => self.scores_of::<bf16>(weights, images, labels, by),
        }
    }

    fn scores_of<A: Activation>(
        &self,
        weights: &Arc<Vector<f32>>,
        images: &[f32],
        labels: &[u32],
        by: Normalise<'_>,
    ) -> Computed<(Vec<Score>, Vec<f32>)> {
        let (logits, statistics) = self.logits_of::<A>(weights, images, labels.len(), by)?;
        let (losses, are_correct) = loss::scores(&logits.values.buffer, &weights.gpu().copied(labels)?)?;
        let scores = losses.to_host()?.into_iter().zip(are_correct.to_host()?);
        let scores = scores.map(|(loss, correct)| Score { loss, correct: correct == 1 }).collect();
        Ok((scores, self.collected(statistics)?))
    }

    /// A pass that looks only forward: its logits, and what batch norm saw where it normalised by the batch.
    fn logits_of<A: Activation>(
        &self,
        weights: &Arc<Vector<f32>>,
        images: &[f32],
        count: usize,
        by: Normalise<'_>,
    ) -> Computed<(Flow<A>, Option<Vector<f32>>)> {
        let (gpu, images) = (weights.gpu(), self.images(images, count)?);
        let (norms, sink) = (self.norms_on(gpu, by)?, Sink::new(gpu.stale(0)?, None));
        let course = Course::<A>::new(gpu, Tape::Off, self.parameters(), weights, norms, sink);
        let logits = self.network().forward(images, &course)?;
        Ok((logits, course.into_statistics()))
    }

    fn norms_on<'a>(&'a self, gpu: &Gpu, by: Normalise<'_>) -> Computed<Norms<'a>> {
        let layout: &'a Layout = self.statistics();
        Ok(match by {
            Normalise::ByBatch => Norms::batch(layout, gpu.stale(layout.len())?),
            Normalise::ByRunning(statistics) => {
                expect("statistics", statistics.len(), layout.len())?;
                Norms::running(layout, gpu.copied(statistics)?)
            }
        })
    }

    /// A pass's statistics on the host; zeros where it took none.
    fn collected(&self, statistics: Option<Vector<f32>>) -> Computed<Vec<f32>> {
        statistics.map_or_else(|| Ok(vec![0.0; self.statistics().len()]), |there| Ok(there.to_host()?))
    }
}

/// The losses of logits [n, classes], and the way back from their mean.
fn go_back<A: Activation>(
    gpu: &Gpu,
    logits: &Flow<A>,
    course: &Course<'_, A>,
    labels: &Vector<u32>,
    smoothing: f64,
) -> Result<Vector<f64>, ModelError> {
    let (losses, dx) = loss::cross_entropy(&logits.values.buffer, labels, smoothing, 1.0 / labels.len() as f64)?;
    let x = logits.values.clone();
    let end = course.tape.of_one("cross-entropy", logits, Dims::matrix(1, 1), gpu.zeros(1)?, || {
        Box::new(move |_: &Values<Vector<A>>, _| x.add_gradient(dx)) as Backward<Vector<A>>
    })?;
    // The derivative of the loss by itself: its factor is in the gradient already.
    Vector::<A>::settled(end.values.add_gradient(gpu.zeros(1)?))?;
    end.token().backward()?;
    Ok(losses)
}

#[cfg(test)]
mod tests;
