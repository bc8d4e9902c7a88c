//! Ranks that die, hang, misbehave or leave: every other rank gets an error that names the right one, in time.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use strath_collective::{Bucket, Collective, CollectiveError, Member, Payload};
use strath_core::config::Algorithm;
use strath_core::{Fault, Rank, Step};

use crate::CARRIER;
use crate::common::{Kind, term};
use crate::ranks::{LONG, culprit, identity, listeners, world};

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Ring, Algorithm::Direct];

fn sum(collective: &Collective, step: u64, payload: Payload, deadline: Duration) -> Result<(), CollectiveError> {
    let world = 0..collective.identity().world_size;
    collective.all_reduce(Step(step), Bucket::GRADIENT, world, payload, Fault::NONE).wait(deadline).map(|_| ())
}

/// Sums large vectors until something fails.
fn sum_until_it_fails(collective: &Collective) -> (CollectiveError, Instant) {
    let payload = term(Kind::Exact, collective.identity().rank.0, 1_000_000);
    for step in 0.. {
        if let Err(error) = sum(collective, step, payload.clone(), LONG) {
            return (error, Instant::now());
        }
    }
    unreachable!("steps do not end")
}

const CHILD_MEMBERS: &str = "STRATH_TEST_CHILD_MEMBERS";
const CHILD_ALGORITHM: &str = "STRATH_TEST_CHILD_ALGORITHM";

/// The last rank of a world, in a process of its own. Not a test by itself: it runs where the parent asks for it.
#[test]
#[ignore = "the process that another test kills"]
fn rank_that_is_killed() {
    let Ok(members) = std::env::var(CHILD_MEMBERS) else { return };
    let algorithm = if std::env::var(CHILD_ALGORITHM).unwrap() == "ring" { Algorithm::Ring } else { Algorithm::Direct };
    let addresses = members.split(',').map(|address| address.parse::<SocketAddr>().unwrap());
    let members: Vec<_> = (0..).zip(addresses).map(|(rank, address)| Member { rank: Rank(rank), address }).collect();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("\nlistening on {}", listener.local_addr().unwrap());
    let rank = members.len() as u32;
    let me = identity(rank, rank + 1);
    let collective = Collective::connect(listener, me, &members, (algorithm, CARRIER), LONG).unwrap();
    println!("\nconnected");
    let _ = sum_until_it_fails(&collective);
}

#[test]
fn a_process_killed_in_the_middle_of_a_transfer_is_named_by_every_other_rank_within_a_second() {
    for (algorithm, name) in ALGORITHMS.into_iter().zip(["ring", "direct"]) {
        let (mut listeners, mut members) = listeners(4);
        listeners.pop();
        members.pop();
        let addresses: Vec<String> = members.iter().map(|m| m.address.to_string()).collect();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "failures::rank_that_is_killed", "--ignored", "--nocapture"])
            .env(CHILD_MEMBERS, addresses.join(","))
            .env(CHILD_ALGORITHM, name)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let address = lines.find_map(|l| l.strip_prefix("listening on ").map(str::to_owned)).unwrap();
        let address = address.parse().unwrap();
        members.push(Member { rank: Rank(3), address });
        let members = &members;
        thread::scope(|scope| {
            let survivors: Vec<_> = (0..)
                .zip(listeners)
                .map(|(rank, listener)| {
                    scope.spawn(move || {
                        let me = identity(rank, 4);
                        let collective =
                            Collective::connect(listener, me, members, (algorithm, CARRIER), LONG).unwrap();
                        sum_until_it_fails(&collective)
                    })
                })
                .collect();
            assert!(lines.any(|l| l == "connected"));
            thread::sleep(Duration::from_millis(150));
            child.kill().unwrap();
            let killed = Instant::now();
            for survivor in survivors {
                let (error, at) = survivor.join().unwrap();
                assert!(matches!(error, CollectiveError::PeerLost { .. }), "{error:?}");
                assert_eq!(culprit(&error), Some(3), "{error}");
                assert!(error.to_string().contains(&address.to_string()), "{error}");
                assert!(at.saturating_duration_since(killed) < Duration::from_secs(1), "{error}");
            }
        });
        child.wait().unwrap();
    }
}

#[test]
fn a_silent_rank_is_named_when_the_deadline_passes_and_told_that_it_was() {
    let errors = world(4, Algorithm::Direct, |rank, collective| {
        if rank == 2 {
            thread::sleep(Duration::from_millis(600));
            return sum(&collective, 8, term(Kind::Exact, rank, 10), LONG).unwrap_err();
        }
        let since = Instant::now();
        let error = sum(&collective, 8, term(Kind::Exact, rank, 10), Duration::from_millis(300)).unwrap_err();
        assert!(since.elapsed() < Duration::from_millis(550), "{:?}", since.elapsed());
        error
    });
    for rank in [0, 1, 3] {
        assert_eq!(culprit(&errors[rank]), Some(2), "{}", errors[rank]);
    }
    // The first to wait in vain says so; whom it tells may hear of it before the own deadline.
    assert!(errors.iter().any(|e| matches!(e, CollectiveError::PeerSilent { step: Step(8), .. })), "{errors:?}");
    assert!(
        matches!(&errors[2], CollectiveError::PeerLost { cause, .. } if cause.contains("no valid answer")),
        "{}",
        errors[2]
    );
}

#[test]
fn a_deadline_in_a_ring_passes_too() {
    let errors = world(3, Algorithm::Ring, |rank, collective| {
        if rank == 1 {
            thread::sleep(Duration::from_millis(500));
            return None;
        }
        Some(sum(&collective, 0, term(Kind::Exact, rank, 100_000), Duration::from_millis(200)).unwrap_err())
    });
    assert!(errors.iter().flatten().all(|e| culprit(e).is_some()), "{errors:?}");
}

#[test]
fn another_length_or_kind_on_one_rank_is_an_error_on_all_and_not_a_wait() {
    for algorithm in [Algorithm::Auto, Algorithm::Ring, Algorithm::Direct] {
        for world_size in [2, 3, 5] {
            for (kind, len) in
                [(Kind::Exact, 10_001), (Kind::Integers, 10_000), (Kind::Floats, 0), (Kind::Exact, 90_000)]
            {
                let errors = world(world_size, algorithm, |rank, collective| {
                    let payload = if rank == 1 { term(kind, rank, len) } else { term(Kind::Exact, rank, 10_000) };
                    let since = Instant::now();
                    let error = sum(&collective, 0, payload, LONG).unwrap_err();
                    assert!(since.elapsed() < Duration::from_secs(2));
                    error
                });
                let broken = |e: &CollectiveError| matches!(e, CollectiveError::Protocol { .. });
                assert!(errors.iter().any(broken), "{errors:?}");
                assert!(errors.iter().all(|e| culprit(e).is_some()), "{errors:?}");
            }
        }
    }
}

#[test]
fn an_abort_from_another_thread_ends_the_wait_here_and_at_the_peers() {
    let errors = world(3, Algorithm::Auto, |rank, collective| {
        if rank == 0 {
            return thread::scope(|scope| {
                scope.spawn(|| {
                    thread::sleep(Duration::from_millis(100));
                    collective.abort();
                });
                let first = sum(&collective, 4, term(Kind::Exact, rank, 10), LONG).unwrap_err();
                assert_eq!(first, CollectiveError::Aborted { step: Step(4), bucket: Bucket::GRADIENT });
                sum(&collective, 5, term(Kind::Exact, rank, 10), LONG).unwrap_err()
            });
        }
        // Rank 2 waits for rank 0 and for rank 1, which does not take part.
        if rank == 1 {
            thread::sleep(Duration::from_millis(300));
        }
        sum(&collective, 4, term(Kind::Exact, rank, 10), LONG).unwrap_err()
    });
    assert_eq!(errors[0], CollectiveError::Aborted { step: Step(5), bucket: Bucket::GRADIENT });
    for error in &errors[1..] {
        assert!(matches!(error, CollectiveError::PeerLost { rank: Rank(0), .. }), "{error}");
    }
}

#[test]
fn a_handle_dropped_while_an_operation_is_under_way_aborts_it_within_a_bounded_time() {
    let errors = world(2, Algorithm::Auto, |rank, collective| {
        if rank == 1 {
            thread::sleep(Duration::from_millis(200));
            return sum(&collective, 0, term(Kind::Exact, rank, 1_000_000), LONG).unwrap_err();
        }
        let payload = term(Kind::Exact, rank, 1_000_000);
        let pending = collective.all_reduce(Step(0), Bucket::GRADIENT, 0..2, payload, Fault::NONE);
        let since = Instant::now();
        drop(collective);
        assert!(since.elapsed() < Duration::from_secs(3));
        pending.wait(LONG).unwrap_err()
    });
    assert!(matches!(errors[0], CollectiveError::Aborted { .. }), "{}", errors[0]);
    assert_eq!(culprit(&errors[1]), Some(0), "{}", errors[1]);
}

#[test]
fn a_rank_that_has_left_is_missed_by_the_next_operation() {
    let errors = world(3, Algorithm::Auto, |rank, collective| {
        sum(&collective, 0, term(Kind::Exact, rank, 100), LONG).unwrap();
        if rank == 1 {
            return None;
        }
        Some(sum(&collective, 1, term(Kind::Exact, rank, 100), LONG).unwrap_err())
    });
    for rank in [0, 2] {
        let error = errors[rank].as_ref().unwrap();
        assert_eq!(culprit(error), Some(1), "{error}");
        assert!(error.to_string().contains("step 1"), "{error}");
    }
}

/// Rank 1 starts both sums, has both and is gone before rank 0 asks for its second.
#[test]
fn what_has_come_from_a_rank_that_is_gone_since_is_summed() {
    for aborts in [false, true] {
        let sums = world(2, Algorithm::Auto, |rank, collective| {
            let start =
                |bucket, len| collective.all_reduce(Step(0), bucket, 0..2, term(Kind::Exact, rank, len), Fault::NONE);
            let (large, small) = (start(Bucket::GRADIENT, 300_000), start(Bucket::TALLY, 10));
            large.wait(LONG).unwrap();
            if rank == 0 {
                thread::sleep(Duration::from_millis(300));
                return small.wait(LONG).map(|_| ());
            }
            let small = small.wait(LONG).map(|_| ());
            if aborts {
                // Long enough for the last frames of the sums to be on their way, short enough to be first.
                thread::sleep(Duration::from_millis(100));
                collective.abort();
            }
            small
        });
        assert_eq!(sums, [Ok(()), Ok(())], "aborts: {aborts}");
    }
}

#[test]
fn two_operations_of_one_name_are_refused_and_the_first_goes_on() {
    let results = world(2, Algorithm::Auto, |rank, collective| {
        let start = || collective.all_reduce(Step(0), Bucket::TALLY, 0..2, term(Kind::Exact, rank, 10), Fault::NONE);
        if rank == 1 {
            thread::sleep(Duration::from_millis(100));
            return (start().wait(LONG), None);
        }
        let (first, second) = (start(), start());
        let second = second.wait(LONG).unwrap_err();
        (first.wait(LONG), Some(second))
    });
    assert_eq!(results[0].0, results[1].0);
    assert!(results[0].0.is_ok());
    assert_eq!(results[0].1, Some(CollectiveError::Duplicate { step: Step(0), bucket: Bucket::TALLY }));
}
