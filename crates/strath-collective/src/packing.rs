//! How values travel: the bytes of a payload's values in either phase, and what a rank does with those that arrive.
//!
//! Little-endian throughout. A segment of exact sums has the width that its sender finds enough: 4, the weighted `f32` of one
//! micro-batch, or 5 to 8, packed as [`fewest`] says.

use std::collections::BTreeMap;
use std::ops::Range;

use bytemuck::{cast_slice, cast_slice_mut};
use half::bf16;
use strath_core::fixed::wide_to_f32;

use crate::arithmetic as loops;
use crate::encoding::WEIGHTED_WIDTH;
use crate::fewest;
use crate::frame::Phase;
use crate::payload::{Payload, Reduced};
use crate::spares::Spares;
use crate::totals;

pub use crate::encoding::Encoding;

/// A vector under reduction: this rank's term at first, partial sums in between, the result at the end.
#[derive(Debug, Clone, PartialEq)]
pub struct Vector {
    terms: Payload,
    /// The rounded sums of [`Payload::Exact`] and [`Payload::Wide`], once there is one; empty for the others, whose result
    /// replaces the terms.
    floats: Vec<f32>,
    /// Where their memory comes from.
    spares: Spares,
    /// Partial sums of segments of [`Payload::Weighted`] to which a peer's were added, under their first index.
    sums: BTreeMap<usize, Vec<i64>>,
    /// Memory of such sums that were rounded, for the next.
    spare: Vec<i64>,
}

impl Vector {
    /// Starts from this rank's term.
    ///
    /// # Panics
    /// Where the halves of [`Payload::Wide`] differ in length.
    pub fn new(terms: Payload) -> Self {
        if let Payload::Wide { high, low } = &terms {
            assert_eq!(high.len(), low.len(), "the halves of a wide payload must be of one length");
        }
        let (floats, spares) = (Vec::new(), Spares::default());
        Self { terms, floats, spares, sums: BTreeMap::new(), spare: Vec::new() }
    }

    /// Has the result's memory come from a store, where it does not replace the terms.
    pub fn use_spares(&mut self, spares: &Spares) {
        if self.has_floats() {
            self.spares = spares.clone();
        }
    }

    /// Whether the result does not replace the terms.
    fn has_floats(&self) -> bool {
        matches!(self.terms, Payload::Exact(_) | Payload::Wide { .. })
    }

    /// Memory for the rounded sums of a payload that needs some.
    fn prepare_floats(&mut self) {
        if self.floats.len() < self.len() && self.has_floats() {
            self.floats = self.spares.take_floats(self.len());
        }
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

    /// Bytes a value of `range` as it stands now.
    ///
    /// # Panics
    /// Where `range` is out of range.
    pub fn width(&self, phase: Phase, range: Range<usize>) -> usize {
        match (&self.terms, phase) {
            (Payload::Exact(values), Phase::Reduce) => fewest::width(&values[range]),
            (Payload::Weighted(_), Phase::Reduce) => {
                self.sums.get(&range.start).map_or(WEIGHTED_WIDTH, |sums| fewest::width(sums))
            }
            _ => self.encoding().width(phase),
        }
    }

    /// Writes `range` as it travels in `phase`: partial sums in the reduce-scatter, results in the all-gather.
    ///
    /// # Panics
    /// Where `range` is out of range or `out` is not of its [`width`](Self::width) times its length.
    pub fn encode(&self, phase: Phase, range: Range<usize>, out: &mut [u8]) {
        let width = out.len().checked_div(range.len()).unwrap_or_default();
        let fits = range.is_empty() || self.encoding().allows(phase, width);
        assert!(fits && out.len() == range.len() * width, "{} bytes for {range:?}", out.len());
        match (&self.terms, phase) {
            (Payload::Exact(_) | Payload::Wide { .. }, Phase::Gather) => write_f32(&self.floats[range], out),
            (Payload::Exact(values), _) => fewest::pack(&values[range], out),
            (Payload::Weighted(values), Phase::Reduce) => match self.sums.get(&range.start) {
                Some(sums) => fewest::pack(sums, out),
                None => write_f32(&values[range], out),
            },
            (Payload::Integers(values), _) => write_i64(&values[range], out),
            (Payload::Wide { high, low }, _) => {
                let (upper, lower) = out.split_at_mut(range.len() * 8);
                write_i64(&high[range.clone()], upper);
                write_i64(&low[range], lower);
            }
            (Payload::Weighted(values) | Payload::Floats(values), _) => write_f32(&values[range], out),
            (Payload::Halves(values), _) => {
                for (out, value) in out.as_chunks_mut().0.iter_mut().zip(&values[range]) {
                    *out = bf16::from_f32(*value).to_le_bytes();
                }
            }
        }
    }

    /// Writes `range` as [`encode`](Self::encode) does to the front of `out`, which has room for the most bytes that it may
    /// need: the bytes of each value.
    ///
    /// # Panics
    /// Where `range` is out of range or `out` too short.
    pub fn pack(&self, phase: Phase, range: Range<usize>, out: &mut [u8]) -> usize {
        if let (Payload::Exact(values), Phase::Reduce) = (&self.terms, phase) {
            return fewest::pack_fewest(&values[range], out);
        }
        let width = self.width(phase, range.clone());
        let bytes = range.len() * width;
        self.encode(phase, range, &mut out[..bytes]);
        width
    }

    /// Adds a peer's partial sums, as they travelled in the reduce-scatter, to `range`.
    ///
    /// # Panics
    /// Where `range` is out of range or `body` is not of its width times its length.
    pub fn accumulate(&mut self, range: Range<usize>, body: &[u8]) {
        let width = body.len().checked_div(range.len()).unwrap_or_default();
        let fits = range.is_empty() || self.encoding().allows(Phase::Reduce, width);
        assert!(fits && body.len() == range.len() * width, "{} bytes for {range:?}", body.len());
        match &mut self.terms {
            Payload::Exact(values) => add_exact(&mut values[range], body),
            Payload::Weighted(values) => {
                if let Some(sums) = self.sums.get_mut(&range.start) {
                    return add_exact(sums, body);
                }
                let mut sums = std::mem::take(&mut self.spare);
                sums.resize(range.len(), 0);
                if body.len() == WEIGHTED_WIDTH * sums.len() {
                    loops::fixed_sum(&mut sums, &values[range.clone()], body);
                } else {
                    sums.fill(0);
                    loops::add_fixed(&mut sums, &values[range.clone()]);
                    fewest::add(&mut sums, body);
                }
                self.sums.insert(range.start, sums);
            }
            Payload::Integers(values) => loops::add_i64(&mut values[range], body),
            Payload::Wide { high, low } => {
                let (upper, lower) = body.split_at(range.len() * 8);
                loops::add_i64(&mut high[range.clone()], upper);
                loops::add_i64(&mut low[range], lower);
            }
            Payload::Floats(values) => loops::add_f32(&mut values[range], body),
            Payload::Halves(values) => loops::add_bf16(&mut values[range], body),
        }
    }

    /// Makes `range` results: adds every peer's terms in ascending order of rank, this rank's own in its place among them, and
    /// rounds. `before` are the terms of the ranks below, `after` those of the ranks above, as they travelled.
    ///
    /// # Panics
    /// As [`accumulate`](Self::accumulate).
    pub fn complete(&mut self, range: Range<usize>, before: &[impl AsRef<[u8]>], after: &[impl AsRef<[u8]>]) {
        let bodies = || before.iter().map(AsRef::as_ref).chain(after.iter().map(AsRef::as_ref));
        let encoding = self.encoding();
        for body in bodies() {
            let width = body.len().checked_div(range.len()).unwrap_or_default();
            let fits = range.is_empty() || encoding.allows(Phase::Reduce, width);
            assert!(fits && body.len() == range.len() * width, "{} bytes for {range:?}", body.len());
        }
        self.prepare_floats();
        match &mut self.terms {
            Payload::Exact(values) => totals::exact(&values[range.clone()], before, after, &mut self.floats[range]),
            Payload::Weighted(values) => totals::weighted(&mut values[range], before, after),
            Payload::Floats(values) => totals::floats(&mut values[range], before, after),
            Payload::Halves(values) => totals::halves(&mut values[range], before, after),
            Payload::Integers(_) | Payload::Wide { .. } => {
                bodies().for_each(|body| self.accumulate(range.clone(), body));
                self.round(range);
            }
        }
    }

    /// Makes the complete sums of `range` results: what the owner of a chunk does, once. Fixed point is rounded to `f32`;
    /// with `bf16` the owner keeps the rounded value too, as it is what the others get.
    ///
    /// # Panics
    /// Where `range` is out of range.
    pub fn round(&mut self, range: Range<usize>) {
        self.prepare_floats();
        match &mut self.terms {
            Payload::Exact(values) => loops::round_fixed(&values[range.clone()], &mut self.floats[range]),
            Payload::Weighted(values) => {
                let values = &mut values[range.clone()];
                let sums = self.sums.remove(&range.start).unwrap_or_else(|| fixed(values));
                loops::round_fixed(&sums, values);
                self.spare = sums;
            }
            Payload::Wide { high, low } => {
                let halves = high[range.clone()].iter().zip(&low[range.clone()]);
                for (float, (high, low)) in self.floats[range].iter_mut().zip(halves) {
                    *float = wide_to_f32(*high, *low);
                }
            }
            Payload::Integers(_) | Payload::Floats(_) => {}
            Payload::Halves(values) => totals::round_halves(&mut values[range]),
        }
    }

    /// `range` as it travels in `phase`, where it lies in memory like that.
    ///
    /// # Panics
    /// Where `range` is out of range, or is to be a result and is none yet.
    pub fn lying(&self, phase: Phase, range: Range<usize>) -> Option<&[u8]> {
        if cfg!(target_endian = "big") {
            return None;
        }
        match (&self.terms, phase) {
            (Payload::Exact(_) | Payload::Wide { .. }, Phase::Gather) => Some(cast_slice(&self.floats[range])),
            (Payload::Weighted(_), Phase::Reduce) if self.sums.contains_key(&range.start) => None,
            (Payload::Weighted(values) | Payload::Floats(values), _) => Some(cast_slice(&values[range])),
            (Payload::Integers(values), _) => Some(cast_slice(&values[range])),
            (Payload::Exact(_) | Payload::Wide { .. } | Payload::Halves(_), _) => None,
        }
    }

    /// Where the result of `range`, as it travels, is to lie in memory.
    ///
    /// # Panics
    /// Where `range` is out of range.
    pub fn room(&mut self, range: Range<usize>) -> Option<&mut [u8]> {
        if cfg!(target_endian = "big") {
            return None;
        }
        self.prepare_floats();
        match &mut self.terms {
            Payload::Exact(_) | Payload::Wide { .. } => Some(cast_slice_mut(&mut self.floats[range])),
            Payload::Weighted(values) | Payload::Floats(values) => Some(cast_slice_mut(&mut values[range])),
            Payload::Integers(values) => Some(cast_slice_mut(&mut values[range])),
            Payload::Halves(_) => None,
        }
    }

    /// Says that the result of `range` lies in its [`room`](Self::room).
    pub fn placed(&mut self, range: &Range<usize>) {
        self.sums.remove(&range.start);
    }

    /// Takes over results, as they travelled in the all-gather.
    ///
    /// # Panics
    /// Where `range` is out of range or `body` is not of its width times its length.
    pub fn store(&mut self, range: Range<usize>, body: &[u8]) {
        assert_eq!(body.len(), range.len() * self.encoding().width(Phase::Gather), "bytes for {range:?}");
        self.prepare_floats();
        match &mut self.terms {
            Payload::Exact(_) | Payload::Wide { .. } => read_f32(&mut self.floats[range], body),
            Payload::Weighted(values) => {
                self.sums.remove(&range.start);
                read_f32(&mut values[range], body);
            }
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
    pub fn into_reduced(mut self) -> Reduced {
        self.prepare_floats();
        match self.terms {
            Payload::Exact(_) | Payload::Wide { .. } => Reduced::Floats(self.floats),
            Payload::Integers(values) => Reduced::Integers(values),
            Payload::Floats(values) | Payload::Halves(values) | Payload::Weighted(values) => Reduced::Floats(values),
        }
    }
}

fn write_i64(values: &[i64], out: &mut [u8]) {
    if cfg!(target_endian = "little") {
        return out.copy_from_slice(cast_slice(values));
    }
    for (out, value) in out.as_chunks_mut().0.iter_mut().zip(values) {
        *out = value.to_le_bytes();
    }
}

fn write_f32(values: &[f32], out: &mut [u8]) {
    if cfg!(target_endian = "little") {
        return out.copy_from_slice(cast_slice(values));
    }
    for (out, value) in out.as_chunks_mut().0.iter_mut().zip(values) {
        *out = value.to_le_bytes();
    }
}

/// Adds exact sums in any of their widths.
fn add_exact(sums: &mut [i64], body: &[u8]) {
    if body.len() == sums.len() * WEIGHTED_WIDTH {
        loops::add_fixed_body(sums, body);
    } else {
        fewest::add(sums, body);
    }
}

fn fixed(terms: &[f32]) -> Vec<i64> {
    let mut sums = vec![0; terms.len()];
    loops::add_fixed(&mut sums, terms);
    sums
}

fn read_f32(values: &mut [f32], body: &[u8]) {
    if cfg!(target_endian = "little") {
        return cast_slice_mut(values).copy_from_slice(body);
    }
    for (value, body) in values.iter_mut().zip(body.as_chunks().0) {
        *value = f32::from_le_bytes(*body);
    }
}

#[cfg(test)]
mod tests {
    use strath_core::fixed::GRADIENT_BITS;

    use super::*;

    fn bytes(vector: &Vector, phase: Phase) -> Vec<u8> {
        let mut out = vec![0; vector.len() * vector.width(phase, 0..vector.len())];
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
    fn weighted_terms_and_fixed_sums_mix_to_the_same_bits() {
        use strath_core::fixed::to_fixed;
        let (one, other) = ([0.1f32, -3.0, 1e-20, 30_000.0], [0.7f32, 1e-9, -1e-20, 2_000.0]);
        let exact = |terms: [f32; 4]| Payload::Exact(terms.map(|t| to_fixed(f64::from(t), GRADIENT_BITS)).to_vec());
        let want = sum_of_two(exact(one), exact(other));
        let weighted = |terms: [f32; 4]| Payload::Weighted(terms.to_vec());
        assert_eq!(sum_of_two(weighted(one), weighted(other)), want);
        assert_eq!(sum_of_two(weighted(one), exact(other)), want);
        assert_eq!(sum_of_two(exact(one), weighted(other)), want);
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
        middle.complete(0..1, &[bytes(&term(a), Phase::Reduce)], &[bytes(&term(b), Phase::Reduce)]);
        assert_eq!(middle.into_reduced(), Reduced::Floats(vec![(a + c) + b]));
        let mut last = term(c);
        let before = [bytes(&term(a), Phase::Reduce), bytes(&term(b), Phase::Reduce)];
        last.complete(0..1, &before, &[[]; 0]);
        assert_eq!(last.into_reduced(), Reduced::Floats(vec![(a + b) + c]));
    }
}
