//! The life of a run as its coordinator sees it: gathering, connecting, running, regrouping and connecting again, ended; one that fails
//! drains before it ends.

mod admission;
mod balance;
mod blame;
mod communicator;
mod decisions;
mod drain;
mod ending;
mod forming;
mod hanging;
mod joining;
mod lateness;
mod links;
mod liveness;
mod pause;
mod record;
mod regroup;
mod retiring;
mod returning;
mod session;
mod settings;
mod status;
mod verdict;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use strath_core::{Assignment, Generation, Rank, Step, Timestamp, WorkerId};

use crate::Rejected;
use crate::command::CoordinatorCommand as Command;
use crate::event::{Connection, CoordinatorEvent as Event};
use crate::message::{
    CoordinatorMessage, DataSummary, Finished, Member, Prepared, Progress, Purpose, StepReport, WorkerMessage,
};

use balance::Balance;
use blame::{GivenUp, Suspicion};
use decisions::Decisions;
use drain::Drain;
use ending::Results;
use hanging::Patience;
use links::Links;
use pause::Pause;
use regroup::Regroup;
pub use returning::Former;
use session::{Session, Standing};
pub use settings::{Gather, Settings, Start};

/// The coordinator's state machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Coordinator {
    settings: Settings,
    sessions: BTreeMap<Connection, Session>,
    stage: Stage,
    next_worker: u64,
    /// The first prepared worker and what it found: every other is compared with it.
    reference: Option<(String, Prepared)>,
    last_arrival: Timestamp,
    last_handled: Timestamp,
    /// Before this moment nobody can have been silent for a lease: sessions are looked through no more often.
    none_silent_before: Timestamp,
    /// Until then members of a generation that is over may come back: the coordinator was out of their sight.
    returns_until: Timestamp,
    /// The workers of the first generation are waited for until then.
    gathers_until: Timestamp,
    /// Whether a worker has become ready since the last generation was formed.
    somebody_came: bool,
    suspicion: Option<Suspicion>,
    given_up: GivenUp,
    links: Links,
    /// The current generation; before the first, the one that came last.
    generation: Generation,
    /// Everyone of it, in order of rank.
    members: Vec<Member>,
    /// Steps of the whole run; 0 before the first generation.
    steps: Step,
    /// Which rank holds which micro-batches of the current generation.
    assignment: Option<Assignment>,
    last_step: Option<StepReport>,
    /// What the run has brought so far.
    results: Results,
    /// The end that every rank came to, once all have.
    agreed: Option<Finished>,
    /// Since when what they have left is waited for.
    agreed_since: Option<Timestamp>,
    /// The newest step on record when the last generation ended, and how many have ended there since.
    ended_at: Option<Step>,
    fruitless: u32,
    /// Worker processes of this machine that have ended.
    processes_ended: usize,
    stop_requested: bool,
    decisions: Decisions,
    /// The generation is to end after a step.
    pausing: Option<Pause>,
    /// What is known of how work is handed out.
    balance: Balance,
    /// How long a step may take.
    patience: Patience,
    next_look_for_hanging: Timestamp,
    /// Those of the generation whose training hangs: they come back as newcomers only.
    hung: Vec<WorkerId>,
    /// The step that the last generation ended after in order: what follows it is done.
    settled: Option<Step>,
    commands: VecDeque<Command>,
}

#[derive(Debug, Clone, PartialEq)]
enum Stage {
    /// Until then the workers of the generation that the coordinator before this one has left are waited for.
    Returning(Timestamp),
    Gathering,
    Connecting,
    Running,
    /// The generation is over, and the next is not formed.
    Regrouping(Regroup),
    /// Failed, and every worker was told; what rank 0 handed over is still under way.
    Draining(Drain),
    Ended,
}

impl Coordinator {
    /// A coordinator that has heard of no worker yet.
    pub fn new(settings: Settings, now: Timestamp) -> Self {
        let members = settings.former.members.clone();
        let stage = if members.is_empty() { Stage::Gathering } else { Stage::Returning(now.after(settings.lease())) };
        // A state with its optimizer's is a checkpoint, and on the disk.
        let mut patience = Patience::default();
        patience.begin(settings.former.step_s.iter().copied(), settings.lease());
        let checkpoint = settings.start.as_ref().filter(|start| start.optimizer.is_some()).map(|start| start.step);
        Self {
            generation: settings.generation,
            members,
            next_worker: settings.former.next_worker,
            gathers_until: settings.gathers_until(now),
            settings,
            sessions: BTreeMap::new(),
            stage,
            reference: None,
            last_arrival: now,
            last_handled: now,
            none_silent_before: now,
            returns_until: now,
            somebody_came: false,
            suspicion: None,
            given_up: GivenUp::default(),
            links: Links::default(),
            steps: Step(0),
            assignment: None,
            last_step: None,
            results: Results::after(checkpoint),
            agreed: None,
            agreed_since: None,
            ended_at: None,
            fruitless: 0,
            processes_ended: 0,
            stop_requested: false,
            decisions: Decisions::default(),
            pausing: None,
            balance: Balance::default(),
            patience,
            next_look_for_hanging: now,
            hung: Vec::new(),
            settled: None,
            commands: VecDeque::new(),
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
            Event::Connected { connection, address } => self.connected(connection, address, now)?,
            Event::Message { connection, message } => self.message(connection, message, now)?,
            Event::Disconnected { connection, cause } => self.disconnected(connection, &cause)?,
            Event::ProcessEnded { pid, cause } => self.process_ended(pid, &cause),
            Event::Tick => {}
            Event::StopRequested => self.stop(),
            Event::DrainRequested(request) => self.drain(&request)?,
            Event::Saved { step, purpose } => self.saved(step, purpose)?,
            Event::WriteFailed { message } => self.write_failed(message),
        }
        self.forgive_own_stall(now);
        self.last_handled = now;
        self.check_deadlines(now);
        self.settle_returning(now);
        self.form_if_enough(now);
        self.welcome(now);
        self.consider_moving(now);
        self.settle_pause(now);
        self.settle_regroup(now);
        self.settle_end(now);
        self.settle_drain(now);
        self.decisions.date(now);
        Ok(())
    }

    /// The next thing to do, in order.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When the machine wants to hear of the time again.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        (self.stage != Stage::Ended).then(|| self.earliest_deadline())
    }

    fn connected(&mut self, connection: Connection, address: SocketAddr, now: Timestamp) -> Result<(), Rejected> {
        if self.sessions.contains_key(&connection) {
            return Err(Rejected::KnownConnection(connection.0));
        }
        self.sessions.insert(connection, Session::new(address, now));
        Ok(())
    }

    fn message(&mut self, connection: Connection, message: WorkerMessage, now: Timestamp) -> Result<(), Rejected> {
        let session = self.session(connection)?;
        // Whoever has not shown its version and token has no say in the run.
        if session.standing == Standing::New && !matches!(message, WorkerMessage::Register(_)) {
            return Err(Rejected::OutOfOrder { what: "a message before Register", state: Standing::New.name() });
        }
        match message {
            WorkerMessage::Register(register) => {
                Self::expect(session, Standing::New, "Register")?;
                self.register(connection, register, now);
            }
            WorkerMessage::Prepared(prepared) => {
                Self::expect(session, Standing::Preparing, "Prepared")?;
                self.prepared(connection, prepared, now);
            }
            WorkerMessage::RingReady { generation, gpu, communicator } => {
                Self::expect(session, Standing::Connecting, "RingReady")?;
                self.check_generation(generation, "RingReady")?;
                self.ring_ready(connection, (gpu, communicator), now);
            }
            WorkerMessage::Heartbeat(progress) => {
                // One that crossed with an assignment still says that the worker lives, but not where it is.
                let is_current = session.rank.is_none() || progress.generation == self.generation;
                self.send(connection, CoordinatorMessage::Ack);
                if is_current {
                    self.update(connection, |session| {
                        session.stay.note(&session.progress, &progress, now);
                        session.measured.note(&progress, now);
                        let images_per_s = progress.or_known(session.progress.images_per_s);
                        session.progress = Progress { images_per_s, ..progress };
                    });
                }
            }
            WorkerMessage::Step(report) => {
                self.check_reporter(connection, report.generation, "Step")?;
                self.record_step(report);
            }
            WorkerMessage::Eval(report) => {
                self.check_reporter(connection, report.generation, "Eval")?;
                self.record_evaluation(report);
            }
            WorkerMessage::Measured(report) => {
                self.check_reporter(connection, report.generation, "Measured")?;
                self.record_measurement(report);
            }
            WorkerMessage::State(state) if state.purpose == Purpose::Handover => self.handed_over(connection, state)?,
            WorkerMessage::State(state) => {
                self.check_reporter(connection, state.generation, "State")?;
                self.save(state);
            }
            WorkerMessage::Halted(halted) => self.halted(connection, halted)?,
            WorkerMessage::CaughtUp { generation, step } => self.caught_up(connection, generation, step)?,
            WorkerMessage::Holds(holds) => self.holds(connection, holds)?,
            WorkerMessage::Retiring => self.retire(connection)?,
            WorkerMessage::Finished(finished) => {
                Self::expect(session, Standing::Running, "Finished")?;
                self.check_generation(finished.generation, "Finished")?;
                self.update(connection, |session| {
                    session.standing = Standing::Finished;
                    session.finished = Some(finished);
                });
                self.complete_if_all_agree();
            }
            WorkerMessage::Failed(report) => {
                if report.generation != Generation(0) {
                    self.check_generation(report.generation, "Failed")?;
                }
                self.failed(connection, report, now);
            }
            WorkerMessage::Leaving { generation, reason } => {
                if generation != Generation(0) {
                    self.check_generation(generation, "Leaving")?;
                }
                let what = format!("{} left {}: {reason}", session.name(), self.place(session));
                self.leave(connection, what);
            }
        }
        self.update(connection, |session| session.heard = now);
        Ok(())
    }

    fn broadcast(&mut self, message: &CoordinatorMessage) {
        for connection in self.connections(|session| session.identity.is_some()) {
            self.send(connection, message.clone());
        }
    }

    /// The sessions of which this is true.
    fn connections(&self, of: impl Fn(&Session) -> bool) -> Vec<Connection> {
        self.sessions.iter().filter(|(_, session)| of(session)).map(|(connection, _)| *connection).collect()
    }

    fn send(&mut self, connection: Connection, message: CoordinatorMessage) {
        self.commands.push_back(Command::Send { connection, message });
    }

    fn session(&self, connection: Connection) -> Result<&Session, Rejected> {
        self.sessions.get(&connection).ok_or(Rejected::UnknownConnection(connection.0))
    }

    fn update(&mut self, connection: Connection, change: impl FnOnce(&mut Session)) {
        if let Some(session) = self.sessions.get_mut(&connection) {
            change(session);
        }
    }

    fn expect(session: &Session, standing: Standing, what: &'static str) -> Result<(), Rejected> {
        if session.standing == standing {
            Ok(())
        } else {
            Err(Rejected::OutOfOrder { what, state: session.standing.name() })
        }
    }

    fn check_generation(&self, found: Generation, what: &'static str) -> Result<(), Rejected> {
        if found == self.generation {
            Ok(())
        } else {
            Err(Rejected::StaleGeneration { what, found: found.0, expected: self.generation.0 })
        }
    }

    fn check_reporter(
        &self,
        connection: Connection,
        generation: Generation,
        what: &'static str,
    ) -> Result<(), Rejected> {
        let session = self.session(connection)?;
        // One that was told to halt still says what it had to say.
        if session.standing != Standing::Halting {
            Self::expect(session, Standing::Running, what)?;
        }
        self.check_generation(generation, what)?;
        match session.rank {
            Some(Rank(0)) => Ok(()),
            rank => Err(Rejected::NotTheReporter { what, rank: rank.unwrap_or_default().0 }),
        }
    }

    /// The completed steps of a worker: what its last heartbeat said, or what follows from rank 0's report of a step, which took
    /// every rank's part: a rank is at most one step behind.
    fn step_of(&self, session: &Session) -> Step {
        let least = self
            .last_step
            .as_ref()
            .filter(|_| session.rank.is_some())
            .map_or(0, |report| report.step.0.saturating_sub(1));
        Step(session.progress.step.0.max(least))
    }

    /// Where a worker was when it was last heard, for messages.
    fn place(&self, session: &Session) -> String {
        format!("at step {} in phase {}", self.step_of(session), session.progress.phase)
    }

    /// The data that every worker has, once the first is ready.
    pub fn data(&self) -> Option<&DataSummary> {
        self.reference.as_ref().map(|(_, prepared)| &prepared.data)
    }
}
