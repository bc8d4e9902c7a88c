//! Measuring links and processors once, when a world has connected, and agreeing on what was found.
//!
//! Blocks are shifted along a ring ([`Shift`]): among the ranks of each host, all hosts at once, then among the first ranks of all
//! hosts. Shifts one after the other keep their own time, each waiting for the one before, so no barrier is needed; the best counts. A block long enough to fill the link is shifted only where a short one was quick. It takes some milliseconds over a
//! link of a Gbit/s, and every wait has the deadline of the connecting.

use std::hint::black_box;
use std::time::{Duration, Instant};

use strath_core::Rank;

use super::agreement::Agreement;
use crate::error::CollectiveError;
use crate::frame::Phase;
use crate::hosts::Hosts;
use crate::packing::Vector;
use crate::payload::Payload;
use crate::rates::{Rates, Reading};
use crate::shift::Shift;

/// Batches of empty shifts, of which the fastest counts, and shifts of a batch.
const BATCHES: usize = 4;
const EMPTY_SHIFTS: usize = 4;
/// Integers of the short block, 64 KiB, and of the long one, 256 KiB: two segments, as algorithms have several on their way.
const SHORT_BLOCK: usize = 8 * 1024;
const LONG_BLOCK: usize = 32 * 1024;
/// Batches of blocks, of which the fastest counts, as ranks that share cores are held up now and then for longer than a block takes; and
/// shifts of a batch of long ones, after one that does not count: it is the one in which a connection finds its pace.
const SHORT_BATCHES: usize = 2;
const LONG_BATCHES: usize = 3;
const LONG_SHIFTS: usize = 3;
/// What the short block may take for the long one to be shifted too.
const QUICK: Duration = Duration::from_millis(5);
/// Integers added at a time, a segment.
const ADDED: usize = 16 * 1024;

/// A rank that measures.
struct Probe<'p, 'a> {
    agreement: &'p mut Agreement<'a>,
    /// What is shifted.
    blocks: Vec<i64>,
}

/// Measures, and returns what all ranks then hold alike.
///
/// # Errors
/// As an operation's wait: a peer that is lost or silent beyond the deadline.
pub(crate) fn measure(agreement: &mut Agreement<'_>, hosts: &Hosts) -> Result<Rates, CollectiveError> {
    let mut probe = Probe { agreement, blocks: Vec::new() };
    let own = probe.agreement.identity.rank.0;
    let members = hosts.members();
    let ranks = |of: &[u32]| of.iter().map(|rank| Rank(*rank)).collect::<Vec<_>>();
    let near = ranks(&members[hosts.of(own) as usize]);
    let first = ranks(&members.iter().map(|of| of[0]).collect::<Vec<_>>());
    let (near_empty_ps, near_byte_fs) = probe.link(&near)?;
    let (far_empty_ps, far_byte_fs) = probe.link(&first)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as i64;
    let reading = Reading { near_empty_ps, near_byte_fs, far_empty_ps, far_byte_fs, add_fs: adding(), cores };
    let slots = probe.agreement.gather(&reading.to_slots())?;
    let readings: Vec<Reading> = slots.as_chunks().0.iter().map(|slots| Reading::from_slots(*slots)).collect();
    Ok(Rates::agreed(&readings, hosts))
}

impl Probe<'_, '_> {
    /// Picoseconds of an empty shift along a ring, and femtoseconds for each byte of a block; 0 where this rank is not on it, or
    /// alone. Every rank comes here, as they agree on the length of the block.
    fn link(&mut self, along: &[Rank]) -> Result<(i64, i64), CollectiveError> {
        let takes_part = along.len() > 1 && along.contains(&self.agreement.identity.rank);
        let part = takes_part.then_some(along);
        let empty = self.best(part, 0, EMPTY_SHIFTS, BATCHES)?;
        let (mut block, mut entries) = (self.best(part, SHORT_BLOCK, 1, SHORT_BATCHES)?, SHORT_BLOCK);
        let slowest = self.agreement.gather(&[block.as_nanos() as i64])?.into_iter().max().unwrap_or(0);
        if Duration::from_nanos(slowest as u64) < QUICK {
            entries = LONG_BLOCK;
            self.shifts(part, entries, 1)?;
            block = self.best(part, entries, LONG_SHIFTS, LONG_BATCHES)?;
        }
        if !takes_part {
            return Ok((0, 0));
        }
        let more = block.saturating_sub(empty).as_nanos() as i64;
        // At least one, which says that it was measured.
        Ok(((empty.as_nanos() as i64 * 1_000).max(1), (more * 1_000_000 / (8 * entries as i64)).max(1)))
    }

    /// The mean time of a shift in the fastest of some batches.
    fn best(
        &mut self,
        along: Option<&[Rank]>,
        entries: usize,
        times: usize,
        batches: usize,
    ) -> Result<Duration, CollectiveError> {
        let mut best = Duration::MAX;
        for _ in 0..batches {
            best = best.min(self.shifts(along, entries, times)?);
        }
        Ok(best)
    }

    /// Shifts blocks one after the other; the mean time of one.
    fn shifts(&mut self, along: Option<&[Rank]>, entries: usize, times: usize) -> Result<Duration, CollectiveError> {
        self.blocks.resize(entries * self.agreement.identity.world_size as usize, 1);
        let began = Instant::now();
        for _ in 0..times {
            let tag = self.agreement.tag();
            if let Some(along) = along {
                let shift = Shift::new(tag, along, std::mem::take(&mut self.blocks));
                self.blocks = self.agreement.operate(Box::new(shift))?.into_integers().unwrap_or_default();
            }
        }
        Ok(began.elapsed() / times as u32)
    }
}

/// Femtoseconds a byte that adding a segment of integers takes.
fn adding() -> i64 {
    let mut sum = Vector::new(Payload::Integers(vec![1; ADDED]));
    let mut body = vec![0; 8 * ADDED];
    sum.encode(Phase::Reduce, 0..ADDED, &mut body);
    let mut once = || {
        let began = Instant::now();
        sum.accumulate(0..ADDED, black_box(&body));
        began.elapsed()
    };
    let fastest = (0..5).map(|_| once()).min().unwrap_or_default();
    (fastest.as_nanos() as i64 * 1_000_000 / (8 * ADDED as i64)).max(1)
}
