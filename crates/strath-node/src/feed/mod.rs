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
//! `words` is what travels. The queue is bounded: a newcomer that does not keep up is fed no more, and sent the state as the next
//! generation begins. Training never waits for it. Without newcomers a step looks whether there are any, and that is all.

mod donor;
mod follow;
pub(crate) mod words;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel};

use strath_collective::Identity;
use strath_core::{Generation, Rank, RunId, Ticket};

pub(crate) use donor::{Donor, feed};
pub(crate) use follow::{Followed, Following, follow};

use strath_cuda::GpuError;

use crate::flat::Flat;
use crate::resident::Resident;
use crate::state::TrainingState;

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
    /// Mean loss over the batch at w.
    clean_loss: f64,
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
    ///
    /// # Errors
    /// The device's, where the state lies on one.
    pub fn admit(&mut self, state: &mut Resident) -> Result<(), GpuError> {
        let Some(admissions) = &self.admissions else { return Ok(()) };
        while let Ok(listener) = admissions.try_recv() {
            let state = state.on_host()?;
            listener.progress.step.store(state.step, Ordering::Relaxed);
            // One that is gone is missed at the first step.
            let _ = listener.queue.try_send(Fed::State(Box::new(state.clone())));
            self.listeners.push(listener);
        }
        Ok(())
    }

    /// Whether nobody listens.
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    /// Passes on what a step has reduced, `step` being completed with it. Gives the gradient's memory back where nobody has it.
    ///
    /// # Panics
    /// Where somebody listens and the gradient lies on a device.
    pub fn tell(&mut self, step: u64, gradient: Flat, statistics: &[f32], clean_loss: f64) -> Option<Flat> {
        let gradient = match gradient {
            gradient if self.listeners.is_empty() => return Some(gradient),
            Flat::Host(gradient) => gradient,
            Flat::Device(_) => panic!("what is passed on lies in the process's memory"),
        };
        let reduced = Arc::new(Reduced { step, gradient, statistics: statistics.to_vec(), clean_loss });
        self.listeners.retain(|listener| {
            listener.progress.step.store(step, Ordering::Relaxed);
            let told = listener.queue.try_send(Fed::Step(reduced.clone()));
            if let Err(TrySendError::Full(_)) = told {
                listener.progress.is_left_behind.store(true, Ordering::Relaxed);
            }
            told.is_ok()
        });
        Arc::try_unwrap(reduced).ok().map(|reduced| Flat::Host(reduced.gradient))
    }
}

/// Who an end of a feed is.
fn identity(run: RunId, generation: Generation, rank: Rank, ticket: Ticket) -> Identity {
    Identity { run, generation, rank, world_size: 2, ticket }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc::sync_channel;
    use std::thread;

    use strath_core::config::Layers;
    use strath_core::{RingKey, Step, WorkerId};
    use strath_protocol::message::{Feed, Follow, Member};

    use super::*;
    use crate::flat::Place;
    use crate::generation::{finish, optimizer};
    use crate::prepare::{Prepared, prepare};

    fn prepared(optimizer: &str) -> Prepared {
        let text = format!(
            "[data]\nkind = \"digits\"\n[model]\nkind = \"convnet\"\nwidths = [4, 4]\n[batch]\nsize = 8\n[sam]\nm = 8\n{optimizer}"
        );
        let layers = Layers::new().file(&text, "run.toml", std::path::Path::new("/")).unwrap();
        prepare(&layers.resolve().unwrap().config.to_toml(), None, 0).unwrap()
    }

    fn initial(prepared: &Prepared) -> Resident {
        let Prepared { config, model, .. } = prepared;
        let (weights, statistics) = (model.initial(1).into(), model.initial_statistics());
        let epoch_loss = config.run.stop_loss.map(|_| 0.0);
        let state = TrainingState { step: 0, weights, statistics, optimizer: optimizer(config, model), epoch_loss };
        Resident::new(state, &Place::default()).map_err(|(error, _)| error).unwrap()
    }

    /// Steps of a rank that reduces these gradients: any, as nobody computes them here.
    fn train(state: &mut Resident, audience: &mut Audience, prepared: &Prepared, steps: u64) {
        for step in 0..steps {
            audience.admit(state).unwrap();
            let gradient = (0..state.weights().len()).map(|at| ((at as u64 * 37 + step) % 11) as f32 * 1e-3 - 5e-3);
            let gradient = Flat::Host(gradient.collect());
            let statistics = vec![0.5 + step as f32 * 1e-2; state.statistics().len()];
            let clean_loss = 2.0 / (step + 1) as f64;
            state.update(&gradient, (&statistics, clean_loss), &prepared.config, finish(prepared, 1000)).unwrap();
            audience.tell(state.step(), gradient, &statistics, clean_loss);
            thread::sleep(std::time::Duration::from_micros(300));
        }
    }

    #[test]
    fn a_newcomer_that_is_fed_comes_to_the_bits_of_the_donor() {
        for table in [
            "[optimizer]\nkind = \"sgd\"\nlr = 0.1\nmomentum = 0.9\nclip_norm = 0.01\n",
            "[optimizer]\nkind = \"adamw\"\nlr = 0.01\nweight_decay = 0.05\n[schedule]\nkind = \"cosine\"\n[run]\nstop_loss = 1e-9\n",
        ] {
            let prepared = prepared(table);
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let member = |worker| Member { worker: WorkerId(worker), ring_address: listener.local_addr().unwrap() };
            let (run, generation) = (RunId(1), Generation(2));
            let ticket = RingKey([1; 16]).feed_ticket(run, generation, WorkerId(3), WorkerId(4));
            let feed_of = Feed { generation, to: member(4), ticket };
            let follow_of = Follow { generation, from: member(3), steps: Step(1000), ticket };
            let (admissions, mut audience) = Audience::new();
            let mut state = initial(&prepared);
            let values = state.weights().len() + state.statistics().len();
            let go = AtomicBool::new(false);
            let (followed, caught_up) = thread::scope(|scope| {
                let newcomer = scope.spawn(|| {
                    let mut caught_up = Vec::new();
                    let listener = listener.try_clone().unwrap();
                    let following =
                        Following { run, follow: follow_of, prepared: prepared.clone(), listener, tls: None };
                    (follow(&following, &go, |step| caught_up.push(step)), caught_up)
                });
                let donor = Donor { run, feed: feed_of, tls: None, admissions, values };
                scope.spawn(|| feed(donor, &go).unwrap());
                train(&mut state, &mut audience, &prepared, 600);
                drop(audience);
                newcomer.join().unwrap()
            });
            assert_eq!(followed.broken, None);
            assert!(
                followed.state.as_ref() == Some(state.on_host().unwrap()),
                "at {:?}",
                followed.state.map(|state| state.step)
            );
            assert_eq!(caught_up.len(), 1, "it says so once");
        }
    }

    #[test]
    fn training_does_not_wait_for_a_newcomer_that_takes_nothing() {
        let prepared = prepared("");
        let (admissions, mut audience) = Audience::new();
        let mut state = initial(&prepared);
        let gradient = Flat::Host(vec![0.0; 3]);
        assert!(audience.tell(1, gradient, &[], 1.0).is_some(), "nobody has its memory");
        let (queue, fed) = sync_channel(FEWEST);
        let progress = Arc::<Progress>::default();
        admissions.0.send(Listener { queue, progress: progress.clone() }).unwrap();
        train(&mut state, &mut audience, &prepared, 3 * FEWEST as u64);
        assert!(progress.is_left_behind.load(Ordering::Relaxed) && audience.listeners.is_empty());
        assert_eq!(fed.iter().count(), FEWEST, "the queue is bounded");
        assert_eq!((queued(1), queued(1 << 20), queued(1 << 30)), (MOST, 16, FEWEST));
    }
}
