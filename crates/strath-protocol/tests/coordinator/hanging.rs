//! A worker whose heartbeats come while its training stands still.

use strath_core::{Generation, Step};
use strath_protocol::message::{Phase, Progress, WorkerMessage};
use strath_protocol::{
    Coordinator, CoordinatorCommand as Command, CoordinatorEvent as Event, Gather, Record, Settings,
};

use crate::support::{at, config, drain, halted, handle, lost, progress, run_with, say, settings, step_report};

/// Longer than what is borne where steps are short: five leases of 2 s.
const LONG: u64 = 11_000;

/// This many workers that have taken so many steps of a quarter of a second, and are in the next.
fn under_way(workers: u64, steps: u64) -> Coordinator {
    let gather = Gather::Exactly(workers as usize);
    let mut machine = run_with(Settings { config: config(&["run.steps=100"]), ..settings(gather) }, workers);
    for step in 1..=steps {
        for worker in 0..workers {
            say(&mut machine, worker, WorkerMessage::Heartbeat(progress(step - 1, Phase::Descent)), 250 * step);
        }
        say(&mut machine, 0, WorkerMessage::Step(step_report(step)), 250 * step);
    }
    machine
}

/// Heartbeats of everyone, each always with the same words, from one moment to another; what follows.
fn beat(machine: &mut Coordinator, said: &[Progress], from: u64, until: u64) -> Vec<Command> {
    let mut commands = Vec::new();
    for now in (from..=until).step_by(250) {
        for (worker, progress) in (0..).zip(said) {
            let event = Event::Message {
                connection: strath_protocol::Connection(worker),
                message: WorkerMessage::Heartbeat(*progress),
            };
            // Of one that was given up nothing is taken.
            if machine.handle(event, at(now)).is_ok() {
                commands.extend(drain(machine));
            }
        }
    }
    commands
}

fn warnings(commands: &[Command]) -> Vec<&str> {
    let warning = |command| match command {
        &Command::Record(Record::Warning(ref message)) => Some(message.as_str()),
        _ => None,
    };
    commands.iter().filter_map(warning).collect()
}

#[test]
fn whoever_computes_a_step_for_ever_is_done_without() {
    let mut machine = under_way(3, 8);
    let said = [progress(8, Phase::Reduce), progress(8, Phase::Exchange), progress(8, Phase::Descent)];
    assert_eq!(warnings(&beat(&mut machine, &said, 2000, 2000 + 9750)), [""; 0]);
    assert!(machine.status(at(11_750)).workers[2].late.starts_with("computes for 9.8 s, of at most 10.0"));
    let commands = beat(&mut machine, &said, 12_000, 2000 + LONG);
    let said = warnings(&commands);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with(
            "worker 2 (h2, 127.0.0.1:9002) hangs at step 8 in phase descent for 10.0 s, longer than the 10.0 s that a step may \
             take where one takes 0.250 s; the run"
        ),
        "{said:?}"
    );
    assert_eq!(machine.status(at(2000 + LONG)).stage, "regrouping");
}

#[test]
fn nobody_hangs_who_waits_evaluates_writes_or_goes_on() {
    for phase in [Phase::Evaluate, Phase::Checkpoint] {
        let mut machine = under_way(2, 8);
        let said = [progress(8, Phase::Reduce), progress(8, phase)];
        assert_eq!(warnings(&beat(&mut machine, &said, 2000, 60_000)), [""; 0], "{phase}");
    }
    let mut machine = under_way(2, 8);
    // From an evaluation it goes on to the step after it, which is no longer than others.
    for (begin, phase) in [(2000, Phase::Ascent), (11_000, Phase::Evaluate), (31_000, Phase::Ascent)] {
        let said = [progress(8, Phase::Reduce), progress(8, phase)];
        assert_eq!(warnings(&beat(&mut machine, &said, begin, begin + 9000)), [""; 0], "{phase}");
    }
}

#[test]
fn of_too_few_steps_nothing_is_concluded() {
    let mut machine = under_way(2, 7);
    let said = [progress(7, Phase::Reduce), progress(7, Phase::Ascent)];
    assert_eq!(warnings(&beat(&mut machine, &said, 2000, 590_000)), [""; 0]);
    assert_eq!(warnings(&beat(&mut machine, &said, 590_250, 602_500)).len(), 1);
}

#[test]
fn where_all_hang_none_is_given_up_as_nobody_would_hold_the_state() {
    let mut machine = under_way(2, 8);
    let said = [progress(8, Phase::Ascent), progress(8, Phase::Ascent)];
    assert_eq!(warnings(&beat(&mut machine, &said, 2000, 60_000)), [""; 0]);
    assert_eq!(machine.status(at(60_000)).stage, "running");
}

#[test]
fn whoever_does_not_leave_its_generation_is_waited_for_no_longer() {
    let mut machine = under_way(3, 8);
    lost(&mut machine, 0, "reset", 2000);
    assert_eq!(machine.status(at(2000)).stage, "regrouping");
    say(&mut machine, 1, halted(5, Some((8, 7)), 201), 2001);
    let waiting = progress(8, Phase::Waiting);
    let said = [waiting, waiting, progress(8, Phase::Ascent)];
    assert_eq!(warnings(&beat(&mut machine, &said, 2250, 12_000)), [""; 0]);
    let commands = beat(&mut machine, &said, 12_250, 2250 + LONG);
    assert_eq!(warnings(&commands).len(), 1, "{:?}", warnings(&commands));
    let (generation, members, step, cause) = crate::regroup::recorded(&commands).unwrap();
    assert_eq!((generation, members, step), (6, 1, 8));
    assert!(cause.contains("worker 2 (h2, 127.0.0.1:9002) hangs"), "{cause}");
}

#[test]
fn what_the_coordinator_slept_through_is_held_against_nobody() {
    let mut machine = under_way(2, 8);
    let said = [progress(8, Phase::Reduce), progress(8, Phase::Ascent)];
    assert_eq!(warnings(&beat(&mut machine, &said, 2000, 3000)), [""; 0]);
    // It hears of nothing, not even of the time, for a minute.
    assert_eq!(warnings(&beat(&mut machine, &said, 63_000, 71_000)), [""; 0]);
    let going_on = [progress(8, Phase::Reduce), Progress { step: Step(9), ..said[1] }];
    assert_eq!(warnings(&beat(&mut machine, &going_on, 71_250, 72_000)), [""; 0]);
    handle(&mut machine, Event::Tick, 72_250);
    assert_eq!(machine.status(at(72_250)).stage, "running");
}

#[test]
fn a_generation_that_begins_late_in_a_run_begins_for_everyone_when_it_does() {
    let mut machine = under_way(3, 8);
    let waiting = progress(8, Phase::Evaluate);
    assert_eq!(warnings(&beat(&mut machine, &[waiting; 3], 2000, 150_000)), [""; 0]);
    lost(&mut machine, 0, "reset", 150_100);
    for worker in [1, 2] {
        say(&mut machine, worker, halted(5, Some((8, 7)), 200 + worker), 150_100);
    }
    for worker in [1, 2] {
        say(
            &mut machine,
            worker,
            WorkerMessage::RingReady { generation: Generation(6), gpu: None, communicator: None },
            150_200,
        );
    }
    assert_eq!(machine.status(at(150_200)).stage, "running");
    let computing = Progress { generation: Generation(6), ..progress(8, Phase::Ascent) };
    let said = [waiting, Progress { phase: Phase::Reduce, ..computing }, computing];
    assert_eq!(warnings(&beat(&mut machine, &said, 150_250, 249_000)), [""; 0]);
    // Of its first steps more is borne, but not anything.
    assert_eq!(warnings(&beat(&mut machine, &said, 249_250, 252_000)).len(), 1);
}

#[test]
fn where_all_hang_for_very_long_the_run_does_not_wait_for_ever() {
    let mut machine = under_way(2, 8);
    let said = [progress(8, Phase::Ascent), progress(8, Phase::Ascent)];
    let commands = beat(&mut machine, &said, 2000, 2_403_000);
    assert_eq!(warnings(&commands).len(), 2, "{:?}", warnings(&commands));
    assert_eq!(machine.status(at(2_403_000)).stage, "regrouping");
}

#[test]
fn where_all_wait_for_each_other_it_is_who_does_not_leave() {
    let mut machine = under_way(3, 8);
    let said = [progress(8, Phase::Reduce), progress(8, Phase::Exchange), progress(8, Phase::Reduce)];
    beat(&mut machine, &said, 2000, 11_750);
    assert_eq!(machine.status(at(11_750)).stage, "running");
    assert_eq!(warnings(&beat(&mut machine, &said, 12_000, 12_500)), [""; 0]);
    assert_eq!(machine.status(at(12_500)).stage, "regrouping");
    for worker in [0, 1] {
        say(&mut machine, worker, halted(5, Some((8, 7)), 200 + worker), 12_600);
    }
    let left = progress(8, Phase::Waiting);
    assert_eq!(warnings(&beat(&mut machine, &[left, left, said[2]], 12_750, 21_750)), [""; 0], "it has just been told");
    let commands = beat(&mut machine, &[left, left, said[2]], 22_000, 23_500);
    assert_eq!(warnings(&commands).len(), 1, "{:?}", warnings(&commands));
    let (generation, members, step, cause) = crate::regroup::recorded(&commands).unwrap();
    assert_eq!((generation, members, step), (6, 2, 8));
    assert!(cause.contains("worker 2 (h2, 127.0.0.1:9002) hangs at step 8 in phase reduce"), "{cause}");
}

#[test]
fn ranks_wait_for_each_other_also_where_one_is_a_step_ahead() {
    let mut machine = under_way(2, 8);
    // What it needed of the other came; what the other needs of it did not.
    let said = [progress(9, Phase::Reduce), progress(8, Phase::Reduce)];
    let commands = beat(&mut machine, &said, 2000, 12_500);
    assert_eq!(warnings(&commands), [""; 0]);
    let status = machine.status(at(12_500));
    assert_eq!(status.stage, "regrouping");
    let decided = status.decisions;
    assert!(
        decided.iter().any(|decided| decided.why.contains("all ranks wait for each other at step 8")),
        "{decided:?}"
    );
}

#[test]
fn a_long_evaluation_is_no_waiting_for_each_other() {
    let mut machine = under_way(2, 8);
    assert_eq!(warnings(&beat(&mut machine, &[progress(8, Phase::Evaluate); 2], 2000, 60_000)), [""; 0]);
    // The passes of the step after it fell between two heartbeats.
    assert_eq!(warnings(&beat(&mut machine, &[progress(8, Phase::Reduce); 2], 60_250, 70_000)), [""; 0]);
    assert_eq!(machine.status(at(70_000)).stage, "running");
}
