//! Which algorithm serves a message: a pure function, the same on every rank as it is given only what ranks share.
//!
//! Sums whose bits do not depend on the order of their terms (exact, wide, integers) take whatever [`cost`](crate::cost) predicts to
//! be fastest with the rates that the ranks measured when they connected. Sums of `f32` and `bf16` have other bits in another order: for them the
//! order is a fixed rule of sizes and of who is where, never of what was measured, so that a run can be repeated to the same bits; of algorithms
//! that add in the same order `f32` takes the fastest.

use std::ops::Range;
use std::sync::OnceLock;

use strath_core::config::Algorithm;

use crate::cost::{Load, Scheme, Spread, seconds};
use crate::doubling::Doubling;
use crate::frame::Phase;
use crate::packing::Encoding;
use crate::rates::Rates;

/// By the fixed rule, bytes of a rank's term up to which two ranks send each other all of it: what one hop less saves over what is
/// sent twice.
const EXCHANGE_LIMIT_BYTES: usize = 32 * 1024;
/// By the fixed rule, bytes of a rank's term up to which two hops between hosts are preferred to the ring's 2 (W - 1).
pub const DIRECT_LIMIT_BYTES: usize = 128 * 1024;
/// Bytes from three or more hosts that may meet at one port of a switch. Beyond what it can keep it drops, and a sender finds out
/// only after a time-out of 200 ms, so an algorithm that could send more at once is not asked how long it takes. Phanishayee et al. (FAST
/// 2008, "Measurement and analysis of TCP throughput collapse") found 32 to 256 KiB a port.
pub const PORT_LIMIT_BYTES: f64 = 256.0 * 1024.0;

/// An algorithm of an all-reduce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// [`crate::ring`]
    Ring,
    /// [`crate::direct`]
    Direct,
    /// [`crate::exchange`]
    Exchange,
    /// [`crate::doubling`]
    Doubling,
    /// [`crate::hierarchical`]
    Hierarchical,
}

impl Choice {
    /// All of them; of those that take equally long an earlier one is taken.
    pub const ALL: [Self; 5] = [Self::Exchange, Self::Doubling, Self::Direct, Self::Hierarchical, Self::Ring];

    /// The word for it in configuration and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Direct => "direct",
            Self::Exchange => "exchange",
            Self::Doubling => "doubling",
            Self::Hierarchical => "hierarchical",
        }
    }

    /// Whether a load may go this way, whatever it takes.
    pub fn serves(self, load: &Load, spread: &Spread) -> bool {
        let hosts = spread.hosts;
        // Everybody who is elsewhere sends to every rank of the largest host.
        let meeting = |bytes: f64| {
            hosts < 3 || f64::from(spread.largest * (spread.ranks - spread.largest)) * bytes <= PORT_LIMIT_BYTES
        };
        match self {
            Self::Exchange => load.is_one_segment() && meeting(load.values * load.term),
            // Of two it is the exchange.
            Self::Doubling => spread.ranks > 2 && Doubling::serves(spread.ranks) && load.is_one_segment(),
            Self::Direct => meeting(load.segment_bytes(spread.ranks)),
            // Without a second rank on any host it is the ring.
            Self::Hierarchical => hosts > 1 && spread.largest > 1,
            Self::Ring => true,
        }
    }
}

/// The fastest of some algorithms by the model; `None` where none of them serves the load.
fn fastest(of: &[Choice], load: &Load, spread: &Spread, rates: &Rates) -> Option<Choice> {
    let offered = of.iter().copied().filter(|choice| choice.serves(load, spread));
    let priced = offered.map(|choice| (choice, seconds(Scheme::Built(choice), load, spread, rates)));
    let cheaper = |best: (Choice, f64), next: (Choice, f64)| if next.1 < best.1 { next } else { best };
    priced.reduce(cheaper).map(|(choice, _)| choice)
}

/// What the choice depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Message {
    /// Ranks of the world, of which the group may be a part.
    pub world_size: u32,
    /// Where the ranks that sum are.
    pub spread: Spread,
    /// The kind of the payload.
    pub encoding: Encoding,
    /// Its values.
    pub values: usize,
}

/// Messages that are remembered at most: a run has one of each kind a lane that ranks share, and a handful beside.
const MOST_CHOSEN: usize = 64;

/// Choices that were made. They depend on nothing that changes while ranks are connected, and asking the model takes as long as a quarter of a
/// small sum between two ranks.
#[derive(Debug)]
pub(crate) struct Chosen([OnceLock<(Kind, Choice)>; MOST_CHOSEN]);

impl Default for Chosen {
    fn default() -> Self {
        Self([const { OnceLock::new() }; MOST_CHOSEN])
    }
}

/// Of a message: the ranks that sum, and how many values of which kind.
type Kind = (Range<u32>, Encoding, usize);

impl Chosen {
    /// What was chosen for such a message; the first time, what `choose` says.
    pub(crate) fn before(&self, kind: &Kind, choose: impl FnOnce() -> Choice) -> Choice {
        let mut known = self.0.iter().map_while(OnceLock::get);
        if let Some((_, choice)) = known.find(|(known, _)| known == kind) {
            return *choice;
        }
        let choice = choose();
        // Two threads may write down the same.
        let _ = self.0.iter().find(|place| place.set((kind.clone(), choice)).is_ok());
        choice
    }
}

/// Algorithms that add `f32` terms in the same order, that of the ranks, and so give the same bits.
const IN_ORDER: [Choice; 2] = [Choice::Exchange, Choice::Direct];

/// The algorithm for a message, and why. `rates` are what the ranks agreed on, where they measured.
pub fn choose(algorithm: Algorithm, message: &Message, rates: Option<&Rates>) -> (Choice, &'static str) {
    let by_rule = by_rule(algorithm, message);
    let (Algorithm::Auto, Some(rates)) = (algorithm, rates) else { return by_rule };
    let load = Load::new(message.encoding, message.values);
    let offered = match message.encoding {
        Encoding::Floats if IN_ORDER.contains(&by_rule.0) => &IN_ORDER[..],
        encoding if encoding.order_matters() => return by_rule,
        _ => &Choice::ALL,
    };
    fastest(offered, &load, &message.spread, rates)
        .map_or(by_rule, |choice| (choice, "the model predicts the least time"))
}

fn by_rule(algorithm: Algorithm, message: &Message) -> (Choice, &'static str) {
    let group_size = message.spread.ranks;
    let bytes = message.values * message.encoding.width(Phase::Reduce);
    let most = EXCHANGE_LIMIT_BYTES / (group_size as usize - 1).max(1);
    // A term that changes on its way must be rounded in one place.
    let is_same_anywhere = message.encoding != Encoding::Halves;
    match algorithm {
        Algorithm::Auto if bytes <= most && is_same_anywhere => (Choice::Exchange, "a small message takes one hop"),
        _ if group_size < message.world_size => (Choice::Direct, "the ranks of a lane exchange directly"),
        Algorithm::Ring => (Choice::Ring, "cluster.algorithm = \"ring\""),
        Algorithm::Direct => (Choice::Direct, "cluster.algorithm = \"direct\""),
        Algorithm::Auto if bytes <= DIRECT_LIMIT_BYTES => (Choice::Direct, "a small message takes two hops"),
        Algorithm::Auto if message.spread.hosts == 1 => (Choice::Direct, "ranks of one host exchange directly"),
        Algorithm::Auto => (Choice::Ring, "a large message goes round the ring"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rates::Link;

    const KIB: usize = 1024;
    const MIB: usize = 1 << 20;

    fn message(spread: Spread, encoding: Encoding, bytes: usize) -> Message {
        let values = bytes / encoding.width(Phase::Reduce);
        Message { world_size: spread.ranks, spread, encoding, values }
    }

    /// Loopback of 3.5 GB/s and 5 us a message; hosts joined by so many Gbit/s with 50 us on the way.
    fn rates(gbit: f64, cores: f64) -> Rates {
        let near = Link { latency_s: 0.0, port_s_per_byte: 0.0, message_s: 5e-6, byte_s: 1.0 / 3.5e9 };
        let far = Link { latency_s: 50e-6, port_s_per_byte: 8e-9 / gbit, ..near };
        Rates { near, far, add_s_per_byte: 5e-11, cores }
    }

    #[test]
    fn by_rule_small_messages_lanes_and_ranks_of_one_host_go_directly_unless_the_ring_is_asked_for() {
        let [apart, together] = [1, 4].map(|per_host| Spread::filled(4, per_host));
        let whole = |bytes| message(apart, Encoding::Floats, bytes);
        let lane = Message { world_size: 8, ..whole(1 << 30) };
        let chosen = |algorithm, message: Message| choose(algorithm, &message, None).0;
        let auto = Algorithm::Auto;
        assert_eq!(chosen(auto, whole(EXCHANGE_LIMIT_BYTES / 3)), Choice::Exchange);
        assert_eq!(chosen(auto, message(apart, Encoding::Halves, 0)), Choice::Direct);
        assert_eq!(chosen(auto, whole(EXCHANGE_LIMIT_BYTES)), Choice::Direct);
        assert_eq!(chosen(auto, whole(DIRECT_LIMIT_BYTES)), Choice::Direct);
        assert_eq!(chosen(auto, whole(DIRECT_LIMIT_BYTES + 4)), Choice::Ring);
        let near = message(together, Encoding::Floats, 1 << 30);
        assert_eq!(chosen(auto, near), Choice::Direct);
        assert_eq!(chosen(Algorithm::Ring, whole(0)), Choice::Ring);
        assert_eq!(chosen(Algorithm::Ring, near), Choice::Ring);
        assert_eq!(chosen(Algorithm::Direct, whole(1 << 30)), Choice::Direct);
        for algorithm in [auto, Algorithm::Ring, Algorithm::Direct] {
            assert_eq!(chosen(algorithm, lane), Choice::Direct);
        }
    }

    #[test]
    fn what_was_measured_never_decides_where_it_would_show_in_the_bits() {
        for encoding in [Encoding::Floats, Encoding::Halves] {
            for per_host in [1, 2, 4] {
                for bytes in [64, 20 * KIB, 100 * KIB, 64 << 20] {
                    let message = message(Spread::filled(4, per_host), encoding, bytes);
                    let (by_rule, _) = choose(Algorithm::Auto, &message, None);
                    for gbit in [0.1, 1.0, 400.0] {
                        let (chosen, _) = choose(Algorithm::Auto, &message, Some(&rates(gbit, 2.0)));
                        let are_alike =
                            encoding == Encoding::Floats && [by_rule, chosen].iter().all(|c| IN_ORDER.contains(c));
                        assert!(chosen == by_rule || are_alike, "{chosen:?} for {by_rule:?}: {message:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn of_algorithms_that_give_the_same_bits_floats_take_the_faster() {
        let chosen = |bytes| {
            let message = message(Spread::filled(4, 4), Encoding::Floats, bytes);
            choose(Algorithm::Auto, &message, Some(&rates(1.0, 2.0))).0
        };
        assert_eq!((chosen(16 * KIB), chosen(MIB)), (Choice::Exchange, Choice::Direct));
    }

    #[test]
    fn a_choice_is_made_once_for_each_kind_of_message_and_however_many_there_are() {
        let (chosen, asked) = (Chosen::default(), std::cell::Cell::new(0));
        let kinds =
            (0..2 * MOST_CHOSEN).flat_map(|values| [(0..2, Encoding::Exact, values), (0..3, Encoding::Exact, values)]);
        let kinds: Vec<Kind> = kinds.collect();
        let choose =
            |kind: &Kind| if kind.2.is_multiple_of(2) && kind.0.end == 2 { Choice::Ring } else { Choice::Direct };
        for _ in 0..3 {
            for kind in &kinds {
                let found = chosen.before(kind, || {
                    asked.set(asked.get() + 1);
                    choose(kind)
                });
                assert_eq!(found, choose(kind), "{kind:?}");
            }
        }
        assert_eq!(asked.get(), MOST_CHOSEN + 3 * (kinds.len() - MOST_CHOSEN));
    }

    #[test]
    fn by_the_model_each_algorithm_has_its_place() {
        let chosen = |per_host, ranks, bytes, gbit| {
            let message = message(Spread::filled(ranks, per_host), Encoding::Exact, bytes);
            choose(Algorithm::Auto, &message, Some(&rates(gbit, 2.0))).0
        };
        // One host: one hop while hops cost, then the least bytes.
        assert_eq!(chosen(2, 2, KIB, 1.0), Choice::Exchange);
        assert_eq!(chosen(2, 2, 8 << 20, 1.0), Choice::Direct);
        // Two hosts of two ranks: few messages, then a host's sum that crosses once, not twice or one and a half times.
        assert_eq!(chosen(2, 4, 64, 1.0), Choice::Doubling);
        assert_eq!(chosen(2, 4, 8 << 20, 1.0), Choice::Hierarchical);
        // Eight hosts of one: neighbours only, as seven senders would overrun a port.
        assert_eq!(chosen(1, 8, 8 << 20, 1.0), Choice::Ring);
        assert_eq!(chosen(1, 8, 64 * KIB, 1.0), Choice::Direct);
        // Where the algorithm is given, or nothing was measured, the model is not asked.
        let large = message(Spread::filled(4, 2), Encoding::Exact, 8 << 20);
        assert_eq!(choose(Algorithm::Direct, &large, Some(&rates(1.0, 2.0))).0, Choice::Direct);
        assert_eq!(choose(Algorithm::Auto, &large, None).0, Choice::Ring);
    }
}
