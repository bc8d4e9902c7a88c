//! Random bits become normal draws, after Box and Muller (1958).
//!
//! ```text
//! words a, b   ->   r cos t, r sin t      r = sqrt(-2 ln((a + 1) / 2^32)),  t = 2 pi b / 2^32
//! ```
//!
//! Logarithm, sine and cosine are sums, products and one quotient of f64, written out below: no library is called, so the bits are the
//! same on every platform and for every instruction set, and a program in any language repeats them (`tests/reference/draws.py` does).
//! They are within 1e-15 of their values, and no draw is beyond 6.7.

use crate::isa::Isa;
use crate::vectorised::vectorised;

/// Pairs of draws computed side by side.
const PAIRS: usize = 8;

/// Writes a standard normal draw for each of `words`, which come in pairs: words `2 k` and `2 k + 1` give the draws `2 k` and `2 k + 1`.
/// The draws are rounded to f32; where their number is odd, the last word's is left out.
///
/// # Panics
/// Where there is another number of words than of draws, made even.
pub fn normals(words: &[u32], draws: &mut [f32]) {
    assert_eq!(words.len(), draws.len().next_multiple_of(2), "there is a word for each draw, in pairs");
    box_muller(Isa::active(), words, draws);
}

vectorised! {
    fn box_muller(words: &[u32], draws: &mut [f32]) {
        let (whole, rest) = words.as_chunks::<{ 2 * PAIRS }>();
        let (whole_draws, rest_draws) = draws.split_at_mut((whole.len() * 2 * PAIRS).min(draws.len()));
        let mut padded = [0; 2 * PAIRS];
        padded[..rest.len()].copy_from_slice(rest);
        for (words, draws) in whole.iter().zip(whole_draws.chunks_mut(2 * PAIRS)) {
            draws.copy_from_slice(&pairs(words)[..draws.len()]);
        }
        rest_draws.copy_from_slice(&pairs(&padded)[..rest_draws.len()]);
    }
}

#[inline(always)]
fn pairs(words: &[u32; 2 * PAIRS]) -> [f32; 2 * PAIRS] {
    let mut draws = [0.0; 2 * PAIRS];
    for at in 0..PAIRS {
        let radius = (-2.0 * log(words[2 * at])).sqrt();
        let (cosine, sine) = turn(words[2 * at + 1]);
        draws[2 * at] = (radius * cosine) as f32;
        draws[2 * at + 1] = (radius * sine) as f32;
    }
    draws
}

/// `ln((word + 1) / 2^32)`.
///
/// `word + 1 = m 2^e` with m in `sqrt(1/2) .. sqrt(2)`, and `ln m = 2 artanh f = 2 f (1 + f^2/3 + f^4/5 + ...)`, `f = (m - 1)/(m + 1)`: at
/// most 0.172, so that the first term left out is below 1e-18.
#[inline(always)]
fn log(word: u32) -> f64 {
    /// The bits of an f64's fraction.
    const FRACTION: u64 = (1 << 52) - 1;
    /// The bits of 2^52: what is put in its low bits is added to it.
    const TWO_52: u64 = 1075 << 52;
    let bits = (f64::from(word) + 1.0).to_bits();
    let m = f64::from_bits(bits & FRACTION | 1.0f64.to_bits());
    let e = f64::from_bits(bits >> 52 | TWO_52) - (f64::from_bits(TWO_52) + 1023.0 + 32.0);
    let is_large = m > std::f64::consts::SQRT_2;
    let m = if is_large { 0.5 * m } else { m };
    let e = if is_large { e + 1.0 } else { e };
    let f = (m - 1.0) / (m + 1.0);
    let s = f * f;
    let mut p = 1.0 / 21.0;
    p = p * s + 1.0 / 19.0;
    p = p * s + 1.0 / 17.0;
    p = p * s + 1.0 / 15.0;
    p = p * s + 1.0 / 13.0;
    p = p * s + 1.0 / 11.0;
    p = p * s + 1.0 / 9.0;
    p = p * s + 1.0 / 7.0;
    p = p * s + 1.0 / 5.0;
    p = p * s + 1.0 / 3.0;
    p = p * s + 1.0;
    e * std::f64::consts::LN_2 + 2.0 * f * p
}

/// Cosine and sine of `2 pi word / 2^32`.
///
/// The quarter turn nearest to the angle is taken off in integers, exactly; what is left, at most pi/4, goes into Taylor's series, of
/// which the first terms left out are below 1e-17.
#[inline(always)]
fn turn(word: u32) -> (f64, f64) {
    let quarter = word.wrapping_add(1 << 29) >> 30;
    let rest = word.wrapping_sub(quarter << 30).cast_signed();
    let x = f64::from(rest) * (2.0 * std::f64::consts::PI / 4_294_967_296.0);
    let s = x * x;
    let mut p = 1.0 / 355_687_428_096_000.0; // 17!
    p = p * s - 1.0 / 1_307_674_368_000.0;
    p = p * s + 1.0 / 6_227_020_800.0;
    p = p * s - 1.0 / 39_916_800.0;
    p = p * s + 1.0 / 362_880.0;
    p = p * s - 1.0 / 5_040.0;
    p = p * s + 1.0 / 120.0;
    p = p * s - 1.0 / 6.0;
    p = p * s + 1.0;
    let sine = x * p;
    let mut p = 1.0 / 20_922_789_888_000.0; // 16!
    p = p * s - 1.0 / 87_178_291_200.0;
    p = p * s + 1.0 / 479_001_600.0;
    p = p * s - 1.0 / 3_628_800.0;
    p = p * s + 1.0 / 40_320.0;
    p = p * s - 1.0 / 720.0;
    p = p * s + 1.0 / 24.0;
    p = p * s - 0.5;
    let cosine = p * s + 1.0;
    let is_odd = quarter & 1 == 1;
    let (a, b) = if is_odd { (sine, cosine) } else { (cosine, sine) };
    (if quarter == 1 || quarter == 2 { -a } else { a }, if quarter >= 2 { -b } else { b })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vectorised::tests::same_bits_by_every_isa;

    /// Words of every size: a multiple of a large odd number, and the ends.
    fn words() -> Vec<u32> {
        let spread = (0..200_000u32).map(|k| k.wrapping_mul(2_654_435_761));
        let edges = [0, 1, 2, u32::MAX, u32::MAX - 1, 1 << 31, 1 << 30, 3 << 30, (1 << 29) - 1, 1 << 29, 7 << 29];
        spread.chain(edges).chain(edges.map(|edge| edge.wrapping_add(1))).collect()
    }

    #[test]
    fn logarithm_and_turn_are_those_of_libm_to_the_last_digits() {
        let (mut log_error, mut turn_error) = (0.0f64, 0.0f64);
        for word in words() {
            let want = libm::log((f64::from(word) + 1.0) / 4_294_967_296.0);
            log_error = log_error.max((log(word) - want).abs() / want.abs().max(1e-300));
            let angle = 2.0 * std::f64::consts::PI * (f64::from(word) / 4_294_967_296.0);
            let (cosine, sine) = turn(word);
            turn_error = turn_error.max((cosine - libm::cos(angle)).abs()).max((sine - libm::sin(angle)).abs());
        }
        println!("largest errors: logarithm {log_error:e} relatively, turn {turn_error:e}");
        assert!(log_error < 1e-15 && turn_error < 2e-15);
        assert_eq!(log(u32::MAX), 0.0);
        assert_eq!([0, 1 << 30, 1 << 31, 3 << 30].map(turn), [(1.0, 0.0), (-0.0, 1.0), (-1.0, -0.0), (0.0, -1.0)]);
    }

    #[test]
    fn logarithm_and_turn_have_the_bits_of_the_reference_program() {
        // log and turn of tests/reference/draws.py
        for (word, bits) in [
            (0, [0xc036_2e42_fefa_39ef, 0x3ff0_0000_0000_0000, 0x0000_0000_0000_0000]),
            (1, [0xc035_7cd0_e702_6820, 0x3ff0_0000_0000_0000, 0x3e19_21fb_5444_2d18]),
            (12_345, [0xc029_84ed_3953_9060, 0x3fef_ffff_ffe9_963f, 0x3ef2_efde_c305_c2b5]),
            ((1 << 31) + 7, [0xbfe6_2e42_fcfa_39ef, 0xbff0_0000_0000_0000, 0xbe45_fdbb_e9bb_a775]),
            (0xaaaa_aaaa, [0xbfd9_f323_ec9f_984c, 0xbfe0_0000_0074_154a, 0xbfeb_b67a_e815_4762]),
            (u32::MAX, [0x0000_0000_0000_0000, 0x3ff0_0000_0000_0000, 0xbe19_21fb_5444_2d18]),
        ] {
            let (cosine, sine) = turn(word);
            assert_eq!([log(word), cosine, sine].map(f64::to_bits), bits, "{word}");
        }
    }

    #[test]
    fn draws_are_those_of_the_formula_at_every_length_by_every_instruction_set() {
        let words = words();
        for len in [0, 1, 2, 15, 16, 17, 31, 33, 1000, 1001] {
            let words = &words[..usize::next_multiple_of(len, 2)];
            let got = same_bits_by_every_isa(|isa| {
                let mut draws = vec![f32::NAN; len];
                box_muller(isa, words, &mut draws);
                draws
            });
            for (at, got) in got.iter().enumerate() {
                let (radius, turn) = ((-2.0 * log(words[at / 2 * 2])).sqrt(), turn(words[at / 2 * 2 + 1]));
                let want = radius * if at % 2 == 0 { turn.0 } else { turn.1 };
                assert_eq!(got.to_bits(), (want as f32).to_bits(), "draw {at} of {len}");
            }
        }
    }

    #[test]
    fn draws_have_the_moments_of_the_normal_distribution_and_do_not_go_together() {
        // Words of a small generator: those of `words` are too even.
        let mut state = 1u64;
        let mut word = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        };
        let words: Vec<u32> = (0..400_000).map(|_| word()).collect();
        let mut draws = vec![0.0; words.len()];
        normals(&words, &mut draws);
        let mean = |value: &dyn Fn(usize) -> f64| (0..draws.len()).map(value).sum::<f64>() / draws.len() as f64;
        let draw = |at: usize| f64::from(draws[at]);
        let moments = [1, 2, 3, 4].map(|power| mean(&|at| draw(at).powi(power)));
        for (got, want) in moments.iter().zip([0.0, 1.0, 0.0, 3.0]) {
            assert!((got - want).abs() < 0.05, "{moments:?}");
        }
        assert!(mean(&|at| draw(at) * draw(at ^ 1)).abs() < 0.01, "the two of a pair");
        assert!(draws.iter().all(|draw| draw.abs() < 6.7));
    }
}
