//! The parameter-free shortcut of He et al. 2016 (option A) with channels innermost: subsampled pixels, zero-padded channels.

use crate::threads::for_chunks;

/// The shape of a shortcut from x [N, H, W, C] to y [N, ceil(H / stride), ceil(W / stride), C + added].
///
/// y takes every `stride`-th pixel; `added / 2` channels of zeros lie before x's, the rest after. Forward and backward are each
/// other's transposes, so each is also the other's derivative; both are copies, one pass over memory, an image a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shortcut {
    /// Height of x, H.
    pub height: usize,
    /// Width of x, W.
    pub width: usize,
    /// Channels of x, C.
    pub channels: usize,
    /// Distance of neighbouring pixels of y, pixels of x.
    pub stride: usize,
    /// Channels of y more than of x.
    pub added: usize,
}

impl Shortcut {
    /// Height and width of y.
    pub fn output(&self) -> (usize, usize) {
        (self.height.div_ceil(self.stride), self.width.div_ceil(self.stride))
    }

    /// Values of an image of x.
    pub fn input_values(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Values of an image of y.
    pub fn output_values(&self) -> usize {
        let (height, width) = self.output();
        height * width * (self.channels + self.added)
    }

    /// y from x.
    ///
    /// # Panics
    /// Where the slices do not hold the same number of images.
    pub fn forward(&self, x: &[f32], y: &mut [f32]) {
        self.check(x.len(), y.len());
        let (before, wide) = (self.added / 2, self.channels + self.added);
        for_chunks(y, self.output_values(), |image, y| {
            let x = &x[image * self.input_values()..][..self.input_values()];
            for (y, from) in y.chunks_exact_mut(wide).zip(self.taken()) {
                y[..before].fill(0.0);
                y[before..][..self.channels].copy_from_slice(&x[from..][..self.channels]);
                y[before + self.channels..].fill(0.0);
            }
        });
    }

    /// dx from dy: back onto the pixels that were taken, zeros on the others.
    ///
    /// # Panics
    /// Where the slices do not hold the same number of images.
    pub fn backward(&self, dy: &[f32], dx: &mut [f32]) {
        self.check(dx.len(), dy.len());
        let (before, wide) = (self.added / 2, self.channels + self.added);
        for_chunks(dx, self.input_values(), |image, dx| {
            let dy = &dy[image * self.output_values()..][..self.output_values()];
            dx.fill(0.0);
            for (dy, to) in dy.chunks_exact(wide).zip(self.taken()) {
                dx[to..][..self.channels].copy_from_slice(&dy[before..][..self.channels]);
            }
        });
    }

    /// Where in an image of x the pixels that y takes start, in y's order.
    fn taken(&self) -> impl Iterator<Item = usize> + use<> {
        let Self { height, width, channels, stride, .. } = *self;
        let rows = (0..height).step_by(stride);
        rows.flat_map(move |row| (0..width).step_by(stride).map(move |column| (row * width + column) * channels))
    }

    fn check(&self, x: usize, y: usize) {
        let images = x / self.input_values();
        assert_eq!(x, images * self.input_values(), "x is whole images");
        assert_eq!(y, images * self.output_values(), "y has as many images as x");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::tests::values;
    use crate::threads::tests::same_bits;

    #[test]
    fn every_second_pixel_is_taken_and_zeros_lie_around_its_channels() {
        let shortcut = Shortcut { height: 3, width: 2, channels: 1, stride: 2, added: 3 };
        let mut y = [9.0; 8];
        shortcut.forward(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &mut y);
        assert_eq!(y, [0.0, 1.0, 0.0, 0.0, 0.0, 5.0, 0.0, 0.0]);
        let mut dx = [9.0; 6];
        shortcut.backward(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], &mut dx);
        assert_eq!(dx, [2.0, 0.0, 0.0, 0.0, 6.0, 0.0]);
    }

    #[test]
    fn backward_is_the_transpose_of_forward_on_any_number_of_threads() {
        for (stride, added) in [(2, 16), (1, 0), (3, 5)] {
            let shortcut = Shortcut { height: 7, width: 8, channels: 16, stride, added };
            let x = values(5 * shortcut.input_values(), 1);
            let g = values(5 * shortcut.output_values(), 2);
            let both = same_bits(|| {
                let (mut y, mut dx) = (vec![f32::NAN; g.len()], vec![f32::NAN; x.len()]);
                shortcut.forward(&x, &mut y);
                shortcut.backward(&g, &mut dx);
                [y, dx].concat()
            });
            let inner = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            assert!((inner(&both[..g.len()], &g) - inner(&both[g.len()..], &x)).abs() < 1e-9);
        }
    }
}
