//! The parameter-free shortcut of He et al. 2016 (option A): subsampled pixels, zero-padded channels.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::slices::{output, slice};

/// x [N, C, H, W] to [N, C + added, ceil(H / stride), ceil(W / stride)]: every `stride`-th pixel, `added / 2` channels of
/// zeros before and the rest after.
pub(crate) fn subsample_and_pad(x: &Tensor, stride: usize, added: usize) -> Result<Tensor> {
    let (_, channels, height, width) = x.dims4()?;
    x.contiguous()?.apply_op1(Shortcut { channels, height, width, stride, added, direction: Direction::Forward })
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    Forward,
    /// Its transpose: back onto the pixels that were taken.
    Backward,
}

#[derive(Debug, Clone, Copy)]
struct Shortcut {
    channels: usize,
    height: usize,
    width: usize,
    stride: usize,
    added: usize,
    direction: Direction,
}

impl Shortcut {
    /// Calls `pair(index in the large image, index in the small one)` for every pixel that is taken of one image.
    fn for_pixels(&self, mut pair: impl FnMut(usize, usize)) {
        let (small_height, small_width) = self.small();
        for channel in 0..self.channels {
            for row in 0..small_height {
                let large = (channel * self.height + row * self.stride) * self.width;
                let small = ((channel + self.added / 2) * small_height + row) * small_width;
                for column in 0..small_width {
                    pair(large + column * self.stride, small + column);
                }
            }
        }
    }

    fn small(&self) -> (usize, usize) {
        (self.height.div_ceil(self.stride), self.width.div_ceil(self.stride))
    }
}

impl CustomOp1 for Shortcut {
    fn name(&self) -> &'static str {
        "shortcut"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let from = slice(storage, layout)?;
        let images = layout.shape().dims4()?.0;
        let (height, width) = self.small();
        let large = self.channels * self.height * self.width;
        let small = (self.channels + self.added) * height * width;
        match self.direction {
            Direction::Forward => {
                let mut to = vec![0.0; images * small];
                for (from, to) in from.chunks_exact(large).zip(to.chunks_exact_mut(small)) {
                    self.for_pixels(|l, s| to[s] = from[l]);
                }
                Ok(output(to, (images, self.channels + self.added, height, width)))
            }
            Direction::Backward => {
                let mut to = vec![0.0; images * large];
                for (from, to) in from.chunks_exact(small).zip(to.chunks_exact_mut(large)) {
                    self.for_pixels(|l, s| to[l] = from[s]);
                }
                Ok(output(to, (images, self.channels, self.height, self.width)))
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

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn pixels_are_taken_channels_are_padded_and_the_gradient_goes_back() {
        let x = Var::from_vec((0..18).map(|v| v as f32).collect(), (1, 2, 3, 3), &Device::Cpu).unwrap();
        let y = subsample_and_pad(&x, 2, 3).unwrap();
        assert_eq!(y.dims(), [1, 5, 2, 2]);
        let flat = y.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(flat[..4], [0.0; 4], "one channel before");
        assert_eq!(flat[4..12], [0.0, 2.0, 6.0, 8.0, 9.0, 11.0, 15.0, 17.0]);
        assert_eq!(flat[12..], [0.0; 8], "two after");
        let grads = (y.sqr().unwrap() * 0.5).unwrap().sum_all().unwrap().backward().unwrap();
        let g = grads.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(g[..9], [0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 6.0, 0.0, 8.0]);
    }
}
