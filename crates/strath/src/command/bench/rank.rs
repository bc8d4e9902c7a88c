//! One rank of `strath bench allreduce`, in a process of its own.

use std::io::{BufRead, Read};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Instant;

use clap::Args;
use strath_collective::{Bucket, Collective, Identity, Member, Payload, Reduced};
use strath_core::config::{Algorithm, Transport};
use strath_core::fixed::FixedSum;
use strath_core::random::{Purpose, Stream};
use strath_core::{Fault, Generation, Rank, RingKey, RunId, Step};
use strath_node::ring_tls;
use strath_rpc::ClientTls;

use super::allreduce::{Carrier, DEADLINE, Format, Measured, RatesLine, Route, Timing};
use crate::outcome::Failure;
use crate::telling;

/// One rank of `strath bench allreduce`
#[derive(Debug, Args)]
pub struct AllreduceRank {
    #[command(flatten)]
    what: Measured,
    /// Which rank.
    #[arg(long)]
    rank: u32,
    /// Where it listens: what its host is called by.
    #[arg(long, default_value = "127.0.0.1")]
    listen: IpAddr,
    /// What proves that it is of this run, in hexadecimal.
    #[arg(long, value_parser = key)]
    key: RingKey,
    /// A folder with a worker's certificate: the ring is encrypted.
    #[arg(long)]
    certs: Option<PathBuf>,
}

fn key(text: &str) -> Result<RingKey, String> {
    let number = u128::from_str_radix(text, 16).map_err(|e| e.to_string())?;
    Ok(RingKey(number.to_be_bytes()))
}

/// Rounds before those that count.
const WARM_UP: usize = 5;

/// Rounds that count: so many that 256 MiB are summed, within bounds.
fn rounds(bytes: usize) -> usize {
    ((256 << 20) / bytes).clamp(7, 300)
}

impl AllreduceRank {
    /// Runs the rank: says where it listens, reads where all do, measures.
    pub fn run(self) -> Result<(), Failure> {
        let listener = TcpListener::bind((self.listen, 0)).map_err(Failure::other)?;
        telling::print(&format!("{}\n", listener.local_addr().map_err(Failure::other)?))?;
        let members = members()?;
        end_with_the_parent();
        let (run, generation) = (RunId(0), Generation(0));
        let identity = Identity {
            run,
            generation,
            rank: Rank(self.rank),
            world_size: self.what.workers,
            ticket: self.key.ticket(run, generation),
        };
        let tls = self.certs.as_deref().map(ClientTls::read).transpose().map_err(Failure::usage)?;
        let tls = tls.map(|tls| ring_tls(tls.credentials())).transpose().map_err(Failure::Other)?;
        let algorithm = match self.what.algorithm {
            Route::Auto => Algorithm::Auto,
            Route::Ring => Algorithm::Ring,
            Route::Direct => Algorithm::Direct,
        };
        let transport = match self.what.transport {
            Carrier::Auto => Transport::Auto,
            Carrier::Tcp => Transport::Tcp,
            Carrier::Shm => Transport::Shm,
        };
        let how = (algorithm, transport);
        let until = AtomicBool::new(false);
        let peers =
            Collective::connect_unless(listener, identity, &members, how, tls.as_ref(), DEADLINE.into(), &until);
        let peers = peers.map_err(Failure::other)?;
        if self.rank == 0 {
            let rates = peers.rates().copied().map(RatesLine::from);
            telling::print(&(serde_json::to_string(&rates).map_err(Failure::other)? + "\n"))?;
        }
        let mut step = 0;
        for size in &self.what.sizes {
            let timing = self.measure(&peers, size.0, &mut step)?;
            if self.rank == 0 {
                telling::print(&(serde_json::to_string(&timing).map_err(Failure::other)? + "\n"))?;
            }
        }
        // No rank leaves while another still measures.
        peers.barrier(Step(step), DEADLINE).map_err(Failure::other)
    }

    fn measure(&self, peers: &Collective, bytes: usize, step: &mut u64) -> Result<Timing, Failure> {
        let everyone = 0..self.what.workers;
        let term = Term::new(&self.what, self.rank, bytes / 4);
        let mut spent = Vec::new();
        let mut algorithm = "";
        let mut times = Vec::new();
        for round in 0..WARM_UP + rounds(bytes) {
            let payload = term.payload(peers, spent);
            algorithm = peers.choice(&everyone, &payload).name();
            peers.barrier(Step(*step), DEADLINE).map_err(Failure::other)?;
            let since = Instant::now();
            let pending = peers.all_reduce(Step(*step), Bucket::GRADIENT, everyone.clone(), payload, Fault::NONE);
            let (sum, _) = pending.wait(DEADLINE).map_err(Failure::other)?;
            if round >= WARM_UP {
                times.push(since.elapsed());
            }
            let Reduced::Floats(floats) = sum else { unreachable!("a gradient is reduced to floats") };
            spent = floats;
            *step += 1;
        }
        times.sort();
        let us = times[times.len() / 2].as_secs_f64() * 1e6;
        Ok(Timing { bytes, transport: carrier(peers).into(), algorithm: algorithm.into(), us })
    }
}

/// What carries this rank's sums.
fn carrier(peers: &Collective) -> &'static str {
    let Identity { rank, world_size, .. } = peers.identity();
    let others = (0..world_size).map(Rank).filter(|peer| *peer != rank);
    let shared = others.filter(|peer| peers.carrier(*peer) == Transport::Shm).count() as u32;
    match shared {
        0 => "tcp",
        all if all + 1 == world_size => "shm",
        _ => "shm and tcp",
    }
}

/// Where every rank listens, in order of rank.
fn members() -> Result<Vec<Member>, Failure> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(Failure::other)?;
    let addresses = line.trim().split(',').map(str::parse::<SocketAddr>);
    (0..).zip(addresses).map(|(rank, a)| Ok(Member { rank: Rank(rank), address: a.map_err(Failure::other)? })).collect()
}

/// Ends this process when the one that started it has ended: its end of the pipe closes.
fn end_with_the_parent() {
    thread::spawn(|| {
        // Nothing more is said: this returns at the end only.
        let _ = std::io::stdin().lock().read(&mut [0]);
        std::process::exit(1);
    });
}

/// A rank's term, made anew for each round.
enum Term {
    Floats(Vec<f32>),
    Halves(Vec<f32>),
    Weighted(Vec<f32>),
    Exact(Vec<i64>),
}

impl Term {
    /// The sum of `parts` micro-batches' gradients of a usual size, each weighted by its part of the batch.
    fn new(what: &Measured, rank: u32, len: usize) -> Self {
        let mut draws = Stream::new(u64::from(rank), Purpose::Probe);
        let weight = 1.0 / f64::from(what.workers * what.parts);
        let mut gradient = || -> Vec<f32> { (0..len).map(|_| 0.5 * draws.uniform() - 0.25).collect() };
        let weighted = |values: Vec<f32>| values.iter().map(|v| (f64::from(*v) * weight) as f32).collect();
        match what.reduce {
            Format::F32 => Self::Floats(weighted(gradient())),
            Format::Bf16 => Self::Halves(weighted(gradient())),
            Format::Exact if what.parts == 1 => Self::Weighted(weighted(gradient())),
            Format::Exact => {
                let mut sum = FixedSum::gradient(len);
                for _ in 0..what.parts {
                    sum.add(&gradient(), weight).expect("a gradient below 0.25 is in range");
                }
                Self::Exact(sum.into_entries())
            }
        }
    }

    /// The payload of a round, in the memory of the former one's result where it fits; where not, the next result gets that.
    fn payload(&self, peers: &Collective, mut spent: Vec<f32>) -> Payload {
        let mut again = |values: &[f32]| {
            spent.clear();
            spent.extend_from_slice(values);
            std::mem::take(&mut spent)
        };
        match self {
            Self::Floats(values) => Payload::Floats(again(values)),
            Self::Halves(values) => Payload::Halves(again(values)),
            Self::Weighted(values) => Payload::Weighted(again(values)),
            Self::Exact(values) => {
                peers.give_room(spent);
                Payload::Exact(values.clone())
            }
        }
    }
}
