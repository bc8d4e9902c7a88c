//! Who is at fault when ranks report each other lost.

use std::collections::BTreeMap;
use std::time::Duration;

use strath_core::{Rank, Timestamp};

use super::{Coordinator, Session, Stage};
use crate::command::{CoordinatorCommand as Command, Record};
use crate::event::Connection;
use crate::message::{CoordinatorMessage, Ending, FailureKind, FailureReport};

/// How long a report that a peer is lost waits for the peer's own session to break, or for its own report: both say more.
const PATIENCE: Duration = Duration::from_millis(500);

/// A worker that its peers could not reach may come back so often within this time: what lies between may be in order again.
const MOST_RETURNS: usize = 3;
const RETURNS_WITHIN: Duration = Duration::from_secs(600);

/// Ranks that have reported a peer lost, and until when nobody is blamed for it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Suspicion {
    /// When the blame is laid.
    pub(super) until: Timestamp,
    /// Who reported first.
    first: Rank,
    /// Who lost whom.
    losses: BTreeMap<Rank, Loss>,
}

/// One rank's report that it has lost a peer.
#[derive(Debug, Clone, PartialEq)]
struct Loss {
    /// The peer.
    peer: Rank,
    /// The reporter's name: its session may be over when the blame is laid.
    reporter: String,
    report: FailureReport,
}

/// Which processes were given up because their peers did not reach them, by their nonces and numbers, and when.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct GivenUp(Vec<((u64, u32), Timestamp)>);

impl GivenUp {
    /// Whether a process that is given up now may come back, as it was not so often before of late.
    fn may_return(&mut self, process: (u64, u32), now: Timestamp) -> bool {
        self.0.retain(|(_, at)| now.since(*at) < RETURNS_WITHIN);
        let before = self.0.iter().filter(|(known, _)| *known == process).count();
        self.0.push((process, now));
        before < MOST_RETURNS
    }
}

/// What a set of reports comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blame {
    /// `culprit` was lost, as `witness` says, and has itself reported nobody.
    Rank { culprit: Rank, witness: Rank },
    /// Two ranks have lost each other: what lies between them broke.
    Link { witness: Rank, other: Rank },
}

/// Lays the blame, given who lost whom. A rank that lost a peer ends its ring, so that its own neighbours lose it in turn:
/// whoever has reported a loss is a witness, and the chain is followed from the first report to whom it began with.
/// `None` where `first` has reported nothing.
fn blame(losses: &BTreeMap<Rank, Rank>, first: Rank) -> Option<Blame> {
    let mut witness = first;
    let mut suspect = *losses.get(&first)?;
    let mut seen = vec![first];
    loop {
        match losses.get(&suspect) {
            None => return Some(Blame::Rank { culprit: suspect, witness }),
            Some(_) if seen.contains(&suspect) => return Some(Blame::Link { witness, other: suspect }),
            Some(next) => {
                seen.push(suspect);
                (witness, suspect) = (suspect, *next);
            }
        }
    }
}

impl Coordinator {
    /// Takes in a worker's report that it cannot go on.
    pub(super) fn failed(&mut self, connection: Connection, report: FailureReport, now: Timestamp) {
        let Some(session) = self.sessions.get(&connection) else { return };
        match (report.kind, session.rank) {
            (FailureKind::PeerLost(peer), Some(reporter)) if self.survives() && self.stage != Stage::Connecting => {
                // Of those that leave the generation each loses the others; what was said first is what counts.
                if self.stage == Stage::Running {
                    let FailureReport { step, phase, message, .. } = &report;
                    let (peer, reporter) = (self.name_of(peer), self.name_of(reporter));
                    self.regroup(format!(
                        "the ring to {peer} broke at step {step} in phase {phase}, says {reporter}: {message}"
                    ));
                }
            }
            (FailureKind::PeerLost(peer), Some(reporter)) => {
                let loss = Loss { peer, reporter: session.name(), report };
                let new = || Suspicion { until: now.after(PATIENCE), first: reporter, losses: BTreeMap::new() };
                self.suspicion.get_or_insert_with(new).losses.entry(reporter).or_insert(loss);
            }
            (FailureKind::GpusApart, Some(reporter)) if self.survives() => {
                if self.stage == Stage::Running {
                    let FailureReport { step, phase, message, .. } = &report;
                    let reporter = self.name_of(reporter);
                    self.regroup(format!(
                        "the GPUs came apart at step {step} in phase {phase}, says {reporter}: {message}"
                    ));
                }
            }
            (FailureKind::Configuration, _) if !self.survives() => {
                let message = own_failure(session, &report);
                self.misconfigured(message);
            }
            (FailureKind::Deviates(culprit), Some(_)) => {
                let message = format!("{} {}", self.name_of(culprit), report.message);
                if !self.survives() {
                    return self.fail(message);
                }
                let deviant = self.sessions.values_mut().find(|session| session.rank == Some(culprit));
                let is_news = deviant.is_some_and(|session| !std::mem::replace(&mut session.deviates, true));
                if is_news {
                    self.commands.push_back(Command::Record(Record::Warning(message.clone())));
                    self.regroup(message);
                }
            }
            (kind, rank) => {
                // One machine's missing file ends no run that can do without that machine.
                let message = own_failure(session, &report);
                let is_of_machine = rank.is_none() || kind == FailureKind::Machine;
                if self.can_do_without() || (self.survives() && is_of_machine) {
                    self.send(connection, CoordinatorMessage::End(Ending::Failed(message.clone())));
                    self.leave(connection, message);
                } else {
                    self.fail(message);
                }
            }
        }
    }

    /// Whether a session's worker has reported a loss: what becomes of it afterwards is no news.
    pub(super) fn is_witness(&self, session: &Session) -> bool {
        let losses = self.suspicion.as_ref().map(|suspicion| &suspicion.losses);
        session.rank.is_some_and(|rank| losses.is_some_and(|losses| losses.contains_key(&rank)))
    }

    /// Lays the blame once patience is over.
    pub(super) fn settle_suspicion(&mut self, now: Timestamp) {
        if matches!(self.stage, Stage::Draining(_) | Stage::Ended) {
            return;
        }
        let Some(suspicion) = self.suspicion.as_ref().filter(|suspicion| now >= suspicion.until) else { return };
        let peers = suspicion.losses.iter().map(|(reporter, loss)| (*reporter, loss.peer)).collect();
        let Some(blame) = blame(&peers, suspicion.first) else { return };
        let (Blame::Rank { witness, .. } | Blame::Link { witness, .. }) = blame;
        let Some(Loss { reporter, report, .. }) = suspicion.losses.get(&witness) else { return };
        let FailureReport { step, phase, message, .. } = report;
        let (given_up, message) = match blame {
            Blame::Rank { culprit, .. } => {
                let name = self.name_of(culprit);
                let message =
                    format!("the ring to {name} broke at step {step} in phase {phase}, says {reporter}: {message}");
                (culprit, message)
            }
            Blame::Link { other, .. } => {
                let name = self.name_of(other);
                let message =
                    format!("the ring between {reporter} and {name} broke at step {step} in phase {phase}: {message}");
                let ends = self.of_rank(witness).zip(self.of_rank(other));
                if self.survives() && ends.is_some_and(|(one, other)| self.parted(one, other, now)) {
                    return self.regroup(message);
                }
                (witness.max(other), message)
            }
        };
        let culprit = self.of_rank(given_up);
        let Some(culprit) = culprit.filter(|_| self.survives()) else { return self.fail(message) };
        // One that its peers cannot reach has no part in the run for now.
        let ending = if self.may_return(culprit, now) { Ending::Outdated } else { Ending::Failed };
        self.send(culprit, CoordinatorMessage::End(ending(message.clone())));
        self.leave(culprit, message);
    }

    /// Whether a worker that is given up for what lies between it and its peers may try again; counts that. Where generations end without a
    /// step, as where a network has fallen apart, none may: those who reach each other are to be found first.
    fn may_return(&mut self, culprit: Connection, now: Timestamp) -> bool {
        if self.fruitless > 0 {
            return false;
        }
        let identity = self.sessions.get(&culprit).and_then(|session| session.identity.as_ref());
        let process = identity.map(|(_, register)| (register.nonce, register.pid));
        process.is_some_and(|process| self.given_up.may_return(process, now))
    }

    fn of_rank(&self, rank: Rank) -> Option<Connection> {
        self.sessions.iter().find(|(_, session)| session.rank == Some(rank)).map(|(connection, _)| *connection)
    }

    fn name_of(&self, rank: Rank) -> String {
        let session = self.of_rank(rank).and_then(|connection| self.sessions.get(&connection));
        session.map_or_else(|| format!("rank {rank}"), Session::name)
    }
}

fn own_failure(session: &Session, report: &FailureReport) -> String {
    let FailureReport { step, phase, message, .. } = report;
    format!("{} failed at step {step} in phase {phase}: {message}", session.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid(losses: &[(u32, u32)], first: u32) -> Option<Blame> {
        blame(&losses.iter().map(|(reporter, peer)| (Rank(*reporter), Rank(*peer))).collect(), Rank(first))
    }

    #[test]
    fn whoever_is_lost_and_has_reported_nobody_is_the_culprit() {
        let rank = |culprit, witness| Some(Blame::Rank { culprit: Rank(culprit), witness: Rank(witness) });
        assert_eq!(laid(&[(0, 1)], 0), rank(1, 0));
        assert_eq!(laid(&[(0, 1), (2, 1)], 2), rank(1, 2));
        // Rank 3 died; 2 lost it and ended its ring, so 1 lost 2, and 0 lost 1.
        assert_eq!(laid(&[(0, 1), (1, 2), (2, 3)], 0), rank(3, 2));
        assert_eq!(laid(&[(0, 1), (1, 2), (2, 3)], 2), rank(3, 2));
    }

    #[test]
    fn of_ranks_that_lost_each_other_none_is_the_culprit() {
        let link = |witness, other| Some(Blame::Link { witness: Rank(witness), other: Rank(other) });
        assert_eq!(laid(&[(0, 1), (1, 0)], 0), link(1, 0));
        assert_eq!(laid(&[(2, 1), (0, 1), (1, 0)], 2), link(0, 1));
        assert_eq!(laid(&[(0, 0)], 0), link(0, 0));
    }

    #[test]
    fn a_process_comes_back_three_times_in_a_window_and_another_as_often() {
        let mut given_up = GivenUp::default();
        let mut at = |process: u64, minute: u64| {
            let now = Timestamp(Duration::from_secs(60 * minute));
            given_up.may_return((process, 1), now)
        };
        assert_eq!([at(1, 0), at(1, 1), at(2, 1), at(1, 2)], [true; 4]);
        assert_eq!([at(1, 3), at(2, 3)], [false, true]);
        assert_eq!([at(1, 9), at(1, 12)], [false, true], "of the four before two are out of the window");
    }

    #[test]
    fn without_a_report_there_is_no_blame() {
        assert_eq!(laid(&[], 0), None);
    }
}
