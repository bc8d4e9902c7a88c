//! Both routes find the same, and second derivatives are exact.

use strath_core::config::NormLayer;
use strath_core::random::{Purpose, Stream};

use super::*;
use crate::layer::with_graph_kept;

const SHAPE: ImageShape = ImageShape { channels: 2, height: 8, width: 8 };
const EXAMPLES: usize = 6;

pub(crate) struct Setting {
    pub(crate) model: Model,
    pub(crate) weights: Vec<f32>,
    pub(crate) images: Vec<f32>,
    pub(crate) labels: Vec<u32>,
}

impl Setting {
    pub(crate) fn new(kind: &ModelKind) -> Self {
        let model = Model::build(kind, SHAPE, 5, Method::Auto).unwrap();
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

    fn hessian_times(&self, v: &[f32]) -> Vec<f32> {
        self.hessian_times_by(Normalise::ByBatch, v)
    }

    fn hessian_times_by(&self, by: Normalise<'_>, v: &[f32]) -> Vec<f32> {
        let (weights, v) = (Arc::new(self.weights.clone()), Arc::new(v.to_vec()));
        self.model.hessian_times(&weights, &self.images, &self.labels, 0.1, by, &v).unwrap()
    }

    /// Norms and biases that are not 1 and 0, as after some steps.
    pub(crate) fn stirred(mut self) -> Self {
        let mut stream = Stream::new(9, Purpose::Probe);
        self.weights.iter_mut().for_each(|w| *w += 0.05 * stream.normal());
        self
    }

    fn gradient_at(&self, moved: f32, along: &[f32]) -> Vec<f32> {
        let weights: Vec<f32> = self.weights.iter().zip(along).map(|(w, v)| w + moved * v).collect();
        let mut gradient = vec![0.0; weights.len()];
        self.model.gradient(&Arc::new(weights), &self.images, &self.labels, 0.1, &mut gradient).unwrap();
        gradient
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

pub(crate) fn length(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}

fn vit() -> ModelKind {
    ModelKind::ViT { patch: 4, dim: 12, depth: 2, heads: 3, mlp_ratio: 2 }
}

pub(crate) fn kinds() -> Vec<ModelKind> {
    vec![
        ModelKind::Mlp { hidden: vec![9] },
        ModelKind::ConvNet { widths: vec![5, 7], norm: NormLayer::Batch },
        ModelKind::ResNet { depth: 8, skip: true, norm: NormLayer::Batch },
        ModelKind::ResNet { depth: 8, skip: false, norm: NormLayer::Batch },
        ModelKind::WideResNet { depth: 10, widen: 1, norm: NormLayer::Batch },
        ModelKind::ConvNet { widths: vec![5, 12], norm: NormLayer::Group },
        ModelKind::ResNet { depth: 8, skip: true, norm: NormLayer::Group },
        ModelKind::ResNet { depth: 8, skip: false, norm: NormLayer::Group },
        ModelKind::WideResNet { depth: 10, widen: 1, norm: NormLayer::Group },
        ModelKind::ConvNet { widths: vec![5, 7], norm: NormLayer::None },
        ModelKind::ResNet { depth: 8, skip: true, norm: NormLayer::None },
        ModelKind::ResNet { depth: 8, skip: false, norm: NormLayer::None },
        ModelKind::WideResNet { depth: 10, widen: 1, norm: NormLayer::None },
        vit(),
    ]
}

#[test]
fn both_routes_find_the_same_loss_gradient_and_statistics_in_training_and_in_evaluation() {
    for kind in kinds() {
        let setting = Setting::new(&kind);
        let Setting { model, weights, images, labels } = &setting;
        let running: Vec<f32> = (1..=model.statistics.len()).map(|at| 0.3 + (at % 7) as f32 / 7.0).collect();
        for by in [Normalise::ByBatch, Normalise::ByRunning(&running)] {
            let mut gradient = vec![0.0; weights.len()];
            let shared = Arc::new(weights.clone());
            let report = model.gradient_by(&shared, images, labels, 0.1, by, &mut gradient).unwrap();
            let phase = match by {
                Normalise::ByBatch => Phase::Training(RefCell::default()),
                Normalise::ByRunning(running) => Phase::Evaluation(&model.statistics, running),
            };
            let pass = Pass::new(&model.parameters, weights, phase).unwrap();
            let logits = model.network.forward(model.images(images, EXAMPLES).unwrap(), &pass).unwrap();
            let (objective, loss) = layer::cross_entropy(&logits, labels, 0.1).unwrap();
            let grads = objective.backward().unwrap();
            let mut other = vec![0.0; weights.len()];
            for (entry, parameter) in model.parameters.entries().iter().zip(pass.parameters()) {
                copy(&grads.get(parameter).unwrap().contiguous().unwrap(), &mut other[entry.range()]).unwrap();
            }
            assert!((report.loss - loss).abs() < 1e-5, "{kind:?}: {} against {loss}", report.loss);
            if matches!(by, Normalise::ByBatch) {
                let alone = model.loss(&shared, images, labels, 0.1).unwrap();
                assert_eq!(alone.to_bits(), report.loss.to_bits(), "{kind:?}: a forward alone finds the same loss");
            }
            let difference: Vec<f32> = gradient.iter().zip(&other).map(|(a, b)| a - b).collect();
            let off = length(&difference) / length(&other);
            assert!(off < 1e-5, "{kind:?} {by:?}: the gradients are {off:.1e} apart");
            let collected = match pass.phase {
                Phase::Training(collected) => collected.into_inner(),
                Phase::Evaluation(..) => Vec::new(),
            };
            let statistics = model.flat_statistics(&collected);
            assert!(report.statistics.iter().zip(&statistics).all(|(a, b)| (a - b).abs() < 1e-4), "{kind:?}");
        }
    }
}

#[test]
fn the_first_of_equal_logits_is_the_answer() {
    let correct: Vec<bool> =
        scores(3, &[1.0, 1.0, 0.0, 0.0, 2.0, 2.0], &[0, 2]).iter().map(|score| score.correct).collect();
    assert_eq!(correct, [true, false]);
}

#[test]
fn products_with_the_hessian_are_those_of_the_graph_differentiated_twice() {
    with_graph_kept("model::tests::products_with_the_hessian_are_those_of_the_graph_differentiated_twice", || {
        for kind in kinds() {
            let setting = Setting::new(&kind).stirred();
            let Setting { model, weights, images, labels } = &setting;
            let running: Vec<f32> = (1..=model.statistics.len()).map(|at| 0.3 + (at % 7) as f32 / 7.0).collect();
            for by in [Normalise::ByBatch, Normalise::ByRunning(&running)] {
                let v = setting.direction(6);
                let got = setting.hessian_times_by(by, &v);
                let want = model.hessian_times_by_graph(weights, images, labels, 0.1, by, &v).unwrap();
                for entry in model.parameters.entries() {
                    let (got, want) = (&got[entry.range()], &want[entry.range()]);
                    let difference: Vec<f32> = got.iter().zip(want).map(|(a, b)| a - b).collect();
                    // A bias that batch norm takes out again has none but rounding.
                    let size = length(want).max(1e-3);
                    let off = length(&difference) / size;
                    assert!(off < 2e-4, "{kind:?} {by:?} {}: {off:.1e} apart", entry.name);
                }
            }
        }
    });
}

#[test]
fn the_hessian_of_a_smooth_network_is_the_slope_of_its_gradient() {
    let setting = Setting::new(&vit());
    let v = setting.direction(3);
    let product = setting.hessian_times(&v);
    let (ahead, behind) = (setting.gradient_at(1e-4, &v), setting.gradient_at(-1e-4, &v));
    let slope: Vec<f32> = ahead.iter().zip(&behind).map(|(a, b)| (a - b) / 2e-4).collect();
    let difference: Vec<f32> = slope.iter().zip(&product).map(|(s, p)| s - p).collect();
    assert!(length(&difference) < 5e-4 * length(&product), "{} of {}", length(&difference), length(&product));
}

#[test]
fn the_hessian_of_every_network_is_symmetric() {
    // A factor that wrongly counts as constant in the second derivative breaks the symmetry; and where ReLU has kinks, slopes
    // of the gradient cannot be measured.
    for kind in kinds() {
        let setting = Setting::new(&kind);
        let (u, v) = (setting.direction(4), setting.direction(5));
        let (hu, hv) = (setting.hessian_times(&u), setting.hessian_times(&v));
        let (one, other) = (dot(&u, &hv), dot(&v, &hu));
        assert!((one - other).abs() < 1e-4 * length(&u) * length(&hv), "{kind:?}: {one} against {other}");
        assert!(length(&hv) > 1e-2 * length(&v), "{kind:?}: the Hessian is not zero");
    }
}
/// Logistic regression: with p the softmax of the logits, the Hessian in the weights of classes a and b is
/// `mean (p_a [a = b] - p_a p_b) x x'`, and alike in the biases with 1 in the place of x.
#[test]
fn the_hessian_of_logistic_regression_is_its_closed_form() {
    let setting = Setting::new(&ModelKind::Mlp { hidden: Vec::new() });
    let Setting { model, weights, images, .. } = &setting;
    let (inputs, classes) = (SHAPE.values(), 5);
    let place = |name: &str| model.parameters.get(name).unwrap().range();
    let (bias, weight) = (place("layers.0.bias"), place("layers.0.weight"));
    let v = setting.direction(3);
    let wide = |values: &[f32], range: &std::ops::Range<usize>, at: usize| f64::from(values[range.start + at]);
    let mut want = vec![0.0; v.len()];
    for x in images.chunks_exact(inputs) {
        let applied = |values: &[f32], class: usize| {
            let row = (0..inputs).map(|i| wide(values, &weight, class * inputs + i) * f64::from(x[i]));
            row.sum::<f64>() + wide(values, &bias, class)
        };
        let powers: Vec<f64> = (0..classes).map(|class| applied(weights, class).exp()).collect();
        let p: Vec<f64> = powers.iter().map(|power| power / powers.iter().sum::<f64>()).collect();
        let along: Vec<f64> = (0..classes).map(|class| applied(&v, class)).collect();
        let mean: f64 = p.iter().zip(&along).map(|(p, a)| p * a).sum();
        for class in 0..classes {
            let slope = p[class] * (along[class] - mean) / EXAMPLES as f64;
            want[bias.start + class] += slope;
            (0..inputs).for_each(|i| want[weight.start + class * inputs + i] += slope * f64::from(x[i]));
        }
    }
    let product = setting.hessian_times(&v);
    let size = want.iter().fold(0.0, |most: f64, w| most.max(w.abs()));
    let apart = product.iter().zip(&want).fold(0.0, |most: f64, (p, w)| most.max((f64::from(*p) - w).abs()));
    assert!(apart < 1e-6 * size, "{apart} of {size}");
}
