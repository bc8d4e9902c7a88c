//! What each rank did when, in the format of Chrome's and Perfetto's trace viewers.
//!
//! A worker notes each phase it enters and writes its part when it ends; whoever started the workers merges the parts. Times are
//! those of the host's clock, so parts of one host lie side by side as they happened.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use strath_core::Rank;
use strath_protocol::message::Phase;

use crate::files::{self, FileError};

/// Phases that a part holds at most: some hours of ordinary steps, and a bounded memory.
const MOST: usize = 1 << 20;

/// Notes the phases of one rank.
#[derive(Debug)]
pub struct Recorder {
    began: Instant,
    /// Microseconds of the host's clock at `began`.
    epoch_us: f64,
    entered: Mutex<Vec<(f64, u64, Phase)>>,
    /// From when to when pieces of a step's gradient travelled while phases went on.
    travelled: Mutex<Vec<(f64, f64, u64)>>,
}

/// One event of the format: a span (`X`) or a name (`M`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Event {
    name: String,
    ph: String,
    /// Begin, microseconds.
    ts: f64,
    /// Duration, microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    /// The rank.
    pid: u32,
    tid: u32,
    args: serde_json::Value,
}

/// The file of the format.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trace {
    #[serde(rename = "traceEvents")]
    events: Vec<Event>,
    #[serde(rename = "displayTimeUnit")]
    unit: String,
}

impl Trace {
    pub(crate) fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers and strings are valid JSON")
    }
}

impl Default for Recorder {
    fn default() -> Self {
        let epoch_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1e6;
        Self { began: Instant::now(), epoch_us, entered: Mutex::default(), travelled: Mutex::default() }
    }
}

impl Recorder {
    /// A phase begins, and with it the one before ends.
    pub fn enter(&self, step: u64, phase: Phase) {
        let at = self.began.elapsed().as_secs_f64() * 1e6;
        let mut entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
        if entered.len() < MOST {
            entered.push((at, step, phase));
        }
    }

    /// Pieces of a step's gradient travelled beside its phases.
    pub fn travelled(&self, step: u64, pieces: &[(Instant, Instant)]) {
        let at = |instant: Instant| instant.saturating_duration_since(self.began).as_secs_f64() * 1e6;
        let mut travelled = self.travelled.lock().unwrap_or_else(PoisonError::into_inner);
        if travelled.len() < MOST {
            travelled.extend(pieces.iter().map(|(from, to)| (at(*from), at(*to), step)));
        }
    }

    /// Writes this rank's part.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn write(&self, path: &Path, rank: Rank) -> Result<(), FileError> {
        let entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
        let end = self.began.elapsed().as_secs_f64() * 1e6;
        let ends = entered.iter().skip(1).map(|(at, ..)| *at).chain([end]);
        let mut events = vec![Event {
            name: "process_name".into(),
            ph: "M".into(),
            ts: 0.0,
            dur: None,
            pid: rank.0,
            tid: 0,
            args: serde_json::json!({ "name": format!("rank {rank}") }),
        }];
        events.extend(entered.iter().zip(ends).map(|((at, step, phase), end)| Event {
            name: phase.name().into(),
            ph: "X".into(),
            ts: self.epoch_us + at,
            dur: Some(end - at),
            pid: rank.0,
            tid: 0,
            args: serde_json::json!({ "step": step }),
        }));
        let travelled = self.travelled.lock().unwrap_or_else(PoisonError::into_inner);
        events.extend(travelled.iter().map(|(from, to, step)| Event {
            name: "reduce, a piece".into(),
            ph: "X".into(),
            ts: self.epoch_us + from,
            dur: Some(to - from),
            pid: rank.0,
            tid: 1,
            args: serde_json::json!({ "step": step }),
        }));
        write(path, events)
    }
}

/// Merges the parts of a run into one file, where they are, and removes them.
///
/// # Errors
/// [`FileError`].
pub fn merge(parts: &[PathBuf], path: &Path) -> Result<(), FileError> {
    let mut events = Vec::new();
    for part in parts {
        // A worker that was killed has left none.
        let Ok(bytes) = files::read(part) else { continue };
        if let Ok(trace) = Trace::parse(&bytes) {
            events.extend(trace.events);
        }
        files::remove(part)?;
    }
    write(path, events)
}

fn write(path: &Path, events: Vec<Event>) -> Result<(), FileError> {
    let trace = Trace { events, unit: "ms".into() };
    files::write_whole(path, &trace.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_ranks_are_merged_and_spans_follow_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let parts: Vec<PathBuf> = (0..3).map(|rank| folder.path().join(format!("part-{rank}"))).collect();
        for rank in 0..2 {
            let recorder = Recorder::default();
            recorder.enter(0, Phase::Ascent);
            recorder.enter(0, Phase::Reduce);
            let now = Instant::now();
            recorder.travelled(0, &[(now, now)]);
            recorder.write(&parts[rank as usize], Rank(rank)).unwrap();
        }
        let whole = folder.path().join("trace.json");
        merge(&parts, &whole).unwrap();
        assert!(parts.iter().all(|part| !part.exists()), "the third was never there");
        let trace = Trace::parse(&std::fs::read(&whole).unwrap()).unwrap();
        let names: Vec<(u32, &str)> = trace.events.iter().map(|event| (event.pid, event.name.as_str())).collect();
        let one = |rank| [(rank, "process_name"), (rank, "ascent"), (rank, "reduce"), (rank, "reduce, a piece")];
        assert_eq!(names, [one(0), one(1)].concat());
        let spans: Vec<&Event> = trace.events.iter().filter(|event| event.ph == "X").collect();
        assert!((spans[0].ts + spans[0].dur.unwrap() - spans[1].ts).abs() < 1.0, "{spans:?}");
    }
}
