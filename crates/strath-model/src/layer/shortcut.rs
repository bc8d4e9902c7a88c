//! The parameter-free shortcut of He et al. 2016 (option A) as a custom op whose derivative is its transpose, and the other way
//! round.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use strath_kernels::shortcut as kernel;

use super::slices::{output, slice};

/// x [N, H, W, C] to [N, ceil(H / stride), ceil(W / stride), C + added]: every `stride`-th pixel, `added / 2` channels of
/// zeros before and the rest after.
pub(crate) fn subsample_and_pad(x: &Tensor, stride: usize, added: usize) -> Result<Tensor> {
    let (_, height, width, channels) = x.dims4()?;
    let shortcut = kernel::Shortcut { height, width, channels, stride, added };
    x.contiguous()?.apply_op1(Shortcut { shortcut, direction: Direction::Forward })
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    Forward,
    /// Its transpose: back onto the pixels that were taken.
    Backward,
}

#[derive(Debug, Clone, Copy)]
struct Shortcut {
    shortcut: kernel::Shortcut,
    direction: Direction,
}

impl CustomOp1 for Shortcut {
    fn name(&self) -> &'static str {
        "shortcut"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let from = slice(storage, layout)?;
        let images = layout.shape().dims4()?.0;
        let kernel::Shortcut { height, width, channels, added, .. } = self.shortcut;
        let (small_height, small_width) = self.shortcut.output();
        match self.direction {
            Direction::Forward => {
                let mut to = vec![0.0; images * self.shortcut.output_values()];
                self.shortcut.forward(from, &mut to);
                Ok(output(to, (images, small_height, small_width, channels + added)))
            }
            Direction::Backward => {
                let mut to = vec![0.0; images * self.shortcut.input_values()];
                self.shortcut.backward(from, &mut to);
                Ok(output(to, (images, height, width, channels)))
            }
        }
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let direction = match self.direction {
            Direction::Forward => Direction::Backward,
            Direction::Backward => Direction::Forward,
        };
        Ok(Some(g.contiguous()?.apply_op1(Self { direction, ..*self })?))
    }
}
