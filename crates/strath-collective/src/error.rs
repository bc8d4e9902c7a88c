//! What can go wrong between ranks.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use strath_core::{Rank, Step};

use crate::bucket::Bucket;
use crate::frame::Phase;

/// A field that arrived with another value than the one that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("found {field} {found}, expected {expected}")]
pub struct Mismatch {
    /// Which field.
    pub field: &'static str,
    /// What was due; for a limit, the most that would have been taken.
    pub expected: u64,
    /// What arrived.
    pub found: u64,
}

impl Mismatch {
    /// Checks one field.
    ///
    /// # Errors
    /// A mismatch where `found` is not `expected`.
    pub fn check(field: &'static str, expected: u64, found: u64) -> Result<(), Self> {
        if found == expected { Ok(()) } else { Err(Self { field, expected, found }) }
    }
}

/// Why a collective could not be formed or an operation did not end with a sum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollectiveError {
    /// The members do not form a world.
    #[error(
        "found members {found:?} beside rank {rank}, expected one address for every other rank of a world of {world_size}"
    )]
    Members {
        /// This rank.
        rank: Rank,
        /// Ranks there should be.
        world_size: u32,
        /// The other ranks that were given.
        found: Vec<u32>,
    },
    /// More ranks than a full mesh of connections serves.
    #[error("found a world of {found} ranks, expected at most {limit} for a full mesh; use fewer workers")]
    WorldTooLarge {
        /// Ranks of the world.
        found: u32,
        /// The most there can be.
        limit: u32,
    },
    /// The listening socket or a descriptor of this process failed.
    #[error("rank {rank} cannot {doing}: {cause}; free the descriptor or port and start again")]
    Local {
        /// This rank.
        rank: Rank,
        /// What it was doing.
        doing: &'static str,
        /// What the system said.
        cause: String,
    },
    /// A peer that is not the one this rank expects at that address, or does not speak its language.
    #[error(
        "handshake with rank {rank} at {peer}: {mismatch}; workers of one run need the same binary, run and generation, and certificates all or none"
    )]
    Handshake {
        /// The rank that should be there.
        rank: Rank,
        /// Its address.
        peer: SocketAddr,
        /// What differs.
        mismatch: Mismatch,
    },
    /// A peer that knows the generation's ticket and whose certificate is not good enough, or that does not take this worker's.
    #[error(
        "rank {rank} at {peer} is not to be trusted: {cause}; every worker of a run needs worker.pem, worker.key and ca.pem of one authority (strath certs DIR makes them) and a right clock"
    )]
    Untrusted {
        /// The rank that it is.
        rank: Rank,
        /// Its address.
        peer: SocketAddr,
        /// What is wrong.
        cause: String,
    },
    /// A peer that was not there in time.
    #[error(
        "rank {rank} at {address} was not connected within {waited:?}: {cause}; check that the worker runs and that its address can be reached"
    )]
    Unreachable {
        /// The missing rank.
        rank: Rank,
        /// Its address.
        address: SocketAddr,
        /// How long this rank tried.
        waited: Duration,
        /// What happened last.
        cause: String,
    },
    /// A peer from whose host no answer of any kind comes.
    #[error(
        "rank {rank} at {address} gave no sign for {waited:?} while it was dialled: its host is down or what lies between drops packets; check that the address can be reached from here"
    )]
    Unanswered {
        /// The rank.
        rank: Rank,
        /// Its address.
        address: SocketAddr,
        /// For how long.
        waited: Duration,
    },
    /// A peer's connection ended.
    #[error("lost rank {rank} at {address} at step {step} in {phase}: {cause}")]
    PeerLost {
        /// The lost rank.
        rank: Rank,
        /// Its address.
        address: SocketAddr,
        /// Step of the operation that needs it.
        step: Step,
        /// Phase of that operation here.
        phase: Phase,
        /// How it ended.
        cause: String,
    },
    /// A deadline passed while a peer that others may be waiting for too sent nothing more.
    #[error(
        "rank {rank} at {address} was silent for {waited:?} at step {step} in {phase}; it hangs, cannot be reached, or waits for another rank itself"
    )]
    PeerSilent {
        /// The rank that is waited for first. In a ring it is the left neighbour, which may itself be waiting.
        rank: Rank,
        /// Its address.
        address: SocketAddr,
        /// Step of the operation.
        step: Step,
        /// Phase of that operation here.
        phase: Phase,
        /// How long the caller waited.
        waited: Duration,
    },
    /// A peer sent what is not due: another length or kind, a stale generation, or no segment at all.
    #[error("rank {rank} at {address} broke the protocol at step {step} ({bucket}): {mismatch}")]
    Protocol {
        /// The peer.
        rank: Rank,
        /// Its address.
        address: SocketAddr,
        /// Step of the operation here, or as the peer named it.
        step: Step,
        /// Bucket of the operation here, or as the peer named it.
        bucket: Bucket,
        /// What differs.
        mismatch: Mismatch,
    },
    /// A group that this rank cannot sum over.
    #[error(
        "found group {group:?} at step {step} ({bucket}), expected ranks below {world_size} with rank {rank} among them"
    )]
    Group {
        /// This rank.
        rank: Rank,
        /// Ranks of the world.
        world_size: u32,
        /// Step of the operation.
        step: Step,
        /// Bucket of the operation.
        bucket: Bucket,
        /// The group that was given.
        group: Range<u32>,
    },
    /// An operation with this step and bucket is already under way.
    #[error("found a second operation at step {step} ({bucket}) while the first is under way; use another bucket")]
    Duplicate {
        /// Step of both.
        step: Step,
        /// Bucket of both.
        bucket: Bucket,
    },
    /// Ranks of one host that are to share memory and cannot.
    #[error(
        "rank {rank} and rank {peer} are on one host and cannot share memory: they are of different users or containers, or the host has none left; run them side by side, or set cluster.transport = \"auto\", which takes TCP there"
    )]
    NotShared {
        /// The lower rank of the first such pair.
        rank: Rank,
        /// The other.
        peer: Rank,
    },
    /// [`Collective::abort`](crate::Collective::abort) was called, or the handle was dropped.
    #[error("the exchange was aborted at step {step} ({bucket})")]
    Aborted {
        /// Step of the operation.
        step: Step,
        /// Bucket of the operation.
        bucket: Bucket,
    },
}
