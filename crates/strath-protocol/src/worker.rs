//! The life of a run as one worker sees it: registered, preparing, waiting, connecting, running, halting, waiting again, ended.

mod assigned;
mod away;
mod following;
mod leaving;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use strath_core::{Digest, Generation, Rank, Step, Timestamp};

use crate::Rejected;
use crate::command::{WorkerCommand as Command, WorkerOutcome};
use crate::event::WorkerEvent as Event;
use crate::message::{
    Admitted, Assign, CoordinatorMessage, Ending, EvalReport, FailureKind, FailureReport, Job, MOST_EVALUATIONS_TOLD,
    MOST_STEPS_TOLD, MeasureReport, Phase, Progress, Purpose, Register, StepReport, WorkerMessage,
};

use away::{Away, Backlog, Known};

/// Beyond its lease a worker waits this long for a coordinator that has fallen silent.
const GRACE: Duration = Duration::from_secs(1);
/// A coordinator that does not even answer a registration is given up after this long.
const REGISTRATION_DEADLINE: Duration = Duration::from_secs(10);

/// The worker's state machine, from the moment it is connected to the coordinator.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker {
    /// The coordinator's address, for messages.
    coordinator: String,
    /// How it introduces itself.
    register: Register,
    /// How the coordinator knows it, once it does.
    known: Option<Known>,
    /// How long it waits for a coordinator that is out of sight, with nothing to do.
    rejoin_timeout: Duration,
    /// The coordinator is out of sight.
    away: Option<Away>,
    backlog: Backlog,
    stage: Stage,
    lease: Option<Duration>,
    heard: Timestamp,
    beaten: Timestamp,
    last_handled: Timestamp,
    progress: Progress,
    rank: Rank,
    /// Where the ring listens for the next generation.
    ring_address: SocketAddr,
    /// The state that it holds between two generations: completed steps and digest.
    held: Option<(Step, Digest)>,
    /// The generation that it follows as a newcomer.
    following: Option<Generation>,
    /// Whether the state that it holds was fed to it, so that it has not taken part in what led there.
    was_fed: bool,
    /// Whether no thread of a generation is at work.
    rests: bool,
    /// The newest step on record, once the coordinator has said that the generation is over, or is to end.
    halted_after: Option<Step>,
    is_retiring: bool,
    /// What every rank keeps of its last steps and evaluations, in case that rank 0 is gone before its own reports were read.
    recent: VecDeque<StepReport>,
    evaluations: VecDeque<EvalReport>,
    commands: VecDeque<Command>,
}

#[derive(Debug, Clone, PartialEq)]
enum Stage {
    Registered,
    Preparing,
    Waiting,
    /// Assigned, the announced state still to come.
    Receiving(Box<Assign>),
    Connecting(Generation),
    Connected(Generation),
    Running(Generation),
    Finished(Generation),
    /// The generation is over for this worker, because of what is said: it leaves it, and waits to be told that it is over for all.
    Halting(Generation, Option<String>),
    /// It has failed, or a peer has, as the message says, and waits for the coordinator's last word.
    Failed(String),
    Ended,
}

impl Stage {
    fn name(&self) -> &'static str {
        match self {
            Self::Registered => "waiting to be admitted",
            Self::Preparing => "preparing",
            Self::Waiting => "waiting for a generation",
            Self::Receiving(_) => "receiving the state",
            Self::Connecting(_) => "connecting the ring",
            Self::Connected(_) => "waiting for the others' rings",
            Self::Running(_) => "running",
            Self::Finished(_) => "finished",
            Self::Halting(..) => "leaving its generation",
            Self::Failed(_) => "failed",
            Self::Ended => "ended",
        }
    }
}

/// Adds to what is kept, at most so many.
fn keep_newest<T>(kept: &mut VecDeque<T>, most: usize, newest: T) {
    if kept.len() == most {
        kept.pop_front();
    }
    kept.push_back(newest);
}

impl Worker {
    /// A worker that introduces itself to the coordinator at `coordinator`.
    pub fn new(coordinator: String, register: Register, now: Timestamp) -> Self {
        let progress = Progress { generation: Generation(0), step: Step(0), phase: Phase::Joining, images_per_s: 0.0 };
        let ring_address = register.ring_address;
        let commands = VecDeque::from([Command::Send(WorkerMessage::Register(register.clone()))]);
        Self {
            coordinator,
            register,
            known: None,
            rejoin_timeout: Duration::ZERO,
            away: None,
            backlog: Backlog::default(),
            stage: Stage::Registered,
            lease: None,
            heard: now,
            beaten: now,
            last_handled: now,
            progress,
            rank: Rank(0),
            ring_address,
            held: None,
            following: None,
            was_fed: false,
            rests: true,
            halted_after: None,
            is_retiring: false,
            recent: VecDeque::new(),
            evaluations: VecDeque::new(),
            commands,
        }
    }

    /// Takes in an event that happened at `now`.
    ///
    /// # Errors
    /// [`Rejected`] where it does not fit; the machine is then unchanged.
    pub fn handle(&mut self, event: Event, now: Timestamp) -> Result<(), Rejected> {
        if self.stage == Stage::Ended {
            return Err(Rejected::Ended);
        }
        match event {
            Event::Message(message) => {
                self.message(message)?;
                self.heard = now;
            }
            Event::Disconnected { cause } => {
                self.lose_coordinator(&format!("was lost: {cause}"));
            }
            Event::Reconnected => {
                self.reconnected()?;
                self.heard = now;
            }
            Event::Tick => {}
            Event::Prepared(prepared) => {
                self.expect(&Stage::Preparing, "Prepared")?;
                self.enter(Stage::Waiting, Phase::Waiting);
                if let Some(known) = &mut self.known {
                    known.prepared = Some(prepared.clone());
                }
                self.send(WorkerMessage::Prepared(prepared));
            }
            Event::RingConnected { generation, gpu, communicator } => {
                self.expect(&Stage::Connecting(generation), "RingConnected")?;
                self.stage = Stage::Connected(generation);
                self.send(WorkerMessage::RingReady { generation, gpu, communicator });
            }
            Event::Progress(progress) => {
                // One that was told to halt may have an evaluation to end.
                if matches!(self.stage, Stage::Halting(..)) && self.progress.phase != Phase::Waiting {
                    self.expect_at_work(progress.generation, "Progress")?;
                } else {
                    self.expect(&Stage::Running(progress.generation), "Progress")?;
                }
                self.progress = Progress { images_per_s: progress.or_known(self.progress.images_per_s), ..progress };
            }
            Event::Stepped(report) => {
                self.expect_at_work(report.generation, "Stepped")?;
                keep_newest(&mut self.recent, MOST_STEPS_TOLD, report.clone());
                if !self.is_away() {
                    self.backlog.go_on();
                }
                if self.rank == Rank(0) {
                    self.send(WorkerMessage::Step(report));
                }
            }
            Event::Evaluated(report) => {
                self.expect_at_work(report.generation, "Evaluated")?;
                keep_newest(&mut self.evaluations, MOST_EVALUATIONS_TOLD, report.clone());
                if self.rank == Rank(0) {
                    self.send(WorkerMessage::Eval(report));
                }
            }
            Event::Measured(report) => self.measured(report)?,
            Event::StateReady(state) => {
                if state.purpose == Purpose::Handover {
                    self.expect(&Stage::Waiting, "StateReady")?;
                } else {
                    self.expect_at_work(state.generation, "StateReady")?;
                }
                self.backlog.keep(&state);
                self.send(WorkerMessage::State(state));
            }
            Event::Finished(finished) => {
                self.expect(&Stage::Running(finished.generation), "Finished")?;
                self.enter(Stage::Finished(finished.generation), Phase::Finished);
                self.progress.step = finished.step;
                self.backlog.finish(finished);
                self.send(WorkerMessage::Finished(finished));
            }
            Event::Paused(generation) => {
                self.expect(&Stage::Running(generation), "Paused")?;
                self.enter(Stage::Halting(generation, None), Phase::Waiting);
            }
            Event::Rested { generation, held, ring_address } => {
                if self.rests || generation != self.progress.generation {
                    return Err(Rejected::OutOfOrder { what: "Rested", state: self.stage.name() });
                }
                (self.rests, self.held, self.ring_address) = (true, held, ring_address);
                self.say_halted();
                self.ask();
            }
            Event::CaughtUp { generation, step } => self.caught_up(generation, step)?,
            Event::Followed(holds) => self.followed(holds)?,
            Event::Failed(report) => self.failed(report)?,
            Event::StopRequested => self.stop(),
            Event::LeaveRequested { reason } => {
                self.leave(reason.clone());
                self.exit(WorkerOutcome::Failed { message: format!("left the run: {reason}") });
            }
        }
        self.forgive_own_stall(now);
        self.last_handled = now;
        self.beat(now);
        self.check_coordinator(now);
        self.check_away(now);
        Ok(())
    }

    /// The next thing to do, in order.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When the machine wants to hear of the time again.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if self.stage == Stage::Ended {
            return None;
        }
        let given_up = self.may_hear().then(|| self.heard.after(self.patience()));
        // Often enough to tell a stall of its own from a wait that it asked for.
        let tick = self.last_handled.after(self.patience() / 4);
        let beat = self.lease.filter(|_| !self.is_away()).map(|lease| self.beaten.after(lease / 4));
        Some([given_up, beat].into_iter().flatten().fold(tick, Timestamp::min))
    }

    fn message(&mut self, message: CoordinatorMessage) -> Result<(), Rejected> {
        match message {
            CoordinatorMessage::Admitted(admitted) => {
                self.expect(&Stage::Registered, "Admitted")?;
                self.admitted(admitted);
            }
            CoordinatorMessage::Assign(assign) => self.assigned(assign)?,
            CoordinatorMessage::State(state) => self.received(state)?,
            CoordinatorMessage::Start { generation, communicator } => {
                self.expect(&Stage::Connected(generation), "Start")?;
                self.enter(Stage::Running(generation), Phase::Ascent);
                self.commands.push_back(Command::Run { communicator });
            }
            CoordinatorMessage::Ack => {}
            CoordinatorMessage::Stop { generation } => {
                if self.stage == Stage::Running(generation) {
                    self.commands.push_back(Command::StopAfterStep);
                }
            }
            CoordinatorMessage::Pause { generation, recorded } => self.pause(generation, recorded)?,
            CoordinatorMessage::Halt { generation, recorded } => self.halt(generation, recorded)?,
            CoordinatorMessage::SendState { generation } => {
                self.expect(&Stage::Waiting, "SendState")?;
                if self.held.is_none() || generation < self.progress.generation {
                    return Err(Rejected::OutOfOrder { what: "SendState", state: "no such state is held" });
                }
                self.commands.push_back(Command::HandOver(generation));
            }
            CoordinatorMessage::Feed(feed) => self.feed(feed)?,
            CoordinatorMessage::Follow(follow) => self.follow(follow)?,
            CoordinatorMessage::TakenBack { generation, recorded } => self.taken_back(generation, recorded)?,
            CoordinatorMessage::End(ending) => self.exit(match ending {
                Ending::Done => WorkerOutcome::Done,
                Ending::Stopped => WorkerOutcome::Stopped,
                Ending::Released => WorkerOutcome::Released,
                Ending::Failed(message) => WorkerOutcome::Failed { message },
                Ending::Outdated(reason) => WorkerOutcome::Outdated {
                    message: format!("the coordinator at {} has no place for it: {reason}", self.coordinator),
                },
                Ending::Refused(reason) => WorkerOutcome::Failed {
                    message: format!("refused by the coordinator at {}: {reason}", self.coordinator),
                },
            }),
        }
        Ok(())
    }

    fn leave(&mut self, reason: String) {
        self.send(WorkerMessage::Leaving { generation: self.progress.generation, reason });
    }

    fn admitted(&mut self, admitted: Admitted) {
        self.lease = Some(admitted.lease);
        self.rejoin_timeout = admitted.rejoin_timeout;
        let trains = admitted.job == Job::Train;
        self.known = Some(Known { run: admitted.run, worker: admitted.worker, trains, prepared: None });
        self.enter(Stage::Preparing, Phase::Preparing);
        self.commands.push_back(Command::Prepare(admitted));
    }

    /// Tells the coordinator. Where a peer is at fault, the run may go on; else the coordinator has the last word, which names whoever is
    /// at fault for everyone alike.
    fn failed(&mut self, report: FailureReport) -> Result<(), Rejected> {
        if matches!(self.stage, Stage::Registered | Stage::Failed(_)) || report.generation != self.progress.generation {
            return Err(Rejected::OutOfOrder { what: "Failed", state: self.stage.name() });
        }
        let is_of_peer =
            matches!(report.kind, FailureKind::PeerLost(_) | FailureKind::Deviates(_) | FailureKind::GpusApart);
        if let (Stage::Halting(..), true) = (&self.stage, is_of_peer) {
            return Err(Rejected::OutOfOrder { what: "Failed", state: self.stage.name() });
        }
        // Whoever has failed leaves its generation when it is told that it is over.
        self.halted_after = None;
        self.progress.step = report.step;
        self.progress.phase = report.phase;
        let message = report.message.clone();
        self.stage = if is_of_peer { Stage::Halting(report.generation, Some(message)) } else { Stage::Failed(message) };
        if self.is_away() {
            if !is_of_peer {
                self.exit(WorkerOutcome::Failed { message: report.message });
                return Ok(());
            }
            self.backlog.fail(&report);
        }
        self.send(WorkerMessage::Failed(report));
        Ok(())
    }

    fn beat(&mut self, now: Timestamp) {
        let Some(lease) = self.lease else { return };
        if self.stage != Stage::Ended && !self.is_away() && now.since(self.beaten) >= lease / 4 {
            self.beaten = now;
            self.send(WorkerMessage::Heartbeat(self.progress));
            self.progress.images_per_s = 0.0;
        }
    }

    /// How long the coordinator may be silent.
    fn patience(&self) -> Duration {
        self.lease.filter(|_| !self.is_asking()).map_or(REGISTRATION_DEADLINE, |lease| lease + GRACE)
    }

    /// A worker that was itself stalled has not read what the coordinator sent meanwhile.
    fn forgive_own_stall(&mut self, now: Timestamp) {
        let gap = now.since(self.last_handled);
        if gap > self.patience() / 2 {
            self.heard = self.heard.after(gap).min(now);
        }
    }

    fn check_coordinator(&mut self, now: Timestamp) {
        if self.stage != Stage::Ended && self.may_hear() && now.since(self.heard) >= self.patience() {
            let silence = format!("was silent for {} ms", now.since(self.heard).as_millis());
            self.lose_coordinator(&silence);
        }
    }

    fn exit(&mut self, outcome: WorkerOutcome) {
        self.stage = Stage::Ended;
        self.commands.push_back(Command::Exit(outcome));
    }

    fn enter(&mut self, stage: Stage, phase: Phase) {
        self.stage = stage;
        self.progress.phase = phase;
    }

    /// Says something, unless nobody is there to hear it.
    fn send(&mut self, message: WorkerMessage) {
        if !self.is_away() {
            self.commands.push_back(Command::Send(message));
        }
    }

    /// Passes on how far a measurement has come.
    fn measured(&mut self, report: MeasureReport) -> Result<(), Rejected> {
        self.expect_at_work(report.generation, "Measured")?;
        self.send(WorkerMessage::Measured(report));
        Ok(())
    }

    /// Training may have come this far before it heard that its generation is over.
    fn expect_at_work(&self, generation: Generation, what: &'static str) -> Result<(), Rejected> {
        match self.stage {
            Stage::Running(current) | Stage::Halting(current, _) if current == generation && !self.rests => Ok(()),
            _ => Err(Rejected::OutOfOrder { what, state: self.stage.name() }),
        }
    }

    fn expect(&self, stage: &Stage, what: &'static str) -> Result<(), Rejected> {
        if self.stage == *stage { Ok(()) } else { Err(Rejected::OutOfOrder { what, state: self.stage.name() }) }
    }
}
