//! The least that a device has to do.

#![allow(unsafe_code, reason = "the edge of the device: addresses are its own")]

use std::ffi::c_void;
use std::fmt::Debug;

use crate::error::GpuError;

/// A matrix product of rows: `C = op(A) op(B)`, or that added to C.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Product {
    /// Rows of C and of op(A).
    pub rows: usize,
    /// Columns of C and of op(B).
    pub columns: usize,
    /// Columns of op(A), rows of op(B).
    pub inner: usize,
    /// Whether A lies as [inner, rows], and op(A) is its transpose.
    pub transposed_a: bool,
    /// Whether B lies as [columns, inner], and op(B) is its transpose.
    pub transposed_b: bool,
    /// Whether the product is added to what C holds.
    pub adds: bool,
}

/// So many products of one shape, whose matrices follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Products {
    /// Each one's shape.
    pub product: Product,
    /// How many.
    pub count: usize,
}

/// A convolution of images [N, H, W, C] with weights [O, kh, kw, C] to [N, oh, ow, O].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Convolution {
    /// N.
    pub images: usize,
    /// C.
    pub inputs: usize,
    /// H.
    pub height: usize,
    /// W.
    pub width: usize,
    /// O.
    pub outputs: usize,
    /// (kh, kw).
    pub kernel: (usize, usize),
    /// Pixels from one place of the kernel to the next, in both directions.
    pub stride: usize,
    /// Rows and columns of zeros around each image.
    pub padding: usize,
}

impl Convolution {
    /// (oh, ow).
    pub fn output(&self) -> (usize, usize) {
        let along = |size: usize, kernel: usize| {
            assert!(kernel <= size + 2 * self.padding && self.stride > 0, "a kernel fits its image: {self:?}");
            (size + 2 * self.padding - kernel) / self.stride + 1
        };
        (along(self.height, self.kernel.0), along(self.width, self.kernel.1))
    }

    /// Values of the images.
    pub fn input_values(&self) -> usize {
        self.images * self.height * self.width * self.inputs
    }

    /// Values of the result.
    pub fn output_values(&self) -> usize {
        let (height, width) = self.output();
        self.images * height * width * self.outputs
    }

    /// Values of the weights.
    pub fn weight_values(&self) -> usize {
        self.outputs * self.kernel.0 * self.kernel.1 * self.inputs
    }
}

/// Which of a convolution's three products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Images and weights to the result.
    Forward,
    /// The result's gradient and the weights to the images' gradient.
    Images,
    /// Images and the result's gradient to the weights' gradient.
    Weights,
}

/// A device with one stream: all that is asked of it happens in order, and nothing waits for it but [`upload`](Self::upload),
/// [`download`](Self::download) and [`wait`](Self::wait).
///
/// # Safety
/// Addresses that are given to its methods come from [`allocate`](Self::allocate), are not released yet, and what lies there is long enough.
pub trait Driver: Debug + Send + Sync {
    /// The device in words.
    fn name(&self) -> String;

    /// Memory of so many bytes, aligned to 256, of any content.
    fn allocate(&self, bytes: usize) -> Result<u64, GpuError>;

    /// Gives memory back.
    ///
    /// # Safety
    /// It was [allocated](Self::allocate) with so many bytes, and nobody uses it any more, on the stream neither.
    unsafe fn release(&self, at: u64, bytes: usize);

    /// Copies from the host; the host's bytes are read before it returns.
    ///
    /// # Safety
    /// As the trait says.
    unsafe fn upload(&self, from: &[u8], to: u64) -> Result<(), GpuError>;

    /// Copies to the host, after everything before.
    ///
    /// # Safety
    /// As the trait says.
    unsafe fn download(&self, from: u64, to: &mut [u8]) -> Result<(), GpuError>;

    /// Copies within the device.
    ///
    /// # Safety
    /// As the trait says; the two do not overlap.
    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), GpuError>;

    /// Sets bytes to 0.
    ///
    /// # Safety
    /// As the trait says.
    unsafe fn clear(&self, at: u64, bytes: usize) -> Result<(), GpuError>;

    /// Launches a kernel on a grid of blocks of `source::THREADS` threads.
    ///
    /// # Safety
    /// As the trait says; `arguments` point to values of the types of the kernel's parameters, in order, and it stays within what they point to.
    unsafe fn launch(
        &self,
        kernel: &'static str,
        grid: (u32, u32),
        arguments: &mut [*mut c_void],
    ) -> Result<(), GpuError>;

    /// Matrix products of f32, A, B and C by their addresses.
    ///
    /// # Safety
    /// As the trait says.
    unsafe fn products(&self, products: &Products, a: u64, b: u64, c: u64) -> Result<(), GpuError>;

    /// A convolution's product: of the two that [`Side`] names first into the third.
    ///
    /// # Safety
    /// As the trait says.
    unsafe fn convolution(
        &self,
        convolution: &Convolution,
        side: Side,
        first: u64,
        second: u64,
        out: u64,
    ) -> Result<(), GpuError>;

    /// Waits until everything asked for is done.
    fn wait(&self) -> Result<(), GpuError>;
}
