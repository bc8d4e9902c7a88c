//! Backward-weight: patches of rows and images small enough to be read again and again from the nearest cache.

use std::ops::Range;

use super::axis::Axis;
use super::patch::{Form, Kernel, Kernels, Patch, Taps};
use super::regroup::{LINE, Rows, Runs, regroup};
use crate::conv::Shape;
use crate::scratch;

/// Floats of a patch: most of a first-level cache of 32 KiB.
const PATCH: usize = 7168;

/// The sums of some images: [kh, kw, C, O], O rounded up to whole vectors.
pub(super) struct Sums<'a> {
    shape: &'a Shape,
    kernels: &'static Kernels,
    rows: Axis,
    columns: Axis,
    /// O rounded up to whole vectors.
    width: usize,
}

/// A run of outputs: a vector, or two.
#[derive(Debug, Clone, Copy)]
struct Vectors {
    first: usize,
    count: usize,
    tail: usize,
}

impl<'a> Sums<'a> {
    /// For a shape whose axes these are.
    pub(super) fn new(shape: &'a Shape, kernels: &'static Kernels, rows: Axis, columns: Axis) -> Self {
        Self { shape, kernels, rows, columns, width: shape.outputs.next_multiple_of(kernels.lanes) }
    }

    /// Floats of the sums.
    pub(super) fn floats(&self) -> usize {
        self.shape.kernel.0 * self.shape.kernel.1 * self.shape.inputs * self.width
    }

    /// Writes sums as W [O, C, kh, kw].
    ///
    /// Vector by vector: its lanes are so many streams written side by side, where output by output would read a line of cache
    /// for each value.
    pub(super) fn unpack(&self, sums: &[f32], dweight: &mut [f32]) {
        let Shape { inputs, outputs, kernel, .. } = *self.shape;
        let (lanes, taps) = (self.kernels.lanes, kernel.0 * kernel.1);
        for first in (0..outputs).step_by(lanes) {
            let count = lanes.min(outputs - first);
            for (c, tap) in (0..inputs).flat_map(|c| (0..taps).map(move |tap| (c, tap))) {
                let vector = &sums[(tap * inputs + c) * self.width + first..][..count];
                for (lane, value) in vector.iter().enumerate() {
                    dweight[((first + lane) * inputs + c) * taps + tap] = *value;
                }
            }
        }
    }

    /// Adds what `images` contribute, in a fixed order.
    ///
    /// # Safety
    /// The processor has the kernels' instruction set, and the slices are x, dy and the sums that the shape says.
    pub(super) unsafe fn add(&self, images: Range<usize>, x: &[f32], dy: &[f32], sums: &mut [f32]) {
        let Shape { kernel, stride, padding, inputs, .. } = *self.shape;
        if self.columns.outputs == 0 {
            return;
        }
        let taps = match (kernel.1, padding, stride) {
            (3, 1, 1) if self.form(Taps::Row, 1, 1).is_some() => Taps::Row,
            (3, 1, _) => Taps::Strided,
            _ => Taps::One,
        };
        // A call reads a line of cache of each input and two vectors of each gradient.
        let pair = 2 * self.kernels.lanes;
        let row = self.columns.length * inputs.min(LINE) + self.columns.outputs * self.shape.outputs.min(pair);
        let rows = (PATCH / row.max(1)).clamp(1, self.rows.outputs.max(1));
        let bands = self.rows.outputs.div_ceil(rows);
        let together = (PATCH / (row * self.rows.outputs).max(1)).max(1);
        let whole = if (kernel, padding, stride) == ((3, 3), 1, 1) { self.all_inside() } else { 0..0 };
        let small = self.form(Taps::Rows, inputs, 1).filter(|(form, _)| form.channels == inputs);
        for first in images.clone().step_by(together) {
            let count = together.min(images.end - first);
            for band in 0..bands {
                let band = self.rows.outputs * band / bands..self.rows.outputs * (band + 1) / bands;
                let mut patch = self.patch(first, x, dy, sums);
                patch.images = count;
                // SAFETY (of all): the caller's promises.
                match &small {
                    Some((_, kernels)) if !whole.is_empty() => {
                        let inner =
                            band.start.max(whole.start)..band.end.min(whole.end).max(band.start.max(whole.start));
                        let runs = self.as_they_are();
                        unsafe { self.add_rows_at_once(kernels, &patch, inner.clone()) };
                        unsafe { self.add_band(taps, (&patch, runs), &patch, band.start..inner.start.min(band.end)) };
                        unsafe { self.add_band(taps, (&patch, runs), &patch, inner.end.max(band.start)..band.end) };
                    }
                    _ if self.spread_out() => self.regrouped(first, &patch, &band, x, dy, |copy, runs| unsafe {
                        self.add_band(taps, (copy, runs), &patch, band.clone());
                    }),
                    _ => unsafe { self.add_band(taps, (&patch, self.as_they_are()), &patch, band) },
                }
            }
        }
    }

    /// Whether a call reads parts of pixels only, in runs that fill them, and many calls read them: a copy pays.
    fn spread_out(&self) -> bool {
        let Shape { inputs, outputs, kernel, .. } = *self.shape;
        let pair = 2 * self.kernels.lanes;
        kernel.0 * kernel.1 > 1
            && inputs.is_multiple_of(LINE)
            && outputs.is_multiple_of(pair)
            && inputs + outputs > LINE + pair
    }

    /// Channels and outputs side by side.
    fn as_they_are(&self) -> Runs {
        let pair = 2 * self.kernels.lanes;
        Runs { x: LINE, dy: (pair, pair) }
    }

    /// Calls `work` with a copy of what the band of the patch's images reads.
    fn regrouped(
        &self,
        first: usize,
        patch: &Patch,
        band: &Range<usize>,
        x: &[f32],
        dy: &[f32],
        work: impl FnOnce(&Patch, Runs),
    ) {
        let Shape { inputs, outputs, height, stride, .. } = *self.shape;
        let (width, pair) = (self.columns.length, 2 * self.kernels.lanes);
        let inside = |row: isize| row.clamp(0, height as isize).unsigned_abs();
        let rows = inside(self.rows.origin(band.start))
            ..inside(self.rows.origin(band.end.saturating_sub(1)) + self.rows.taps as isize);
        let x = Rows { images: &x[first * self.shape.input_values()..], height, width, channels: inputs, run: LINE };
        let dy = Rows {
            images: &dy[first * self.shape.output_values()..],
            height: self.rows.outputs,
            width: self.columns.outputs,
            channels: outputs,
            run: pair,
        };
        let floats = patch.images * (rows.len() * width * inputs + band.len() * dy.width * outputs);
        scratch::with(&scratch::OWN, floats, |copies| {
            let mut copy = *patch;
            let runs = regroup(&mut copy, stride, (x, rows), (dy, band.clone()), copies);
            work(&copy, runs);
        });
    }

    /// The outputs whose rows of taps all lie inside.
    fn all_inside(&self) -> Range<usize> {
        let all = (0..self.rows.taps).map(|tap| self.rows.outputs_with(tap));
        all.reduce(|a, b| a.start.max(b.start)..a.end.min(b.end)).unwrap_or(0..0)
    }

    fn patch(&self, image: usize, x: &[f32], dy: &[f32], sums: &mut [f32]) -> Patch {
        let Shape { inputs, outputs, kernel, stride, .. } = *self.shape;
        let (x_image, dy_image) = (self.shape.input_values(), self.shape.output_values());
        let x_line = self.columns.length * inputs;
        Patch {
            x: x[image * x_image..].as_ptr(),
            x_pixel: stride * inputs,
            x_column: inputs,
            x_row: stride * x_line,
            x_tap: x_line,
            x_image,
            dy: dy[image * dy_image..].as_ptr(),
            dy_pixel: outputs,
            dy_row: self.columns.outputs * outputs,
            dy_image,
            sum: sums.as_mut_ptr(),
            sum_channel: self.width,
            sum_tap: inputs * self.width,
            sum_row: kernel.1 * inputs * self.width,
            ahead: x.as_ptr(),
            images: 1,
            rows: 0,
            columns: self.columns.outputs,
            last: self.columns.outputs_with(2).end,
            tail: self.kernels.lanes,
        }
    }

    /// The best kernel for at most so many channels.
    fn form(&self, taps: Taps, channels: usize, vectors: usize) -> Option<&'static (Form, [Kernel; 2])> {
        let fits = |form: &Form| form.taps == taps && form.channels <= channels && form.vectors == vectors;
        self.kernels.forms.iter().find(|(form, _)| fits(form))
    }

    /// The outputs in runs of up to `most` vectors.
    fn vectors(&self, most: usize) -> impl Iterator<Item = Vectors> + use<> {
        let (outputs, lanes) = (self.shape.outputs, self.kernels.lanes);
        (0..outputs).step_by(most * lanes).map(move |first| {
            let count = (outputs - first).div_ceil(lanes).min(most);
            Vectors { first, count, tail: (outputs - first - (count - 1) * lanes).min(lanes) }
        })
    }

    /// Three rows of three taps at once, all of them inside: for images of few channels.
    unsafe fn add_rows_at_once(&self, kernels: &[Kernel; 2], image: &Patch, rows: Range<usize>) {
        for vectors in self.vectors(1) {
            let mut patch = Self::at((image, self.as_they_are()), vectors, &rows);
            patch.x = patch.x.wrapping_offset(self.rows.origin(rows.start) * image.x_tap as isize);
            // SAFETY: the caller's promises.
            unsafe { kernels[usize::from(vectors.tail < self.kernels.lanes)](&patch) };
        }
    }

    /// The image's patch at some outputs and rows of pixels.
    fn at((image, runs): (&Patch, Runs), vectors: Vectors, rows: &Range<usize>) -> Patch {
        let mut patch = *image;
        patch.dy = image.dy.wrapping_add(rows.start * image.dy_row + runs.output(vectors.first));
        patch.sum = image.sum.wrapping_add(vectors.first);
        (patch.rows, patch.tail) = (rows.len(), vectors.tail);
        patch
    }

    /// Row of taps by row of taps; `original` is where the next band is fetched from.
    unsafe fn add_band(&self, taps: Taps, (image, runs): (&Patch, Runs), original: &Patch, band: Range<usize>) {
        let best = self.form(taps, self.shape.inputs, 2).or_else(|| self.form(taps, self.shape.inputs, 1));
        let (most, channels) = best.map_or((1, 1), |(form, _)| (form.vectors, form.channels));
        let calls = self.vectors(most).count() * self.rows.taps * self.shape.inputs.div_ceil(channels);
        let mut call = 0;
        for vectors in self.vectors(most) {
            for a in 0..self.rows.taps {
                let valid = self.rows.outputs_with(a);
                let rows = band.start.max(valid.start)..band.end.min(valid.end);
                if rows.is_empty() {
                    continue;
                }
                let mut patch = Self::at((image, runs), vectors, &rows);
                let row = self.rows.origin(rows.start) + a as isize;
                patch.x = patch.x.wrapping_offset(row * image.x_tap as isize);
                patch.sum = patch.sum.wrapping_add(a * image.sum_row);
                let mut c = 0;
                while c < self.shape.inputs {
                    let (form, kernels) = self
                        .form(taps, self.shape.inputs - c, vectors.count)
                        .expect("each set has forms of one channel");
                    let kernel = kernels[usize::from(vectors.tail < self.kernels.lanes)];
                    let mut patch = patch;
                    patch.x = patch.x.wrapping_add(runs.channel(c));
                    patch.sum = patch.sum.wrapping_add(c * image.sum_channel);
                    patch.ahead = Self::ahead(original, &band, call, calls);
                    call += 1;
                    // SAFETY: rows outside were left out above, columns are by `add_taps` or by the kernel.
                    unsafe {
                        match taps {
                            Taps::One => self.add_taps(kernel, &patch),
                            _ => kernel(&patch),
                        }
                    }
                    c += form.channels;
                }
            }
        }
    }

    /// What a call of `calls` is to fetch for the next band, whose inputs and gradients follow this one's in memory: the first
    /// half of them its inputs, the others its gradients.
    fn ahead(image: &Patch, band: &Range<usize>, call: usize, calls: usize) -> *const f32 {
        let rows = band.len() * image.images;
        let (start, row) = if 2 * call < calls {
            (image.x.wrapping_add((image.images - 1) * image.x_image + band.end * image.x_row), image.x_row)
        } else {
            (image.dy.wrapping_add((image.images - 1) * image.dy_image + band.end * image.dy_row), image.dy_row)
        };
        start.wrapping_add(rows * row * (2 * call % calls) / calls)
    }

    /// Tap by tap of a row.
    unsafe fn add_taps(&self, kernel: Kernel, row: &Patch) {
        for b in 0..self.columns.taps {
            let columns = self.columns.outputs_with(b);
            let mut patch = *row;
            let column = self.columns.origin(columns.start) + b as isize;
            patch.x = row.x.wrapping_offset(column * row.x_column as isize);
            patch.dy = row.dy.wrapping_add(columns.start * row.dy_pixel);
            patch.sum = row.sum.wrapping_add(b * row.sum_tap);
            patch.columns = columns.len();
            if patch.columns > 0 {
                // SAFETY: the caller's promises; the columns lie inside.
                unsafe { kernel(&patch) };
            }
        }
    }
}
