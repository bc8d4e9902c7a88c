//! Who drives: whoever waits for an operation, and a background thread while nobody does.
//!
//! ```text
//!  all_reduce ── starts and sends at once ─┐
//!  wait ──────── reads, writes, yields; after SPIN without a byte sleeps in poll ─┼─► Driver, behind a lock
//!  background ── sleeps in poll, drives while nobody waits, naps while someone does ─┘
//! ```
//!
//! Handing an operation to a thread costs two changes of thread, tens of microseconds; so the thread that needs the sum does
//! the work. The background thread is for what nobody waits for: overlapping operations, peers that come late, results
//! still owed, connections that end. Once woken while somebody waits it naps, each time longer while that wait lasts.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use strath_core::{Rank, Step};

use super::engine::{Driver, Outcome, Turn};
use super::link::{Key, Link};
use super::mesh::local;
use super::pipe::{Reader, Writer};
use super::wake::{Wakeable, Waker};
use super::watch::{Events, Watch};
use crate::bucket::Bucket;
use crate::collective::{Identity, Member};
use crate::error::CollectiveError;
use crate::frame::Phase;
use crate::machine::Machine;

/// How long a wait without a byte yields its core before it sleeps in `poll`. A sleep that ends costs tens of microseconds;
/// longer than this, it is the peers that are late.
pub(super) const SPIN: Duration = Duration::from_micros(200);
/// Looks, of some ten nanoseconds each, before one who waits for a small sum hands its core over for the first time: where every rank may
/// have a core, and where not. With 60 in place of 4, four ranks on two cores took 1.2 times as long for 1 KiB.
const LOOKS: [u32; 2] = [400, 4];
/// How often one who drives without a pause looks whether a peer beside shared memory has ended.
const HEARING: Duration = Duration::from_millis(5);
/// The background thread's first nap while somebody waits, and the longest.
const SHORTEST_NAP: Duration = Duration::from_millis(1);
const LONGEST_NAP: Duration = Duration::from_millis(64);
/// How often one who waits while another drives looks whether that one still does.
const FOLLOW: Duration = Duration::from_millis(2);

/// The handle of the links, the operations on them and the background thread.
#[derive(Debug)]
pub(crate) struct Engine {
    turns: Arc<Turns>,
    thread: Option<JoinHandle<()>>,
}

/// What those who drive share.
pub(crate) struct Turns {
    driver: Mutex<Driver>,
    /// Held by the one of the waiting that drives, with what ends its sleep.
    leader: Mutex<Wakeable>,
    leader_bell: Waker,
    /// Whether the leader sleeps; set and read under the driver's lock.
    leader_sleeps: AtomicBool,
    background_bell: Waker,
    /// Whether the background thread sleeps until something happens; set and read under the driver's lock.
    background_sleeps: AtomicBool,
    /// Whether the background thread naps for so long that whoever ends a wait has to call it.
    naps_long: AtomicBool,
    waits: Waits,
    is_closing: AtomicBool,
    looks: u32,
}

impl std::fmt::Debug for Turns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turns").finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts the background thread.
    pub(super) fn start(identity: Identity, links: Vec<Link>) -> Result<Self, CollectiveError> {
        let failed = |doing| move |e: std::io::Error| local(identity.rank, doing, &e);
        let (leader, leader_bell) = Wakeable::new().map_err(failed("make a socket pair"))?;
        let (background, background_bell) = Wakeable::new().map_err(failed("make a socket pair"))?;
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let turns = Arc::new(Turns {
            looks: LOOKS[usize::from(links.len() >= cores)],
            driver: Mutex::new(Driver::new(identity, links)),
            leader: Mutex::new(leader),
            leader_bell,
            leader_sleeps: AtomicBool::new(false),
            background_bell,
            background_sleeps: AtomicBool::new(false),
            naps_long: AtomicBool::new(false),
            waits: Waits::default(),
            is_closing: AtomicBool::new(false),
        });
        let thread = thread::Builder::new().name(format!("strath-data-{}", identity.rank));
        let shared = Arc::clone(&turns);
        let thread = thread.spawn(move || shared.guard(&background)).map_err(failed("start the data-plane thread"))?;
        Ok(Self { turns, thread: Some(thread) })
    }

    /// Starts an operation and sends what can be sent at once.
    pub(crate) fn submit(&self, machine: Box<dyn Machine + Send>, reply: Sender<Outcome>) {
        // Without a driver the reply is dropped here, which its receiver sees.
        self.turns.ask(|driver| driver.start(machine, reply));
    }

    /// Ends all operations.
    pub(crate) fn abort(&self) {
        self.turns.ask(|driver| {
            driver.abort();
            driver.turn();
        });
    }

    /// What an operation's wait needs.
    pub(crate) fn turns(&self) -> Arc<Turns> {
        Arc::clone(&self.turns)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.turns.ask(Driver::finish);
        self.turns.is_closing.store(true, Ordering::SeqCst);
        self.turns.background_bell.wake();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by its hook; every operation then failed as aborted.
            let _ = thread.join();
        }
    }
}

/// How many wait, in the lower half, and how many waits have ended, modulo 2^32.
#[derive(Default)]
struct Waits(AtomicU64);

impl Waits {
    fn begin(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// `true`: nobody waits any more.
    fn end(&self) -> bool {
        self.0.fetch_add((1 << 32) - 1, Ordering::SeqCst) as u32 == 1
    }

    /// Whether somebody waits, and what is another number whenever a wait has ended.
    fn now(&self) -> (bool, u32) {
        let both = self.0.load(Ordering::SeqCst);
        (both as u32 > 0, (both >> 32) as u32)
    }
}

/// Counts one who waits for as long as it lives.
pub(super) struct Waiting<'a>(&'a Turns);

impl<'a> Waiting<'a> {
    pub(super) fn new(turns: &'a Turns) -> Self {
        turns.waits.begin();
        Self(turns)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.0.waits.end() && self.0.naps_long.load(Ordering::SeqCst) {
            self.0.background_bell.wake();
        }
    }
}

impl Turns {
    /// The driver, or `None` where a thread panicked while it held it: then nothing goes on.
    pub(super) fn driver(&self) -> Option<MutexGuard<'_, Driver>> {
        self.driver.lock().ok()
    }

    /// Whether nothing has ended the operations, and every peer is there.
    pub(crate) fn goes_on(&self) -> bool {
        self.driver().is_some_and(|driver| driver.goes_on())
    }

    /// Looks before one who waits for a small sum hands its core over.
    pub(super) fn looks(&self) -> u32 {
        self.looks
    }

    /// Has the driver do something, and someone look after what that leaves to be written.
    pub(super) fn ask(&self, request: impl FnOnce(&mut Driver)) {
        let Some(mut driver) = self.driver() else { return };
        request(&mut driver);
        let (is_pending, leader_sleeps) = (driver.is_pending(), self.leader_sleeps.load(Ordering::SeqCst));
        let background_sleeps = self.background_sleeps.load(Ordering::SeqCst);
        drop(driver);
        // One who waits may be about to end, or be on a short way and write nothing of others.
        if leader_sleeps {
            self.leader_bell.wake();
        } else if is_pending && (background_sleeps || !self.waits.now().0) {
            self.background_bell.wake();
        }
    }

    /// Has the frames to and from a peer go through shared memory, once all that is to be written before is written. No operation
    /// with it may be under way.
    pub(super) fn share(
        &self,
        peer: Rank,
        writer: Writer,
        reader: Reader,
        deadline: Duration,
    ) -> Result<(), CollectiveError> {
        let since = Instant::now();
        let step = Step(0);
        let aborted = CollectiveError::Aborted { step, bucket: Bucket::PROBE };
        loop {
            let mut driver = self.driver().ok_or_else(|| aborted.clone())?;
            driver.turn();
            if !driver.is_pending() {
                driver.share(peer, writer, reader);
                // Asleep, it could be woken by the connections only.
                self.background_bell.wake();
                return Ok(());
            }
            let waited = since.elapsed();
            if let Some(Member { rank, address }) = driver.member(peer).filter(|_| waited >= deadline) {
                return Err(CollectiveError::PeerSilent { rank, address, step, phase: Phase::Gather, waited });
            }
            drop(driver);
            thread::yield_now();
        }
    }

    /// Waits for an operation's outcome, at most `deadline`. `None`: there will be none.
    pub(crate) fn wait(&self, key: Key, outcome: &Receiver<Outcome>, deadline: Duration) -> Option<Outcome> {
        let since = Instant::now();
        let _waiting = Waiting::new(self);
        loop {
            match self.leader.try_lock() {
                Ok(bell) => return self.lead(key, outcome, &bell, since, deadline),
                // Nothing is ever half done to a bell.
                Err(std::sync::TryLockError::Poisoned(bell)) => {
                    return self.lead(key, outcome, &bell.into_inner(), since, deadline);
                }
                Err(std::sync::TryLockError::WouldBlock) => {}
            }
            match outcome.recv_timeout(FOLLOW.min(deadline.saturating_sub(since.elapsed()))) {
                Ok(outcome) => return Some(outcome),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if since.elapsed() >= deadline => {
                    return self.expire(key, outcome, deadline);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Drives until the outcome is there.
    fn lead(
        &self,
        key: Key,
        outcome: &Receiver<Outcome>,
        bell: &Wakeable,
        since: Instant,
        deadline: Duration,
    ) -> Option<Outcome> {
        let (mut idle_since, mut heard) = (since, since);
        loop {
            let mut driver = self.driver()?;
            let turn = driver.turn();
            if let Ok(outcome) = outcome.try_recv() {
                // What woke this thread may have been for the background thread too, which has not heard it.
                let is_deaf = self.background_sleeps.load(Ordering::SeqCst) && !driver.will_be_rung();
                if driver.is_pending() || is_deaf {
                    self.background_bell.wake();
                }
                return Some(outcome);
            }
            let now = Instant::now();
            if now - since >= deadline {
                drop(driver);
                return self.expire(key, outcome, deadline);
            }
            if now - heard >= HEARING {
                heard = now;
                driver.hear();
            }
            if turn == Turn::Moved {
                idle_since = now;
            } else if now - idle_since >= SPIN {
                let watch = driver.watch();
                self.leader_sleeps.store(true, Ordering::SeqCst);
                drop(driver);
                let events = watch.sleep(bell, Some(deadline.saturating_sub(now - since)));
                let mut driver = self.driver()?;
                self.leader_sleeps.store(false, Ordering::SeqCst);
                driver.take_events(&events);
                idle_since = Instant::now();
            } else {
                drop(driver);
                thread::yield_now();
            }
        }
    }

    /// Gives up. The operation is answered at once, with the sum if that came in the last moment.
    fn expire(&self, key: Key, outcome: &Receiver<Outcome>, waited: Duration) -> Option<Outcome> {
        self.ask(|driver| driver.expire(key, waited));
        self.background_bell.wake();
        outcome.try_recv().ok()
    }

    /// What the background thread does, until all is said that is to be said once the handle is dropped.
    fn guard(&self, bell: &Wakeable) {
        let (mut nap, mut seen) = (SHORTEST_NAP, 0);
        let mut events = None;
        loop {
            let is_closing = self.is_closing.load(Ordering::SeqCst);
            let (somebody_waits, ended) = self.waits.now();
            if !is_closing && somebody_waits {
                nap = if ended == seen { (nap * 2).min(LONGEST_NAP) } else { SHORTEST_NAP };
                seen = ended;
                self.naps_long.store(nap > SHORTEST_NAP, Ordering::SeqCst);
                if self.waits.now().0 {
                    Watch::new(None).sleep(bell, Some(nap));
                }
                self.naps_long.store(false, Ordering::SeqCst);
                events = None;
                continue;
            }
            let Some((watch, is_pending)) = self.drive(events.take()) else { break };
            if is_closing && !is_pending {
                break;
            }
            events = Some(watch.sleep(bell, None));
            self.background_sleeps.store(false, Ordering::SeqCst);
        }
        self.driver.lock().unwrap_or_else(PoisonError::into_inner).close();
    }

    /// One turn of one who does not wait: what to sleep on next, and whether something is still to be written. Somebody may have
    /// begun to wait meanwhile, and be asleep already: what was read here may be all that it sleeps for, and is on no connection
    /// any more that could wake it.
    fn drive(&self, events: Option<Events>) -> Option<(Watch, bool)> {
        let mut driver = self.driver()?;
        match events {
            Some(events) => driver.take_events(&events),
            None => _ = driver.turn(),
        }
        let (watch, is_pending) = (driver.watch(), driver.is_pending());
        let leader_sleeps = self.leader_sleeps.load(Ordering::SeqCst);
        self.background_sleeps.store(true, Ordering::SeqCst);
        drop(driver);
        if leader_sleeps {
            self.leader_bell.wake();
        }
        Some((watch, is_pending))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use strath_core::config::{Algorithm, Transport};
    use strath_core::{Fault, Generation, RunId, Ticket};

    use super::*;
    use crate::collective::{Collective, Member};
    use crate::payload::Payload;

    const LONG: Duration = Duration::from_secs(10);

    /// Rank 1 comes to each sum after rank 0 has gone to sleep on it, and somebody else reads rank 0's connections as fast as it
    /// can, as the background thread may when it found nobody waiting and was then kept from running.
    fn whoever_sleeps_is_woken(transport: Transport) {
        let listeners = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let member = |rank: u32| {
            let address = listeners[rank as usize].local_addr().unwrap();
            Member { rank: Rank(rank), address }
        };
        let members = [member(0), member(1)];
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let ranks: Vec<_> = (0..)
                .zip(listeners)
                .map(|(rank, listener)| {
                    let (members, is_over) = (&members, &is_over);
                    let identity = Identity {
                        run: RunId(1),
                        generation: Generation(1),
                        rank: Rank(rank),
                        world_size: 2,
                        ticket: Ticket::default(),
                    };
                    scope.spawn(move || {
                        let peers = {
                            let how = (Algorithm::Auto, transport);
                            Collective::connect(listener, identity, members, how, LONG).unwrap()
                        };
                        thread::scope(|inner| {
                            if rank == 0 {
                                let turns = peers.turns().unwrap();
                                inner.spawn(move || {
                                    while !is_over.load(Ordering::SeqCst) {
                                        turns.drive(None).unwrap();
                                        thread::yield_now();
                                    }
                                });
                            }
                            let sums: Result<Vec<_>, _> = (0..200)
                                .map(|step| {
                                    if rank == 1 {
                                        thread::sleep(SPIN * 3);
                                    }
                                    let payload = Payload::Integers(vec![1; 8]);
                                    peers
                                        .all_reduce(Step(step), Bucket::GRADIENT, 0..2, payload, Fault::NONE)
                                        .wait(LONG)
                                })
                                .collect();
                            is_over.store(true, Ordering::SeqCst);
                            sums.map(|sums| sums.len())
                        })
                    })
                })
                .collect();
            for rank in ranks {
                assert_eq!(rank.join().unwrap(), Ok(200));
            }
        });
    }
    #[test]
    fn whoever_sleeps_is_woken_where_somebody_else_has_read_what_it_waits_for() {
        whoever_sleeps_is_woken(Transport::Tcp);
    }

    #[test]
    fn the_same_beside_shared_memory() {
        whoever_sleeps_is_woken(Transport::Shm);
    }
}
