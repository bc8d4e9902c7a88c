//! Drives machines over links; the one who holds it decides when.
//!
//! Nothing here blocks or sleeps: [`Driver::turn`] reads and writes what can be read and written at once, and
//! [`Driver::watch`] says what to sleep on until there is more. Operations end through their own channels. The first failure
//! ends everything; the peers are told whose fault it is.

mod ends;
mod inbound;
mod lying;
mod outbound;
mod short;

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use strath_core::{Fault, Rank};

pub(super) use self::short::Short;
use super::farewell::Farewell;
use super::link::{Key, Link, Presence};
use super::pipe::{Reader, Writer};
use super::watch::{Events, Watch};
use crate::collective::{Identity, Member};
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
    Lost {
        link: usize,
        cause: String,
    },
    Failed(CollectiveError),
    /// A peer named this rank as the one at fault.
    Blamed {
        by: usize,
    },
    Aborted,
}

impl Ending {
    fn lost(link: usize, cause: &str) -> Self {
        Self::Lost { link, cause: cause.to_owned() }
    }
}

/// Operations under way, and the links that they travel on.
pub(super) struct Driver {
    identity: Identity,
    /// In order of rank.
    links: Vec<Link>,
    operations: BTreeMap<Key, Operation>,
    /// Sums on their short way, which are no operations.
    shorts: Vec<Key>,
    ending: Option<Ending>,
    /// A peer's last word, while what the others have sent is still being taken.
    heard: Option<Ending>,
    /// When no more was to be done but to send what is left.
    closing_since: Option<Instant>,
    /// Whether something was read or written in this turn.
    moved: bool,
    /// Whether segments may lie where they came.
    lets_lie: bool,
}

/// Whether a turn found something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Bytes were read or written.
    Moved,
    /// There was nothing to read and no room to write.
    Idle,
}

fn key(header: &Header) -> Key {
    (header.step, header.bucket)
}

impl Driver {
    /// Drives nothing yet.
    pub(super) fn new(identity: Identity, links: Vec<Link>) -> Self {
        Self {
            identity,
            links,
            operations: BTreeMap::new(),
            shorts: Vec::new(),
            ending: None,
            heard: None,
            closing_since: None,
            moved: false,
            lets_lie: false,
        }
    }

    /// Reads what is there and writes what there is room for.
    pub(super) fn turn(&mut self) -> Turn {
        (self.moved, self.lets_lie) = (false, true);
        for at in 0..self.links.len() {
            self.read(at);
        }
        self.lets_lie = false;
        self.settle();
        if self.moved { Turn::Moved } else { Turn::Idle }
    }

    /// The same once a [`watch`](Self::watch) has found something.
    pub(super) fn take_events(&mut self, events: &Events) {
        for at in 0..self.links.len() {
            if events.inbound(at) {
                self.hear_ringing(at);
            }
            if events.inbound(at) || self.links[at].inbound.shared.is_some() || self.links[at].inbound.has_more() {
                self.read(at);
            }
            if events.outbound(at) {
                self.check_outbound(at);
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        self.lose_the_broken();
        for at in 0..self.links.len() {
            self.write(at);
        }
        self.cut_late_farewells();
    }

    /// Whether something waits for room on a connection.
    pub(super) fn is_pending(&self) -> bool {
        self.links.iter().any(|link| link.outbound.is_pending())
    }

    /// Closes every connection.
    pub(super) fn close(&mut self) {
        self.links.clear();
    }

    /// What to sleep on until there is something to do: both connections of each link. Peers are told that this process sleeps,
    /// and whoever has the watch is to sleep on it.
    pub(super) fn watch(&mut self) -> Watch {
        self.take_lying();
        let is_read = |link: &Link| link.is_read() && self.ending.is_none();
        // Every peer is told, also once one has something.
        let has_more = |link: &&Link| link.say_asleep(is_read(link)) || (is_read(link) && link.inbound.has_more());
        let links_with_more = self.links.iter().filter(has_more).count();
        let mut watch = Watch::new(if links_with_more > 0 { Some(Duration::ZERO) } else { self.timeout() });
        for link in &self.links {
            let (is_shared, is_pending) = (link.outbound.shared.is_some(), link.outbound.is_pending());
            // Of room in shared memory a peer tells on the connection that it sends on.
            let is_heard = is_read(link) || (is_shared && is_pending && link.presence == Presence::Here);
            let inbound = is_heard.then(|| link.inbound.stream.clone());
            watch.push(inbound, link.outbound.stream.clone(), is_pending && !is_shared);
        }
        watch
    }

    /// Looks whether a peer has ended that is read without its connection. Whoever sleeps on connections finds out by that.
    pub(super) fn hear(&mut self) {
        self.take_lying();
        for at in 0..self.links.len() {
            self.hear_ringing(at);
        }
    }

    /// A peer.
    pub(super) fn member(&self, peer: Rank) -> Option<Member> {
        self.links.iter().map(|link| link.member).find(|member| member.rank == peer)
    }

    /// Whether every peer will wake this process if it finds something for it to do.
    pub(super) fn will_be_rung(&self) -> bool {
        self.links.iter().all(Link::will_be_rung)
    }

    /// Has the frames to and from a peer go through shared memory. Nothing may be under way with it.
    pub(super) fn share(&mut self, peer: Rank, writer: Writer, reader: Reader) {
        if let Some(link) = self.links.iter_mut().find(|link| link.member.rank == peer) {
            link.share(writer, reader);
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let left = |since: Instant, limit: Duration| limit.saturating_sub(since.elapsed());
        let broken = self.links.iter().filter(|l| l.presence == Presence::Here).filter_map(|l| l.broken_since);
        let breaks = broken.map(|since| left(since, BREAK_TIMEOUT));
        let unsaid = self.closing_since.filter(|_| self.is_pending());
        breaks.chain(unsaid.map(|since| left(since, FAREWELL_TIMEOUT))).min()
    }

    /// Whether nothing has ended the operations, and every peer is there.
    pub(super) fn goes_on(&self) -> bool {
        self.ending.is_none() && self.links.iter().all(|link| link.presence == Presence::Here)
    }

    /// Ends all operations.
    pub(super) fn abort(&mut self) {
        self.end(Ending::Aborted);
    }

    /// Says the last words: no operation will be started any more.
    pub(super) fn finish(&mut self) {
        if self.operations.is_empty() && self.ending.is_none() {
            // A sum on its short way has all that its peers need from this rank.
            self.say_farewell(Farewell::Finished);
            self.ending = (!self.shorts.is_empty()).then_some(Ending::Aborted);
        } else {
            self.end(Ending::Aborted);
        }
    }

    /// Starts an operation.
    pub(super) fn start(&mut self, machine: Box<dyn Machine + Send>, reply: Sender<Outcome>) {
        let tag = machine.reduction().tag().clone();
        let key = (tag.step, tag.bucket);
        if let Some(ending) = &self.ending {
            // Whoever has dropped the receiver does not want to know.
            let _ = reply.send(Err(self.error(ending, key, Phase::Reduce)));
            return;
        }
        self.take_lying();
        if self.operations.contains_key(&key) || self.shorts.contains(&key) {
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
        // All may have come from peers that have left since.
        self.finish_if_complete(key);
        for at in 0..self.links.len() {
            self.check_presence(at);
            // What stood still because too much was kept may go on now.
            self.take_frames(at);
        }
        self.finish_if_complete(key);
        for at in 0..self.links.len() {
            self.write(at);
        }
    }

    /// Says that an operation's caller waits no longer. The operation is answered at once.
    pub(super) fn expire(&mut self, key: Key, waited: Duration) {
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
