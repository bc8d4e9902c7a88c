//! Payloads whose sums are known, for every kind.

#![allow(dead_code, reason = "each test binary uses its own part")]

use strath_collective::{Payload, Reduced};
use strath_core::fixed::{GRADIENT_BITS, to_f32, to_fixed, wide_to_f32};
use strath_core::random::{Purpose, Stream};

/// The kinds of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Exact,
    /// Exact sums to which every third rank brings fixed point, the others one micro-batch's weighted values.
    Mixed,
    Wide,
    Integers,
    Floats,
    Halves,
}

pub(crate) const KINDS: [Kind; 6] = [Kind::Exact, Kind::Mixed, Kind::Wide, Kind::Integers, Kind::Floats, Kind::Halves];

/// The term of `rank`: numbers that use all their bits, the same for the same arguments.
pub(crate) fn term(kind: Kind, rank: u32, len: usize) -> Payload {
    let mut stream = Stream::new(u64::from(rank) << 32 | len as u64, Purpose::Probe);
    let mut words = |shift: u32| -> Vec<i64> {
        let mut word = || u64::from(stream.next_u32()) << 32 | u64::from(stream.next_u32());
        (0..len).map(|_| word() as i64 >> shift).collect()
    };
    match kind {
        Kind::Exact => Payload::Exact(words(8)),
        Kind::Mixed => {
            let values: Vec<f32> = words(8).iter().map(|v| to_f32(*v, GRADIENT_BITS)).collect();
            if rank % 3 == 2 { Payload::Exact(fixed(&values)) } else { Payload::Weighted(values) }
        }
        Kind::Wide => Payload::Wide { high: words(8), low: words(8) },
        Kind::Integers => Payload::Integers(words(0)),
        Kind::Floats => Payload::Floats(words(8).iter().map(|v| to_f32(*v, GRADIENT_BITS)).collect()),
        Kind::Halves => Payload::Halves(words(8).iter().map(|v| to_f32(*v, GRADIENT_BITS)).collect()),
    }
}

fn fixed(values: &[f32]) -> Vec<i64> {
    values.iter().map(|v| to_fixed(f64::from(*v), GRADIENT_BITS)).collect()
}

/// The sum of integer kinds over ranks, as a child would write it.
pub(crate) fn oracle(kind: Kind, ranks: &[u32], len: usize) -> Reduced {
    let sum = |half: fn(Payload) -> Vec<i64>| -> Vec<i64> {
        let mut sum = vec![0i64; len];
        for rank in ranks {
            let values = half(term(kind, *rank, len));
            sum.iter_mut().zip(values).for_each(|(s, v)| *s = s.wrapping_add(v));
        }
        sum
    };
    let upper = sum(|payload| match payload {
        Payload::Exact(values) | Payload::Integers(values) | Payload::Wide { high: values, .. } => values,
        Payload::Weighted(values) => fixed(&values),
        Payload::Floats(_) | Payload::Halves(_) => panic!("floats have no oracle: their sum depends on the order"),
    });
    match kind {
        Kind::Exact | Kind::Mixed => Reduced::Floats(upper.iter().map(|v| to_f32(*v, GRADIENT_BITS)).collect()),
        Kind::Wide => {
            let lower = sum(|payload| if let Payload::Wide { low, .. } = payload { low } else { Vec::new() });
            Reduced::Floats(upper.iter().zip(lower).map(|(h, l)| wide_to_f32(*h, l)).collect())
        }
        _ => Reduced::Integers(upper),
    }
}

/// A float sum in f64, and how far a sum of so many terms may be off.
pub(crate) fn approximate(kind: Kind, ranks: &[u32], len: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut sum, mut slack) = (vec![0f64; len], vec![0f64; len]);
    let unit = if kind == Kind::Halves { 2f64.powi(-8) } else { 2f64.powi(-23) };
    for rank in ranks {
        if let Payload::Floats(values) | Payload::Halves(values) = term(kind, *rank, len) {
            for (at, value) in values.iter().enumerate() {
                sum[at] += f64::from(*value);
                slack[at] += f64::from(value.abs()) * unit * ranks.len() as f64;
            }
        }
    }
    (sum, slack)
}

/// Whether two sums have the same bits (zeros of both signs differ).
pub(crate) fn same_bits(one: &Reduced, other: &Reduced) -> bool {
    match (one, other) {
        (Reduced::Floats(a), Reduced::Floats(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
        }
        _ => one == other,
    }
}
