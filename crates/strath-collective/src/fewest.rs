//! Fixed-point sums in the fewest whole bytes: five to eight a value, as many as a segment's largest magnitude needs.
//!
//! A segment of n values of w bytes travels as planes, so that packing is narrowing and unpacking is widening, which every
//! vector instruction set does many values at a time:
//!
//! ```text
//! w = 5   n x u32 (bits 0-31)   n x u8  (32-39)
//! w = 6   n x u32               n x u16 (32-47)
//! w = 7   n x u32               n x u16           n x u8 (48-55)
//! w = 8   n x u64
//! ```

use std::ops::RangeInclusive;

use crate::arithmetic as loops;

/// Bytes a value may take.
pub const WIDTHS: RangeInclusive<usize> = 5..=8;

/// Values packed before the next ones are looked at: 8 KiB, which stay in the first-level cache.
const BLOCK: usize = 1024;

/// The fewest bytes that hold every value, sign included.
pub fn width(values: &[i64]) -> usize {
    bytes(loops::largest_bits(values))
}

/// Bytes of a value of so many bits, and one more for the sign.
fn bytes(bits: u32) -> usize {
    (bits as usize + 1).div_ceil(8).max(*WIDTHS.start())
}

/// Packs values into `out`, whose length says how many bytes each has: at least their [`width`].
///
/// # Panics
/// Where `out` is not 5 to 8 times as long as `values`.
pub fn pack(values: &[i64], out: &mut [u8]) {
    pack_part(values, out, values.len(), 0);
}

/// Packs the values from the one numbered `at` on of `n`, all of which `out` is for; the most bits that one of them has.
fn pack_part(values: &[i64], out: &mut [u8], n: usize, at: usize) -> u32 {
    if n == 0 {
        return 0;
    }
    assert!(out.len().is_multiple_of(n) && WIDTHS.contains(&(out.len() / n)), "{} bytes for {n} values", out.len());
    let end = at + values.len();
    if out.len() == 8 * n {
        for (out, value) in out[8 * at..8 * end].as_chunks_mut().0.iter_mut().zip(values) {
            *out = value.to_le_bytes();
        }
        return loops::largest_bits(values);
    }
    let (low, upper) = out.split_at_mut(4 * n);
    let low = &mut low[4 * at..4 * end];
    match upper.len() / n {
        1 => loops::write_five(values, low, &mut upper[at..end]),
        2 => loops::write_six(values, low, &mut upper[2 * at..2 * end]),
        _ => {
            let (middle, seventh) = upper.split_at_mut(2 * n);
            loops::write_seventh(values, &mut seventh[at..end]);
            loops::write_six(values, low, &mut middle[2 * at..2 * end])
        }
    }
}

/// Packs values into the front of `out`, which has room for eight bytes each: the bytes that each has, the fewest.
///
/// One pass over the values: into the bytes that those so far need, which is rarely too few for one further on. Then what is there is
/// packed anew.
///
/// # Panics
/// Where `out` is shorter.
pub fn pack_fewest(values: &[i64], out: &mut [u8]) -> usize {
    let n = values.len();
    let out = &mut out[..8 * n];
    let mut taken = *WIDTHS.start();
    for (at, block) in (0..).step_by(BLOCK).zip(values.chunks(BLOCK)) {
        let needed = bytes(pack_part(block, &mut out[..taken * n], n, at));
        if needed > taken {
            taken = needed;
            pack_part(&values[..at + block.len()], &mut out[..taken * n], n, 0);
        }
    }
    taken
}

/// The `own` values and as many of the `n` packed ones of `body`, from value `at` on, added and rounded to `f32`, in one pass where the
/// packed ones are of a usual width and the sums of a usual size. `false`: they are not, and `out` holds nothing of use.
///
/// # Panics
/// Where `body` is not 5 to 8 times as long as `n`, or has fewer values.
pub(crate) fn round_with_part(own: &[i64], body: &[u8], n: usize, at: usize, out: &mut [f32]) -> bool {
    let end = at + own.len();
    let (low, upper) = body.split_at(4 * n);
    let low = &low[4 * at..4 * end];
    match upper.len() {
        upper_bytes if upper_bytes == n => loops::round_with_five(own, low, &upper[at..end], out),
        upper_bytes if upper_bytes == 2 * n => loops::round_with_six(own, low, &upper[2 * at..2 * end], out),
        _ => false,
    }
}

/// Adds packed values to `sums`; the length of `body` says how many bytes each has.
///
/// # Panics
/// Where `body` is not 5 to 8 times as long as `sums`.
pub fn add(sums: &mut [i64], body: &[u8]) {
    add_part(sums, body, sums.len(), 0);
}

/// Adds as many of the `n` packed values of `body` as there are `sums`, from value `at` on.
///
/// # Panics
/// Where `body` is not 5 to 8 times as long as `n`, or has fewer values.
pub fn add_part(sums: &mut [i64], body: &[u8], n: usize, at: usize) {
    if n == 0 {
        return;
    }
    assert!(body.len().is_multiple_of(n) && WIDTHS.contains(&(body.len() / n)), "{} bytes for {n} values", body.len());
    let end = at + sums.len();
    if body.len() == 8 * n {
        return loops::add_i64(sums, &body[8 * at..8 * end]);
    }
    let (low, upper) = body.split_at(4 * n);
    let low = &low[4 * at..4 * end];
    match upper.len() / n {
        1 => loops::add_five(sums, low, &upper[at..end]),
        2 => loops::add_six(sums, low, &upper[2 * at..2 * end]),
        _ => {
            let (middle, seventh) = upper.split_at(2 * n);
            loops::add_seven(sums, low, &middle[2 * at..2 * end], &seventh[at..end]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(values: &[i64], width: usize) -> Vec<u8> {
        let mut out = vec![0xaa; values.len() * width];
        pack(values, &mut out);
        out
    }

    fn packed_at_once(values: &[i64]) -> Vec<u8> {
        let mut out = vec![0xaa; values.len() * 8];
        let width = pack_fewest(values, &mut out);
        out.truncate(values.len() * width);
        out
    }

    fn in_parts(values: &[i64]) -> Vec<i64> {
        let (n, body) = (values.len(), packed_at_once(values));
        let mut sums = vec![0; n];
        (0..).step_by(5).zip(sums.chunks_mut(5)).for_each(|(at, sums)| add_part(sums, &body, n, at));
        sums
    }

    fn through_the_wire(values: &[i64], width: usize) -> Vec<i64> {
        let out = packed(values, width);
        let mut sums: Vec<i64> = (0..values.len() as i64).collect();
        add(&mut sums, &out);
        (0..).zip(sums).map(|(at, sum): (i64, i64)| sum.wrapping_sub(at)).collect()
    }

    #[test]
    fn every_width_is_taken_up_to_its_edges_and_not_beyond() {
        assert_eq!((width(&[]), width(&[0]), width(&[1, -1])), (5, 5, 5));
        for bytes in WIDTHS {
            let (most, least) = (i64::MAX >> (64 - 8 * bytes), i64::MIN >> (64 - 8 * bytes));
            for n in [1usize, 7, 16, 67, BLOCK - 1, BLOCK, 2 * BLOCK + 3] {
                for edge in [most, least, most - 1, least + 1] {
                    let mut values: Vec<i64> = (0..n as i64).map(|v| if v % 2 == 0 { v } else { -v }).collect();
                    values[n / 2] = edge;
                    assert_eq!(width(&values), bytes, "{edge:#x}");
                    for at_least in bytes..=8 {
                        assert_eq!(through_the_wire(&values, at_least), values, "{edge:#x} in {at_least} bytes");
                    }
                    assert_eq!(packed_at_once(&values), packed(&values, bytes), "{edge:#x} among {n}");
                    assert_eq!(in_parts(&values), values, "{edge:#x} among {n}, in parts");
                }
            }
            if bytes < 8 {
                assert_eq!((width(&[most + 1]), width(&[least - 1])), (bytes + 1, bytes + 1));
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(values in prop::collection::vec(any::<i64>(), 0..200), shift in 0u32..40) {
            let values: Vec<i64> = values.iter().map(|v| v >> shift).collect();
            prop_assert_eq!(packed_at_once(&values), packed(&values, width(&values)));
            prop_assert_eq!(in_parts(&values), values.clone());
            prop_assert_eq!(through_the_wire(&values, width(&values)), values);
        }
    }
}
