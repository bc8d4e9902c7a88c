//! A peer that does not speak as a rank should: it is named, with the field.
#![allow(clippy::unwrap_used, reason = "a test that fails names the line")]
#![allow(clippy::disallowed_methods, reason = "real connections take real time")]

mod common;
#[path = "common/proxy.rs"]
mod proxy;
#[path = "common/world.rs"]
mod ranks;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use common::{Kind, term};
use proxy::damage;
use ranks::{LONG, identity, listeners, shake_as_dialled, shake_as_dialler};
use strath_collective::checksum;
use strath_collective::{Bucket, Collective, CollectiveError, Member};
use strath_core::config::{Algorithm, Transport};
use strath_core::{Fault, Rank, Step};

/// What world.rs asks for.
const CARRIER: Transport = Transport::Tcp;

/// What a peer written by hand does once it has said its words.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Stays,
    Closes,
}

/// A peer written by hand: it shakes hands as rank 1 of two, then says `words` on its sending connection.
fn peer_that_says(words: &[u8], then: Then) -> CollectiveError {
    let (mut listeners, members) = listeners(2);
    let theirs = listeners.pop().unwrap();
    let address = members[0].address;
    let (over, until_over) = channel::<()>();
    let words = words.to_vec();
    let peer = thread::spawn(move || {
        let mut sending = TcpStream::connect(address).unwrap();
        shake_as_dialler(&mut sending);
        let (mut receiving, _) = theirs.accept().unwrap();
        shake_as_dialled(&mut receiving);
        sending.write_all(&words).unwrap();
        if then == Then::Closes {
            return;
        }
        // Alive until the other side has made up its mind.
        until_over.recv().unwrap_err();
    });
    let listener = listeners.pop().unwrap();
    // Ranks that choose would agree on memory and measure their links first, which this peer could not.
    let collective =
        Collective::connect(listener, identity(0, 2), &members, (Algorithm::Direct, CARRIER), LONG).unwrap();
    let pending = collective.all_reduce(Step(0), Bucket::GRADIENT, 0..2, term(Kind::Exact, 0, 10), Fault::NONE);
    let error = pending.wait(Duration::from_secs(2)).unwrap_err();
    drop(over);
    peer.join().unwrap();
    error
}

/// A header as rank 1 would send it over a network, but for these bytes.
fn header(changes: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = Vec::from(*b"STRS\x05\0\x01\x01");
    for word in [0xfeedu64, 3, 0, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.resize(84, 0);
    for (at, value) in changes {
        bytes[*at] = *value;
    }
    bytes.extend(checksum(&bytes).to_le_bytes());
    bytes
}

#[test]
fn a_peer_that_sends_no_valid_header_breaks_the_protocol() {
    let mut damaged = header(&[(68, 8)]);
    damaged[40] ^= 1;
    for (words, field) in [
        (vec![0xab; 4096], "magic"),
        (header(&[(4, 4)]), "version"),
        (header(&[(6, 9)]), "phase"),
        (header(&[(7, 9)]), "encoding"),
        (header(&[(68, 3)]), "width"),
        (header(&[(68, 8)]), "group end"),
        (damaged, "header checksum"),
    ] {
        let error = peer_that_says(&words, Then::Stays);
        let CollectiveError::Protocol { rank: Rank(1), mismatch, .. } = &error else { panic!("{error}") };
        assert_eq!(mismatch.field, field);
    }
    let error = peer_that_says(&header(&[(68, 8), (16, 2)]), Then::Stays);
    assert!(error.to_string().contains("found generation 2, expected 3"), "{error}");
}

#[test]
fn a_peer_that_stops_within_a_header_is_lost_if_it_closes_and_silent_if_not() {
    let half = b"STRS\x05\0\x01\x01";
    let error = peer_that_says(half, Then::Closes);
    assert!(matches!(error, CollectiveError::PeerLost { rank: Rank(1), .. }), "{error}");
    let error = peer_that_says(half, Then::Stays);
    assert!(matches!(error, CollectiveError::PeerSilent { rank: Rank(1), .. }), "{error}");
}

#[test]
fn a_bit_turned_over_between_two_ranks_never_reaches_a_sum() {
    // After hello and proof: in a short frame's header and values, in a long one's, and in the last of many.
    for (len, at) in
        [(10, 132 + 33), (10, 132 + 88 + 3), (200_000, 132 + 70), (200_000, 132 + 88 + 100_001), (200_000, 650_000)]
    {
        let (listeners, members) = listeners(2);
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let seen_by_0 = [members[0], Member { address: proxy.local_addr().unwrap(), ..members[1] }];
        let to = members[1].address;
        let errors = thread::scope(|scope| {
            let mut listeners = listeners.into_iter();
            let mut rank = |rank, members: &[Member]| {
                let (listener, members) = (listeners.next().unwrap(), members.to_vec());
                scope.spawn(move || {
                    let how = (Algorithm::Direct, CARRIER);
                    let collective = Collective::connect(listener, identity(rank, 2), &members, how, LONG).unwrap();
                    let term = term(Kind::Floats, rank, len);
                    collective.all_reduce(Step(0), Bucket::GRADIENT, 0..2, term, Fault::NONE).wait(LONG).map(|_| ())
                })
            };
            let ranks = [rank(0, &seen_by_0), rank(1, &members)];
            damage(&proxy, to, at);
            ranks.map(|rank| rank.join().unwrap())
        });
        let Err(CollectiveError::Protocol { rank: Rank(0), mismatch, .. }) = &errors[1] else {
            panic!("{len} values, byte {at}: {errors:?}")
        };
        assert!(["checksum", "header checksum"].contains(&mismatch.field), "{len} values, byte {at}: {mismatch}");
        assert!(errors[0].is_err() || len == 10, "{len} values, byte {at}: {errors:?}");
    }
}
