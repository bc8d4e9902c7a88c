//! A small computation whose bits tell machines apart that compute differently.

use std::sync::Arc;

use strath_core::config::{ModelKind, NormLayer};
use strath_core::digest::Hasher;
use strath_core::random::{Purpose, Stream};
use strath_core::{Digest, ImageShape};
use strath_cuda::Gpu;
use strath_kernels::conv::Method;

use crate::error::ModelError;
use crate::model::Model;

/// Digest of the losses and gradients of two small networks, a convolutional and a transformer, on fixed inputs: equal on
/// machines, or GPUs, whose kernels give equal bits.
///
/// # Errors
/// [`ModelError`] from the computation.
pub fn numerics_fingerprint(gpu: Option<&Gpu>) -> Result<Digest, ModelError> {
    let shape = ImageShape { channels: 3, height: 12, width: 12 };
    let resnet = ModelKind::ResNet { depth: 8, skip: true, norm: NormLayer::Batch };
    let vit = ModelKind::ViT { patch: 4, dim: 24, depth: 1, heads: 3, mlp_ratio: 2 };
    let mut stream = Stream::new(0, Purpose::Probe);
    let images: Vec<f32> = (0..9 * shape.values()).map(|_| stream.normal()).collect();
    let labels: Vec<u32> = (0..9).map(|_| stream.below(10) as u32).collect();
    let mut hasher = Hasher::new();
    for kind in [resnet, vit] {
        let model = Model::build(&kind, shape, 10, Method::Auto)?.on(gpu.cloned());
        let mut gradient = vec![0.0; model.parameters().len()];
        let report = model.gradient(&Arc::new(model.initial(0)), &images, &labels, 0.1, &mut gradient)?;
        hasher.bytes(&report.loss.to_le_bytes()).floats(&gradient).floats(&report.statistics);
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_repeats_and_does_not_depend_on_threads() {
        let once = numerics_fingerprint(None).unwrap();
        strath_kernels::threads::set(3);
        let again = numerics_fingerprint(None).unwrap();
        strath_kernels::threads::set(1);
        assert_eq!(once, again);
    }
}
