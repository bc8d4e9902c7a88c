//! A generation that is over while the run goes on: everyone leaves it and says what state it holds, and of those who are there a new
//! one is formed.
//!
//! ```text
//! a worker is lost or deviates, or every rank rests (`pause.rs`) ──► Halt to every rank ──► Halted (step, digest) from each, or a lease of silence
//!   ──► the furthest state; SendState to one who holds it, if somebody lacks it ──► State ──► Assign, State ──► as in the beginning
//! ```
//!
//! No commit protocol: with `reduce = "exact"` a state is a function of its step, so an interrupted step is computed again to the same
//! bits, and a worker is at most one step ahead of another.

use std::collections::BTreeMap;
use std::time::Duration;

use strath_core::config::Reduce;
use strath_core::{Digest, Step, Timestamp};

use super::{Coordinator, Gather, Session, Stage, Standing, Start, Supply};
use crate::Rejected;
use crate::command::{CoordinatorCommand as Command, Outcome, Record};
use crate::decision::Decision;
use crate::event::Connection;
use crate::message::{CoordinatorMessage, Ending, Halted, Job, Purpose, Report, State, in_order};

/// A worker that was told to halt and lives, but does not, is given up after this time: its training hangs.
/// An evaluation and a step of a large model take their time, and are not interrupted.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);
/// So many times as long where nobody else holds the state that it leaves.
pub(super) const LAST_HOLDERS: u32 = 4;
/// A state that was asked for, or is being written, is waited for so long.
pub(super) const HANDOVER_PATIENCE: Duration = Duration::from_secs(600);
/// Generations that end without a step: a run whose ring never holds comes to an end.
const MOST_FRUITLESS: u32 = 10;

/// A generation that is over.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Regroup {
    /// Why it is over.
    cause: String,
    /// Since when. `None` until the event that ended it has been taken in.
    since: Option<Timestamp>,
    /// Who was asked to hand over the state of which step.
    asked: Option<(Connection, Step, Digest)>,
    /// When what it waits for next began.
    waits_since: Option<Timestamp>,
    /// Since when every rank has halted and one that follows is waited for.
    pub(super) halted_since: Option<Timestamp>,
}

impl Regroup {
    /// Since when it is over, once that is known.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.since
    }

    /// Who was asked to hand over the state of which step.
    pub(super) fn asked(&self) -> Option<(Connection, Step)> {
        self.asked.map(|(connection, step, _)| (connection, step))
    }
}

/// Where the next generation begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// At a state that workers hold.
    Held(Step, Digest),
    /// At the newest state that the coordinator has, or the seed's.
    Kept,
}

impl Coordinator {
    /// Whether the run goes on when a worker is lost.
    pub(super) fn survives(&self) -> bool {
        let has_begun =
            matches!(self.stage, Stage::Returning(_) | Stage::Connecting | Stage::Running | Stage::Regrouping(_));
        has_begun && self.settings.job == Job::Train
    }

    /// Ends the generation, because of what is said; of several causes the last counts, which knows more.
    pub(super) fn regroup(&mut self, cause: String) {
        self.suspicion = None;
        if let Stage::Regrouping(regroup) = &mut self.stage {
            regroup.cause = cause;
            // Whoever was asked for its state may be the one that is gone.
            (regroup.asked, regroup.waits_since) = (None, None);
            return;
        }
        self.end_generation(cause);
        let message = CoordinatorMessage::Halt { generation: self.generation, recorded: self.recorded() };
        if !matches!(self.stage, Stage::Regrouping(_)) {
            // It has failed.
            return;
        }
        for connection in self.connections(|session| session.rank.is_some()) {
            self.update(connection, |session| session.standing = Standing::Halting);
            self.send(connection, message.clone());
        }
    }

    /// The generation is over: its ranks leave it, or have left it.
    pub(super) fn end_generation(&mut self, cause: String) {
        self.pausing = None;
        let recorded = self.recorded();
        self.fruitless = if self.ended_at == Some(recorded) { self.fruitless + 1 } else { 0 };
        self.ended_at = Some(recorded);
        if self.fruitless >= MOST_FRUITLESS {
            return self.fail(format!("{cause}; {MOST_FRUITLESS} generations have ended without a step"));
        }
        self.decide(Decision::Regroups { generation: self.generation }, &cause);
        self.stage =
            Stage::Regrouping(Regroup { cause, since: None, asked: None, waits_since: None, halted_since: None });
    }

    /// The step of the newest state that the coordinator has; `None`: only the seed's.
    pub(super) fn kept_step(&self) -> Option<Step> {
        self.settings.start.as_ref().map(|start| start.step)
    }

    /// A worker has left its generation.
    pub(super) fn halted(&mut self, connection: Connection, halted: Halted) -> Result<(), Rejected> {
        let session = self.session(connection)?;
        // Others may be on their way back to a coordinator that was started again: it goes on once they are here.
        let may_rest = matches!(self.stage, Stage::Running | Stage::Returning(_));
        let is_at_work = session.standing == Standing::Running && may_rest;
        if !is_at_work {
            Self::expect(session, Standing::Halting, "Halted")?;
        }
        self.check_generation(halted.generation, "Halted")?;
        if is_at_work && self.stage == Stage::Running {
            self.rests(connection);
        }
        self.note_halted(connection, halted);
        Ok(())
    }

    /// What a worker says that waits for the next generation.
    pub(super) fn note_halted(&mut self, connection: Connection, halted: Halted) {
        for report in in_order(halted.unrecorded, halted.evaluations) {
            match report {
                Report::Step(report) => self.record_step(report),
                Report::Evaluation(report) => self.record_evaluation(report),
            }
        }
        self.update(connection, |session| {
            session.standing = Standing::Ready;
            session.rank = None;
            session.finished = None;
            session.held = halted.held.filter(|_| !session.deviates);
            (session.was_fed, session.supply) = (false, Supply::Untried);
            session.deviates = false;
            if let Some((_, register)) = &mut session.identity {
                register.ring_address = halted.ring_address;
            }
        });
    }

    /// A state that a worker was asked for.
    pub(super) fn handed_over(&mut self, connection: Connection, state: State) -> Result<(), Rejected> {
        let out_of_order = Rejected::OutOfOrder { what: "State", state: "nobody was asked for it" };
        let Stage::Regrouping(Regroup { asked: Some((from, step, _)), .. }) = &self.stage else {
            return Err(out_of_order);
        };
        if *from != connection || *step != state.step || state.generation != self.generation {
            return Err(out_of_order);
        }
        let source = format!("{} at step {step}", self.session(connection)?.name());
        self.keep(&state, source);
        if let Stage::Regrouping(regroup) = &mut self.stage {
            (regroup.asked, regroup.waits_since) = (None, None);
        }
        // What the run may have to go on from is on the disk.
        self.save(State { purpose: Purpose::Checkpoint, ..state });
        Ok(())
    }

    /// Remembers a state, so that the run can go on from it when nobody is left that holds one.
    pub(super) fn keep(&mut self, state: &State, source: String) {
        let (data, numerics) = self.settings.start.as_ref().map_or((None, None), |start| (start.data, start.numerics));
        self.settings.start = Some(Start {
            step: state.step,
            source,
            model: state.model.clone(),
            optimizer: (!state.optimizer.is_empty()).then(|| state.optimizer.clone()),
            data,
            numerics,
        });
    }

    /// How long none must have come before a generation is formed.
    pub(super) fn quiet(&self) -> Duration {
        match self.settings.gather {
            Gather::Exactly(_) => Duration::ZERO,
            Gather::AtLeast { quiet, .. } => quiet,
        }
    }

    /// Goes on once every worker that lives has left the old generation.
    pub(super) fn settle_regroup(&mut self, now: Timestamp) {
        let Stage::Regrouping(regroup) = &mut self.stage else { return };
        let since = *regroup.since.get_or_insert(now);
        self.give_up_the_hanging(now.since(since), now);
        if self.sessions.values().any(|session| session.standing == Standing::Halting) {
            return;
        }
        if let Some(why) = self.why_await_members(now) {
            return self.decide(Decision::Waits, &why);
        }
        if self.awaits_followers(now) {
            return;
        }
        let Stage::Regrouping(Regroup { cause, asked, .. }) = &self.stage else { return };
        let (cause, asked) = (cause.clone(), *asked);
        let is_waiting = asked.is_some() || (self.stop_requested && !self.results.saving.is_empty());
        let is_late = is_waiting && now.since(self.waits_since(now)) >= HANDOVER_PATIENCE;
        if let Some((holder, step, _)) = asked {
            let name = self.sessions.get(&holder).map(Session::name).unwrap_or_default();
            if is_late {
                self.leave(holder, format!("{name} was asked for its state of step {step} and did not send it"));
            }
            return;
        }
        if self.stop_requested {
            return self.stop_between_generations(is_late);
        }
        let least = self.least_workers();
        let members = match self.members_at_hand(now) {
            members if members < least => {
                self.call_in_followers();
                self.members_at_hand(now)
            }
            members => members,
        };
        let origin = self.origin();
        if let Origin::Held(step, digest) = origin
            && self.must_be_sent(step, digest, members, least)
        {
            return self.ask_for(step, digest);
        }
        if members < least {
            return self.wait_for_workers(members, least, now, &cause);
        }
        self.release_the_retiring();
        match origin {
            Origin::Held(step, digest) => {
                self.form(Some((step, &cause)), now, |session| session.held == Some((step, digest)));
            }
            Origin::Kept => self.form(Some((self.kept_step().unwrap_or_default(), &cause)), now, |_| false),
        }
        self.note_formed(&cause);
    }

    /// How many could take part in a generation now.
    fn members_at_hand(&mut self, now: Timestamp) -> usize {
        self.set_apart(now);
        self.sessions.values().filter(|session| session.may_take_part()).count()
    }

    /// Where the next generation begins: at the furthest state that most of those who are there hold; those who leave count where
    /// nobody else holds any.
    fn origin(&mut self) -> Origin {
        let (kept, recorded) = (self.kept_step(), self.recorded());
        let held = |retiring: bool| {
            let of = move |session: &&Session| session.is_retiring == retiring && session.standing == Standing::Ready;
            // The record would have a gap where only those were left who have not taken the last steps.
            let counts = |session: &Session| session.held.filter(|(step, _)| !session.was_fed || *step <= recorded);
            self.sessions.values().filter(of).filter_map(counts).collect::<Vec<_>>()
        };
        let mut states = held(false);
        if states.is_empty() {
            states = held(true);
        }
        let Some(step) = states.iter().map(|(step, _)| *step).max() else { return Origin::Kept };
        if kept.is_some_and(|kept| kept > step) {
            return Origin::Kept;
        }
        let mut holders: BTreeMap<[u8; 32], usize> = BTreeMap::new();
        for (_, digest) in states.iter().filter(|(at, _)| *at == step) {
            *holders.entry(digest.0).or_default() += 1;
        }
        let all: usize = holders.values().sum();
        let Some((most, count)) = holders.iter().max_by_key(|(_, count)| **count) else { return Origin::Kept };
        // A state that is a function of its step has one digest; without a majority none can be told to be right.
        if self.settings.config.cluster.reduce == Reduce::Exact && 2 * count <= all {
            let message = format!(
                "workers hold {} different states of step {step}, and none of them is that of most: memory or a processor is at \
                 fault somewhere; the run goes on from step {}",
                holders.len(),
                kept.unwrap_or_default()
            );
            for session in self.sessions.values_mut() {
                session.held = None;
            }
            self.commands.push_back(Command::Record(Record::Warning(message)));
            return Origin::Kept;
        }
        Origin::Held(step, Digest(*most))
    }

    /// Since when it has waited for what it waits for.
    fn waits_since(&mut self, now: Timestamp) -> Timestamp {
        match &mut self.stage {
            Stage::Regrouping(regroup) => *regroup.waits_since.get_or_insert(now),
            _ => now,
        }
    }

    /// Whether the coordinator needs the bytes of a state: somebody lacks it, or those who hold it leave or may have to.
    fn must_be_sent(&self, step: Step, digest: Digest, members: usize, least: usize) -> bool {
        let has_it = |session: &&Session| session.may_take_part() && session.held == Some((step, digest));
        let have = self.sessions.values().filter(has_it).count();
        self.kept_step() != Some(step) && (have < members || members < least)
    }

    fn ask_for(&mut self, step: Step, digest: Digest) {
        let holds = |(_, s): &(&Connection, &Session)| s.standing == Standing::Ready && s.held == Some((step, digest));
        // One that stays, if there is one.
        let holder = self.sessions.iter().filter(holds).min_by_key(|(connection, s)| (s.is_retiring, **connection));
        let (Some(holder), Stage::Regrouping(regroup)) = (holder.map(|(holder, _)| *holder), &mut self.stage) else {
            return;
        };
        (regroup.asked, regroup.waits_since) = (Some((holder, step, digest)), None);
        self.send(holder, CoordinatorMessage::SendState { generation: self.generation });
    }

    fn wait_for_workers(&mut self, members: usize, least: usize, now: Timestamp, cause: &str) {
        // Their state is here by now.
        self.release_the_retiring();
        self.decide(Decision::Waits, &format!("{members} of the {least} workers that are needed are there"));
        let patience = Duration::from_secs(self.settings.config.cluster.rejoin_timeout_s);
        let nobody_can_come = match self.settings.gather {
            Gather::Exactly(workers) => workers.saturating_sub(self.processes_ended) < least,
            Gather::AtLeast { .. } => false,
        };
        let waited = now.since(self.waits_since(now));
        if waited >= patience || nobody_can_come {
            let waited = waited.as_secs();
            let why = if nobody_can_come { "and no other can come".into() } else { format!("for {waited} s") };
            self.fail(format!("{cause}; then {members} of the {least} workers that are needed were there, {why}"));
        }
    }

    /// The run is to stop, and no generation is at work: what most hold is kept.
    fn stop_between_generations(&mut self, is_late: bool) {
        if !self.results.saving.is_empty() && !is_late {
            return;
        }
        match self.origin() {
            Origin::Held(step, digest) if step > Step(0) && self.results.checkpoint != Some(step) && !is_late => {
                self.ask_for(step, digest);
            }
            Origin::Held(..) | Origin::Kept => {
                let step = self.results.checkpoint.max(self.kept_step());
                self.finish(Ending::Stopped, Outcome::Stopped { step: step.filter(|step| *step > Step(0)) });
            }
        }
    }

    /// Goes on without those who do not leave their generation, where it is over for so long; where nobody else holds a state they are
    /// waited for longer.
    fn give_up_the_hanging(&mut self, over: Duration, now: Timestamp) {
        let borne = PATIENCE.max(self.patience(now).unwrap_or_default());
        let is_held =
            self.sessions.values().any(|session| session.standing == Standing::Ready && session.held.is_some());
        if over < if is_held { borne } else { borne.saturating_mul(LAST_HOLDERS) } {
            return;
        }
        let hangs = |(_, session): &(&Connection, &Session)| session.standing == Standing::Halting;
        let hanging: Vec<(Connection, String)> = self
            .sessions
            .iter()
            .filter(hangs)
            .map(|(connection, session)| (*connection, format!("{} hangs {}", session.name(), self.place(session))))
            .collect();
        for (connection, what) in hanging {
            self.leave(connection, format!("{what}: it was told to halt {} s ago", over.as_secs()));
        }
    }
}
