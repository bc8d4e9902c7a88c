//! A device, and vectors in its memory.

#![allow(unsafe_code, reason = "addresses and lengths are kept together here, so that nobody else has to")]

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use half::bf16;
use strath_core::config::Compute;
use strath_kernels::conv::Shape;

use crate::activation::Activation;
use crate::driver::{Driver, Kernel, Number, Numbers, Products, Side};
use crate::error::GpuError;
use crate::nccl::Library;
use crate::source::THREADS;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
    impl Sealed for f64 {}
    impl Sealed for i64 {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
}

/// A number that vectors are made of: every pattern of bits is one.
pub trait Element: sealed::Sealed + Copy + Default + Send + Sync + 'static {}
impl Element for f32 {}
impl Element for bf16 {}
impl Element for f64 {}
impl Element for i64 {}
impl Element for u32 {}
impl Element for u64 {}

/// A device and the memory that goes round on it. Clones are the same device.
#[derive(Clone)]
pub struct Gpu(Arc<Shared>);

struct Shared {
    driver: Box<dyn Driver>,
    /// Memory that nobody uses at the moment, by bytes: a step asks for the same lengths as the step before.
    free: Mutex<BTreeMap<usize, Vec<u64>>>,
    /// Whether a communicator on it was aborted: NCCL is not to be relied on afterwards.
    came_apart: AtomicBool,
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({})", self.0.driver.name())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // What is still under way uses the memory.
        let is_idle = self.driver.wait().is_ok();
        let free = std::mem::take(self.free.get_mut().unwrap_or_else(PoisonError::into_inner));
        for (bytes, places) in free.into_iter().filter(|_| is_idle) {
            for at in places {
                // SAFETY: it was allocated with so many bytes, its vector is gone, and the stream is empty.
                unsafe { self.driver.release(at, bytes) };
            }
        }
    }
}

/// What a kernel is given.
pub(crate) enum Argument {
    Address(u64),
    Int(i32),
    Long(i64),
    Float(f32),
    Double(f64),
}

impl Argument {
    /// An address that a kernel may do without.
    pub(crate) fn maybe<T: Element>(part: Option<Part<'_, T>>) -> Self {
        Self::Address(part.map_or(0, |part| part.at))
    }

    fn value(&mut self) -> *mut c_void {
        match self {
            Self::Address(value) => std::ptr::from_mut(value).cast(),
            Self::Int(value) => std::ptr::from_mut(value).cast(),
            Self::Long(value) => std::ptr::from_mut(value).cast(),
            Self::Float(value) => std::ptr::from_mut(value).cast(),
            Self::Double(value) => std::ptr::from_mut(value).cast(),
        }
    }
}

/// The shape of a launch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Grid {
    /// A thread for each of so many elements.
    Elements(usize),
    /// Blocks by columns and rows.
    Blocks(usize, usize),
}

impl Gpu {
    /// The device that a driver drives.
    pub fn new(driver: impl Driver + 'static) -> Self {
        Self(Arc::new(Shared { driver: Box::new(driver), free: Mutex::default(), came_apart: AtomicBool::new(false) }))
    }

    /// The device in words.
    pub fn name(&self) -> String {
        self.0.driver.name()
    }

    /// What no other device is called, of any machine.
    pub fn identity(&self) -> String {
        self.0.driver.identity()
    }

    /// NCCL on this device, where it is at hand and no communicator of this process was aborted.
    pub fn nccl(&self) -> Option<Arc<dyn Library>> {
        if self.0.came_apart.load(Ordering::Relaxed) { None } else { self.0.driver.nccl() }
    }

    /// A communicator on it was aborted.
    pub(crate) fn came_apart(&self) {
        self.0.came_apart.store(true, Ordering::Relaxed);
    }

    /// Keeps the device until the process ends: one that does not end what it was asked is not waited for.
    pub fn leave_behind(self) {
        std::mem::forget(self);
    }

    /// What it multiplies in.
    pub fn compute(&self) -> Compute {
        self.0.driver.compute()
    }

    /// What activations are made of in what it multiplies in.
    pub fn activations(&self) -> Number {
        match self.compute() {
            Compute::F32 | Compute::Tf32 => Number::F32,
            Compute::Bf16 => Number::Bf16,
        }
    }

    /// A vector of values that are left from before: whoever asks for it overwrites them all.
    ///
    /// # Errors
    /// [`GpuError::Memory`] where the device has none left, also without what waits to be used again.
    pub fn stale<T: Element>(&self, len: usize) -> Result<Vector<T>, GpuError> {
        let bytes = len.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_next_multiple_of(256));
        let bytes = bytes.ok_or(GpuError::Memory { bytes: usize::MAX })?.max(256);
        let kept = self.free().get_mut(&bytes).and_then(Vec::pop);
        let at = match kept {
            Some(at) => at,
            None => self.allocate(bytes)?,
        };
        Ok(Vector { gpu: self.clone(), at, bytes, len, of: PhantomData })
    }

    fn allocate(&self, bytes: usize) -> Result<u64, GpuError> {
        self.with_room(|| self.0.driver.allocate(bytes))
    }

    /// Does what may need memory, and once more without what waits to be used again where there was none.
    fn with_room<T>(&self, mut needs: impl FnMut() -> Result<T, GpuError>) -> Result<T, GpuError> {
        match needs() {
            Err(GpuError::Memory { .. }) => {
                // Taken first: what is asked for from now on does not use it.
                let free = std::mem::take(&mut *self.free());
                // Where that fails the device has, and its memory with it.
                self.0.driver.wait()?;
                for (bytes, places) in free {
                    for at in places {
                        // SAFETY: it was allocated with so many bytes, its vector is gone, and what used it is through.
                        unsafe { self.0.driver.release(at, bytes) };
                    }
                }
                needs()
            }
            other => other,
        }
    }

    fn free(&self) -> std::sync::MutexGuard<'_, BTreeMap<usize, Vec<u64>>> {
        self.0.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A vector of zeros.
    ///
    /// # Errors
    /// As [`stale`](Self::stale), and the device's.
    pub fn zeros<T: Element>(&self, len: usize) -> Result<Vector<T>, GpuError> {
        let mut vector = self.stale(len)?;
        vector.clear()?;
        Ok(vector)
    }

    /// A copy of the host's values.
    ///
    /// # Errors
    /// As [`stale`](Self::stale), and the device's.
    pub fn copied<T: Element>(&self, values: &[T]) -> Result<Vector<T>, GpuError> {
        let mut vector = self.stale(values.len())?;
        vector.upload(values)?;
        Ok(vector)
    }

    /// Launches a kernel that has nothing to do with activations, or takes them as f32.
    ///
    /// # Safety
    /// As [`launch_of`](Self::launch_of).
    pub(crate) unsafe fn launch(
        &self,
        kernel: &'static str,
        grid: Grid,
        arguments: impl AsMut<[Argument]>,
    ) -> Result<(), GpuError> {
        // SAFETY: as this function's.
        unsafe { self.launch_of::<f32>(kernel, grid, arguments) }
    }

    /// Launches a kernel for activations of a kind.
    ///
    /// # Safety
    /// The arguments are of the types of the kernel's parameters, in order, and with them it stays within the vectors that they point to.
    pub(crate) unsafe fn launch_of<A: Activation>(
        &self,
        name: &'static str,
        grid: Grid,
        mut arguments: impl AsMut<[Argument]>,
    ) -> Result<(), GpuError> {
        let (x, y) = match grid {
            Grid::Elements(len) => (len.div_ceil(THREADS as usize), 1),
            Grid::Blocks(x, y) => (x, y),
        };
        if x == 0 || y == 0 {
            return Ok(());
        }
        let too_large =
            |_| GpuError::Failed { doing: "launch a kernel", cause: format!("{x} x {y} blocks are too many") };
        let grid = (u32::try_from(x).map_err(too_large)?, u32::try_from(y).map_err(too_large)?);
        let mut values: Vec<*mut c_void> = arguments.as_mut().iter_mut().map(Argument::value).collect();
        let kernel = Kernel { name, activations: A::NUMBER };
        // SAFETY: as this function's.
        unsafe { self.0.driver.launch(kernel, grid, &mut values) }
    }

    /// `C = op(A) op(B)` so many times.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// Where a part has not the length of its matrices.
    pub fn products<A: Activation, C: Activation>(
        &self,
        products: Products,
        a: Part<'_, A>,
        b: Part<'_, A>,
        c: &mut PartMut<'_, C>,
    ) -> Result<(), GpuError> {
        let Products { product: p, count } = products;
        assert_eq!(a.len, count * p.rows * p.inner, "A has the length of its matrices");
        assert_eq!(b.len, count * p.inner * p.columns, "B has the length of its matrices");
        assert_eq!(c.len, count * p.rows * p.columns, "C has the length of its matrices");
        // SAFETY: the lengths are those of the shapes.
        unsafe {
            self.0.driver.products(&products, Numbers { factors: A::NUMBER, result: C::NUMBER }, a.at, b.at, c.at)
        }
    }

    /// One of a convolution's products.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// Where a part has not the length that the shape says.
    pub fn convolution<A: Activation>(
        &self,
        shape: &Shape,
        side: Side,
        first: Part<'_, A>,
        second: Part<'_, A>,
        out: &mut PartMut<'_, A>,
    ) -> Result<(), GpuError> {
        assert_eq!((first.len, second.len, out.len), side.lengths(shape), "{side:?} of {shape:?}");
        // SAFETY: the lengths are those of the shape.
        self.with_room(|| unsafe { self.0.driver.convolution(A::NUMBER, shape, side, first.at, second.at, out.at) })
    }

    /// Waits until everything asked for is done.
    ///
    /// # Errors
    /// What went wrong meanwhile.
    pub fn wait(&self) -> Result<(), GpuError> {
        self.0.driver.wait()
    }
}

/// Numbers in the device's memory, which goes back to be used again when they are dropped.
pub struct Vector<T: Element> {
    gpu: Gpu,
    at: u64,
    bytes: usize,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Element> fmt::Debug for Vector<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vector({} values on {:?})", self.len, self.gpu)
    }
}

impl<T: Element> Drop for Vector<T> {
    fn drop(&mut self) {
        self.gpu.free().entry(self.bytes).or_default().push(self.at);
    }
}

/// A part of a vector.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a, T: Element> {
    pub(crate) at: u64,
    pub(crate) len: usize,
    of: PhantomData<&'a T>,
}

/// A part of a vector that is written.
#[derive(Debug)]
pub struct PartMut<'a, T: Element> {
    pub(crate) at: u64,
    pub(crate) len: usize,
    of: PhantomData<&'a mut T>,
}

impl<T: Element> Part<'_, T> {
    pub(crate) fn address(self) -> Argument {
        Argument::Address(self.at)
    }

    /// Values.
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

impl<T: Element> PartMut<'_, T> {
    pub(crate) fn address(&mut self) -> Argument {
        Argument::Address(self.at)
    }
}

impl<T: Element> Vector<T> {
    /// The device that it lies on.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of it.
    pub fn all(&self) -> Part<'_, T> {
        self.part(0..self.len)
    }

    /// All of it, to be written.
    pub fn all_mut(&mut self) -> PartMut<'_, T> {
        self.part_mut(0..self.len)
    }

    /// Some of it.
    ///
    /// # Panics
    /// Where it has no such values.
    pub fn part(&self, range: Range<usize>) -> Part<'_, T> {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {} values", self.len);
        Part { at: self.at + (range.start * size_of::<T>()) as u64, len: range.len(), of: PhantomData }
    }

    /// Some of it, to be written.
    ///
    /// # Panics
    /// Where it has no such values.
    pub fn part_mut(&mut self, range: Range<usize>) -> PartMut<'_, T> {
        let Part { at, len, .. } = self.part(range);
        PartMut { at, len, of: PhantomData }
    }

    /// Several parts that do not overlap, to be written.
    ///
    /// # Panics
    /// Where they overlap, or it has no such values.
    pub fn parts_mut<const N: usize>(&mut self, ranges: [Range<usize>; N]) -> [PartMut<'_, T>; N] {
        for (at, range) in ranges.iter().enumerate() {
            let overlap = |other: &Range<usize>| other.start < range.end && range.start < other.end;
            assert!(!ranges[..at].iter().any(overlap), "{ranges:?} overlap");
        }
        ranges.map(|range| {
            let Part { at, len, .. } = self.part(range);
            PartMut { at, len, of: PhantomData }
        })
    }

    /// Overwrites all values by the host's.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// Where there are not as many.
    pub fn upload(&mut self, values: &[T]) -> Result<(), GpuError> {
        assert_eq!(values.len(), self.len, "as many values as the vector has");
        // SAFETY: numbers without padding are bytes, and as many as the vector has.
        unsafe {
            let bytes = std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values));
            self.gpu.0.driver.upload(bytes, self.at)
        }
    }

    /// Copies all values into the host's.
    ///
    /// # Errors
    /// The device's, also of what was asked for before.
    ///
    /// # Panics
    /// Where there are not as many.
    pub fn download(&self, values: &mut [T]) -> Result<(), GpuError> {
        assert_eq!(values.len(), self.len, "as many values as the vector has");
        // SAFETY: every pattern of bits is a number, and there are as many as the vector has.
        unsafe {
            let bytes = std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values));
            self.gpu.0.driver.download(self.at, bytes)
        }
    }

    /// All values, on the host.
    ///
    /// # Errors
    /// As [`download`](Self::download).
    pub fn to_host(&self) -> Result<Vec<T>, GpuError> {
        let mut values = vec![T::default(); self.len];
        self.download(&mut values)?;
        Ok(values)
    }

    /// Sets all values to 0.
    ///
    /// # Errors
    /// The device's.
    pub fn clear(&mut self) -> Result<(), GpuError> {
        // SAFETY: as many bytes as the vector has.
        unsafe { self.gpu.0.driver.clear(self.at, self.len * size_of::<T>()) }
    }

    /// A copy on the device.
    ///
    /// # Errors
    /// As [`Gpu::stale`], and the device's.
    pub fn duplicate(&self) -> Result<Self, GpuError> {
        let copy = self.gpu.stale(self.len)?;
        // SAFETY: two vectors of one length.
        unsafe { self.gpu.0.driver.copy(self.at, copy.at, self.len * size_of::<T>())? };
        Ok(copy)
    }
}
