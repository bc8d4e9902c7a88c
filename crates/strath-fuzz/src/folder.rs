//! What a run's folder holds beside checkpoints.

use strath_node::untrusted;

use crate::input::Input;
use crate::memory::{USUAL, within};

/// What a reader of a file gives is the same once it is written again.
fn settled(bytes: &[u8], read: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    if let Some(again) = read(bytes) {
        let once_more = read(&again);
        assert_eq!(once_more.as_ref(), Some(&again), "the file as it would be written again");
    }
}

/// A run's journal.
pub fn journal(bytes: &[u8]) {
    within(USUAL, bytes, || settled(bytes, untrusted::journal));
}

/// A `coordinator.json`.
pub fn coordinator_file(bytes: &[u8]) {
    within(USUAL, bytes, || untrusted::coordinator_file(bytes));
}

/// One rank's part of a trace.
pub fn trace(bytes: &[u8]) {
    // A number may change in its last bit when it is read: what is written then is as short, and reads as one of the two.
    within(USUAL, bytes, || untrusted::trace(bytes).map(|again| assert!(untrusted::trace(&again).is_some())));
}

/// A step, then a `metrics.jsonl`.
pub fn metrics(bytes: &[u8]) {
    within(USUAL, bytes, || {
        let mut input = Input::new(bytes);
        let (step, text) = (u64::from(input.u8()), input.take(usize::MAX));
        let Some((lines, kept)) = untrusted::metrics(text, step) else { return };
        assert!(lines.iter().all(|line| line.step() <= step));
        let kept = &text[..kept as usize];
        assert!(kept.is_empty() || kept.ends_with(b"\n"), "cut within a line");
        let again = untrusted::metrics(kept, step).expect("what is kept is whole");
        assert_eq!(again, (lines, kept.len() as u64), "what is kept, read again");
    });
}
