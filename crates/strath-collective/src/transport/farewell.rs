//! Why a rank's last frame is its last.

use strath_core::Rank;

/// What a farewell frame says, in its header's `chunk`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// All operations here are complete and all that was owed is sent.
    Finished,
    /// The worker ended the exchange; no rank is at fault.
    Aborted,
    /// This rank was lost, was silent or broke the protocol.
    BecauseOf(Rank),
}

impl Farewell {
    /// The word as it travels.
    pub(crate) fn to_wire(self) -> u32 {
        match self {
            Self::Finished => u32::MAX,
            Self::Aborted => u32::MAX - 1,
            Self::BecauseOf(rank) => rank.0,
        }
    }

    /// The word as it arrived.
    pub(crate) fn from_wire(word: u32) -> Self {
        match word {
            u32::MAX => Self::Finished,
            word if word == u32::MAX - 1 => Self::Aborted,
            rank => Self::BecauseOf(Rank(rank)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_farewell_survives_the_wire() {
        for farewell in
            [Farewell::Finished, Farewell::Aborted, Farewell::BecauseOf(Rank(0)), Farewell::BecauseOf(Rank(63))]
        {
            assert_eq!(Farewell::from_wire(farewell.to_wire()), farewell);
        }
    }
}
