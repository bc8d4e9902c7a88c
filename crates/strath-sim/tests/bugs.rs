//! Known bugs are put back, one at a time: the invariant that is there for it finds each within a few seeds.

use strath_sim::bug::Bug;
use strath_sim::seed;

/// Seeds within which a bug has to be found.
const SEEDS: u64 = 300;

/// Asserts that a bug is found, first by the invariant that is there for it.
fn is_found(bug: Bug, by: &str) {
    let found = (0..SEEDS).find_map(|seed| Some((seed, seed::run(seed, Some(bug), false).violation?)));
    let Some((seed, violation)) = found else { panic!("{bug:?} was not found within {SEEDS} seeds") };
    assert_eq!(violation.invariant, by, "{bug:?} was found at seed {seed}, but by: {violation}");
}

#[test]
fn a_worker_that_forgets_unrecorded_steps_loses_a_step_of_the_record() {
    is_found(Bug::ForgetsUnrecordedSteps, "steps never go back");
}

#[test]
fn a_rank_that_lets_old_generations_in_takes_a_stale_segment() {
    is_found(Bug::AcceptsOldGenerations, "no stale segment is accepted");
}

#[test]
fn a_coordinator_that_does_not_take_the_furthest_state_sends_a_worker_back() {
    is_found(Bug::FormsBehindTheFurthest, "steps never go back");
}

#[test]
fn a_rank_that_is_given_twice_has_two_holders() {
    is_found(Bug::GivesARankTwice, "one holder of a rank in a generation");
}

#[test]
fn a_rank_that_computes_one_micro_batch_too_many_has_it_counted_twice() {
    is_found(Bug::ComputesOneTooMany, "every micro-batch of a step is counted once");
}

#[test]
fn a_worker_that_moves_its_weights_in_a_step_that_fails_holds_others() {
    is_found(Bug::MovesWeightsEarly, "weights agree");
}

#[test]
fn a_worker_that_never_says_that_it_has_halted_keeps_the_run_from_its_end() {
    is_found(Bug::NeverSaysHalted, "once faults stop the run ends in time");
}

#[test]
fn workers_that_say_for_ever_that_they_compute_are_given_up_though_they_do_not_hang() {
    is_found(Bug::SaysItComputesForEver, "nobody is given up whose training goes on");
}
