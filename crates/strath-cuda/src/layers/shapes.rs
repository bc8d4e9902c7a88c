//! Values that move and do not change, and means over an image.

#![allow(unsafe_code, reason = "launches of kernels, whose vectors' lengths are compared before")]

use strath_kernels::Dims;

use super::norm::column_sums;
use crate::activation::Activation;
use crate::error::GpuError;
use crate::gpu::{Argument as Arg, Gpu, Grid};
use crate::vector::{Element, Part, PartMut, Vector};

fn int(size: usize) -> Arg {
    Arg::Int(size as i32)
}

/// `out` values by a kernel of one thread a value of the result, which is given x, the result, `shape` and the length.
///
/// # Safety
/// With that shape the kernel stays within x and a result of `out` values.
unsafe fn moved<F: Element, A: Activation, const N: usize>(
    gpu: &Gpu,
    kernel: &'static str,
    x: Part<'_, F>,
    out: usize,
    shape: [Arg; N],
) -> Result<Vector<A>, GpuError> {
    let mut y = gpu.stale(out)?;
    let ends = ([x.address(), y.all_mut().address()], [Arg::Long(out as i64)]);
    let arguments: Vec<Arg> = ends.0.into_iter().chain(shape).chain(ends.1).collect();
    // SAFETY: as this function's.
    unsafe { gpu.launch_of::<A>(kernel, Grid::Elements(out), arguments)? };
    Ok(y)
}

/// Images [N, C, H, W] as [N, H, W, C].
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where there are not as many values as the shape says.
pub fn channels_last<A: Activation>(x: &Vector<f32>, dims: Dims) -> Result<Vector<A>, GpuError> {
    assert_eq!(x.len(), dims.values(), "{dims:?}");
    let shape = [int(dims.channels), int(dims.height * dims.width)];
    // SAFETY: the same values in another order.
    unsafe { moved(x.gpu(), "channels_last", x.all(), x.len(), shape) }
}

/// Weights [O, C, k] as [O, k, C], k = kh kw.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where there are no whole filters.
pub fn filters_channels_last<A: Activation>(
    gpu: &Gpu,
    w: Part<'_, f32>,
    channels: usize,
    kernel: usize,
) -> Result<Vector<A>, GpuError> {
    assert!(w.len().is_multiple_of(channels * kernel), "whole filters");
    // SAFETY: the same values in another order.
    unsafe { moved(gpu, "kernel_last_to_channels_last", w, w.len(), [int(channels), int(kernel)]) }
}

/// The other way: [O, k, C] as [O, C, k].
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where there are no whole filters, or no room for them.
pub fn filters_kernel_last<A: Activation>(
    dw: &Vector<A>,
    channels: usize,
    kernel: usize,
    to: &mut PartMut<'_, f32>,
) -> Result<(), GpuError> {
    assert!(dw.len().is_multiple_of(channels * kernel) && to.len == dw.len(), "whole filters");
    let arguments = [dw.all().address(), to.address(), int(channels), int(kernel), Arg::Long(dw.len() as i64)];
    // SAFETY: the same values in another order.
    unsafe { dw.gpu().launch_of::<A>("channels_last_to_kernel_last", Grid::Elements(dw.len()), arguments) }
}

/// Each square patch of images [N, C, H, W] as a row, [N, patches, C patch patch].
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the images are not of whole patches.
pub fn patches<A: Activation>(x: &Vector<f32>, dims: Dims, patch: usize) -> Result<Vector<A>, GpuError> {
    assert_eq!(x.len(), dims.values(), "{dims:?}");
    assert!(dims.height.is_multiple_of(patch) && dims.width.is_multiple_of(patch), "whole patches");
    let shape = [int(dims.channels), int(dims.height), int(dims.width), int(patch)];
    // SAFETY: the same values in another order.
    unsafe { moved(x.gpu(), "patches", x.all(), x.len(), shape) }
}

/// The parameter-free shortcut of He et al. 2016 (option A): every `stride`-th pixel, with `added` channels of zeros, half of them in front.
#[derive(Debug, Clone, Copy)]
pub struct Subsample {
    /// The images that are taken from.
    pub dims: Dims,
    /// Pixels from one to the next that is taken.
    pub stride: usize,
    /// Channels of zeros.
    pub added: usize,
}

impl Subsample {
    /// The shape of the result.
    pub fn output(&self) -> Dims {
        let Self { dims: Dims { images, height, width, channels }, stride, added } = *self;
        Dims { images, height: height.div_ceil(stride), width: width.div_ceil(stride), channels: channels + added }
    }

    fn shape(&self) -> [Arg; 6] {
        let Dims { height, width, channels, .. } = self.dims;
        [height, width, channels, self.stride, self.added / 2, channels + self.added].map(int)
    }

    /// Forward.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// Where there are not as many values as the shape says.
    pub fn forward<A: Activation>(&self, x: &Vector<A>) -> Result<Vector<A>, GpuError> {
        assert_eq!(x.len(), self.dims.values(), "{self:?}");
        // SAFETY: pixels and channels that are taken lie within x.
        unsafe { moved(x.gpu(), "subsample", x.all(), self.output().values(), self.shape()) }
    }

    /// The gradient of x from the result's.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// Where there are not as many values as the shape says.
    pub fn backward<A: Activation>(&self, g: &Vector<A>) -> Result<Vector<A>, GpuError> {
        assert_eq!(g.len(), self.output().values(), "{self:?}");
        // SAFETY: what a pixel that is taken went to lies within g.
        unsafe { moved(g.gpu(), "subsample_backward", g.all(), self.dims.values(), self.shape()) }
    }
}

/// Means over the pixels of [N, H, W, C], [N, C].
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where there are not as many values as the shape says.
pub fn average<A: Activation>(x: &Vector<A>, dims: Dims) -> Result<Vector<A>, GpuError> {
    assert_eq!(x.len(), dims.values(), "{dims:?}");
    let shape = [int(dims.height * dims.width), int(dims.channels)];
    // SAFETY: a thread reads its channel's pixels of its image.
    unsafe { moved(x.gpu(), "average", x.all(), dims.images * dims.channels, shape) }
}

/// The way back of [`average`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where there are not as many values as the shape says.
pub fn average_backward<A: Activation>(g: &Vector<A>, dims: Dims) -> Result<Vector<A>, GpuError> {
    assert_eq!(g.len(), dims.images * dims.channels, "{dims:?}");
    let shape = [int(dims.height * dims.width), int(dims.channels)];
    // SAFETY: a thread reads its image's and channel's value.
    unsafe { moved(g.gpu(), "average_backward", g.all(), dims.values(), shape) }
}

/// Patches [N, T - 1, dim] with the class token before them and the positions [T, dim] added, [N, T, dim].
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the lengths do not fit.
pub fn with_class<A: Activation>(
    x: &Vector<A>,
    class: Part<'_, f32>,
    positions: Part<'_, f32>,
) -> Result<Vector<A>, GpuError> {
    let (dim, image) = (class.len(), positions.len());
    assert!(image.is_multiple_of(dim) && image > dim && x.len().is_multiple_of(image - dim), "whole images");
    let images = x.len() / (image - dim);
    let mut y = x.gpu().stale(images * image)?;
    let arguments = [
        x.all().address(),
        class.address(),
        positions.address(),
        y.all_mut().address(),
        int(image / dim),
        int(dim),
        Arg::Long((images * image) as i64),
    ];
    // SAFETY: every thread stays below the length, and finds its patch, token and position.
    unsafe { x.gpu().launch_of::<A>("with_class", Grid::Elements(images * image), arguments)? };
    Ok(y)
}

/// The way back of [`with_class`]: the gradient of the patches, those of class token and positions.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the lengths do not fit.
pub fn with_class_backward<A: Activation>(
    g: &Vector<A>,
    dim: usize,
    of_class: &mut PartMut<'_, f32>,
    of_positions: &mut PartMut<'_, f32>,
) -> Result<Vector<A>, GpuError> {
    let image = of_positions.len;
    assert!(image.is_multiple_of(dim) && g.len().is_multiple_of(image) && of_class.len == dim, "whole images");
    column_sums(g, of_positions)?;
    // The class token's is the first row of the positions'.
    let images = g.len() / image;
    let first = first_row(g, image / dim, dim)?;
    column_sums(&first, of_class)?;
    let shape = [int(image / dim), int(dim)];
    // SAFETY: the same rows without each image's first.
    unsafe { moved(g.gpu(), "without_first", g.all(), images * (image - dim), shape) }
}

/// The first row of each image of [N, T, dim], [N, dim].
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where there are no whole images.
pub fn first_row<A: Activation>(x: &Vector<A>, tokens: usize, dim: usize) -> Result<Vector<A>, GpuError> {
    assert!(x.len().is_multiple_of(tokens * dim), "whole images");
    // SAFETY: a row of each image.
    unsafe { moved(x.gpu(), "first_row", x.all(), x.len() / tokens, [int(tokens), int(dim)]) }
}

/// The way back of [`first_row`].
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where there are no whole rows.
pub fn first_row_backward<A: Activation>(g: &Vector<A>, tokens: usize, dim: usize) -> Result<Vector<A>, GpuError> {
    assert!(g.len().is_multiple_of(dim), "whole rows");
    // SAFETY: a row for each image.
    unsafe { moved(g.gpu(), "first_row_backward", g.all(), g.len() * tokens, [int(tokens), int(dim)]) }
}
