#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods, reason = "measure")]
#[path = "../tests/common/world.rs"]
mod ranks;
use std::time::{Duration, Instant};
use strath_collective::{Bucket, Payload};
use strath_core::config::Algorithm;
use strath_core::{Fault, Step};
fn main() {
    let world: u32 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(2);
    for algorithm in [Algorithm::Ring, Algorithm::Direct] {
        for bytes in [1usize << 10, 16 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20] {
            for exact in [false, true] {
                let len = bytes / 4;
                let rounds = if bytes > 8 << 20 { 15 } else { 60 };
                let times = ranks::world(world, algorithm, |_, c| {
                    let mut times = Vec::new();
                    for s in 0..rounds {
                        let payload =
                            if exact { Payload::Exact(vec![s as i64; len]) } else { Payload::Floats(vec![1.0; len]) };
                        c.barrier(Step(s), ranks::LONG).unwrap();
                        let since = Instant::now();
                        let p = c.all_reduce(Step(s), Bucket(9), 0..world, payload, Fault::NONE);
                        p.wait(ranks::LONG).unwrap();
                        times.push(since.elapsed());
                    }
                    times.sort();
                    times[times.len() / 2]
                });
                let t: Duration = times[0];
                println!(
                    "{algorithm:?} w{world} {bytes:>9} B f32 {} {:>9.1} us {:>6.2} GB/s algbw",
                    if exact { "exact" } else { "f32  " },
                    t.as_secs_f64() * 1e6,
                    bytes as f64 / t.as_secs_f64() / 1e9
                );
            }
        }
    }
}
