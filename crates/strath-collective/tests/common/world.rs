//! Ranks as threads over loopback.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use strath_collective::{Collective, CollectiveError, Identity, Member};
use strath_core::config::Algorithm;
use strath_core::{Generation, Rank, RingKey, RunId};

use crate::CARRIER;

pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) fn identity(rank: u32, world_size: u32) -> Identity {
    Identity { run: RunId(0xfeed), generation: Generation(3), rank: Rank(rank), world_size, key: RingKey([3; 16]) }
}

pub(crate) fn listeners(world_size: u32) -> (Vec<TcpListener>, Vec<Member>) {
    let listeners: Vec<_> = (0..world_size).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let address = |l: &TcpListener| -> SocketAddr { l.local_addr().unwrap() };
    let members = (0..).zip(&listeners).map(|(rank, l)| Member { rank: Rank(rank), address: address(l) }).collect();
    (listeners, members)
}

/// What rank 1 of a world of two says to rank 0, in a version of the protocol.
pub(crate) fn hello_of_rank_1(version: u8) -> [u8; 52] {
    let mut hello = Vec::from([b'S', b'T', b'R', b'L', version, 0, 0, 0]);
    hello.extend([0xfeed_u64, 3].iter().flat_map(|word| word.to_le_bytes()));
    hello.extend([1u32, 0, 2].iter().flat_map(|word| word.to_le_bytes()));
    hello.extend(identity(1, 2).key.0);
    hello.try_into().unwrap()
}

/// Runs `rank_main` on a thread for each rank of a connected world; its results in order of rank.
pub(crate) fn world<R: Send>(
    world_size: u32,
    algorithm: Algorithm,
    rank_main: impl Fn(u32, Collective) -> R + Sync,
) -> Vec<R> {
    let (listeners, members) = listeners(world_size);
    let connected = AtomicU32::new(0);
    thread::scope(|scope| {
        let (members, rank_main, connected) = (&members, &rank_main, &connected);
        let ranks: Vec<_> = (0..)
            .zip(listeners)
            .map(|(rank, listener)| {
                scope.spawn(move || {
                    let me = identity(rank, world_size);
                    let collective = Collective::connect(listener, me, members, (algorithm, CARRIER), LONG).unwrap();
                    // A rank that fails on purpose does so when no other is still connecting.
                    connected.fetch_add(1, Ordering::SeqCst);
                    let since = Instant::now();
                    while connected.load(Ordering::SeqCst) < world_size && since.elapsed() < LONG {
                        thread::yield_now();
                    }
                    rank_main(rank, collective)
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// The rank that an error names as lost, silent or in breach.
pub(crate) fn culprit(error: &CollectiveError) -> Option<u32> {
    match error {
        CollectiveError::PeerLost { rank, .. }
        | CollectiveError::PeerSilent { rank, .. }
        | CollectiveError::Protocol { rank, .. } => Some(rank.0),
        _ => None,
    }
}
