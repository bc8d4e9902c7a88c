//! Carries out what the worker's machine decides, for one session: the sim's counterpart of `strath_node::worker::runtime`.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use strath_core::{After, Generation, RunId, Step, Timestamp};
use strath_protocol::message::{
    Assign, EvalReport, FailureKind, FailureReport, Finished, Phase, Progress, Purpose, Split, State as Sent,
    WorkerMessage,
};
use strath_protocol::{Worker, WorkerCommand, WorkerEvent, WorkerOutcome};

use super::feed::Follower;
use super::thread::{Thread, ThreadId, Told};
use super::{listen, sent, stop_listening};
use crate::env::{Env, Input};
use crate::invariant::Fact;
use crate::network::{Closing, Host, Packet, ProcessId, Side, StreamId};
use crate::peers::Hello;
use crate::quadratic::State;
use crate::words::step_report;

/// What the threads of a generation report to the session.
#[derive(Debug)]
pub enum Report {
    /// The ring is connected.
    Connected,
    /// It is not, and this is whose fault it is, and the state that it was to begin with.
    NotConnected(FailureKind, State),
    /// A word of the training thread.
    Told(Told),
    /// The training thread has ended, with this state.
    Rested(State),
    /// The state that is held, as files.
    HandedOver(Generation, State),
    /// A newcomer is at most a step behind.
    CaughtUp(Step),
    /// A newcomer's feed has ended, with this state, or why it broke.
    Followed(Option<State>, Option<String>),
}

/// What a worker listens on for peers.
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    /// Connections that nobody has taken yet.
    pub(crate) knocks: Vec<(StreamId, Hello)>,
}

/// One session.
pub(crate) struct Runtime {
    pub(crate) machine: Worker,
    pub(crate) process: (ProcessId, Host),
    pub(crate) session: StreamId,
    /// Since when another session is sought, where this one is lost.
    pub(crate) sought_since: Option<Timestamp>,
    /// What follows from the event that is being handled.
    pub(crate) later: VecDeque<WorkerEvent>,
    pub(crate) listener: Option<Listener>,
    is_prepared: bool,
    run: RunId,
    thread: Option<Thread>,
    /// Whether the report that its ring is connected was taken.
    is_ready: bool,
    pub(crate) held: Option<State>,
    /// Whether that was fed to it, or is of an earlier session.
    pub(crate) was_fed: bool,
    /// The generation that it follows.
    pub(crate) follower: Option<Follower>,
    /// What has come of a feed that it was not told of.
    pub(crate) early: Vec<(StreamId, Packet)>,
    generation: Generation,
    start: Step,
}

impl Runtime {
    pub(crate) fn new(
        machine: Worker,
        process: (ProcessId, Host),
        session: StreamId,
        address: SocketAddr,
        is_prepared: bool,
        held: Option<State>,
    ) -> Self {
        Self {
            machine,
            process,
            session,
            sought_since: None,
            later: VecDeque::new(),
            listener: Some(Listener { address, knocks: Vec::new() }),
            is_prepared,
            run: RunId(0),
            thread: None,
            is_ready: false,
            held,
            was_fed: false,
            follower: None,
            early: Vec::new(),
            generation: Generation(0),
            start: Step(0),
        }
    }

    /// Has the machine take in an event, after it has heard where training is.
    pub(crate) fn handle(&mut self, event: WorkerEvent, env: &mut Env) {
        if let Some(thread) = &self.thread {
            let (step, phase, generation) = (thread.trainer.state.step, thread.phase(), self.generation);
            let images_per_s = env.scenario.images_per_s(self.process.1, env.now());
            let progress = Progress { generation, step, phase, images_per_s };
            // It is rejected before training and after, when there is nothing to say.
            let _ = self.machine.handle(WorkerEvent::Progress(progress), env.now());
        }
        let process = self.process.0.0;
        env.log(|| format!("process {process} hears {event:?}"));
        if let Err(rejected) = self.machine.handle(event, env.now()) {
            env.log(|| format!("process {process} passes over: {rejected}"));
        }
    }

    /// Carries out what the machine wants; the outcome, where the session is over.
    pub(crate) fn carry_out(&mut self, env: &mut Env) -> Option<WorkerOutcome> {
        while let Some(command) = self.machine.poll_command() {
            let command = match env.bug {
                Some(bug) => bug.of_worker(command),
                None => Some(command),
            };
            match command {
                None => {}
                Some(WorkerCommand::Send(message)) => self.send(message, env),
                Some(WorkerCommand::Prepare(admitted)) => {
                    self.run = admitted.run;
                    let takes = if self.is_prepared { Duration::ZERO } else { env.draws.millis(1, 120) };
                    env.within(takes, self.process.0, Input::Prepared(self.session));
                }
                Some(WorkerCommand::Connect { assign, state }) => self.connect(assign, state.as_ref(), env),
                Some(WorkerCommand::Run { .. }) => {
                    if let Some(thread) = self.thread.as_mut().filter(|_| self.is_ready) {
                        self.is_ready = false;
                        thread.run(env);
                    }
                }
                Some(WorkerCommand::StopAfterStep) => {
                    if let Some(thread) = &mut self.thread {
                        thread.trainer.asked = thread.trainer.asked.max(After::Stop);
                    }
                }
                Some(WorkerCommand::PauseAfterStep) => {
                    if let Some(thread) = &mut self.thread {
                        thread.trainer.asked = thread.trainer.asked.max(After::Pause);
                    }
                }
                Some(WorkerCommand::Halt) => self.halt(env),
                Some(WorkerCommand::HandOver(generation)) => self.hand_over(generation, env),
                Some(WorkerCommand::Feed(feed)) => {
                    if let Some(thread) = &mut self.thread {
                        thread.feed(&feed, self.process, env);
                    }
                }
                Some(WorkerCommand::Follow(follow)) => self.follow(&follow, env),
                Some(WorkerCommand::StopFollowing) => self.follower = None,
                Some(WorkerCommand::Reconnect { .. }) => {
                    env.close(self.session, Side::Dialler, Closing::Ended);
                    self.sought_since = Some(env.now());
                    let soon = env.draws.millis(20, 60);
                    env.within(soon, self.process.0, Input::Dials);
                }
                Some(WorkerCommand::Exit(outcome)) => return Some(outcome),
            }
        }
        None
    }

    fn send(&mut self, message: WorkerMessage, env: &mut Env) {
        env.send(self.session, Side::Dialler, Packet::ToCoordinator(message));
    }

    fn connect(&mut self, assign: Assign, state: Option<&Sent>, env: &mut Env) {
        let completed = self.completed();
        (self.was_fed, self.early) = (false, Vec::new());
        let held = self.held.take();
        let state = match (held.as_ref().filter(|_| assign.keeps), state) {
            (Some(kept), _) => kept.clone(),
            (None, Some(sent)) => State::decode(&sent.model),
            (None, None) => State::initial(),
        };
        env.note(&Fact::Holds { step: state.step, digest: state.digest() });
        (self.generation, self.start, self.is_ready) = (assign.generation, assign.start, false);
        let (process, bounds) = (self.process.0, assign.bounds.clone());
        let start = assign.start;
        let thread = Thread::begin(self.process, assign, state, self.run, env);
        let identity = thread.identity();
        env.note(&Fact::Assigned { process, identity, start, held: completed, bounds });
        self.thread = Some(thread);
        let knocks = self.listener.as_mut().map(|listener| std::mem::take(&mut listener.knocks)).unwrap_or_default();
        for (stream, hello) in knocks {
            self.hear(stream, Packet::Hello(hello), env);
        }
    }

    /// Something that does not come from the coordinator.
    pub(crate) fn hear(&mut self, stream: StreamId, packet: Packet, env: &mut Env) {
        let is_early = self.early.iter().any(|(early, _)| *early == stream);
        let is_fed = matches!(packet, Packet::Fed(_)) || is_early || (self.thread.is_none() && self.follower.is_some());
        if is_fed && !matches!(packet, Packet::Hello(_)) {
            return self.hear_feed(stream, packet, env);
        }
        let Some(thread) = &mut self.thread else {
            if let (Packet::Hello(hello), Some(listener)) = (packet, &mut self.listener) {
                // Nobody takes it before the next generation is connected.
                listener.knocks.push((stream, hello));
            }
            return;
        };
        match packet {
            Packet::Hello(hello) => thread.hear_hello(stream, &hello, env),
            Packet::Answer(answer) => thread.hear_answer(stream, &answer, env),
            Packet::Frame(frame) => thread.hear_frame(stream, frame, env),
            Packet::Closed(closing) => thread.hear_closed(stream, closing, env),
            _ => {}
        }
        self.stop_listening_if_connected(env);
    }

    /// Whoever is connected listens no more.
    fn stop_listening_if_connected(&mut self, env: &mut Env) {
        if self.thread.as_ref().is_some_and(|thread| thread.phase() != Phase::Connecting || thread.is_ready()) {
            stop_listening(self.listener.take(), env);
        }
    }

    /// Something that concerns the thread of the generation alone.
    pub(crate) fn of_thread(&mut self, input: &Input, env: &mut Env) {
        let host = self.process.1;
        let Some(thread) = &mut self.thread else { return };
        match input {
            Input::DialsPeer(id, rank) if *id == thread.id => thread.dial(*rank, host, env),
            Input::SignDeadline(id, rank, stream) if *id == thread.id => thread.check_sign(*rank, *stream, env),
            Input::ConnectDeadline(id) if *id == thread.id => thread.check_deadline(env),
            Input::Computed(id) if *id == thread.id => thread.computed(env),
            _ => {}
        }
        self.stop_listening_if_connected(env);
    }

    /// Ends whatever is at work in the generation. A ring that is connected and not in use rests at once.
    pub(crate) fn halt(&mut self, env: &mut Env) {
        self.follower = None;
        let Some(thread) = &mut self.thread else { return };
        thread.end_feeds(env);
        thread.cancel(env);
        if self.is_ready {
            self.is_ready = false;
            thread.close(Closing::Ended, env);
            let state = thread.trainer.state.clone();
            self.rests(state, env);
        }
    }

    /// The threads of the generation are through; the next needs a listener of its own.
    fn rests(&mut self, state: State, env: &mut Env) {
        self.thread = None;
        stop_listening(self.listener.take(), env);
        let ring_address = listen(self.process.0, self.process.1, env);
        self.listener = Some(Listener { address: ring_address, knocks: Vec::new() });
        let held = Some((state.step, state.digest()));
        env.note(&Fact::Holds { step: state.step, digest: state.digest() });
        (self.held, self.was_fed) = (Some(state), false);
        self.later.push_back(WorkerEvent::Rested { generation: self.generation, held, ring_address });
    }

    /// The state that is left for another session: of a step that is interrupted, the one before it. The ring of whoever computes
    /// ends here too.
    pub(crate) fn leave_behind(&mut self, env: &mut Env) -> Option<State> {
        let at_work = self.thread.take().map(|mut thread| {
            thread.close(Closing::Ended, env);
            thread.trainer.state
        });
        at_work.or_else(|| self.held.take())
    }

    fn hand_over(&mut self, generation: Generation, env: &mut Env) {
        if let Some(state) = self.held.clone() {
            let takes = env.draws.micros(100, 20_000);
            let id = ThreadId(self.session.0);
            env.within(takes, self.process.0, Input::Reports(id, Report::HandedOver(generation, state)));
        }
    }

    /// What a report means to the machine.
    pub(crate) fn take(&mut self, id: ThreadId, report: Report, env: &mut Env) -> Option<WorkerEvent> {
        if let Report::HandedOver(generation, state) = report {
            let is_of_here = id == ThreadId(self.session.0);
            return is_of_here.then(|| WorkerEvent::StateReady(sent(&state, generation, Purpose::Handover)));
        }
        if matches!(report, Report::CaughtUp(_) | Report::Followed(..)) {
            return self.take_of_follower(id, report);
        }
        let generation = self.generation;
        let thread = self.thread.as_ref().filter(|thread| thread.id == id)?;
        let is_over = thread.is_cancelled();
        Some(match report {
            Report::Connected if is_over => {
                let state = thread.trainer.state.clone();
                if let Some(thread) = &mut self.thread {
                    thread.close(Closing::Ended, env);
                }
                self.rests(state, env);
                WorkerEvent::Tick
            }
            Report::Connected => {
                self.is_ready = true;
                WorkerEvent::RingConnected { generation, gpu: None, communicator: None }
            }
            Report::NotConnected(kind, state) => {
                self.rests(state, env);
                if is_over { WorkerEvent::Tick } else { failed(generation, self.start, Phase::Connecting, kind) }
            }
            Report::Rested(state) => {
                self.rests(state, env);
                WorkerEvent::Tick
            }
            Report::Told(told) => translate(generation, told),
            Report::HandedOver(..) | Report::CaughtUp(_) | Report::Followed(..) => return None,
        })
    }
}

fn failed(generation: Generation, step: Step, phase: Phase, kind: FailureKind) -> WorkerEvent {
    WorkerEvent::Failed(FailureReport { generation, step, phase, kind, message: "as simulated".into() })
}

/// What a word of the training thread means to the machine.
fn translate(generation: Generation, told: Told) -> WorkerEvent {
    match told {
        Told::Stepped(step) => WorkerEvent::Stepped(step_report(generation, step)),
        Told::Evaluated(step) => {
            WorkerEvent::Evaluated(EvalReport { generation, step, split: Split::Test, loss: 1.0, error: 0.5 })
        }
        Told::State(state, purpose) => WorkerEvent::StateReady(sent(&state, generation, purpose)),
        Told::Paused => WorkerEvent::Paused(generation),
        Told::Finished { state, stopped } => {
            WorkerEvent::Finished(Finished { generation, step: state.step, weights: state.digest(), stopped })
        }
        Told::Failed { step, kind } => failed(generation, step, Phase::Reduce, kind),
    }
}
