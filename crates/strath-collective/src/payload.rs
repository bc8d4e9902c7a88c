//! What an all-reduce takes and gives.

use crate::packing::Encoding;

/// One rank's term of a sum over ranks. All ranks of a group bring the same kind and length; `Exact` and `Weighted`
/// are one kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// Fixed-point sums with 48 fractional bits (`strath_core::fixed::FixedSum::gradient`), added as integers and rounded
    /// once, at the owner: 5 to 8 bytes a value on the way in, the fewest that hold a segment's largest, and 4 on the way
    /// out. Gives [`Reduced::Floats`].
    Exact(Vec<i64>),
    /// The same sums of a rank that has one micro-batch: its weighted values, which whoever adds them converts to fixed point
    /// first, so that the sum has the bits that it would have with [`Exact`](Self::Exact). Other ranks of the group may
    /// bring either. 4 bytes a value both ways. Gives [`Reduced::Floats`].
    Weighted(Vec<f32>),
    /// Fixed-point sums in two halves (`strath_core::fixed::WideSum`), each added as integers; the owner rounds once: 16
    /// bytes a value on the way in, 4 on the way out. Gives [`Reduced::Floats`].
    Wide {
        /// Upper halves, 48 fractional bits.
        high: Vec<i64>,
        /// Lower halves, 96 fractional bits; as long as `high`.
        low: Vec<i64>,
    },
    /// Integers that stay integers (two's complement, wrapping): 8 bytes a value both ways. Gives [`Reduced::Integers`].
    Integers(Vec<i64>),
    /// `f32` sums in an order that the algorithm and the group fix: 4 bytes a value both ways. Gives [`Reduced::Floats`].
    Floats(Vec<f32>),
    /// `f32` sums of terms that travel rounded to `bf16`, as does the result: 2 bytes a value both ways. Gives
    /// [`Reduced::Floats`].
    Halves(Vec<f32>),
}

/// The sum over a group's ranks, the same bits on each of them.
#[derive(Debug, Clone, PartialEq)]
pub enum Reduced {
    /// The sum as floats.
    Floats(Vec<f32>),
    /// The sum of [`Payload::Integers`].
    Integers(Vec<i64>),
}

impl Payload {
    /// What kind it is, as it stands in a header.
    pub fn encoding(&self) -> Encoding {
        match self {
            Self::Exact(_) | Self::Weighted(_) => Encoding::Exact,
            Self::Wide { .. } => Encoding::Wide,
            Self::Integers(_) => Encoding::Integers,
            Self::Floats(_) => Encoding::Floats,
            Self::Halves(_) => Encoding::Halves,
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Exact(values) | Self::Integers(values) | Self::Wide { high: values, .. } => values.len(),
            Self::Floats(values) | Self::Halves(values) | Self::Weighted(values) => values.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Reduced {
    /// The floats, or `None` where the sum is of integers.
    pub fn into_floats(self) -> Option<Vec<f32>> {
        match self {
            Self::Floats(values) => Some(values),
            Self::Integers(_) => None,
        }
    }

    /// The integers, or `None` where the sum is of floats.
    pub fn into_integers(self) -> Option<Vec<i64>> {
        match self {
            Self::Floats(_) => None,
            Self::Integers(values) => Some(values),
        }
    }
}
