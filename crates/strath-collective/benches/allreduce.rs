//! All-reduces of ranks that are threads of this process, over TCP and shared memory, by each algorithm.
//!
//! ```text
//! cargo bench -p strath-collective [-- NAME] [--save-baseline BEFORE | --baseline BEFORE]
//! ```
//! Bytes a second are those of the vector. `strath bench allreduce` measures processes, and beside the bound; this is for comparing two
//! versions of an algorithm or a transport.
#![allow(missing_docs, reason = "what criterion's macros make")]
#![allow(clippy::disallowed_methods, reason = "to measure is to read the clock")]

use std::net::TcpListener;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use strath_collective::{Bucket, Collective, Identity, Member, Payload};
use strath_core::config::{Algorithm, Transport};
use strath_core::{Fault, Generation, Rank, RunId, Step, Ticket};

/// The program's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DEADLINE: Duration = Duration::from_secs(60);

/// So many sums of so many values.
#[derive(Clone, Copy)]
struct Round {
    values: usize,
    times: u64,
}

/// Connected ranks; rank 0 is whoever has this.
struct World {
    rank_0: Collective,
    others: Vec<(Sender<Round>, JoinHandle<()>)>,
    step: u64,
}

fn sum(peers: &Collective, step: &mut u64, Round { values, times }: Round) -> Duration {
    let everyone = 0..peers.identity().world_size;
    let mut terms = vec![1.0; values];
    let since = Instant::now();
    for _ in 0..times {
        let pending =
            peers.all_reduce(Step(*step), Bucket::GRADIENT, everyone.clone(), Payload::Floats(terms), Fault::NONE);
        let (sum, _) = pending.wait(DEADLINE).expect("the ranks of this process stay");
        terms = sum.into_floats().expect("floats are summed to floats");
        // What is summed stays finite; a pass that every version pays alike.
        terms.fill(1.0);
        *step += 1;
    }
    since.elapsed()
}

impl World {
    fn new(world_size: u32, algorithm: Algorithm, transport: Transport) -> Self {
        let listeners: Vec<_> =
            (0..world_size).map(|_| TcpListener::bind("127.0.0.1:0").expect("loopback has ports")).collect();
        let members: Vec<_> = (0..)
            .zip(&listeners)
            .map(|(rank, l)| Member { rank: Rank(rank), address: l.local_addr().expect("it listens") })
            .collect();
        let mut connecting = Vec::new();
        for (rank, listener) in (0..).zip(listeners) {
            let (rounds, to_do) = channel::<Round>();
            let (members, (tell, told)) = (members.clone(), channel());
            let thread = thread::spawn(move || {
                let (run, generation, ticket) = (RunId(1), Generation(1), Ticket([1; 32]));
                let identity = Identity { run, generation, rank: Rank(rank), world_size, ticket };
                let peers = Collective::connect(listener, identity, &members, (algorithm, transport), DEADLINE);
                let peers = peers.expect("the ranks of this process find each other");
                if rank == 0 {
                    tell.send(peers).expect("it is waited for");
                    return;
                }
                let mut step = 0;
                for round in to_do {
                    sum(&peers, &mut step, round);
                }
            });
            connecting.push((rounds, told, thread));
        }
        let (_, told, thread) = connecting.remove(0);
        let rank_0 = told.recv().expect("rank 0 connects");
        thread.join().expect("rank 0 has connected");
        let others = connecting.into_iter().map(|(rounds, _, thread)| (rounds, thread)).collect();
        Self { rank_0, others, step: 0 }
    }

    fn time(&mut self, round: Round) -> Duration {
        for (rounds, _) in &self.others {
            rounds.send(round).expect("every rank waits for its next round");
        }
        sum(&self.rank_0, &mut self.step, round)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for (rounds, thread) in self.others.drain(..) {
            drop(rounds);
            thread.join().expect("a rank without a next round ends");
        }
    }
}

fn all_reduce(c: &mut Criterion) {
    for (transport, carrier) in [(Transport::Tcp, "tcp"), (Transport::Shm, "shm")] {
        for (algorithm, name) in [(Algorithm::Auto, "auto"), (Algorithm::Ring, "ring"), (Algorithm::Direct, "direct")] {
            for world_size in [2, 4] {
                let mut world = World::new(world_size, algorithm, transport);
                let mut group = c.benchmark_group(format!("{name} over {carrier}, {world_size} ranks"));
                for bytes in [1 << 10, 64 << 10, 1 << 20, 16 << 20] {
                    group.throughput(Throughput::Bytes(bytes));
                    group.bench_function(BenchmarkId::from_parameter(bytes), |b| {
                        b.iter_custom(|times| world.time(Round { values: bytes as usize / 4, times }));
                    });
                }
                group.finish();
            }
        }
    }
}

criterion_group!(benches, all_reduce);
criterion_main!(benches);
