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

use strath_core::{Generation, Rank, Step, Timestamp};

use super::regroup::HANDOVER_PATIENCE;
use super::{Coordinator, Session, Stage, Standing};
use crate::Rejected;
use crate::command::{CoordinatorCommand as Command, Record};
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
        if self.stage != Stage::Running
            || self.settings.job != Job::Train
            || self.stop_requested
            || self.agreed.is_some()
            || self.pausing.is_some()
        {
            return;
        }
        self.reunite(now);
        if !self.somebody_came {
            return;
        }
        self.end_endless_feeds(now);
        let is_settled = !self.awaits_the_preparing(now) && now.since(self.last_arrival) >= self.quiet();
        if is_settled {
            self.have_newcomers_fed(now);
        }
        let lacks = |session: &Session| match session.standing {
            Standing::Following => !session.has_caught_up(),
            _ => session.may_be_fed(),
        };
        if self.sessions.values().any(lacks) {
            return;
        }
        let joins =
            |session: &&Session| session.standing == Standing::Following || (session.may_take_part() && is_settled);
        let names: Vec<String> = self.sessions.values().filter(joins).map(Session::name).collect();
        if !names.is_empty() {
            self.pause(format!("{} joined", names.join(", ")));
        }
    }

    /// Has whoever is ready, and was not fed yet, fed by a worker of the generation.
    fn have_newcomers_fed(&mut self, now: Timestamp) {
        let (generation, steps) = (self.generation, self.steps);
        for newcomer in self.connections(Session::may_be_fed) {
            let donor = self.donor_for(newcomer);
            let member = |connection: Connection| self.sessions.get(&connection).and_then(Session::member);
            let Some((donor, from, to)) = donor.and_then(|donor| Some((donor, member(donor)?, member(newcomer)?)))
            else {
                self.update(newcomer, |session| session.supply = Supply::Sent);
                continue;
            };
            let ticket = self.settings.ring_key.feed_ticket(self.settings.run, generation, from.worker, to.worker);
            self.update(newcomer, |session| {
                session.standing = Standing::Following;
                session.supply = Supply::Fed { donor, since: now, caught_up: false };
            });
            self.send(newcomer, CoordinatorMessage::Follow(Follow { generation, from, steps, ticket }));
            self.send(donor, CoordinatorMessage::Feed(Feed { generation, to, ticket }));
        }
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

    /// A newcomer that never comes close is sent the state.
    fn end_endless_feeds(&mut self, now: Timestamp) {
        for session in self.sessions.values_mut() {
            if let (Standing::Following, Supply::Fed { since, .. }) = (session.standing, session.supply)
                && now.since(since) >= HANDOVER_PATIENCE
            {
                (session.standing, session.supply) = (Standing::Ready, Supply::Sent);
            }
        }
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
