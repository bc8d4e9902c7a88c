//! The thread that drives machines over links.
//!
//! It never blocks but in `poll`: operations come through a channel and a wake, results go back through each operation's
//! own channel. The first failure ends everything; the peers are told whose fault it is.

mod ends;
mod inbound;
mod outbound;

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use strath_core::{Fault, Step};

use super::farewell::Farewell;
use super::link::{Key, Link, Presence};
use super::mesh::local;
use super::wake::{Wakeable, Waker};
use crate::bucket::Bucket;
use crate::collective::Identity;
use crate::error::CollectiveError;
use crate::frame::{Header, Phase};
use crate::machine::Machine;
use crate::payload::Reduced;

/// What an operation comes to.
pub(crate) type Outcome = Result<(Reduced, Fault), CollectiveError>;

/// Longest that the last frames may take when the collective is dropped or has failed.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest between the end of one of a peer's connections and that of the other, before the peer counts as lost.
const BREAK_TIMEOUT: Duration = Duration::from_millis(200);
/// Bytes read from one peer before the others have their turn.
const READ_BUDGET: usize = 1024 * 1024;

/// The handle of the thread.
#[derive(Debug)]
pub(crate) struct Engine {
    remote: Remote,
    thread: Option<JoinHandle<()>>,
}

/// What can be asked of the thread from anywhere.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    requests: Sender<Request>,
    waker: Waker,
}

enum Request {
    Start { machine: Box<dyn Machine + Send>, reply: Sender<Outcome> },
    Expire { key: Key, waited: Duration },
    Abort,
    Close,
}

impl Engine {
    /// Starts the thread.
    pub(super) fn start(identity: Identity, links: Vec<Link>) -> Result<Self, CollectiveError> {
        let failed = |doing| move |e: std::io::Error| local(identity.rank, doing, &e);
        let (wakeable, waker) = Wakeable::new().map_err(failed("make a socket pair"))?;
        let (requests, inbox) = channel();
        let driver =
            Driver { identity, links, wakeable, inbox, operations: BTreeMap::new(), ending: None, closing_since: None };
        let thread = thread::Builder::new().name(format!("strath-data-{}", identity.rank));
        let thread = thread.spawn(|| driver.run()).map_err(failed("start the data-plane thread"))?;
        Ok(Self { remote: Remote { requests, waker }, thread: Some(thread) })
    }

    /// Starts an operation.
    pub(crate) fn submit(&self, machine: Box<dyn Machine + Send>, reply: Sender<Outcome>) {
        self.remote.ask(Request::Start { machine, reply });
    }

    /// Ends all operations.
    pub(crate) fn abort(&self) {
        self.remote.ask(Request::Abort);
    }

    /// A handle for one operation.
    pub(crate) fn remote(&self) -> Remote {
        self.remote.clone()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.remote.ask(Request::Close);
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by its hook; every operation then failed as aborted.
            let _ = thread.join();
        }
    }
}

impl Remote {
    /// Says that the caller waits no longer. The operation is answered at once.
    pub(crate) fn expire(&self, step: Step, bucket: Bucket, waited: Duration) {
        self.ask(Request::Expire { key: (step, bucket), waited });
    }

    fn ask(&self, request: Request) {
        // A thread that is gone has dropped the operations, which their callers see.
        let _ = self.requests.send(request);
        self.waker.wake();
    }
}

/// An operation under way.
struct Operation {
    machine: Box<dyn Machine + Send>,
    /// Commands taken from the machine whose values are still to be read.
    unread: usize,
    reply: Sender<Outcome>,
}

/// Why everything ended.
#[derive(Debug, Clone)]
enum Ending {
    Lost { link: usize, cause: String },
    Failed(CollectiveError),
    Aborted,
}

impl Ending {
    fn lost(link: usize, cause: &str) -> Self {
        Self::Lost { link, cause: cause.to_owned() }
    }
}

struct Driver {
    identity: Identity,
    /// In order of rank.
    links: Vec<Link>,
    wakeable: Wakeable,
    inbox: Receiver<Request>,
    operations: BTreeMap<Key, Operation>,
    ending: Option<Ending>,
    /// When no more was to be done but to send what is left.
    closing_since: Option<Instant>,
}

fn key(header: &Header) -> Key {
    (header.step, header.bucket)
}

/// A duration as `poll` takes it.
pub(super) fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}

impl Driver {
    fn run(mut self) {
        let mut is_open = true;
        while is_open || self.links.iter().any(|link| link.outbound.is_pending()) {
            let events = self.sleep();
            if events.first().is_some_and(|woken| *woken) {
                self.wakeable.reset();
            }
            while let Ok(request) = self.inbox.try_recv() {
                is_open &= !matches!(request, Request::Close);
                self.take(request);
            }
            for at in 0..self.links.len() {
                if events[1 + 2 * at] {
                    self.read(at);
                }
                if events[2 + 2 * at] {
                    self.check_outbound(at);
                }
            }
            self.lose_the_broken();
            self.cut_late_farewells();
            for at in 0..self.links.len() {
                self.write(at);
            }
        }
    }

    /// Waits for something to do. For each descriptor, whether there is: the wake, then both connections of each link.
    fn sleep(&mut self) -> Vec<bool> {
        let mut sources = vec![PollFd::new(&self.wakeable, PollFlags::IN)];
        for link in &self.links {
            // A source reports a reset even where nothing is asked of it, and would end every poll: one that is not read now
            // gives its place to a second, silent watch on the wake.
            let inbound = if link.is_read() && self.ending.is_none() {
                PollFd::new(&link.inbound.stream, PollFlags::IN)
            } else {
                PollFd::new(&self.wakeable, PollFlags::empty())
            };
            // The peer sends nothing on this connection: whatever can be read is its end.
            let flags = if link.outbound.is_pending() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            let outbound = match &link.outbound.stream {
                Some(stream) => PollFd::new(stream, flags),
                None => PollFd::new(&self.wakeable, PollFlags::empty()),
            };
            sources.extend([inbound, outbound]);
        }
        let timeout = self.timeout().map(timespec);
        let count = poll(&mut sources, timeout.as_ref());
        // An interrupted poll says nothing; the next one will.
        sources.iter().map(|source| count.is_ok() && !source.revents().is_empty()).collect()
    }

    fn timeout(&self) -> Option<Duration> {
        let left = |since: Instant, limit: Duration| limit.saturating_sub(since.elapsed());
        let broken = self.links.iter().filter(|l| l.presence == Presence::Here).filter_map(|l| l.broken_since);
        let breaks = broken.map(|since| left(since, BREAK_TIMEOUT));
        let unsaid = self.closing_since.filter(|_| self.links.iter().any(|l| l.outbound.is_pending()));
        breaks.chain(unsaid.map(|since| left(since, FAREWELL_TIMEOUT))).min()
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Start { machine, reply } => self.start(machine, reply),
            Request::Expire { key, waited } => self.expire(key, waited),
            Request::Close if self.operations.is_empty() && self.ending.is_none() => {
                self.say_farewell(Farewell::Finished);
            }
            Request::Abort | Request::Close => self.end(Ending::Aborted),
        }
    }

    fn start(&mut self, machine: Box<dyn Machine + Send>, reply: Sender<Outcome>) {
        let tag = machine.reduction().tag().clone();
        let key = (tag.step, tag.bucket);
        if let Some(ending) = &self.ending {
            // Whoever has dropped the receiver does not want to know.
            let _ = reply.send(Err(self.error(ending, key, Phase::Reduce)));
            return;
        }
        if self.operations.contains_key(&key) {
            let _ = reply.send(Err(CollectiveError::Duplicate { step: tag.step, bucket: tag.bucket }));
            return;
        }
        self.operations.insert(key, Operation { machine, unread: 0, reply });
        self.queue_commands(key);
        for at in 0..self.links.len() {
            for (header, body) in self.links[at].inbound.take_early(key) {
                if self.ending.is_none() {
                    self.hand_over(at, &header, &body);
                }
            }
        }
        for at in 0..self.links.len() {
            self.check_presence(at);
            // What stood still because too much was kept may go on now.
            self.take_frames(at);
        }
        self.finish_if_complete(key);
    }

    fn expire(&mut self, key: Key, waited: Duration) {
        let Some(operation) = self.operations.get(&key) else { return };
        let group = operation.machine.reduction().tag().group.clone();
        // Where nothing is missing, some peer does not take what this rank sends.
        let in_group = |link: &&Link| group.contains(&link.member.rank.0);
        let stuck = || {
            let peers = self.links.iter().filter(in_group);
            peers.max_by_key(|link| link.outbound.is_pending()).map(|link| link.member.rank)
        };
        let silent = operation.machine.slowest().or_else(stuck);
        let silent = self.links.iter().find(|link| Some(link.member.rank) == silent);
        let member = silent.expect("a group under way has a second rank, which has a link").member;
        let phase = operation.machine.phase();
        let (rank, address) = (member.rank, member.address);
        self.end(Ending::Failed(CollectiveError::PeerSilent { rank, address, step: key.0, phase, waited }));
    }
}
