//! A GPU: its context, and the kernels that were compiled for it.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int};
use std::sync::Mutex;

use cudarc::cublas::sys as blas_sys;
use cudarc::driver::{result as driver, sys};
use cudarc::nvrtc;
use strath_core::config::Compute;

use super::{enter, failed, lock};
use crate::driver::{Kernel, Number};
use crate::error::GpuError;
use crate::source::KERNELS;

/// What the streams of a GPU have in common.
pub(super) struct Device {
    ordinal: sys::CUdevice,
    context: sys::CUcontext,
    /// The kernels for each kind of activation that it computes with.
    modules: Vec<(Number, sys::CUmodule)>,
    functions: Mutex<BTreeMap<Kernel, Function>>,
    compute: Compute,
    name: String,
    uuid: String,
}

#[derive(Clone, Copy)]
struct Function(sys::CUfunction);

// SAFETY: handles may be used by any thread that has made the context its own, as whoever uses them does.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

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

impl Device {
    /// The GPU of this number.
    ///
    /// # Errors
    /// As [`Cuda::open`](super::Cuda::open).
    pub(super) fn open(number: usize, compute: Compute) -> Result<Self, GpuError> {
        find_libraries()?;
        let found = devices();
        if number >= found {
            return Err(GpuError::NoDevice { asked: number, found });
        }
        let ordinal = driver::device::get(number as c_int).map_err(failed("find it"))?;
        let name = driver::device::get_name(ordinal).map_err(failed("tell its name"))?;
        let uuid = driver::device::get_uuid(ordinal).map_err(failed("tell its identity"))?;
        let uuid = format!("{:032x}", u128::from_be_bytes(uuid.bytes.map(|byte| byte as u8)));
        // SAFETY: the device was just found; the context is the process's, and current before anything is made in it.
        unsafe {
            let context = driver::primary_ctx::retain(ordinal).map_err(failed("make a context"))?;
            let (modules, functions) = (Vec::new(), Mutex::default());
            let mut opened = Self { ordinal, context, modules, functions, compute, name, uuid };
            opened.enter()?;
            opened.modules.push((Number::F32, load_kernels(ordinal, Number::F32)?));
            if compute == Compute::Bf16 {
                opened.modules.push((Number::Bf16, load_kernels(ordinal, Number::Bf16)?));
            }
            Ok(opened)
        }
    }

    pub(super) fn context(&self) -> sys::CUcontext {
        self.context
    }

    pub(super) fn compute(&self) -> Compute {
        self.compute
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn uuid(&self) -> &str {
        &self.uuid
    }

    /// Makes its context the calling thread's.
    pub(super) fn enter(&self) -> Result<(), GpuError> {
        // SAFETY: the context lives as long as this.
        unsafe { enter(self.context) }
    }

    /// A kernel; the context is current.
    pub(super) fn function(&self, kernel: Kernel) -> Result<sys::CUfunction, GpuError> {
        let mut functions = lock(&self.functions);
        if let Some(function) = functions.get(&kernel) {
            return Ok(function.0);
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
        Ok(function.0)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.enter().is_err() {
            return;
        }
        // SAFETY: its streams are gone, and with them whoever uses any of it.
        unsafe {
            for (_, module) in &self.modules {
                let _ = driver::module::unload(*module);
            }
            let _ = driver::primary_ctx::release(self.ordinal);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// NVRTC needs no GPU.
    #[test]
    fn kernels_are_compiled_where_nvrtc_is() {
        // SAFETY: it looks for a library and loads it.
        if !unsafe { nvrtc::sys::is_culib_present() } {
            assert!(std::env::var_os("STRATH_REQUIRE_ALL").is_none(), "libnvrtc is not here");
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
            let error = Device::open(0, Compute::F32).err();
            assert!(matches!(error, Some(GpuError::Library { .. } | GpuError::NoDevice { .. })), "{error:?}");
        }
    }
}
