//! NVIDIA's GPUs: memory and launches by the driver, kernels compiled by NVRTC when a device is opened, products by cuBLAS, convolutions by cuDNN.
//!
//! The libraries are loaded when they are first used. What needs one that is not there fails with its name.

#![allow(unsafe_code, reason = "the interfaces of NVIDIA's libraries")]

mod convolution;
mod nccl;
mod staging;

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int, c_longlong, c_void};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::cublas::{result as blas, sys as blas_sys};
use cudarc::driver::{result as driver, sys};
use cudarc::nvrtc;
use strath_core::config::Compute;
use strath_kernels::conv::Shape;

use self::convolution::Convolutions;
use self::staging::Staging;
use crate::driver::{Driver, Kernel, Number, Numbers, Product, Products, Side};
use crate::error::GpuError;
use crate::nccl::Library;
use crate::source::{KERNELS, THREADS};

/// A GPU.
pub struct Cuda {
    device: sys::CUdevice,
    context: sys::CUcontext,
    stream: sys::CUstream,
    /// The kernels for each kind of activation that it computes with.
    modules: Vec<(Number, sys::CUmodule)>,
    functions: Mutex<BTreeMap<Kernel, Function>>,
    /// Locked for a call: its workspace is one.
    blas: Mutex<blas_sys::cublasHandle_t>,
    /// What cuBLAS works in: given by hand, so that it is the same in every process.
    workspace: sys::CUdeviceptr,
    convolutions: Mutex<Convolutions>,
    staging: Mutex<Staging>,
    compute: Compute,
    name: String,
    uuid: String,
}

#[derive(Clone, Copy)]
struct Function(sys::CUfunction);

// SAFETY: handles may be used by any thread that has made the context its own, as each method does; those of cuBLAS and cuDNN by one thread at a time, which the locks and
// the one stream see to.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Send for Cuda {}
// SAFETY: as above.
unsafe impl Sync for Cuda {}

/// Bytes of cuBLAS's workspace, as NVIDIA recommends for this generation.
const WORKSPACE: usize = 32 << 20;

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cuda({})", self.name)
    }
}

fn failed<E: fmt::Debug>(doing: &'static str) -> impl Fn(E) -> GpuError {
    move |error| GpuError::failed(doing, format!("{error:?}"))
}

/// Fails with the name of a library that is not there; cudarc would panic.
fn find_libraries() -> Result<(), GpuError> {
    // SAFETY: they look for a library and load it.
    let found = unsafe {
        [
            ("NVIDIA's driver (libcuda)", sys::is_culib_present()),
            ("libnvrtc", nvrtc::sys::is_culib_present()),
            ("libcublas", blas_sys::is_culib_present()),
            ("libcudnn", cudarc::cudnn::sys::is_culib_present()),
        ]
    };
    match found.into_iter().find(|(_, is_there)| !is_there) {
        Some((library, _)) => Err(GpuError::Library { library }),
        None => Ok(()),
    }
}

/// GPUs of this machine: none where there is no driver.
pub fn devices() -> usize {
    // SAFETY: it looks for a library and loads it.
    if !unsafe { sys::is_culib_present() } || driver::init().is_err() {
        return 0;
    }
    driver::device::get_count().map_or(0, |count| count.max(0) as usize)
}

impl Cuda {
    /// The GPU of this number.
    ///
    /// # Errors
    /// [`GpuError::Library`] and [`GpuError::NoDevice`] with what is missing, else the words of the library that failed.
    pub fn open(number: usize, compute: Compute) -> Result<Self, GpuError> {
        find_libraries()?;
        let found = devices();
        if number >= found {
            return Err(GpuError::NoDevice { asked: number, found });
        }
        let device = driver::device::get(number as c_int).map_err(failed("find it"))?;
        let name = driver::device::get_name(device).map_err(failed("tell its name"))?;
        let uuid = driver::device::get_uuid(device).map_err(failed("tell its identity"))?;
        let uuid = format!("{:032x}", u128::from_be_bytes(uuid.bytes.map(|byte| byte as u8)));
        // SAFETY: the device was just found; the context is the process's, and current before anything is made in it.
        unsafe {
            let context = driver::primary_ctx::retain(device).map_err(failed("make a context"))?;
            enter(context)?;
            let stream =
                driver::stream::create(driver::stream::StreamKind::NonBlocking).map_err(failed("make a stream"))?;
            let mut modules = vec![(Number::F32, load_kernels(device, Number::F32)?)];
            if compute == Compute::Bf16 {
                modules.push((Number::Bf16, load_kernels(device, Number::Bf16)?));
            }
            let blas = blas::create_handle().map_err(failed("begin cuBLAS"))?;
            blas::set_stream(blas, stream.cast()).map_err(failed("begin cuBLAS"))?;
            // What is summed in parts is summed in f32 also where the result is rounded.
            let mode = blas_sys::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
            blas_sys::cublasSetMathMode(blas, mode).result().map_err(failed("begin cuBLAS"))?;
            let workspace = driver::malloc_sync(WORKSPACE).map_err(failed("give cuBLAS memory"))?;
            blas_sys::cublasSetWorkspace_v2(blas, workspace as *mut c_void, WORKSPACE)
                .result()
                .map_err(failed("give cuBLAS memory"))?;
            let convolutions = Mutex::new(Convolutions::new(stream, compute)?);
            let staging = Mutex::new(Staging::new(stream)?);
            let functions = Mutex::default();
            let blas = Mutex::new(blas);
            Ok(Self {
                device,
                context,
                stream,
                modules,
                functions,
                blas,
                workspace,
                convolutions,
                staging,
                compute,
                name,
                uuid,
            })
        }
    }

    /// Makes the device's context the calling thread's.
    fn enter(&self) -> Result<(), GpuError> {
        // SAFETY: the context lives as long as this.
        unsafe { enter(self.context) }
    }

    fn function(&self, kernel: Kernel) -> Result<Function, GpuError> {
        let mut functions = lock(&self.functions);
        if let Some(function) = functions.get(&kernel) {
            return Ok(*function);
        }
        let module = self.modules.iter().find(|(activations, _)| *activations == kernel.activations);
        let (_, module) = module.ok_or_else(|| {
            let cause = format!("{kernel:?}: it was opened for {:?}", self.compute);
            GpuError::failed("find a kernel", cause)
        })?;
        let name = CString::new(kernel.name).expect("names of kernels have no zeros");
        // SAFETY: the module lives as long as this.
        let function = unsafe { driver::module::get_function(*module, name) };
        let function = Function(function.map_err(failed("find a kernel"))?);
        functions.insert(kernel, function);
        Ok(function)
    }
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

/// Compiles the kernels for a device and loads them.
///
/// # Safety
/// Its context is current.
unsafe fn load_kernels(device: sys::CUdevice, activations: Number) -> Result<sys::CUmodule, GpuError> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    // SAFETY: as this function's.
    let [major, minor] = unsafe { [MAJOR, MINOR].map(|what| driver::device::get_attribute(device, what)) };
    let (major, minor) = (major.map_err(failed("tell its generation"))?, minor.map_err(failed("tell its generation"))?);
    let program = compiled(&format!("compute_{major}{minor}"), activations)?;
    // SAFETY: as this function's; the image ends with a zero, as NVRTC writes it.
    unsafe { driver::module::load_data(program.as_ptr().cast()) }.map_err(failed("load its kernels"))
}

/// The kernels as PTX for a generation of devices, a zero behind it.
fn compiled(architecture: &str, activations: Number) -> Result<Vec<c_char>, GpuError> {
    let activation = match activations {
        Number::F32 => "float",
        Number::Bf16 => "bf16",
    };
    let options = nvrtc::CompileOptions {
        fmad: Some(false),
        options: vec![
            "--std=c++17".into(),
            format!("-DACTIVATION={activation}"),
            format!("--gpu-architecture={architecture}"),
        ],
        name: Some("kernels.cu".into()),
        ..Default::default()
    };
    let program = nvrtc::compile_ptx_with_opts(KERNELS, options).map_err(|error| match error {
        nvrtc::CompileError::CompileError { log, .. } => GpuError::failed("compile its kernels", log.to_string_lossy()),
        other => GpuError::failed("compile its kernels", format!("{other:?}")),
    })?;
    let mut image: Vec<c_char> = program.as_bytes().unwrap_or_default().iter().map(|byte| *byte as c_char).collect();
    image.push(0);
    Ok(image)
}

impl Drop for Cuda {
    fn drop(&mut self) {
        // A device that has failed cannot be tidied up; the process is about to end.
        let _ = self.wait();
        // SAFETY: nothing is under way, and nobody holds any of it any more.
        unsafe {
            let _ = blas::destroy_handle(*lock(&self.blas));
            lock(&self.convolutions).end();
            lock(&self.staging).end();
            let _ = driver::free_sync(self.workspace);
            for (_, module) in &self.modules {
                let _ = driver::module::unload(*module);
            }
            let _ = driver::stream::destroy(self.stream);
            let _ = driver::primary_ctx::release(self.device);
        }
    }
}

impl Driver for Cuda {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn identity(&self) -> String {
        self.uuid.clone()
    }

    fn nccl(&self) -> Option<Arc<dyn Library>> {
        nccl::is_present().then(|| Arc::new(nccl::Nccl::new(self.context, self.stream)) as Arc<dyn Library>)
    }

    fn compute(&self) -> Compute {
        self.compute
    }

    fn allocate(&self, bytes: usize) -> Result<u64, GpuError> {
        self.enter()?;
        // SAFETY: the size is not 0.
        unsafe { driver::malloc_sync(bytes) }.map_err(|error| match error.0 {
            sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => GpuError::Memory { bytes },
            _ => failed("give memory")(error),
        })
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

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), GpuError> {
        if bytes == 0 {
            return Ok(());
        }
        self.enter()?;
        // SAFETY: as the trait's.
        unsafe { driver::memcpy_dtod_async(to, from, bytes, self.stream) }.map_err(failed("copy values"))
    }

    unsafe fn fill(&self, at: u64, byte: u8, bytes: usize) -> Result<(), GpuError> {
        if bytes == 0 {
            return Ok(());
        }
        self.enter()?;
        // SAFETY: as the trait's.
        unsafe { driver::memset_d8_async(at, byte, bytes, self.stream) }.map_err(failed("fill values"))
    }

    unsafe fn launch(&self, kernel: Kernel, (x, y): (u32, u32), arguments: &mut [*mut c_void]) -> Result<(), GpuError> {
        self.enter()?;
        let function = self.function(kernel)?;
        // SAFETY: as the trait's.
        unsafe { driver::launch_kernel(function.0, (x, y, 1), (THREADS, 1, 1), 0, self.stream, arguments) }
            .map_err(|error| GpuError::failed("launch a kernel", format!("{}: {error:?}", kernel.name)))
    }

    unsafe fn products(&self, products: &Products, of: Numbers, a: u64, b: u64, c: u64) -> Result<(), GpuError> {
        use blas_sys::cublasOperation_t::{CUBLAS_OP_N, CUBLAS_OP_T};
        let Products { product: Product { rows, columns, inner, transposed_a, transposed_b, adds }, count } = *products;
        self.enter()?;
        let (one, beta) = (1.0f32, f32::from(u8::from(adds)));
        let operation = |is_transposed| if is_transposed { CUBLAS_OP_T } else { CUBLAS_OP_N };
        let compute = match (of.factors, self.compute) {
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
                *blas,
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

    unsafe fn convolution(
        &self,
        of: Number,
        shape: &Shape,
        side: Side,
        first: u64,
        second: u64,
        out: u64,
    ) -> Result<(), GpuError> {
        self.enter()?;
        // SAFETY: as the trait's.
        unsafe { lock(&self.convolutions).run(of, shape, side, first, second, out) }
    }

    fn wait(&self) -> Result<(), GpuError> {
        self.enter()?;
        // SAFETY: the stream lives as long as this.
        unsafe { driver::stream::synchronize(self.stream) }.map_err(failed("finish what it was asked"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NVRTC needs no GPU.
    #[test]
    fn kernels_are_compiled_where_nvrtc_is() {
        // SAFETY: it looks for a library and loads it.
        if !unsafe { nvrtc::sys::is_culib_present() } {
            eprintln!("skipped: libnvrtc is not here; eval \"$(deploy/cuda/toolchain)\" brings it");
            return;
        }
        for activations in [Number::F32, Number::Bf16] {
            let image = compiled("compute_90", activations).unwrap_or_else(|error| panic!("{error}"));
            let text: String = image.iter().map(|byte| *byte as u8 as char).collect();
            for kernel in ["add_fixed", "cross_entropy", "column_gradients"] {
                assert!(text.contains(&format!(".entry {kernel}(")), "{kernel} is not among the kernels");
            }
        }
    }

    #[test]
    fn a_machine_without_a_driver_says_so() {
        if devices() == 0 {
            let error = Cuda::open(0, Compute::F32).err();
            assert!(matches!(error, Some(GpuError::Library { .. } | GpuError::NoDevice { .. })), "{error:?}");
        }
    }
}
