//! The status word that travels with every reduction.

use std::fmt;

/// The first thing that went wrong in a step, or nothing: a word whose minimum over ranks is the same everywhere.
///
/// A reduction carries the word of every rank and keeps the least, so that either no rank fails a step or all fail it
/// with the same lane and tensor. Order: lane, then the kind and index of what was at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fault(u64);

/// What a [`Fault`] points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Culprit {
    /// The loss of the ascent pass is not finite.
    CleanLoss,
    /// The loss of the descent pass is not finite.
    PerturbedLoss,
    /// A value of the ascent gradient of this tensor (its index in the layout) is not finite, or reaches 2^15 where it is summed
    /// in fixed point.
    AscentGradient(u32),
    /// A value of the descent gradient of this tensor (its index in the layout) is not finite, or reaches 2^15 where it is summed
    /// in fixed point.
    DescentGradient(u32),
    /// A batch-norm statistic of this tensor (its index in the layout of the statistics) is not finite or reaches 2^30.
    Statistic(u32),
}

const TENSOR_BITS: u32 = 28;

impl Fault {
    /// Nothing is wrong.
    pub const NONE: Self = Self(u64::MAX);

    /// `culprit` was found in lane `lane`.
    pub fn new(lane: usize, culprit: Culprit) -> Self {
        let (kind, tensor) = match culprit {
            Culprit::CleanLoss => (0, 0),
            Culprit::AscentGradient(t) => (1, t),
            Culprit::Statistic(t) => (2, t),
            Culprit::PerturbedLoss => (3, 0),
            Culprit::DescentGradient(t) => (4, t),
        };
        Self(((lane as u64) << 32) | (kind << TENSOR_BITS) | u64::from(tensor & ((1 << TENSOR_BITS) - 1)))
    }

    /// Lane and culprit, or `None` where nothing is wrong (or a peer sent a word that means nothing).
    pub fn found(self) -> Option<(usize, Culprit)> {
        let tensor = (self.0 & ((1 << TENSOR_BITS) - 1)) as u32;
        let culprit = match (self.0 >> TENSOR_BITS) & 0xf {
            0 => Culprit::CleanLoss,
            1 => Culprit::AscentGradient(tensor),
            2 => Culprit::Statistic(tensor),
            3 => Culprit::PerturbedLoss,
            4 => Culprit::DescentGradient(tensor),
            _ => return None,
        };
        Some(((self.0 >> 32) as usize, culprit))
    }

    /// Whether the word means something: nothing wrong, or a culprit of a known kind.
    pub fn is_known(self) -> bool {
        self.is_none() || self.found().is_some()
    }

    /// Whether nothing is wrong.
    pub fn is_none(self) -> bool {
        self == Self::NONE
    }

    /// The word as it travels.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The word as it arrived.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

impl Default for Fault {
    fn default() -> Self {
        Self::NONE
    }
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CleanLoss => f.write_str("the loss at w"),
            Self::PerturbedLoss => f.write_str("the loss at w + epsilon"),
            Self::AscentGradient(t) => write!(f, "the ascent gradient of tensor {t}"),
            Self::DescentGradient(t) => write!(f, "the descent gradient of tensor {t}"),
            Self::Statistic(t) => write!(f, "the batch statistic {t}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_fault_is_that_of_the_lowest_lane_and_nothing_is_above_all() {
        let early = Fault::new(1, Culprit::DescentGradient(7));
        let late = Fault::new(2, Culprit::CleanLoss);
        assert_eq!(early.min(late).min(Fault::NONE), early);
        assert_eq!(early.found(), Some((1, Culprit::DescentGradient(7))));
        assert_eq!(Fault::from_bits(late.to_bits()).found(), Some((2, Culprit::CleanLoss)));
        assert_eq!(Fault::NONE.found(), None);
        assert!(Fault::NONE.is_known() && early.is_known() && !Fault::from_bits(0x7000_0000).is_known());
        assert!(Fault::new(u32::MAX as usize, Culprit::Statistic(u32::MAX)) < Fault::NONE);
    }
}
