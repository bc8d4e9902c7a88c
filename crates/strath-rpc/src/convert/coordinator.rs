//! What the coordinator says.

use std::time::Duration;

use strath_core::{Rank, RunId, Step, Ticket, WorkerId};
use strath_protocol::message::{Admitted, Assign, Ending, Feed, Follow, Job, Member, StateRef};

use super::{CONFIGURATION_LIMIT, address, bounded, clipped, digest, generation, required, split_in, split_out, text};
use crate::error::RpcError;
use crate::wire;

impl From<Admitted> for wire::Admitted {
    fn from(admitted: Admitted) -> Self {
        let Admitted { worker, run, configuration, job, lease, rejoin_timeout } = admitted;
        let (evaluate, measure) = match job {
            Job::Train => (None, None),
            Job::Evaluate(split) => (Some(split_out(split).into()), None),
            Job::Measure(asked) => (None, Some(asked)),
        };
        // Rounded up: a lease must not become none.
        let lease_ms = u64::try_from(lease.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        let rejoin_timeout_s = rejoin_timeout.as_secs();
        Self { worker: worker.0, run: run.0, configuration, evaluate, lease_ms, rejoin_timeout_s, measure }
    }
}

impl TryFrom<wire::Admitted> for Admitted {
    type Error = RpcError;

    fn try_from(admitted: wire::Admitted) -> Result<Self, RpcError> {
        let wire::Admitted { worker, run, configuration, evaluate, lease_ms, rejoin_timeout_s, measure } = admitted;
        let job = match (evaluate, measure) {
            (None, None) => Job::Train,
            (Some(split), None) => Job::Evaluate(split_in(split, "Admitted.evaluate")?),
            (None, Some(asked)) => Job::Measure(text(asked, "Admitted.measure")?),
            (Some(_), Some(_)) => {
                return Err(RpcError::malformed("Admitted.measure", "also evaluate", "one of the two"));
            }
        };
        if lease_ms == 0 {
            return Err(RpcError::malformed("Admitted.lease_ms", "0", "at least 1 ms"));
        }
        Ok(Self {
            worker: WorkerId(worker),
            run: RunId(run),
            configuration: bounded(configuration, CONFIGURATION_LIMIT, "Admitted.configuration")?,
            job,
            lease: Duration::from_millis(lease_ms),
            rejoin_timeout: Duration::from_secs(rejoin_timeout_s),
        })
    }
}

impl From<Assign> for wire::Assign {
    fn from(assign: Assign) -> Self {
        let Assign { generation, rank, members, bounds, start, steps, state, keeps, unsettled, some_are_sent, ticket } =
            assign;
        Self {
            generation: generation.0,
            rank: rank.0,
            members: members.into_iter().map(Into::into).collect(),
            bounds: bounds.into_iter().map(|bound| bound as u64).collect(),
            start: start.0,
            steps: steps.0,
            state: state.map(Into::into),
            keeps,
            unsettled,
            some_are_sent,
            ticket: ticket.0.into(),
        }
    }
}

impl TryFrom<wire::Assign> for Assign {
    type Error = RpcError;

    fn try_from(assign: wire::Assign) -> Result<Self, RpcError> {
        let wire::Assign {
            generation: number,
            rank,
            members,
            bounds,
            start,
            steps,
            state,
            keeps,
            unsettled,
            some_are_sent,
            ticket,
        } = assign;
        if keeps && state.is_some() {
            return Err(RpcError::malformed("Assign.keeps", "true, and a state is named", "one of the two"));
        }
        if usize::try_from(rank).is_ok_and(|rank| rank >= members.len()) {
            let found = format!("{rank} of {} members", members.len());
            return Err(RpcError::malformed("Assign.rank", found, "a member's rank, from 0"));
        }
        let rise = bounds.first() == Some(&0) && bounds.is_sorted();
        if bounds.len() != members.len() + 1 || !rise {
            let found = format!("{} numbers for {} members", bounds.len(), members.len());
            return Err(RpcError::malformed("Assign.bounds", found, "numbers that rise from 0, one more than members"));
        }
        let bound = |bound: u64| {
            usize::try_from(bound)
                .map_err(|_| RpcError::malformed("Assign.bounds", bound.to_string(), "what this machine can count to"))
        };
        Ok(Self {
            generation: generation(number, "Assign.generation")?,
            rank: Rank(rank),
            members: members.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            bounds: bounds.into_iter().map(bound).collect::<Result<_, _>>()?,
            start: Step(start),
            steps: Step(steps),
            state: state.map(TryInto::try_into).transpose()?,
            keeps,
            unsettled,
            some_are_sent,
            ticket: secret(&ticket, "Assign.ticket")?,
        })
    }
}

/// A ticket of the right length.
fn secret(bytes: &[u8], field: &'static str) -> Result<Ticket, RpcError> {
    let ticket = bytes.try_into().map(Ticket);
    ticket.map_err(|_| RpcError::malformed(field, format!("{} bytes", bytes.len()), "32 bytes"))
}

impl From<Feed> for wire::Feed {
    fn from(feed: Feed) -> Self {
        let Feed { generation, to, ticket } = feed;
        Self { generation: generation.0, to: Some(to.into()), ticket: ticket.0.into() }
    }
}

impl TryFrom<wire::Feed> for Feed {
    type Error = RpcError;

    fn try_from(feed: wire::Feed) -> Result<Self, RpcError> {
        let wire::Feed { generation: number, to, ticket } = feed;
        Ok(Self {
            generation: generation(number, "Feed.generation")?,
            to: required(to, "Feed.to")?.try_into()?,
            ticket: secret(&ticket, "Feed.ticket")?,
        })
    }
}

impl From<Follow> for wire::Follow {
    fn from(follow: Follow) -> Self {
        let Follow { generation, from, steps, ticket } = follow;
        Self { generation: generation.0, from: Some(from.into()), steps: steps.0, ticket: ticket.0.into() }
    }
}

impl TryFrom<wire::Follow> for Follow {
    type Error = RpcError;

    fn try_from(follow: wire::Follow) -> Result<Self, RpcError> {
        let wire::Follow { generation: number, from, steps, ticket } = follow;
        Ok(Self {
            generation: generation(number, "Follow.generation")?,
            from: required(from, "Follow.from")?.try_into()?,
            steps: Step(steps),
            ticket: secret(&ticket, "Follow.ticket")?,
        })
    }
}

impl From<Member> for wire::Member {
    fn from(member: Member) -> Self {
        Self { worker: member.worker.0, ring_address: member.ring_address.to_string() }
    }
}

impl TryFrom<wire::Member> for Member {
    type Error = RpcError;

    fn try_from(member: wire::Member) -> Result<Self, RpcError> {
        let ring_address = address(member.ring_address, "Member.ring_address")?;
        Ok(Self { worker: WorkerId(member.worker), ring_address })
    }
}

impl From<StateRef> for wire::StateRef {
    fn from(state: StateRef) -> Self {
        let StateRef { source, model, optimizer } = state;
        Self { source, model: model.0.into(), optimizer: optimizer.map(|digest| digest.0.into()) }
    }
}

impl TryFrom<wire::StateRef> for StateRef {
    type Error = RpcError;

    fn try_from(state: wire::StateRef) -> Result<Self, RpcError> {
        let wire::StateRef { source, model, optimizer } = state;
        Ok(Self {
            source: text(source, "StateRef.source")?,
            model: digest(&model, "StateRef.model")?,
            optimizer: optimizer.map(|bytes| digest(&bytes, "StateRef.optimizer")).transpose()?,
        })
    }
}

impl From<Ending> for wire::Ending {
    fn from(ending: Ending) -> Self {
        let (kind, reason) = match ending {
            Ending::Done => (wire::EndingKind::Done, String::new()),
            Ending::Stopped => (wire::EndingKind::Stopped, String::new()),
            Ending::Failed(reason) => (wire::EndingKind::Failed, clipped(reason)),
            Ending::Released => (wire::EndingKind::Released, String::new()),
            Ending::Refused(reason) => (wire::EndingKind::Refused, clipped(reason)),
            Ending::Outdated(reason) => (wire::EndingKind::Outdated, clipped(reason)),
        };
        Self { kind: kind.into(), reason }
    }
}

impl TryFrom<wire::Ending> for Ending {
    type Error = RpcError;

    fn try_from(ending: wire::Ending) -> Result<Self, RpcError> {
        let reason = text(ending.reason, "Ending.reason")?;
        match wire::EndingKind::try_from(ending.kind) {
            Ok(wire::EndingKind::Done) => Ok(Self::Done),
            Ok(wire::EndingKind::Stopped) => Ok(Self::Stopped),
            Ok(wire::EndingKind::Failed) => Ok(Self::Failed(reason)),
            Ok(wire::EndingKind::Released) => Ok(Self::Released),
            Ok(wire::EndingKind::Refused) => Ok(Self::Refused(reason)),
            Ok(wire::EndingKind::Outdated) => Ok(Self::Outdated(reason)),
            Ok(wire::EndingKind::Unspecified) | Err(_) => {
                Err(RpcError::malformed("Ending.kind", ending.kind.to_string(), "a known EndingKind"))
            }
        }
    }
}
