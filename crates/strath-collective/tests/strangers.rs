//! A peer that does not speak as a rank should: it is named, with the field.
#![allow(clippy::unwrap_used, reason = "a test that fails names the line")]
#![allow(clippy::disallowed_methods, reason = "real connections take real time")]

mod common;
#[path = "common/world.rs"]
mod ranks;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use common::{Kind, term};
use ranks::{LONG, hello_of_rank_1, identity, listeners};
use strath_collective::{Bucket, Collective, CollectiveError};
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
    let hello = hello_of_rank_1(3);
    let (over, until_over) = channel::<()>();
    let words = words.to_vec();
    let peer = thread::spawn(move || {
        let mut sending = TcpStream::connect(address).unwrap();
        sending.write_all(&hello).unwrap();
        sending.read_exact(&mut [0; 52]).unwrap();
        let (mut receiving, _) = theirs.accept().unwrap();
        receiving.read_exact(&mut [0; 52]).unwrap();
        receiving.write_all(&hello).unwrap();
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

#[test]
fn a_peer_that_sends_no_valid_header_breaks_the_protocol() {
    let header = |at: usize, value: u8| {
        let mut bytes = Vec::from(*b"STRS\x03\0\x01\x01");
        for word in [0xfeedu64, 3, 0, 0] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.resize(80, 0);
        bytes[at] = value;
        bytes
    };
    for (words, field) in [
        (vec![0xab; 4096], "magic"),
        (header(4, 2), "version"),
        (header(6, 9), "phase"),
        (header(7, 9), "encoding"),
        (header(68, 3), "width"),
        (header(68, 8), "group end"),
    ] {
        let error = peer_that_says(&words, Then::Stays);
        let CollectiveError::Protocol { rank: Rank(1), mismatch, .. } = &error else { panic!("{error}") };
        assert_eq!(mismatch.field, field);
    }
    let mut stale = header(68, 8);
    stale[16] = 2;
    let error = peer_that_says(&stale, Then::Stays);
    assert!(error.to_string().contains("found generation 2, expected 3"), "{error}");
}

#[test]
fn a_peer_that_stops_within_a_header_is_lost_if_it_closes_and_silent_if_not() {
    let half = b"STRS\x03\0\x01\x01";
    let error = peer_that_says(half, Then::Closes);
    assert!(matches!(error, CollectiveError::PeerLost { rank: Rank(1), .. }), "{error}");
    let error = peer_that_says(half, Then::Stays);
    assert!(matches!(error, CollectiveError::PeerSilent { rank: Rank(1), .. }), "{error}");
}
