//! One seed: a run, and what came of it.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::bug::Bug;
use crate::draws::Draws;
use crate::invariant::Violation;
use crate::scenario::Scenario;
use crate::world::World;

/// What came of a seed.
#[derive(Debug)]
pub struct Summary {
    /// Faults that fell into the run.
    pub faults: usize,
    /// Occurrences.
    pub occurrences: u64,
    /// Virtual time.
    pub lasted: Duration,
    /// Virtual time from the last fault to the end.
    pub calm: Duration,
    /// The longest that no step came on record, from the first to the last.
    pub longest_pause: Duration,
    /// What happened, where that was wanted.
    pub log: Vec<String>,
    /// The first invariant that did not hold.
    pub violation: Option<Violation>,
}

/// A seed whose run went wrong.
#[derive(Debug, thiserror::Error)]
#[error("seed {seed}: {violation}\nrepeat it with: cargo run --release -p strath-sim -- --seed {seed} --log")]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The invariant that did not hold.
    pub violation: Violation,
}

/// Runs a seed, with a bug put back if there is one.
pub fn run(seed: u64, bug: Option<Bug>, is_logged: bool) -> Summary {
    let mut draws = Draws::new(seed);
    let scenario = Scenario::draw(&mut draws);
    run_through(scenario, draws, bug, is_logged)
}

/// Runs a seed whose network falls apart.
pub fn run_apart(seed: u64, is_logged: bool) -> Summary {
    let mut draws = Draws::new(seed);
    let scenario = Scenario::draw_apart(&mut draws);
    run_through(scenario, draws, None, is_logged)
}

fn run_through(scenario: Scenario, draws: Draws, bug: Option<Bug>, is_logged: bool) -> Summary {
    let calm = scenario.calm;
    let mut world = World::new(scenario, draws, bug, is_logged);
    world.run();
    let now = world.env.now();
    Summary {
        faults: world.faults,
        occurrences: world.occurrences,
        lasted: now.0,
        calm: now.since(calm),
        longest_pause: world.env.longest_pause,
        log: world.env.log.take().unwrap_or_default(),
        violation: world.env.invariants.violation().cloned(),
    }
}

/// Runs a seed in which everything must hold.
///
/// # Errors
/// [`Failure`], which says how to repeat it.
pub fn check(seed: u64) -> Result<Summary, Failure> {
    let summary = run(seed, None, false);
    match summary.violation.clone() {
        Some(violation) => Err(Failure { seed, violation }),
        None => Ok(summary),
    }
}

/// What came of many seeds.
#[derive(Debug, Default)]
pub struct Sweep {
    /// How many there were.
    pub seeds: u64,
    /// Faults that fell into their runs.
    pub faults: usize,
    /// Occurrences.
    pub occurrences: u64,
    /// The longest that a run took from its last fault to its end, and its seed.
    pub longest: (Duration, u64),
    /// Those that went wrong, in order.
    pub failures: Vec<Failure>,
}

/// Runs seeds on every core.
pub fn sweep(seeds: Range<u64>) -> Sweep {
    let next = AtomicU64::new(seeds.start);
    let total = Mutex::new(Sweep::default());
    let work = || {
        let mut part = Sweep::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            part.seeds += 1;
            match check(seed) {
                Ok(summary) => {
                    part.faults += summary.faults;
                    part.occurrences += summary.occurrences;
                    part.longest = part.longest.max((summary.calm, seed));
                }
                Err(failure) => part.failures.push(failure),
            }
        }
        let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
        total.seeds += part.seeds;
        total.faults += part.faults;
        total.occurrences += part.occurrences;
        total.longest = total.longest.max(part.longest);
        total.failures.extend(part.failures);
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    total.failures.sort_by_key(|failure| failure.seed);
    total
}
