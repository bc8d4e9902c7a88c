//! A network with the layout of its tensors: the gradient oracle of a training step.

use std::cell::RefCell;

use candle_core::{Device, Storage, Tensor};
use strath_core::config::ModelKind;
use strath_core::{ImageShape, Layout};

use crate::error::ModelError;
use crate::init::{Declarations, Declared};
use crate::layer::{cross_entropy, scores};
use crate::pass::{Collected, Pass, Phase};
use crate::registry::Network;

/// How far running statistics move towards a batch's in one step, in PyTorch's sense of momentum.
pub const BATCH_NORM_MOMENTUM: f64 = 0.1;

/// A built-in network for images of one shape.
#[derive(Debug, Clone)]
pub struct Model {
    network: Network,
    shape: ImageShape,
    parameters: Layout,
    statistics: Layout,
    /// As declared, in the order of `parameters`.
    declared: Vec<Declared>,
    batch_norms: Vec<(String, usize, usize)>,
}

/// What a forward and backward pass found.
#[derive(Debug, Clone, PartialEq)]
pub struct PassReport {
    /// Mean cross-entropy over the examples, smoothed as asked.
    pub loss: f64,
    /// The batch's means and unbiased variances, flat in the layout of the running statistics.
    pub statistics: Vec<f32>,
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
    /// The network of `kind` for images of `shape` and `classes` classes.
    ///
    /// # Errors
    /// [`ModelError`] where the options or the images do not fit the network.
    pub fn build(kind: &ModelKind, shape: ImageShape, classes: usize) -> Result<Self, ModelError> {
        let mut tensors = Declarations::default();
        let network = Network::build(kind, shape, classes, &mut tensors)?;
        let Declarations { parameters: mut declared, batch_norms } = tensors;
        declared.sort_by(|a, b| a.name.cmp(&b.name));
        let parameters = Layout::new(declared.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())))?;
        let running = |(prefix, channels, _): &(String, usize, usize)| {
            ["running_mean", "running_var"].map(|name| (format!("{prefix}.{name}"), vec![*channels]))
        };
        let statistics = Layout::new(batch_norms.iter().flat_map(running))?;
        Ok(Self { network, shape, parameters, statistics, declared, batch_norms })
    }

    /// The trainable tensors, under PyTorch's names.
    pub fn parameters(&self) -> &Layout {
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
    /// that batch norm sees this batch. A loss that is not finite is returned as it is.
    ///
    /// # Errors
    /// [`ModelError::Length`] for a vector of another length than the model's, and the tensor library's errors.
    pub fn gradient(
        &self,
        weights: &[f32],
        images: &[f32],
        labels: &[u32],
        label_smoothing: f64,
        gradient: &mut [f32],
    ) -> Result<PassReport, ModelError> {
        expect("weights", weights.len(), self.parameters.len())?;
        expect("gradient", gradient.len(), self.parameters.len())?;
        let pass = Pass::new(&self.parameters, weights, Phase::Training(RefCell::default()))?;
        let logits = self.network.forward(&self.input(images, labels.len())?, &pass)?;
        let (objective, loss) = cross_entropy(&logits, labels, label_smoothing)?;
        let mut grads = objective.backward()?;
        for (entry, parameter) in self.parameters.entries().iter().zip(pass.parameters()) {
            let found = grads.remove(parameter).ok_or_else(|| ModelError::NoGradient { name: entry.name.clone() })?;
            copy(&found.contiguous()?, &mut gradient[entry.range()])?;
        }
        let Phase::Training(collected) = pass.phase else { unreachable!("the phase was chosen above") };
        Ok(PassReport { loss, statistics: self.flat_statistics(&collected.into_inner()) })
    }

    /// The score of each of images `[n, C, H, W]` with labels `[n]`; evaluation phase, so that batch norm takes `statistics`.
    ///
    /// # Errors
    /// [`ModelError::Length`] for a vector of another length than the model's, and the tensor library's errors.
    pub fn evaluate(
        &self,
        weights: &[f32],
        statistics: &[f32],
        images: &[f32],
        labels: &[u32],
    ) -> Result<Vec<Score>, ModelError> {
        expect("weights", weights.len(), self.parameters.len())?;
        expect("statistics", statistics.len(), self.statistics.len())?;
        let pass = Pass::new(&self.parameters, weights, Phase::Evaluation(&self.statistics, statistics))?;
        let logits = self.network.forward(&self.input(images, labels.len())?, &pass)?;
        Ok(scores(&logits, labels)?)
    }

    fn input(&self, images: &[f32], count: usize) -> Result<Tensor, ModelError> {
        expect("images", images.len(), count * self.shape.values())?;
        let ImageShape { channels, height, width } = self.shape;
        Ok(Tensor::from_slice(images, (count, channels, height, width), &Device::Cpu)?)
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

fn expect(what: &'static str, found: usize, expected: usize) -> Result<(), ModelError> {
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
mod tests {
    use strath_core::random::{Purpose, Stream};

    use super::*;
    use crate::layer::with_graph_kept;

    const SHAPE: ImageShape = ImageShape { channels: 2, height: 8, width: 8 };
    const EXAMPLES: usize = 6;

    struct Setting {
        model: Model,
        weights: Vec<f32>,
        images: Vec<f32>,
        labels: Vec<u32>,
    }

    impl Setting {
        fn new(kind: &ModelKind) -> Self {
            let model = Model::build(kind, SHAPE, 5).unwrap();
            let weights = model.initial(1);
            let mut stream = Stream::new(2, Purpose::Probe);
            let images = (0..EXAMPLES * SHAPE.values()).map(|_| stream.normal()).collect();
            let labels = (0..EXAMPLES).map(|_| stream.below(5) as u32).collect();
            Self { model, weights, images, labels }
        }

        fn direction(&self, seed: u64) -> Vec<f32> {
            let mut stream = Stream::new(seed, Purpose::Probe);
            (0..self.weights.len()).map(|_| stream.normal()).collect()
        }

        /// The Hessian of the loss times v: the gradient of <gradient, v>.
        fn hessian_times(&self, v: &[f32]) -> Vec<f32> {
            let layout = &self.model.parameters;
            let pass = Pass::new(layout, &self.weights, Phase::Training(RefCell::default())).unwrap();
            let logits = self.model.network.forward(&self.model.input(&self.images, EXAMPLES).unwrap(), &pass).unwrap();
            let grads = cross_entropy(&logits, &self.labels, 0.1).unwrap().0.backward().unwrap();
            let along = layout.entries().iter().zip(pass.parameters()).map(|(entry, parameter)| {
                let v = Tensor::from_slice(&v[entry.range()], entry.shape.clone(), &Device::Cpu).unwrap();
                (grads.get(parameter).unwrap() * v).unwrap().sum_all().unwrap()
            });
            let along = along.reduce(|sum, term| (sum + term).unwrap()).unwrap();
            let seconds = along.backward().unwrap();
            let mut product = vec![0.0; layout.len()];
            for (entry, parameter) in layout.entries().iter().zip(pass.parameters()) {
                copy(&seconds.get(parameter).unwrap().contiguous().unwrap(), &mut product[entry.range()]).unwrap();
            }
            product
        }

        fn gradient_at(&self, moved: f32, along: &[f32]) -> Vec<f32> {
            let weights: Vec<f32> = self.weights.iter().zip(along).map(|(w, v)| w + moved * v).collect();
            let mut gradient = vec![0.0; weights.len()];
            self.model.gradient(&weights, &self.images, &self.labels, 0.1, &mut gradient).unwrap();
            gradient
        }
    }

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    fn length(a: &[f32]) -> f64 {
        dot(a, a).sqrt()
    }

    fn vit() -> ModelKind {
        ModelKind::ViT { patch: 4, dim: 12, depth: 2, heads: 3, mlp_ratio: 2 }
    }

    #[test]
    fn the_hessian_of_a_smooth_network_is_the_slope_of_its_gradient() {
        with_graph_kept("model::tests::the_hessian_of_a_smooth_network_is_the_slope_of_its_gradient", || {
            let setting = Setting::new(&vit());
            let v = setting.direction(3);
            let product = setting.hessian_times(&v);
            let (ahead, behind) = (setting.gradient_at(1e-4, &v), setting.gradient_at(-1e-4, &v));
            let slope: Vec<f32> = ahead.iter().zip(&behind).map(|(a, b)| (a - b) / 2e-4).collect();
            let difference: Vec<f32> = slope.iter().zip(&product).map(|(s, p)| s - p).collect();
            assert!(length(&difference) < 5e-4 * length(&product), "{} of {}", length(&difference), length(&product));
        });
    }

    #[test]
    fn the_hessian_of_every_network_is_symmetric() {
        // A factor that wrongly counts as constant in the second derivative breaks the symmetry; and where ReLU has kinks, slopes
        // of the gradient cannot be measured.
        with_graph_kept("model::tests::the_hessian_of_every_network_is_symmetric", || {
            for kind in [
                ModelKind::Mlp { hidden: vec![9] },
                ModelKind::ConvNet { widths: vec![5, 7] },
                ModelKind::ResNet { depth: 8, skip: true },
                ModelKind::ResNet { depth: 8, skip: false },
                ModelKind::WideResNet { depth: 10, widen: 1 },
                vit(),
            ] {
                let setting = Setting::new(&kind);
                let (u, v) = (setting.direction(4), setting.direction(5));
                let (hu, hv) = (setting.hessian_times(&u), setting.hessian_times(&v));
                let (one, other) = (dot(&u, &hv), dot(&v, &hu));
                assert!((one - other).abs() < 1e-4 * length(&u) * length(&hv), "{kind:?}: {one} against {other}");
                assert!(length(&hv) > 1e-2 * length(&v), "{kind:?}: the Hessian is not zero");
            }
        });
    }
}
