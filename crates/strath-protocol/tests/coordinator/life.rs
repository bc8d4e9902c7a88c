//! A run that goes well: from the first registration to its end, resumed, evaluated, and as its status shows it.

use std::time::Duration;

use strath_core::{Digest, Generation, Rank, RingKey, RunId, Step, WorkerId};
use strath_protocol::message::{
    Admitted, Assign, CoordinatorMessage, Ending, EvalReport, Job, MeasureReport, Member, Phase, Progress, Purpose,
    Split, State, StateRef, WorkerMessage,
};
use strath_protocol::{
    Connection, Coordinator, CoordinatorCommand as Command, CoordinatorEvent as Event, Gather, Outcome, Record,
    Rejected, Settings, Start,
};

use crate::support::{
    address, at, config, drain, end_of, finished, handle, join, persist, places, prepared, progress, run_with, running,
    saved, say, send, settings, state, step_report,
};

fn eval_report(generation: u64) -> EvalReport {
    EvalReport { generation: Generation(generation), step: Step(1), split: Split::Test, loss: 1.0, error: 0.5 }
}

#[test]
fn a_run_from_the_first_registration_to_its_end() {
    let mut machine = Coordinator::new(settings(Gather::Exactly(2)), at(0));
    let admitted = |worker| {
        let (run, lease) = (RunId(7), Duration::from_secs(2));
        let configuration = config(&[]).to_toml();
        CoordinatorMessage::Admitted(Admitted {
            worker: WorkerId(worker),
            run,
            configuration,
            job: Job::Train,
            lease,
            rejoin_timeout: Duration::from_secs(300),
        })
    };
    assert_eq!(join(&mut machine, 0, 0), [send(0, admitted(0))]);
    assert_eq!(join(&mut machine, 1, 1), [send(1, admitted(1))]);
    assert_eq!(say(&mut machine, 0, WorkerMessage::Prepared(prepared()), 2), []);

    let members: Vec<Member> = (0..2).map(|w| Member { worker: WorkerId(w), ring_address: address(100 + w) }).collect();
    let assign = |rank| {
        CoordinatorMessage::Assign(Assign {
            generation: Generation(5),
            rank: Rank(rank),
            members: members.clone(),
            bounds: vec![0, 2, 4],
            start: Step(0),
            steps: Step(3),
            state: None,
            keeps: false,
            unsettled: false,
            some_are_sent: false,
            ticket: RingKey([9; 16]).ticket(RunId(7), Generation(5)),
        })
    };
    let began = Record::Generation {
        generation: Generation(5),
        members: places(&[(0, 2), (1, 2)]),
        step: Step(0),
        steps: Step(3),
        cause: "the run began".into(),
    };
    assert_eq!(
        say(&mut machine, 1, WorkerMessage::Prepared(prepared()), 3),
        [persist(5, &[0, 1], 2), Command::Record(began), send(0, assign(0)), send(1, assign(1))]
    );
    let ready = WorkerMessage::RingReady { generation: Generation(5), gpu: None, communicator: None };
    assert_eq!(say(&mut machine, 0, ready.clone(), 4), []);
    let start = CoordinatorMessage::Start { generation: Generation(5), communicator: None };
    assert_eq!(
        say(&mut machine, 1, ready, 4),
        [send(0, start.clone()), send(1, start), Command::Record(Record::Started(Generation(5)))]
    );

    let beat = WorkerMessage::Heartbeat(progress(2, Phase::Descent));
    assert_eq!(say(&mut machine, 1, beat, 5), [send(1, CoordinatorMessage::Ack)]);
    let step = step_report(1);
    assert_eq!(
        say(&mut machine, 0, WorkerMessage::Step(step.clone()), 5),
        [Command::Record(Record::Step(step))],
        "rank 0 reports its steps"
    );
    let last = state(3, Purpose::Final);
    assert_eq!(say(&mut machine, 0, WorkerMessage::State(last.clone()), 6), [Command::Save(last)]);
    assert_eq!(say(&mut machine, 0, finished(9, 3, false), 7), []);
    assert_eq!(say(&mut machine, 1, finished(9, 3, false), 7), [], "nothing ends before the last state is on the disk");
    assert_eq!(
        saved(&mut machine, 3, Purpose::Final, 8),
        end_of(&[0, 1], &Ending::Done, Outcome::Done { steps: Step(3), weights: Digest([9; 32]) })
    );
    assert_eq!(machine.handle(Event::Tick, at(9)), Err(Rejected::Ended));
    assert_eq!(machine.next_deadline(), None);
}

/// Two workers' run that goes on from the checkpoint of step 2.
fn resumed() -> Settings {
    let start = Start {
        step: Step(2),
        source: "step-2".into(),
        model: [1].into(),
        optimizer: Some([2].into()),
        data: None,
        numerics: None,
    };
    Settings { start: Some(start), ..settings(Gather::Exactly(2)) }
}

#[test]
fn a_resumed_run_sends_its_state_after_the_assignment_that_announces_it() {
    let mut machine = Coordinator::new(resumed(), at(0));
    join(&mut machine, 0, 0);
    join(&mut machine, 1, 0);
    say(&mut machine, 0, WorkerMessage::Prepared(prepared()), 0);
    let commands = say(&mut machine, 1, WorkerMessage::Prepared(prepared()), 0);
    let announced = StateRef { source: "step-2".into(), model: Digest::of(&[1]), optimizer: Some(Digest::of(&[2])) };
    let assign = |rank| {
        CoordinatorMessage::Assign(Assign {
            generation: Generation(5),
            rank: Rank(rank),
            members: (0..2).map(|w| Member { worker: WorkerId(w), ring_address: address(100 + w) }).collect(),
            bounds: vec![0, 2, 4],
            start: Step(2),
            steps: Step(3),
            state: Some(announced.clone()),
            keeps: false,
            unsettled: true,
            some_are_sent: true,
            ticket: RingKey([9; 16]).ticket(RunId(7), Generation(5)),
        })
    };
    let sent = CoordinatorMessage::State(State { purpose: Purpose::Start, ..state(2, Purpose::Start) });
    let resumed = Record::Generation {
        generation: Generation(5),
        members: places(&[(0, 2), (1, 2)]),
        step: Step(2),
        steps: Step(3),
        cause: "the run was resumed".into(),
    };
    assert_eq!(
        commands,
        [
            persist(5, &[0, 1], 2),
            Command::Record(resumed),
            send(0, assign(0)),
            send(0, sent.clone()),
            send(1, assign(1)),
            send(1, sent),
        ]
    );
}

#[test]
fn a_resumed_run_makes_up_the_evaluation_of_its_first_step_and_writes_no_checkpoint_twice() {
    // Its state may have been handed over by a worker whose evaluation was interrupted.
    let mut machine = run_with(resumed(), 2);
    let evaluated = EvalReport { step: Step(2), ..eval_report(5) };
    let record = Command::Record(Record::Eval(evaluated.clone()));
    assert_eq!(say(&mut machine, 0, WorkerMessage::Eval(evaluated), 1), [record]);
    assert_eq!(say(&mut machine, 0, WorkerMessage::State(state(2, Purpose::Checkpoint)), 2), []);
}

#[test]
fn each_split_of_a_step_is_noted_once() {
    let mut machine = run_with(settings(Gather::Exactly(2)), 2);
    let at = |step, split| EvalReport { step: Step(step), split, ..eval_report(5) };
    let mut noted = |report: EvalReport| {
        let commands = say(&mut machine, 0, WorkerMessage::Eval(report.clone()), 1);
        assert!(commands.is_empty() || commands == [Command::Record(Record::Eval(report))], "{commands:?}");
        !commands.is_empty()
    };
    let reports =
        [(1, Split::Validation), (1, Split::Test), (1, Split::Validation), (1, Split::Test), (2, Split::Validation)];
    assert_eq!(reports.map(|(step, split)| noted(at(step, split))), [true, true, false, false, true]);
}

#[test]
fn a_measurement_tells_how_far_it_has_come_and_ends_with_what_rank_zero_found() {
    let job = Job::Measure("{}".into());
    let mut machine = run_with(Settings { job: job.clone(), ..settings(Gather::Exactly(2)) }, 2);
    let report = |done, result: Option<&str>| {
        let generation = Generation(5);
        WorkerMessage::Measured(MeasureReport { generation, done, of: 9, result: result.map(Into::into) })
    };
    let record = Command::Record(Record::Measuring { done: 4, of: 9 });
    assert_eq!(say(&mut machine, 0, report(4, None), 1), [record]);
    assert_eq!(say(&mut machine, 0, report(9, Some("found")), 2), []);
    assert_eq!(say(&mut machine, 1, finished(9, 1, false), 3), []);
    assert_eq!(
        say(&mut machine, 0, finished(9, 1, false), 4),
        end_of(&[0, 1], &Ending::Done, Outcome::Measured("found".into()))
    );

    let mut silent = run_with(Settings { job, ..settings(Gather::Exactly(1)) }, 1);
    let commands = say(&mut silent, 0, finished(9, 1, false), 1);
    assert!(crate::support::failure(&commands).contains("without the result of its measurement"), "{commands:?}");
}

#[test]
fn an_evaluation_ends_with_what_rank_zero_found() {
    let job = Job::Evaluate(Split::Test);
    let mut machine = run_with(Settings { job: job.clone(), ..settings(Gather::Exactly(2)) }, 2);
    let report = eval_report(5);
    assert_eq!(
        say(&mut machine, 0, WorkerMessage::Eval(report.clone()), 1),
        [Command::Record(Record::Eval(report.clone()))]
    );
    assert_eq!(say(&mut machine, 0, finished(9, 1, false), 2), []);
    assert_eq!(
        say(&mut machine, 1, finished(9, 1, false), 3),
        end_of(&[0, 1], &Ending::Done, Outcome::Evaluated(report))
    );

    let mut silent = run_with(Settings { job: job.clone(), ..settings(Gather::Exactly(1)) }, 1);
    let commands = say(&mut silent, 0, finished(9, 1, false), 1);
    assert!(crate::support::failure(&commands).contains("without an evaluation"), "{commands:?}");

    let mut stopped = run_with(Settings { job, ..settings(Gather::Exactly(1)) }, 1);
    assert_eq!(
        handle(&mut stopped, Event::StopRequested, 1),
        end_of(&[0], &Ending::Stopped, Outcome::Stopped { step: None }),
        "there is nothing to keep"
    );
}

#[test]
fn a_status_shows_places_and_who_is_late_and_why() {
    let mut machine = Coordinator::new(settings(Gather::Exactly(2)), at(0));
    assert_eq!((machine.status(at(0)).stage.as_str(), machine.status(at(0)).workers.len()), ("gathering", 0));
    machine.handle(Event::Connected { connection: Connection(9), address: address(9) }, at(0)).unwrap();
    assert!(machine.status(at(0)).workers.is_empty(), "a session without a name is no worker yet");

    machine = running(3);
    let beat = |step, phase, images_per_s| WorkerMessage::Heartbeat(Progress { images_per_s, ..progress(step, phase) });
    say(&mut machine, 0, beat(2, Phase::Reduce, 900.0), 1000);
    say(&mut machine, 1, beat(0, Phase::Descent, 300.0), 1000);
    say(&mut machine, 0, WorkerMessage::Step(step_report(2)), 1000);
    let status = machine.status(at(1100));
    assert_eq!(
        (status.stage.as_str(), status.generation, status.step, status.steps, status.run),
        ("running", Generation(5), Step(2), Step(3), RunId(7))
    );
    assert_eq!(status.last_step, Some(step_report(2)));
    let shown: Vec<_> = status
        .workers
        .iter()
        .map(|w| (w.rank, w.micro_batches, w.step, w.phase, w.silent_ms, w.late.as_str()))
        .collect();
    assert_eq!(
        shown,
        [
            (Some(Rank(0)), 2, Step(2), Phase::Reduce, 100, ""),
            // Rank 0 has taken two steps, so every rank has taken one, whatever its last heartbeat said.
            (Some(Rank(1)), 1, Step(1), Phase::Descent, 100, "computes 300 images/s, others 900"),
            (Some(Rank(2)), 1, Step(1), Phase::Ascent, 1100, "silent for 1100 of 2000 ms"),
        ]
    );

    handle(&mut machine, Event::WriteFailed { message: "disk full".into() }, 1200);
    let ended = machine.status(at(1200));
    assert_eq!((ended.stage.as_str(), ended.generation, ended.steps), ("ended", Generation(5), Step(3)));
}

#[test]
fn only_rank_zero_of_this_generation_reports() {
    let mut machine = running(2);
    let before = machine.clone();
    let eval = |generation| WorkerMessage::Eval(eval_report(generation));
    let event = |worker, message| Event::Message { connection: Connection(worker), message };
    assert_eq!(machine.handle(event(1, eval(5)), at(1)), Err(Rejected::NotTheReporter { what: "Eval", rank: 1 }));
    let stale = |what| Err(Rejected::StaleGeneration { what, found: 4, expected: 5 });
    assert_eq!(machine.handle(event(0, eval(4)), at(1)), stale("Eval"));
    let stale_state = State { generation: Generation(4), ..state(1, Purpose::Checkpoint) };
    assert_eq!(machine.handle(event(0, WorkerMessage::State(stale_state)), at(1)), stale("State"));
    assert_eq!(machine.handle(event(9, eval(5)), at(1)), Err(Rejected::UnknownConnection(9)));
    assert_eq!(machine, before, "a rejected event leaves the machine unchanged");
    assert_eq!(say(&mut machine, 0, eval(5), 1).len(), 1);
    assert_eq!(drain(&mut machine), []);
}
