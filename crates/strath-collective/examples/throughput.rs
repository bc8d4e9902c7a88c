//! Times of every kind and algorithm, ranks as threads: `throughput [ranks] [sizes in KiB]...`
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_methods, reason = "measure")]
#[path = "../tests/common/world.rs"]
mod ranks;
use std::fmt::Write;
use std::time::Instant;
use strath_collective::{Bucket, Payload, Reduced};
use strath_core::config::Algorithm;
use strath_core::{Fault, Step};
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn main() {
    let arguments: Vec<usize> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    let world = arguments.first().map_or(2, |w| *w as u32);
    let sizes = arguments.get(1..).filter(|s| !s.is_empty()).unwrap_or(&[1, 16, 256, 1024, 4096, 16384, 65536]);
    for kib in sizes {
        let (bytes, len) = (kib << 10, kib << 8);
        let rounds = ((128 << 20) / bytes).clamp(7, 300);
        let mut line = format!("{world} ranks {kib:>6} KiB");
        for algorithm in [Algorithm::Auto] {
            for kind in ["f32", "weighted", "exact"] {
                let times = ranks::world(world, algorithm, |_, c| {
                    let mut times = Vec::new();
                    let mut spent = vec![1e-3f32; len];
                    let fixed = if kind == "exact" { vec![3i64 << 44; len] } else { vec![] };
                    for s in 0..rounds as u64 {
                        spent.fill(1e-3);
                        let payload = match kind {
                            "f32" => Payload::Floats(std::mem::take(&mut spent)),
                            "weighted" => Payload::Weighted(std::mem::take(&mut spent)),
                            _ => {
                                c.give_room(std::mem::take(&mut spent));
                                Payload::Exact(fixed.clone())
                            }
                        };
                        c.barrier(Step(s), ranks::LONG).unwrap();
                        let since = Instant::now();
                        let p = c.all_reduce(Step(s), Bucket(9), 0..world, payload, Fault::NONE);
                        let Reduced::Floats(sum) = p.wait(ranks::LONG).unwrap().0 else { unreachable!() };
                        times.push(since.elapsed());
                        spent = sum;
                    }
                    times.sort();
                    times[times.len() / 2]
                });
                write!(line, "  {algorithm:?} {kind} {:.1}", times[0].as_secs_f64() * 1e6).unwrap();
            }
        }
        println!("{line}");
    }
}
