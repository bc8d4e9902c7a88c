//! Time of an exact product with the Hessian over that of a gradient of the same examples, on one thread, in turns.
//!
//! ```text
//! cargo run --release -p strath-model --example hessian [-- EXAMPLES]
//! ```

use std::sync::Arc;
use std::time::Instant;

use strath_core::ImageShape;
use strath_core::config::{ModelKind, NormLayer};
use strath_core::random::{Purpose, Stream};
use strath_model::{Method, Model, ModelError, Normalise};

/// The binary's allocator: the system's pays for fresh pages in each pass.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TURNS: usize = 15;

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn main() -> Result<(), ModelError> {
    let examples: usize = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(64);
    let shape = ImageShape { channels: 1, height: 28, width: 28 };
    for (name, kind) in [
        ("mlp 256-256", ModelKind::Mlp { hidden: vec![256, 256] }),
        ("convnet 16-32-64", ModelKind::ConvNet { widths: vec![16, 32, 64], norm: NormLayer::Batch }),
        ("resnet 20", ModelKind::ResNet { depth: 20, skip: true, norm: NormLayer::Batch }),
        ("convnet, group", ModelKind::ConvNet { widths: vec![16, 32, 64], norm: NormLayer::Group }),
        ("resnet 20, none", ModelKind::ResNet { depth: 20, skip: false, norm: NormLayer::None }),
        ("vit 4, 64, 2", ModelKind::ViT { patch: 4, dim: 64, depth: 2, heads: 2, mlp_ratio: 2 }),
    ] {
        let model = Model::build(&kind, shape, 10, Method::Auto)?;
        let mut stream = Stream::new(0, Purpose::Probe);
        let images: Vec<f32> = (0..examples * shape.values()).map(|_| stream.normal()).collect();
        let labels: Vec<u32> = (0..examples).map(|_| stream.below(10) as u32).collect();
        let (weights, statistics) = (Arc::new(model.initial(0)), model.initial_statistics());
        let by = Normalise::ByRunning(&statistics);
        let mut gradient = vec![0.0; weights.len()];
        let direction = Arc::new(model.initial(1));
        let (mut gradients, mut products) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            let began = Instant::now();
            model.gradient_by(&weights, &images, &labels, 0.0, by, &mut gradient)?;
            gradients.push(began.elapsed().as_secs_f64());
            let began = Instant::now();
            model.hessian_times(&weights, &images, &labels, 0.0, by, &direction)?;
            products.push(began.elapsed().as_secs_f64());
        }
        let (gradient, product) = (median(gradients), median(products));
        println!(
            "{name:18} gradient {:7.2} ms, product {:7.2} ms, ratio {:.2}",
            1e3 * gradient,
            1e3 * product,
            product / gradient
        );
    }
    Ok(())
}
