//! Ranks as threads over loopback.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hmac::{Hmac, Mac};
use sha2::Sha256;
use strath_collective::{Collective, CollectiveError, Identity, Member};
use strath_core::config::Algorithm;
use strath_core::{Generation, Rank, RingKey, RunId, Ticket};

use crate::CARRIER;

pub(crate) const LONG: Duration = Duration::from_secs(20);

/// The ticket of a generation of the tests' run.
pub(crate) fn ticket(generation: u64) -> Ticket {
    RingKey([3; 16]).ticket(RunId(0xfeed), Generation(generation))
}

pub(crate) fn identity(rank: u32, world_size: u32) -> Identity {
    Identity { run: RunId(0xfeed), generation: Generation(3), rank: Rank(rank), world_size, ticket: ticket(3) }
}

pub(crate) fn listeners(world_size: u32) -> (Vec<TcpListener>, Vec<Member>) {
    let listeners: Vec<_> = (0..world_size).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let address = |l: &TcpListener| -> SocketAddr { l.local_addr().unwrap() };
    let members = (0..).zip(&listeners).map(|(rank, l)| Member { rank: Rank(rank), address: address(l) }).collect();
    (listeners, members)
}

/// A hello without its MAC.
pub(crate) type Signed = [u8; 68];

/// What one rank of a world of two says to the other at first, without its MAC.
pub(crate) fn hello(from: u32, to: u32, nonce: u8) -> Signed {
    let mut hello = Vec::from(*b"STRL\x05\0\0\0");
    hello.extend([0xfeed_u64, 3].iter().flat_map(|word| word.to_le_bytes()));
    hello.extend([from, to, 2].iter().flat_map(|word| word.to_le_bytes()));
    hello.resize(68, nonce);
    hello.try_into().unwrap()
}

/// The MAC of a word of the handshake in clear.
pub(crate) fn mac(ticket: Ticket, word: &str, hello: &Signed, answer: &Signed) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(&ticket.0).unwrap();
    mac.update(format!("strath {word:<8}5").as_bytes());
    mac.update(hello);
    mac.update(answer);
    mac.update(&[0; 32]);
    mac.finalize().into_bytes().into()
}

/// A hello with its MAC.
pub(crate) fn with_mac(hello: &Signed, mac: [u8; 32]) -> [u8; 100] {
    [&hello[..], &mac].concat().try_into().unwrap()
}

/// Shakes hands by hand as rank 1, which dials; what rank 0 answered.
pub(crate) fn shake_as_dialler(stream: &mut TcpStream) -> [u8; 100] {
    let own = hello(1, 0, 7);
    stream.write_all(&with_mac(&own, mac(ticket(3), "hello", &own, &[0; 68]))).unwrap();
    let mut answer = [0; 100];
    stream.read_exact(&mut answer).unwrap();
    let theirs = answer[..68].try_into().unwrap();
    assert_eq!(answer[68..], mac(ticket(3), "answer", &own, &theirs));
    stream.write_all(&mac(ticket(3), "proof", &own, &theirs)).unwrap();
    let mut welcome = [0; 32];
    stream.read_exact(&mut welcome).unwrap();
    assert_eq!(welcome, mac(ticket(3), "welcome", &own, &theirs));
    answer
}

/// Shakes hands by hand as rank 1, which is dialled.
pub(crate) fn shake_as_dialled(stream: &mut TcpStream) {
    let mut said = [0; 100];
    stream.read_exact(&mut said).unwrap();
    let (theirs, own) = (said[..68].try_into().unwrap(), hello(1, 0, 8));
    assert_eq!(said[68..], mac(ticket(3), "hello", &theirs, &[0; 68]));
    stream.write_all(&with_mac(&own, mac(ticket(3), "answer", &theirs, &own))).unwrap();
    let mut proof = [0; 32];
    stream.read_exact(&mut proof).unwrap();
    assert_eq!(proof, mac(ticket(3), "proof", &theirs, &own));
    stream.write_all(&mac(ticket(3), "welcome", &theirs, &own)).unwrap();
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
