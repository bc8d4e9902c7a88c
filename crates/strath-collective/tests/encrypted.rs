//! The ring within TLS: who may be a peer, and that sums are the same.
#![allow(clippy::unwrap_used, reason = "a test that fails names the line")]
#![allow(clippy::disallowed_methods, reason = "real connections take real time")]

#[path = "common/authority.rs"]
mod authority;
mod common;
#[path = "common/proxy.rs"]
mod proxy;
#[path = "common/world.rs"]
mod ranks;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use authority::{Authority, Use, Valid};
use common::{Kind, term};
use proxy::damage;
use ranks::{LONG, hello, identity, listeners, mac, ticket, with_mac};
use strath_collective::{Bucket, Collective, CollectiveError, Identity, Member, Reduced, RingTls};
use strath_core::config::{Algorithm, Transport};
use strath_core::{Fault, Rank, Step};

/// What world.rs asks for.
const CARRIER: Transport = Transport::Tcp;
const SHORT: Duration = Duration::from_millis(700);

fn connect(
    listener: TcpListener,
    me: Identity,
    members: &[Member],
    transport: Transport,
    tls: Option<&RingTls>,
    deadline: Duration,
) -> Result<Collective, CollectiveError> {
    let how = (Algorithm::Auto, transport);
    Collective::connect_unless(listener, me, members, how, tls, deadline.into(), &AtomicBool::new(false))
}

/// What each rank of a world comes to, with a certificate or without.
fn world<R: Send>(
    deadline: Duration,
    transport: Transport,
    certificates: &[Option<RingTls>],
    rank_main: impl Fn(u32, Collective) -> R + Sync,
) -> Vec<Result<R, CollectiveError>> {
    let world_size = certificates.len() as u32;
    let (listeners, members) = listeners(world_size);
    thread::scope(|scope| {
        let (members, rank_main) = (&members, &rank_main);
        let ranks: Vec<_> = (0..)
            .zip(listeners)
            .zip(certificates)
            .map(|((rank, listener), tls)| {
                scope.spawn(move || {
                    let me = identity(rank, world_size);
                    connect(listener, me, members, transport, tls.as_ref(), deadline)
                        .map(|peers| rank_main(rank, peers))
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// A sum of so many values over the world, which every rank gets the same bits of.
fn sum(rank: u32, peers: &Collective, step: u64, len: usize) -> Vec<u32> {
    let world = 0..peers.identity().world_size;
    let pending = peers.all_reduce(Step(step), Bucket::GRADIENT, world, term(Kind::Exact, rank, len), Fault::NONE);
    let (Reduced::Floats(floats), _) = pending.wait(LONG).unwrap() else { panic!("a gradient is floats") };
    floats.into_iter().map(f32::to_bits).collect()
}

/// Lengths around those of records and segments, and one of many segments.
const LENGTHS: [usize; 9] = [0, 1, 10, 2_047, 4_085, 4_096, 65_537, 300_001, 3_000_000];

#[test]
fn sums_within_tls_have_the_bits_of_sums_in_clear() {
    let certificate = Authority::new().worker();
    for world_size in [2, 3] {
        let sums = |tls: Option<&RingTls>, transport| {
            let certificates = vec![tls.cloned(); world_size];
            let ranks = world(LONG, transport, &certificates, |rank, peers| {
                (0..).zip(LENGTHS).map(|(step, len)| sum(rank, &peers, step, len)).collect::<Vec<_>>()
            });
            ranks.into_iter().map(Result::unwrap).collect::<Vec<_>>()
        };
        let in_clear = sums(None, Transport::Tcp);
        assert!(in_clear == sums(Some(&certificate), Transport::Tcp), "{world_size} ranks");
        // Beside shared memory the connections are encrypted while the ranks agree; then they only wake.
        assert!(in_clear == sums(Some(&certificate), Transport::Shm), "{world_size} ranks that share memory");
    }
}

#[test]
fn ranks_with_certificates_and_without_refuse_each_other_at_once() {
    let certificate = Authority::new().worker();
    let since = Instant::now();
    for error in world(LONG, CARRIER, &[Some(certificate), None], |_, _| ()).into_iter().map(Result::unwrap_err) {
        let said = error.to_string();
        let CollectiveError::Handshake { mismatch, .. } = &error else { panic!("{said}") };
        assert_eq!(mismatch.field, "protection (0: none, 1: TLS)", "{said}");
        assert!(said.contains("certificates all or none") && said.contains("127.0.0.1:"), "{said}");
    }
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
}

/// What rank 0, whose certificate is good, says of a rank that knows the ticket and shows another certificate; within moments.
fn of_a_peer_with(authority: &Authority, other: RingTls) -> Vec<String> {
    let since = Instant::now();
    let outcomes = world(LONG, CARRIER, &[Some(authority.worker()), Some(other)], |_, _| ());
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    let untrusted = |outcome: Result<(), CollectiveError>| {
        let error = outcome.unwrap_err();
        assert!(matches!(error, CollectiveError::Untrusted { .. }), "{error}");
        error.to_string()
    };
    outcomes.into_iter().map(untrusted).collect()
}

#[test]
fn a_certificate_of_another_authority_one_that_expired_and_a_coordinators_are_none_of_a_peer() {
    let authority = Authority::new();
    let refused = [
        (Authority::new().worker(), "UnknownIssuer"),
        (authority.certificate("worker.strath", Use::Client, Valid::Expired), "xpired"),
        (authority.certificate("coordinator.strath", Use::Server, Valid::Now), "extended key usage"),
        (authority.certificate("worker.strath", Use::Server, Valid::Now), "extended key usage"),
        (authority.certificate("coordinator.strath", Use::Client, Valid::Now), "not valid for name"),
    ];
    for (other, why) in refused {
        let said = of_a_peer_with(&authority, other);
        let named =
            said.iter().any(|said| said.contains("not one of a worker of this authority") && said.contains(why));
        assert!(named, "{why}: {said:?}");
        assert!(said.iter().all(|said| said.contains("strath certs DIR") && said.contains("127.0.0.1:")), "{said:?}");
    }
}

/// Answers a connection to where rank 1 should be with what `words` makes of the hello, and says what is heard then.
fn beside_rank_0(tls: &RingTls, dialled: impl FnOnce(TcpStream) + Send) -> CollectiveError {
    let (mut listeners, members) = listeners(2);
    drop(listeners.pop());
    let address = members[0].address;
    thread::scope(|scope| {
        scope.spawn(move || dialled(TcpStream::connect(address).unwrap()));
        connect(listeners.pop().unwrap(), identity(0, 2), &members, CARRIER, Some(tls), SHORT).unwrap_err()
    })
}

#[test]
fn a_worker_of_another_generation_gets_no_further_than_the_ticket() {
    // It has a good certificate, and begins with what it knows: a ticket that is not the one.
    let tls = Authority::new().worker();
    let mut own = hello(1, 0, 7);
    own[6] = 1;
    let error = beside_rank_0(&tls, |mut stream| {
        stream.write_all(&with_mac(&own, mac(ticket(2), "hello", &own, &[0; 68]))).unwrap();
        let mut told = Vec::new();
        let _ = stream.read_to_end(&mut told);
        assert_eq!(told, []);
    });
    assert!(matches!(error, CollectiveError::Unreachable { .. }), "{error}");
}

#[test]
fn what_follows_the_ticket_is_a_tls_session_of_bounded_length_or_the_end() {
    let tls = Authority::new().worker();
    let mut own = hello(1, 0, 7);
    own[6] = 1;
    // A record that says that it is longer than any, one of the longest that never ends, and no record at all.
    let endless = [b"\x16\x03\x03\x40\x00".to_vec(), vec![0; 1 << 20]].concat();
    for words in [b"\x16\x03\x03\xff\xff".repeat(8_000), endless, b"GET / HTTP/1.1\r\n\r\n".to_vec()] {
        let since = Instant::now();
        let error = beside_rank_0(&tls, |mut stream| {
            stream.write_all(&with_mac(&own, mac(ticket(3), "hello", &own, &[0; 68]))).unwrap();
            let mut answer = [0; 100];
            stream.read_exact(&mut answer).unwrap();
            let theirs = answer[..68].try_into().unwrap();
            stream.write_all(&mac(ticket(3), "proof", &own, &theirs)).unwrap();
            // It is closed on in the middle of this.
            let _ = stream.write_all(&words);
        });
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
        assert!(matches!(error, CollectiveError::Untrusted { rank: Rank(1), .. }), "{error}");
    }
}

#[test]
fn a_bit_turned_over_within_tls_ends_the_ring_and_never_reaches_a_sum() {
    let tls = &Authority::new().worker();
    for at in [20_000, 400_000] {
        let (listeners, members) = listeners(2);
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let seen_by_0 = [members[0], Member { address: proxy.local_addr().unwrap(), ..members[1] }];
        let to = members[1].address;
        let outcomes = thread::scope(|scope| {
            let mut listeners = listeners.into_iter();
            let mut rank = |rank, members: &[Member]| {
                let (listener, members) = (listeners.next().unwrap(), members.to_vec());
                scope.spawn(move || {
                    let how = (Algorithm::Direct, CARRIER);
                    let until = AtomicBool::new(false);
                    let me = identity(rank, 2);
                    let peers = Collective::connect_unless(listener, me, &members, how, Some(tls), LONG.into(), &until)
                        .unwrap();
                    let term = term(Kind::Floats, rank, 200_000);
                    peers.all_reduce(Step(0), Bucket::GRADIENT, 0..2, term, Fault::NONE).wait(LONG).map(|_| ())
                })
            };
            let ranks = [rank(0, &seen_by_0), rank(1, &members)];
            damage(&proxy, to, at);
            ranks.map(|rank| rank.join().unwrap())
        });
        let error = outcomes[1].as_ref().unwrap_err();
        assert!(matches!(error, CollectiveError::PeerLost { rank: Rank(0), .. }), "byte {at}: {error}");
        assert!(error.to_string().contains("decrypt"), "byte {at}: {error}");
    }
}
