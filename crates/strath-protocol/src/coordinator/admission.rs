//! Who may take part, and when enough have come: from registration to a connected generation.

use std::net::SocketAddr;
use std::time::Duration;

use strath_core::config::Numerics;
use strath_core::{Assignment, Digest, Generation, Rank, Step, Timestamp, WorkerId};
use subtle::ConstantTimeEq;

use super::{Coordinator, Gather, Settings, Stage, Standing, Supply};
use crate::command::{CoordinatorCommand as Command, Record};
use crate::event::Connection;
use crate::message::{
    Admitted, Assign, CoordinatorMessage, Ending, Job, Member, Phase, Prepared, Progress, Purpose, Register, State,
    StateRef,
};

impl Coordinator {
    /// Admits a worker, or refuses it with one line.
    pub(super) fn register(&mut self, connection: Connection, mut register: Register, now: Timestamp) {
        if let Some(reason) = self.reason_to_refuse(&register) {
            return self.refuse(connection, reason);
        }
        self.replace_its_former_session(&register);
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
    }

    fn reason_to_refuse(&self, register: &Register) -> Option<String> {
        let Settings { version, token, .. } = &self.settings;
        if register.version != *version {
            return Some(format!(
                "the worker is version {}, the coordinator {version}; install the same version on both",
                register.version
            ));
        }
        if let Some(token) = token {
            let given = register.token.as_deref().unwrap_or_default();
            if !bool::from(given.as_bytes().ct_eq(token.as_bytes())) {
                return Some("the worker's token is not the one that this coordinator handed out".into());
            }
        }
        if matches!(self.stage, Stage::Connecting | Stage::Running) && self.settings.job != Job::Train {
            return Some("an evaluation that is at work cannot be joined; wait for it to end".into());
        }
        if matches!(self.stage, Stage::Draining(_)) {
            return Some("this run has failed and is about to end; start it again with --resume".into());
        }
        let most = self.settings.most_workers;
        if self.sessions.values().filter(|s| s.identity.is_some()).count() >= most {
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
        let same = self
            .sessions
            .values()
            .filter_map(|s| s.identity.as_ref())
            .find(|(_, o)| o.ring_address == register.ring_address && !is_same_process(o, register));
        if let Some((worker, other)) = same {
            return Some(format!(
                "its ring address {} is that of worker {worker} ({}) too; give each worker an address or port of its own with \
                 --listen or --advertise",
                register.ring_address, other.host
            ));
        }
        let other = self
            .sessions
            .values()
            .filter_map(|s| s.identity.as_ref())
            .find(|(_, other)| is_loopback(other.ring_address) != is_loopback(register.ring_address));
        other.map(|(worker, other)| {
            format!(
                "its ring address {} and that of worker {worker} ({}), {}, cannot reach each other, as one is loopback; give \
                 --advertise an address that every worker reaches",
                register.ring_address, other.host, other.ring_address
            )
        })
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
        let ready = || self.sessions.values().filter(|s| s.standing == Standing::Ready).count();
        let preparing = || self.sessions.values().any(|s| s.standing == Standing::Preparing);
        // What is known at once comes first: sessions are many.
        let enough = match self.settings.gather {
            Gather::Exactly(wanted) => self.sessions.len() >= wanted && ready() >= wanted,
            Gather::AtLeast { workers, quiet } => {
                now.since(self.last_arrival) >= quiet && !preparing() && ready() >= workers.max(1)
            }
        };
        if enough {
            self.rewind();
            self.form(None, |_| false);
        }
    }

    /// Forms a generation of the workers that are ready. `again`: where it begins and why, where it is not the first. `keeps`: whether a
    /// worker holds the state that it begins with.
    pub(super) fn form(&mut self, again: Option<(Step, &str)>, keeps: impl Fn(&super::Session) -> bool) {
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
        let mut ready: Vec<(WorkerId, Connection, SocketAddr)> = Vec::new();
        for (connection, session) in &self.sessions {
            let may_take_part = session.standing == Standing::Ready && !session.is_retiring;
            if let (true, Some((worker, register))) = (may_take_part, &session.identity) {
                ready.push((*worker, *connection, register.ring_address));
            }
        }
        ready.sort_unstable();
        self.somebody_came = self.has_followers();
        self.generation = Generation(self.generation.0 + 1);
        let generation = self.generation;
        let assignment = Assignment::balanced(&plan, ready.len());
        let members: Vec<Member> = ready
            .iter()
            .map(|(worker, _, ring_address)| Member { worker: *worker, ring_address: *ring_address })
            .collect();
        self.members.clone_from(&members);
        self.commands.push_back(Command::PersistGeneration {
            generation,
            members: members.clone(),
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
            world_size: ready.len() as u64,
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
            model: Digest::of(&from.model),
            optimizer: from.optimizer.as_ref().map(|bytes| Digest::of(bytes)),
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
                (session.held, session.supply) = (None, Supply::Untried);
                session.progress = Progress { generation, step: start, phase: Phase::Connecting, images_per_s: 0.0 };
            });
            let state = if keeps { None } else { first.state.clone() };
            self.assign(*connection, Assign { rank, state, keeps, ..first.clone() });
        }
        self.steps = steps;
        self.assignment = Some(assignment);
        self.stage = Stage::Connecting;
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
    pub(super) fn ring_ready(&mut self, connection: Connection) {
        self.update(connection, |session| session.standing = Standing::Connected);
        if self.stage != Stage::Connecting {
            return;
        }
        let is_missing = |session: &super::Session| session.rank.is_some() && session.standing != Standing::Connected;
        if self.sessions.values().any(is_missing) {
            return;
        }
        let ranked: Vec<Connection> =
            self.sessions.iter().filter(|(_, s)| s.rank.is_some()).map(|(connection, _)| *connection).collect();
        for connection in ranked {
            self.update(connection, |session| {
                session.standing = Standing::Running;
                session.progress.phase = Phase::Ascent;
            });
            self.send(connection, CoordinatorMessage::Start { generation: self.generation });
            if self.stop_requested {
                self.send(connection, CoordinatorMessage::Stop { generation: self.generation });
            }
        }
        self.stage = Stage::Running;
    }
}

/// Whether two introductions are of one process.
fn is_same_process(one: &Register, other: &Register) -> bool {
    (one.ring_address, one.pid, &one.host) == (other.ring_address, other.pid, &other.host)
}

fn is_loopback(address: SocketAddr) -> bool {
    // An IPv4 address in IPv6 clothes is loopback as well.
    address.ip().to_canonical().is_loopback()
}
