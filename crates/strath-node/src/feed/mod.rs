//! Whoever joins follows the others bit for bit while they train: one of them feeds it.
//!
//! ```text
//!  donor, training thread       a thread of the donor             a thread of the newcomer
//!  before a step: a copy of ──► queue ──► state, SHA-256 ───────► the state, checked
//!  the state
//!  each step: what was      ──► queue ──► gradient, statistics ─► the same update as on every rank (`TrainingState::update`)
//!  reduced                                                        close behind: says so
//!  the generation ends      ──► queue ends ──► end ─────────────► holds what every rank holds
//! ```
//!
//! [`words`] is what travels. The queue is bounded: a newcomer that does not keep up is fed no more, and sent the state as the next
//! generation begins. Training never waits for it. Without newcomers a step looks whether there are any, and that is all.

mod donor;
mod follow;
mod words;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel};

use strath_collective::Identity;
use strath_core::{Generation, Rank, RunId, Ticket};

pub(crate) use donor::{Donor, feed};
pub(crate) use follow::{Followed, Following, follow};

use crate::step::TrainingState;

/// What a queue holds at most, bytes, where that is more than [`FEWEST`] steps.
const QUEUE_BYTES: usize = 64 << 20;
/// Steps that a queue holds at least, and at most.
const FEWEST: usize = 4;
const MOST: usize = 1024;

/// What a step has reduced: with the state before it, everything that the state after it is a function of.
#[derive(Debug)]
struct Reduced {
    /// Completed steps after it.
    step: u64,
    /// The descent gradient.
    gradient: Vec<f32>,
    /// The batch's statistics.
    statistics: Vec<f32>,
}

/// What is fed, in order.
enum Fed {
    /// The state before a step.
    State(Box<TrainingState>),
    /// What each step after it has reduced.
    Step(Arc<Reduced>),
}

/// Steps that a queue of these lengths holds.
fn queued(values: usize) -> usize {
    (QUEUE_BYTES / (size_of::<f32>() * values.max(1))).clamp(FEWEST, MOST)
}

/// One newcomer, as training sees it.
struct Listener {
    queue: SyncSender<Fed>,
    progress: Arc<Progress>,
}

/// How far training is, for a feed that is behind.
#[derive(Debug, Default)]
struct Progress {
    /// Completed steps.
    step: AtomicU64,
    /// Whether the queue was full.
    is_left_behind: AtomicBool,
}

/// The way by which newcomers get to the training thread of a generation.
#[derive(Clone)]
pub(crate) struct Admissions(Sender<Listener>);

/// The newcomers that a rank feeds.
#[derive(Default)]
pub struct Audience {
    admissions: Option<Receiver<Listener>>,
    listeners: Vec<Listener>,
}

impl Audience {
    /// An audience of nobody yet, and the way into it.
    pub(crate) fn new() -> (Admissions, Self) {
        let (sender, receiver) = channel();
        (Admissions(sender), Self { admissions: Some(receiver), listeners: Vec::new() })
    }

    /// Lets in those who have come, who begin with this state: the weights are shared until they next move, the rest is copied.
    pub fn admit(&mut self, state: &TrainingState) {
        let Some(admissions) = &self.admissions else { return };
        while let Ok(listener) = admissions.try_recv() {
            listener.progress.step.store(state.step, Ordering::Relaxed);
            // One that is gone is missed at the first step.
            let _ = listener.queue.try_send(Fed::State(Box::new(state.clone())));
            self.listeners.push(listener);
        }
    }

    /// Passes on what a step has reduced, `step` being completed with it. Gives the gradient's memory back where nobody has it.
    pub fn tell(&mut self, step: u64, gradient: Vec<f32>, statistics: &[f32]) -> Option<Vec<f32>> {
        if self.listeners.is_empty() {
            return Some(gradient);
        }
        let reduced = Arc::new(Reduced { step, gradient, statistics: statistics.to_vec() });
        self.listeners.retain(|listener| {
            listener.progress.step.store(step, Ordering::Relaxed);
            let told = listener.queue.try_send(Fed::Step(reduced.clone()));
            if let Err(TrySendError::Full(_)) = told {
                listener.progress.is_left_behind.store(true, Ordering::Relaxed);
            }
            told.is_ok()
        });
        Arc::try_unwrap(reduced).ok().map(|reduced| reduced.gradient)
    }
}

/// Who an end of a feed is.
fn identity(run: RunId, generation: Generation, rank: Rank, ticket: Ticket) -> Identity {
    Identity { run, generation, rank, world_size: 2, ticket }
}
