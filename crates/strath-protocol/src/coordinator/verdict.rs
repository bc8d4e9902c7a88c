//! What a generation that is over comes to next: a function of what the coordinator knows, which changes nothing. [`regroup`](super::regroup)
//! does what it says, and asks again until there is something to wait for.

use std::collections::BTreeMap;
use std::time::Duration;

use strath_core::config::Reduce;
use strath_core::{Digest, Step, Timestamp};

use super::regroup::{HANDOVER_PATIENCE, LAST_HOLDERS, PATIENCE, Regroup};
use super::{Coordinator, Gather, Session, Stage, Standing};
use crate::event::Connection;

/// Where the next generation begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// At a state that workers hold.
    Held(Step, Digest),
    /// At the newest state that the coordinator has, or the seed's.
    Kept,
}

/// What is to be done, and why where that is told.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// Nothing, until something happens or a deadline passes.
    Wait,
    /// Nothing, until others have come.
    WaitForWorkers(String),
    /// The run goes on without a worker.
    GiveUp(Connection, String),
    /// Those who follow are needed, whatever they hold.
    CallInFollowers,
    /// No state that workers hold is to be believed.
    Distrust(String),
    /// A worker hands over the state of a step.
    Ask(Connection, Step, Digest),
    /// Those who are to leave may.
    Release,
    /// The run ends as it was asked to, with what is kept.
    Stop,
    /// The run has failed.
    Fail(String),
    /// A generation is formed.
    Form(Origin),
}

impl Coordinator {
    /// Who does not leave a generation that is over for so long, with what is said of it; where nobody else holds a state they are waited for longer.
    pub(super) fn those_who_hang(&self, over: Duration, now: Timestamp) -> Vec<(Connection, String)> {
        let borne = PATIENCE.max(self.patience(now).unwrap_or_default());
        let is_held =
            self.sessions.values().any(|session| session.standing == Standing::Ready && session.held.is_some());
        if over < if is_held { borne } else { borne.saturating_mul(LAST_HOLDERS) } {
            return Vec::new();
        }
        let hangs = self.sessions.iter().filter(|(_, session)| session.standing == Standing::Halting);
        let what = |session: &Session| {
            let (name, place) = (session.name(), self.place(session));
            format!("{name} hangs {place}: it was told to halt {} s ago", over.as_secs())
        };
        hangs.map(|(connection, session)| (*connection, what(session))).collect()
    }

    /// What comes next, once every worker that lives has left the generation that is over.
    pub(super) fn verdict(&self, now: Timestamp) -> Verdict {
        let Stage::Regrouping(regroup) = &self.stage else { return Verdict::Wait };
        let waited = regroup.waited(now);
        if let Some((holder, step)) = regroup.asked() {
            if waited < HANDOVER_PATIENCE {
                return Verdict::Wait;
            }
            let name = self.sessions.get(&holder).map(Session::name).unwrap_or_default();
            return Verdict::GiveUp(
                holder,
                format!("{name} was asked for its state of step {step} and did not send it"),
            );
        }
        if self.stop_requested {
            return self.how_to_stop(waited);
        }
        let (members, least) =
            (self.sessions.values().filter(|session| session.may_take_part()).count(), self.least_workers());
        if members < least && self.has_followers() {
            return Verdict::CallInFollowers;
        }
        let origin = match self.origin() {
            Ok(origin) => origin,
            Err(why) => return Verdict::Distrust(why),
        };
        if let Origin::Held(step, digest) = origin
            && self.must_be_sent(step, digest, members, least)
        {
            return self.ask_for(step, digest);
        }
        // Their state is here by now, where it is needed.
        if self.somebody_may_leave() {
            return Verdict::Release;
        }
        if members < least { self.too_few(members, least, regroup, now) } else { Verdict::Form(origin) }
    }

    /// No generation is at work, and the run is to stop: what most hold is kept.
    fn how_to_stop(&self, waited: Duration) -> Verdict {
        let is_saving = !self.results.saving.is_empty();
        let is_late = is_saving && waited >= HANDOVER_PATIENCE;
        if is_saving && !is_late {
            return Verdict::Wait;
        }
        match self.origin() {
            Err(why) => Verdict::Distrust(why),
            Ok(Origin::Held(step, digest)) if step > Step(0) && self.results.checkpoint != Some(step) && !is_late => {
                self.ask_for(step, digest)
            }
            Ok(_) => Verdict::Stop,
        }
    }

    /// Others are waited for, if any can come in time.
    fn too_few(&self, members: usize, least: usize, regroup: &Regroup, now: Timestamp) -> Verdict {
        let patience = Duration::from_secs(self.settings.config.cluster.rejoin_timeout_s);
        let nobody_can_come = match self.settings.gather {
            Gather::Exactly(workers) => workers.saturating_sub(self.processes_ended) < least,
            Gather::AtLeast { .. } => false,
        };
        let waited = regroup.waited(now);
        if waited < patience && !nobody_can_come {
            return Verdict::WaitForWorkers(format!("{members} of the {least} workers that are needed are there"));
        }
        let why = if nobody_can_come { "and no other can come".into() } else { format!("for {} s", waited.as_secs()) };
        let cause = regroup.cause();
        Verdict::Fail(format!("{cause}; then {members} of the {least} workers that are needed were there, {why}"))
    }

    /// Where the next generation begins: at the furthest state that most of those who are there hold; those who leave count where
    /// nobody else holds any.
    ///
    /// # Errors
    /// What is said where they hold different ones and none can be told to be right.
    fn origin(&self) -> Result<Origin, String> {
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
        let Some(step) = states.iter().map(|(step, _)| *step).max() else { return Ok(Origin::Kept) };
        if kept.is_some_and(|kept| kept > step) {
            return Ok(Origin::Kept);
        }
        let mut holders: BTreeMap<[u8; 32], usize> = BTreeMap::new();
        for (_, digest) in states.iter().filter(|(at, _)| *at == step) {
            *holders.entry(digest.0).or_default() += 1;
        }
        let all: usize = holders.values().sum();
        let Some((most, count)) = holders.iter().max_by_key(|(_, count)| **count) else { return Ok(Origin::Kept) };
        // A state that is a function of its step has one digest; without a majority none can be told to be right.
        if self.settings.config.cluster.reduce == Reduce::Exact && 2 * count <= all {
            return Err(format!(
                "workers hold {} different states of step {step}, and none of them is that of most: memory or a processor is at \
                 fault somewhere; the run goes on from step {}",
                holders.len(),
                kept.unwrap_or_default()
            ));
        }
        Ok(Origin::Held(step, Digest(*most)))
    }

    /// Whether the coordinator needs the bytes of a state: somebody lacks it, or those who hold it leave or may have to.
    fn must_be_sent(&self, step: Step, digest: Digest, members: usize, least: usize) -> bool {
        let has_it = |session: &&Session| session.may_take_part() && session.held == Some((step, digest));
        let have = self.sessions.values().filter(has_it).count();
        self.kept_step() != Some(step) && (have < members || members < least)
    }

    /// Asks one who holds a state for it: one that stays, if there is one.
    fn ask_for(&self, step: Step, digest: Digest) -> Verdict {
        let holds = |(_, s): &(&Connection, &Session)| s.standing == Standing::Ready && s.held == Some((step, digest));
        let holder = self.sessions.iter().filter(holds).min_by_key(|(connection, s)| (s.is_retiring, **connection));
        holder.map_or(Verdict::Wait, |(holder, _)| Verdict::Ask(*holder, step, digest))
    }
}
