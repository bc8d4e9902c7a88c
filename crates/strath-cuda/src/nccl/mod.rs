//! Sums over GPUs by NCCL: what is asked of the library, and a [`Communicator`] that never waits without a deadline.
//!
//! ```text
//! rank 0: Library::unique_id ──> the coordinator ──> every rank: Communicator::connect
//!                                                       all_reduce, all_reduce, ...
//!                                                       drop: ended in order
//! a failure, a deadline, or nobody to go on with ──> aborted, with a deadline of its own; of no use from then on
//! ```
//!
//! NCCL itself waits for ever for a rank that is gone. So a communicator is made without blocking, its errors are asked for while anything is under way, and one that fails is
//! aborted on a thread of its own. What an abort leaves of the process's NCCL is not relied on: [`Gpu::nccl`](crate::Gpu::nccl) is gone from then on.

#![allow(unsafe_code, reason = "the edge of the device: addresses and handles are its own")]

mod communicator;

use std::fmt::Debug;

pub use communicator::{Communicator, NcclError};

use crate::error::GpuError;

/// The bytes by which the ranks of a communicator find each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UniqueId(pub [u8; UniqueId::BYTES]);

impl UniqueId {
    /// Its length.
    pub const BYTES: usize = 128;
}

/// A communicator, as its library knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle(pub u64);

/// How far a communicator has come with what it was last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is left of it on the host; on the device it may be under way.
    Ready,
    /// It goes on.
    Underway,
}

/// What sums are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Term {
    /// 64-bit integers, whose sum does not depend on the order.
    I64,
    /// f32.
    F32,
}

/// The least that is asked of NCCL, on the device and the stream of a [`Driver`](crate::Driver). Nothing waits but [`destroy`](Self::destroy) and [`abort`](Self::abort), which may for ever.
///
/// # Safety
/// Addresses are of vectors on that device that are long enough, and a handle is used neither after it was ended nor after it was aborted.
pub trait Library: Debug + Send + Sync {
    /// A new communicator's name.
    fn unique_id(&self) -> Result<UniqueId, GpuError>;

    /// Begins to connect rank `rank` of `world`.
    fn begin(&self, id: &UniqueId, rank: u32, world: u32) -> Result<Handle, GpuError>;

    /// How far it has come, or what has gone wrong since.
    ///
    /// # Safety
    /// As the trait says.
    unsafe fn progress(&self, of: Handle) -> Result<Progress, GpuError>;

    /// Begins to sum `len` values over all ranks in place, after what was asked of the stream before.
    ///
    /// # Safety
    /// As the trait says.
    unsafe fn all_reduce(&self, of: Handle, term: Term, at: u64, len: usize) -> Result<(), GpuError>;

    /// Whether everything that was asked of the stream is done.
    fn is_through(&self) -> Result<bool, GpuError>;

    /// Begins to end it in order: no rank is owed anything any more.
    ///
    /// # Safety
    /// As the trait says.
    unsafe fn finalize(&self, of: Handle) -> Result<(), GpuError>;

    /// Takes back what a finalized one holds.
    ///
    /// # Safety
    /// As the trait says.
    unsafe fn destroy(&self, of: Handle) -> Result<(), GpuError>;

    /// Ends it as it stands.
    ///
    /// # Safety
    /// As the trait says.
    unsafe fn abort(&self, of: Handle) -> Result<(), GpuError>;
}
