//! The kernels of a GPU that memory bounds, by the bytes that they move beside those of a copy.

use strath_cuda::lanes::{self, Outside, Terms};
use strath_cuda::layers::norm::{self, Affine};
use strath_cuda::layers::pointwise::Follows;
use strath_cuda::{Activation, Gpu, GpuError, Number, Vector, bf16};
use strath_kernels::vector::Momentum;
use strath_model::Work;

use super::super::peaks::Peaks;
use super::{burst, filled};

/// A kernel, or those that follow each other for one thing.
pub struct Traffic {
    /// What it does.
    pub what: &'static str,
    /// Values that it goes over.
    pub values: usize,
    /// Microseconds.
    pub us: f64,
    /// Bytes that it reads and writes, over its time.
    pub gbs: f64,
    /// Of a copy's, beyond every cache; above 100 where the values lie in one.
    pub percent: f64,
}

/// The mathematics of a lane of so many parameters, and a norm over the largest activation of a model's layers.
///
/// # Errors
/// The device's.
pub fn measure(gpu: &Gpu, parameters: usize, works: &[Work], peaks: &Peaks) -> Result<Vec<Traffic>, GpuError> {
    let row = |(what, values, bytes, seconds): (_, usize, usize, f64)| {
        let gbs = (values * bytes) as f64 / seconds / 1e9;
        Traffic { what, values, us: 1e6 * seconds, gbs, percent: 100.0 * gbs / peaks.copy_gbs }
    };
    let mut found = of_lane(gpu, parameters)?;
    if let Some((values, channels)) = works.iter().map(result).max() {
        found.extend(match gpu.activations() {
            Number::F32 => of_norm::<f32>(gpu, values, channels)?,
            Number::Bf16 => of_norm::<bf16>(gpu, values, channels)?,
        });
    }
    Ok(found.into_iter().map(row).collect())
}

/// Values and channels of a layer's result.
fn result(work: &Work) -> (usize, usize) {
    match *work {
        Work::Convolution { shape, .. } => (shape.images * shape.output_values(), shape.outputs),
        Work::Product { batch, rows, columns, .. } => (batch * rows * columns, columns),
    }
}

/// What is measured: its name, values, bytes of each, and seconds.
type Timed = (&'static str, usize, usize, f64);

fn of_lane(gpu: &Gpu, len: usize) -> Result<Vec<Timed>, GpuError> {
    let (g, mut w, mut b) = (filled::<f32>(gpu, len)?, filled::<f32>(gpu, len)?, filled::<f32>(gpu, len)?);
    let (mut sum, mut outside): (Vector<i64>, _) = (gpu.zeros(len)?, Outside::none(gpu)?);
    let fixed = burst(gpu, &mut || lanes::add_fixed(&mut sum.all_mut(), g.all(), 1e-9, f32::INFINITY, &mut outside))?;
    let mut lifted: Vector<f32> = gpu.stale(len)?;
    let lift = burst(gpu, &mut || {
        let (mut dual, mut squares) = (gpu.zeros::<f64>(1)?, gpu.zeros::<f64>(1)?);
        lanes::sum(&mut dual, Terms::Squares(g.all()))?;
        let factor = lanes::epsilon_factor(&dual, 0.05)?;
        lanes::lift(g.all(), w.all(), &factor, None, &mut lifted.all_mut(), &mut squares)
    })?;
    let mut rounded: Vector<f32> = gpu.stale(len)?;
    let round = burst(gpu, &mut || lanes::round_fixed(&sum, &mut rounded))?;
    let scalars = Momentum { lr: 0.0, decay: 0.0, momentum: 0.9, nesterov: false };
    let update = burst(gpu, &mut || lanes::sgd_momentum(&mut w, &g, &mut b, None, scalars))?;
    Ok(vec![
        ("w + epsilon", len, 16, lift),
        ("fixed-point sum", len, 20, fixed),
        ("rounded sum", len, 12, round),
        ("momentum", len, 20, update),
    ])
}

/// A batch norm with ReLU, forward (x is read twice, y written) and back (x, y and g are read and what ReLU lets pass is written; then x and that are read, and dx is written).
fn of_norm<A: Activation>(gpu: &Gpu, len: usize, channels: usize) -> Result<Vec<Timed>, GpuError> {
    let (x, mut g) = (filled::<A>(gpu, len)?, filled::<A>(gpu, len)?);
    let (weight, bias) = (filled::<f32>(gpu, channels)?, filled::<f32>(gpu, channels)?);
    let affine = Affine { weight: weight.all(), bias: bias.all() };
    let norm = || {
        let moments = norm::batch_moments(&x, channels, 1e-5, None)?;
        Ok::<_, GpuError>((norm::normalise(&x, &moments, affine, Follows::Relu)?, moments))
    };
    let forward = burst(gpu, &mut || norm().map(drop))?;
    let (y, moments) = norm()?;
    let (mut of_weight, mut of_bias): (Vector<f32>, Vector<f32>) = (gpu.stale(channels)?, gpu.stale(channels)?);
    let backward = burst(gpu, &mut || {
        let of_affine = (&mut of_weight.all_mut(), &mut of_bias.all_mut());
        norm::normalise_backward(&x, Some(&y), &mut g, &moments, weight.all(), of_affine).map(drop)
    })?;
    let bytes = size_of::<A>();
    Ok(vec![("batch norm, ReLU", len, 3 * bytes, forward), ("backward", len, 7 * bytes, backward)])
}
