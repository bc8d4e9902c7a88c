//! NVIDIA's NCCL, loaded when the first communicator is made.

use std::ffi::{CStr, c_int, c_uint};

use cudarc::driver::sys;
use cudarc::nccl::sys as nccl;

use super::failed;
use crate::error::GpuError;
use crate::nccl::{Handle, Library, Progress, Term, UniqueId};

/// What the library knows a configuration by that was filled in.
const MAGIC: c_uint = 0xcafe_beef;
/// The version whose configuration this is; later ones take it too.
const VERSION: c_uint = 22_600;
/// What leaves a choice to the library.
const UNDEFINED: c_int = c_int::MIN;

/// NCCL on a device's stream.
#[derive(Debug)]
pub(super) struct Nccl {
    context: sys::CUcontext,
    stream: sys::CUstream,
}

// SAFETY: handles may be used by any thread that has made the context its own, as each method does; those of communicators by one thread at a time, which owns them.
unsafe impl Send for Nccl {}
// SAFETY: as above.
unsafe impl Sync for Nccl {}

/// Whether the library is on this machine.
pub(super) fn is_present() -> bool {
    // SAFETY: it looks for a library and loads it.
    unsafe { nccl::is_culib_present() }
}

/// What a call came to: whether it is over, or goes on by itself.
fn come(doing: &'static str, result: nccl::ncclResult_t) -> Result<Progress, GpuError> {
    match result {
        nccl::ncclResult_t::ncclSuccess => Ok(Progress::Ready),
        nccl::ncclResult_t::ncclInProgress => Ok(Progress::Underway),
        other => {
            // SAFETY: the library's strings are constants.
            let words = unsafe { CStr::from_ptr(nccl::ncclGetErrorString(other)) };
            Err(GpuError::failed(doing, format!("NCCL: {} ({other:?})", words.to_string_lossy())))
        }
    }
}

impl Nccl {
    /// NCCL on a stream of a context, which both live longer.
    pub(super) fn new(context: sys::CUcontext, stream: sys::CUstream) -> Self {
        Self { context, stream }
    }

    fn enter(&self) -> Result<(), GpuError> {
        // SAFETY: the context lives longer.
        unsafe { super::enter(self.context) }
    }
}

fn communicator(of: Handle) -> nccl::ncclComm_t {
    of.0 as nccl::ncclComm_t
}

impl Library for Nccl {
    fn unique_id(&self) -> Result<UniqueId, GpuError> {
        let mut id = nccl::ncclUniqueId { internal: [0; UniqueId::BYTES] };
        // SAFETY: it fills in the id.
        come("name a communicator", unsafe { nccl::ncclGetUniqueId(&raw mut id) })?;
        Ok(UniqueId(id.internal.map(|byte| byte as u8)))
    }

    fn begin(&self, id: &UniqueId, rank: u32, world: u32) -> Result<Handle, GpuError> {
        self.enter()?;
        let id = nccl::ncclUniqueId { internal: id.0.map(|byte| byte as _) };
        let mut config = nccl::ncclConfig_t {
            size: size_of::<nccl::ncclConfig_t>(),
            magic: MAGIC,
            version: VERSION,
            blocking: 0,
            cgaClusterSize: UNDEFINED,
            minCTAs: UNDEFINED,
            maxCTAs: UNDEFINED,
            netName: std::ptr::null(),
            splitShare: UNDEFINED,
            trafficClass: UNDEFINED,
        };
        let mut handle = std::ptr::null_mut();
        // SAFETY: the configuration says its own size, and both are read before the call returns.
        let begun = unsafe {
            nccl::ncclCommInitRankConfig(&raw mut handle, world as c_int, id, rank as c_int, &raw mut config)
        };
        come("connect the ranks", begun)?;
        Ok(Handle(handle as u64))
    }

    unsafe fn progress(&self, of: Handle) -> Result<Progress, GpuError> {
        self.enter()?;
        let mut state = nccl::ncclResult_t::ncclSuccess;
        // SAFETY: as the trait's.
        come("look after the ranks", unsafe { nccl::ncclCommGetAsyncError(communicator(of), &raw mut state) })?;
        come("go on with the ranks", state)
    }

    unsafe fn all_reduce(&self, of: Handle, term: Term, at: u64, len: usize) -> Result<(), GpuError> {
        self.enter()?;
        let number = match term {
            Term::I64 => nccl::ncclDataType_t::ncclInt64,
            Term::F32 => nccl::ncclDataType_t::ncclFloat32,
        };
        let (from, to) = (at as *const _, at as *mut _);
        // SAFETY: as the trait's; in place.
        let begun = unsafe {
            nccl::ncclAllReduce(from, to, len, number, nccl::ncclRedOp_t::ncclSum, communicator(of), self.stream.cast())
        };
        come("sum over the ranks", begun).map(|_| ())
    }

    fn is_through(&self) -> Result<bool, GpuError> {
        self.enter()?;
        // SAFETY: the stream lives longer.
        match unsafe { sys::cuStreamQuery(self.stream) } {
            sys::CUresult::CUDA_SUCCESS => Ok(true),
            sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            other => Err(failed("finish what it was asked")(other)),
        }
    }

    unsafe fn finalize(&self, of: Handle) -> Result<(), GpuError> {
        self.enter()?;
        // SAFETY: as the trait's.
        come("end a communicator", unsafe { nccl::ncclCommFinalize(communicator(of)) }).map(|_| ())
    }

    unsafe fn destroy(&self, of: Handle) -> Result<(), GpuError> {
        self.enter()?;
        // SAFETY: as the trait's.
        come("take a communicator back", unsafe { nccl::ncclCommDestroy(communicator(of)) }).map(|_| ())
    }

    unsafe fn abort(&self, of: Handle) -> Result<(), GpuError> {
        self.enter()?;
        // SAFETY: as the trait's.
        come("abort a communicator", unsafe { nccl::ncclCommAbort(communicator(of)) }).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name needs no GPU, and NVIDIA's words for a failure neither.
    #[test]
    fn communicators_have_names_of_their_own_where_nccl_is() {
        if !is_present() {
            assert!(std::env::var_os("STRATH_REQUIRE_ALL").is_none(), "libnccl is not here");
            eprintln!("skipped: libnccl is not here; eval \"$(deploy/cuda/toolchain)\" brings it");
            return;
        }
        let library = Nccl::new(std::ptr::null_mut(), std::ptr::null_mut());
        let [one, other] = [0, 1].map(|_| library.unique_id().unwrap_or_else(|error| panic!("{error}")));
        assert_ne!(one, other);
        let failed = come("go on", nccl::ncclResult_t::ncclRemoteError).map_err(|error| error.to_string());
        assert!(failed.is_err_and(|error| error.contains("remote process exited")));
        assert_eq!(come("go on", nccl::ncclResult_t::ncclInProgress), Ok(Progress::Underway));
    }
}
