//! Images a second of forward and backward passes of ResNet-20 on 1 x 28 x 28 images, batch 64, on one thread.
//!
//! `CANDLE_NUM_THREADS=1 cargo run --release -p strath-model --example throughput`

use std::sync::Arc;
use std::time::Instant;

use strath_core::ImageShape;
use strath_core::config::{ModelKind, NormLayer};
use strath_core::random::{Purpose, Stream};
use strath_model::{Method, Model, ModelError};

/// The binary's allocator: the system's pays for fresh pages in each pass.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 64;
/// Short bursts: on a shared machine the others' work slows some of them.
const BURSTS: usize = 20;
const PASSES: usize = 3;

fn main() -> Result<(), ModelError> {
    let shape = ImageShape { channels: 1, height: 28, width: 28 };
    let model =
        Model::build(&ModelKind::ResNet { depth: 20, skip: true, norm: NormLayer::Batch }, shape, 10, Method::Auto)?;
    let mut stream = Stream::new(0, Purpose::Probe);
    let images: Vec<f32> = (0..BATCH * shape.values()).map(|_| stream.normal()).collect();
    let labels: Vec<u32> = (0..BATCH).map(|_| stream.below(10) as u32).collect();
    let weights = Arc::new(model.initial(0));
    let mut gradient = vec![0.0; weights.len()];
    let mut speeds = Vec::with_capacity(BURSTS);
    for _ in 0..BURSTS {
        let began = Instant::now();
        for _ in 0..PASSES {
            model.gradient(&weights, &images, &labels, 0.0, &mut gradient)?;
        }
        speeds.push((BATCH * PASSES) as f64 / began.elapsed().as_secs_f64());
    }
    speeds.sort_by(f64::total_cmp);
    let (median, best) = (speeds[BURSTS / 2], speeds[BURSTS - 1]);
    println!("images/s: {median:.0} median, {best:.0} best of {BURSTS} bursts of {PASSES} passes");
    Ok(())
}
