//! Who is let in, and what the others are told.
#![allow(clippy::unwrap_used, reason = "a test that fails names the line")]
#![allow(clippy::disallowed_methods, reason = "real connections take real time")]

#[path = "common/world.rs"]
mod ranks;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use ranks::{LONG, hello_of_rank_1, identity, listeners};
use strath_collective::{Collective, CollectiveError, Identity, Member};
use strath_core::config::{Algorithm, Transport};
use strath_core::{Generation, Rank, RunId};

/// What world.rs asks for.
const CARRIER: Transport = Transport::Auto;
const SHORT: Duration = Duration::from_millis(700);

fn connect(
    listener: TcpListener,
    me: Identity,
    members: &[Member],
    deadline: Duration,
) -> Result<Collective, CollectiveError> {
    Collective::connect(listener, me, members, (Algorithm::Auto, CARRIER), deadline)
}

/// Both ranks of a world of two, the second under another identity; how long each took to see it.
fn two_that_differ(other: Identity) -> [(CollectiveError, Duration); 2] {
    let (listeners, members) = listeners(2);
    thread::scope(|scope| {
        let members = &members;
        let ranks: Vec<_> = listeners
            .into_iter()
            .zip([identity(0, 2), other])
            .map(|(listener, me)| {
                scope.spawn(move || {
                    let since = Instant::now();
                    (connect(listener, me, members, SHORT).unwrap_err(), since.elapsed())
                })
            })
            .collect();
        let mut errors = ranks.into_iter().map(|rank| rank.join().unwrap());
        [errors.next().unwrap(), errors.next().unwrap()]
    })
}

fn field(error: &CollectiveError) -> &'static str {
    if let CollectiveError::Handshake { mismatch, .. } = error { mismatch.field } else { panic!("{error}") }
}

#[test]
fn ranks_of_two_runs_refuse_each_other_at_once() {
    let errors = two_that_differ(Identity { run: RunId(0xbad), ..identity(1, 2) });
    assert_eq!(errors.each_ref().map(|(e, _)| field(e)), ["run", "run"]);
    // Neither waits for the other, which may be gone already, to its deadline.
    assert!(errors.iter().all(|(_, after)| *after < SHORT), "{errors:?}");
    let CollectiveError::Handshake { rank, mismatch, .. } = &errors[0].0 else { unreachable!() };
    assert_eq!((rank.0, mismatch.expected, mismatch.found), (1, 0xfeed, 0xbad));
}

#[test]
fn the_older_of_two_generations_fails_at_once_and_the_newer_waits_for_it_to_follow() {
    let errors = two_that_differ(Identity { generation: Generation(4), ..identity(1, 2) });
    assert_eq!(errors.each_ref().map(|(e, _)| field(e)), ["generation", "generation"]);
    let [(_, older), (_, newer)] = errors;
    assert!(older < SHORT / 2 && newer >= SHORT, "{older:?} {newer:?}");
}

#[test]
fn a_generation_that_follows_in_time_is_met() {
    let (mut listeners, members) = listeners(2);
    let members = &members;
    let late = listeners.pop().unwrap();
    let again = late.try_clone().unwrap();
    let early = listeners.pop().unwrap();
    thread::scope(|scope| {
        let newer = Identity { generation: Generation(4), ..identity(0, 2) };
        let first = scope.spawn(move || connect(early, newer, members, LONG).map(|_| ()));
        let error = connect(late, identity(1, 2), members, LONG).unwrap_err();
        assert_eq!(field(&error), "generation");
        let follows = Identity { generation: Generation(4), ..identity(1, 2) };
        connect(again, follows, members, LONG).unwrap();
        first.join().unwrap().unwrap();
    });
}

#[test]
fn a_rank_at_another_ranks_address_is_refused() {
    let (listeners, members) = listeners(3);
    let mut swapped = members.clone();
    (swapped[1].address, swapped[2].address) = (members[2].address, members[1].address);
    thread::scope(|scope| {
        let (members, swapped) = (&members, &swapped);
        let ranks: Vec<_> = (0..)
            .zip(listeners)
            .map(|(rank, listener)| {
                let members = if rank == 0 { swapped } else { members };
                scope.spawn(move || connect(listener, identity(rank, 3), members, SHORT).map(|_| ()))
            })
            .collect();
        let results: Vec<_> = ranks.into_iter().map(|rank| rank.join().unwrap()).collect();
        let error = results[0].as_ref().unwrap_err();
        assert_eq!(field(error), "rank");
        assert!(results.iter().all(Result::is_err), "{results:?}");
    });
}

#[test]
fn worlds_of_two_sizes_refuse_each_other() {
    let (listeners, members) = listeners(2);
    let third = Member { rank: Rank(2), address: listeners[0].local_addr().unwrap() };
    let larger = [members[0], members[1], third];
    thread::scope(|scope| {
        let mut listeners = listeners.into_iter();
        let (one, other) = (listeners.next().unwrap(), listeners.next().unwrap());
        let members = &members;
        let one = scope.spawn(move || connect(one, identity(0, 2), members, SHORT).map(|_| ()));
        let other = scope.spawn(move || connect(other, identity(1, 3), &larger, SHORT).map(|_| ()));
        assert_eq!(field(&one.join().unwrap().unwrap_err()), "world size");
        assert_eq!(field(&other.join().unwrap().unwrap_err()), "world size");
    });
}

/// Something that listens where rank 1 should, and gives every caller the same answer.
fn impostor(answer: impl AsRef<[u8]> + Send + 'static) -> CollectiveError {
    let (mut listeners, members) = listeners(2);
    let theirs = listeners.pop().unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = theirs.accept() {
            let mut hello = [0; 52];
            let _ = stream.read_exact(&mut hello);
            let _ = stream.write_all(answer.as_ref());
        }
    });
    connect(listeners.pop().unwrap(), identity(0, 2), &members, SHORT).unwrap_err()
}

#[test]
fn another_protocol_version_is_named() {
    let mut answer = *b"STRL\x63...............................................";
    answer[5] = 0;
    let error = impostor(answer);
    assert!(error.to_string().contains("found protocol version 99, expected 4"), "{error}");
}

#[test]
fn a_worker_of_the_protocol_version_before_is_refused_at_once_and_told_why() {
    let (mut listeners, members) = listeners(2);
    // The older worker has not begun to listen.
    drop(listeners.pop());
    let address = members[0].address;
    let older = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&hello_of_rank_1(3)).unwrap();
        let mut answer = [0; 52];
        stream.read_exact(&mut answer).unwrap();
        answer
    });
    let since = Instant::now();
    let error = connect(listeners.pop().unwrap(), identity(0, 2), &members, LONG).unwrap_err();
    assert!(since.elapsed() < SHORT, "{:?}", since.elapsed());
    assert!(error.to_string().contains("found protocol version 3, expected 4"), "{error}");
    // Where both versions have it, the older one finds the newer.
    assert_eq!(older.join().unwrap()[..8], *b"STRL\x04\0\0\0");
    // The other way: whoever is dialled answers in the older version.
    let error = impostor(hello_of_rank_1(3));
    assert!(error.to_string().contains("found protocol version 3, expected 4"), "{error}");
}

#[test]
fn a_service_that_is_no_worker_is_named() {
    assert_eq!(field(&impostor(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")), "magic");
    let silent = impostor(b"");
    let CollectiveError::Unreachable { rank: Rank(1), cause, .. } = &silent else { panic!("{silent}") };
    assert!(cause.contains("before it answered"), "{cause}");
}

#[test]
fn a_peer_that_is_not_there_is_named_with_its_address_at_the_deadline() {
    let (mut listeners, members) = listeners(2);
    drop(listeners.pop());
    let since = Instant::now();
    let error = connect(listeners.pop().unwrap(), identity(0, 2), &members, SHORT).unwrap_err();
    assert!(since.elapsed() >= SHORT && since.elapsed() < SHORT * 2);
    assert!(matches!(error, CollectiveError::Unreachable { rank: Rank(1), .. }), "{error}");
    assert!(error.to_string().contains(&members[1].address.to_string()), "{error}");
}

#[test]
fn strangers_that_say_nothing_or_garbage_hinder_no_one() {
    let (listeners, members) = listeners(3);
    let strangers: Vec<TcpStream> = (0..300)
        .map(|n| {
            let mut stream = TcpStream::connect(members[n % 3].address).unwrap();
            match n % 4 {
                0 => {}
                1 => stream.write_all(b"GET / HTTP/1.1\r\nHost: a-host-with-a-long-name\r\n\r\n").unwrap(),
                2 => stream.write_all(b"STRL\x04").unwrap(),
                _ => stream.write_all(&[0xff; 4000]).unwrap(),
            }
            stream
        })
        .collect();
    thread::scope(|scope| {
        let members = &members;
        let since = Instant::now();
        let ranks: Vec<_> = (0..)
            .zip(listeners)
            .map(|(rank, listener)| {
                scope.spawn(move || {
                    let collective = connect(listener, identity(rank, 3), members, LONG).unwrap();
                    collective.barrier(strath_core::Step(0), LONG).unwrap();
                })
            })
            .collect();
        for rank in ranks {
            rank.join().unwrap();
        }
        assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    });
    drop(strangers);
}

#[test]
fn a_rank_that_comes_late_is_waited_for() {
    let (listeners, members) = listeners(3);
    thread::scope(|scope| {
        let members = &members;
        for (rank, listener) in (0..).zip(listeners) {
            scope.spawn(move || {
                let address = listener.local_addr().unwrap();
                let listener = if rank == 1 {
                    // Not even listening at first.
                    drop(listener);
                    thread::sleep(Duration::from_millis(400));
                    TcpListener::bind(address).unwrap()
                } else {
                    listener
                };
                let collective = connect(listener, identity(rank, 3), members, LONG).unwrap();
                collective.barrier(strath_core::Step(0), LONG).unwrap();
            });
        }
    });
}

#[test]
fn whoever_does_not_know_the_key_is_told_nothing_and_hinders_nobody() {
    let (listeners, members) = listeners(2);
    let address = members[0].address;
    thread::scope(|scope| {
        let stranger = scope.spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            // Everything that is right but the last byte of the key.
            let mut hello = hello_of_rank_1(4);
            hello[51] ^= 1;
            stream.write_all(&hello).unwrap();
            let mut answer = Vec::new();
            // It is closed on; with a reset where the hello was not read to its end.
            let _ = stream.read_to_end(&mut answer);
            answer
        });
        let ranks: Vec<_> = (0..)
            .zip(listeners)
            .map(|(rank, listener)| {
                let members = &members;
                scope.spawn(move || {
                    // The stranger comes first, and would take rank 1's place.
                    thread::sleep(Duration::from_millis(if rank == 1 { 200 } else { 0 }));
                    let collective = connect(listener, identity(rank, 2), members, LONG).unwrap();
                    collective.barrier(strath_core::Step(0), LONG).unwrap();
                })
            })
            .collect();
        assert_eq!(stranger.join().unwrap(), []);
        for rank in ranks {
            rank.join().unwrap();
        }
    });
}
