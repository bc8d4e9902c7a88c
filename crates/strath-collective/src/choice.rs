//! Which algorithm serves a message: a pure function, the same on every rank as it is given only what ranks share.

use strath_core::config::Algorithm;

/// Bytes of a rank's term up to which two ranks send each other all of it: what one hop less saves over what is sent twice.
const EXCHANGE_LIMIT_BYTES: usize = 32 * 1024;
/// Bytes of a rank's term up to which two hops between hosts are preferred to the ring's 2 (W - 1).
pub const DIRECT_LIMIT_BYTES: usize = 128 * 1024;

/// An algorithm of an all-reduce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// [`crate::ring`]
    Ring,
    /// [`crate::direct`]
    Direct,
    /// [`crate::exchange`]
    Exchange,
}

impl Choice {
    /// The word for it in configuration and results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Direct => "direct",
            Self::Exchange => "exchange",
        }
    }
}

/// What the choice depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Ranks that sum.
    pub group_size: u32,
    /// Ranks of the world.
    pub world_size: u32,
    /// Bytes of one rank's term as it travels, at most.
    pub bytes: usize,
    /// Whether every rank may sum the terms for itself, with the same bits.
    pub is_same_anywhere: bool,
    /// Where the ranks of the world are.
    pub placement: Placement,
}

/// Where the ranks of a world are. All of them see the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// On one host.
    OneHost,
    /// On several.
    ManyHosts,
}

/// The algorithm for a message, and why.
pub fn choose(algorithm: Algorithm, message: Message) -> (Choice, &'static str) {
    let most = EXCHANGE_LIMIT_BYTES / (message.group_size as usize - 1).max(1);
    match algorithm {
        Algorithm::Auto if message.bytes <= most && message.is_same_anywhere => {
            (Choice::Exchange, "a small message takes one hop")
        }
        _ if message.group_size < message.world_size => (Choice::Direct, "the ranks of a lane exchange directly"),
        Algorithm::Ring => (Choice::Ring, "cluster.algorithm = \"ring\""),
        Algorithm::Direct => (Choice::Direct, "cluster.algorithm = \"direct\""),
        Algorithm::Auto if message.bytes <= DIRECT_LIMIT_BYTES => (Choice::Direct, "a small message takes two hops"),
        Algorithm::Auto if message.placement == Placement::OneHost => {
            (Choice::Direct, "ranks of one host exchange directly")
        }
        Algorithm::Auto => (Choice::Ring, "a large message goes round the ring"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_messages_lanes_and_ranks_of_one_host_go_directly_unless_the_ring_is_asked_for() {
        let whole = |bytes| Message {
            group_size: 4,
            world_size: 4,
            bytes,
            is_same_anywhere: true,
            placement: Placement::ManyHosts,
        };
        let lane = Message { group_size: 2, ..whole(1 << 30) };
        let chosen = |algorithm, message| choose(algorithm, message).0;
        let auto = Algorithm::Auto;
        assert_eq!(chosen(auto, whole(EXCHANGE_LIMIT_BYTES / 3)), Choice::Exchange);
        assert_eq!(chosen(auto, Message { is_same_anywhere: false, ..whole(0) }), Choice::Direct);
        assert_eq!(chosen(auto, whole(EXCHANGE_LIMIT_BYTES)), Choice::Direct);
        assert_eq!(chosen(auto, whole(DIRECT_LIMIT_BYTES)), Choice::Direct);
        assert_eq!(chosen(auto, whole(DIRECT_LIMIT_BYTES + 1)), Choice::Ring);
        let near = Message { placement: Placement::OneHost, ..whole(1 << 30) };
        assert_eq!(chosen(auto, near), Choice::Direct);
        assert_eq!(chosen(Algorithm::Ring, whole(0)), Choice::Ring);
        assert_eq!(chosen(Algorithm::Ring, near), Choice::Ring);
        assert_eq!(chosen(Algorithm::Direct, whole(1 << 30)), Choice::Direct);
        for algorithm in [auto, Algorithm::Ring, Algorithm::Direct] {
            assert_eq!(chosen(algorithm, lane), Choice::Direct);
        }
    }
}
