//! Copies go through pinned memory: one from it is under way while the host goes on, and of a long one the
//! device carries a block while the host copies another. Of memory that is not pinned the driver would take and give what it copies while the host waits.

use cudarc::driver::{result as driver, sys};

use super::failed;
use super::pinned::Pinned;
use crate::error::GpuError;

/// Bytes of a block.
const BLOCK: usize = 1 << 20;
/// Blocks at first, and at most: so many copies can be under way.
const LEAST_BLOCKS: usize = 16;
const MOST_BLOCKS: usize = 256;

/// Blocks that serve in turn.
pub(super) struct Staging {
    stream: sys::CUstream,
    blocks: Vec<Pinned>,
    next: usize,
}

impl Staging {
    /// Blocks for copies on a stream.
    ///
    /// # Safety
    /// The context of the stream is current, and the stream outlives this.
    pub(super) unsafe fn new(stream: sys::CUstream) -> Result<Self, GpuError> {
        let mut staging = Self { stream, blocks: Vec::new(), next: 0 };
        for _ in 0..LEAST_BLOCKS {
            // SAFETY: as this function's.
            match unsafe { Pinned::new(BLOCK) } {
                Ok(block) => staging.blocks.push(block),
                Err(error) => {
                    // SAFETY: nothing is under way.
                    unsafe { staging.end() };
                    return Err(error);
                }
            }
        }
        Ok(staging)
    }

    /// Gives everything back.
    ///
    /// # Safety
    /// The context is current, and nothing is under way.
    pub(super) unsafe fn end(&mut self) {
        for block in self.blocks.drain(..) {
            // SAFETY: as this function's.
            unsafe { block.end() };
        }
    }

    /// The block whose turn it is, to be written once it is settled. Where its copy still waits behind what the device computes, one more is made, if the host can pin it.
    ///
    /// # Safety
    /// The context is current.
    unsafe fn turn(&mut self) -> Pinned {
        if self.blocks.len() < MOST_BLOCKS && !self.blocks[self.next].is_settled() {
            // SAFETY: as this function's.
            if let Ok(block) = unsafe { Pinned::new(BLOCK) } {
                self.blocks.insert(self.next, block);
            }
        }
        let block = self.blocks[self.next];
        self.next = (self.next + 1) % self.blocks.len();
        block
    }

    /// Copies to the device, once everything before is done; the bytes are read before it returns.
    ///
    /// # Safety
    /// The context is current, and so many bytes are the device's there.
    pub(super) unsafe fn upload(&mut self, from: &[u8], to: u64) -> Result<(), GpuError> {
        for (at, bytes) in (0..).map(|block| block * BLOCK as u64).zip(from.chunks(BLOCK)) {
            // SAFETY: as this function's.
            let block = unsafe { self.turn() };
            block.settle()?;
            // SAFETY: as this function's; the block has room for as many bytes, and no copy of it is under way.
            unsafe {
                let pinned = block.front(bytes.len());
                pinned.copy_from_slice(bytes);
                driver::memcpy_htod_async(to + at, pinned, self.stream).map_err(failed("take values"))?;
                block.record(self.stream)?;
            }
        }
        Ok(())
    }

    /// Copies from the device, once everything before is done, and waits for it.
    ///
    /// # Safety
    /// As of [`upload`](Self::upload).
    pub(super) unsafe fn download(&mut self, from: u64, to: &mut [u8]) -> Result<(), GpuError> {
        let several = self.blocks.len();
        let mut under_way: Vec<(Pinned, &mut [u8])> = Vec::with_capacity(several);
        for (at, bytes) in (0..).map(|block| block * BLOCK as u64).zip(to.chunks_mut(BLOCK)) {
            if under_way.len() == several {
                take(under_way.remove(0))?;
            }
            // SAFETY: as this function's.
            let block = unsafe { self.turn() };
            block.settle()?;
            // SAFETY: as this function's; the block has room for as many bytes, and no copy of it is under way.
            unsafe {
                let pinned = block.front(bytes.len());
                driver::memcpy_dtoh_async(pinned, from + at, self.stream).map_err(failed("give values back"))?;
                block.record(self.stream)?;
            }
            under_way.push((block, bytes));
        }
        under_way.into_iter().try_for_each(take)
    }
}

/// Takes what a block was asked for.
fn take((block, bytes): (Pinned, &mut [u8])) -> Result<(), GpuError> {
    block.settle()?;
    // SAFETY: the copy of as many bytes to the block is over, and the next waits for its turn.
    bytes.copy_from_slice(unsafe { block.front(bytes.len()) });
    Ok(())
}
