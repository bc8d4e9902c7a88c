//! Which algorithm serves a message: a pure function, the same on every rank as it is given only what ranks share.

use strath_core::config::Algorithm;

/// Bytes of a rank's term up to which `auto` prefers two hops to the ring's 2 (W - 1).
pub const DIRECT_LIMIT_BYTES: usize = 128 * 1024;

/// An algorithm of an all-reduce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// [`crate::ring`]
    Ring,
    /// [`crate::direct`]
    Direct,
}

/// What the choice depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Ranks that sum.
    pub group_size: u32,
    /// Ranks of the world.
    pub world_size: u32,
    /// Bytes of one rank's term as it travels.
    pub bytes: usize,
}

/// The algorithm for a message, and why.
pub fn choose(algorithm: Algorithm, message: Message) -> (Choice, &'static str) {
    match algorithm {
        _ if message.group_size < message.world_size => (Choice::Direct, "the ranks of a lane exchange directly"),
        Algorithm::Ring => (Choice::Ring, "cluster.algorithm = \"ring\""),
        Algorithm::Direct => (Choice::Direct, "cluster.algorithm = \"direct\""),
        Algorithm::Auto if message.bytes <= DIRECT_LIMIT_BYTES => {
            (Choice::Direct, "a small message takes the fewest hops")
        }
        Algorithm::Auto => (Choice::Ring, "a large message goes round the ring"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lane_groups_and_small_messages_go_directly_unless_the_ring_is_asked_for() {
        let whole = |bytes| Message { group_size: 4, world_size: 4, bytes };
        let lane = Message { group_size: 2, world_size: 4, bytes: 1 << 30 };
        let chosen = |algorithm, message| choose(algorithm, message).0;
        assert_eq!(chosen(Algorithm::Auto, whole(DIRECT_LIMIT_BYTES)), Choice::Direct);
        assert_eq!(chosen(Algorithm::Auto, whole(DIRECT_LIMIT_BYTES + 1)), Choice::Ring);
        assert_eq!(chosen(Algorithm::Ring, whole(0)), Choice::Ring);
        assert_eq!(chosen(Algorithm::Direct, whole(1 << 30)), Choice::Direct);
        for algorithm in [Algorithm::Auto, Algorithm::Ring, Algorithm::Direct] {
            assert_eq!(chosen(algorithm, lane), Choice::Direct);
        }
    }
}
