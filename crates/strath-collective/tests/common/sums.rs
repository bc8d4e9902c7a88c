//! Sums over real connections, ranks as threads.

use std::thread;
use std::time::Duration;

use strath_collective::{Bucket, Collective, Payload, Reduced};
use strath_core::config::Algorithm;
use strath_core::{Fault, Step};

use crate::common::{KINDS, Kind, approximate, oracle, same_bits, term};
use crate::ranks::{LONG, world};

const ALGORITHMS: [Algorithm; 3] = [Algorithm::Auto, Algorithm::Ring, Algorithm::Direct];

fn check(kind: Kind, ranks: &[u32], len: usize, sums: &[&Reduced]) {
    assert!(sums.iter().all(|sum| same_bits(sum, sums[0])), "{kind:?} of {len} over {ranks:?}: ranks differ");
    if matches!(kind, Kind::Exact | Kind::Mixed | Kind::Wide | Kind::Integers) {
        assert!(same_bits(sums[0], &oracle(kind, ranks, len)), "{kind:?} of {len} over {ranks:?}: wrong sum");
        return;
    }
    let (want, slack) = approximate(kind, ranks, len);
    let Reduced::Floats(found) = sums[0] else { panic!("{kind:?} gave integers") };
    assert_eq!(found.len(), len);
    for ((found, want), slack) in found.iter().zip(want).zip(slack) {
        assert!((f64::from(*found) - want).abs() <= slack, "{kind:?}: {found} for {want}, off by more than {slack}");
    }
}

#[test]
fn every_kind_and_length_sums_over_worlds_of_one_to_eight() {
    for world_size in 1..=8 {
        for algorithm in ALGORITHMS {
            let lengths = [0, 1, world_size as usize - 1, 1000, 70_001];
            let results = world(world_size, algorithm, |rank, collective| {
                let mut sums = Vec::new();
                for (step, len) in (0..).zip(lengths) {
                    for (bucket, kind) in (0..).zip(KINDS) {
                        let fault = Fault::from_bits(u64::from(rank) + 100);
                        let group = 0..world_size;
                        let pending =
                            collective.all_reduce(Step(step), Bucket(bucket), group, term(kind, rank, len), fault);
                        let (sum, fault) = pending.wait(LONG).unwrap();
                        assert_eq!(fault, Fault::from_bits(100), "the least status word of all ranks");
                        sums.push((kind, len, sum));
                    }
                }
                sums
            });
            let ranks: Vec<u32> = (0..world_size).collect();
            for at in 0..results[0].len() {
                let (kind, len, _) = results[0][at];
                let sums: Vec<&Reduced> = results.iter().map(|r| &r[at].2).collect();
                check(kind, &ranks, len, &sums);
            }
        }
    }
}

/// A step as a worker takes it: lanes shared with the left and the right neighbour, then gradient and tally at once.
fn step(collective: &Collective, step: u64, len: usize, late: Duration) -> [Reduced; 4] {
    let (rank, world_size) = (collective.identity().rank.0, collective.identity().world_size);
    let step = Step(step);
    let lane_with = |left: u32| {
        let group = left..(left + 2).min(world_size);
        collective.all_reduce(step, Bucket::lane(left), group, term(Kind::Wide, rank, len / 2), Fault::NONE)
    };
    thread::sleep(late);
    let right = lane_with(rank);
    thread::sleep(late);
    let left = if rank > 0 { lane_with(rank - 1) } else { lane_with(rank + 100) };
    let world = 0..world_size;
    let gradient =
        collective.all_reduce(step, Bucket::GRADIENT, world.clone(), term(Kind::Exact, rank, len), Fault::NONE);
    thread::sleep(late);
    let tally = collective.all_reduce(step, Bucket::TALLY, world, term(Kind::Integers, rank, 40), Fault::NONE);
    let sum = |pending: strath_collective::Pending| pending.wait(LONG).map(|(sum, _)| sum);
    // Waited for in another order than they were started in.
    let tally = sum(tally).unwrap();
    let left = sum(left).unwrap_or(Reduced::Integers(vec![]));
    let gradient = sum(gradient).unwrap();
    [left, sum(right).unwrap(), gradient, tally]
}

#[test]
fn lanes_gradient_and_tally_travel_at_once_while_ranks_come_late() {
    let (world_size, len) = (4, 300_000);
    let results = world(world_size, Algorithm::Auto, |rank, collective| {
        (0..3)
            .map(|s| step(&collective, s, len, Duration::from_millis(u64::from((rank + s as u32) % 4) * 15)))
            .collect::<Vec<_>>()
    });
    for (rank, steps) in (0..world_size).zip(&results) {
        for [left, right, gradient, tally] in steps {
            let next = [rank, rank + 1];
            let shared = if rank + 1 < world_size { &next[..] } else { &next[..1] };
            check(Kind::Wide, shared, len / 2, &[right]);
            if rank > 0 {
                check(Kind::Wide, &[rank - 1, rank], len / 2, &[left]);
            }
            check(Kind::Exact, &[0, 1, 2, 3], len, &[gradient]);
            check(Kind::Integers, &[0, 1, 2, 3], 40, &[tally]);
        }
    }
}

#[test]
fn ranks_may_start_operations_in_opposite_orders_and_wait_in_between() {
    // Both are larger than what sockets hold, so a transport that reads one operation at a time stands still here.
    let len = 3_000_000;
    for algorithm in ALGORITHMS {
        let results = world(3, algorithm, |rank, collective| {
            let start = |bucket| {
                collective.all_reduce(Step(0), Bucket(bucket), 0..3, term(Kind::Exact, rank, len), Fault::NONE)
            };
            if rank == 0 {
                let (second, first) = (start(1), start(0));
                [first.wait(LONG).unwrap().0, second.wait(LONG).unwrap().0]
            } else {
                let first = start(0).wait(LONG).unwrap().0;
                [first, start(1).wait(LONG).unwrap().0]
            }
        });
        for at in 0..2 {
            let sums: Vec<_> = results.iter().map(|r| &r[at]).collect();
            check(Kind::Exact, &[0, 1, 2], len, &sums);
        }
    }
}

#[test]
fn a_rank_that_drops_its_handle_early_still_gives_what_it_owes() {
    let len = 2_000_000;
    let results = world(4, Algorithm::Auto, |rank, collective| {
        let pending = collective.all_reduce(Step(0), Bucket(0), 0..4, term(Kind::Floats, rank, len), Fault::NONE);
        if rank == 2 {
            thread::sleep(Duration::from_millis(100));
        }
        let sum = pending.wait(LONG).unwrap().0;
        drop(collective);
        sum
    });
    check(Kind::Floats, &[0, 1, 2, 3], len, &results.iter().collect::<Vec<_>>());
}

#[test]
fn a_barrier_holds_until_the_last_rank_is_there() {
    let late = Duration::from_millis(150);
    let waited = world(3, Algorithm::Auto, |rank, collective| {
        if rank == 1 {
            thread::sleep(late);
        }
        let since = std::time::Instant::now();
        collective.barrier(Step(5), LONG).unwrap();
        since.elapsed()
    });
    // Connecting ends at slightly different times on the ranks.
    assert!(waited[0] >= late / 2 && waited[2] >= late / 2, "{waited:?}");
}

#[test]
fn an_empty_payload_sums_to_an_empty_one() {
    let sums = world(2, Algorithm::Ring, |_, collective| {
        let pending = collective.all_reduce(Step(0), Bucket(0), 0..2, Payload::Exact(vec![]), Fault::from_bits(9));
        pending.wait(LONG).unwrap()
    });
    assert_eq!(sums, vec![(Reduced::Floats(vec![]), Fault::from_bits(9)); 2]);
}
