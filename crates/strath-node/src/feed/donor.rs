//! The donor's end of a feed: a thread beside the training.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use strath_collective::{DONOR, FeedSender, Member, NEWCOMER, RingTls};
use strath_core::{Digest, RunId};
use strath_protocol::message::Feed;

use super::words::{self, Header, Kind};
use super::{Admissions, Fed, Listener, Progress, Reduced, identity, queued};
use crate::state::TrainingState;
use crate::verify;

/// A newcomer that does not listen by then is fed no more.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// A feed that has nothing to say says so as often as this.
const BEAT: Duration = Duration::from_secs(1);

/// What a feed begins with.
pub(crate) struct Donor {
    /// The run.
    pub(crate) run: RunId,
    /// Whom to feed.
    pub(crate) feed: Feed,
    /// The worker's certificate, where it has one.
    pub(crate) tls: Option<RingTls>,
    /// The way to the training thread.
    pub(crate) admissions: Admissions,
    /// Values that each step reduces.
    pub(crate) values: usize,
}

/// Feeds a newcomer until the generation ends, or it is gone or too slow, or the feed is `cancelled` before it has begun.
///
/// # Errors
/// A sentence that says why the newcomer is fed no more.
pub(crate) fn feed(donor: Donor, cancelled: &AtomicBool) -> Result<(), String> {
    let Donor { run, feed, tls, admissions, values } = donor;
    let identity = identity(run, feed.generation, DONOR, feed.ticket);
    let to = Member { rank: NEWCOMER, address: feed.to.ring_address };
    let mut line = FeedSender::connect(identity, to, tls.as_ref(), CONNECT_DEADLINE, cancelled)
        .map_err(|error| format!("worker {} is not fed: {error}", feed.to.worker))?;
    let (queue, fed) = sync_channel(queued(values));
    let progress = Arc::<Progress>::default();
    // Where training is through meanwhile, the newcomer is told the end.
    let _ = admissions.0.send(Listener { queue, progress: progress.clone() });
    pass_on(&mut line, &fed, &progress).map_err(|error| format!("worker {} is fed no more: {error}", feed.to.worker))
}

/// Passes on what training tells, to its end.
fn pass_on(line: &mut FeedSender, fed: &Receiver<Fed>, progress: &Progress) -> io::Result<()> {
    loop {
        let next = fed.recv_timeout(BEAT);
        let word = |kind: Kind, step: u64, values: usize, loss: f64, digest: Digest| {
            let newest = progress.step.load(Ordering::Relaxed);
            Header { kind, step, newest, values: values as u64, loss: loss.to_bits(), digest }
        };
        if progress.is_left_behind.load(Ordering::Relaxed) {
            words::send(line, word(Kind::LeftBehind, 0, 0, 0.0, Digest::default()), &[])?;
            return Err(io::Error::other("it does not keep up"));
        }
        match next {
            Ok(Fed::State(state)) => {
                let digest = verify::digest(&state);
                let TrainingState { step, weights, statistics, optimizer, epoch_loss } = &*state;
                let mut pieces: Vec<&[f32]> = vec![weights, statistics];
                pieces.extend(optimizer.slots().into_iter().map(|(_, values)| values));
                let values = pieces.iter().map(|piece| piece.len()).sum();
                let loss = epoch_loss.unwrap_or_default();
                words::send(line, word(Kind::State, *step, values, loss, digest), &pieces)?;
            }
            Ok(Fed::Step(reduced)) => {
                let Reduced { step, gradient, statistics, clean_loss } = &*reduced;
                let values = gradient.len() + statistics.len();
                let header = word(Kind::Step, *step, values, *clean_loss, Digest::default());
                words::send(line, header, &[gradient, statistics])?;
            }
            Err(RecvTimeoutError::Timeout) => words::send(line, word(Kind::Beat, 0, 0, 0.0, Digest::default()), &[])?,
            Err(RecvTimeoutError::Disconnected) => {
                return words::send(line, word(Kind::End, 0, 0, 0.0, Digest::default()), &[]);
            }
        }
    }
}
