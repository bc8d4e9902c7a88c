//! A device, and what is asked of it.

#![allow(
    unsafe_code,
    reason = "what is asked of a device is compared with the lengths of vectors here, so that nobody else has to"
)]

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use strath_core::config::Compute;
use strath_kernels::conv::Shape;

use crate::activation::Activation;
use crate::driver::{Driver, Kernel, Number, Numbers, Products, Side};
use crate::error::GpuError;
use crate::nccl::Library;
use crate::source::THREADS;
use crate::vector::{Element, Part, PartMut, Vector};

/// A device and the memory that goes round on it. Clones are the same device.
#[derive(Clone)]
pub struct Gpu(Arc<Shared>);

struct Shared {
    driver: Box<dyn Driver>,
    /// Memory that nobody uses at the moment, by bytes: a step asks for the same lengths as the step before.
    free: Mutex<BTreeMap<usize, Vec<u64>>>,
    /// Whether a communicator on it was aborted: NCCL is not to be relied on afterwards.
    came_apart: AtomicBool,
    /// How often the host has waited for it.
    waits: AtomicU64,
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
        Self(Arc::new(Shared {
            driver: Box::new(driver),
            free: Mutex::default(),
            came_apart: AtomicBool::new(false),
            waits: AtomicU64::new(0),
        }))
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
        Ok(Vector::new(self.clone(), at, bytes, len))
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

    /// Takes memory back that nobody uses any more, but what was asked for before.
    pub(crate) fn take_back(&self, bytes: usize, at: u64) {
        self.free().entry(bytes).or_default().push(at);
    }

    /// Who does what vectors ask for, without waiting.
    pub(crate) fn driver(&self) -> &dyn Driver {
        &*self.0.driver
    }

    /// The same, to be waited for.
    pub(crate) fn awaited(&self) -> &dyn Driver {
        self.0.waits.fetch_add(1, Ordering::Relaxed);
        &*self.0.driver
    }

    /// How often the host has waited for everything asked for to be done: each time the device runs out of work.
    pub fn waits(&self) -> u64 {
        self.0.waits.load(Ordering::Relaxed)
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
        self.awaited().wait()
    }
}
