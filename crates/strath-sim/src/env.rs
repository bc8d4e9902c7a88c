//! What every process of the simulation acts upon: time, the network, draws, the log and the invariants.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use strath_core::{Rank, Step, Timestamp};
use strath_protocol::message::{Purpose, Shortage};

use crate::bug::Bug;
use crate::draws::Draws;
use crate::fault::Fault;
use crate::invariant::{Fact, Invariants};
use crate::network::{Closing, Host, Network, Packet, Plane, ProcessId, Side, StreamId};
use crate::peers::Frame;
use crate::queue::Queue;
use crate::scenario::Scenario;
use crate::worker::{Report, ThreadId};

/// What happens at a moment.
#[derive(Debug)]
pub enum Occurrence {
    /// Something comes to one side of a stream.
    Arrives(StreamId, Side, Packet),
    /// A blocked link may let through what it held back.
    Releases(StreamId, Side),
    /// Something happens within a process.
    Within(ProcessId, Input),
    /// A fault.
    Faults(Fault),
    /// What a fault began is over.
    Mends(Mending),
    /// A direction of a link has been blocked for so long that its ends give up, if it still is by this block.
    FallsSilent(Host, Host, u64),
    /// A worker's process is started on a host that has none.
    Starts(Host),
    /// The coordinator's process is started, if there is none.
    StartsCoordinator,
    /// No faults happen any more.
    Calms,
    /// The time is over.
    Ends,
}

/// The end of a fault.
#[derive(Debug, Clone, Copy)]
pub enum Mending {
    /// A stalled process goes on.
    Wakes(ProcessId),
    /// A direction opens again, if it is still blocked by this block.
    Opens(Host, Host, u64),
    /// A direction is as fast as usual again.
    Hastens(Host, Host),
}

/// What happens within a process, or reaches it.
#[derive(Debug)]
pub enum Input {
    /// Something has arrived on a stream.
    Packet(StreamId, Packet),
    /// The deadline of its machine may have passed.
    Timer,
    /// The coordinator's disk has a state.
    Saved(Step, Purpose),
    /// SIGTERM or Ctrl-C.
    Signal,
    /// Somebody wants the worker of a process to leave.
    Drains {
        /// The process.
        process: ProcessId,
        /// What to do where too few others are left.
        shortage: Shortage,
    },
    /// A worker is to try to reach the coordinator.
    Dials,
    /// A worker's data and model are ready, for this session.
    Prepared(StreamId),
    /// A worker is to dial a peer again.
    DialsPeer(ThreadId, Rank),
    /// A peer's host should have given a sign by now of the stream on which it was dialled.
    SignDeadline(ThreadId, Rank, StreamId),
    /// Peers had to be connected by now.
    ConnectDeadline(ThreadId),
    /// A feed may have been silent for too long.
    FeedDeadline(ThreadId),
    /// The training thread has computed its micro-batches.
    Computed(ThreadId),
    /// A thread reports to the session.
    Reports(ThreadId, Report),
}

/// The world around the processes.
pub struct Env {
    /// What is to happen.
    pub queue: Queue<Occurrence>,
    /// Streams and links.
    pub network: Network,
    /// What the seed decides.
    pub draws: Draws,
    /// What must hold.
    pub invariants: Invariants,
    /// What the run is like.
    pub scenario: Scenario,
    /// Who listens for peers, by address.
    pub listeners: BTreeMap<SocketAddr, ProcessId>,
    /// The coordinator's process, while it listens.
    pub coordinator: Option<ProcessId>,
    /// The bug that is put back.
    pub bug: Option<Bug>,
    /// Words of the log, where one is wanted.
    pub log: Option<Vec<String>>,
    /// When a step came on record last.
    recorded_at: Option<Timestamp>,
    /// The longest that no step came on record, from the first to the last.
    pub longest_pause: Duration,
    /// Frames that were sent: what may come once more.
    pub past: Past,
    /// Workers to whom one of them comes as soon as it may be taken for one that is due.
    pub lurking: BTreeSet<ProcessId>,
    /// Until when the training of a process hangs.
    pub hanging: BTreeMap<ProcessId, Timestamp>,
    /// Processes and threads that have begun.
    begun: u64,
}

/// Frames that are remembered of a generation.
const REMEMBERED: usize = 24;

/// The newest frames of the generation at work, and the last of those before it.
#[derive(Debug, Default)]
pub struct Past {
    current: VecDeque<Frame>,
    old: Vec<Frame>,
}

impl Past {
    fn note(&mut self, frame: &Frame) {
        if self.current.back().is_some_and(|newest| newest.truth.generation < frame.truth.generation) {
            self.old = std::mem::take(&mut self.current).into();
        }
        if self.current.len() == REMEMBERED {
            self.current.pop_front();
        }
        self.current.push_back(frame.clone());
    }

    /// The last frames of generations that are over.
    pub fn old(&self) -> &[Frame] {
        &self.old
    }
}

impl Env {
    /// A world in which nothing has happened.
    pub fn new(scenario: Scenario, draws: Draws, invariants: Invariants, bug: Option<Bug>, is_logged: bool) -> Self {
        Self {
            queue: Queue::default(),
            network: Network::default(),
            draws,
            invariants,
            scenario,
            listeners: BTreeMap::new(),
            coordinator: None,
            bug,
            log: is_logged.then(Vec::new),
            recorded_at: None,
            longest_pause: Duration::ZERO,
            past: Past::default(),
            lurking: BTreeSet::new(),
            hanging: BTreeMap::new(),
            begun: 0,
        }
    }

    /// The moment that it is.
    pub fn now(&self) -> Timestamp {
        self.queue.now()
    }

    /// A number that nothing else has.
    pub fn number(&mut self) -> u64 {
        self.begun += 1;
        self.begun
    }

    /// Writes a line of the log.
    pub fn log(&mut self, what: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            let line = format!("{:>12.6} {}", self.queue.now().0.as_secs_f64(), what());
            log.push(line);
        }
    }

    /// States a fact.
    pub fn note(&mut self, fact: &Fact) {
        self.log(|| format!("         {fact:?}"));
        if let Fact::Recorded(_) = fact {
            let now = self.queue.now();
            let before = self.recorded_at.replace(now).unwrap_or(now);
            self.longest_pause = self.longest_pause.max(now.since(before));
        }
        self.invariants.observe(fact, self.queue.now());
    }

    /// Sends something on a stream.
    pub fn send(&mut self, stream: StreamId, by: Side, packet: Packet) {
        if let Packet::Frame(frame) = &packet {
            self.past.note(frame);
        }
        let to = if by == Side::Dialler { Side::Listener } else { Side::Dialler };
        if let Some(at) = self.network.send(stream, by, self.queue.now(), &mut self.draws) {
            self.queue.at(at, Occurrence::Arrives(stream, to, packet));
        }
    }

    /// Closes a stream; the other side hears of it after all that was sent.
    pub fn close(&mut self, stream: StreamId, by: Side, closing: Closing) {
        self.send(stream, by, Packet::Closed(closing));
        self.network.close(stream, by);
    }

    /// Breaks a stream: both sides hear of it, soon but not at once.
    pub fn reset(&mut self, stream: StreamId, closing: Closing) {
        if self.draws.percent(50) {
            self.network.cut(stream);
        }
        for side in [Side::Dialler, Side::Listener] {
            let soon = self.draws.micros(50, 5000);
            self.queue.after(soon, Occurrence::Arrives(stream, side, Packet::Closed(closing)));
        }
    }

    /// Plans something within a process.
    pub fn within(&mut self, delay: Duration, process: ProcessId, input: Input) {
        self.queue.after(delay, Occurrence::Within(process, input));
    }

    /// Lets nothing through in a direction for a while.
    pub fn block(&mut self, from: Host, to: Host, lasting: Duration) {
        let block = self.network.block(from, to);
        self.queue.after(lasting, Occurrence::Mends(Mending::Opens(from, to, block)));
        self.queue.after(self.silence(), Occurrence::FallsSilent(from, to, block));
    }

    /// How long the other end of a connection between ranks may answer nothing, before the kernel gives it up: a lease, but no less than a
    /// second.
    pub fn silence(&self) -> Duration {
        Duration::from_millis(self.scenario.config.cluster.lease_ms.max(1000))
    }

    /// Breaks the streams of a link whose ends hear nothing of each other.
    pub fn fall_silent(&mut self, from: Host, to: Host) {
        for stream in self.network.between(Plane::Data, from, to) {
            self.reset(stream, Closing::Silent);
        }
    }

    /// Opens a direction again.
    pub fn open(&mut self, from: Host, to: Host) {
        for (stream, side) in self.network.unblock(from, to) {
            // The sender tries again after a while only.
            let retried = self.draws.millis(1, 300);
            self.queue.after(retried, Occurrence::Releases(stream, side));
        }
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env").field("now", &self.now()).finish_non_exhaustive()
    }
}
