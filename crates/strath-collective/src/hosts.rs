//! Which ranks share a host: what the hierarchical reduction is built on, and where one kind of link ends and the other begins.

use std::ops::Range;

/// The host of each rank of a world or place of a group. Hosts are numbered in the order of their first rank, so all ranks that
/// are given the same addresses have the same numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts {
    of: Vec<u32>,
    count: u32,
}

impl Hosts {
    /// Ranks with equal labels share a host.
    pub fn new<L: PartialEq>(labels: &[L]) -> Self {
        let mut count = 0;
        let mut of: Vec<u32> = Vec::with_capacity(labels.len());
        for (rank, label) in labels.iter().enumerate() {
            let known = labels[..rank].iter().position(|other| other == label).map(|first| of[first]);
            of.push(known.unwrap_or(count));
            count += u32::from(known.is_none());
        }
        Self { of, count }
    }

    /// All ranks on one host.
    pub fn one(world_size: u32) -> Self {
        Self::new(&vec![(); world_size as usize])
    }

    /// Ranks of the world, or places of the group.
    pub fn world_size(&self) -> u32 {
        self.of.len() as u32
    }

    /// Number of hosts.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The host of a rank.
    ///
    /// # Panics
    /// Where there is no such rank.
    pub fn of(&self, rank: u32) -> u32 {
        self.of[rank as usize]
    }

    /// The ranks of each host, ascending; hosts in order of their first rank.
    pub fn members(&self) -> Vec<Vec<u32>> {
        let mut members = vec![Vec::new(); self.count as usize];
        for (rank, host) in (0..).zip(&self.of) {
            members[*host as usize].push(rank);
        }
        members
    }

    /// The hosts of the consecutive ranks `group`, whose places count from 0.
    ///
    /// # Panics
    /// Where the group reaches beyond the world.
    #[must_use]
    pub fn within(&self, group: &Range<u32>) -> Self {
        Self::new(&self.of[group.start as usize..group.end as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_numbered_by_their_first_rank_whatever_the_order() {
        let hosts = Hosts::new(&["b", "a", "b", "c"]);
        assert_eq!((hosts.world_size(), hosts.count()), (4, 3));
        assert_eq!([0, 1, 2, 3].map(|rank| hosts.of(rank)), [0, 1, 0, 2]);
        assert_eq!(hosts.members(), [vec![0, 2], vec![1], vec![3]]);
        let group = hosts.within(&(1..4));
        assert_eq!(group.members(), [vec![0], vec![1], vec![2]]);
        assert_eq!(Hosts::one(3).members(), [vec![0, 1, 2]]);
    }
}
