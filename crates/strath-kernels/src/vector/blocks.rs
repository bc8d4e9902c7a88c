//! Vectors cut at fixed places, so that several threads share the work and sums keep their bits.

use crate::threads::pool;

/// Values summed in one go: block sums are then added in order, whoever computed them.
const BLOCK: usize = 4096;
/// Interleaved accumulators of a block's sum; value i of a block belongs to accumulator i mod 8.
pub(super) const LANES: usize = 8;
/// Blocks that one thread takes at once: 65,536 values, some ten microseconds of work.
const SHARE: usize = 16;
/// Blocks whose sums are kept before they are added: 8 KiB on the stack.
const GROUP: usize = 1024;

/// Slices of equal length, cut at equal places.
pub(super) trait Cut: Sized + Send {
    /// Their length.
    fn length(&self) -> usize;
    /// The first `at` values, and the others.
    fn cut(self, at: usize) -> (Self, Self);
}

impl<T: Sync> Cut for &[T] {
    fn length(&self) -> usize {
        self.len()
    }

    fn cut(self, at: usize) -> (Self, Self) {
        self.split_at(at)
    }
}

impl<T: Send> Cut for &mut [T] {
    fn length(&self) -> usize {
        self.len()
    }

    fn cut(self, at: usize) -> (Self, Self) {
        self.split_at_mut(at)
    }
}

macro_rules! cut_tuple {
    ($first:ident $($other:ident)*) => {
        #[allow(non_snake_case, reason = "a tuple's fields go by the letters of their types")]
        impl<$first: Cut $(, $other: Cut)*> Cut for ($first, $($other),*) {
            fn length(&self) -> usize {
                self.0.length()
            }

            fn cut(self, at: usize) -> (Self, Self) {
                let ($first, $($other),*) = self;
                let $first = $first.cut(at);
                $(let $other = $other.cut(at);)*
                (($first.0, $($other.0),*), ($first.1, $($other.1),*))
            }
        }
    };
}
cut_tuple!(A B);
cut_tuple!(A B C);
cut_tuple!(A B C D);

/// One slot a block of the vectors beside it.
struct PerBlock<'a, const N: usize>(&'a mut [[f64; N]]);

impl<const N: usize> Cut for PerBlock<'_, N> {
    fn length(&self) -> usize {
        self.0.len() * BLOCK
    }

    fn cut(self, at: usize) -> (Self, Self) {
        let (left, right) = self.0.split_at_mut(at.div_ceil(BLOCK));
        (Self(left), Self(right))
    }
}

/// Calls `work` on all of `vectors`, in shares on the compute threads where there is more than one share.
///
/// What `work` does to a value must not depend on where the shares are cut.
pub(super) fn for_shares<V: Cut>(vectors: V, work: impl Fn(V) + Sync) {
    match pool() {
        Some(pool) if vectors.length() > SHARE * BLOCK => pool.install(|| share_out(vectors, &work)),
        _ => work(vectors),
    }
}

fn share_out<V: Cut>(vectors: V, work: &(impl Fn(V) + Sync)) {
    let shares = vectors.length().div_ceil(SHARE * BLOCK);
    if shares < 2 {
        return work(vectors);
    }
    let (left, right) = vectors.cut(shares / 2 * SHARE * BLOCK);
    rayon::join(|| share_out(left, work), || share_out(right, work));
}

/// The sum over blocks of `work(block)`, added in the order of the blocks.
pub(super) fn sum_blocks<V: Cut>(vectors: V, work: impl Fn(V) -> f64 + Sync) -> f64 {
    let [total] = several_sums(vectors, |block| [work(block)]);
    total
}

/// Several sums of one pass: each adds its own part of `work(block)`, in the order of the blocks.
pub(super) fn several_sums<V: Cut, const N: usize>(vectors: V, work: impl Fn(V) -> [f64; N] + Sync) -> [f64; N] {
    let (mut total, mut rest) = ([0.0; N], vectors);
    while rest.length() > 0 {
        let len = rest.length().min(GROUP * BLOCK);
        let (group, others) = rest.cut(len);
        let mut sums = [[0.0; N]; GROUP];
        let sums = &mut sums[..len.div_ceil(BLOCK)];
        for_shares((group, PerBlock(sums)), |(mut share, PerBlock(sums))| {
            for sum in sums {
                let len = share.length().min(BLOCK);
                let (block, others) = share.cut(len);
                *sum = work(block);
                share = others;
            }
        });
        for sum in sums.iter() {
            total.iter_mut().zip(sum).for_each(|(total, sum)| *total += sum);
        }
        rest = others;
    }
    total
}

/// A block's accumulators added up, always in this order.
#[inline(always)]
pub(super) fn folded([a, b, c, d, e, f, g, h]: [f64; LANES]) -> f64 {
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::tests::same_bits;

    #[test]
    fn every_value_is_in_one_share_and_one_block_at_every_length() {
        let share = SHARE * BLOCK;
        for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, share, share + 1, 3 * share - 1, GROUP * BLOCK + 5] {
            let ones = vec![1.0f32; len];
            let counted = same_bits(|| {
                let mut out = vec![0.0; len];
                for_shares((out.as_mut_slice(), ones.as_slice()), |(out, ones)| {
                    out.iter_mut().zip(ones).for_each(|(out, one)| *out += one);
                });
                let sum = sum_blocks((ones.as_slice(), out.as_slice()), |(a, b)| {
                    assert!(a.len() == b.len() && a.len() <= BLOCK);
                    a.iter().map(|v| f64::from(*v)).sum()
                });
                assert_eq!(sum, len as f64);
                out
            });
            assert_eq!(counted, ones);
        }
    }
}
