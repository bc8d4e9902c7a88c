//! Workers that join a generation at work: each is fed by one of its workers while all go on, and has a part in the next generation, which
//! begins at a state that everyone holds by then.
//!
//! ```text
//! Ready ── Follow, and Feed to the donor ──> Following ── CaughtUp of all ──> Pause: the generation ends after a step
//!   ▲                                            │                                 │
//!   └── Holds, and the reason: sent the state ───┘          Holds: Ready, with the state that the others halt with
//! ```
//!
//! A generation that ends otherwise is not waited for by those who are not close behind: they follow the next one. Where they are needed they
//! take part at once, and are sent the state.

use std::time::Duration;

use strath_core::{Generation, Rank, Step, Timestamp};

use super::regroup::HANDOVER_PATIENCE;
use super::{Coordinator, Session, Stage, Standing};
use crate::Rejected;
use crate::command::{CoordinatorCommand as Command, Record};
use crate::decision::Decision;
use crate::event::Connection;
use crate::message::{CoordinatorMessage, Feed, Follow, Holds, Job, Member};

/// How a worker without the state comes by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Supply {
    /// It may be fed.
    Untried,
    /// It is fed.
    Fed {
        /// By whom.
        donor: Connection,
        /// Since when.
        since: Timestamp,
        /// Whether at most a step is missing.
        caught_up: bool,
    },
    /// The coordinator sends it as the next generation begins: it cannot be fed.
    Sent,
}

/// What is to be done about those who have come since the generation was formed.
#[derive(Debug, PartialEq, Eq)]
enum Reception {
    /// Nothing, until something happens or time passes.
    Wait,
    /// One is fed by a worker of the generation.
    Feed { newcomer: Connection, donor: Connection, why: String },
    /// One is sent the state as the next generation begins.
    Send(Connection, String),
    /// The generation ends after a step, for another that has them.
    Pause(String),
}

impl Session {
    /// Where it listens for peers, if it is known.
    fn member(&self) -> Option<Member> {
        let (worker, register) = self.identity.as_ref()?;
        Some(Member { worker: *worker, ring_address: register.ring_address })
    }

    /// Whether it waits for a place and has yet to come by the state.
    fn may_be_fed(&self) -> bool {
        self.may_take_part() && self.supply == Supply::Untried
    }

    fn has_caught_up(&self) -> bool {
        matches!(self.supply, Supply::Fed { caught_up: true, .. })
    }
}

impl Coordinator {
    /// Workers that have come since the generation was formed have a part in the next one, which begins once they hold what the others do
    /// and none has come for a while.
    pub(super) fn welcome(&mut self, now: Timestamp) {
        if self.takes_in_newcomers() {
            self.reunite(now);
        }
        loop {
            match self.reception(now) {
                Reception::Wait => return,
                Reception::Feed { newcomer, donor, why } => self.have_fed(newcomer, donor, &why, now),
                Reception::Send(newcomer, why) => self.send_the_state(newcomer, &why),
                Reception::Pause(cause) => self.pause(cause),
            }
        }
    }

    /// Whether the generation at work is one that another may follow.
    fn takes_in_newcomers(&self) -> bool {
        self.stage == Stage::Running
            && self.settings.job == Job::Train
            && !self.stop_requested
            && self.agreed.is_none()
            && self.pausing.is_none()
    }

    /// What comes next for those who have come.
    fn reception(&self, now: Timestamp) -> Reception {
        if !self.takes_in_newcomers() || !self.somebody_came {
            return Reception::Wait;
        }
        if let Some((newcomer, fed_for)) = self.endless_feed(now) {
            return Reception::Send(newcomer, format!("it has not caught up in {} s of being fed", fed_for.as_secs()));
        }
        let is_settled = !self.awaits_the_preparing(now) && now.since(self.last_arrival) >= self.quiet();
        let mut unfed = self.sessions.iter().filter(|(_, session)| session.may_be_fed());
        if let Some((newcomer, _)) = unfed.next() {
            return if is_settled { self.supply_for(*newcomer) } else { Reception::Wait };
        }
        let follows = |session: &&Session| session.standing == Standing::Following;
        if self.sessions.values().filter(follows).any(|session| !session.has_caught_up()) {
            return Reception::Wait;
        }
        let joins = |session: &&Session| follows(session) || (session.may_take_part() && is_settled);
        let names: Vec<String> = self.sessions.values().filter(joins).map(Session::name).collect();
        if names.is_empty() { Reception::Wait } else { Reception::Pause(format!("{} joined", names.join(", "))) }
    }

    /// A newcomer that has been fed for too long, and for how long.
    fn endless_feed(&self, now: Timestamp) -> Option<(Connection, Duration)> {
        let fed_for = |session: &Session| match (session.standing, session.supply) {
            (Standing::Following, Supply::Fed { since, .. }) => Some(now.since(since)),
            _ => None,
        };
        let mut feeds = self.sessions.iter().filter_map(|(connection, session)| Some((*connection, fed_for(session)?)));
        feeds.find(|(_, fed_for)| *fed_for >= HANDOVER_PATIENCE)
    }

    /// How a newcomer comes by the state.
    fn supply_for(&self, newcomer: Connection) -> Reception {
        match self.donor_for(newcomer) {
            Some(donor) => {
                let why = format!("it came while generation {} is at work", self.generation);
                Reception::Feed { newcomer, donor, why }
            }
            None => {
                Reception::Send(newcomer, format!("nobody of generation {} is at work to feed it", self.generation))
            }
        }
    }

    /// Has a newcomer fed by a worker of the generation.
    fn have_fed(&mut self, newcomer: Connection, donor: Connection, why: &str, now: Timestamp) {
        let member = |connection: Connection| self.sessions.get(&connection).and_then(Session::member);
        let (Some(from), Some(to)) = (member(donor), member(newcomer)) else {
            return self.send_the_state(newcomer, "where it or its donor listens is not known");
        };
        let (generation, steps) = (self.generation, self.steps);
        let ticket = self.settings.ring_key.feed_ticket(self.settings.run, generation, from.worker, to.worker);
        self.decide(Decision::Feeds { worker: to.worker, donor: from.worker }, why);
        self.update(newcomer, |session| {
            session.standing = Standing::Following;
            session.supply = Supply::Fed { donor, since: now, caught_up: false };
        });
        self.send(newcomer, CoordinatorMessage::Follow(Follow { generation, from, steps, ticket }));
        self.send(donor, CoordinatorMessage::Feed(Feed { generation, to, ticket }));
    }

    /// A newcomer is fed no longer, or not at all: it is sent the state as the next generation begins.
    fn send_the_state(&mut self, newcomer: Connection, why: &str) {
        let worker =
            self.sessions.get(&newcomer).and_then(|session| session.identity.as_ref()).map(|(worker, _)| *worker);
        if let Some(worker) = worker {
            self.decide(Decision::Sends(worker), why);
        }
        self.update(newcomer, |session| (session.standing, session.supply) = (Standing::Ready, Supply::Sent));
    }

    /// Who feeds a newcomer: not rank 0, which writes checkpoints, where there is another; rather one of its own host, so that no network
    /// carries it; then whoever feeds fewest.
    fn donor_for(&self, newcomer: Connection) -> Option<Connection> {
        let host = |session: &Session| session.member().map(|member| member.ring_address.ip());
        let here = self.sessions.get(&newcomer).and_then(host);
        let fed_by = |donor: Connection| {
            let is_its = |session: &&Session| matches!(session.supply, Supply::Fed { donor: by, .. } if by == donor);
            self.sessions.values().filter(|session| session.standing == Standing::Following).filter(is_its).count()
        };
        let is_at_work = |(_, session): &(&Connection, &Session)| session.standing == Standing::Running;
        let rank = |(connection, session): &(&Connection, &Session)| {
            let is_elsewhere = host(session) != here;
            (session.rank == Some(Rank(0)), is_elsewhere, fed_by(**connection), session.rank)
        };
        self.sessions.iter().filter(is_at_work).min_by_key(rank).map(|(connection, _)| *connection)
    }

    /// A newcomer is at most a step behind.
    pub(super) fn caught_up(
        &mut self,
        connection: Connection,
        generation: Generation,
        step: Step,
    ) -> Result<(), Rejected> {
        Self::expect(self.session(connection)?, Standing::Following, "CaughtUp")?;
        self.check_generation(generation, "CaughtUp")?;
        self.update(connection, |session| {
            session.progress.step = step;
            if let Supply::Fed { caught_up, .. } = &mut session.supply {
                *caught_up = true;
            }
        });
        Ok(())
    }

    /// What a worker without a place holds.
    pub(super) fn holds(&mut self, connection: Connection, holds: Holds) -> Result<(), Rejected> {
        let session = self.session(connection)?;
        if !matches!(session.standing, Standing::Following | Standing::Ready) {
            return Err(Rejected::OutOfOrder { what: "Holds", state: session.standing.name() });
        }
        let Holds { generation, held, broken } = holds;
        let name = session.name();
        // A feed that ends with its generation says nothing against the next.
        let is_broken = broken.is_some() && generation == self.generation && self.stage == Stage::Running;
        self.update(connection, |session| {
            session.standing = Standing::Ready;
            session.supply = if is_broken { Supply::Sent } else { Supply::Untried };
            // Of a feed that brought nothing it keeps what it held before.
            if let Some((step, _)) = held {
                (session.held, session.was_fed, session.progress.step) = (held, true, step);
            }
        });
        self.somebody_came = true;
        if let (Some(reason), true) = (broken, is_broken) {
            let warning = format!("{name} could not follow the others and is sent the state: {reason}");
            self.commands.push_back(Command::Record(Record::Warning(warning)));
        }
        Ok(())
    }

    /// Whether the ranks, which have all halted, wait for newcomers that were close behind: those whose donor is there, and all where nobody
    /// else holds a state.
    pub(super) fn awaits_followers(&self) -> bool {
        let holds = |session: &Session| session.standing == Standing::Ready && session.held.is_some();
        let are_alone = !self.sessions.values().any(holds);
        self.sessions.values().any(|session| match session.supply {
            Supply::Fed { donor, caught_up: true, .. } => {
                session.standing == Standing::Following && (are_alone || self.sessions.contains_key(&donor))
            }
            _ => false,
        })
    }

    /// Those who follow are needed, whatever they hold.
    pub(super) fn call_in_followers(&mut self) {
        for session in self.sessions.values_mut() {
            if session.standing == Standing::Following {
                (session.standing, session.supply) = (Standing::Ready, Supply::Sent);
            }
        }
    }

    /// A generation begins without those who follow: whoever was close behind the one before it is so no longer, and says what it holds once
    /// its feed has ended.
    pub(super) fn feeds_are_over(&mut self) {
        for session in self.sessions.values_mut() {
            if let Supply::Fed { caught_up, .. } = &mut session.supply {
                *caught_up = false;
            }
        }
    }

    /// Whether somebody follows.
    pub(super) fn has_followers(&self) -> bool {
        self.sessions.values().any(|session| session.standing == Standing::Following)
    }
}
