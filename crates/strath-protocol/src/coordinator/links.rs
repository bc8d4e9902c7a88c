//! Hosts that do not reach each other, though both reach the coordinator: no generation has workers of two such hosts.
//!
//! ```text
//! two ranks could not connect, say both ──► their hosts are apart for 5 s, 10 s, 20 s, ... (each time that it is found again)
//!   ──► whoever is apart from most is left out of the next generation, and keeps its session
//!   ──► once that time is over it is fed as a newcomer is, and takes part again
//! ```
//!
//! Where a network has fallen apart each generation that fails tells of a pair at least, so a group is found whose workers reach each other.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use strath_core::{Timestamp, WorkerId};

use super::{Coordinator, Session, Standing};
use crate::command::{CoordinatorCommand as Command, Record};
use crate::decision::Decision;
use crate::event::Connection;

/// So long two hosts are taken to be apart at first; twice as long each further time, up to [`LONGEST`].
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(600);

/// Pairs of hosts, the lesser address first, that were found to be apart.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Links(BTreeMap<(IpAddr, IpAddr), Apart>);

/// Until when two hosts are taken to be apart, and how often they were found to be.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Apart {
    until: Timestamp,
    times: u32,
}

fn pair(one: IpAddr, other: IpAddr) -> (IpAddr, IpAddr) {
    (one.min(other), one.max(other))
}

impl Links {
    /// Two hosts were found to be apart. `true`: that is news.
    fn part(&mut self, one: IpAddr, other: IpAddr, now: Timestamp) -> bool {
        let apart = self.0.entry(pair(one, other)).or_insert(Apart { until: now, times: 0 });
        let lasting = SHORTEST.saturating_mul(1 << apart.times.min(16)).min(LONGEST);
        *apart = Apart { until: now.after(lasting), times: apart.times + 1 };
        apart.times == 1
    }

    fn are_apart(&self, one: IpAddr, other: IpAddr, now: Timestamp) -> bool {
        self.0.get(&pair(one, other)).is_some_and(|apart| now < apart.until)
    }

    /// Which of some hosts are to be left out for the others to reach each other: again and again the one that is apart from most of those that
    /// are left, of several the last.
    fn left_out(&self, hosts: &[IpAddr], now: Timestamp) -> Vec<usize> {
        let mut out = Vec::new();
        if self.0.is_empty() {
            return out;
        }
        loop {
            let left: Vec<usize> = (0..hosts.len()).filter(|at| !out.contains(at)).collect();
            let apart_from =
                |at: usize| left.iter().filter(|other| self.are_apart(hosts[at], hosts[**other], now)).count();
            match left.iter().map(|at| (apart_from(*at), *at)).max() {
                Some((1.., at)) => out.push(at),
                _ => return out,
            }
        }
    }
}

impl Session {
    fn host(&self) -> Option<IpAddr> {
        self.identity.as_ref().map(|(_, register)| register.ring_address.ip())
    }

    /// Whether it may have a part in the next generation.
    pub(super) fn may_take_part(&self) -> bool {
        self.standing == Standing::Ready && !self.is_retiring && self.apart_since.is_none()
    }
}

impl Coordinator {
    /// Two workers could not connect to each other, as both have said. `false`: they share a host, whose network is not what is at fault.
    pub(super) fn parted(&mut self, one: Connection, other: Connection, now: Timestamp) -> bool {
        let host = |connection: Connection| self.sessions.get(&connection).and_then(Session::host);
        let (Some(one), Some(other)) = (host(one), host(other)) else { return false };
        if one == other {
            return false;
        }
        if self.links.part(one, other, now) {
            // What the generation has told is as good as a step.
            self.ended_at = None;
        }
        true
    }

    /// Of those who wait for the next generation, sets apart whoever does not reach the others.
    pub(super) fn set_apart(&mut self, now: Timestamp) {
        let mut ready: Vec<(bool, WorkerId, Connection, IpAddr)> = Vec::new();
        for (connection, session) in &self.sessions {
            if session.standing == Standing::Ready && !session.is_retiring {
                let worker = session.identity.as_ref().map(|(worker, _)| *worker);
                let holds_nothing = session.held.is_none();
                ready.extend(
                    worker.zip(session.host()).map(|(worker, host)| (holds_nothing, worker, *connection, host)),
                );
            }
        }
        ready.sort_unstable();
        let hosts: Vec<IpAddr> = ready.iter().map(|(_, _, _, host)| *host).collect();
        let out = self.links.left_out(&hosts, now);
        for (at, (_, _, connection, host)) in ready.into_iter().enumerate() {
            let others = if out.contains(&at) { &hosts[..] } else { &[] };
            self.mark(connection, host, others, now);
        }
    }

    /// While a generation is at work: whoever came and does not reach all of it is left out, and may be tried again once that time is over.
    pub(super) fn reunite(&mut self, now: Timestamp) {
        if self.links.0.is_empty() {
            return;
        }
        let members: Vec<IpAddr> = self.members.iter().map(|member| member.ring_address.ip()).collect();
        for connection in self.connections(|session| session.rank.is_none()) {
            if let Some(host) = self.sessions.get(&connection).and_then(Session::host) {
                self.mark(connection, host, &members, now);
            }
        }
    }

    /// Leaves a worker out for as long as its host is apart from one of the others', and says so.
    fn mark(&mut self, connection: Connection, host: IpAddr, others: &[IpAddr], now: Timestamp) {
        let unreached = others.iter().filter(|other| self.links.are_apart(host, **other, now));
        let unreached: Vec<String> = unreached.map(ToString::to_string).collect();
        let Some(session) = self.sessions.get_mut(&connection) else { return };
        let (was_apart, is_apart) = (session.apart_since.is_some(), !unreached.is_empty());
        session.apart_since = is_apart.then(|| session.apart_since.unwrap_or(now));
        self.somebody_came |= was_apart && !is_apart;
        let (name, worker) = (session.name(), session.identity.as_ref().map(|(worker, _)| *worker));
        if let (Some(worker), true) = (worker, is_apart && !was_apart) {
            let reason = format!("its host {host} and {} do not reach each other", unreached.join(", "));
            self.decide(Decision::LeavesOut(worker), &reason);
            let warning = format!("the run goes on without {name} for a while: {reason}");
            self.commands.push_back(Command::Record(Record::Warning(warning)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn host(number: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, number).into()
    }

    fn second(at: u64) -> Timestamp {
        Timestamp(Duration::from_secs(at))
    }

    fn links(pairs: &[(u8, u8)]) -> Links {
        let mut links = Links::default();
        for (one, other) in pairs {
            assert!(links.part(host(*one), host(*other), second(0)));
        }
        links
    }

    #[test]
    fn whoever_is_apart_from_most_is_left_out() {
        let hosts: Vec<IpAddr> = (0..5).map(host).collect();
        let out = |pairs: &[(u8, u8)]| links(pairs).left_out(&hosts, second(1));
        assert_eq!(out(&[]), [0; 0]);
        assert_eq!(out(&[(0, 3)]), [3], "of two the last");
        assert_eq!(out(&[(0, 3), (0, 4)]), [0]);
        let across = [(0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4)];
        assert_eq!(out(&across), [1, 0], "two of five");
    }

    #[test]
    fn hosts_are_apart_for_twice_as_long_each_time() {
        let mut links = links(&[(1, 2)]);
        let apart = |links: &Links, at| links.are_apart(host(2), host(1), second(at));
        assert!(apart(&links, 4) && !apart(&links, 5));
        assert!(!links.part(host(2), host(1), second(7)), "no news");
        assert!(apart(&links, 16) && !apart(&links, 17));
        for _ in 0..40 {
            links.part(host(1), host(2), second(20));
        }
        assert!(apart(&links, 619) && !apart(&links, 620));
        assert!(!links.are_apart(host(1), host(3), second(20)));
    }
}
