//! Carries out what the worker's state machine decides, with threads that prepare, connect a ring and train, a generation after the other.

mod joining;
mod told;

use std::any::Any;
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use strath_collective::Collective;
use strath_core::{After, Digest, Generation, Rank, Step};
use strath_protocol::message::{Admitted, Assign, CommunicatorId, FailureKind, Phase, Progress, Purpose, State};
use strath_protocol::{Worker, WorkerCommand, WorkerEvent, WorkerOutcome};
use strath_rpc::Session;
use tokio::sync::mpsc;

use self::told::{failed, summarise, translate};
use super::line::Line;
use super::{Left, WorkerSettings, listen};
use crate::asked::Asked;
use crate::checkpoint;
use crate::feed::{Admissions, Audience};
use crate::generation::{Beginning, Held, NotConnected, Ready, Work, connect, held};
use crate::gpus::Offer;
use crate::prepare::{PrepareError, Prepared, prepare};
use crate::trainer::{Told, Training};
use crate::whereabouts::Whereabouts;

/// Reports on their way from the training thread to the coordinator.
const REPORTS: usize = 256;

/// What other threads report to the session's task.
pub(super) enum Report {
    Prepared(Box<Result<Prepared, PrepareError>>),
    Connected(Generation, Box<Result<Ready, NotConnected>>),
    /// Of the training thread of a generation.
    Told(Generation, Told),
    /// The training thread has ended, with this state, whose digest is taken.
    Rested(Option<Held>),
    /// The state that is held, as files.
    HandedOver(Box<State>),
    /// A generation that is followed is at most a step ahead of this one.
    CaughtUp(Generation, Step),
    /// A feed of a generation that was not cancelled, as this would say, has ended with this state, or why it broke.
    Followed(Generation, Arc<AtomicBool>, Option<Held>, Option<String>),
    /// A thread panicked in this phase, with this message.
    Panicked(Generation, Phase, String),
}

pub(super) struct Runtime {
    pub(super) machine: Worker,
    events: mpsc::Sender<Report>,
    /// What follows from the event that is being handled.
    pub(super) later: VecDeque<WorkerEvent>,
    listener: Option<TcpListener>,
    /// What it was asked to do after the step under way.
    asked: Arc<Asked>,
    /// Whether the generation is over while its ring is being connected.
    cancelled: Arc<AtomicBool>,
    /// Where the ring listens: as it was told, and the address that the coordinator was reached from.
    settings: WorkerSettings,
    local_address: SocketAddr,
    /// The state of the generation that is over.
    pub(super) held: Option<Held>,
    /// Where the training thread is.
    here: Arc<Whereabouts>,
    /// The rank in it.
    pub(super) rank: Rank,
    /// The generation that the training thread works in; 0 before the first.
    generation: Generation,
    /// Completed steps that the generation began with.
    start: Step,
    pub(super) admitted: Option<Admitted>,
    /// Data and model, and the configuration that they are of.
    pub(super) prepared: Option<(String, Prepared)>,
    ready: Option<Ready>,
    peers: Option<Arc<Collective>>,
    /// The way by which those who join get to the training thread.
    admissions: Option<Admissions>,
    /// Whether the training thread is at work.
    is_training: bool,
    /// Set where the generation that is followed is followed no more.
    unfollowed: Arc<AtomicBool>,
    /// Why the session is to end here although the machine would go on.
    displaced: Option<String>,
}

impl Runtime {
    /// A runtime whose worker introduces itself, with the end of its channel that other threads report to.
    pub(super) fn new(
        machine: Worker,
        session: &Session,
        settings: WorkerSettings,
        listener: TcpListener,
        here: Arc<Whereabouts>,
        left: Left,
    ) -> (Self, mpsc::Receiver<Report>) {
        let (events, inbox) = mpsc::channel(REPORTS);
        let Left { prepared, held } = left;
        let runtime = Self {
            machine,
            events,
            later: VecDeque::new(),
            listener: Some(listener),
            asked: Arc::default(),
            cancelled: Arc::default(),
            settings,
            local_address: session.local_address(),
            held,
            here,
            rank: Rank(0),
            generation: Generation(0),
            start: Step(0),
            admitted: None,
            prepared,
            ready: None,
            peers: None,
            admissions: None,
            is_training: false,
            unfollowed: Arc::default(),
            displaced: None,
        };
        (runtime, inbox)
    }

    /// Starts a thread whose panic is reported like any other failure: nobody else would notice it.
    fn spawn(&self, generation: Generation, phase: Phase, work: impl FnOnce(&mpsc::Sender<Report>) + Send + 'static) {
        let events = self.events.clone();
        std::thread::spawn(move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(&events))) {
                // Nobody listens any more where the session has ended.
                let _ = events.blocking_send(Report::Panicked(generation, phase, panic_message(panic.as_ref())));
            }
        });
    }

    /// Where training is; `None` before it begins.
    pub(super) fn progress(&self) -> Option<WorkerEvent> {
        let (step, phase) = self.here.get();
        let generation = self.generation;
        (phase != Phase::Joining).then(|| {
            let images_per_s = self.here.take_rate().unwrap_or(0.0);
            WorkerEvent::Progress(Progress { generation, step, phase, images_per_s })
        })
    }

    /// Carries out what the machine wants; the outcome, where the session is over.
    pub(super) async fn carry_out(&mut self, line: &mut Line) -> Option<WorkerOutcome> {
        while let Some(command) = self.machine.poll_command() {
            match command {
                WorkerCommand::Send(message) => {
                    if let Some(sender) = line.sender() {
                        // A session that breaks is told by its receiver, which knows why.
                        let _ = sender.send(message).await;
                    }
                }
                WorkerCommand::Prepare(admitted) => self.prepare(admitted),
                WorkerCommand::Connect { assign, state } => self.connect(assign, state),
                WorkerCommand::Run { communicator } => self.run(communicator),
                WorkerCommand::StopAfterStep => self.asked.ask(After::Stop),
                WorkerCommand::PauseAfterStep => self.asked.ask(After::Pause),
                WorkerCommand::Halt => self.halt(),
                WorkerCommand::HandOver(generation) => self.hand_over(generation),
                WorkerCommand::Feed(feed) => self.feed(feed),
                WorkerCommand::Follow(follow) => self.follow(follow),
                WorkerCommand::StopFollowing => self.unfollowed.store(true, Ordering::Relaxed),
                WorkerCommand::Reconnect { lost } => {
                    if let Some(lost) = lost {
                        tracing::warn!("{lost}; looking for it");
                    }
                    line.seek(&self.settings);
                }
                WorkerCommand::Exit(outcome) => return Some(outcome),
            }
        }
        self.displaced.take().map(|message| WorkerOutcome::Lost { message })
    }

    fn prepare(&mut self, admitted: Admitted) {
        let (configuration, data) = (admitted.configuration.clone(), self.settings.data.clone());
        let local_rank = self.settings.local_rank;
        self.admitted = Some(admitted);
        if let Some((_, prepared)) = self.prepared.as_ref().filter(|(of, _)| *of == configuration) {
            self.later.push_back(WorkerEvent::Prepared(summarise(prepared, self.settings.tls.is_some())));
            self.offer_held();
            return;
        }
        // It was of another configuration.
        self.held = None;
        self.spawn(Generation(0), Phase::Preparing, move |events| {
            let prepared = prepare(&configuration, data, local_rank);
            // Nobody listens any more where the session has ended; so below.
            let _ = events.blocking_send(Report::Prepared(Box::new(prepared)));
        });
    }

    fn connect(&mut self, assign: Assign, state: Option<State>) {
        let (Some((_, prepared)), Some(listener), Some(admitted)) =
            (self.prepared.clone(), self.listener.take(), self.admitted.clone())
        else {
            return;
        };
        let generation = assign.generation;
        (self.generation, self.start, self.rank) = (generation, assign.start, assign.rank);
        self.cancelled = Arc::default();
        self.asked = Arc::default();
        let (cancelled, kept, tls) = (self.cancelled.clone(), self.held.take(), self.settings.tls.clone());
        let (admissions, audience) = Audience::new();
        self.admissions = Some(admissions);
        self.spawn(generation, Phase::Connecting, move |events| {
            let beginning = Beginning { prepared, listener, tls, admitted, assign, sent: state, kept, audience };
            let ready = connect(beginning, &cancelled);
            let _ = events.blocking_send(Report::Connected(generation, Box::new(ready)));
        });
    }

    /// Ends whatever is at work in the generation. A ring that is connected and not in use rests at once.
    pub(super) fn halt(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.unfollowed.store(true, Ordering::Relaxed);
        if let Some(peers) = self.peers.take() {
            peers.abort();
            leave_behind(peers);
        }
        if let Some(Ready { work, peers, .. }) = self.ready.take() {
            self.rests(work.into_state().map(held));
            leave_behind(peers);
        }
    }

    /// Waits for the state that the training thread leaves, which was told to end.
    pub(super) async fn rest(&mut self, inbox: &mut mpsc::Receiver<Report>) {
        while self.is_training {
            let Some(report) = inbox.recv().await else { return };
            self.take(report);
        }
    }

    /// The threads of the generation are through. The next needs a listener of its own; its address is what the machine is to know.
    fn rests(&mut self, state: Option<Held>) {
        if let Some(peers) = self.peers.take() {
            leave_behind(peers);
        }
        (self.admissions, self.is_training) = (None, false);
        let held = state.as_ref().map(facts);
        self.held = state;
        let event = match listen(&self.settings, self.local_address) {
            Ok((listener, ring_address)) => {
                self.listener = Some(listener);
                WorkerEvent::Rested { generation: self.generation, held, ring_address }
            }
            // It joins again from the address by which it reaches the coordinator then.
            Err(error) if error.is_of_lost_address() && !self.settings.names_address() => {
                self.displaced = Some(format!("this host has lost {}: {error}", self.local_address.ip()));
                WorkerEvent::Tick
            }
            Err(error) => {
                let step = held.map_or(self.start, |(step, _)| step);
                failed(self.generation, step, Phase::Waiting, error.to_string(), FailureKind::Machine)
            }
        };
        self.later.push_back(event);
    }

    /// The state that is held, as files.
    fn hand_over(&mut self, generation: Generation) {
        let (Some((state, _)), Some((_, prepared))) = (self.held.clone(), self.prepared.clone()) else { return };
        self.spawn(generation, Phase::Waiting, move |events| {
            let model = checkpoint::encode_model(&prepared.model, &state.weights, &state.statistics);
            let optimizer =
                checkpoint::encode_state(&prepared.model, &state, prepared.dataset.digest(), prepared.numerics);
            let (step, purpose) = (Step(state.step), Purpose::Handover);
            drop(state);
            let state = State { generation, step, purpose, model: model.into(), optimizer: optimizer.into() };
            let _ = events.blocking_send(Report::HandedOver(Box::new(state)));
        });
    }

    fn run(&mut self, communicator: Option<CommunicatorId>) {
        let Some(Ready { generation, peers, work, .. }) = self.ready.take() else { return };
        let (asked, cancelled, here) = (self.asked.clone(), self.cancelled.clone(), self.here.clone());
        here.enter(self.start.0, Phase::Ascent);
        self.is_training = true;
        // What it was in the generation before is known.
        here.set_rate(0.0);
        self.spawn(generation, Phase::Ascent, move |events| {
            let tell = |told| _ = events.blocking_send(Report::Told(generation, told));
            let state = match work {
                Work::Train(training) => {
                    let training = Training { communicator, ..*training };
                    training.run(&asked, &cancelled, &here, tell).map(held)
                }
                Work::Evaluate(evaluating) => {
                    evaluating.run(&peers, &here, tell);
                    None
                }
                Work::Measure(measure) => {
                    measure.run(&peers, &cancelled, &here, tell);
                    None
                }
            };
            let _ = events.blocking_send(Report::Rested(state));
        });
    }

    /// What a report means to the machine.
    pub(super) fn take(&mut self, report: Report) -> WorkerEvent {
        match report {
            Report::Prepared(prepared) => match *prepared {
                Ok(prepared) => {
                    let message = summarise(&prepared, self.settings.tls.is_some());
                    let configuration = self.admitted.as_ref().map(|admitted| admitted.configuration.clone());
                    self.prepared = Some((configuration.unwrap_or_default(), prepared));
                    WorkerEvent::Prepared(message)
                }
                Err(error) => {
                    let kind = if error.is_of_configuration() { FailureKind::Configuration } else { FailureKind::Own };
                    failed(Generation(0), Step(0), Phase::Preparing, error.to_string(), kind)
                }
            },
            Report::Connected(generation, ready) => {
                let is_over = self.cancelled.load(Ordering::Relaxed);
                match *ready {
                    Ok(Ready { work, peers, .. }) if is_over => {
                        self.rests(work.into_state().map(held));
                        leave_behind(peers);
                        WorkerEvent::Tick
                    }
                    Ok(mut ready) => {
                        let Offer { gpu, communicator } = std::mem::take(&mut ready.offer);
                        self.peers = Some(ready.peers.clone());
                        self.ready = Some(ready);
                        WorkerEvent::RingConnected { generation, gpu, communicator }
                    }
                    Err(NotConnected { message, kind, state }) => {
                        self.rests(state);
                        if is_over && kind != FailureKind::Own {
                            WorkerEvent::Tick
                        } else {
                            failed(generation, self.start, Phase::Connecting, message, kind)
                        }
                    }
                }
            }
            Report::Told(generation, told) => translate(generation, told),
            Report::Rested(state) => {
                self.rests(state);
                WorkerEvent::Tick
            }
            Report::HandedOver(state) => WorkerEvent::StateReady(*state),
            Report::CaughtUp(generation, step) => WorkerEvent::CaughtUp { generation, step },
            // Something else has begun meanwhile.
            Report::Followed(_, unfollowed, ..) if unfollowed.load(Ordering::Relaxed) => WorkerEvent::Tick,
            Report::Followed(generation, _, state, broken) => self.followed(generation, state, broken),
            Report::Panicked(generation, phase, message) => {
                let (step, last) = self.here.get();
                let phase = if last == Phase::Joining { phase } else { last };
                let message = format!("a fault of the program, please report it: {message}");
                failed(generation, step.max(self.start), phase, message, FailureKind::Machine)
            }
        }
    }
}

/// Lets go of connections, which may take as long as what is still owed to peers takes to leave.
fn leave_behind(peers: Arc<Collective>) {
    std::thread::spawn(move || drop(peers));
}

/// Completed steps and digest of a state.
fn facts((state, digest): &Held) -> (Step, Digest) {
    (Step(state.step), *digest)
}

/// What a panic said.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".into())
}
