//! A device, and what is asked of it.

#![allow(
    unsafe_code,
    reason = "what is asked of a device is compared with the lengths of vectors here, so that nobody else has to"
)]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use strath_core::config::{Compute, MOST_STREAMS};
use strath_kernels::conv::Shape;

use crate::activation::Activation;
pub(crate) use crate::driver::Argument;
use crate::driver::{Convolution, Driver, Kernel, Number, Numbers, Products, Side};
use crate::error::GpuError;
use crate::nccl::Library;
use crate::source::THREADS;
use crate::vector::{Element, Part, PartMut, Vector};

/// A stream of a device, and the memory that goes round on it. Clones are the same stream.
#[derive(Clone)]
pub struct Gpu {
    shared: Arc<Shared>,
    number: usize,
}

struct Shared {
    /// The streams by their numbers; all but the first are opened when they are first asked for.
    streams: [OnceLock<Stream>; Gpu::MOST_STREAMS],
    /// Held while one is opened.
    opening: Mutex<()>,
    /// Whether a communicator on it was aborted: NCCL is not to be relied on afterwards.
    came_apart: AtomicBool,
    /// How often the host has waited for it.
    waits: AtomicU64,
}

struct Stream {
    driver: Box<dyn Driver>,
    /// Memory that nobody uses at the moment, by bytes: a step asks for the same lengths as the step before. What used it is done before
    /// whatever is asked of this stream next.
    free: Mutex<BTreeMap<usize, Vec<u64>>>,
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({}, stream {})", self.name(), self.number)
    }
}

impl Stream {
    fn new(driver: Box<dyn Driver>) -> Self {
        Self { driver, free: Mutex::default() }
    }

    fn free(&self) -> MutexGuard<'_, BTreeMap<usize, Vec<u64>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn opened(&self) -> impl Iterator<Item = &Stream> {
        self.streams.iter().filter_map(OnceLock::get)
    }

    /// Gives back all memory that nobody uses, once the device is through with everything.
    fn release_free(&self) -> Result<(), GpuError> {
        // Taken first: what is asked for from now on does not use it.
        let free: Vec<_> = self.opened().map(|stream| (stream, std::mem::take(&mut *stream.free()))).collect();
        // Where that fails the device has, and its memory with it.
        self.opened().try_for_each(|stream| stream.driver.wait())?;
        for (stream, free) in free {
            for (bytes, at) in
                free.into_iter().flat_map(|(bytes, places)| places.into_iter().map(move |at| (bytes, at)))
            {
                // SAFETY: it was allocated with so many bytes, its vector is gone, and what used it is through.
                unsafe { stream.driver.release(at, bytes) };
            }
        }
        Ok(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // What a device that has failed still holds goes with the process.
        let _ = self.release_free();
    }
}

impl Argument {
    /// An address that a kernel may do without.
    pub(crate) fn maybe<T: Element>(part: Option<Part<'_, T>>) -> Self {
        Self::Address(part.map_or(0, |part| part.at))
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
    /// Streams of a device at most: those of `cluster.streams`, and the first.
    pub const MOST_STREAMS: usize = MOST_STREAMS as usize + 1;

    /// The device that a driver drives, and its first stream.
    pub fn new(driver: impl Driver + 'static) -> Self {
        let streams: [OnceLock<Stream>; Self::MOST_STREAMS] = Default::default();
        let _ = streams[0].set(Stream::new(Box::new(driver)));
        let shared =
            Shared { streams, opening: Mutex::default(), came_apart: AtomicBool::new(false), waits: AtomicU64::new(0) };
        Self { shared: Arc::new(shared), number: 0 }
    }

    /// A stream of the same device, by its number; 0 is the first.
    ///
    /// Vectors are of the stream that they were asked from, and whatever is done with them is asked of that one. Work of two streams may happen at
    /// once: what one is to see of the other's goes by [`follow`](Self::follow) or [`Vector::lent`].
    ///
    /// # Errors
    /// As [`stale`](Self::stale), and the device's.
    ///
    /// # Panics
    /// From [`MOST_STREAMS`](Self::MOST_STREAMS) on.
    pub fn stream(&self, number: usize) -> Result<Self, GpuError> {
        let _opening = self.shared.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if self.shared.streams[number].get().is_none() {
            // Nobody else sets it meanwhile.
            let opened = self.with_room(|| self.driver().another())?;
            let _ = self.shared.streams[number].set(Stream::new(opened));
        }
        Ok(Self { shared: self.shared.clone(), number })
    }

    /// What is asked of this stream from now on happens after what was asked of another of the same device so far. Nobody waits.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// Where they are of two devices.
    pub fn follow(&self, other: &Self) -> Result<(), GpuError> {
        assert!(Arc::ptr_eq(&self.shared, &other.shared), "streams of one device");
        if self.number == other.number { Ok(()) } else { self.driver().after(other.driver().mark()?) }
    }

    /// Whether another is the same stream.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared) && self.number == other.number
    }

    fn this(&self) -> &Stream {
        self.shared.streams[self.number].get().expect("a handle is made of a stream that was opened")
    }

    /// The device in words.
    pub fn name(&self) -> String {
        self.driver().name()
    }

    /// What no other device is called, of any machine.
    pub fn identity(&self) -> String {
        self.driver().identity()
    }

    /// NCCL on this stream, where it is at hand and no communicator of this process was aborted.
    pub fn nccl(&self) -> Option<Arc<dyn Library>> {
        if self.shared.came_apart.load(Ordering::Relaxed) { None } else { self.driver().nccl() }
    }

    /// A communicator on it was aborted.
    pub(crate) fn came_apart(&self) {
        self.shared.came_apart.store(true, Ordering::Relaxed);
    }

    /// Keeps the device until the process ends: one that does not end what it was asked is not waited for.
    pub fn leave_behind(self) {
        std::mem::forget(self);
    }

    /// What it multiplies in.
    pub fn compute(&self) -> Compute {
        self.driver().compute()
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
        let kept = self.this().free().get_mut(&bytes).and_then(Vec::pop);
        let at = match kept {
            Some(at) => at,
            None => self.allocate(bytes)?,
        };
        Ok(Vector::new(self.clone(), at, bytes, len))
    }

    fn allocate(&self, bytes: usize) -> Result<u64, GpuError> {
        self.with_room(|| self.driver().allocate(bytes))
    }

    /// Does what may need memory, and once more without what waits to be used again where there was none.
    fn with_room<T>(&self, mut needs: impl FnMut() -> Result<T, GpuError>) -> Result<T, GpuError> {
        match needs() {
            Err(GpuError::Memory { .. }) => {
                self.shared.release_free()?;
                needs()
            }
            other => other,
        }
    }

    /// Takes memory back that nobody uses any more, but what was asked for before.
    pub(crate) fn take_back(&self, bytes: usize, at: u64) {
        self.this().free().entry(bytes).or_default().push(at);
    }

    /// Who does what vectors ask for, without waiting.
    pub(crate) fn driver(&self) -> &dyn Driver {
        &*self.this().driver
    }

    /// The same, to be waited for.
    pub(crate) fn awaited(&self) -> &dyn Driver {
        self.shared.waits.fetch_add(1, Ordering::Relaxed);
        self.driver()
    }

    /// How often the host has waited for everything asked of a stream to be done: each time that runs out of work.
    pub fn waits(&self) -> u64 {
        self.shared.waits.load(Ordering::Relaxed)
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
        arguments: impl AsRef<[Argument]>,
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
        arguments: impl AsRef<[Argument]>,
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
        let kernel = Kernel { name, activations: A::NUMBER };
        // SAFETY: as this function's.
        unsafe { self.driver().launch(kernel, grid, arguments.as_ref()) }
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
            self.driver().products(&products, Numbers { factors: A::NUMBER, result: C::NUMBER }, a.at, b.at, c.at)
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
        let product = Convolution { of: A::NUMBER, shape: *shape, side };
        // SAFETY: the lengths are those of the shape.
        self.with_room(|| unsafe { self.driver().convolution(&product, first.at, second.at, out.at) })
    }

    /// Waits until everything asked of this stream is done.
    ///
    /// # Errors
    /// What went wrong meanwhile.
    pub fn wait(&self) -> Result<(), GpuError> {
        self.awaited().wait()
    }
}
