//! The least that a device has to do.

#![allow(unsafe_code, reason = "the edge of the device: addresses are its own")]

use std::ffi::c_void;
use std::fmt::Debug;
use std::sync::Arc;

use strath_core::config::Compute;
use strath_kernels::conv::Shape;

use crate::error::GpuError;
use crate::nccl::Library;

/// What numbers are, in the device's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Number {
    /// IEEE 754 binary32.
    F32,
    /// The upper half of one: eight bits of exponent, seven of mantissa.
    Bf16,
}

/// A kernel of [`KERNELS`](crate::KERNELS), in the form for activations of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kernel {
    /// Its name.
    pub name: &'static str,
    /// What it takes an activation to be.
    pub activations: Number,
}

/// What a kernel is given.
#[derive(Debug, Clone, Copy)]
pub enum Argument {
    /// Where a vector lies; 0 for one that the kernel does without.
    Address(u64),
    /// A C `int`.
    Int(i32),
    /// A C `long long`.
    Long(i64),
    /// A C `float`.
    Float(f32),
    /// A C `double`.
    Double(f64),
}

impl Argument {
    /// Where its value lies, as launches are told: it is only read.
    pub fn value(&self) -> *mut c_void {
        match self {
            Self::Address(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Int(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Long(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Float(value) => std::ptr::from_ref(value).cast_mut().cast(),
            Self::Double(value) => std::ptr::from_ref(value).cast_mut().cast(),
        }
    }
}

/// All that was asked of a stream up to some moment, as its device names that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(pub u64);

/// A copy to the host that has begun, as its device names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copying(pub u64);

/// What the matrices of a product are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// A and B.
    pub factors: Number,
    /// C.
    pub result: Number,
}

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

/// Which product of a convolution of images [N, H, W, C] with weights [O, kh, kw, C] to [N, oh, ow, O].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Images and weights to the result.
    Forward,
    /// The result's gradient and the weights to the images' gradient.
    Images,
    /// Images and the result's gradient to the weights' gradient.
    Weights,
}

impl Side {
    /// Values of the two that it takes, and of the one that it gives.
    pub fn lengths(self, shape: &Shape) -> (usize, usize, usize) {
        let (x, w, y) = (shape.images * shape.input_values(), shape.weights(), shape.images * shape.output_values());
        match self {
            Self::Forward => (x, w, y),
            Self::Images => (y, w, x),
            Self::Weights => (x, y, w),
        }
    }
}

/// One of a convolution's products, all three of its tensors of one kind of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Convolution {
    /// What the tensors are made of.
    pub of: Number,
    /// The convolution's.
    pub shape: Shape,
    /// Which of its products.
    pub side: Side,
}

/// A stream of a device: all that is asked of it happens in order, and nothing waits for it but [`download`](Self::download),
/// [`take`](Self::take) and [`wait`](Self::wait). What is asked of two streams happens in any order, or at once, but for [marks](Self::mark).
///
/// # Safety
/// Addresses that are given to its methods come from [`allocate`](Self::allocate), are not released yet, and what lies there is long enough.
pub trait Driver: Debug + Send + Sync {
    /// The device in words.
    fn name(&self) -> String;

    /// What no other device is called, of any machine.
    fn identity(&self) -> String;

    /// Another stream of the device.
    fn another(&self) -> Result<Box<dyn Driver>, GpuError>;

    /// Marks what was asked of this stream so far. Another thread may mark more before a mark is [waited for](Self::after), which then may come after that too.
    fn mark(&self) -> Result<Mark, GpuError>;

    /// What is asked of this stream from now on happens after what another of the same device has marked. Nobody waits.
    fn after(&self, mark: Mark) -> Result<(), GpuError>;

    /// NCCL on this stream, where it is at hand. The device is to live longer.
    fn nccl(&self) -> Option<Arc<dyn Library>>;

    /// What it multiplies in: [`Compute::Bf16`] wants activations of bf16, the others of f32.
    fn compute(&self) -> Compute;

    /// Memory of so many bytes, aligned to 256, of any content.
    fn allocate(&self, bytes: usize) -> Result<u64, GpuError>;

    /// Gives memory back.
    ///
    /// # Safety
    /// It was [allocated](Self::allocate) with so many bytes, and nobody uses it any more, on no stream either.
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

    /// Begins a copy to the host, after everything asked of this stream before and beside what is asked of it later; nobody waits. What lies there is not written
    /// before the copy was [taken](Self::take) or [given up](Self::give_up), which each is once.
    ///
    /// # Safety
    /// As the trait says.
    unsafe fn begin_download(&self, from: u64, bytes: usize) -> Result<Copying, GpuError>;

    /// Waits for a copy, and takes what it brought: as many bytes as it was begun with, or it panics.
    fn take(&self, copy: Copying, to: &mut [u8]) -> Result<(), GpuError>;

    /// Nobody takes a copy any more. Whatever is asked of this stream from now on comes after it.
    fn give_up(&self, copy: Copying);

    /// Copies within the device.
    ///
    /// # Safety
    /// As the trait says; the two do not overlap.
    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), GpuError>;

    /// Sets all of some bytes to one.
    ///
    /// # Safety
    /// As the trait says.
    unsafe fn fill(&self, at: u64, byte: u8, bytes: usize) -> Result<(), GpuError>;

    /// Launches a kernel on a grid of blocks of `source::THREADS` threads.
    ///
    /// # Safety
    /// As the trait says; `arguments` are of the types of the kernel's parameters, in order, and it stays within what they point to.
    unsafe fn launch(&self, kernel: Kernel, grid: (u32, u32), arguments: &[Argument]) -> Result<(), GpuError>;

    /// Matrix products, A, B and C by their addresses; sums are taken in f32 at least.
    ///
    /// # Safety
    /// As the trait says.
    unsafe fn products(&self, products: &Products, of: Numbers, a: u64, b: u64, c: u64) -> Result<(), GpuError>;

    /// A convolution's product: of the two that [`Side`] names first into the third; sums are taken in f32 at least.
    ///
    /// # Safety
    /// As the trait says.
    unsafe fn convolution(&self, product: &Convolution, first: u64, second: u64, out: u64) -> Result<(), GpuError>;

    /// Waits until everything asked of this stream is done.
    fn wait(&self) -> Result<(), GpuError>;
}
