//! How values travel: the bytes of a payload's values in either phase, and what a rank does with those that arrive.
//!
//! The one place that knows widths. Little-endian throughout. Narrower forms of exact sums (a rank's plain `f32` where it
//! holds one micro-batch, or the fewest whole bytes a segment needs) would be further encodings here; the header of every
//! segment already carries encoding and width.

use std::ops::Range;

use half::bf16;
use strath_core::fixed::{GRADIENT_BITS, to_f32, wide_to_f32};

use crate::frame::Phase;
use crate::payload::{Payload, Reduced};

/// The kind of a payload, as it stands in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// [`Payload::Exact`]
    Exact = 1,
    /// [`Payload::Wide`]
    Wide = 2,
    /// [`Payload::Integers`]
    Integers = 3,
    /// [`Payload::Floats`]
    Floats = 4,
    /// [`Payload::Halves`]
    Halves = 5,
}

impl Encoding {
    /// The encoding that a header's byte names.
    pub fn from_wire(byte: u8) -> Option<Self> {
        [Self::Exact, Self::Wide, Self::Integers, Self::Floats, Self::Halves].into_iter().find(|e| *e as u8 == byte)
    }

    /// Bytes a value in the given phase; 0 in a phase that carries no values.
    pub fn width(self, phase: Phase) -> usize {
        match (phase, self) {
            (Phase::Reduce, Self::Wide) => 16,
            (Phase::Reduce, Self::Exact) | (Phase::Reduce | Phase::Gather, Self::Integers) => 8,
            (Phase::Gather, Self::Exact | Self::Wide) | (Phase::Reduce | Phase::Gather, Self::Floats) => 4,
            (Phase::Reduce | Phase::Gather, Self::Halves) => 2,
            (Phase::Ready | Phase::Farewell, _) => 0,
        }
    }

    /// Whether the sum's bits depend on the order of its terms.
    pub fn order_matters(self) -> bool {
        matches!(self, Self::Floats | Self::Halves)
    }
}

/// A vector under reduction: this rank's term at first, partial sums in between, the result at the end.
#[derive(Debug, Clone, PartialEq)]
pub struct Vector {
    terms: Payload,
    /// The rounded sums of [`Payload::Exact`] and [`Payload::Wide`]; empty for the others, whose result replaces the terms.
    floats: Vec<f32>,
}

impl Vector {
    /// Starts from this rank's term.
    ///
    /// # Panics
    /// Where the halves of [`Payload::Wide`] differ in length.
    pub fn new(terms: Payload) -> Self {
        let floats = match &terms {
            Payload::Wide { high, low } => {
                assert_eq!(high.len(), low.len(), "the halves of a wide payload must be of one length");
                vec![0.0; high.len()]
            }
            Payload::Exact(entries) => vec![0.0; entries.len()],
            _ => Vec::new(),
        };
        Self { terms, floats }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.terms.len()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What kind of payload it is.
    pub fn encoding(&self) -> Encoding {
        self.terms.encoding()
    }

    /// Writes `range` as it travels in `phase`: partial sums in the reduce-scatter, results in the all-gather.
    ///
    /// # Panics
    /// Where `range` is out of range or `out` is not of its width times its length.
    pub fn encode(&self, phase: Phase, range: Range<usize>, out: &mut [u8]) {
        assert_eq!(out.len(), range.len() * self.encoding().width(phase), "bytes for {range:?}");
        match (&self.terms, phase) {
            (Payload::Exact(_) | Payload::Wide { .. }, Phase::Gather) => write_f32(&self.floats[range], out),
            (Payload::Exact(values) | Payload::Integers(values), _) => write_i64(&values[range], out),
            (Payload::Wide { high, low }, _) => {
                let (upper, lower) = out.split_at_mut(range.len() * 8);
                write_i64(&high[range.clone()], upper);
                write_i64(&low[range], lower);
            }
            (Payload::Floats(values), _) => write_f32(&values[range], out),
            (Payload::Halves(values), _) => {
                for (out, value) in out.as_chunks_mut().0.iter_mut().zip(&values[range]) {
                    *out = bf16::from_f32(*value).to_le_bytes();
                }
            }
        }
    }

    /// Adds a peer's partial sums, as they travelled in the reduce-scatter, to `range`.
    ///
    /// # Panics
    /// Where `range` is out of range or `body` is not of its width times its length.
    pub fn accumulate(&mut self, range: Range<usize>, body: &[u8]) {
        assert_eq!(body.len(), range.len() * self.encoding().width(Phase::Reduce), "bytes for {range:?}");
        match &mut self.terms {
            Payload::Exact(values) | Payload::Integers(values) => add_i64(&mut values[range], body),
            Payload::Wide { high, low } => {
                let (upper, lower) = body.split_at(range.len() * 8);
                add_i64(&mut high[range.clone()], upper);
                add_i64(&mut low[range], lower);
            }
            Payload::Floats(values) => {
                for (value, body) in values[range].iter_mut().zip(body.as_chunks().0) {
                    *value += f32::from_le_bytes(*body);
                }
            }
            Payload::Halves(values) => {
                for (value, body) in values[range].iter_mut().zip(body.as_chunks().0) {
                    *value += bf16::from_le_bytes(*body).to_f32();
                }
            }
        }
    }

    /// Adds every peer's terms to `range` in ascending order of rank, this rank's own in its place among them: `before` are
    /// the terms of the ranks below, `after` those of the ranks above, as they travelled.
    ///
    /// # Panics
    /// As [`accumulate`](Self::accumulate).
    pub fn accumulate_in_order(&mut self, range: &Range<usize>, before: &[Vec<u8>], after: &[Vec<u8>]) {
        // The own term is set aside while the lower ranks' are summed from zero, then takes its place.
        if let (false, Payload::Floats(values) | Payload::Halves(values)) = (before.is_empty(), &mut self.terms) {
            let own = values[range.clone()].to_vec();
            // Minus zero is the neutral element of f32 addition: the first term stays as it is, a minus zero included.
            values[range.clone()].fill(-0.0);
            for body in before {
                self.accumulate(range.clone(), body);
            }
            if let Payload::Floats(values) | Payload::Halves(values) = &mut self.terms {
                values[range.clone()].iter_mut().zip(own).for_each(|(value, own)| *value += own);
            }
        } else {
            for body in before {
                self.accumulate(range.clone(), body);
            }
        }
        for body in after {
            self.accumulate(range.clone(), body);
        }
    }

    /// Makes the complete sums of `range` results: what the owner of a chunk does, once. Fixed point is rounded to `f32`;
    /// with `bf16` the owner keeps the rounded value too, as it is what the others get.
    ///
    /// # Panics
    /// Where `range` is out of range.
    pub fn round(&mut self, range: Range<usize>) {
        match &mut self.terms {
            Payload::Exact(values) => {
                for (float, value) in self.floats[range.clone()].iter_mut().zip(&values[range]) {
                    *float = to_f32(*value, GRADIENT_BITS);
                }
            }
            Payload::Wide { high, low } => {
                let halves = high[range.clone()].iter().zip(&low[range.clone()]);
                for (float, (high, low)) in self.floats[range].iter_mut().zip(halves) {
                    *float = wide_to_f32(*high, *low);
                }
            }
            Payload::Integers(_) | Payload::Floats(_) => {}
            Payload::Halves(values) => {
                for value in &mut values[range] {
                    *value = bf16::from_f32(*value).to_f32();
                }
            }
        }
    }

    /// Takes over results, as they travelled in the all-gather.
    ///
    /// # Panics
    /// Where `range` is out of range or `body` is not of its width times its length.
    pub fn store(&mut self, range: Range<usize>, body: &[u8]) {
        assert_eq!(body.len(), range.len() * self.encoding().width(Phase::Gather), "bytes for {range:?}");
        match &mut self.terms {
            Payload::Exact(_) | Payload::Wide { .. } => read_f32(&mut self.floats[range], body),
            Payload::Floats(values) => read_f32(&mut values[range], body),
            Payload::Integers(values) => {
                for (value, body) in values[range].iter_mut().zip(body.as_chunks().0) {
                    *value = i64::from_le_bytes(*body);
                }
            }
            Payload::Halves(values) => {
                for (value, body) in values[range].iter_mut().zip(body.as_chunks().0) {
                    *value = bf16::from_le_bytes(*body).to_f32();
                }
            }
        }
    }

    /// The result, once every value is one.
    pub fn into_reduced(self) -> Reduced {
        match self.terms {
            Payload::Exact(_) | Payload::Wide { .. } => Reduced::Floats(self.floats),
            Payload::Integers(values) => Reduced::Integers(values),
            Payload::Floats(values) | Payload::Halves(values) => Reduced::Floats(values),
        }
    }
}

fn write_i64(values: &[i64], out: &mut [u8]) {
    for (out, value) in out.as_chunks_mut().0.iter_mut().zip(values) {
        *out = value.to_le_bytes();
    }
}

fn write_f32(values: &[f32], out: &mut [u8]) {
    for (out, value) in out.as_chunks_mut().0.iter_mut().zip(values) {
        *out = value.to_le_bytes();
    }
}

fn add_i64(values: &mut [i64], body: &[u8]) {
    for (value, body) in values.iter_mut().zip(body.as_chunks().0) {
        *value = value.wrapping_add(i64::from_le_bytes(*body));
    }
}

fn read_f32(values: &mut [f32], body: &[u8]) {
    for (value, body) in values.iter_mut().zip(body.as_chunks().0) {
        *value = f32::from_le_bytes(*body);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(vector: &Vector, phase: Phase) -> Vec<u8> {
        let mut out = vec![0; vector.len() * vector.encoding().width(phase)];
        vector.encode(phase, 0..vector.len(), &mut out);
        out
    }

    fn sum_of_two(one: Payload, other: Payload) -> Reduced {
        let (mut one, other) = (Vector::new(one), Vector::new(other));
        let len = one.len();
        one.accumulate(0..len, &bytes(&other, Phase::Reduce));
        one.round(0..len);
        let mut copy = other;
        copy.store(0..len, &bytes(&one, Phase::Gather));
        let sum = one.into_reduced();
        assert_eq!(sum, copy.into_reduced(), "whoever is sent the result has what the owner has");
        sum
    }

    #[test]
    fn every_kind_adds_and_travels() {
        let unit = 1i64 << GRADIENT_BITS;
        let exact = sum_of_two(Payload::Exact(vec![unit, -unit, 3]), Payload::Exact(vec![unit / 2, unit, 4]));
        assert_eq!(exact, Reduced::Floats(vec![1.5, 0.0, 7.0 * 2f32.powi(-48)]));
        let wide = |high, low| Payload::Wide { high: vec![high], low: vec![low] };
        assert_eq!(
            sum_of_two(wide(unit, 1), wide(-unit, 2)),
            Reduced::Floats(vec![3.0 * 2f32.powi(-48) * 2f32.powi(-48)])
        );
        let integers = sum_of_two(Payload::Integers(vec![i64::MAX, 5]), Payload::Integers(vec![1, -7]));
        assert_eq!(integers, Reduced::Integers(vec![i64::MIN, -2]));
        assert_eq!(
            sum_of_two(Payload::Floats(vec![0.1, 2.0]), Payload::Floats(vec![0.2, 3.0])),
            Reduced::Floats(vec![0.1 + 0.2, 5.0])
        );
    }

    #[test]
    fn bf16_sums_are_rounded_at_the_owner_too() {
        // 1 + 2^-7 and 2^-9 are bf16 numbers, their sum is not: it rounds back to the former.
        let sum = sum_of_two(Payload::Halves(vec![1.007_812_5]), Payload::Halves(vec![2f32.powi(-9)]));
        assert_eq!(sum, Reduced::Floats(vec![1.007_812_5]));
    }

    #[test]
    fn terms_in_order_are_added_from_the_lowest_rank_up() {
        let term = |x: f32| Vector::new(Payload::Floats(vec![x]));
        let (a, b, c) = (1e8f32, -1e8f32, 1.0f32);
        let mut middle = term(c);
        middle.accumulate_in_order(&(0..1), &[bytes(&term(a), Phase::Reduce)], &[bytes(&term(b), Phase::Reduce)]);
        assert_eq!(middle.into_reduced(), Reduced::Floats(vec![(a + c) + b]));
        let mut last = term(c);
        let before = [bytes(&term(a), Phase::Reduce), bytes(&term(b), Phase::Reduce)];
        last.accumulate_in_order(&(0..1), &before, &[]);
        assert_eq!(last.into_reduced(), Reduced::Floats(vec![(a + b) + c]));
    }

    #[test]
    fn encodings_survive_the_wire_and_strangers_are_none() {
        for encoding in [Encoding::Exact, Encoding::Wide, Encoding::Integers, Encoding::Floats, Encoding::Halves] {
            assert_eq!(Encoding::from_wire(encoding as u8), Some(encoding));
        }
        assert_eq!(Encoding::from_wire(0), None);
        assert_eq!(Encoding::from_wire(6), None);
    }
}
