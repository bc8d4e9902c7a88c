//! The CRC-32C (Castagnoli, RFC 3720 appendix B.4) of what travels between ranks.
//!
//! A library computes it: at 50 GB/s with AVX-512 and VPCLMULQDQ, else at 8 to 18, as it has no code for that instruction on 256 bits. [`wide`] is that
//! code, for processors without AVX-512 (AMD's Zen 3, a Zen 4 whose AVX-512 a hypervisor hides, Intel's since Alder Lake): 34 GB/s on a Zen 4.
#![allow(unsafe_code, reason = "calls of functions for instruction sets that were found at run time")]

/// The CRC-32C (Castagnoli, RFC 3720 appendix B.4) of some bytes.
pub fn checksum(bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if wide::serves() {
        // SAFETY: it serves only where it runs.
        return unsafe { wide::checksum(bytes) };
    }
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// The same of bytes that come one piece after the other.
#[derive(Debug, Clone)]
pub struct Checksum(crc_fast::Digest);

impl Default for Checksum {
    fn default() -> Self {
        Self(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi))
    }
}

impl Checksum {
    /// Takes in what comes next.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The [`checksum`] of all of it.
    pub fn value(&self) -> u32 {
        self.0.finalize() as u32
    }
}

/// CRC-32C by two units of the processor at once: the one that multiplies without carry (Gopal et al., *Fast CRC Computation for Generic
/// Polynomials Using PCLMULQDQ Instruction*, Intel 2009) and the one of the `crc32` instruction (Gopal et al., *Fast CRC Computation for iSCSI
/// Polynomial Using CRC32 Instruction*, Intel 2011). On a Zen 4 either takes 8 bytes a cycle.
///
/// Bytes are cut into blocks; of a block the first part is folded in vectors, the rest goes through `crc32` in three streams, and the four
/// remainders are put together. Polynomials over GF(2) lie as the checksum has them, the coefficient of the highest power in the lowest bit.
#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_clmulepi64_si128, _mm_crc32_u8, _mm_crc32_u64, _mm_cvtsi64_si128, _mm_cvtsi128_si64,
        _mm_extract_epi64, _mm_set_epi64x, _mm_xor_si128, _mm256_castsi256_si128, _mm256_clmulepi64_epi128,
        _mm256_extracti128_si256, _mm256_set_epi64x, _mm256_xor_si256,
    };

    /// Vectors that are folded independently of each other, so that one need not wait for another's product.
    const VECTORS: usize = 4;
    /// Bytes that a round folds.
    const FOLDED: usize = 32 * VECTORS;
    /// Bytes that a round takes of each stream: a round's 8 products take 16 cycles, its 12 `crc32` take 12, which leaves room for loads.
    const STREAMED: usize = 32;
    /// Rounds of a block: putting it together costs about three.
    const ROUNDS: usize = 32;
    const STREAM: usize = STREAMED * ROUNDS;
    pub(super) const BLOCK: usize = FOLDED * ROUNDS + 3 * STREAM;

    /// The Castagnoli polynomial without its highest power.
    const POLYNOMIAL: u32 = 0x82f6_3b78;

    /// `x^exponent` modulo the polynomial.
    const fn power(exponent: usize) -> u32 {
        let (mut remainder, mut done) = (1 << 31, 0);
        while done < exponent {
            remainder = if remainder & 1 == 0 { remainder >> 1 } else { (remainder >> 1) ^ POLYNOMIAL };
            done += 1;
        }
        remainder
    }

    /// What the two halves of 16 bytes are multiplied by to stand `bits` further on: `x^(bits+64)` and `x^bits`, each less the power by
    /// which a product of two numbers that lie so is too high.
    const fn further(bits: usize) -> (i64, i64) {
        (((power(bits + 63) as u64) << 32) as i64, ((power(bits - 1) as u64) << 32) as i64)
    }

    /// Whether this processor has what [`checksum`] needs.
    pub(super) fn runs() -> bool {
        is_x86_feature_detected!("vpclmulqdq")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("sse4.2")
    }

    /// Whether it has, and not what the library does better with.
    pub(super) fn serves() -> bool {
        runs() && !is_x86_feature_detected!("avx512vl")
    }

    /// The CRC-32C of some bytes.
    #[target_feature(enable = "avx2,vpclmulqdq,pclmulqdq,sse4.2")]
    pub(super) fn checksum(bytes: &[u8]) -> u32 {
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        let crc = blocks.iter().fold(u64::from(u32::MAX), |crc, bytes| block(crc, bytes));
        let (vectors, rest) = rest.as_chunks::<FOLDED>();
        let crc = match vectors {
            [first, others @ ..] => {
                others.iter().fold(Folding::new(crc, first), |folding, next| folding.and(next)).remainder()
            }
            [] => crc,
        };
        let (words, rest) = rest.as_chunks::<8>();
        let crc = words.iter().fold(crc, |crc, word| _mm_crc32_u64(crc, u64::from_le_bytes(*word)));
        !rest.iter().fold(crc as u32, |crc, byte| _mm_crc32_u8(crc, *byte))
    }

    /// The remainder after a block, of the one before it.
    #[target_feature(enable = "avx2,vpclmulqdq,pclmulqdq,sse4.2")]
    fn block(crc: u64, bytes: &[u8; BLOCK]) -> u64 {
        let (folded, streamed) = bytes.split_at(FOLDED * ROUNDS);
        let (streams, _) = streamed.as_chunks::<STREAM>();
        let [first, second, third] = [0, 1, 2].map(|stream: usize| streams[stream].as_chunks::<STREAMED>().0);
        let mut folding: Option<Folding> = None;
        let [mut a, mut b, mut c] = [0; 3];
        for (((vectors, first), second), third) in
            folded.as_chunks::<FOLDED>().0.iter().zip(first).zip(second).zip(third)
        {
            folding = Some(match folding {
                Some(folding) => folding.and(vectors),
                None => Folding::new(crc, vectors),
            });
            let words = |bytes: &[u8; STREAMED]| -> [u64; STREAMED / 8] {
                std::array::from_fn(|at| u64::from_le_bytes(bytes.as_chunks().0[at]))
            };
            for ((first, second), third) in words(first).into_iter().zip(words(second)).zip(words(third)) {
                a = _mm_crc32_u64(a, first);
                b = _mm_crc32_u64(b, second);
                c = _mm_crc32_u64(c, third);
            }
        }
        let folded = folding.map_or(crc, |folding| folding.remainder());
        before::<{ 3 * STREAM }>(folded) ^ before::<{ 2 * STREAM }>(a) ^ before::<STREAM>(b) ^ c
    }

    /// What a remainder becomes by so many bytes of 0 behind it.
    #[target_feature(enable = "pclmulqdq,sse4.2")]
    fn before<const BYTES: usize>(crc: u64) -> u64 {
        // The product is a power too high, and `crc32` multiplies by the 32nd.
        let power = const { power(8 * BYTES - 33) };
        let product = _mm_clmulepi64_si128::<0>(_mm_cvtsi64_si128(crc as i64), _mm_cvtsi64_si128(i64::from(power)));
        _mm_crc32_u64(0, _mm_cvtsi128_si64(product) as u64)
    }

    /// Vectors whose remainder, at the places where they were loaded last, is that of everything up to their end.
    #[derive(Clone, Copy)]
    struct Folding([__m256i; VECTORS]);

    impl Folding {
        /// From the first vectors, after bytes of remainder `crc`.
        #[target_feature(enable = "avx2")]
        fn new(crc: u64, bytes: &[u8; FOLDED]) -> Self {
            let mut vectors = Self::load(bytes);
            vectors[0] = _mm256_xor_si256(vectors[0], _mm256_set_epi64x(0, 0, 0, crc as i64));
            Self(vectors)
        }

        #[target_feature(enable = "avx2")]
        fn load(bytes: &[u8; FOLDED]) -> [__m256i; VECTORS] {
            std::array::from_fn(|at| bytemuck::pod_read_unaligned(&bytes[32 * at..32 * at + 32]))
        }

        #[target_feature(enable = "avx2,vpclmulqdq")]
        fn and(self, bytes: &[u8; FOLDED]) -> Self {
            let mut vectors = Self::load(bytes);
            for (vector, folded) in vectors.iter_mut().zip(self.0) {
                *vector = fold::<{ 8 * FOLDED }>(folded, *vector);
            }
            Self(vectors)
        }

        /// The remainder of everything so far.
        #[target_feature(enable = "avx2,vpclmulqdq,pclmulqdq,sse4.2")]
        fn remainder(self) -> u64 {
            let [a, b, c, d] = self.0;
            let vector = fold::<256>(fold::<256>(fold::<256>(a, b), c), d);
            let (first, last) = (_mm256_castsi256_si128(vector), _mm256_extracti128_si256::<1>(vector));
            let (low, high) = const { further(128) };
            let by: __m128i = _mm_set_epi64x(high, low);
            let moved = _mm_xor_si128(_mm_clmulepi64_si128::<0x00>(first, by), _mm_clmulepi64_si128::<0x11>(first, by));
            let words = _mm_xor_si128(moved, last);
            let crc = _mm_crc32_u64(0, _mm_extract_epi64::<0>(words) as u64);
            _mm_crc32_u64(crc, _mm_extract_epi64::<1>(words) as u64)
        }
    }

    /// `onto`, with `vector` moved to it over `BITS`.
    #[target_feature(enable = "avx2,vpclmulqdq")]
    fn fold<const BITS: usize>(vector: __m256i, onto: __m256i) -> __m256i {
        let (low, high) = const { further(BITS) };
        let by = _mm256_set_epi64x(high, low, high, low);
        let products = (_mm256_clmulepi64_epi128::<0x00>(vector, by), _mm256_clmulepi64_epi128::<0x11>(vector, by));
        _mm256_xor_si256(_mm256_xor_si256(products.0, products.1), onto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit by bit, as the polynomial is divided by hand.
    fn by_hand(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 0 { crc >> 1 } else { (crc >> 1) ^ 0x82f6_3b78 })
        })
    }

    fn noise(bytes: usize) -> Vec<u8> {
        (0..bytes as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ at as u8).collect()
    }

    #[test]
    fn the_check_value_of_the_standard() {
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
        assert_eq!(by_hand(b"123456789"), 0xe306_9283);
    }

    /// Whether `checksum` gives what a division by hand does: for every length up to some hundred bytes, and around the ends of whole blocks from
    /// addresses of any alignment.
    fn check(checksum: impl Fn(&[u8]) -> u32) {
        let bytes = noise(600);
        for length in 0..=600 {
            assert_eq!(checksum(&bytes[..length]), by_hand(&bytes[..length]), "{length} bytes");
        }
        let bytes = noise(2 * 7168 + 300);
        for length in [1023, 4096, 7167, 7168, 7169, 7168 + 127, 7168 + 128, 2 * 7168 - 1, 2 * 7168, 2 * 7168 + 135] {
            for start in [0, 1, 8, 31] {
                let bytes = &bytes[start..start + length];
                assert_eq!(checksum(bytes), by_hand(bytes), "{length} bytes from {start}");
            }
        }
    }

    #[test]
    fn a_checksum_is_what_a_division_by_hand_gives() {
        check(checksum);
    }

    #[test]
    fn so_is_that_of_bytes_that_come_in_pieces() {
        check(|bytes| {
            let mut checksum = Checksum::default();
            bytes.chunks(37).for_each(|piece| checksum.update(piece));
            checksum.value()
        });
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn so_is_the_wide_one_wherever_it_runs_which_serves_where_the_library_has_no_vectors_of_512_bits() {
        assert_eq!(wide::BLOCK, 7168, "the lengths that are checked");
        assert_eq!(wide::serves(), wide::runs() && !is_x86_feature_detected!("avx512vl"));
        if !wide::runs() {
            eprintln!("skipped: this processor has no VPCLMULQDQ");
            return;
        }
        // SAFETY: it runs here.
        check(|bytes| unsafe { wide::checksum(bytes) });
        for length in (0..3000).chain([65_536, 65_537, 262_144]) {
            let bytes = noise(length);
            // SAFETY: as above.
            let wide = unsafe { wide::checksum(&bytes) };
            assert_eq!(wide, crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes) as u32, "{length} bytes");
        }
    }
}
