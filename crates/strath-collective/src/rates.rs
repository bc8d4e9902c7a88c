//! What links and processors can do: the numbers that [`cost`](crate::cost) reckons with, and how ranks agree on them.
//!
//! A link is that of Hockney (1994, "The communication challenge for MPP: Intel Paragon and Meiko CS-2"): a message of n bytes takes
//! `latency + n / bandwidth`. Two things are added, as ranks share what they run on. Of the bandwidth, that of a host's *port* is shared by
//! all ranks of the host; and a message costs *processor* time at both ends, which ranks share where a host has fewer cores than ranks
//! (the overhead of LogP, Culler et al. 1993). Between ranks of one host there is no port: there a byte is processor time only.

use crate::hosts::Hosts;

/// One kind of link between two ranks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Seconds that a message takes beyond what follows.
    pub latency_s: f64,
    /// Seconds a byte for which the port of a host is busy, in each direction; 0 within a host.
    pub port_s_per_byte: f64,
    /// Processor seconds a message, both ends together.
    pub message_s: f64,
    /// Processor seconds a byte, both ends together.
    pub byte_s: f64,
}

/// What the ranks of a world run on. All of them hold the same numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Between ranks of one host.
    pub near: Link,
    /// Between hosts.
    pub far: Link,
    /// Processor seconds a byte of a term that is added.
    pub add_s_per_byte: f64,
    /// Cores of a host, which its ranks share.
    pub cores: f64,
}

/// What one rank measured, in integers so that it can travel in a sum in which each rank fills its own slots. 0: not measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// Picoseconds of an empty shift among the ranks of this host, all hosts at once.
    pub near_empty_ps: i64,
    /// Femtoseconds that such a shift takes longer for each byte of the block.
    pub near_byte_fs: i64,
    /// Picoseconds of an empty shift among the first ranks of all hosts.
    pub far_empty_ps: i64,
    /// Femtoseconds that such a shift takes longer for each byte of the block.
    pub far_byte_fs: i64,
    /// Femtoseconds that adding a byte takes.
    pub add_fs: i64,
    /// Cores of this rank's host.
    pub cores: i64,
}

impl Reading {
    /// Slots of one rank.
    pub const SLOTS: usize = 6;

    /// The reading as it travels.
    pub fn to_slots(self) -> [i64; Self::SLOTS] {
        [self.near_empty_ps, self.near_byte_fs, self.far_empty_ps, self.far_byte_fs, self.add_fs, self.cores]
    }

    /// A reading as it arrived.
    pub fn from_slots(slots: [i64; Self::SLOTS]) -> Self {
        let [near_empty_ps, near_byte_fs, far_empty_ps, far_byte_fs, add_fs, cores] = slots;
        Self { near_empty_ps, near_byte_fs, far_empty_ps, far_byte_fs, add_fs, cores }
    }
}

impl Rates {
    /// What the readings of all ranks, in order of rank, come to: medians, so that one rank that was held up does not decide. Only
    /// addition, multiplication, division and comparison are used, so equal readings give equal bits on every machine.
    ///
    /// # Panics
    /// Where there are not as many readings as ranks.
    pub fn agreed(readings: &[Reading], hosts: &Hosts) -> Self {
        assert_eq!(readings.len(), hosts.world_size() as usize, "a reading of every rank");
        let members = hosts.members();
        let cores = readings.iter().map(|r| r.cores).min().unwrap_or(1).max(1) as f64;
        // In a shift every rank of a host sends and takes one block, and they share its cores.
        let share = |rank: u32| {
            let ranks = members[hosts.of(rank) as usize].len() as f64;
            ranks.min(cores) / ranks
        };
        let near = |of: fn(&Reading) -> i64| {
            median((0..).zip(readings).filter(|(_, r)| of(r) > 0).map(|(rank, r)| of(r) as f64 * share(rank)))
        };
        let far = |of: fn(&Reading) -> i64| median(readings.iter().map(of).filter(|v| *v > 0).map(|v| v as f64));
        let near = Link {
            latency_s: 0.0,
            port_s_per_byte: 0.0,
            message_s: near(|r| r.near_empty_ps) * 1e-12,
            byte_s: near(|r| r.near_byte_fs) * 1e-15,
        };
        // The processors' part is known from within hosts; of it no more than the whole took.
        let far_empty_s = far(|r| r.far_empty_ps) * 1e-12;
        let port_s_per_byte = far(|r| r.far_byte_fs) * 1e-15;
        let message_s = near.message_s.min(far_empty_s);
        let far = Link {
            latency_s: far_empty_s - message_s,
            port_s_per_byte,
            message_s,
            byte_s: near.byte_s.min(port_s_per_byte),
        };
        let add_s_per_byte = median(readings.iter().map(|r| r.add_fs as f64)) * 1e-15;
        Self { near, far, add_s_per_byte, cores }
    }
}

/// The lower median; 0 of nothing.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_survives_its_slots() {
        let reading =
            Reading { near_empty_ps: 1, near_byte_fs: 2, far_empty_ps: 3, far_byte_fs: 4, add_fs: 5, cores: 6 };
        assert_eq!(Reading::from_slots(reading.to_slots()), reading);
    }

    #[test]
    fn medians_of_what_was_measured_become_rates() {
        // Four ranks on two hosts of two cores; a shift between two takes what a message takes. Rank 3 was held up.
        let hosts = Hosts::new(&[0, 0, 1, 1]);
        let near =
            Reading { near_empty_ps: 5_000_000, near_byte_fs: 300_000, add_fs: 50_000, cores: 2, ..Reading::default() };
        let leader = Reading { far_empty_ps: 25_000_000, far_byte_fs: 8_000_000, ..near };
        let held_up = Reading { near_empty_ps: 900_000_000, near_byte_fs: 9_000_000, ..near };
        let rates = Rates::agreed(&[leader, near, leader, held_up], &hosts);
        let close = |found: f64, want: f64| assert!((found - want).abs() <= 1e-9 * want.abs(), "{found} for {want}");
        close(rates.near.message_s, 5e-6);
        close(rates.near.byte_s, 3e-10);
        close(rates.far.latency_s, 20e-6);
        close(rates.far.port_s_per_byte, 8e-9);
        close(rates.far.byte_s, 3e-10);
        close(rates.add_s_per_byte, 5e-11);
        assert_eq!(rates.cores, 2.0);
    }

    #[test]
    fn four_ranks_on_two_cores_took_twice_as_long_as_a_message_takes() {
        let reading =
            Reading { near_empty_ps: 10_000_000, near_byte_fs: 600_000, add_fs: 1, cores: 2, ..Reading::default() };
        let rates = Rates::agreed(&[reading; 4], &Hosts::one(4));
        assert!((rates.near.message_s - 5e-6).abs() < 1e-12, "{rates:?}");
        assert!((rates.near.byte_s - 3e-10).abs() < 1e-16, "{rates:?}");
    }
}
