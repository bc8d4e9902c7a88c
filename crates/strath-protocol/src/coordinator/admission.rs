//! Who may take part: from registration to data and model that are found to be those of the others.

use std::net::SocketAddr;
use std::time::Duration;

use strath_core::config::Numerics;
use strath_core::{Digest, Timestamp, WorkerId};
use subtle::ConstantTimeEq;

use super::{Coordinator, Settings, Stage, Standing};
use crate::command::CoordinatorCommand as Command;
use crate::decision::Decision;
use crate::event::Connection;
use crate::message::{Admitted, CoordinatorMessage, Ending, Job, Phase, Prepared, Register};

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
            job: self.settings.job.clone(),
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
        let unfit =
            self.difference(&name, &prepared).or_else(|| self.unfit_to_sum_by_itself(connection, &name, &prepared));
        if let Some(reason) = unfit {
            return self.refuse(connection, reason);
        }
        let gpu = prepared.gpu.clone();
        self.note_arrival(name, prepared, now);
        self.update(connection, |session| {
            session.gpu = gpu;
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
