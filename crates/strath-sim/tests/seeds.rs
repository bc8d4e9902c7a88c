//! Ten thousand runs under faults, each with faults of its own.

use strath_sim::seed;

/// Seeds that every change has to pass.
const SEEDS: u64 = 10_000;

#[test]
fn every_invariant_holds_for_every_seed() {
    let sweep = seed::sweep(0..SEEDS);
    let told: Vec<String> = sweep.failures.iter().take(5).map(ToString::to_string).collect();
    assert!(told.is_empty(), "{} of {SEEDS} seeds failed:\n{}", sweep.failures.len(), told.join("\n"));
    assert_eq!(sweep.seeds, SEEDS);
    // Faults that come after the end of a run try nothing.
    assert!(sweep.faults as u64 > 2 * SEEDS, "{} faults fell into {SEEDS} runs", sweep.faults);
}

#[test]
fn a_seed_is_a_run_to_the_last_word() {
    for seed in [0, 21, 74, 117, 630, 2667] {
        let (one, other) = (seed::run(seed, None, true), seed::run(seed, None, true));
        assert!(one.log.len() > 100, "seed {seed} has a log of {} lines", one.log.len());
        for (at, (line, same)) in one.log.iter().zip(&other.log).enumerate() {
            assert_eq!(line, same, "seed {seed}, line {at}");
        }
        assert_eq!(one.log.len(), other.log.len());
    }
    assert_ne!(seed::run(1, None, true).log, seed::run(2, None, true).log);
}

#[test]
fn a_log_changes_nothing() {
    for seed in 0..20 {
        let (silent, told) = (seed::run(seed, None, false), seed::run(seed, None, true));
        assert_eq!((silent.occurrences, silent.lasted), (told.occurrences, told.lasted), "seed {seed}");
    }
}

#[test]
fn a_failure_says_how_to_repeat_it() {
    let violation = strath_sim::invariant::Violation {
        invariant: "weights agree",
        at: std::time::Duration::from_secs(1),
        what: "they do not".into(),
    };
    assert_eq!(
        seed::Failure { seed: 7, violation }.to_string(),
        "seed 7: weights agree, at 1s: they do not\nrepeat it with: cargo run --release -p strath-sim -- --seed 7 --log"
    );
}
