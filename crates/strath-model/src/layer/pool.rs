//! Global average pooling as a custom op whose derivative is its transpose, and the other way round.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use strath_kernels::pool as kernel;

use super::slices::{output, slice};

/// x [N, H, W, C] to its means over H and W, [N, C].
pub(crate) fn global_average(x: &Tensor) -> Result<Tensor> {
    let (_, height, width, _) = x.dims4()?;
    x.contiguous()?.apply_op1(Average { height, width })
}

struct Average {
    height: usize,
    width: usize,
}

impl CustomOp1 for Average {
    fn name(&self) -> &'static str {
        "global-average"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (images, height, width, channels) = layout.shape().dims4()?;
        let mut y = vec![0.0; images * channels];
        kernel::average_rows(height * width, channels, slice(storage, layout)?, &mut y);
        Ok(output(y, (images, channels)))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let Self { height, width } = *self;
        Ok(Some(g.contiguous()?.apply_op1(Spread { height, width })?))
    }
}

struct Spread {
    height: usize,
    width: usize,
}

impl CustomOp1 for Spread {
    fn name(&self) -> &'static str {
        "spread"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (images, channels) = layout.shape().dims2()?;
        let mut x = vec![0.0; images * channels * self.height * self.width];
        kernel::spread_rows(self.height * self.width, channels, slice(storage, layout)?, &mut x);
        Ok(output(x, (images, self.height, self.width, channels)))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let Self { height, width } = *self;
        Ok(Some(g.contiguous()?.apply_op1(Average { height, width })?))
    }
}
