//! The ranks of a generation as NCCL connects them.

#![allow(unsafe_code, reason = "handles and addresses are kept together here, so that nobody else has to")]

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::{Handle, Library, Progress, Term, UniqueId};
use crate::error::GpuError;
use crate::gpu::Gpu;
use crate::vector::Vector;

/// An abort that takes longer has failed.
const ABORT_DEADLINE: Duration = Duration::from_secs(5);
/// Ranks that end a communicator in order wait for each other at most so long.
const END_DEADLINE: Duration = Duration::from_secs(2);
/// What a device was asked beside sums is done within this time.
const IDLE_DEADLINE: Duration = Duration::from_secs(1);
/// One who waits yields its core for so long before it sleeps between two looks.
const YIELDS: Duration = Duration::from_micros(500);
const NAP: Duration = Duration::from_micros(100);

/// Why the ranks of a communicator do not go on. It was aborted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NcclError {
    /// NCCL, or the device.
    #[error("{error}{}", hanging(*.hangs))]
    Failed {
        /// Its words.
        error: GpuError,
        /// Whether the device does not end what it was asked.
        hangs: bool,
    },
    /// Some rank has not come so far.
    #[error("NCCL could not {doing} within {s} s{}", hanging(*.hangs))]
    Late {
        /// What it was asked.
        doing: &'static str,
        /// Seconds.
        s: u64,
        /// Whether the device does not end what it was asked.
        hangs: bool,
    },
    /// Whoever waited has learned that it will not go on.
    #[error("NCCL was to {doing} when the ranks came apart{}", hanging(*.hangs))]
    Abandoned {
        /// What it was asked.
        doing: &'static str,
        /// Whether the device does not end what it was asked.
        hangs: bool,
    },
}

impl NcclError {
    /// Whether the device does not end what it was asked.
    pub fn hangs(&self) -> bool {
        match self {
            Self::Failed { hangs, .. } | Self::Late { hangs, .. } | Self::Abandoned { hangs, .. } => *hangs,
        }
    }
}

fn hanging(hangs: bool) -> &'static str {
    if hangs { "; the GPU hangs" } else { "" }
}

/// The ranks of a world, connected by NCCL. One that has failed is of no use any more.
pub struct Communicator {
    /// What it sums on, which lives as long.
    gpu: Gpu,
    library: Arc<dyn Library>,
    /// `None` once it has failed.
    handle: Option<Handle>,
    world: u32,
}

impl fmt::Debug for Communicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Communicator({} ranks, {:?}, {:?})", self.world, self.gpu, self.handle)
    }
}

impl Communicator {
    /// Connects rank `rank` of `world` on a device, while `goes_on`, at most until the deadline.
    ///
    /// # Errors
    /// [`NcclError`].
    pub fn connect(
        gpu: &Gpu,
        library: Arc<dyn Library>,
        id: &UniqueId,
        (rank, world): (u32, u32),
        deadline: Duration,
        goes_on: impl FnMut() -> bool,
    ) -> Result<Self, NcclError> {
        let handle = library.begin(id, rank, world).map_err(|error| NcclError::Failed { error, hangs: false })?;
        let mut connected = Self { gpu: gpu.clone(), library, handle: Some(handle), world };
        connected.settle("connect the ranks", deadline, goes_on, |_| Ok(true))?;
        Ok(connected)
    }

    /// Sums over all ranks in place: exact whatever the order, as long as no sum is beyond 64 bits. Comes back once the sum is there.
    ///
    /// # Errors
    /// [`NcclError`]; the vector is then of no use.
    pub fn sum_integers(
        &mut self,
        sum: &mut Vector<i64>,
        deadline: Duration,
        goes_on: impl FnMut() -> bool,
    ) -> Result<(), NcclError> {
        assert!(sum.gpu().is(&self.gpu), "a sum of the stream that was connected");
        let (at, len) = (sum.all_mut().at, sum.len());
        self.sum(Term::I64, at, len, deadline, goes_on)
    }

    /// The same of f32, whose bits depend on how NCCL adds and are the same on all ranks.
    ///
    /// # Errors
    /// As [`sum_integers`](Self::sum_integers).
    pub fn sum_floats(
        &mut self,
        sum: &mut Vector<f32>,
        deadline: Duration,
        goes_on: impl FnMut() -> bool,
    ) -> Result<(), NcclError> {
        assert!(sum.gpu().is(&self.gpu), "a sum of the stream that was connected");
        let (at, len) = (sum.all_mut().at, sum.len());
        self.sum(Term::F32, at, len, deadline, goes_on)
    }

    fn sum(
        &mut self,
        term: Term,
        at: u64,
        len: usize,
        deadline: Duration,
        goes_on: impl FnMut() -> bool,
    ) -> Result<(), NcclError> {
        const DOING: &str = "sum over the ranks";
        let handle = self.handle.ok_or(NcclError::Abandoned { doing: DOING, hangs: false })?;
        // SAFETY: so many values lie there, and the vector is borrowed until the sum is there or the communicator is aborted; the handle is whole.
        if let Err(error) = unsafe { self.library.all_reduce(handle, term, at, len) } {
            return Err(NcclError::Failed { error, hangs: self.abort() });
        }
        self.settle(DOING, deadline, goes_on, |library| library.is_through())
    }

    /// Ends it in order, once all ranks do: none is owed anything any more.
    ///
    /// # Errors
    /// [`NcclError`].
    pub fn end(&mut self) -> Result<(), NcclError> {
        let Some(handle) = self.handle else { return Ok(()) };
        // SAFETY: the handle is whole, and nothing of it is under way.
        if let Err(error) = unsafe { self.library.finalize(handle) } {
            return Err(NcclError::Failed { error, hangs: self.abort() });
        }
        self.settle("end", END_DEADLINE, || true, |_| Ok(true))?;
        self.handle = None;
        // SAFETY: it has ended, and its handle was taken.
        let destroyed = self.on_a_thread(move |library| unsafe { library.destroy(handle) });
        if destroyed {
            return Ok(());
        }
        self.gpu.came_apart();
        Err(NcclError::Late {
            doing: "take the communicator back",
            s: ABORT_DEADLINE.as_secs(),
            hangs: !self.is_idle(),
        })
    }

    /// Waits until the communicator is ready and `done`, or aborts it.
    fn settle(
        &mut self,
        doing: &'static str,
        deadline: Duration,
        mut goes_on: impl FnMut() -> bool,
        mut done: impl FnMut(&dyn Library) -> Result<bool, GpuError>,
    ) -> Result<(), NcclError> {
        let (begun, handle) = (Instant::now(), self.handle.ok_or(NcclError::Abandoned { doing, hangs: false })?);
        loop {
            // Asked first: a sum that has come meanwhile is a sum.
            let is_abandoned = !goes_on();
            // SAFETY: the handle is whole.
            let come = unsafe { self.library.progress(handle) }
                .and_then(|progress| Ok(progress == Progress::Ready && done(&*self.library)?));
            let waited = begun.elapsed();
            match come {
                Ok(true) => return Ok(()),
                Err(error) => return Err(NcclError::Failed { error, hangs: self.abort() }),
                Ok(false) if is_abandoned => return Err(NcclError::Abandoned { doing, hangs: self.abort() }),
                Ok(false) if waited >= deadline => {
                    return Err(NcclError::Late { doing, s: deadline.as_secs(), hangs: self.abort() });
                }
                Ok(false) if waited < YIELDS => std::thread::yield_now(),
                Ok(false) => std::thread::sleep(NAP),
            }
        }
    }

    /// Ends it as it stands, for at most some seconds; whether the device hangs: it does not end what it was asked. The communicator is of no use afterwards, nor is NCCL on
    /// this device in this process.
    pub fn abort(&mut self) -> bool {
        let Some(handle) = self.handle.take() else { return false };
        self.gpu.came_apart();
        // SAFETY: the handle was taken, so that nobody uses it any more.
        let aborted = self.on_a_thread(move |library| unsafe { library.abort(handle) });
        // An abort may wait for what other ranks do on the host, long after the device was freed.
        !aborted && !self.is_idle()
    }

    /// Does what may not come back, for at most [`ABORT_DEADLINE`]; whether it was done.
    fn on_a_thread(&self, act: impl FnOnce(&dyn Library) -> Result<(), GpuError> + Send + 'static) -> bool {
        let (library, (tell, told)) = (self.library.clone(), channel());
        std::thread::spawn(move || {
            // Nobody listens any more where it took too long.
            let _ = tell.send(act(&*library).is_ok());
        });
        matches!(told.recv_timeout(ABORT_DEADLINE), Ok(true))
    }

    /// Whether the device ends what it was asked, within a moment.
    fn is_idle(&self) -> bool {
        let begun = Instant::now();
        loop {
            match self.library.is_through() {
                Ok(true) => return true,
                Ok(false) if begun.elapsed() < IDLE_DEADLINE => std::thread::sleep(NAP),
                _ => return false,
            }
        }
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        // Whoever minds asks it to end before.
        let _ = self.end();
    }
}
