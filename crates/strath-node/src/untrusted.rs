//! What is read from a run's folder or heard of a peer, as the bytes that arrive: for `strath-fuzz`, which looks for bytes that do harm.
//!
//! What is understood is given as it would be written again.

use crate::feed::words;
use crate::metrics::{self, Line};
use crate::run_folder::{CoordinatorFile, Journal, parse_coordinator};
use crate::trace::Trace;

/// Bytes of the header of a word between a donor and a newcomer.
pub const WORD_BYTES: usize = words::HEADER_BYTES;

/// The header of a word between a donor and a newcomer.
pub fn word(bytes: &[u8; WORD_BYTES]) -> Option<[u8; WORD_BYTES]> {
    Some(words::Header::parse(bytes).ok()?.to_bytes())
}

/// A run's journal.
pub fn journal(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(Journal::parse(bytes).ok()?.to_bytes())
}

/// A `coordinator.json`.
pub fn coordinator_file(bytes: &[u8]) -> Option<CoordinatorFile> {
    parse_coordinator(bytes)
}

/// One rank's part of a trace.
pub fn trace(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(Trace::parse(bytes).ok()?.to_bytes())
}

/// The lines of a `metrics.jsonl` up to a step, and how many bytes they are; `None` where a line before the last is damaged.
pub fn metrics(mut bytes: &[u8], step: u64) -> Option<(Vec<Line>, u64)> {
    metrics::read_lines(&mut bytes, step).ok()
}
