//! The connection by which whoever joins is fed: who gets in, and that bytes arrive whole, in clear and within TLS.
#![allow(clippy::unwrap_used, reason = "a test that fails names the line")]
#![allow(clippy::disallowed_methods, reason = "real connections take real time")]

#[path = "common/authority.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod authority;

use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use authority::Authority;
use strath_collective::{CollectiveError, DONOR, FeedReceiver, FeedSender, Identity, Member, NEWCOMER, RingTls};
use strath_core::{Generation, Rank, RingKey, RunId, Ticket, WorkerId};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(700);

fn ticket(newcomer: u64) -> Ticket {
    RingKey([3; 16]).feed_ticket(RunId(7), Generation(2), WorkerId(1), WorkerId(newcomer))
}

fn identity(rank: Rank, ticket: Ticket) -> Identity {
    Identity { run: RunId(7), generation: Generation(2), rank, world_size: 2, ticket }
}

type Ends = (Result<FeedSender, CollectiveError>, Result<FeedReceiver, CollectiveError>);

fn connect(tickets: [Ticket; 2], tls: [Option<&RingTls>; 2], deadline: Duration) -> Ends {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let go = AtomicBool::new(false);
    thread::scope(|scope| {
        let donor = scope.spawn(|| {
            let to = Member { rank: NEWCOMER, address };
            FeedSender::connect(identity(DONOR, tickets[0]), to, tls[0], deadline, &go)
        });
        // A stranger that says nothing hinders nobody.
        let stranger = TcpStream::connect(address).unwrap();
        let from = Member { rank: DONOR, address };
        let newcomer = FeedReceiver::accept(listener, identity(NEWCOMER, tickets[1]), from, tls[1], deadline, &go);
        drop(stranger);
        (donor.join().unwrap(), newcomer)
    })
}

#[test]
fn bytes_arrive_whole_and_then_the_end() {
    let certificate = Authority::new().worker();
    for tls in [None, Some(&certificate)] {
        let (sender, receiver) = connect([ticket(5); 2], [tls; 2], LONG);
        let (mut sender, mut receiver) = (sender.unwrap(), receiver.unwrap());
        let bytes: Vec<u8> = (0..3_000_001_u32).map(|at| (at >> 7) as u8 ^ at as u8).collect();
        let go = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for piece in [&bytes[..1], &bytes[1..100_000], &bytes[100_000..]] {
                    sender.send(piece, LONG).unwrap();
                }
                drop(sender);
            });
            let mut found = vec![0; bytes.len()];
            for room in found.chunks_mut(777_777) {
                receiver.receive(room, LONG, &go).unwrap();
            }
            assert!(found == bytes, "TLS: {}", tls.is_some());
            let end = receiver.receive(&mut [0], LONG, &go).unwrap_err();
            assert!(matches!(end.kind(), ErrorKind::UnexpectedEof), "{end}");
        });
    }
}

#[test]
fn a_donor_with_another_ticket_or_protection_is_none() {
    let certificate = Authority::new().worker();
    for (tickets, tls) in [
        ([ticket(6), ticket(5)], [None, None]),
        ([ticket(5), ticket(5)], [Some(&certificate), None]),
        ([ticket(5), ticket(5)], [None, Some(&certificate)]),
    ] {
        let (sender, receiver) = connect(tickets, tls, SHORT);
        let (donor, newcomer) = (sender.unwrap_err(), receiver.unwrap_err());
        if tls.iter().all(Option::is_none) {
            assert!(matches!(donor, CollectiveError::Unreachable { .. }), "{donor}");
            assert!(matches!(newcomer, CollectiveError::Unreachable { .. }), "{newcomer}");
        } else {
            assert!(matches!(newcomer, CollectiveError::Handshake { .. }), "{newcomer}");
        }
    }
}

#[test]
fn neither_end_waits_without_a_deadline_nor_after_it_was_cancelled() {
    let (sender, receiver) = connect([ticket(5); 2], [None; 2], LONG);
    let (mut sender, mut receiver) = (sender.unwrap(), receiver.unwrap());
    let since = Instant::now();
    let silent = receiver.receive(&mut [0], SHORT, &AtomicBool::new(false)).unwrap_err();
    assert_eq!(silent.kind(), ErrorKind::TimedOut, "{silent}");
    let cancelled = receiver.receive(&mut [0], LONG, &AtomicBool::new(true)).unwrap_err();
    assert_eq!(cancelled.kind(), ErrorKind::ConnectionAborted, "{cancelled}");
    // Nobody reads: the kernel takes a part of it.
    let full = sender.send(&vec![0; 64 << 20], SHORT).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::TimedOut, "{full}");
    drop(receiver);
    assert!(sender.send(&vec![0; 64 << 20], LONG).is_err());
    assert!(since.elapsed() < LONG, "{:?}", since.elapsed());
}

#[test]
fn whoever_writes_nonsense_is_dropped_and_the_donor_still_gets_in() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut stranger = TcpStream::connect(address).unwrap();
    stranger.write_all(&[0xff; 4096]).unwrap();
    let go = AtomicBool::new(false);
    thread::scope(|scope| {
        let donor = scope.spawn(|| {
            let to = Member { rank: NEWCOMER, address };
            FeedSender::connect(identity(DONOR, ticket(5)), to, None, LONG, &go).map(|_| ())
        });
        let from = Member { rank: DONOR, address };
        FeedReceiver::accept(listener, identity(NEWCOMER, ticket(5)), from, None, LONG, &go).unwrap();
        donor.join().unwrap().unwrap();
    });
}
