//! The simulation by hand: one seed with its log, many seeds, or the table of scale.
//!
//! ```text
//! strath-sim --seed N [--log]        runs one seed; with --log prints what happens
//! strath-sim --seeds N [FROM]        runs N seeds from FROM (0) on every core
//! strath-sim scale                   measures the coordinator's machine with 10 to 10,000 workers
//! ```

use std::process::ExitCode;
use std::time::Instant;

use strath_sim::{scale, seed};

const USAGE: &str = "usage: strath-sim --seed N [--log] | --seeds N [FROM] | scale";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |word: &str| word.parse::<u64>().ok();
    match words[..] {
        ["--seed", word] | ["--seed", word, "--log"] if number(word).is_some() => {
            one(number(word).unwrap_or_default(), words.len() == 3)
        }
        ["--seeds", count] if number(count).is_some() => many(0, number(count).unwrap_or_default()),
        ["--seeds", count, from] if number(count).is_some() && number(from).is_some() => {
            many(number(from).unwrap_or_default(), number(count).unwrap_or_default())
        }
        ["scale"] => {
            print!("{}", scale::table(&[10, 100, 1_000, 10_000]));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn one(seed: u64, is_logged: bool) -> ExitCode {
    let summary = seed::run(seed, None, is_logged);
    for line in &summary.log {
        println!("{line}");
    }
    println!(
        "seed {seed}: {} faults, {} occurrences, {:?} of virtual time",
        summary.faults, summary.occurrences, summary.lasted
    );
    match summary.violation {
        Some(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

#[expect(clippy::disallowed_methods, reason = "how long the seeds take on this machine is what is asked")]
fn many(from: u64, count: u64) -> ExitCode {
    let begun = Instant::now();
    let sweep = seed::sweep(from..from.saturating_add(count));
    let seconds = begun.elapsed().as_secs_f64();
    for failure in &sweep.failures {
        println!("{failure}");
    }
    println!(
        "{} seeds in {seconds:.1} s ({:.0} a second): {} faults, {} occurrences, {} failures; the slowest ended {:?} after its \
         last fault (seed {})",
        sweep.seeds,
        sweep.seeds as f64 / seconds,
        sweep.faults,
        sweep.occurrences,
        sweep.failures.len(),
        sweep.longest.0,
        sweep.longest.1
    );
    if sweep.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
