//! NVIDIA's GPUs: memory and launches by the driver, kernels compiled by NVRTC when a device is opened, products by cuBLAS, convolutions by cuDNN.
//!
//! The libraries are loaded when they are first used. What needs one that is not there fails with its name.

#![allow(unsafe_code, reason = "the interfaces of NVIDIA's libraries")]

mod convolution;
mod copies;
mod device;
mod nccl;
mod owned;
mod pinned;
mod staging;

use std::ffi::{c_int, c_longlong, c_void};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::cublas::result::CublasError;
use cudarc::cublas::{result as blas, sys as blas_sys};
use cudarc::driver::{DriverError, result as driver, sys};
use strath_core::config::Compute;

use self::convolution::Convolutions;
use self::copies::Copies;
use self::device::Device;
use self::owned::Owned;
use self::staging::Staging;
use crate::driver::{Argument, Convolution, Copying, Driver, Kernel, Mark, Number, Numbers, Product, Products};
use crate::error::GpuError;
use crate::nccl::Library;
use crate::source::THREADS;

pub use self::device::devices;

/// A stream of a GPU. What it is made of ends in the order of the fields.
pub struct Cuda {
    /// Locked for a call: its workspace is one.
    blas: Mutex<Owned<blas_sys::cublasHandle_t, CublasError>>,
    /// What cuBLAS works in: given by hand, so that it is the same in every process.
    _workspace: Owned<sys::CUdeviceptr, DriverError>,
    convolutions: Mutex<Convolutions>,
    staging: Mutex<Staging>,
    copies: Mutex<Copies>,
    /// What is recorded for a mark, each time anew: who waits for it waits for what it was when asked to.
    marked: Owned<sys::CUevent, DriverError>,
    stream: Owned<sys::CUstream, DriverError>,
    gpu: Arc<Device>,
}

// SAFETY: handles may be used by any thread that has made the context its own, as each method does; those of cuBLAS and cuDNN by one thread at a time, which the locks and
// the one stream see to.
unsafe impl Send for Cuda {}
// SAFETY: as above.
unsafe impl Sync for Cuda {}

/// Bytes of cuBLAS's workspace, as NVIDIA recommends for this generation.
const WORKSPACE: usize = 32 << 20;

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cuda({})", self.gpu.name())
    }
}

fn failed<E: fmt::Debug>(doing: &'static str) -> impl Fn(E) -> GpuError {
    move |error| GpuError::failed(doing, format!("{error:?}"))
}

impl Cuda {
    /// The GPU of this number, and its first stream.
    ///
    /// # Errors
    /// [`GpuError::Library`] and [`GpuError::NoDevice`] with what is missing, else the words of the library that failed.
    pub fn open(number: usize, compute: Compute) -> Result<Self, GpuError> {
        Self::on(Arc::new(Device::open(number, compute)?))
    }

    /// A stream of a device.
    fn on(gpu: Arc<Device>) -> Result<Self, GpuError> {
        gpu.enter()?;
        // SAFETY: the context is current, and lives longer than what is made in it here.
        unsafe {
            let stream = stream()?;
            let marked = Owned::new(event()?, driver::event::destroy);
            let workspace = Owned::new(allocated(WORKSPACE)?, driver::free_sync);
            let blas = blas::create_handle().map_err(failed("begin cuBLAS"))?;
            let blas = Owned::new(blas, blas::destroy_handle);
            blas::set_stream(blas.get(), stream.get().cast()).map_err(failed("begin cuBLAS"))?;
            // What is summed in parts is summed in f32 also where the result is rounded.
            let mode = blas_sys::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
            blas_sys::cublasSetMathMode(blas.get(), mode).result().map_err(failed("begin cuBLAS"))?;
            blas_sys::cublasSetWorkspace_v2(blas.get(), workspace.get() as *mut c_void, WORKSPACE)
                .result()
                .map_err(failed("give cuBLAS memory"))?;
            let staging = Mutex::new(Staging::new(stream.get())?);
            let copies = Mutex::new(Copies::new(stream.get()));
            let convolutions = Mutex::new(Convolutions::new(stream.get(), gpu.compute())?);
            let blas = Mutex::new(blas);
            Ok(Self { blas, _workspace: workspace, convolutions, staging, copies, marked, stream, gpu })
        }
    }

    /// Makes the device's context the calling thread's.
    fn enter(&self) -> Result<(), GpuError> {
        self.gpu.enter()
    }
}

/// Memory of so many bytes, not 0.
///
/// # Safety
/// The device's context is current.
unsafe fn allocated(bytes: usize) -> Result<sys::CUdeviceptr, GpuError> {
    // SAFETY: as this function's.
    unsafe { driver::malloc_sync(bytes) }.map_err(|error| match error.0 {
        sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => GpuError::Memory { bytes },
        _ => failed("give memory")(error),
    })
}

/// A stream that waits for no other.
///
/// # Safety
/// A context is current, and lives longer.
unsafe fn stream() -> Result<Owned<sys::CUstream, DriverError>, GpuError> {
    let stream = driver::stream::create(driver::stream::StreamKind::NonBlocking).map_err(failed("make a stream"))?;
    // SAFETY: as this function's.
    Ok(unsafe { Owned::new(stream, driver::stream::destroy) })
}

/// An event of the current context, for order alone.
fn event() -> Result<sys::CUevent, GpuError> {
    driver::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING).map_err(failed("make an event"))
}

/// Has what a stream is asked for from now on come after what an event was recorded for last.
///
/// # Safety
/// Both live.
unsafe fn after(stream: sys::CUstream, event: sys::CUevent) -> Result<(), GpuError> {
    let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
    // SAFETY: as this function's.
    unsafe { driver::stream::wait_event(stream, event, flags) }.map_err(failed("order its work"))
}

/// Makes a context the calling thread's.
///
/// # Safety
/// It lives.
unsafe fn enter(context: sys::CUcontext) -> Result<(), GpuError> {
    // SAFETY: as this function's.
    unsafe { driver::ctx::set_current(context) }.map_err(failed("use its context"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // It makes the context current, too. A device that has failed cannot be tidied up; the process is about to end.
        let _ = self.wait();
        // SAFETY: nothing is under way, and nobody holds any of it any more.
        unsafe {
            lock(&self.convolutions).end();
            lock(&self.staging).end();
            lock(&self.copies).end();
        }
    }
}

impl Driver for Cuda {
    fn name(&self) -> String {
        self.gpu.name().into()
    }

    fn identity(&self) -> String {
        self.gpu.uuid().into()
    }

    fn another(&self) -> Result<Box<dyn Driver>, GpuError> {
        Ok(Box::new(Self::on(self.gpu.clone())?))
    }

    fn mark(&self) -> Result<Mark, GpuError> {
        self.enter()?;
        // SAFETY: event and stream live as long as this.
        unsafe { driver::event::record(self.marked.get(), self.stream.get()) }.map_err(failed("mark its work"))?;
        Ok(Mark(self.marked.get() as u64))
    }

    fn after(&self, mark: Mark) -> Result<(), GpuError> {
        self.enter()?;
        // SAFETY: the stream lives as long as this, and the event is one of another stream of the device, which live as long as each other.
        unsafe { after(self.stream.get(), mark.0 as sys::CUevent) }
    }

    fn nccl(&self) -> Option<Arc<dyn Library>> {
        nccl::is_present().then(|| Arc::new(nccl::Nccl::new(self.gpu.context(), self.stream.get())) as Arc<dyn Library>)
    }

    fn compute(&self) -> Compute {
        self.gpu.compute()
    }

    fn allocate(&self, bytes: usize) -> Result<u64, GpuError> {
        self.enter()?;
        // SAFETY: its context is current.
        unsafe { allocated(bytes) }
    }

    unsafe fn release(&self, at: u64, _: usize) {
        if self.enter().is_ok() {
            // SAFETY: as the trait's. A device that has failed keeps its memory until the process ends.
            let _ = unsafe { driver::free_sync(at) };
        }
    }

    unsafe fn upload(&self, from: &[u8], to: u64) -> Result<(), GpuError> {
        self.enter()?;
        // SAFETY: as the trait's.
        unsafe { lock(&self.staging).upload(from, to) }
    }

    unsafe fn download(&self, from: u64, to: &mut [u8]) -> Result<(), GpuError> {
        self.enter()?;
        // SAFETY: as the trait's.
        unsafe { lock(&self.staging).download(from, to)? };
        // Also of nothing, which is waited for all the same.
        self.wait()
    }

    unsafe fn begin_download(&self, from: u64, bytes: usize) -> Result<Copying, GpuError> {
        let asked = self.mark()?;
        // SAFETY: as the trait's; marking has made the context current.
        unsafe { lock(&self.copies).begin(asked, from, bytes) }
    }

    fn take(&self, copy: Copying, to: &mut [u8]) -> Result<(), GpuError> {
        self.enter()?;
        let place = lock(&self.copies).place_of(copy, to.len());
        // Others may begin copies meanwhile.
        let waited = place.settle();
        if waited.is_ok() {
            // SAFETY: the copy of as many bytes is over, and the next waits until this one was taken.
            to.copy_from_slice(unsafe { place.front(to.len()) });
        }
        lock(&self.copies).taken(copy);
        waited
    }

    fn give_up(&self, copy: Copying) {
        // Where that fails the device has.
        let _ = self.enter();
        lock(&self.copies).give_up(copy);
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), GpuError> {
        if bytes == 0 {
            return Ok(());
        }
        self.enter()?;
        // SAFETY: as the trait's.
        unsafe { driver::memcpy_dtod_async(to, from, bytes, self.stream.get()) }.map_err(failed("copy values"))
    }

    unsafe fn fill(&self, at: u64, byte: u8, bytes: usize) -> Result<(), GpuError> {
        if bytes == 0 {
            return Ok(());
        }
        self.enter()?;
        // SAFETY: as the trait's.
        unsafe { driver::memset_d8_async(at, byte, bytes, self.stream.get()) }.map_err(failed("fill values"))
    }

    unsafe fn launch(&self, kernel: Kernel, (x, y): (u32, u32), arguments: &[Argument]) -> Result<(), GpuError> {
        self.enter()?;
        let function = self.gpu.function(kernel)?;
        let mut values: Vec<*mut c_void> = arguments.iter().map(Argument::value).collect();
        // SAFETY: as the trait's. The values are read before it returns, and nobody writes them.
        unsafe { driver::launch_kernel(function, (x, y, 1), (THREADS, 1, 1), 0, self.stream.get(), &mut values) }
            .map_err(|error| GpuError::failed("launch a kernel", format!("{}: {error:?}", kernel.name)))
    }

    unsafe fn products(&self, products: &Products, of: Numbers, a: u64, b: u64, c: u64) -> Result<(), GpuError> {
        use blas_sys::cublasOperation_t::{CUBLAS_OP_N, CUBLAS_OP_T};
        let Products { product: Product { rows, columns, inner, transposed_a, transposed_b, adds }, count } = *products;
        self.enter()?;
        let (one, beta) = (1.0f32, f32::from(u8::from(adds)));
        let operation = |is_transposed| if is_transposed { CUBLAS_OP_T } else { CUBLAS_OP_N };
        let compute = match (of.factors, self.gpu.compute()) {
            (Number::Bf16, _) => blas_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
            (Number::F32, Compute::Tf32) => blas_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            (Number::F32, Compute::F32 | Compute::Bf16) => blas_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_PEDANTIC,
        };
        let kind = |number| match number {
            Number::F32 => blas_sys::cudaDataType::CUDA_R_32F,
            Number::Bf16 => blas_sys::cudaDataType::CUDA_R_16BF,
        };
        let (factor, result) = (kind(of.factors), kind(of.result));
        let (leading_a, leading_b) =
            (if transposed_a { rows } else { inner }, if transposed_b { inner } else { columns });
        let blas = lock(&self.blas);
        // cuBLAS counts by columns: what lies as C by rows is C' by columns, and C' = op(B)' op(A)'.
        // SAFETY: as the trait's.
        unsafe {
            blas::gemm_strided_batched_ex(
                blas.get(),
                operation(transposed_b),
                operation(transposed_a),
                columns as c_int,
                rows as c_int,
                inner as c_int,
                std::ptr::from_ref(&one).cast(),
                b as *const c_void,
                factor,
                leading_b as c_int,
                (inner * columns) as c_longlong,
                a as *const c_void,
                factor,
                leading_a as c_int,
                (rows * inner) as c_longlong,
                std::ptr::from_ref(&beta).cast(),
                c as *mut c_void,
                result,
                columns as c_int,
                (rows * columns) as c_longlong,
                count as c_int,
                compute,
                blas_sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .map_err(failed("multiply matrices"))
    }

    unsafe fn convolution(&self, product: &Convolution, first: u64, second: u64, out: u64) -> Result<(), GpuError> {
        self.enter()?;
        // SAFETY: as the trait's.
        unsafe { lock(&self.convolutions).run(product, first, second, out) }
    }

    fn wait(&self) -> Result<(), GpuError> {
        self.enter()?;
        // SAFETY: the stream lives as long as this.
        unsafe { driver::stream::synchronize(self.stream.get()) }.map_err(failed("finish what it was asked"))
    }
}
