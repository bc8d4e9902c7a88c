//! Forward and backward-data as one thing: a correlation of an image with packed weights, cut into blocks.

use super::axis::Axis;
use super::block::{Block, Form, Kernel, Kernels};
use super::pack::{Packing, Vectors};

/// `y[i, j] = sum over taps (a, b) of x[i stride + a - before, j stride + b - before] W[a, b]`, pixels being vectors of channels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Correlation {
    /// Rows.
    pub rows: Axis,
    /// Columns.
    pub columns: Axis,
    /// Sizes of the weights.
    pub packing: Packing,
    /// Where the packed weights begin.
    pub weights: usize,
    /// Where in an output image the first output lies, floats.
    pub y_start: usize,
    /// From a row of outputs to the next, floats.
    pub y_row: usize,
    /// From an output pixel to the next, floats.
    pub y_pixel: usize,
}

/// A row of outputs in parts, each with its kernel.
type Parts = Vec<(usize, Kernel)>;

/// How a correlation is computed, the same for every image.
pub(super) struct Plan {
    correlation: Correlation,
    kernels: &'static Kernels,
    /// Each run of outputs with the parts of its rows for one image and for two, where there are kernels for them.
    vectors: Vec<(Vectors, Option<Parts>, Option<Parts>)>,
}

/// Images side by side in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Images {
    /// The first input image.
    pub x: *const f32,
    /// Floats of an input image.
    pub x_image: usize,
    /// The first output image.
    pub y: *mut f32,
    /// Floats of an output image.
    pub y_image: usize,
    /// Number of images.
    pub count: usize,
}

impl Plan {
    /// Computes `images`.
    ///
    /// # Safety
    /// The processor has the kernels' instruction set; the images are those that the axes say, and `packed` holds the weights.
    pub(super) unsafe fn run(&self, packed: &[f32], images: Images) {
        let correlation = &self.correlation;
        for (vectors, one, two) in &self.vectors {
            let step = if two.is_some() { 2 } else { 1 };
            for image in (0..images.count).step_by(step) {
                let block = correlation.block(packed, &images, vectors, image);
                // SAFETY: the caller's promises; both images of a pair exist.
                unsafe {
                    match (two, one) {
                        (Some(parts), _) if image + 1 < images.count => correlation.by_rows(parts, block),
                        (_, Some(parts)) => correlation.by_rows(parts, block),
                        _ => correlation.by_regions(self.kernels, vectors.count, block),
                    }
                }
            }
        }
    }
}

impl Correlation {
    /// The same with an image as one row of pixels, where only pixels themselves are looked at: 1x1 at stride 1.
    pub(super) fn flat(mut self) -> Self {
        let plain = |axis: &Axis| axis.taps == 1 && axis.stride == 1 && axis.before == 0 && axis.outputs == axis.length;
        if plain(&self.rows) && plain(&self.columns) && self.y_row == self.columns.outputs * self.y_pixel {
            self.columns.length *= self.rows.length;
            self.columns.outputs = self.columns.length;
            (self.rows.length, self.rows.outputs) = (1, 1);
        }
        self
    }

    /// Finds the kernels that compute it.
    pub(super) fn plan(self, kernels: &'static Kernels) -> Plan {
        let parts = |vectors: Vectors| {
            let [one, two] = [1, 2].map(|images| self.parts(kernels, vectors.count, images));
            (vectors, one, two)
        };
        Plan { correlation: self, kernels, vectors: self.packing.vectors().map(parts).collect() }
    }

    /// The block of an image's first pixel at tap (0, 0); the drivers below move it.
    fn block(&self, packed: &[f32], images: &Images, vectors: &Vectors, image: usize) -> Block {
        let Packing { channels, taps, lanes, .. } = self.packing;
        let width = vectors.count * lanes;
        Block {
            x: images.x.wrapping_add(image * images.x_image),
            x_pixel: self.columns.stride * channels,
            x_tap: channels,
            x_row: self.columns.length * channels,
            x_image: images.x_image,
            w: packed[self.weights + vectors.start..].as_ptr(),
            w_channel: taps.1 * width,
            w_tap: width,
            w_row: channels * taps.1 * width,
            y: images.y.wrapping_add(image * images.y_image + self.y_start + vectors.first),
            y_pixel: self.y_pixel,
            y_image: images.y_image,
            ahead: images.x,
            rows: taps.0,
            taps: taps.1,
            channels,
            tail: vectors.tail,
        }
    }

    /// Whether outputs rather than inputs are what an image's memory is mostly about.
    fn writes_more(&self) -> bool {
        self.y_row * self.rows.outputs > self.rows.length * self.columns.length * self.packing.channels
    }

    /// A row of outputs as parts that there are kernels for, else none.
    fn parts(&self, kernels: &Kernels, vectors: usize, images: usize) -> Option<Parts> {
        let Axis { outputs, taps, stride, .. } = self.columns;
        let runs = self.columns.runs();
        let all = |run: &super::axis::Run| run.taps == (0..taps);
        // At most one pixel at either border, and only the outermost tap of it outside.
        let left = taps > 1 && runs.first().is_some_and(|run| run.taps == (1..taps) && run.outputs.len() == 1);
        let right = taps > 1 && runs.last().is_some_and(|run| run.taps == (0..taps - 1) && run.outputs.len() == 1);
        let inner = &runs[usize::from(left)..runs.len() - usize::from(right)];
        if taps == 0 || inner.len() != 1 || !inner.iter().all(all) {
            return None;
        }
        let most =
            kernels.rows.iter().filter(|(form, _)| form.vectors == vectors).map(|(form, _)| form.pixels).max()?;
        (1..=8).filter(|parts| outputs.div_ceil(*parts) <= most).find_map(|parts| {
            let pixels = |part: usize| spread(outputs, parts, part);
            let kernel = |part: usize| {
                let form = Form {
                    pixels: pixels(part),
                    images,
                    vectors,
                    taps,
                    stride,
                    left: left && part == 0,
                    right: right && part + 1 == parts,
                };
                kernels.rows.iter().find(|(made_for, _)| *made_for == form).map(|(_, kernel)| (pixels(part), *kernel))
            };
            (0..parts).map(kernel).collect()
        })
    }

    /// Row by row, each in parts.
    ///
    /// # Safety
    /// As [`Plan::run`]; the block is that of the image.
    unsafe fn by_rows(&self, parts: &Parts, image: Block) {
        for i in 0..self.rows.outputs {
            let inside = self.rows.inside(i);
            let row = self.rows.origin(i) + inside.start as isize;
            let mut block = image;
            block.x = image.x.wrapping_offset(row * image.x_row as isize - self.columns.before * image.x_tap as isize);
            block.w = image.w.wrapping_add(inside.start * image.w_row);
            block.y = image.y.wrapping_add(i * self.y_row);
            block.rows = inside.len();
            // Two rows of outputs ahead: a row of a correlation with few taps takes less time than the farther caches.
            block.ahead = if self.writes_more() {
                block.y.wrapping_add(2 * self.y_row)
            } else {
                block.x.wrapping_add(inside.len() * image.x_row)
            };
            for (pixels, kernel) in parts {
                // SAFETY: rows of taps outside are left out here, columns by the kernel that `parts` found.
                unsafe { kernel(&block) };
                block.x = block.x.wrapping_add(pixels * image.x_pixel);
                block.y = block.y.wrapping_add(pixels * image.y_pixel);
            }
        }
    }

    /// Rectangle by rectangle of outputs that have the same taps inside; a rectangle that is higher than wide is cut into
    /// blocks along its columns.
    ///
    /// # Safety
    /// As [`Plan::run`]; the block is that of the image.
    unsafe fn by_regions(&self, kernels: &Kernels, vectors: usize, image: Block) {
        let columns = self.columns.runs();
        for rows in self.rows.runs() {
            for columns in &columns {
                let row = self.rows.origin(rows.outputs.start) + rows.taps.start as isize;
                let column = self.columns.origin(columns.outputs.start) + columns.taps.start as isize;
                let mut block = image;
                block.x = image.x.wrapping_offset(row * image.x_row as isize + column * image.x_tap as isize);
                block.w = image.w.wrapping_add(rows.taps.start * image.w_row + columns.taps.start * image.w_tap);
                block.y = image.y.wrapping_add(rows.outputs.start * self.y_row + columns.outputs.start * image.y_pixel);
                (block.rows, block.taps) = (rows.taps.len(), columns.taps.len());
                let x_row = self.rows.stride * image.x_row;
                let (mut lines, mut pixels) = (rows.outputs.len(), columns.outputs.len());
                let (mut x_line, mut y_line) = (x_row, self.y_row);
                if lines > pixels {
                    std::mem::swap(&mut lines, &mut pixels);
                    (x_line, y_line) = (image.x_pixel, image.y_pixel);
                    (block.x_pixel, block.y_pixel) = (x_row, self.y_row);
                }
                for line in 0..lines {
                    let mut part = block;
                    part.x = block.x.wrapping_add(line * x_line);
                    part.y = block.y.wrapping_add(line * y_line);
                    let parts = pixels.div_ceil(kernels.any.len());
                    for k in 0..parts {
                        let pixels = spread(pixels, parts, k);
                        part.ahead = if self.writes_more() {
                            part.y.wrapping_add(2 * y_line)
                        } else {
                            part.x.wrapping_add(rows.taps.len() * image.x_row)
                        };
                        // SAFETY: every tap of every pixel of the rectangle lies inside.
                        unsafe { kernels.any[pixels - 1][vectors - 1](&part) };
                        part.x = part.x.wrapping_add(pixels * part.x_pixel);
                        part.y = part.y.wrapping_add(pixels * part.y_pixel);
                    }
                }
            }
        }
    }
}

/// The size of the k-th of `parts` nearly equal parts of `total`; the larger ones lie outside, as symmetric as can be.
fn spread(total: usize, parts: usize, k: usize) -> usize {
    let larger = total % parts;
    let outside = k < larger.div_ceil(2) || parts - 1 - k < larger / 2;
    total / parts + usize::from(outside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_nearly_equal_and_add_up() {
        assert_eq!((0..3).map(|k| spread(32, 3, k)).collect::<Vec<_>>(), [11, 10, 11]);
        for total in 1..40 {
            for parts in 1..=total {
                let sizes: Vec<usize> = (0..parts).map(|k| spread(total, parts, k)).collect();
                assert_eq!(sizes.iter().sum::<usize>(), total);
                assert!(sizes.iter().all(|size| *size == total / parts || *size == total / parts + 1));
            }
        }
    }
}
