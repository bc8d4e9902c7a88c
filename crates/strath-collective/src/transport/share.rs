//! Agreeing on shared memory: which pairs of ranks of one host have frames go through it.
//!
//! ```text
//!  every rank    makes a file of pipes ─► says where it is ─► maps its peers' ─► says whose it has ─► pairs that have each
//!                                          (all-gather)                          (all-gather)         other's go on there ─► barrier
//! ```
//!
//! Ranks of one host (by address) may be in containers that do not see each other's processes, or be of different users: such a pair
//! stays on its connections, and only such a pair. Both sides know from the second gather, and that it is over says that
//! nothing is left on the connections.

use std::io;

use strath_core::Rank;
use strath_core::config::Transport;

use super::agreement::Agreement;
use super::map::PipeFile;
use super::pipe::{Reader, Writer};
use crate::error::CollectiveError;
use crate::hosts::Hosts;

/// Pipes of a host, of a MiB each, up to which memory is shared unasked: those of 16 ranks.
const MOST_PIPES: usize = 240;
/// Integers of an offer.
pub(super) const SLOTS: usize = 8;

/// Where a rank's file of pipes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offer {
    pid: u32,
    descriptor: u32,
    nonce: u128,
    place: Place,
}

/// Processes that read the same here see each other under the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// The kernel's random name of this boot.
    boot: u128,
    /// The namespace of process numbers.
    namespace: u64,
}

impl Place {
    fn here() -> io::Result<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let namespace = std::fs::read_link("/proc/self/ns/pid")?;
        let digits = |text: &str| text.chars().filter(char::is_ascii_hexdigit).collect::<String>();
        let unreadable =
            |_| io::Error::new(io::ErrorKind::InvalidData, "the kernel names this host as no kernel should");
        // "pid:[4026531836]": the letter d is a digit too.
        let namespace = namespace.to_string_lossy().trim_start_matches("pid:").to_owned();
        Ok(Self {
            boot: u128::from_str_radix(&digits(&boot), 16).map_err(unreadable)?,
            namespace: digits(&namespace).parse().map_err(unreadable)?,
        })
    }
}

impl Offer {
    fn of(file: &PipeFile) -> io::Result<Self> {
        let (pid, descriptor) = (std::process::id(), file.descriptor() as u32);
        Ok(Self { pid, descriptor, nonce: file.nonce, place: Place::here()? })
    }

    pub(super) fn to_slots(self) -> [i64; SLOTS] {
        let halves = |word: u128| [(word >> 64) as i64, word as i64];
        let ([nonce_high, nonce_low], [boot_high, boot_low]) = (halves(self.nonce), halves(self.place.boot));
        let numbers = [i64::from(self.pid), i64::from(self.descriptor)];
        let namespace = self.place.namespace as i64;
        [1, numbers[0], numbers[1], nonce_high, nonce_low, boot_high, boot_low, namespace]
    }

    /// `None`: the rank has nothing to offer.
    pub(super) fn from_slots(slots: [i64; SLOTS]) -> Option<Self> {
        let [has, pid, descriptor, nonce_high, nonce_low, boot_high, boot_low, namespace] = slots;
        let whole = |high: i64, low: i64| u128::from(high as u64) << 64 | u128::from(low as u64);
        let place = Place { boot: whole(boot_high, boot_low), namespace: namespace as u64 };
        let (pid, descriptor) = (pid.try_into().ok()?, descriptor.try_into().ok()?);
        (has == 1).then_some(Self { pid, descriptor, nonce: whole(nonce_high, nonce_low), place })
    }
}

/// Both pipes between this rank and a peer, or why there are none.
fn pipes(
    own: &io::Result<(PipeFile, Offer)>,
    theirs: Option<Offer>,
    ranks: &[u32],
    (rank, peer): (u32, u32),
) -> Result<(Writer, Reader), String> {
    let told = |error: &io::Error| error.to_string();
    // Which pipe of a rank's file leads to another: there is none to itself.
    let pipe =
        |from: u32, to: u32| ranks.iter().filter(|rank| **rank != from).position(|rank| *rank == to).unwrap_or(0);
    let (file, offer) = own.as_ref().map_err(told)?;
    let theirs = theirs.ok_or("it has no shared memory to offer")?;
    if theirs.place != offer.place {
        return Err(
            "its processes are not seen from here (another container, or another host with the same address)".into()
        );
    }
    let opened = PipeFile::open(theirs.pid, theirs.descriptor, theirs.nonce, ranks.len() - 1).map_err(|e| told(&e))?;
    let reader = Reader::new(opened.map(pipe(peer, rank)).map_err(|e| told(&e))?);
    let writer = Writer::new(file.map(pipe(rank, peer)).map_err(|e| told(&e))?);
    Ok((writer, reader))
}

/// Has frames between ranks of one host go through shared memory where both can; the peers of this rank for which that is so.
///
/// # Errors
/// As an operation's wait; with [`Transport::Shm`] [`CollectiveError::NotShared`], on every rank, where a pair of one host cannot.
pub(crate) fn share(
    agreement: &mut Agreement<'_>,
    hosts: &Hosts,
    transport: Transport,
) -> Result<Vec<Rank>, CollectiveError> {
    let world_size = hosts.world_size();
    if transport == Transport::Tcp || hosts.count() == world_size {
        return Ok(Vec::new());
    }
    let own_rank = agreement.identity.rank.0;
    let near = &hosts.members()[hosts.of(own_rank) as usize];
    let is_modest = near.len() * (near.len() - 1) <= MOST_PIPES || transport == Transport::Shm;
    let own = if near.len() > 1 && is_modest {
        PipeFile::create(near.len() - 1).and_then(|file| Offer::of(&file).map(|offer| (file, offer)))
    } else {
        Err(io::Error::new(io::ErrorKind::Unsupported, "so many ranks of one host would take too much memory"))
    };
    let offered = agreement.gather(&own.as_ref().map_or([0; SLOTS], |(_, offer)| offer.to_slots()))?;
    let offers: Vec<Option<Offer>> = offered.as_chunks().0.iter().map(|slots| Offer::from_slots(*slots)).collect();
    let mut mapped = Vec::new();
    let mut has = vec![0; world_size as usize];
    for peer in near.iter().copied().filter(|peer| *peer != own_rank) {
        match pipes(&own, offers[peer as usize], near, (own_rank, peer)) {
            Ok(ends) => {
                has[peer as usize] = 1;
                mapped.push((peer, ends));
            }
            Err(cause) => tracing::info!(peer, cause, "no shared memory with this rank: it is reached over TCP"),
        }
    }
    let all = agreement.gather(&has)?;
    let is_shared = |a: u32, b: u32| {
        let has = |a, b| all[(a * world_size + b) as usize] == 1;
        has(a, b) && has(b, a)
    };
    let mut pairs = (0..world_size).flat_map(|a| (a + 1..world_size).map(move |b| (a, b)));
    let apart = pairs.find(|(a, b)| hosts.of(*a) == hosts.of(*b) && !is_shared(*a, *b));
    if let (Transport::Shm, Some((rank, peer))) = (transport, apart) {
        return Err(CollectiveError::NotShared { rank: Rank(rank), peer: Rank(peer) });
    }
    let mut shared = Vec::new();
    for (peer, (writer, reader)) in mapped {
        if is_shared(own_rank, peer) {
            agreement.engine.turns().share(Rank(peer), writer, reader, agreement.left())?;
            shared.push(Rank(peer));
        }
    }
    // Nobody goes on, and perhaps leaves with a last word in shared memory, before all look there.
    agreement.gather(&[])?;
    Ok(shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_survives_its_slots_and_none_is_none() {
        let place = Place { boot: u128::MAX - 5, namespace: 4_026_531_836 };
        let offer = Offer { pid: 4_000_000_000, descriptor: 7, nonce: 1 << 127 | 3, place };
        assert_eq!(Offer::from_slots(offer.to_slots()), Some(offer));
        assert_eq!(Offer::from_slots([0; SLOTS]), None);
        let mut slots = offer.to_slots();
        slots[1] = -1;
        assert_eq!(Offer::from_slots(slots), None);
    }

    #[test]
    fn this_process_knows_its_place() {
        let here = Place::here().unwrap();
        assert_eq!(here, Place::here().unwrap());
        assert!(here.boot != 0 && here.namespace != 0);
    }
}
