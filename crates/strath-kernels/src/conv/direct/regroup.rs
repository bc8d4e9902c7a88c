//! Backward-weight: a copy of a patch in which what a call reads lies side by side.
//!
//! A call reads a few channels of each input and two vectors of each gradient. Where pixels have more, those lines lie whole
//! pixels apart and fall into the same few sets of the nearest cache, which holds a fraction of what it could. The copy
//! is read once for each of many calls: `[channels / 16][image][row][pixel][16]`, gradients likewise by two vectors.

use std::ops::Range;

use super::patch::Patch;

/// Channels of an input side by side: a line of cache.
pub(super) const LINE: usize = 16;

/// Images [count, height, width, channels] of which some rows are copied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    /// The first image and what follows.
    pub images: &'a [f32],
    /// Rows an image.
    pub height: usize,
    /// Pixels a row.
    pub width: usize,
    /// Floats a pixel.
    pub channels: usize,
    /// Floats side by side.
    pub run: usize,
}

impl Rows<'_> {
    /// Floats from a run of channels to the next, of `rows` rows of `count` images.
    pub(super) fn distance(&self, count: usize, rows: usize) -> usize {
        count * rows * self.width * self.run
    }

    /// Copies these rows of `count` images.
    fn copy(&self, count: usize, rows: &Range<usize>, to: &mut [f32]) {
        // By so many moves: a call to copy each of such short runs took a fifth of the whole.
        match self.run {
            LINE => self.copy_runs::<LINE>(count, rows, to),
            32 => self.copy_runs::<32>(count, rows, to),
            run => unreachable!("runs are of a line of cache, or of two vectors, not of {run}"),
        }
    }

    fn copy_runs<const RUN: usize>(&self, count: usize, rows: &Range<usize>, to: &mut [f32]) {
        let Self { images, height, width, channels, .. } = *self;
        let line = width * channels;
        for (group, to) in to.chunks_exact_mut(self.distance(count, rows.len()).max(1)).enumerate() {
            let mut pixels = to.as_chunks_mut::<RUN>().0.iter_mut();
            for (image, row) in (0..count).flat_map(|image| rows.clone().map(move |row| (image, row))) {
                let from = &images[(image * height + row) * line..][..line];
                for (from, to) in from.chunks_exact(channels).zip(&mut pixels) {
                    *to = *from[group * RUN..].first_chunk().expect("groups fill a pixel");
                }
            }
        }
    }
}

/// Where a call finds its channels and outputs, and how far the next run of them is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Runs {
    /// Floats from LINE channels of inputs to the next.
    pub x: usize,
    /// Outputs side by side, and floats from those to the next.
    pub dy: (usize, usize),
}

impl Runs {
    /// From a pixel's first channel to this one.
    pub(super) fn channel(&self, c: usize) -> usize {
        c / LINE * self.x + c % LINE
    }

    /// From a pixel's first gradient to this one.
    pub(super) fn output(&self, o: usize) -> usize {
        o / self.dy.0 * self.dy.1 + o % self.dy.0
    }
}

/// Copies what the patch's images have in these rows of inputs and of gradients, and turns the patch to the copy: its pointers
/// still mean row 0, which need not be among the rows.
pub(super) fn regroup(
    patch: &mut Patch,
    stride: usize,
    (x, x_rows): (Rows<'_>, Range<usize>),
    (dy, dy_rows): (Rows<'_>, Range<usize>),
    copies: &mut [f32],
) -> Runs {
    let count = patch.images;
    let (x_copy, dy_copy) = copies.split_at_mut(count * x_rows.len() * x.width * x.channels);
    x.copy(count, &x_rows, x_copy);
    dy.copy(count, &dy_rows, dy_copy);
    let (x_line, dy_line) = (x.width * x.run, dy.width * dy.run);
    patch.x = x_copy.as_ptr().wrapping_sub(x_rows.start * x_line);
    (patch.x_pixel, patch.x_column) = (stride * x.run, x.run);
    (patch.x_row, patch.x_tap, patch.x_image) = (stride * x_line, x_line, x_rows.len() * x_line);
    patch.dy = dy_copy.as_ptr().wrapping_sub(dy_rows.start * dy_line);
    (patch.dy_pixel, patch.dy_row, patch.dy_image) = (dy.run, dy_line, dy_rows.len() * dy_line);
    Runs { x: x.distance(count, x_rows.len()), dy: (dy.run, dy.distance(count, dy_rows.len())) }
}
