//! The kinds of a payload on the wire, and the one place that knows their widths.

use crate::fewest;
use crate::frame::Phase;

/// Bytes of a weighted value, among exact sums.
pub(crate) const WEIGHTED_WIDTH: usize = 4;

/// The kind of a payload, as it stands in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// [`Payload::Exact`](crate::Payload::Exact), [`Payload::Weighted`](crate::Payload::Weighted)
    Exact = 1,
    /// [`Payload::Wide`](crate::Payload::Wide)
    Wide = 2,
    /// [`Payload::Integers`](crate::Payload::Integers)
    Integers = 3,
    /// [`Payload::Floats`](crate::Payload::Floats)
    Floats = 4,
    /// [`Payload::Halves`](crate::Payload::Halves)
    Halves = 5,
}

impl Encoding {
    /// The encoding that a header's byte names.
    pub fn from_wire(byte: u8) -> Option<Self> {
        [Self::Exact, Self::Wide, Self::Integers, Self::Floats, Self::Halves].into_iter().find(|e| *e as u8 == byte)
    }

    /// Bytes a value in the given phase, at most; 0 in a phase that carries no values.
    pub fn width(self, phase: Phase) -> usize {
        match (phase, self) {
            (Phase::Reduce, Self::Wide) => 16,
            (Phase::Reduce, Self::Exact) | (Phase::Reduce | Phase::Gather, Self::Integers) => 8,
            (Phase::Gather, Self::Exact | Self::Wide) | (Phase::Reduce | Phase::Gather, Self::Floats) => 4,
            (Phase::Reduce | Phase::Gather, Self::Halves) => 2,
            (Phase::Ready | Phase::Farewell, _) => 0,
        }
    }

    /// Bytes a value by which a vector is cut into segments: those of the wider phase, but four for exact sums, which travel
    /// as `f32` where they can and in up to twice the bytes where not.
    pub fn cut_width(self) -> usize {
        match self {
            Self::Exact => WEIGHTED_WIDTH,
            _ => self.width(Phase::Reduce).max(self.width(Phase::Gather)),
        }
    }

    /// Whether values may have this width in the given phase.
    pub fn allows(self, phase: Phase, width: usize) -> bool {
        match (phase, self) {
            (Phase::Reduce, Self::Exact) => width == WEIGHTED_WIDTH || fewest::WIDTHS.contains(&width),
            _ => width == self.width(phase),
        }
    }

    /// Whether the sum's bits depend on the order of its terms.
    pub fn order_matters(self) -> bool {
        matches!(self, Self::Floats | Self::Halves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_survive_the_wire_and_strangers_are_none() {
        for encoding in [Encoding::Exact, Encoding::Wide, Encoding::Integers, Encoding::Floats, Encoding::Halves] {
            assert_eq!(Encoding::from_wire(encoding as u8), Some(encoding));
        }
        assert_eq!(Encoding::from_wire(0), None);
        assert_eq!(Encoding::from_wire(6), None);
    }
}
