//! The lift of a run's first batch: what makes balls of different norms, directions and lanes comparable before a step is taken.

use std::sync::Arc;

use strath_core::config::{Config, WeightDecay};
use strath_core::fixed::OutOfRange;
use strath_core::plan::PlanError;
use strath_data::{Dataset, Loader};
use strath_kernels::vector;
use strath_model::{Model, ModelError, convolution_method};
use strath_sam::{NothingToPerturb, Perturbation};

use crate::sums::HostSum;

/// Why there is no lift.
#[derive(Debug, thiserror::Error)]
pub enum LiftError {
    /// The batch cannot be cut as asked.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The network cannot be built, or not with this data.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The perturbed set is empty.
    #[error(transparent)]
    Nothing(#[from] NothingToPerturb),
    /// A gradient without a finite length.
    #[error("the gradient at the initial weights is not finite; look at the data, or at the labels")]
    NotFinite,
}

impl From<OutOfRange> for LiftError {
    fn from(_: OutOfRange) -> Self {
        Self::NotFinite
    }
}

/// What the epsilons of the first batch add to the linearised loss: the mean over lanes, each weighted by its examples, of
/// `rho_v ||t g_v||_q` (Foret et al. 2021, equation 2) at the initial weights, in nats. It is proportional to `sam.rho`, and the same for
/// the gradient's direction and a random one, which the radius alone describes.
///
/// The examples, their augmentation, the weights and the order of the sums are those of the run's first step, whatever the workers.
///
/// # Errors
/// [`LiftError`].
pub fn first_lift(config: &Config, dataset: &Arc<Dataset>) -> Result<f64, LiftError> {
    let plan = config.plan()?;
    let method = convolution_method(config.model.convolution);
    let model = Model::build(&config.model.kind, dataset.shape(), dataset.classes(), method)?;
    let perturbation = Perturbation::new(&config.sam, model.parameters(), &model.of_norms())?;
    let (seed, shuffle, augment) = (config.run.seed, config.data.shuffle, config.data.augment.clone());
    let mut loader = Loader::new(dataset.clone(), plan.batch(), seed, shuffle, augment);
    let weights: Arc<Vec<f32>> = model.initial(seed).into();
    let mut lifted = vec![0.0; weights.len()];
    let mut mean = 0.0;
    for lane in plan.lanes() {
        let mut sum = HostSum::new(config.cluster.reduce, lane.micro_batches.len(), weights.len());
        for micro in &plan.micro_batches()[lane.micro_batches.clone()] {
            let batch = loader.micro_batch(0, micro.start..micro.start + micro.size);
            let mut gradient = sum.spent().unwrap_or_else(|| vec![0.0; weights.len()]);
            let smoothing = config.loss.label_smoothing;
            model.gradient(&weights, &batch.images, &batch.labels, smoothing, &mut gradient)?;
            sum.add(gradient, micro.size as f64 / lane.size as f64)?;
        }
        let mut gradient = sum.finish();
        if config.sam.weight_decay == WeightDecay::Inside {
            vector::add_scaled(&mut gradient, &weights, config.optimizer.weight_decay as f32);
        }
        let lift = perturbation.lift(&gradient, &weights, &mut lifted);
        mean += lane.size as f64 / plan.batch() as f64 * config.sam.radius(lane.size) * lift.dual_norm;
    }
    Ok(mean)
}

#[cfg(test)]
mod tests {
    use strath_core::config::Layers;

    use super::*;

    fn lift(changes: &[&str]) -> f64 {
        let text = "[run]\nepochs = 1\n[data]\nkind = \"digits\"\n[model]\nkind = \"mlp\"\nhidden = [8]\n[batch]\nsize = 32\n[sam]\nrho = 0.1\nm = 8\n[optimizer]\nlr = 0.1\n";
        let here = std::path::Path::new("/");
        let layers = Layers::new().file(text, "test", here).unwrap();
        let layers = changes.iter().try_fold(layers, |layers, change| layers.set(change, here)).unwrap();
        let config = layers.resolve().unwrap().config;
        let dataset = Arc::new(Dataset::load(&config.data, config.run.seed).unwrap());
        first_lift(&config, &dataset).unwrap()
    }

    #[test]
    fn it_grows_with_the_radius_and_with_smaller_lanes() {
        let of = |m: &str, rho: &str| lift(&[m, rho]);
        let (whole, eighth) = (of("sam.m=32", "sam.rho=0.1"), of("sam.m=4", "sam.rho=0.1"));
        assert!((of("sam.m=32", "sam.rho=0.3") / whole - 3.0).abs() < 1e-12);
        assert!(eighth > 1.2 * whole, "{eighth} {whole}");
        assert_eq!(lift(&["sam.rho=0"]), 0.0);
    }

    #[test]
    fn it_does_not_depend_on_how_a_lane_is_cut_nor_on_the_direction() {
        let whole = lift(&[]);
        assert!((lift(&["batch.micro=2"]) / whole - 1.0).abs() < 1e-6, "an mlp has no batch norm");
        assert_eq!(lift(&["sam.direction=random"]), whole);
    }

    #[test]
    fn norms_are_ordered_as_their_duals_are() {
        // ||g||_1 >= ||g||_2 >= ||g||_inf, the duals of p = inf, 2 and 1.
        let [inf, two, one] = ["sam.norm=inf", "sam.norm=2", "sam.norm=1"].map(|norm| lift(&[norm]));
        assert!(inf > two && two > one, "{inf} {two} {one}");
    }

    #[test]
    fn unequal_lanes_count_by_their_examples_and_have_their_own_radius() {
        let parts = [lift(&["sam.m=[16, 16]"]), lift(&["sam.m=16"])];
        assert_eq!(parts[0], parts[1]);
        let ruled = lift(&["sam.m=8", "sam.rho_rule=sqrt-m", "sam.m_ref=32"]);
        assert!((ruled / lift(&["sam.m=8"]) - 0.5).abs() < 1e-12);
    }
}
