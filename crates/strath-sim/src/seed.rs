//! One seed: a run, and what came of it.

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
    let calm = scenario.calm;
    let mut world = World::new(scenario, draws, bug, is_logged);
    world.run();
    let now = world.env.now();
    Summary {
        faults: world.faults,
        occurrences: world.occurrences,
        lasted: now.0,
        calm: now.since(calm),
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
