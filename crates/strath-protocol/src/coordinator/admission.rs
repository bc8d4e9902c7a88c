//! Who may take part, and when enough have come: from registration to a connected generation.

use std::net::SocketAddr;
use std::time::Duration;

use strath_core::config::Numerics;
use strath_core::{Assignment, BySpeed, Digest, Generation, Plan, Rank, Step, Timestamp, WorkerId};
use subtle::ConstantTimeEq;

use super::hanging::Stay;
use super::{Coordinator, Gather, Settings, Stage, Standing, Supply};
use crate::command::{CoordinatorCommand as Command, Place, Record};
use crate::decision::Decision;
use crate::event::Connection;
use crate::message::{
    Admitted, Assign, CoordinatorMessage, Ending, FileBytes, Job, Member, Phase, Prepared, Progress, Purpose, Register,
    State, StateRef,
};

impl Coordinator {
    /// Admits a worker, or refuses it with one line.
    pub(super) fn register(&mut self, connection: Connection, mut register: Register, now: Timestamp) {
        if let Some(reason) = self.reason_to_refuse(&register) {
            return self.refuse(connection, reason);
        }
        self.replace_its_former_session(&register);
        self.end_who_cannot_listen_there(&register);
        if let Some(returning) = register.returning.take() {
            return self.take_back(connection, register, *returning, now);
        }
        let worker = WorkerId(self.next_worker);
        self.next_worker += 1;
        let admitted = Admitted {
            worker,
            run: self.settings.run,
            configuration: self.settings.configuration.clone(),
            job: self.settings.job,
            lease: self.settings.lease(),
            rejoin_timeout: Duration::from_secs(self.settings.config.cluster.rejoin_timeout_s),
        };
        self.update(connection, |session| {
            session.identity = Some((worker, register));
            session.standing = Standing::Preparing;
            session.progress.phase = Phase::Preparing;
        });
        self.send(connection, CoordinatorMessage::Admitted(admitted));
        self.decide(Decision::Admits(worker), self.why_admitted());
    }

    /// Why a newcomer is admitted that nothing speaks against.
    fn why_admitted(&self) -> &'static str {
        match self.stage {
            Stage::Returning(_) => "it came while the workers of the former generation are waited for",
            Stage::Gathering => "the run gathers its workers",
            Stage::Connecting | Stage::Running => "it came, and has a part in the next generation",
            Stage::Regrouping(_) => "it came while the next generation is being formed",
            Stage::Draining(_) | Stage::Ended => "it came",
        }
    }

    fn reason_to_refuse(&self, register: &Register) -> Option<String> {
        let Settings { version, .. } = &self.settings;
        if register.version != *version {
            return Some(format!(
                "the worker is version {}, the coordinator {version}; install the same version on both",
                register.version
            ));
        }
        if let Some(reason) = self.wrong_token(register.token.as_deref()) {
            return Some(reason);
        }
        if matches!(self.stage, Stage::Connecting | Stage::Running) && self.settings.job != Job::Train {
            return Some("an evaluation that is at work cannot be joined; wait for it to end".into());
        }
        if matches!(self.stage, Stage::Draining(_)) {
            return Some("this run has failed and is about to end; start it again with --resume".into());
        }
        let most = self.settings.most_workers;
        // Whoever makes room for it does not count.
        let others = || self.sessions.values().filter_map(|s| s.identity.as_ref());
        if others().filter(|(_, other)| !self.makes_room(other, register)).count() >= most {
            return Some(format!(
                "this run has {most} workers already, the most there can be; add threads, not workers"
            ));
        }
        if register.ring_address.ip().is_unspecified() || register.ring_address.port() == 0 {
            return Some(format!(
                "its ring address {} is none that peers could dial; give --advertise an address and port that every worker \
                 reaches",
                register.ring_address
            ));
        }
        let same = others().find(|(_, o)| o.ring_address == register.ring_address && !self.makes_room(o, register));
        if let Some((worker, other)) = same {
            return Some(format!(
                "its ring address {} is that of worker {worker} ({}) too; give each worker an address or port of its own with \
                 --listen or --advertise",
                register.ring_address, other.host
            ));
        }
        let other = others().find(|(_, other)| is_loopback(other.ring_address) != is_loopback(register.ring_address));
        other.map(|(worker, other)| {
            format!(
                "its ring address {} and that of worker {worker} ({}), {}, cannot reach each other, as one is loopback; give \
                 --advertise an address that every worker reaches",
                register.ring_address, other.host, other.ring_address
            )
        })
    }

    /// What is wrong with a token, where one is asked for.
    pub(super) fn wrong_token(&self, given: Option<&str>) -> Option<String> {
        let token = self.settings.token.as_ref()?;
        let is_it: bool = given.unwrap_or_default().as_bytes().ct_eq(token.as_bytes()).into();
        (!is_it).then(|| "its token is not the one that this coordinator handed out".into())
    }

    /// Whether a worker that is there is no obstacle to one that comes: it is the same process, or one that is about to be done without.
    fn makes_room(&self, there: &Register, comes: &Register) -> bool {
        is_same_process(there, comes) || (is_succeeded(there, comes) && (self.survives() || self.can_do_without()))
    }

    /// A worker that died, or is as good as dead, and was not missed yet: another process of its host listens where it did.
    fn end_who_cannot_listen_there(&mut self, register: &Register) {
        let is_succeeded = |session: &super::Session| {
            session.identity.as_ref().is_some_and(|(_, there)| is_succeeded(there, register))
        };
        let succeeded = self.sessions.iter().find(|(_, session)| is_succeeded(session)).map(|(c, s)| (*c, s.name()));
        if let Some((connection, name)) = succeeded {
            let what =
                format!("{name} cannot listen at {} any more: process {} does", register.ring_address, register.pid);
            self.send(connection, CoordinatorMessage::End(Ending::Failed(what.clone())));
            self.leave(connection, what);
        }
    }

    /// A worker that was out of sight, and was not missed yet, has come back.
    fn replace_its_former_session(&mut self, register: &Register) {
        let is_former =
            |session: &super::Session| session.identity.as_ref().is_some_and(|(_, o)| is_same_process(o, register));
        let former = self.sessions.iter().find(|(_, session)| is_former(session)).map(|(c, s)| (*c, s.name()));
        if let Some((connection, name)) = former.filter(|_| self.survives() || self.can_do_without()) {
            self.leave(connection, format!("{name} has begun another session"));
        }
    }

    pub(super) fn refuse(&mut self, connection: Connection, reason: String) {
        if let Some(session) = self.sessions.get(&connection) {
            self.decide(Decision::Refuses { who: session.name() }, &reason);
        }
        self.part_with(connection, Ending::Refused(reason));
    }

    /// Ends a session with a last word.
    pub(super) fn part_with(&mut self, connection: Connection, ending: Ending) {
        self.send(connection, CoordinatorMessage::End(ending));
        self.commands.push_back(Command::Close(connection));
        self.sessions.remove(&connection);
    }

    /// Compares a worker's data and numerics with the run's.
    pub(super) fn prepared(&mut self, connection: Connection, prepared: Prepared, now: Timestamp) {
        let name = self.sessions.get(&connection).map(super::Session::name).unwrap_or_default();
        if let Some(reason) = self.difference(&name, &prepared) {
            return self.refuse(connection, reason);
        }
        self.note_arrival(name, prepared, now);
        self.update(connection, |session| {
            session.standing = Standing::Ready;
            session.progress.phase = Phase::Waiting;
        });
    }

    /// A worker has come whose data and numerics are the run's.
    pub(super) fn note_arrival(&mut self, name: String, prepared: Prepared, now: Timestamp) {
        self.reference.get_or_insert((name, prepared));
        self.last_arrival = now;
        self.somebody_came = true;
    }

    pub(super) fn difference(&self, name: &str, prepared: &Prepared) -> Option<String> {
        let compare_numerics = self.settings.config.cluster.numerics == Numerics::Same;
        let data = |whose: &str, digest: Digest| {
            format!(
                "{name} has other data than {whose}: SHA-256 {}, expected {digest}; bring the same files to every machine",
                prepared.data.digest
            )
        };
        let numerics = |whose: &str, digest: Digest| {
            format!(
                "{name} computes other bits than {whose}: probe {}, expected {digest}; use machines of one kind, or set \
                 cluster.numerics = \"any\" and do without equal bits",
                prepared.numerics
            )
        };
        if let Some((first, reference)) = &self.reference {
            if prepared.data.digest != reference.data.digest {
                return Some(data(first, reference.data.digest));
            }
            if (prepared.parameters, prepared.statistics) != (reference.parameters, reference.statistics) {
                return Some(format!(
                    "{name} built a model of another size than {first}; install the same version on both"
                ));
            }
            if compare_numerics && prepared.numerics != reference.numerics {
                return Some(numerics(first, reference.numerics));
            }
        }
        let start = self.settings.start.as_ref()?;
        if let Some(digest) = start.data.filter(|digest| *digest != prepared.data.digest) {
            return Some(data(&format!("the run that wrote {}", start.source), digest));
        }
        let written = start.numerics.filter(|digest| compare_numerics && *digest != prepared.numerics)?;
        Some(numerics(&format!("the machine that wrote {}", start.source), written))
    }

    /// Forms a generation of the workers that are ready, once enough have come.
    pub(super) fn form_if_enough(&mut self, now: Timestamp) {
        if self.stage != Stage::Gathering {
            return;
        }
        if let Some(why) = self.why_enough(now) {
            self.rewind();
            self.form(None, now, |_| false);
            self.note_formed(&why);
        }
    }

    /// Why those who are there are enough for the first generation, where they are.
    fn why_enough(&self, now: Timestamp) -> Option<String> {
        let ready = || self.sessions.values().filter(|s| s.standing == Standing::Ready).count();
        let preparing = || self.sessions.values().any(|s| s.standing == Standing::Preparing);
        // What is known at once comes first: sessions are many.
        match self.settings.gather {
            Gather::Exactly(wanted) => {
                let enough = self.sessions.len() >= wanted && ready() >= wanted;
                enough.then(|| format!("all {wanted} workers are ready"))
            }
            Gather::AtLeast { workers, quiet } => {
                let enough = now.since(self.last_arrival) >= quiet && !preparing() && ready() >= workers.max(1);
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
            let may_take_part = session.standing == Standing::Ready && !session.is_retiring;
            if let (true, Some((worker, register))) = (may_take_part, &session.identity) {
                ready.push((*worker, *connection, register.ring_address));
            }
        }
        ready.sort_unstable();
        let sessions: Vec<&super::Session> = ready.iter().filter_map(|(_, c, _)| self.sessions.get(c)).collect();
        let BySpeed { order, assignment } = self.hand_out(plan, &sessions, now);
        (order.into_iter().map(|worker| ready[worker]).collect(), assignment)
    }

    /// Forms a generation of the workers that are ready. `again`: where it begins and why, where it is not the first. `keeps`: whether a
    /// worker holds the state that it begins with.
    pub(super) fn form(
        &mut self,
        again: Option<(Step, &str)>,
        now: Timestamp,
        keeps: impl Fn(&super::Session) -> bool,
    ) {
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
    pub(super) fn ring_ready(&mut self, connection: Connection, now: Timestamp) {
        self.update(connection, |session| session.standing = Standing::Connected);
        if self.stage != Stage::Connecting {
            return;
        }
        let is_missing = |session: &super::Session| session.rank.is_some() && session.standing != Standing::Connected;
        if self.sessions.values().any(is_missing) {
            return;
        }
        for connection in self.connections(|session| session.rank.is_some()) {
            self.update(connection, |session| {
                session.standing = Standing::Running;
                session.progress.phase = Phase::Ascent;
                session.stay = Stay::at(now);
            });
            self.send(connection, CoordinatorMessage::Start { generation: self.generation });
            if self.stop_requested {
                self.send(connection, CoordinatorMessage::Stop { generation: self.generation });
            }
        }
        self.stage = Stage::Running;
        self.commands.push_back(Command::Record(Record::Started(self.generation)));
    }
}

/// Whether two introductions are of one process.
fn is_same_process(one: &Register, other: &Register) -> bool {
    (one.nonce, one.pid, &one.host) == (other.nonce, other.pid, &other.host)
}

/// Whether another process of a worker's host listens where that worker did: only one can.
fn is_succeeded(there: &Register, comes: &Register) -> bool {
    (there.ring_address, &there.host) == (comes.ring_address, &comes.host) && !is_same_process(there, comes)
}

fn is_loopback(address: SocketAddr) -> bool {
    // An IPv4 address in IPv6 clothes is loopback as well.
    address.ip().to_canonical().is_loopback()
}
