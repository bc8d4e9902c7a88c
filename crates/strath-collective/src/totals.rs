//! Complete sums in one pass: every rank's terms of a segment are added, and rounded where they are fixed point, block by
//! block in the first-level cache.
//!
//! Memory traffic a value: this rank's term is read once, every other's once, the result is written once; what is in
//! between never leaves the cache.

use half::bf16;

use crate::arithmetic as loops;
use crate::encoding::WEIGHTED_WIDTH;
use crate::fewest;

/// Values summed before the next ones are looked at: 8 KiB of 64-bit sums.
const BLOCK: usize = 1024;

/// `values = ((before[0] + before[1]) + ... + values) + after[0] + ...`, where `add` adds a body's terms, `width` bytes each.
fn in_order(
    values: &mut [f32],
    width: usize,
    before: &[impl AsRef<[u8]>],
    after: &[impl AsRef<[u8]>],
    add: fn(&mut [f32], &[u8]),
) {
    for (at, values) in (0..).step_by(BLOCK * width).zip(values.chunks_mut(BLOCK)) {
        let end = at + values.len() * width;
        match before {
            [] => {}
            // Two terms have the same sum in either order.
            [only] => add(values, &only.as_ref()[at..end]),
            several => add_after(values, several.iter().map(|body| &body.as_ref()[at..end]), add),
        }
        for body in after {
            add(values, &body.as_ref()[at..end]);
        }
    }
}

/// `values = (bodies[0] + bodies[1] + ...) + values`, of at most a block.
fn add_after<'a>(values: &mut [f32], bodies: impl Iterator<Item = &'a [u8]>, add: fn(&mut [f32], &[u8])) {
    let mut own = [0.0; BLOCK];
    let own = &mut own[..values.len()];
    own.copy_from_slice(values);
    // Minus zero is the neutral element of f32 addition: the first term stays as it is, a minus zero included.
    values.fill(-0.0);
    for body in bodies {
        add(values, body);
    }
    values.iter_mut().zip(own).for_each(|(value, own)| *value += *own);
}

/// The sum of `f32` terms in order of rank, this rank's own (`values`) between those of the ranks below and above.
pub(crate) fn floats(values: &mut [f32], before: &[impl AsRef<[u8]>], after: &[impl AsRef<[u8]>]) {
    in_order(values, 4, before, after, loops::add_f32);
}

/// The same of terms that travel as `bf16`, rounded to that in the end.
pub(crate) fn halves(values: &mut [f32], before: &[impl AsRef<[u8]>], after: &[impl AsRef<[u8]>]) {
    in_order(values, 2, before, after, loops::add_bf16);
    round_halves(values);
}

/// Each value rounded to `bf16`.
pub(crate) fn round_halves(values: &mut [f32]) {
    for value in values {
        *value = bf16::from_f32(*value).to_f32();
    }
}

/// The sum of fixed-point terms, rounded to `f32` once: this rank's (`own`) and the others', packed or weighted `f32`.
pub(crate) fn exact(own: &[i64], before: &[impl AsRef<[u8]>], after: &[impl AsRef<[u8]>], out: &mut [f32]) {
    let (n, mut sums) = (own.len(), [0; BLOCK]);
    let only = only(before, after).filter(|only| only.len() > WEIGHTED_WIDTH * n);
    for (at, (own, out)) in (0..).step_by(BLOCK).zip(own.chunks(BLOCK).zip(out.chunks_mut(BLOCK))) {
        if only.is_some_and(|only| fewest::round_with_part(own, only, n, at, out)) {
            continue;
        }
        let sums = &mut sums[..own.len()];
        sums.copy_from_slice(own);
        add_parts(sums, (before, after), n, at);
        loops::round_fixed(sums, out);
    }
}

/// The same where this rank's terms are weighted `f32`, which the result replaces.
pub(crate) fn weighted(values: &mut [f32], before: &[impl AsRef<[u8]>], after: &[impl AsRef<[u8]>]) {
    let (n, mut sums) = (values.len(), [0; BLOCK]);
    if let Some(only) = only(before, after).filter(|only| only.len() == WEIGHTED_WIDTH * n) {
        return loops::fixed_sum_of_two(values, only);
    }
    for (at, values) in (0..).step_by(BLOCK).zip(values.chunks_mut(BLOCK)) {
        let sums = &mut sums[..values.len()];
        sums.fill(0);
        loops::add_fixed(sums, values);
        add_parts(sums, (before, after), n, at);
        loops::round_fixed(sums, values);
    }
}

/// The other term of two.
fn only<'a>(before: &'a [impl AsRef<[u8]>], after: &'a [impl AsRef<[u8]>]) -> Option<&'a [u8]> {
    match (before, after) {
        ([only], []) => Some(only.as_ref()),
        ([], [only]) => Some(only.as_ref()),
        _ => None,
    }
}

/// Adds as many of every body's `n` values as there are `sums`, from value `at` on.
fn add_parts(sums: &mut [i64], (before, after): (&[impl AsRef<[u8]>], &[impl AsRef<[u8]>]), n: usize, at: usize) {
    for body in before.iter().map(AsRef::as_ref).chain(after.iter().map(AsRef::as_ref)) {
        add_part(sums, body, n, at);
    }
}

/// Adds as many of a body's `n` values as there are `sums`, from value `at` on.
fn add_part(sums: &mut [i64], body: &[u8], n: usize, at: usize) {
    if body.len() == WEIGHTED_WIDTH * n {
        loops::add_fixed_body(sums, &body[WEIGHTED_WIDTH * at..WEIGHTED_WIDTH * (at + sums.len())]);
    } else {
        fewest::add_part(sums, body, n, at);
    }
}
