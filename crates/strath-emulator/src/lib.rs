//! A device that is the processor: the same kernels, compiled by the machine's C++ compiler, on the host's memory.
//!
//! It rounds as the device it stands for: factors to ten bits of mantissa with `tf32`, what is stored to bf16 with `bf16`. It shows whether indices, arithmetic and the shapes of launches are right, and nothing of speed, nor of races between blocks or between threads of one; products and convolutions are plain sums in f64. What is asked of several streams it does in
//! orders that nobody promised.

#![allow(unsafe_code, reason = "code that was compiled a moment ago, on addresses of the host")]

mod arithmetic;
mod copies;
mod nccl;
mod streams;

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use libloading::Library;

use strath_core::config::Compute;
use strath_cuda::nccl::Library as Nccl;
use strath_cuda::{Argument, Convolution, Copying, Driver, GpuError, Kernel, Mark, Numbers, Products, THREADS};

use crate::copies::Copies;
use crate::streams::Streams;

type Launch = unsafe extern "C" fn(*const c_char, c_uint, c_uint, c_uint, *mut *mut c_void) -> c_int;

/// A library of kernels. The shim's threads are globals of it, so one launch runs at a time.
type Kernels = (Library, Mutex<Launch>);

/// The kernels for activations of f32 and of bf16, loaded when they are first asked for.
static KERNELS_OF_PROCESS: OnceLock<Result<[Kernels; 2], GpuError>> = OnceLock::new();

/// How many were opened.
static OPENED: AtomicU64 = AtomicU64::new(0);

/// The processor as a device.
pub struct Emulator {
    kernels: &'static [Kernels; 2],
    compute: Compute,
    number: u64,
    streams: Arc<Streams>,
    stream: usize,
    copies: Copies,
    nccl: Arc<nccl::Files>,
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Emulator")
    }
}

impl Emulator {
    /// The processor as a device that multiplies in `compute`.
    ///
    /// # Errors
    /// [`GpuError`] where there was no C++ compiler when this was built.
    pub fn new(compute: Compute) -> Result<Self, GpuError> {
        let kernels = KERNELS_OF_PROCESS.get_or_init(find).as_ref().map_err(Clone::clone)?;
        let number = OPENED.fetch_add(1, Ordering::Relaxed);
        Ok(Self::on(kernels, compute, number, Arc::new(Streams::new(number + 1))))
    }

    fn on(kernels: &'static [Kernels; 2], compute: Compute, number: u64, streams: Arc<Streams>) -> Self {
        let stream = streams.open();
        let nccl = Arc::new(nccl::Files::new(streams.clone(), stream));
        Self { kernels, compute, number, streams, stream, copies: Copies::default(), nccl }
    }

    fn ask(&self, work: impl FnOnce() -> Result<(), GpuError> + Send + 'static) -> Result<(), GpuError> {
        self.streams.ask(self.stream, work)
    }

    /// The processor as a device, for a test: `None`, which is said, where it cannot be.
    ///
    /// # Panics
    /// With STRATH_REQUIRE_ALL in the environment, in place of `None`.
    pub fn or_skip(compute: Compute) -> Option<Self> {
        match Self::new(compute) {
            Ok(emulator) => Some(emulator),
            Err(error) if std::env::var_os("STRATH_REQUIRE_ALL").is_some() => panic!("{error}"),
            Err(error) => {
                eprintln!("skipped: {error}");
                None
            }
        }
    }
}

fn find() -> Result<[Kernels; 2], GpuError> {
    let failed = |cause: &dyn fmt::Display| GpuError::failed("find kernels for the processor", cause);
    let missing = env!("STRATH_EMULATOR_MISSING");
    if !missing.is_empty() {
        return Err(failed(&format!("{missing}; install a C++ compiler, and build again")));
    }
    let load = |path| load(Path::new(path)).map_err(|error| failed(&error));
    Ok([load(env!("STRATH_EMULATOR_F32"))?, load(env!("STRATH_EMULATOR_BF16"))?])
}

fn load(path: &Path) -> Result<Kernels, libloading::Error> {
    // SAFETY: it was compiled from the sources of this crate, and does nothing when it is loaded.
    unsafe {
        let library = Library::new(path)?;
        let launch: Launch = *library.get::<Launch>(b"strath_launch")?;
        Ok((library, Mutex::new(launch)))
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 256).expect("256 is a power of two, and no test asks for half of the address space")
}

impl Driver for Emulator {
    fn name(&self) -> String {
        "emulated".into()
    }

    fn identity(&self) -> String {
        format!("emulated-{}-{}", std::process::id(), self.number)
    }

    fn another(&self) -> Result<Box<dyn Driver>, GpuError> {
        Ok(Box::new(Self::on(self.kernels, self.compute, self.number, self.streams.clone())))
    }

    fn mark(&self) -> Result<Mark, GpuError> {
        Ok(self.streams.mark(self.stream))
    }

    fn after(&self, mark: Mark) -> Result<(), GpuError> {
        self.streams.after(self.stream, mark);
        Ok(())
    }

    fn nccl(&self) -> Option<Arc<dyn Nccl>> {
        Some(self.nccl.clone())
    }

    fn compute(&self) -> Compute {
        self.compute
    }

    fn allocate(&self, bytes: usize) -> Result<u64, GpuError> {
        // SAFETY: vectors have at least 256 bytes.
        let at = unsafe { alloc(layout(bytes)) };
        if at.is_null() {
            return Err(GpuError::Memory { bytes });
        }
        // SAFETY: so many bytes were allocated. What is read before it is written is to be seen.
        unsafe { at.write_bytes(0xff, bytes) };
        Ok(at as u64)
    }

    unsafe fn release(&self, at: u64, bytes: usize) {
        // SAFETY: it was allocated so.
        unsafe { dealloc(at as *mut u8, layout(bytes)) };
    }

    unsafe fn upload(&self, from: &[u8], to: u64) -> Result<(), GpuError> {
        let from = from.to_vec();
        self.ask(move || {
            // SAFETY: as the trait's.
            unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to as *mut u8, from.len()) };
            Ok(())
        })
    }

    unsafe fn download(&self, from: u64, to: &mut [u8]) -> Result<(), GpuError> {
        self.wait()?;
        // SAFETY: as the trait's.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    unsafe fn begin_download(&self, from: u64, bytes: usize) -> Result<Copying, GpuError> {
        // SAFETY: as the trait's.
        unsafe { self.copies.begin(&self.streams, self.stream, from, bytes) }
    }

    fn take(&self, copy: Copying, to: &mut [u8]) -> Result<(), GpuError> {
        self.copies.take(&self.streams, copy, to)
    }

    fn give_up(&self, copy: Copying) {
        self.copies.give_up(&self.streams, self.stream, copy);
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), GpuError> {
        self.ask(move || {
            // SAFETY: as the trait's.
            unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
            Ok(())
        })
    }

    unsafe fn fill(&self, at: u64, byte: u8, bytes: usize) -> Result<(), GpuError> {
        self.ask(move || {
            // SAFETY: as the trait's.
            unsafe { (at as *mut u8).write_bytes(byte, bytes) };
            Ok(())
        })
    }

    unsafe fn launch(&self, kernel: Kernel, (x, y): (u32, u32), arguments: &[Argument]) -> Result<(), GpuError> {
        let name = CString::new(kernel.name).expect("names of kernels have no zeros");
        let (kernels, arguments) = (self.kernels, arguments.to_vec());
        self.ask(move || {
            let mut values: Vec<*mut c_void> = arguments.iter().map(Argument::value).collect();
            let (_, launch) = &kernels[kernel.activations as usize];
            let launch = launch.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: as the trait's.
            match unsafe { launch(name.as_ptr(), x, y, THREADS, values.as_mut_ptr()) } {
                0 => Ok(()),
                _ => Err(GpuError::failed("launch a kernel", format!("src/table.h does not have {}", kernel.name))),
            }
        })
    }

    unsafe fn products(&self, products: &Products, of: Numbers, a: u64, b: u64, c: u64) -> Result<(), GpuError> {
        let (compute, products) = (self.compute, *products);
        self.ask(move || {
            // SAFETY: as the trait's.
            unsafe { arithmetic::products(compute, &products, of, a, b, c) };
            Ok(())
        })
    }

    unsafe fn convolution(&self, product: &Convolution, first: u64, second: u64, out: u64) -> Result<(), GpuError> {
        let (compute, product) = (self.compute, *product);
        self.ask(move || {
            // SAFETY: as the trait's.
            unsafe { arithmetic::convolution(compute, &product, first, second, out) };
            Ok(())
        })
    }

    fn wait(&self) -> Result<(), GpuError> {
        self.streams.finish(self.stream)
    }
}
