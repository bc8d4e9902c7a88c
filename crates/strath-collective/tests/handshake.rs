//! Who is let in, and what the others are told.
#![allow(clippy::unwrap_used, reason = "a test that fails names the line")]
#![allow(clippy::disallowed_methods, reason = "real connections take real time")]

#[path = "common/world.rs"]
mod ranks;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ranks::{LONG, hello, identity, listeners, mac, ticket, with_mac};
use strath_collective::{Collective, CollectiveError, Identity, Member, Patience};
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

/// A rank of the next generation, which has another ticket.
fn of_the_next_generation(rank: u32) -> Identity {
    Identity { generation: Generation(4), ticket: ticket(4), ..identity(rank, 2) }
}

#[test]
fn ranks_of_two_generations_are_strangers_to_each_other() {
    for (error, after) in two_that_differ(of_the_next_generation(1)) {
        // Either may be about to follow the other, so both wait, and neither learns anything.
        assert!(matches!(error, CollectiveError::Unreachable { .. }) && after >= SHORT, "{error} {after:?}");
    }
}

#[test]
fn a_generation_that_follows_in_time_is_met() {
    let (mut listeners, members) = listeners(2);
    let members = &members;
    let late = listeners.pop().unwrap();
    let again = late.try_clone().unwrap();
    let early = listeners.pop().unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(move || connect(early, of_the_next_generation(0), members, LONG).map(|_| ()));
        connect(late, identity(1, 2), members, SHORT).unwrap_err();
        connect(again, of_the_next_generation(1), members, LONG).unwrap();
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
            let mut hello = [0; 100];
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
    assert!(error.to_string().contains("found protocol version 99, expected 5"), "{error}");
}

#[test]
fn a_worker_of_the_protocol_version_before_is_told_why_and_named() {
    let (mut listeners, members) = listeners(2);
    // The older worker has not begun to listen.
    drop(listeners.pop());
    let address = members[0].address;
    let older = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let mut hello = [0; 52];
        hello[..36].copy_from_slice(&ranks::hello(1, 0, 0)[..36]);
        hello[4] = 4;
        stream.write_all(&hello).unwrap();
        let mut answer = [0; 52];
        stream.read_exact(&mut answer).unwrap();
        answer
    });
    let error = connect(listeners.pop().unwrap(), identity(0, 2), &members, SHORT).unwrap_err();
    assert!(error.to_string().contains("found protocol version 4, expected 5"), "{error}");
    // Where both versions have it, the older one finds the newer, and nothing else of this run.
    let mut expected = [0; 52];
    expected[..6].copy_from_slice(b"STRL\x05\0");
    assert_eq!(older.join().unwrap(), expected);
}

#[test]
fn an_impostor_that_does_not_know_the_ticket_is_no_peer() {
    let own = hello(1, 0, 9);
    for forged in [[0; 32], mac(ticket(2), "answer", &hello(0, 1, 0), &own)] {
        let error = impostor(with_mac(&own, forged));
        let CollectiveError::Unreachable { rank: Rank(1), cause, .. } = &error else { panic!("{error}") };
        assert!(cause.contains("does not know the ticket"), "{cause}");
    }
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
fn a_host_that_gives_no_sign_is_lost_long_before_the_deadline() {
    let (mut listeners, members) = listeners(2);
    // A kernel drops what knocks at a full queue, as a network does that is cut.
    let full = listeners.pop().unwrap();
    rustix::net::listen(&full, 0).unwrap();
    let knock = || TcpStream::connect_timeout(&members[1].address, Duration::from_millis(200));
    let mut queue = Vec::new();
    while let Ok(stream) = knock() {
        queue.push(stream);
    }
    let patience = Patience { sign: Duration::from_millis(300), ..LONG.into() };
    let (how, until) = ((Algorithm::Auto, Transport::Auto), AtomicBool::new(false));
    let (listener, since) = (listeners.pop().unwrap(), Instant::now());
    let error = Collective::connect_unless(listener, identity(0, 2), &members, how, None, patience, &until);
    let (error, after) = (error.unwrap_err(), since.elapsed());
    assert!(matches!(error, CollectiveError::Unanswered { rank: Rank(1), .. }), "{error}");
    assert!(after >= patience.sign && after < 4 * patience.sign, "{after:?}");
    drop((full, queue));
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
                2 => stream.write_all(b"STRL\x05").unwrap(),
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

/// Connects both ranks of two while a stranger, which comes first, does what it does with rank 0's address and would take rank 1's place.
fn beside_a_stranger<R: Send>(stranger: impl FnOnce(TcpStream) -> R + Send) -> R {
    let (listeners, members) = listeners(2);
    let address = members[0].address;
    thread::scope(|scope| {
        let stranger = scope.spawn(move || stranger(TcpStream::connect(address).unwrap()));
        let ranks: Vec<_> = (0..)
            .zip(listeners)
            .map(|(rank, listener)| {
                let members = &members;
                scope.spawn(move || {
                    thread::sleep(Duration::from_millis(if rank == 1 { 200 } else { 0 }));
                    let collective = connect(listener, identity(rank, 2), members, LONG).unwrap();
                    collective.barrier(strath_core::Step(0), LONG).unwrap();
                })
            })
            .collect();
        for rank in ranks {
            rank.join().unwrap();
        }
        stranger.join().unwrap()
    })
}

/// What a stranger is told until its connection is closed, with a reset where it was not read to its end.
fn told(mut stream: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn whoever_does_not_know_the_ticket_is_told_nothing_and_hinders_nobody() {
    let own = hello(1, 0, 7);
    // No ticket, another generation's, and everything right but the last bit.
    let mut nearly = mac(ticket(3), "hello", &own, &[0; 68]);
    nearly[31] ^= 1;
    for wrong in [[0; 32], mac(ticket(2), "hello", &own, &[0; 68]), nearly] {
        let told = beside_a_stranger(|mut stream| {
            stream.write_all(&with_mac(&own, wrong)).unwrap();
            told(stream)
        });
        assert_eq!(told, []);
    }
}

#[test]
fn a_handshake_that_was_overheard_is_worth_nothing_the_second_time() {
    // Rank 1's words in a handshake of this generation that broke before its last word had arrived.
    let own = hello(1, 0, 7);
    let overheard = beside_a_stranger(|mut stream| {
        stream.write_all(&with_mac(&own, mac(ticket(3), "hello", &own, &[0; 68]))).unwrap();
        let mut answer = [0; 100];
        stream.read_exact(&mut answer).unwrap();
        mac(ticket(3), "proof", &own, &answer[..68].try_into().unwrap())
    });
    let told = beside_a_stranger(|mut stream| {
        stream.write_all(&with_mac(&own, mac(ticket(3), "hello", &own, &[0; 68]))).unwrap();
        stream.write_all(&overheard).unwrap();
        told(stream)
    });
    // It is answered, with another nonce than the proof is for, and not welcomed.
    assert_eq!(told.len(), 100);
    // The same of an older generation is not even answered.
    let old = beside_a_stranger(|mut stream| {
        stream.write_all(&with_mac(&own, mac(ticket(2), "hello", &own, &[0; 68]))).unwrap();
        stream.write_all(&overheard).unwrap();
        self::told(stream)
    });
    assert_eq!(old, []);
}

#[test]
fn ten_thousand_connections_cost_a_bounded_number_of_descriptors_and_hinder_nobody() {
    const FLOOD: usize = 10_000;
    /// How many of its own connections the flood holds.
    const HELD: usize = 300;
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let (listeners, members) = listeners(2);
    let (come, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let since = Instant::now();
    thread::scope(|scope| {
        let (members, come, most) = (&members, &come, &most);
        let flood = scope.spawn(move || {
            let mut strangers = VecDeque::new();
            for n in 0..FLOOD {
                // A listener that is closed has done its work.
                let Ok(mut stream) = TcpStream::connect(members[0].address) else { break };
                let _ = stream.write_all(&hello(1, 0, 7)[..n % 68]);
                strangers.push_back(stream);
                if strangers.len() > HELD {
                    strangers.pop_front();
                }
                if n % 50 == 0 {
                    most.fetch_max(descriptors(), Ordering::SeqCst);
                }
                come.store(n, Ordering::SeqCst);
            }
        });
        let ranks: Vec<_> = (0..)
            .zip(listeners)
            .map(|(rank, listener)| {
                scope.spawn(move || {
                    // Rank 1 comes towards the end of the flood, in the middle of it.
                    while rank == 1 && come.load(Ordering::SeqCst) < FLOOD * 9 / 10 {
                        thread::yield_now();
                    }
                    let collective = connect(listener, identity(rank, 2), members, LONG).unwrap();
                    collective.barrier(strath_core::Step(0), LONG).unwrap();
                })
            })
            .collect();
        for rank in ranks {
            rank.join().unwrap();
        }
        flood.join().unwrap();
    });
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
    // The flood's own, 128 that have shown nothing, and what two ranks and the other tests of this process need.
    let most = most.load(Ordering::SeqCst);
    assert!(most <= HELD + 128 + 1100, "{most} descriptors");
}

#[test]
fn connections_that_wait_before_the_ring_listens_keep_no_peer_out() {
    const STRANGERS: usize = 1_000;
    let listener = strath_collective::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let (mut listeners, mut members) = listeners(2);
    members[0].address = listener.local_addr().unwrap();
    listeners[0] = listener;
    // Nobody takes them until the ring does.
    let strangers: Vec<TcpStream> =
        (0..STRANGERS).map(|_| TcpStream::connect_timeout(&members[0].address, LONG).unwrap()).collect();
    let since = Instant::now();
    thread::scope(|scope| {
        let members = &members;
        let begin =
            |(rank, listener)| scope.spawn(move || connect(listener, identity(rank, 2), members, LONG).map(|_| ()));
        let ranks: Vec<_> = (0..).zip(listeners).map(begin).collect();
        for rank in ranks {
            rank.join().unwrap().unwrap();
        }
    });
    assert!(since.elapsed() < Duration::from_secs(1), "{:?} among {} strangers", since.elapsed(), strangers.len());
}
