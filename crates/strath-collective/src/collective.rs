//! The handle through which a worker sums over ranks.

use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use strath_core::config::{Algorithm, Transport};
use strath_core::{Fault, Generation, Rank, RunId, Step, Ticket};

use crate::bucket::Bucket;
use crate::choice::{Choice, Chosen, Message, choose};
use crate::cost::Spread;
use crate::direct::Direct;
use crate::doubling::Doubling;
use crate::error::CollectiveError;
use crate::exchange::Exchange;
use crate::hierarchical::Hierarchical;
use crate::hosts::Hosts;
use crate::machine::Machine;
use crate::payload::{Payload, Reduced};
use crate::rates::Rates;
use crate::reduction::{Reduction, Tag};
use crate::ring::Ring;
use crate::spares::Spares;
use crate::tls::RingTls;
use crate::transport::{self, Engine, Outcome, Patience, ShortSum};

/// The largest world that [`Collective::connect`] serves: every rank holds two connections to every other, which lane
/// groups and the direct exchange use.
pub const FULL_MESH_LIMIT: u32 = strath_core::config::MOST_WORKERS;

/// Who this rank is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The run.
    pub run: RunId,
    /// The membership.
    pub generation: Generation,
    /// This rank.
    pub rank: Rank,
    /// Ranks of the world.
    pub world_size: u32,
    /// The secret of the generation, by which its ranks know each other.
    pub ticket: Ticket,
}

/// Where a peer listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its rank.
    pub rank: Rank,
    /// Its address.
    pub address: SocketAddr,
}

/// The ranks of one generation, connected. Usable from any number of threads.
///
/// The first failure ends it: every pending and every later operation fails with the same cause, and the other ranks are
/// told which rank is at fault, so all survivors name the same one. A new generation makes a new one. Dropping it sends
/// what finished operations still owe to slower ranks (for at most two seconds), then closes the connections.
#[derive(Debug)]
pub struct Collective {
    identity: Identity,
    algorithm: Algorithm,
    hosts: Hosts,
    /// Where the ranks of the world are.
    spread: Spread,
    /// What the ranks measured and agreed on, where the algorithm is to be chosen.
    rates: Option<Rates>,
    /// What was chosen so far.
    chosen: Chosen,
    /// Peers that are reached through shared memory.
    shared: Vec<Rank>,
    /// `None` in a world of one.
    engine: Option<Engine>,
    /// Memory that operations are done with.
    spares: Spares,
}

impl Collective {
    /// The only rank of a world of one, which needs no sockets.
    pub fn alone(run: RunId, generation: Generation) -> Self {
        let identity = Identity { run, generation, rank: Rank(0), world_size: 1, ticket: Ticket::default() };
        Self {
            identity,
            algorithm: Algorithm::Auto,
            spread: Spread::of(&Hosts::one(1)),
            hosts: Hosts::one(1),
            rates: None,
            chosen: Chosen::default(),
            shared: Vec::new(),
            engine: None,
            spares: Spares::store(),
        }
    }

    /// Connects to every other rank: two connections a pair, one for each direction.
    ///
    /// `members` names each of them once, and all ranks are given the same: ranks with one address are on one host, this rank on
    /// that of its own entry or, without one, of its listener. Peers that are not up yet are dialled again until the deadline.
    /// Both sides prove that they know the generation's ticket, and check protocol version, run, generation, world size and both ranks;
    /// whoever connects without passing is dropped, hinders no one and without the ticket learns nothing. Frames are in clear. The
    /// listener is closed at the end.
    ///
    /// Ranks of one host then have their frames go through shared memory, as [`Transport`] says: where they cannot (containers that
    /// do not see each other's processes, say), they stay on their connections. Under [`Algorithm::Auto`] the ranks last measure their
    /// links together, for some milliseconds, and agree on [`rates`](Self::rates).
    ///
    /// # Errors
    /// [`CollectiveError::Members`] or [`WorldTooLarge`](CollectiveError::WorldTooLarge) where the world is none;
    /// [`Handshake`](CollectiveError::Handshake) where a peer is not the one expected, at once;
    /// [`Unreachable`](CollectiveError::Unreachable) after the deadline, also where another generation's rank has its address, which may
    /// be about to follow;
    /// [`NotShared`](CollectiveError::NotShared) under [`Transport::Shm`] only; [`Local`](CollectiveError::Local) where this process
    /// has no descriptors or threads left; while ranks agree and measure, as [`Pending::wait`].
    pub fn connect(
        listener: TcpListener,
        identity: Identity,
        members: &[Member],
        how: (Algorithm, Transport),
        deadline: Duration,
    ) -> Result<Self, CollectiveError> {
        Self::connect_unless(listener, identity, members, how, None, deadline.into(), &AtomicBool::new(false))
    }

    /// The same, for as long as it is not `cancelled`: then it fails with [`Unreachable`](CollectiveError::Unreachable) soon, where
    /// peers are not all there yet. With `tls` every connection is encrypted, and both its ends show a worker's certificate, once they
    /// have proven that they know the ticket; what goes through shared memory of one host is not.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); [`Unanswered`](CollectiveError::Unanswered) where no sign of a peer's host comes for as long as its
    /// `patience`; [`Untrusted`](CollectiveError::Untrusted) where a certificate is not good enough.
    pub fn connect_unless(
        listener: TcpListener,
        identity: Identity,
        members: &[Member],
        (algorithm, transport): (Algorithm, Transport),
        tls: Option<&RingTls>,
        patience: Patience,
        cancelled: &AtomicBool,
    ) -> Result<Self, CollectiveError> {
        let peers = checked_peers(&identity, members)?;
        let hosts = hosts(&listener, &identity, members, &peers);
        let (mut shared, mut rates, mut engine) = (Vec::new(), None, None);
        if !peers.is_empty() {
            let connected = engine.insert(transport::connect(listener, identity, &peers, tls, patience, cancelled)?);
            let mut agreement = transport::Agreement::new(connected, identity, patience.whole);
            shared = transport::share(&mut agreement, &hosts, transport)?;
            if algorithm == Algorithm::Auto {
                rates = Some(transport::measure(&mut agreement, &hosts)?);
            }
            tracing::debug!(?hosts, ?shared, ?rates, "connected");
        }
        let spread = Spread::of(&hosts);
        let (chosen, spares) = (Chosen::default(), Spares::store());
        Ok(Self { identity, algorithm, hosts, spread, rates, chosen, shared, engine, spares })
    }

    /// What carries sums to and from a peer.
    pub fn carrier(&self, peer: Rank) -> Transport {
        if self.shared.contains(&peer) { Transport::Shm } else { Transport::Tcp }
    }

    /// Which ranks share a host.
    pub fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// What the ranks measured of links and processors, the same on each; under [`Algorithm::Auto`] only.
    pub fn rates(&self) -> Option<&Rates> {
        self.rates.as_ref()
    }

    /// Who this rank is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Starts to sum `payload` over the consecutive ranks `group`, and to take the least of their status words.
    ///
    /// Every rank of the group calls this with the same step, bucket, kind and length, in any order relative to other
    /// operations and without waiting for them. A group of one is done at once.
    ///
    /// # Panics
    /// Where the halves of [`Payload::Wide`] differ in length.
    pub fn all_reduce(&self, step: Step, bucket: Bucket, group: Range<u32>, payload: Payload, fault: Fault) -> Pending {
        let Identity { run, generation, rank, world_size, .. } = self.identity;
        if !group.contains(&rank.0) || group.end > world_size {
            return Pending::done(step, bucket, Err(CollectiveError::Group { rank, world_size, step, bucket, group }));
        }
        let group_size = group.end - group.start;
        let tag = Tag { run, generation, step, bucket, group, rank };
        let engine = match &self.engine {
            Some(engine) if group_size > 1 => engine,
            _ => {
                let mut alone = Reduction::new(tag, payload, fault);
                alone.use_spares(&self.spares);
                return Pending::done(step, bucket, Ok(alone.into_result()));
            }
        };
        let choice = self.choice(&tag.group, &payload);
        let mut machine: Box<dyn Machine + Send> = match choice {
            Choice::Ring => Box::new(Ring::new(tag, payload, fault)),
            Choice::Direct => Box::new(Direct::new(tag, payload, fault)),
            Choice::Doubling => Box::new(Doubling::new(tag, payload, fault)),
            Choice::Hierarchical => {
                let hosts = self.hosts.within(&tag.group);
                Box::new(Hierarchical::new(tag, payload, fault, &hosts))
            }
            Choice::Exchange => {
                let mut exchange = Box::new(Exchange::new(tag, payload, fault));
                exchange.use_spares(&self.spares);
                match ShortSum::begin(engine.turns(), exchange) {
                    Ok(short) => return Pending { step, bucket, state: State::Short(short) },
                    Err(exchange) => exchange,
                }
            }
        };
        machine.use_spares(&self.spares);
        let (reply, outcome) = channel();
        engine.submit(machine, reply);
        Pending { step, bucket, state: State::Waiting { outcome, turns: engine.turns() } }
    }

    /// The algorithm that sums such a payload over `group`.
    pub fn choice(&self, group: &Range<u32>, payload: &Payload) -> Choice {
        let (encoding, values) = (payload.encoding(), payload.len());
        self.chosen.before(&(group.clone(), encoding, values), || {
            let world_size = self.identity.world_size;
            let is_world = *group == (0..world_size);
            let spread = if is_world { self.spread } else { Spread::of(&self.hosts.within(group)) };
            let message = Message { world_size, spread, encoding, values };
            let (choice, reason) = choose(self.algorithm, &message, self.rates.as_ref());
            tracing::debug!(?choice, reason, ?message, "all-reduce");
            choice
        })
    }

    /// Gives memory for the result of a later sum of [`Payload::Exact`] or [`Payload::Wide`], which does not replace its terms:
    /// that of a result which is no longer needed.
    pub fn give_room(&self, spent: Vec<f32>) {
        self.spares.give_floats(spent);
    }

    /// Waits until every rank of the world has come here with the same step, at most `deadline`.
    ///
    /// # Errors
    /// As [`Pending::wait`].
    pub fn barrier(&self, step: Step, deadline: Duration) -> Result<(), CollectiveError> {
        let world = 0..self.identity.world_size;
        let pending = self.all_reduce(step, Bucket::BARRIER, world, Payload::Integers(Vec::new()), Fault::NONE);
        pending.wait(deadline).map(|_| ())
    }

    /// Who drives the connections.
    #[cfg(test)]
    pub(crate) fn turns(&self) -> Option<Arc<transport::Turns>> {
        self.engine.as_ref().map(Engine::turns)
    }

    /// Whether nothing has failed so far, as far as is known: also while nobody waits for an operation.
    pub fn goes_on(&self) -> bool {
        self.engine.as_ref().is_none_or(|engine| engine.turns().goes_on())
    }

    /// Ends every pending and later operation with [`CollectiveError::Aborted`]; usable from another thread.
    pub fn abort(&self) {
        if let Some(engine) = &self.engine {
            engine.abort();
        }
    }
}

/// The peers in order of rank, where they form a world with this rank.
fn checked_peers(identity: &Identity, members: &[Member]) -> Result<Vec<Member>, CollectiveError> {
    let Identity { rank, world_size, .. } = *identity;
    if world_size > FULL_MESH_LIMIT {
        return Err(CollectiveError::WorldTooLarge { found: world_size, limit: FULL_MESH_LIMIT });
    }
    let mut peers: Vec<Member> = members.iter().filter(|m| m.rank != rank).copied().collect();
    peers.sort_by_key(|m| m.rank);
    let others = (0..world_size).filter(|r| *r != rank.0);
    if rank.0 >= world_size || !peers.iter().map(|m| m.rank.0).eq(others) {
        let found = peers.iter().map(|m| m.rank.0).collect();
        return Err(CollectiveError::Members { rank, world_size, found });
    }
    Ok(peers)
}

/// The hosts of all ranks, by the addresses at which they are reached.
fn hosts(listener: &TcpListener, identity: &Identity, members: &[Member], peers: &[Member]) -> Hosts {
    let own = members.iter().find(|member| member.rank == identity.rank).map(|member| member.address.ip());
    // A listener whose address cannot be told shares a host with nobody.
    let own = own.or_else(|| listener.local_addr().ok().map(|address| address.ip()));
    let mut addresses: Vec<_> = peers.iter().map(|peer| Some(peer.address.ip())).collect();
    addresses.insert(identity.rank.index(), own);
    Hosts::new(&addresses)
}

/// An operation under way. Dropping it does not stop it: other ranks need this rank's part.
#[derive(Debug)]
#[must_use = "the sum is had by waiting for it"]
pub struct Pending {
    step: Step,
    bucket: Bucket,
    state: State,
}

#[derive(Debug)]
enum State {
    Done(Box<Outcome>),
    Short(ShortSum),
    Waiting { outcome: Receiver<Outcome>, turns: Arc<transport::Turns> },
}

impl Pending {
    fn done(step: Step, bucket: Bucket, outcome: Outcome) -> Self {
        Self { step, bucket, state: State::Done(Box::new(outcome)) }
    }

    /// Whether its outcome is there, so that [`wait`](Self::wait) does not wait. Takes no part in bringing it about.
    pub fn is_done(&mut self) -> bool {
        if let State::Waiting { outcome, .. } = &self.state
            && let Ok(outcome) = outcome.try_recv()
        {
            self.state = State::Done(Box::new(outcome));
        }
        matches!(self.state, State::Done(_))
    }

    /// Waits for the sum and the least status word, the same bits on every rank of the group.
    ///
    /// # Errors
    /// [`CollectiveError::PeerLost`], [`Protocol`](CollectiveError::Protocol), [`Aborted`](CollectiveError::Aborted) or, after
    /// `deadline`, [`PeerSilent`](CollectiveError::PeerSilent), which ends the whole collective, as this rank's part can no
    /// longer be relied on; [`Group`](CollectiveError::Group) and [`Duplicate`](CollectiveError::Duplicate) for a wrong call.
    pub fn wait(self, deadline: Duration) -> Result<(Reduced, Fault), CollectiveError> {
        let Self { step, bucket, state } = self;
        let aborted = CollectiveError::Aborted { step, bucket };
        match state {
            State::Done(outcome) => *outcome,
            State::Short(sum) => sum.wait(deadline).unwrap_or(Err(aborted)),
            State::Waiting { outcome, turns } => turns.wait((step, bucket), &outcome, deadline).unwrap_or(Err(aborted)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_must_be_all_other_ranks_once() {
        let identity = Identity {
            run: RunId(1),
            generation: Generation(1),
            rank: Rank(1),
            world_size: 3,
            ticket: Ticket::default(),
        };
        let member = |rank| Member { rank: Rank(rank), address: ([127, 0, 0, 1], 1).into() };
        let ranks = |list: &[u32]| checked_peers(&identity, &list.iter().map(|r| member(*r)).collect::<Vec<_>>());
        assert_eq!(ranks(&[2, 1, 0]), Ok(vec![member(0), member(2)]));
        for wrong in [&[0][..], &[0, 2, 2], &[0, 3], &[]] {
            assert!(matches!(ranks(wrong), Err(CollectiveError::Members { .. })), "{wrong:?}");
        }
        let outside = Identity { rank: Rank(3), ..identity };
        let all = [member(0), member(1), member(2)];
        assert!(matches!(checked_peers(&outside, &all), Err(CollectiveError::Members { .. })));
        let large = Identity { world_size: 65, ..identity };
        assert_eq!(checked_peers(&large, &all), Err(CollectiveError::WorldTooLarge { found: 65, limit: 64 }));
    }

    #[test]
    fn a_world_of_one_is_done_at_once_and_rounds_as_an_owner_does() {
        let alone = Collective::alone(RunId(1), Generation(1));
        let sum = |payload| {
            let pending = alone.all_reduce(Step(0), Bucket::GRADIENT, 0..1, payload, Fault::from_bits(5));
            pending.wait(Duration::ZERO)
        };
        assert_eq!(sum(Payload::Exact(vec![3 << 47])), Ok((Reduced::Floats(vec![1.5]), Fault::from_bits(5))));
        assert_eq!(sum(Payload::Halves(vec![1.001])), Ok((Reduced::Floats(vec![1.0]), Fault::from_bits(5))));
        assert_eq!(alone.barrier(Step(0), Duration::ZERO), Ok(()));
        let wrong = alone.all_reduce(Step(0), Bucket::lane(3), 0..2, Payload::Floats(vec![]), Fault::NONE);
        assert!(matches!(wrong.wait(Duration::ZERO), Err(CollectiveError::Group { .. })));
    }
}
