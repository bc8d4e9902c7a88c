//! Work follows speed: a generation pauses where its micro-batches are handed out anew, and one that forms for another reason uses what
//! is known.

use strath_core::{Digest, Generation, Step};
use strath_protocol::message::{CoordinatorMessage, Holds, Phase, Progress, StepReport, WorkerMessage};
use strath_protocol::{Coordinator, CoordinatorCommand as Command, Gather, Record, Settings};

use crate::support::{at, config, halted, join, lost, pause, prepared, run_with, say, send, settings, step_report};

/// Four workers on a batch of 32 single examples, `more` in the configuration.
fn at_work(more: &[&str]) -> Coordinator {
    let sets = [&["batch.size=32", "sam.m=1", "run.steps=1000000"][..], more].concat();
    let gather = Gather::Exactly(4);
    run_with(Settings { config: config(&sets), ..settings(gather) }, 4)
}

/// A heartbeat of a worker in a generation.
fn beat(
    machine: &mut Coordinator,
    worker: u64,
    generation: u64,
    step: u64,
    images_per_s: f64,
    now: u64,
) -> Vec<Command> {
    let (generation, step) = (Generation(generation), Step(step));
    let progress = Progress { generation, step, phase: Phase::Reduce, images_per_s };
    let mut commands = say(machine, worker, WorkerMessage::Heartbeat(progress), now);
    commands.retain(|command| *command != send(worker, CoordinatorMessage::Ack));
    commands
}

/// Two heartbeats a second from each, with these rates, over `ms`; what comes of them, until something does.
fn work(
    machine: &mut Coordinator,
    generation: u64,
    ms: std::ops::Range<u64>,
    rate: impl FnMut(u64) -> f64,
) -> Option<(u64, Vec<Command>)> {
    work_in_steps_of(0.17, machine, generation, ms, rate)
}

/// The same, with steps that take so many `seconds`.
fn work_in_steps_of(
    seconds: f64,
    machine: &mut Coordinator,
    generation: u64,
    ms: std::ops::Range<u64>,
    mut rate: impl FnMut(u64) -> f64,
) -> Option<(u64, Vec<Command>)> {
    for now in ms.step_by(500) {
        let step = 1 + now / 100;
        let mut commands = Vec::new();
        for worker in 0..4 {
            commands.extend(beat(machine, worker, generation, step, rate(worker), now));
        }
        let recorded = machine.status(at(now)).last_step.map_or(0, |report| report.step.0);
        for step in recorded + 1..=step {
            let report = StepReport { generation: Generation(generation), seconds, ..step_report(step) };
            commands.extend(say(machine, 0, WorkerMessage::Step(report), now));
        }
        commands.retain(|command| !matches!(command, Command::Record(Record::Step(_))));
        if !commands.is_empty() {
            return Some((now, commands));
        }
    }
    None
}

fn one_at_half(worker: u64) -> f64 {
    if worker == 2 { 50.0 } else { 100.0 }
}

/// The bounds and the cause of a generation that forms, and which worker has which rank.
fn formed(commands: &[Command]) -> (Vec<usize>, &str, Vec<u64>) {
    let mut assigned: Vec<_> = Vec::new();
    let mut cause = "";
    for command in commands {
        match command {
            Command::Send { connection, message: CoordinatorMessage::Assign(assign) } => {
                assert!(assign.keeps);
                assigned.push((assign.rank, connection.0, assign.bounds.clone()));
            }
            Command::Record(Record::Generation { cause: found, .. }) => cause = found,
            _ => {}
        }
    }
    assigned.sort();
    (assigned[0].2.clone(), cause, assigned.iter().map(|(_, worker, _)| *worker).collect())
}

fn all_rest(machine: &mut Coordinator, generation: u64, workers: &[u64], now: u64) -> Vec<Command> {
    let rest = |worker: &u64| say(machine, *worker, halted(generation, Some((now / 100, 7)), 200 + worker), now);
    workers.iter().flat_map(rest).collect()
}

fn start(machine: &mut Coordinator, generation: u64, workers: &[u64], now: u64) {
    for worker in workers {
        say(
            machine,
            *worker,
            WorkerMessage::RingReady { generation: Generation(generation), gpu: None, communicator: None },
            now,
        );
    }
}

#[test]
fn one_at_half_speed_gets_half_as_much_and_when_it_is_the_fastest_more_than_the_others() {
    let mut machine = at_work(&[]);
    let (now, commands) = work(&mut machine, 5, 0..10_000, one_at_half).unwrap();
    assert!((1000..2500).contains(&now), "{now}: after a few measurements");
    let recorded = 1 + (now - 500) / 100;
    assert_eq!(commands, [0, 1, 2, 3].map(|worker| pause(worker, recorded)), "no step is interrupted");
    let commands = all_rest(&mut machine, 5, &[0, 1, 2, 3], now + 100);
    let (bounds, cause, ranks) = formed(&commands);
    assert_eq!((bounds, ranks), (vec![0, 9, 18, 23, 32], vec![0, 1, 2, 3]));
    let expected = "work follows speed: worker 2 (h2, 127.0.0.1:9002) with 50 images/s is the slowest; passes of 0.1600 s become \
                    0.1000 s, 35 % of a step";
    assert_eq!(cause, expected);
    // Nothing more is to be gained.
    start(&mut machine, 6, &[0, 1, 2, 3], now + 200);
    let later = (now / 500 + 1) * 500;
    assert_eq!(work(&mut machine, 6, later..later + 60_000, one_at_half), None);
    let twice = |worker| if worker == 2 { 200.0 } else { 100.0 };
    let (at, _) = work(&mut machine, 6, later + 60_000..later + 90_000, twice).unwrap();
    assert!(at < later + 64_000, "{at}");
    let commands = all_rest(&mut machine, 6, &[0, 1, 2, 3], at + 100);
    let (bounds, ..) = formed(&commands);
    let shares: Vec<usize> = bounds.windows(2).map(|held| held[1] - held[0]).collect();
    assert!(shares[2] >= 11 && shares.iter().all(|share| *share >= 6), "{shares:?}");
}

/// Factors uniform within `part` on either side of 1, from a linear congruential generator.
fn noise(seed: u64, part: f64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1.0 + 2.0 * part * ((state >> 33) as f64 / f64::from(1u32 << 31) - 0.5)
    }
}

#[test]
fn hours_of_equal_speeds_with_noise_move_nothing() {
    for seed in 0..4u64 {
        let mut machine = at_work(&[]);
        let mut noise = noise(seed, 0.1);
        let moved = work(&mut machine, 5, 0..4 * 3_600_000, |_| 100.0 * noise());
        assert!(moved.is_none(), "{moved:?}");
    }
}

#[test]
fn one_at_half_speed_is_found_out_also_where_passes_are_noisy_and_half_of_a_step() {
    for seed in 0..32 {
        let mut machine = at_work(&[]);
        let mut noise = noise(seed, 0.15);
        let moved = work_in_steps_of(0.32, &mut machine, 5, 0..60_000, |worker| one_at_half(worker) * noise());
        let (now, _) = moved.unwrap_or_else(|| panic!("seed {seed}: nothing was moved"));
        assert!(now <= 10_000, "seed {seed}: {now}");
    }
}

#[test]
fn a_heartbeat_without_news_is_no_measurement_and_the_speed_stays_known() {
    let mut machine = at_work(&[]);
    let mut beats = 0;
    // Each speed once, and then never again.
    let once = |worker| {
        beats += 1;
        if beats <= 4 { one_at_half(worker) } else { 0.0 }
    };
    assert_eq!(work(&mut machine, 5, 0..60_000, once), None);
    let shown: Vec<f64> = machine.status(at(60_000)).workers.iter().map(|worker| worker.images_per_s).collect();
    assert_eq!(shown, [100.0, 100.0, 50.0, 100.0]);
}

#[test]
fn speeds_that_change_back_and_forth_move_work_no_more_often_than_every_ten_seconds() {
    let mut machine = at_work(&[]);
    let (mut generation, mut from, mut moves) = (5, 0, Vec::new());
    while from < 120_000 {
        let slow = |worker: u64, now: u64| worker == (now / 4000) % 4;
        let mut now = from;
        let mut beats = 0;
        let rate = |worker| {
            beats += 1;
            now = from + (beats - 1) / 4 * 500;
            if slow(worker, now) { 40.0 } else { 100.0 }
        };
        let Some((at, _)) = work(&mut machine, generation, from..120_000, rate) else { break };
        moves.push(at);
        all_rest(&mut machine, generation, &[0, 1, 2, 3], at + 100);
        generation += 1;
        start(&mut machine, generation, &[0, 1, 2, 3], at + 200);
        from = (at / 500 + 1) * 500;
    }
    assert!(moves.len() > 1 && moves.windows(2).all(|pair| pair[1] - pair[0] >= 10_000), "{moves:?}");
}

#[test]
fn where_the_bits_depend_on_who_computes_what_nothing_moves() {
    for reduce in ["cluster.reduce=f32", "cluster.reduce=bf16"] {
        let mut machine = at_work(&[reduce]);
        assert_eq!(work(&mut machine, 5, 0..60_000, one_at_half), None);
        lost(&mut machine, 3, "reset", 60_000);
        let (bounds, ..) = formed(&all_rest(&mut machine, 5, &[0, 1, 2], 60_100));
        assert_eq!(bounds, [0, 11, 22, 32]);
    }
}

#[test]
fn a_generation_that_forms_for_another_reason_uses_what_is_known() {
    let mut machine = at_work(&[]);
    // Too short for a decision.
    assert_eq!(work(&mut machine, 5, 0..1000, one_at_half), None);
    lost(&mut machine, 3, "reset", 1000);
    let commands = all_rest(&mut machine, 5, &[0, 1, 2], 1100);
    let (bounds, cause, ranks) = formed(&commands);
    assert_eq!((bounds, ranks), (vec![0, 13, 26, 32], vec![0, 1, 2]));
    assert!(cause.contains("was lost"), "{cause}");
    // A newcomer counts as the middle of those who are known.
    join(&mut machine, 4, 1200);
    start(&mut machine, 6, &[0, 1, 2], 1300);
    let asked = say(&mut machine, 4, WorkerMessage::Prepared(prepared()), 1400);
    assert!(matches!(asked[..], [Command::Send { message: CoordinatorMessage::Follow(_), .. }, ..]), "{asked:?}");
    let follows = WorkerMessage::CaughtUp { generation: Generation(6), step: Step(11) };
    let asked = say(&mut machine, 4, follows, 1500);
    assert!(matches!(asked[..], [Command::Send { message: CoordinatorMessage::Pause { .. }, .. }, _, _]), "{asked:?}");
    all_rest(&mut machine, 6, &[0, 1, 2], 1600);
    let held = Holds { generation: Generation(6), held: Some((Step(16), Digest([7; 32]))), broken: None };
    let (bounds, _, ranks) = formed(&say(&mut machine, 4, WorkerMessage::Holds(held), 1700));
    assert_eq!((bounds, ranks), (vec![0, 9, 18, 23, 32], vec![0, 1, 2, 4]));
}

#[test]
fn one_far_too_slow_is_a_spare_with_the_last_rank() {
    let mut machine = at_work(&[]);
    let far_too_slow = |worker| if worker == 0 { 2.0 } else { 100.0 };
    let (now, _) = work(&mut machine, 5, 0..10_000, far_too_slow).unwrap();
    let (bounds, _, ranks) = formed(&all_rest(&mut machine, 5, &[0, 1, 2, 3], now + 100));
    assert_eq!((bounds, ranks), (vec![0, 11, 22, 32, 32], vec![1, 2, 3, 0]));
    start(&mut machine, 6, &[0, 1, 2, 3], now + 200);
    assert_eq!(machine.status(at(now + 200)).workers[0].micro_batches, 0);
}
