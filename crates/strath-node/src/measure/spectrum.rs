//! The spectrum of the Hessian of the mean loss, by exact products with vectors.

use std::sync::Arc;

use serde_json::{Value, json};
use strath_core::Layout;
use strath_kernels::vector;
use strath_model::Work;
use strath_sam::directions::{gaussian, signs};
use strath_sam::lanczos::{Found, LanczosError, Search, quadrature};
use strath_sam::mean_and_error;

use super::MeasureError;
use super::ranks::Ranks;
use super::spec::{Norms, SpectrumOf};
use super::subject::{Point, Subject};

/// Floating-point operations of a gradient's pass over the examples of one product: what a pass keeps is to stay in the caches, yet every
/// product of a block walks over all weights.
const OPERATIONS: f64 = 2e8;
/// A pair has converged when its residual is at most so much of its eigenvalue.
const TOLERANCE: f64 = 1e-3;
/// The search gives up after so many products.
const MOST_PRODUCTS: u64 = 5000;

/// The Hessian of the mean loss over the subject's examples, at a point.
struct Hessian<'a, 'b, 'c> {
    subject: &'a Subject<'b>,
    point: &'a Point,
    ranks: &'a mut Ranks<'c>,
    /// Examples of one product.
    block: usize,
    products: u64,
}

impl Hessian<'_, '_, '_> {
    /// Its product with a vector: the gradient of `<gradient, v>`, summed over all ranks' blocks.
    fn times(&mut self, v: &[f32]) -> Result<Vec<f32>, MeasureError> {
        let Self { subject, point, .. } = *self;
        let (size, examples) = (self.block, subject.examples);
        let blocks = examples.div_ceil(size);
        let direction = Arc::new(v.to_vec());
        let product = self.ranks.vector(blocks, v.len(), |_, at, _| {
            let here = at * size..examples.min((at + 1) * size);
            let weight = here.len() as f64 / examples as f64;
            let batch = subject.loader.evaluation(subject.split, here);
            let by = subject.by(&point.statistics);
            let product =
                subject.model.hessian_times(&point.weights, &batch.images, &batch.labels, 0.0, by, &direction)?;
            Ok((product, weight))
        })?;
        self.products += 1;
        // How many it will take is not known before.
        self.ranks.advance(self.products, 0);
        Ok(product)
    }
}

/// Measures it.
pub(super) fn measure(
    of: &SpectrumOf,
    subject: &Subject<'_>,
    point: &Point,
    seed: u64,
    ranks: &mut Ranks<'_>,
) -> Result<Value, MeasureError> {
    let layout: &Layout = subject.model.parameters();
    let flops: f64 = subject.model.work(1)?.iter().map(Work::pass_flops).sum();
    // Batch norm by the batch sees its own groups.
    let block = match subject.norms {
        Norms::Batch => subject.group,
        Norms::Running | Norms::Recomputed => ((OPERATIONS / flops) as usize).clamp(8, 128),
    };
    let mut hessian = Hessian { subject, point, ranks, block, products: 0 };
    let (trace, trace_stderr) = trace(of.trace_samples, layout, seed, &mut hessian)?;
    let search = Search { wanted: of.top, tolerance: TOLERANCE, most_products: MOST_PRODUCTS };
    let start = |at: u64| gaussian(layout, seed, &format!("lanczos/{at}"));
    let found = search.largest(layout.len(), start, |v| hessian.times(v)).map_err(|error| match error {
        LanczosError::Product(error) => error,
        error @ LanczosError::NotConverged { .. } => MeasureError::Undecided(error.to_string()),
    })?;
    let density = density(of, layout, seed, &mut hessian)?;
    let Found { pairs, starts, .. } = found;
    let values: Vec<f64> = pairs.iter().map(|pair| pair.value).collect();
    let ratio = values.get(4).filter(|fifth| **fifth != 0.0).map(|fifth| values[0] / fifth);
    Ok(json!({
        "eigenvalues": values,
        "residuals": pairs.iter().map(|pair| pair.residual).collect::<Vec<f64>>(),
        "ratio_1_5": ratio, "trace": trace, "trace_stderr": trace_stderr, "trace_samples": of.trace_samples,
        "products": hessian.products, "starts": starts, "parameters": layout.len(),
        "density": (of.density_samples > 0).then_some(density),
    }))
}

/// The trace and its standard error (Hutchinson 1990): the mean of `z' H z` over random signs z. `None` without samples, and the error with one.
fn trace(
    samples: usize,
    layout: &Layout,
    seed: u64,
    hessian: &mut Hessian<'_, '_, '_>,
) -> Result<(Option<f64>, Option<f64>), MeasureError> {
    let mut forms = Vec::with_capacity(samples);
    for at in 0..samples {
        let z = signs(layout, seed, &format!("trace/{at}"));
        forms.push(vector::dot(&z, &hessian.times(&z)?));
    }
    let (mean, error) = mean_and_error(&forms);
    Ok(((samples > 0).then_some(mean), error))
}

/// The spectral density by stochastic Lanczos quadrature (Ghorbani, Krishnan and Xiao, ICML 2019): nodes with weights that sum to 1, those of all random
/// starts together, ascending.
fn density(
    of: &SpectrumOf,
    layout: &Layout,
    seed: u64,
    hessian: &mut Hessian<'_, '_, '_>,
) -> Result<Vec<[f64; 2]>, MeasureError> {
    let mut nodes = Vec::new();
    for at in 0..of.density_samples {
        let start = signs(layout, seed, &format!("density/{at}"));
        let found = quadrature(start, of.density_steps, |v| hessian.times(v))?;
        nodes.extend(found.into_iter().map(|(node, weight)| [node, weight / of.density_samples as f64]));
    }
    nodes.sort_by(|a, b| a[0].total_cmp(&b[0]));
    Ok(nodes)
}
