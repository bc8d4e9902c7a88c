//! `strath bench allreduce`: worker processes on this machine, against what carries their sums could carry.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use strath_collective::rates::{Link, Rates};

use super::size::Size;
use super::{encrypted, link};
use crate::outcome::Failure;
use crate::{runtime, telling};

/// Longest that a rank may take for what is waited for next: to start, to connect, to measure one size.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Time of an all-reduce over processes of this machine, for each size
#[derive(Debug, Args)]
#[command(after_help = "\
Columns: bytes of the f32 payload; us, the median over rounds of rank 0's time in the call, each after a barrier;
algbw = bytes / time; busbw = algbw * 2(N-1)/N; percent of the bound 2(N-1)/N * bytes / link bandwidth, which is what one
loopback connection carried one way just before, or one core copied to memory where ranks share it.

With --tls the same over TCP in clear and encrypted, in turns; the last column is what encryption may cost: the time in
clear and 1.3 times what one core needs to encrypt and to decrypt rank 0's bytes with AES-128-GCM.

Examples:
  strath bench allreduce
  strath bench allreduce --tls --sizes 1MiB,16MiB
  strath bench allreduce --workers 4 --sizes 1KiB,1MiB,64MiB --reduce f32 --json")]
pub struct Allreduce {
    #[command(flatten)]
    what: Measured,
    /// Over TLS as with certificates, beside the same in clear.
    #[arg(long)]
    tls: bool,
    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
}

/// What is measured: the same for the command and for each of its ranks.
#[derive(Debug, Clone, Args)]
pub struct Measured {
    /// Worker processes.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..=16))]
    pub workers: u32,
    /// Sizes of the f32 payload.
    #[arg(
        long,
        value_name = "SIZES",
        value_delimiter = ',',
        default_value = "1KiB,16KiB,256KiB,1MiB,4MiB,16MiB,64MiB"
    )]
    pub sizes: Vec<Size>,
    /// Number format of the sum.
    #[arg(long, value_enum, default_value_t = Format::Exact)]
    pub reduce: Format,
    /// What carries it.
    #[arg(long, value_enum, default_value_t = Carrier::Auto)]
    pub transport: Carrier,
    /// How it is exchanged.
    #[arg(long, value_enum, default_value_t = Route::Auto)]
    pub algorithm: Route,
    /// Micro-batches whose gradients each rank adds: from two on exact sums are wider than f32.
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub parts: u32,
}

/// `cluster.reduce`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// f32 sums
    F32,
    /// fixed-point sums
    Exact,
    /// terms and results rounded to bf16
    Bf16,
}

/// `cluster.transport`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Carrier {
    /// the fastest there is: shared memory where processes can have it
    Auto,
    /// loopback sockets
    Tcp,
    /// shared memory, or an error
    Shm,
}

/// `cluster.algorithm`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Route {
    /// the faster one
    Auto,
    /// neighbour to neighbour
    Ring,
    /// straight to the owner
    Direct,
}

/// What rank 0 says of each size.
#[derive(Debug, Serialize, Deserialize)]
pub struct Timing {
    /// Bytes of the f32 payload.
    pub bytes: usize,
    /// What carried it.
    pub transport: String,
    /// How it was exchanged.
    pub algorithm: String,
    /// Median of its time in the call, microseconds.
    pub us: f64,
}

/// What rank 0 says first: the measured links, each with latency, port, message and byte, the addition of a byte and the cores.
#[derive(Debug, Serialize, Deserialize)]
pub struct RatesLine {
    near: [f64; 4],
    far: [f64; 4],
    add: f64,
    cores: f64,
}

impl From<Rates> for RatesLine {
    fn from(rates: Rates) -> Self {
        let link = |link: Link| [link.latency_s, link.port_s_per_byte, link.message_s, link.byte_s];
        Self { near: link(rates.near), far: link(rates.far), add: rates.add_s_per_byte, cores: rates.cores }
    }
}

impl From<RatesLine> for Rates {
    fn from(line: RatesLine) -> Self {
        let link = |[latency_s, port_s_per_byte, message_s, byte_s]: [f64; 4]| Link {
            latency_s,
            port_s_per_byte,
            message_s,
            byte_s,
        };
        Self { near: link(line.near), far: link(line.far), add_s_per_byte: line.add, cores: line.cores }
    }
}

/// A line of the result.
#[derive(Debug, Serialize)]
struct Row {
    workers: u32,
    bytes: usize,
    reduce: String,
    transport: String,
    algorithm: String,
    us: f64,
    algbw_gbs: f64,
    busbw_gbs: f64,
    percent_of_bound: f64,
}

impl Allreduce {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        if self.tls {
            return encrypted::run(self.what, self.json);
        }
        let links = Links { loopback: link::loopback().map_err(Failure::other)?, copying: link::copying() };
        let ranks = Ranks::start(&self.what, None)?;
        if !self.json {
            telling::print(&header(&links))?;
        }
        for _ in &self.what.sizes {
            let row = Row::new(&self.what, &links, ranks.next()?);
            telling::print(&if self.json {
                serde_json::to_string(&row).map_err(Failure::other)? + "\n"
            } else {
                row.line()
            })?;
        }
        ranks.finish()
    }
}

/// What either carrier can carry one way, bytes a second.
struct Links {
    loopback: f64,
    copying: f64,
}

fn header(links: &Links) -> String {
    format!(
        "loopback carries {:.2} GB/s one way, one core copies {:.2} GB/s\n{:>7} {:>8} {:>6} {:>9} {:>9} {:>10} {:>10} {:>10} {:>8}\n",
        links.loopback / 1e9,
        links.copying / 1e9,
        "workers",
        "bytes",
        "reduce",
        "transport",
        "algorithm",
        "us",
        "algbw GB/s",
        "busbw GB/s",
        "% bound"
    )
}

impl Row {
    fn new(what: &Measured, links: &Links, timing: Timing) -> Self {
        let link = if timing.transport == "shm" { links.copying } else { links.loopback };
        let n = f64::from(what.workers);
        let moved = 2.0 * (n - 1.0) / n * timing.bytes as f64;
        let seconds = timing.us * 1e-6;
        Self {
            workers: what.workers,
            bytes: timing.bytes,
            reduce: name(&what.reduce),
            transport: timing.transport,
            algorithm: timing.algorithm,
            us: timing.us,
            algbw_gbs: timing.bytes as f64 / seconds / 1e9,
            busbw_gbs: moved / seconds / 1e9,
            percent_of_bound: 100.0 * moved / link / seconds,
        }
    }

    fn line(&self) -> String {
        format!(
            "{:>7} {:>8} {:>6} {:>9} {:>9} {:>10.1} {:>10.3} {:>10.3} {:>8.1}\n",
            self.workers,
            Size(self.bytes).to_string(),
            self.reduce,
            self.transport,
            self.algorithm,
            self.us,
            self.algbw_gbs,
            self.busbw_gbs,
            self.percent_of_bound
        )
    }
}

pub fn name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
}

/// What `workers` ranks on this machine find out about it when they connect.
///
/// # Errors
/// What starting them ended with.
pub fn local_rates(workers: u32) -> Result<Rates, Failure> {
    let (reduce, transport, algorithm) = (Format::Exact, Carrier::Auto, Route::Auto);
    let what = Measured { workers, sizes: vec![Size(4)], reduce, transport, algorithm, parts: 1 };
    let ranks = Ranks::start(&what, None)?;
    let rates = ranks.rates.ok_or_else(|| Failure::Other("rank 0 measured no rates".into()));
    ranks.next()?;
    ranks.finish()?;
    rates
}

/// The worker processes. Dropping ends those that still run; each also ends by itself when this process does.
pub struct Ranks {
    children: Vec<Child>,
    /// What rank 0 prints.
    lines: Receiver<String>,
    /// What they measured when they connected, where the algorithm is theirs to choose.
    rates: Option<Rates>,
}

impl Ranks {
    /// Starts this program once for each rank, and tells each where all of them listen; with certificates they encrypt.
    pub fn start(what: &Measured, certs: Option<&Path>) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(Failure::other)?;
        let key = runtime::ring_key()?;
        let key = format!("{:032x}", u128::from_be_bytes(key.0));
        let sizes: Vec<String> = what.sizes.iter().map(Size::to_string).collect();
        let mut ranks = Self { children: Vec::new(), lines: channel().1, rates: None };
        let mut addresses = Vec::new();
        for rank in 0..what.workers {
            let child = Command::new(&program)
                .args(["bench", "allreduce-rank", "--rank", &rank.to_string(), "--key", &key])
                .args(["--workers", &what.workers.to_string(), "--sizes", &sizes.join(",")])
                .args(["--reduce", &name(&what.reduce), "--transport", &name(&what.transport)])
                .args(["--algorithm", &name(&what.algorithm), "--parts", &what.parts.to_string()])
                .args(certs.map(|_| "--certs").into_iter().map(Path::new).chain(certs))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .map_err(Failure::other)?;
            ranks.children.push(child);
        }
        for rank in (0..ranks.children.len()).rev() {
            // Rank 0's lines come last, and stay.
            let stdout = ranks.children[rank].stdout.take();
            let (sender, lines) = channel();
            thread::spawn(move || {
                let lines = stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines().map_while(Result::ok));
                // Who has hung up wants no more lines.
                lines.map(|line| sender.send(line)).take_while(Result::is_ok).for_each(drop);
            });
            ranks.lines = lines;
            addresses.push(ranks.line()?);
        }
        addresses.reverse();
        for child in &mut ranks.children {
            if let Some(stdin) = &mut child.stdin {
                writeln!(stdin, "{}", addresses.join(",")).map_err(Failure::other)?;
            }
        }
        ranks.rates =
            serde_json::from_str::<Option<RatesLine>>(&ranks.line()?).map_err(Failure::other)?.map(Rates::from);
        Ok(ranks)
    }

    fn line(&self) -> Result<String, Failure> {
        let gone = |_| Failure::Other(format!("a rank ended or said nothing for {} s", DEADLINE.as_secs()));
        self.lines.recv_timeout(DEADLINE).map_err(gone)
    }

    /// What rank 0 measured of the next size.
    pub fn next(&self) -> Result<Timing, Failure> {
        serde_json::from_str(&self.line()?).map_err(Failure::other)
    }

    /// Waits until all have ended.
    pub fn finish(mut self) -> Result<(), Failure> {
        let since = Instant::now();
        for (rank, child) in self.children.iter_mut().enumerate() {
            loop {
                match child.try_wait().map_err(Failure::other)? {
                    Some(status) if status.success() => break,
                    Some(status) => return Err(Failure::Other(format!("rank {rank} ended with {status}"))),
                    None if since.elapsed() < DEADLINE => thread::sleep(Duration::from_millis(2)),
                    None => return Err(Failure::Other(format!("rank {rank} does not end"))),
                }
            }
        }
        Ok(())
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        for child in &mut self.children {
            // One that has ended cannot be ended again.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
