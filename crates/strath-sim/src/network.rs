//! The network: streams between processes, like those of TCP.
//!
//! What one end sends arrives at the other in order, later. A link between two hosts may be *blocked* in one direction or both: what
//! arrives there is stuck until it opens again. A stream may be *reset*: both ends hear of its end, and what is on its way may or may
//! not arrive before. So nothing is lost or reordered within a stream, but words of a stream that is over may still arrive while
//! another has begun.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use strath_core::Timestamp;
use strath_protocol::message::{CoordinatorMessage, WorkerMessage};

use crate::draws::Draws;
use crate::peers::{Frame, Hello};
use crate::worker::Fed;

/// A machine; 0 is the coordinator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host(pub u32);

impl Host {
    /// An address of it.
    pub fn address(self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, (self.0 >> 8) as u8, self.0 as u8)), port)
    }

    /// Whose address that is.
    pub fn of(address: SocketAddr) -> Self {
        match address.ip() {
            IpAddr::V4(ip) => Self(u32::from(ip.octets()[2]) << 8 | u32::from(ip.octets()[3])),
            IpAddr::V6(_) => Self(u32::MAX),
        }
    }
}

/// A process on a host, from its start to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessId(pub u64);

/// A connection, for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// An end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Whoever has connected.
    Dialler = 0,
    /// Whoever was connected to.
    Listener = 1,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Listener,
            Self::Listener => Self::Dialler,
        }
    }
}

/// What a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plane {
    /// Words between a worker and the coordinator.
    Control,
    /// Sums between workers.
    Data,
}

/// What travels.
#[derive(Debug, Clone, PartialEq)]
pub enum Packet {
    /// A session begins.
    Opened,
    /// A worker's word.
    ToCoordinator(WorkerMessage),
    /// The coordinator's word.
    ToWorker(CoordinatorMessage),
    /// The first words between two ranks.
    Hello(Hello),
    /// The answer to them.
    Answer(Hello),
    /// A segment of a sum.
    Frame(Frame),
    /// What a worker that joins is fed.
    Fed(Fed),
    /// The stream is over.
    Closed(Closing),
}

/// How a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// The other end has finished all that it owed.
    Finished,
    /// The other end has closed it.
    Ended,
    /// It broke.
    Reset,
    /// Nobody listens there.
    Refused,
    /// The other end answers nothing.
    Silent,
}

#[derive(Debug)]
struct Stream {
    plane: Plane,
    hosts: [Host; 2],
    ends: [Option<ProcessId>; 2],
    /// Where it was dialled to.
    address: SocketAddr,
    /// When the last that travels to each side arrives.
    newest: [Timestamp; 2],
    /// What a blocked link holds back, by the side that it travels to.
    stuck: [VecDeque<Packet>; 2],
    /// Which sides have closed it.
    closed: [bool; 2],
    /// Nothing but its end arrives any more.
    is_cut: bool,
}

/// All streams and links.
#[derive(Debug, Default)]
pub struct Network {
    streams: BTreeMap<StreamId, Stream>,
    opened: u64,
    /// Directions of links that let nothing through, and how often each was blocked.
    blocked: BTreeMap<(Host, Host), u64>,
    blocks: u64,
    /// Directions of links that are slow.
    slow: BTreeMap<(Host, Host), Duration>,
    dead: BTreeSet<Host>,
}

/// Where something that arrives goes.
#[derive(Debug)]
pub enum Arrival {
    /// To this process.
    To(ProcessId, Packet),
    /// To whoever listens at this address.
    Knocks(SocketAddr, Packet),
    /// Nowhere, or not now.
    Nowhere,
}

impl Network {
    /// Opens a stream.
    pub fn open(
        &mut self,
        plane: Plane,
        from: (ProcessId, Host),
        to: SocketAddr,
        listener: Option<ProcessId>,
    ) -> StreamId {
        let id = StreamId(self.opened);
        self.opened += 1;
        let stream = Stream {
            plane,
            hosts: [from.1, Host::of(to)],
            ends: [Some(from.0), listener],
            address: to,
            newest: [Timestamp::default(); 2],
            stuck: [VecDeque::new(), VecDeque::new()],
            closed: [false; 2],
            is_cut: false,
        };
        self.streams.insert(id, stream);
        id
    }

    /// The process that has taken a stream.
    pub fn accept(&mut self, id: StreamId, by: ProcessId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.ends[1] = Some(by);
        }
    }

    /// When something sent now by one side arrives at the other; `None` where it does not.
    pub fn send(&mut self, id: StreamId, by: Side, now: Timestamp, draws: &mut Draws) -> Option<Timestamp> {
        let stream = self.streams.get(&id).filter(|stream| !stream.closed[by as usize])?;
        let (from, to) = (stream.hosts[by as usize], stream.hosts[by.other() as usize]);
        let slowness = self.slow.get(&(from, to)).copied().unwrap_or_default();
        let stream = self.streams.get_mut(&id)?;
        let newest = &mut stream.newest[by.other() as usize];
        *newest = now.after(draws.micros(50, 800) + slowness).max(*newest);
        Some(*newest)
    }

    /// Takes something that has come to one side of a stream.
    pub fn arrive(&mut self, id: StreamId, to: Side, packet: Packet) -> Arrival {
        let Some(stream) = self.streams.get_mut(&id) else { return Arrival::Nowhere };
        let link = (stream.hosts[to.other() as usize], stream.hosts[to as usize]);
        let is_local_news = matches!(packet, Packet::Closed(Closing::Reset | Closing::Silent));
        let is_held = self.blocked.contains_key(&link) || !stream.stuck[to as usize].is_empty();
        if is_held && !is_local_news {
            stream.stuck[to as usize].push_back(packet);
            return Arrival::Nowhere;
        }
        // The coordinator may come to a word only after the end of the session that it was said in.
        let is_late_word = stream.plane == Plane::Control && to == Side::Listener;
        if is_local_news && !is_late_word {
            stream.stuck[to as usize].clear();
            let was_closed = std::mem::replace(&mut stream.closed[to as usize], true);
            return match stream.ends[to as usize] {
                Some(process) if !was_closed => Arrival::To(process, packet),
                _ => Arrival::Nowhere,
            };
        }
        if (stream.is_cut && !is_local_news) || (stream.closed[to as usize] && !is_late_word) {
            return Arrival::Nowhere;
        }
        match stream.ends[to as usize] {
            Some(process) => Arrival::To(process, packet),
            None => Arrival::Knocks(stream.address, packet),
        }
    }

    /// What a link that is open again lets through.
    pub fn release(&mut self, id: StreamId, to: Side) -> VecDeque<Packet> {
        let Some(stream) = self.streams.get_mut(&id) else { return VecDeque::new() };
        let link = (stream.hosts[to.other() as usize], stream.hosts[to as usize]);
        if self.blocked.contains_key(&link) { VecDeque::new() } else { std::mem::take(&mut stream.stuck[to as usize]) }
    }

    /// One side has closed a stream, and sends nothing more. Whether it was open there.
    pub fn close(&mut self, id: StreamId, by: Side) -> bool {
        self.streams.get_mut(&id).is_some_and(|stream| !std::mem::replace(&mut stream.closed[by as usize], true))
    }

    /// Lets nothing but its end arrive on a stream any more.
    pub fn cut(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.is_cut = true;
        }
    }

    /// Lets nothing through in a direction; gives a number for this block.
    pub fn block(&mut self, from: Host, to: Host) -> u64 {
        self.blocks += 1;
        self.blocked.insert((from, to), self.blocks);
        self.blocks
    }

    /// Whether a direction is blocked still, or by this block.
    pub fn is_blocked(&self, from: Host, to: Host) -> Option<u64> {
        self.blocked.get(&(from, to)).copied()
    }

    /// Opens a direction again; the streams and sides with something stuck.
    pub fn unblock(&mut self, from: Host, to: Host) -> Vec<(StreamId, Side)> {
        self.blocked.remove(&(from, to));
        let mut waiting = Vec::new();
        for (id, stream) in &self.streams {
            for side in [Side::Dialler, Side::Listener] {
                let link = (stream.hosts[side.other() as usize], stream.hosts[side as usize]);
                if link == (from, to) && !stream.stuck[side as usize].is_empty() {
                    waiting.push((*id, side));
                }
            }
        }
        waiting
    }

    /// Opens every link, at its usual speed; the directions that were blocked.
    pub fn heal(&mut self) -> Vec<(Host, Host)> {
        self.slow.clear();
        self.blocked.keys().copied().collect()
    }

    /// Makes a direction slow, or as fast as usual.
    pub fn set_slowness(&mut self, from: Host, to: Host, slowness: Duration) {
        self.slow.insert((from, to), slowness);
    }

    /// The host has lost its power, or has it again.
    pub fn set_dead(&mut self, host: Host, is_dead: bool) {
        if is_dead {
            self.dead.insert(host);
        } else {
            self.dead.remove(&host);
        }
    }

    /// Whether a host has no power.
    pub fn is_dead(&self, host: Host) -> bool {
        self.dead.contains(&host)
    }

    /// The streams of a process that are open at its end, and its side of each.
    pub fn of(&self, process: ProcessId) -> Vec<(StreamId, Side, Plane)> {
        let mut found = Vec::new();
        for (id, stream) in &self.streams {
            for side in [Side::Dialler, Side::Listener] {
                if stream.ends[side as usize] == Some(process) && !stream.closed[side as usize] {
                    found.push((*id, side, stream.plane));
                }
            }
        }
        found
    }

    /// The open streams of a plane between two hosts.
    pub fn between(&self, plane: Plane, one: Host, other: Host) -> Vec<StreamId> {
        let joins = |stream: &Stream| stream.hosts == [one, other] || stream.hosts == [other, one];
        let is_open = |stream: &Stream| stream.plane == plane && !stream.closed[0] && !stream.closed[1];
        self.streams.iter().filter(|(_, s)| joins(s) && is_open(s)).map(|(id, _)| *id).collect()
    }
}
