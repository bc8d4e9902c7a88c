//! What this machine can do at the moment: it is shared, so that only a figure taken beside another says something.

use std::hint::black_box;
use std::time::Instant;

use strath_kernels::isa::Isa;
use strath_kernels::peak::fma_peak;

/// Bursts of which the best counts.
const BURSTS: usize = 20;
/// Values of the copy, 64 MiB: beyond the caches of one core.
const COPIED: usize = 1 << 24;

/// Peaks of one thread.
#[derive(Debug, Clone, Copy)]
pub struct Peaks {
    /// Fused multiply-adds, two operations each.
    pub gflops: f64,
    /// A copy, bytes read and written.
    pub copy_gbs: f64,
}

impl Peaks {
    /// Measures both.
    pub fn measure() -> Self {
        let gflops = (0..BURSTS).map(|_| fma_peak(Isa::active())).fold(0.0, f64::max);
        let (from, mut to) = (vec![1.0f32; COPIED], vec![0.0f32; COPIED]);
        let copy = |to: &mut [f32]| {
            let began = Instant::now();
            to.copy_from_slice(black_box(&from));
            black_box(to);
            8.0 * COPIED as f64 / began.elapsed().as_secs_f64() / 1e9
        };
        let copy_gbs = (0..5).map(|_| copy(&mut to)).fold(0.0, f64::max);
        Self { gflops, copy_gbs }
    }

    /// The better of two measurements.
    #[must_use]
    pub fn better(self, other: Self) -> Self {
        Self { gflops: self.gflops.max(other.gflops), copy_gbs: self.copy_gbs.max(other.copy_gbs) }
    }
}
