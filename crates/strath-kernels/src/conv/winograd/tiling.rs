//! Tiles of an output, windows of images with zeros around, and what will be read next.

#![allow(unsafe_code, reason = "pointers into images")]

use std::arch::asm;

use super::simd::{Simd, prefetch};

/// Images [N, height, width, channels].
#[derive(Debug, Clone, Copy)]
pub(super) struct Plane {
    /// Rows.
    pub(super) height: usize,
    /// Pixels a row.
    pub(super) width: usize,
    /// Floats a pixel.
    pub(super) channels: usize,
}

impl Plane {
    /// Floats an image.
    pub(super) fn image(self) -> usize {
        self.height * self.width * self.channels
    }
}

/// A tile: its image and its first output pixel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    /// Its image.
    pub(super) image: usize,
    /// Row of its first output.
    pub(super) top: usize,
    /// Column of its first output.
    pub(super) left: usize,
}

/// The tiles of outputs [N, height, width], counted through the images row by row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    /// Rows of tiles an image.
    down: usize,
    /// Tiles a row.
    across: usize,
    /// Outputs a tile, each way.
    side: usize,
}

impl Grid {
    /// For tiles of `side` x `side` outputs.
    pub(super) fn new((height, width): (usize, usize), side: usize) -> Self {
        Self { down: height.div_ceil(side), across: width.div_ceil(side), side }
    }

    /// Tiles an image.
    pub(super) fn tiles(self) -> usize {
        self.down * self.across
    }

    pub(super) fn tile(self, index: usize) -> Tile {
        let (image, tile) = (index / self.tiles(), index % self.tiles());
        Tile { image, top: tile / self.across * self.side, left: tile % self.across * self.side }
    }

    /// `(k, tile)` for the k-th of `count` tiles from `first` on.
    pub(super) fn each(self, first: usize, count: usize) -> impl Iterator<Item = (usize, Tile)> {
        let mut next = self.tile(first);
        (0..count).map(move |k| {
            let tile = next;
            next.left += self.side;
            if next.left == self.across * self.side {
                (next.left, next.top) = (0, next.top + self.side);
            }
            if next.top == self.down * self.side {
                (next.top, next.image) = (0, next.image + 1);
            }
            (k, tile)
        })
    }
}

/// Distances of a row's first pixels, floats, in a form that the compiler cannot take apart: it would keep the sums of
/// pointers and distances, more than there are registers, on the stack.
#[derive(Clone, Copy)]
pub(super) struct Columns([usize; 6]);

impl Columns {
    pub(super) fn new(channels: usize) -> Self {
        Self(std::array::from_fn(|column| opaque(std::ptr::without_provenance(column * channels)).addr()))
    }
}

/// The pointer, of which the compiler knows nothing.
#[inline(always)]
#[allow(clippy::pointers_in_nomem_asm_block, reason = "the pointer itself is the value; nothing is read through it")]
fn opaque(mut pointer: *const f32) -> *const f32 {
    // SAFETY: no instructions; the pointer stays as it is.
    unsafe { asm!("/* {0} */", inout(reg) pointer, options(pure, nomem, nostack, preserves_flags)) };
    pointer
}

/// A square of `SIDE` x `SIDE` pixels that may reach over an image's edges, where it holds zeros.
pub(super) struct Window<V: Simd, const SIDE: usize> {
    /// Each row's first pixel, or zeros for a row outside; a column outside is masked, and its pixel may lie anywhere.
    rows: [*const f32; SIDE],
    /// Whether a column lies in the image.
    inside: [V::Mask; SIDE],
    /// Where columns lie in a row.
    columns: Columns,
}

impl<V: Simd, const SIDE: usize> Window<V, SIDE> {
    /// The window whose first pixel is `(top, left)` of an image; `zeros` holds a row of it, SIDE pixels of zeros.
    ///
    /// # Safety
    /// [`Simd`]'s; both pointers live as long as the window.
    #[inline(always)]
    pub(super) unsafe fn new(
        image: *const f32,
        (plane, columns): (Plane, Columns),
        (top, left): (isize, isize),
        zeros: *const f32,
    ) -> Self {
        let Plane { height, width, channels } = plane;
        let mut rows = [zeros; SIDE];
        let mut inside = [unsafe { V::mask(false) }; SIDE];
        for k in 0..SIDE {
            let (row, column) = (top + k as isize, left + k as isize);
            if row.cast_unsigned() < height {
                rows[k] = image.wrapping_offset((row * width as isize + left) * channels as isize);
            }
            // SAFETY: the caller's promise.
            inside[k] = unsafe { V::mask(column.cast_unsigned() < width) };
        }
        Self { rows, inside, columns }
    }

    /// The first pixel of `row`, from `channel` on.
    #[inline(always)]
    pub(super) fn row(&self, row: usize, channel: usize) -> *const f32 {
        opaque(self.rows[row].wrapping_add(channel))
    }

    /// A vector of the pixel in `column` of a row from [`Window::row`].
    ///
    /// # Safety
    /// [`Simd`]'s.
    #[inline(always)]
    pub(super) unsafe fn load(&self, row: *const f32, column: usize) -> V {
        // SAFETY: where the mask is on, the pixel lies in the image or among the zeros.
        unsafe { V::load_if(self.inside[column], row.wrapping_add(self.columns.0[column])) }
    }
}

/// A part of an array that is needed next, fetched piece by piece between other work.
pub(super) struct Ahead {
    /// The next cache line.
    next: *const u8,
    /// Lines left.
    lines: usize,
    /// Lines at a time.
    piece: usize,
}

impl Ahead {
    /// What the tiles from `from` to `to` cover of the images at `base`, by whole rows of tiles, to be fetched in `pieces`.
    pub(super) fn new(base: *const f32, plane: Plane, grid: Grid, (from, to): (usize, usize), pieces: usize) -> Self {
        let row = |tile: usize| {
            let Tile { image, top, left } = grid.tile(tile);
            let rows = if left == 0 { top } else { top + grid.side };
            (image * plane.height + rows.min(plane.height)) * plane.width * plane.channels
        };
        let lines = (row(to) - row(from)).div_ceil(16);
        Self { next: base.wrapping_add(row(from)).cast(), lines, piece: lines.div_ceil(pieces) }
    }

    /// Asks for the next piece. What lies beyond the array does no harm: nothing is read.
    #[inline(always)]
    pub(super) fn fetch(&mut self) {
        let lines = self.piece.min(self.lines);
        for _ in 0..lines {
            prefetch(self.next);
            self.next = self.next.wrapping_add(64);
        }
        self.lines -= lines;
    }
}
