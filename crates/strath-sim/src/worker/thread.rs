//! The thread of a generation in a worker's process: it connects the ring, and then trains.

use std::time::Duration;

use strath_collective::Bucket;
use strath_core::{After, Rank, Step, Timestamp};
use strath_protocol::message::{Assign, FailureKind, Phase, Purpose};

use super::Report;
use super::trainer::{Task, Trainer};
use crate::bug::Bug;
use crate::env::{Env, Input};
use crate::invariant::Fact;
use crate::network::{Closing, Host, Packet, Plane, ProcessId, Side, StreamId};
use crate::peers::{Frame, Greeted, Hello, Identity, Peers, Way};
use crate::quadratic::State;

/// Ranks of a generation connect to each other within this time, or one of them is given up.
const RING_DEADLINE: Duration = Duration::from_secs(10);

/// A thread of a worker's process, unlike any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadId(pub u64);

/// How far a thread has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    /// Connected, and waits for the start.
    Connected,
    /// Computes, until a moment that is planned.
    Computing,
    /// Sums with all ranks.
    Summing(Task, Bucket),
    Over,
}

/// What a training thread tells, in order.
#[derive(Debug, Clone)]
pub enum Told {
    /// A step is complete.
    Stepped(Step),
    /// An evaluation is made.
    Evaluated(Step),
    /// A state is ready.
    State(State, Purpose),
    /// The rank is through.
    Finished {
        /// Its state.
        state: State,
        /// Whether it was asked to stop.
        stopped: bool,
    },
    /// The rank rests, as all do.
    Paused,
    /// The rank cannot go on.
    Failed {
        /// Completed steps.
        step: Step,
        /// Whose fault it is.
        kind: FailureKind,
    },
}

/// The thread.
pub(crate) struct Thread {
    pub(crate) id: ThreadId,
    process: ProcessId,
    host: Host,
    assign: Assign,
    peers: Peers,
    pub(crate) trainer: Trainer,
    stage: Stage,
    /// When the last report arrives.
    told: Timestamp,
    is_cancelled: bool,
    /// Newcomers that it feeds.
    pub(crate) feeds: Vec<StreamId>,
}

impl Thread {
    /// A thread that begins to connect its ring.
    pub(crate) fn begin(
        process: (ProcessId, Host),
        assign: Assign,
        state: State,
        run: strath_core::RunId,
        env: &mut Env,
    ) -> Self {
        let id = ThreadId(env.number());
        let world_size = assign.members.len() as u32;
        let identity = Identity { run, generation: assign.generation, rank: assign.rank, world_size };
        let peers = Peers::new(identity, env.scenario.algorithm, env.bug);
        let trainer = Trainer::new(&assign, state, &env.scenario);
        let told = env.now();
        let mut thread = Self {
            id,
            process: process.0,
            host: process.1,
            assign,
            peers,
            trainer,
            stage: Stage::Connecting,
            told,
            is_cancelled: false,
            feeds: Vec::new(),
        };
        for rank in thread.peers.ranks() {
            thread.dial(rank, process.1, env);
        }
        env.within(RING_DEADLINE, process.0, Input::ConnectDeadline(id));
        thread.check_connected(env);
        thread
    }

    /// Its place.
    pub(crate) fn identity(&self) -> Identity {
        self.peers.identity()
    }

    /// What it does, as far as the coordinator is told.
    pub(crate) fn phase(&self) -> Phase {
        match self.stage {
            Stage::Connecting | Stage::Connected => Phase::Connecting,
            Stage::Computing => Phase::Ascent,
            Stage::Summing(Task::Evaluate, _) => Phase::Evaluate,
            Stage::Summing(Task::Verify, _) => Phase::Checkpoint,
            Stage::Summing(..) => Phase::Reduce,
            Stage::Over => Phase::Finished,
        }
    }

    /// Whether its part in the generation is over.
    pub(crate) fn has_ended(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Whether it waits for the start.
    pub(crate) fn is_ready(&self) -> bool {
        self.stage == Stage::Connected
    }

    /// Whether it was told to end.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled
    }

    fn report(&mut self, report: Report, env: &mut Env) {
        self.told = env.now().after(env.draws.micros(5, 400)).max(self.told);
        let delay = self.told.since(env.now());
        env.within(delay, self.process, Input::Reports(self.id, report));
    }

    /// Dials a peer, unless nobody wants to know it any more.
    pub(crate) fn dial(&mut self, rank: Rank, from: Host, env: &mut Env) {
        if self.stage != Stage::Connecting {
            return;
        }
        let address = self.assign.members[rank.index()].ring_address;
        let stream = env.network.open(Plane::Data, (self.process, from), address, None);
        self.peers.dialled(rank, stream);
        env.send(stream, Side::Dialler, Packet::Hello(self.peers.hello(rank)));
        env.within(env.silence(), self.process, Input::SignDeadline(self.id, rank, stream));
    }

    /// A peer's host that is up and can be reached has given a sign by now.
    pub(crate) fn check_sign(&mut self, rank: Rank, stream: StreamId, env: &mut Env) {
        let is_waiting = self.stage == Stage::Connecting && self.peers.of(stream) == Some((rank, Way::Unanswered));
        let (here, there) = (self.host, Host::of(self.assign.members[rank.index()].ring_address));
        let is_cut = [(here, there), (there, here)].iter().any(|(a, b)| env.network.is_blocked(*a, *b).is_some());
        if is_waiting && (is_cut || env.network.is_dead(there)) {
            self.not_connected(FailureKind::PeerLost(rank), env);
        }
    }

    /// Somebody has connected to this worker.
    pub(crate) fn hear_hello(&mut self, stream: StreamId, hello: &Hello, env: &mut Env) {
        if self.stage != Stage::Connecting {
            return env.close(stream, Side::Listener, Closing::Ended);
        }
        env.send(stream, Side::Listener, Packet::Answer(self.peers.hello(hello.from.rank)));
        match self.peers.hear_hello(stream, hello) {
            Greeted::Peer => self.check_connected(env),
            Greeted::MayFollow => env.close(stream, Side::Listener, Closing::Ended),
            Greeted::Wrong(rank) => {
                env.close(stream, Side::Listener, Closing::Ended);
                self.not_connected(FailureKind::PeerLost(rank), env);
            }
        }
    }

    /// Whoever was dialled has answered.
    pub(crate) fn hear_answer(&mut self, stream: StreamId, answer: &Hello, env: &mut Env) {
        if self.stage != Stage::Connecting {
            return;
        }
        match self.peers.hear_answer(stream, answer) {
            Greeted::Peer => self.check_connected(env),
            // It closes the connection, upon which it is dialled again.
            Greeted::MayFollow => {}
            Greeted::Wrong(rank) => self.not_connected(FailureKind::PeerLost(rank), env),
        }
    }

    fn check_connected(&mut self, env: &mut Env) {
        if self.stage == Stage::Connecting && self.peers.is_connected() {
            self.stage = Stage::Connected;
            self.report(Report::Connected, env);
        }
    }

    fn not_connected(&mut self, kind: FailureKind, env: &mut Env) {
        self.stage = Stage::Over;
        self.close(Closing::Ended, env);
        let state = self.trainer.state.clone();
        self.report(Report::NotConnected(kind, state), env);
    }

    /// Peers had to be connected by now.
    pub(crate) fn check_deadline(&mut self, env: &mut Env) {
        if let (Stage::Connecting, Some(missing)) = (self.stage, self.peers.missing()) {
            self.not_connected(FailureKind::PeerLost(missing), env);
        }
    }

    /// A stream is over.
    pub(crate) fn hear_closed(&mut self, stream: StreamId, closing: Closing, env: &mut Env) {
        self.feeds.retain(|feed| *feed != stream);
        let Some((rank, way)) = self.peers.of(stream) else { return };
        if way == Way::Unanswered {
            let pause = env.draws.millis(5, 200);
            return env.within(pause, self.process, Input::DialsPeer(self.id, rank));
        }
        // What the peer still had to say comes on the other stream, and then the end of that.
        if way == Way::Outbound && matches!(closing, Closing::Finished | Closing::Ended) {
            return;
        }
        self.peers.lose(rank, closing == Closing::Finished);
        match self.stage {
            // The ranks agree on how they exchange, so one that is gone is missed.
            Stage::Connecting => self.not_connected(FailureKind::PeerLost(rank), env),
            Stage::Summing(..) => self.go_on(env),
            Stage::Connected | Stage::Computing | Stage::Over => {}
        }
    }

    /// A segment has come.
    pub(crate) fn hear_frame(&mut self, stream: StreamId, frame: Frame, env: &mut Env) {
        if let Some((rank, Way::Inbound)) = self.peers.of(stream) {
            self.take(rank, frame, env);
        }
    }

    /// A segment of an old generation comes once more, if one is to and there is one that nothing but its generation tells from one
    /// that is due.
    fn hear_stray(&mut self, env: &mut Env) {
        if !env.lurking.contains(&self.process) {
            return;
        }
        let generation = self.identity().generation;
        let mut old = env.past.old().iter().filter(|frame| frame.truth.generation < generation);
        let fitting = old.find_map(|frame| Some((self.peers.would_take(frame)?, frame.clone())));
        if let Some((rank, frame)) = fitting {
            env.lurking.remove(&self.process);
            env.log(|| format!("         {:?} comes once more", frame.truth));
            let mut accepted = Vec::new();
            self.peers.take(rank, frame, &mut accepted);
            self.note_accepted(accepted, env);
        }
    }

    fn take(&mut self, from: Rank, frame: Frame, env: &mut Env) {
        if self.stage == Stage::Over {
            return;
        }
        let mut accepted = Vec::new();
        self.peers.take(from, frame, &mut accepted);
        self.note_accepted(accepted, env);
        if matches!(self.stage, Stage::Summing(..)) {
            self.go_on(env);
        }
    }

    fn note_accepted(&self, accepted: Vec<crate::peers::Truth>, env: &mut Env) {
        let (identity, step) = (self.identity(), self.trainer.state.step);
        for truth in accepted {
            env.note(&Fact::Accepted { identity, step, truth });
        }
    }

    /// Begins to train.
    pub(crate) fn run(&mut self, env: &mut Env) {
        if self.stage == Stage::Connected {
            self.proceed(env);
        }
    }

    /// Does what comes next, as far as nobody has to be waited for.
    fn proceed(&mut self, env: &mut Env) {
        if self.is_cancelled {
            return self.end(None, env);
        }
        match self.trainer.next() {
            Some(Task::Compute) => {
                self.stage = Stage::Computing;
                let each = env.scenario.micro_batch_takes(self.host, env.now());
                let hangs = env.hanging.get(&self.process).map_or(Duration::ZERO, |until| until.since(env.now()));
                let takes = each * self.trainer.share() as u32 + env.draws.micros(0, 2000) + hangs;
                env.within(takes, self.process, Input::Computed(self.id));
            }
            Some(Task::Save(purpose)) => {
                if self.trainer.rank == Rank(0) {
                    self.report(Report::Told(Told::State(self.trainer.state.clone(), purpose)), env);
                }
                self.proceed(env);
            }
            Some(Task::Finish(stopped)) => {
                self.report(Report::Told(Told::Finished { state: self.trainer.state.clone(), stopped }), env);
                self.rest(Closing::Finished, env);
            }
            Some(Task::Rest) => {
                self.report(Report::Told(Told::Paused), env);
                self.rest(Closing::Finished, env);
            }
            Some(task) => self.sum(task, env),
            None => self.rest(Closing::Finished, env),
        }
    }

    /// Its micro-batches are computed.
    pub(crate) fn computed(&mut self, env: &mut Env) {
        if self.stage == Stage::Computing {
            let identity = self.identity();
            let step = self.trainer.state.step;
            for micro_batch in self.trainer.micro_batches(env.bug == Some(Bug::ComputesOneTooMany)) {
                env.note(&Fact::Computed { identity, step, micro_batch });
            }
            self.proceed(env);
        }
    }

    fn sum(&mut self, task: Task, env: &mut Env) {
        let one_more = env.bug == Some(Bug::ComputesOneTooMany);
        let Some((bucket, term)) = self.trainer.term(task, one_more) else { return };
        self.stage = Stage::Summing(task, bucket);
        if self.identity().world_size == 1 {
            return self.summed(task, &term, env);
        }
        let mut accepted = Vec::new();
        self.peers.start(self.trainer.state.step, bucket, term, &mut accepted);
        self.note_accepted(accepted, env);
        self.hear_stray(env);
        self.go_on(env);
    }

    /// Sends what is to be sent, and takes the sum where it is there.
    fn go_on(&mut self, env: &mut Env) {
        let Stage::Summing(task, _) = self.stage else { return };
        for (rank, frame) in self.peers.outgoing(self.process) {
            if let Some(stream) = self.peers.stream_to(rank) {
                env.send(stream, Side::Dialler, Packet::Frame(frame));
            }
        }
        if let Some(sum) = self.peers.result() {
            self.summed(task, &sum, env);
        } else if let Some(lost) = self.peers.lost() {
            self.end(Some(FailureKind::PeerLost(lost)), env);
        }
    }

    fn summed(&mut self, task: Task, sum: &[i64], env: &mut Env) {
        match task {
            Task::Reduce => {
                let counts = self.trainer.step(sum);
                let (step, digest, identity) = (self.trainer.state.step, self.trainer.digest(), self.identity());
                env.note(&Fact::Stepped { identity, step, digest, counts });
                self.pass_on(sum, env);
                self.report(Report::Told(Told::Stepped(step)), env);
            }
            Task::Evaluate => self.report(Report::Told(Told::Evaluated(self.trainer.state.step)), env),
            Task::Verify if !Trainer::agree(sum) => return self.end(Some(FailureKind::Own), env),
            _ => {}
        }
        self.proceed(env);
    }

    /// Ends before its time, because it was told to or because of a failure.
    fn end(&mut self, failure: Option<FailureKind>, env: &mut Env) {
        if let Some(kind) = failure {
            self.report(Report::Told(Told::Failed { step: self.trainer.state.step, kind }), env);
        }
        self.rest(Closing::Ended, env);
    }

    fn rest(&mut self, closing: Closing, env: &mut Env) {
        if env.bug == Some(Bug::MovesWeightsEarly) && matches!(self.stage, Stage::Summing(Task::Reduce, _)) {
            let own = self.trainer.micro_batches(false);
            let early = self.trainer.state.term(own, env.scenario.micro_batches, After::GoOn);
            self.trainer.state.move_weights(&early);
        }
        self.stage = Stage::Over;
        self.end_feeds(env);
        self.close(closing, env);
        self.report(Report::Rested(self.trainer.state.clone()), env);
    }

    /// Lets go of every connection.
    pub(crate) fn close(&mut self, closing: Closing, env: &mut Env) {
        for (stream, side, plane) in env.network.of(self.process) {
            if plane == Plane::Data && self.peers.of(stream).is_some() {
                env.close(stream, side, closing);
            }
        }
    }

    /// The generation is over: what is at work ends.
    pub(crate) fn cancel(&mut self, env: &mut Env) {
        self.is_cancelled = true;
        match self.stage {
            Stage::Connecting => self.not_connected(FailureKind::PeerLost(self.trainer.rank), env),
            Stage::Summing(..) => self.end(None, env),
            // Whoever computes finds out afterwards, and of a ring that is not in use nobody has to be told.
            Stage::Connected | Stage::Computing | Stage::Over => {}
        }
    }
}
