//! The thread that drives machines over links.
//!
//! It never blocks but in `poll`: operations come through a channel and a wake, results go back through each operation's
//! own channel. The first failure ends everything; the peers are told whose fault it is.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use strath_core::{Fault, Step};

use super::farewell::Farewell;
use super::link::{Filled, Key, Link, Presence};
use super::mesh::local;
use super::wake::{Wakeable, Waker};
use crate::bucket::Bucket;
use crate::collective::Identity;
use crate::error::{CollectiveError, Mismatch};
use crate::frame::{Header, Phase};
use crate::machine::Machine;
use crate::packing::Encoding;
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

    // Requests.

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

    // Frames from peers.

    fn read(&mut self, at: usize) {
        let mut budget = READ_BUDGET;
        while self.ending.is_none() && self.links[at].is_read() {
            match self.links[at].inbound.fill() {
                Ok(Filled::Nothing) => return,
                Ok(Filled::End) => return self.lose(at, "it closed the connection"),
                Err(error) => return self.lose(at, &error.to_string()),
                Ok(Filled::Some(_)) => return self.take_frames(at),
                Ok(Filled::All(read)) => {
                    self.take_frames(at);
                    budget = budget.saturating_sub(read);
                    if budget == 0 {
                        return;
                    }
                }
            }
        }
    }

    /// Takes every whole frame that was read from a peer.
    fn take_frames(&mut self, at: usize) {
        while self.ending.is_none() && self.links[at].is_read() {
            let header = match self.links[at].inbound.header() {
                Ok(Some(header)) => header,
                Ok(None) => return self.links[at].inbound.make_room(None),
                Err(mismatch) => return self.refuse(at, self.oldest(at), mismatch),
            };
            if let Err(mismatch) = self.admit(at, &header) {
                return self.refuse(at, key(&header), mismatch);
            }
            let Some(body) = self.links[at].inbound.body(&header) else {
                return self.links[at].inbound.make_room(Some(&header));
            };
            if header.phase == Phase::Farewell {
                return self.take_farewell(at, Farewell::from_wire(header.chunk));
            }
            let from = self.links[at].member.rank;
            match self.operations.get_mut(&key(&header)) {
                None => self.links[at].inbound.keep(key(&header), &header),
                Some(operation) => {
                    if let Err(mismatch) = operation.machine.handle(from, &header, body) {
                        return self.refuse(at, key(&header), mismatch);
                    }
                    self.links[at].inbound.consume(&header);
                    self.queue_commands(key(&header));
                    self.finish_if_complete(key(&header));
                }
            }
        }
    }

    /// Whether the next frame of a peer is due, or may become due once its operation is started here.
    fn admit(&self, at: usize, header: &Header) -> Result<(), Mismatch> {
        Mismatch::check("run", self.identity.run.0, header.run.0)?;
        Mismatch::check("generation", self.identity.generation.0, header.generation.0)?;
        match self.operations.get(&key(header)) {
            Some(operation) if header.phase != Phase::Farewell => {
                operation.machine.admit(self.links[at].member.rank, header)
            }
            _ => Ok(()),
        }
    }

    /// Hands a frame that was kept to its operation.
    fn hand_over(&mut self, at: usize, header: &Header, body: &[u8]) {
        let from = self.links[at].member.rank;
        let Some(operation) = self.operations.get_mut(&key(header)) else { return };
        match operation.machine.handle(from, header, body) {
            Ok(()) => self.queue_commands(key(header)),
            Err(mismatch) => self.refuse(at, key(header), mismatch),
        }
    }

    /// What a peer was working on, as far as this rank knows.
    fn oldest(&self, at: usize) -> Key {
        let rank = self.links[at].member.rank.0;
        let with_it = |o: &&Operation| o.machine.reduction().tag().group.contains(&rank);
        let tag = self.operations.values().find(with_it).map(|o| o.machine.reduction().tag());
        tag.map_or((Step(0), Bucket::CONTROL), |tag| (tag.step, tag.bucket))
    }

    fn refuse(&mut self, at: usize, (step, bucket): Key, mismatch: Mismatch) {
        let (rank, address) = (self.links[at].member.rank, self.links[at].member.address);
        self.end(Ending::Failed(CollectiveError::Protocol { rank, address, step, bucket, mismatch }));
    }

    fn take_farewell(&mut self, at: usize, farewell: Farewell) {
        let said_by = self.links[at].member.rank;
        match farewell {
            Farewell::Finished => {
                self.links[at].presence = Presence::Left;
                self.drop_outbound(at);
                self.check_presence(at);
            }
            Farewell::Aborted => self.end(Ending::lost(at, "it ended the exchange")),
            Farewell::BecauseOf(rank) => match self.links.iter().position(|l| l.member.rank == rank) {
                Some(culprit) => self.end(Ending::lost(culprit, &format!("rank {said_by} reports it"))),
                None => self.end(Ending::lost(at, "it ended the exchange, for it had no valid answer from this rank")),
            },
        }
    }

    // Frames to peers.

    fn queue_commands(&mut self, key: Key) {
        let Some(operation) = self.operations.get_mut(&key) else { return };
        while let Some(command) = operation.machine.poll_command() {
            let link = self.links.iter_mut().find(|link| link.member.rank == command.to);
            let link = link.expect("a machine sends to ranks of its group, all of which have a link");
            // One that has left has all it needs.
            if link.presence == Presence::Here && link.outbound.stream.is_some() {
                link.outbound.queue.push_back(command.header);
                operation.unread += 1;
            }
        }
    }

    fn write(&mut self, at: usize) {
        while self.links[at].outbound.is_pending() {
            let mut read = Vec::new();
            let operations = &mut self.operations;
            self.links[at].outbound.encode(|header, out| {
                if let Some(operation) = operations.get_mut(&key(header)) {
                    operation.machine.encode(header, out);
                    operation.unread -= 1;
                    read.push(key(header));
                }
            });
            let written = self.links[at].outbound.write();
            for key in read {
                self.finish_if_complete(key);
            }
            match written {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => return self.break_outbound(at),
            }
        }
    }

    fn check_outbound(&mut self, at: usize) {
        let Some(stream) = &self.links[at].outbound.stream else { return };
        match std::io::Read::read(&mut &*stream, &mut [0]) {
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => {}
            _ => self.break_outbound(at),
        }
    }

    /// The peer no longer reads. What it has sent tells whether it has left or is lost, so that is read first.
    fn break_outbound(&mut self, at: usize) {
        self.links[at].outbound.stream = None;
        self.links[at].broken_since = Some(Instant::now());
        self.take_frames(at);
        self.read(at);
    }

    /// Forgets what a peer that has left was still to be sent.
    fn drop_outbound(&mut self, at: usize) {
        self.links[at].outbound.stream = None;
        for header in std::mem::take(&mut self.links[at].outbound.queue) {
            if let Some(operation) = self.operations.get_mut(&key(&header)) {
                operation.unread -= 1;
            }
            self.finish_if_complete(key(&header));
        }
    }

    // Ends.

    fn finish_if_complete(&mut self, key: Key) {
        let complete = |operation: &Operation| operation.unread == 0 && operation.machine.is_complete();
        if self.operations.get(&key).is_some_and(complete)
            && let Some(operation) = self.operations.remove(&key)
        {
            // Whoever has dropped the receiver does not want the sum.
            let _ = operation.reply.send(Ok(operation.machine.into_result()));
        }
    }

    fn lose_the_broken(&mut self) {
        for at in 0..self.links.len() {
            let link = &self.links[at];
            let broken = link.broken_since.is_some_and(|since| since.elapsed() >= BREAK_TIMEOUT);
            if broken && link.presence == Presence::Here {
                self.lose(at, "the connection to it broke");
            }
        }
    }

    /// Peers that have not taken this rank's last frames in time do without them.
    fn cut_late_farewells(&mut self) {
        if self.closing_since.is_some_and(|since| since.elapsed() >= FAREWELL_TIMEOUT) {
            self.links.iter_mut().for_each(|link| link.outbound.stream = None);
        }
    }

    fn lose(&mut self, at: usize, cause: &str) {
        self.links[at].presence = Presence::Lost(cause.to_owned());
        self.check_presence(at);
    }

    /// Ends everything if an operation under way needs a peer that is gone.
    fn check_presence(&mut self, at: usize) {
        let rank = self.links[at].member.rank;
        let cause = match &self.links[at].presence {
            Presence::Left if self.operations.values().any(|o| o.machine.awaits(rank)) => "it has left",
            Presence::Here | Presence::Left => return,
            Presence::Lost(cause) => {
                let needs = |o: &Operation| o.machine.reduction().tag().group.contains(&rank.0);
                if !self.operations.values().any(needs) {
                    return;
                }
                cause
            }
        };
        self.end(Ending::lost(at, cause));
    }

    fn end(&mut self, ending: Ending) {
        if self.ending.is_some() {
            return;
        }
        let operations = std::mem::take(&mut self.operations);
        for (key, operation) in operations {
            // Whoever has dropped the receiver does not want to know.
            let _ = operation.reply.send(Err(self.error(&ending, key, operation.machine.phase())));
        }
        let farewell = match &ending {
            Ending::Lost { link, .. } => Farewell::BecauseOf(self.links[*link].member.rank),
            Ending::Failed(CollectiveError::PeerSilent { rank, .. } | CollectiveError::Protocol { rank, .. }) => {
                Farewell::BecauseOf(*rank)
            }
            Ending::Failed(_) | Ending::Aborted => Farewell::Aborted,
        };
        self.ending = Some(ending);
        for link in &mut self.links {
            link.outbound.queue.clear();
        }
        self.say_farewell(farewell);
    }

    fn error(&self, ending: &Ending, (step, bucket): Key, phase: Phase) -> CollectiveError {
        match ending {
            Ending::Lost { link, cause } => {
                let member = self.links[*link].member;
                let cause = cause.clone();
                CollectiveError::PeerLost { rank: member.rank, address: member.address, step, phase, cause }
            }
            Ending::Failed(error) => error.clone(),
            Ending::Aborted => CollectiveError::Aborted { step, bucket },
        }
    }

    fn say_farewell(&mut self, farewell: Farewell) {
        let header = Header {
            phase: Phase::Farewell,
            encoding: Encoding::Integers,
            run: self.identity.run,
            generation: self.identity.generation,
            step: Step(0),
            bucket: Bucket::CONTROL,
            chunk: farewell.to_wire(),
            group_start: 0,
            group_end: self.identity.world_size,
            entries: 0,
            offset: 0,
            length: 0,
            width: 0,
            fault: Fault::NONE,
        };
        for link in &mut self.links {
            if link.outbound.stream.is_some() {
                link.outbound.queue.push_back(header);
            }
        }
        self.closing_since.get_or_insert_with(Instant::now);
    }
}
