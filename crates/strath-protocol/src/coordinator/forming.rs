//! When enough workers have come, and what becomes of them: from the first that is ready to a connected generation.

use std::net::SocketAddr;
use std::time::Duration;

use strath_core::{Assignment, BySpeed, Generation, Plan, Rank, Step, Timestamp, WorkerId};

use super::hanging::Stay;
use super::joining::Supply;
use super::{Coordinator, Gather, Session, Stage, Standing};
use crate::command::{CoordinatorCommand as Command, Place, Record};
use crate::decision::Decision;
use crate::event::Connection;
use crate::message::{
    Assign, CommunicatorId, CoordinatorMessage, FileBytes, Job, Member, Phase, Progress, Purpose, State, StateRef,
};

/// Workers that are ready wait so long for the next one that still loads its data and model.
const PREPARING_PATIENCE: Duration = Duration::from_secs(60);

impl Coordinator {
    /// Forms a generation of the workers that are ready, once enough have come.
    pub(super) fn form_if_enough(&mut self, now: Timestamp) {
        if self.stage != Stage::Gathering {
            return;
        }
        if let Some(why) = self.why_enough(now) {
            self.rewind();
            self.form(None, now, |_| false);
            self.note_formed(&why);
        } else if now >= self.gathers_until {
            let (Gather::Exactly(wanted) | Gather::AtLeast { workers: wanted, .. }) = self.settings.gather;
            let count = |standing| self.sessions.values().filter(|session| session.standing == standing).count();
            let (ready, preparing) = (count(Standing::Ready), count(Standing::Preparing));
            let timeout = self.settings.config.cluster.gather_timeout_s;
            self.fail(format!(
                "{ready} of the {wanted} workers that the run begins with were ready after {timeout} s (cluster.gather_timeout_s), and \
                 {preparing} more loaded data and model; start them and begin again with --resume, or wait longer"
            ));
        }
    }

    /// Whether some worker loads its data and model, and those who are ready wait for it: for [`PREPARING_PATIENCE`] since the newest of them came.
    pub(super) fn awaits_the_preparing(&self, now: Timestamp) -> bool {
        let is_awaited = now.since(self.last_arrival) < PREPARING_PATIENCE;
        is_awaited && self.sessions.values().any(|session| session.standing == Standing::Preparing)
    }

    /// Why those who are there are enough for the first generation, where they are.
    fn why_enough(&self, now: Timestamp) -> Option<String> {
        let ready = || self.sessions.values().filter(|s| s.standing == Standing::Ready).count();
        // What is known at once comes first: sessions are many.
        match self.settings.gather {
            Gather::Exactly(wanted) => {
                let enough = self.sessions.len() >= wanted && ready() >= wanted;
                enough.then(|| format!("all {wanted} workers are ready"))
            }
            Gather::AtLeast { workers, quiet } => {
                let enough = now.since(self.last_arrival) >= quiet
                    && !self.awaits_the_preparing(now)
                    && ready() >= workers.max(1);
                enough.then(|| {
                    format!(
                        "{} workers are ready, {workers} are needed, and none has come for {} ms",
                        ready(),
                        quiet.as_millis()
                    )
                })
            }
        }
    }

    /// Notes that a generation was formed, where it was: the run may have been found not to fit its data.
    pub(super) fn note_formed(&mut self, why: &str) {
        if self.stage == Stage::Connecting {
            let step = self.sessions.values().find(|s| s.rank.is_some()).map_or(Step(0), |s| s.progress.step);
            let (generation, world_size) = (self.generation, self.members.len());
            self.decide(Decision::Forms { generation, world_size, step }, why);
        }
    }

    /// Whoever takes part in a generation that is formed now, in order of rank, and what each computes.
    fn places_by_speed(&self, plan: &Plan, now: Timestamp) -> (Vec<(WorkerId, Connection, SocketAddr)>, Assignment) {
        let mut ready: Vec<(WorkerId, Connection, SocketAddr)> = Vec::new();
        for (connection, session) in &self.sessions {
            if let (true, Some((worker, register))) = (session.may_take_part(), &session.identity) {
                ready.push((*worker, *connection, register.ring_address));
            }
        }
        ready.sort_unstable();
        let sessions: Vec<&Session> = ready.iter().filter_map(|(_, c, _)| self.sessions.get(c)).collect();
        let BySpeed { order, assignment } = self.hand_out(plan, &sessions, now);
        (order.into_iter().map(|worker| ready[worker]).collect(), assignment)
    }

    /// Forms a generation of the workers that are ready. `again`: where it begins and why, where it is not the first. `keeps`: whether a
    /// worker holds the state that it begins with.
    pub(super) fn form(&mut self, again: Option<(Step, &str)>, now: Timestamp, keeps: impl Fn(&Session) -> bool) {
        let Some((_, reference)) = self.reference.clone() else { return };
        let config = &self.settings.config;
        let plan = match config.plan() {
            Ok(plan) => plan,
            Err(error) => return self.misconfigured(error.to_string()),
        };
        let steps = Step(config.steps(reference.data.train_examples as usize));
        let kept = self.kept_step().unwrap_or_default();
        let start = again.map_or(kept, |(step, _)| step);
        if self.settings.job == Job::Train && (steps.0 == 0 || start > steps) {
            return self.misconfigured(format!(
                "the run has {steps} steps and would begin at step {start}: {} examples in batches of {}; raise run.epochs or \
                 run.steps, or lower batch.size",
                reference.data.train_examples,
                plan.batch()
            ));
        }
        let (ready, assignment) = self.places_by_speed(&plan, now);
        self.somebody_came = self.has_followers();
        self.feeds_are_over();
        self.generation = Generation(self.generation.0 + 1);
        let generation = self.generation;
        let members: Vec<Member> = ready
            .iter()
            .map(|(worker, _, ring_address)| Member { worker: *worker, ring_address: *ring_address })
            .collect();
        self.members.clone_from(&members);
        self.commands.push_back(Command::PersistGeneration {
            generation,
            members: members.clone(),
            bounds: assignment.bounds().to_vec(),
            next_worker: self.next_worker,
        });
        let idle = ready.len().saturating_sub(plan.micro_batches().len());
        if idle > 0 && self.settings.job == Job::Train {
            // As many names as a line takes.
            let shown = ready[ready.len() - idle..].iter().take(4);
            let mut names: Vec<String> = shown.filter_map(|(_, c, _)| Some(self.sessions.get(c)?.name())).collect();
            if idle > names.len() {
                names.push(format!("{} more", idle - names.len()));
            }
            self.commands.push_back(Command::Record(Record::Warning(format!(
                "{idle} of {} workers idle, as a batch has {} micro-batches: {}; lower sam.m or batch.micro to give them work",
                ready.len(),
                plan.micro_batches().len(),
                names.join(", ")
            ))));
        }
        self.commands.push_back(Command::Record(Record::Generation {
            generation,
            members: self.places(&assignment),
            step: start,
            steps,
            cause: match again {
                Some((_, cause)) => cause.into(),
                None if start == Step(0) => "the run began".into(),
                None => "the run was resumed".into(),
            },
        }));
        let lacks = |(_, connection, _): &(WorkerId, Connection, SocketAddr)| {
            !self.sessions.get(connection).is_some_and(&keeps)
        };
        let some_are_sent = self.settings.start.is_some() && ready.iter().any(lacks);
        let state = self.settings.start.as_ref().filter(|_| some_are_sent).map(|from| StateRef {
            source: from.source.clone(),
            model: from.model.digest(),
            optimizer: from.optimizer.as_ref().map(FileBytes::digest),
        });
        let first = Assign {
            generation,
            rank: Rank(0),
            members,
            bounds: assignment.bounds().to_vec(),
            start,
            steps,
            state,
            keeps: false,
            // Whoever made the state that the run goes on from may have ended before it did what follows.
            unsettled: start > Step(0) && self.settled != Some(start),
            some_are_sent,
            ticket: self.settings.ring_key.ticket(self.settings.run, generation),
        };
        for (rank, (_, connection, _)) in (0..).map(Rank).zip(&ready) {
            let keeps = self.sessions.get(connection).is_some_and(&keeps);
            self.update(*connection, |session| {
                session.rank = Some(rank);
                session.standing = Standing::Connecting;
                session.held = None;
                session.supply = if some_are_sent && !keeps { Supply::Sent } else { Supply::Untried };
                session.measured.begin(start);
                session.progress = Progress { generation, step: start, phase: Phase::Connecting, images_per_s: 0.0 };
            });
            let state = if keeps { None } else { first.state.clone() };
            self.assign(*connection, Assign { rank, state, keeps, ..first.clone() });
        }
        self.steps = steps;
        self.patience.begin(self.balance.steps(), self.settings.lease());
        self.hung.clear();
        self.balance.begin();
        self.assignment = Some(assignment);
        self.stage = Stage::Connecting;
    }

    /// The current generation for the run's record.
    pub(super) fn places(&self, assignment: &Assignment) -> Vec<Place> {
        let place = |(rank, member): (Rank, &Member)| {
            let host = self.session_of(member.worker).and_then(|s| Some(s.identity.as_ref()?.1.host.clone()));
            Place { worker: member.worker, host: host.unwrap_or_default(), micro_batches: assignment.of(rank).len() }
        };
        (0..).map(Rank).zip(&self.members).map(place).collect()
    }

    /// Tells a worker its place, and sends the state that it announces.
    fn assign(&mut self, connection: Connection, assign: Assign) {
        let (generation, keeps) = (assign.generation, assign.keeps);
        self.send(connection, CoordinatorMessage::Assign(assign));
        if let Some(from) = self.settings.start.clone().filter(|_| !keeps) {
            let state = State {
                generation,
                step: from.step,
                purpose: Purpose::Start,
                model: from.model,
                optimizer: from.optimizer.unwrap_or_default(),
            };
            self.send(connection, CoordinatorMessage::State(state));
        }
    }

    /// Starts the generation once every rank's ring is connected.
    pub(super) fn ring_ready(
        &mut self,
        connection: Connection,
        (gpu, communicator): (Option<String>, Option<CommunicatorId>),
        now: Timestamp,
    ) {
        self.update(connection, |session| {
            session.standing = Standing::Connected;
            (session.gpu, session.communicator) = (gpu, communicator);
        });
        if self.stage != Stage::Connecting {
            return;
        }
        let is_missing = |session: &Session| session.rank.is_some() && session.standing != Standing::Connected;
        if self.sessions.values().any(is_missing) {
            return;
        }
        let (generation, communicator) = (self.generation, self.communicator());
        for connection in self.connections(|session| session.rank.is_some()) {
            self.update(connection, |session| {
                session.standing = Standing::Running;
                session.progress.phase = Phase::Ascent;
                session.stay = Stay::at(now);
            });
            self.send(connection, CoordinatorMessage::Start { generation, communicator: communicator.clone() });
            if self.stop_requested {
                self.send(connection, CoordinatorMessage::Stop { generation: self.generation });
            }
        }
        self.stage = Stage::Running;
        self.commands.push_back(Command::Record(Record::Started(self.generation)));
    }
}
