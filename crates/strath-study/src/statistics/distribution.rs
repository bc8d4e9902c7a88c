//! Tails and quantiles of Student's t and of the normal distribution.

use statrs::distribution::{Continuous, ContinuousCDF, StudentsT};

/// The normal distribution's quantile at 0.975: 95 % lie within this many deviations of the mean.
pub(super) const NORMAL_95: f64 = 1.959_963_984_540_054;

fn student(degrees: usize) -> StudentsT {
    StudentsT::new(0.0, 1.0, degrees as f64).expect("callers have at least one degree of freedom")
}

/// `P(T > t)` of Student's distribution with `degrees` of freedom, to eleven digits up to a thousand of them and to ten
/// up to a hundred thousand.
pub(super) fn student_above(t: f64, degrees: usize) -> f64 {
    student(degrees).sf(t).clamp(0.0, 1.0)
}

/// `P(|T| > |t|)` of Student's distribution with `degrees` of freedom.
pub(super) fn student_two_sided(t: f64, degrees: usize) -> f64 {
    (2.0 * student_above(t.abs(), degrees)).min(1.0)
}

/// The t that 2.5 % of Student's distribution with `degrees` of freedom lie above: half the width of a 95 % interval of
/// a mean, in standard errors.
pub(super) fn student_95(degrees: usize) -> f64 {
    let distribution = student(degrees);
    let mut t = distribution.inverse_cdf(0.975);
    // statrs' quantile is of a limited number of digits; two of Newton's steps give those of its tail.
    for _ in 0..2 {
        t += (distribution.sf(t) - 0.025) / distribution.pdf(t);
    }
    t
}

/// `P(|Z| > |z|)` of the standard normal distribution.
pub(super) fn normal_two_sided(z: f64) -> f64 {
    libm::erfc(z.abs() / std::f64::consts::SQRT_2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::PI;

    fn close(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 1e-11, "found {found}, expected {expected}");
    }

    #[test]
    fn tails_of_one_and_two_degrees_have_closed_forms() {
        for t in [1e-3, 0.1, 1.0, 2.5, 12.0, 1e4] {
            close(student_two_sided(t, 1), 2.0 / PI * (1.0 / t).atan());
            // 1 - t / sqrt(t^2 + 2), without the cancellation.
            let root = (t * t + 2.0).sqrt();
            close(student_two_sided(-t, 2), 2.0 / (root * (root + t)));
        }
        assert_eq!(student_two_sided(0.0, 5), 1.0);
        assert_eq!(student_two_sided(f64::INFINITY, 5), 0.0);
    }

    #[test]
    fn tails_are_scipys() {
        // [2 * scipy.stats.t.sf(2.5, v) for v in (3, 9, 30, 99, 1000, 100000)]
        let expected = [
            (3, 0.087_706_647_008_065_56),
            (9, 0.033_861_827_682_985_735),
            (30, 0.018_115_649_068_066_68),
            (99, 0.014_062_596_921_149_069),
            (1000, 0.012_578_567_801_090_807),
        ];
        for (degrees, p) in expected {
            close(student_two_sided(2.5, degrees), p);
            close(student_above(-2.5, degrees), 1.0 - p / 2.0);
        }
        // Of very many degrees, ten digits.
        assert!((student_two_sided(2.5, 100_000) / 0.012_420_919_192_559_051 - 1.0).abs() < 1e-10);
    }

    #[test]
    fn quantiles_are_scipys() {
        // [scipy.stats.t.ppf(0.975, v) for v in (1, 2, 4, 9, 30, 99, 1000)]
        let expected = [
            (1, 12.706_204_736_174_694),
            (2, 4.302_652_729_749_462),
            (4, 2.776_445_105_197_793_4),
            (9, 2.262_157_162_798_205),
            (30, 2.042_272_456_301_237_8),
            (99, 1.984_216_951_586_417_4),
            (1000, 1.962_339_080_826_408_3),
        ];
        for (degrees, t) in expected {
            close(student_95(degrees), t);
        }
    }

    #[test]
    fn the_normal_tail_is_scipys() {
        // [2 * scipy.stats.norm.sf(z) for z in (0.1, 1, 3, 10)]
        for (z, p) in [
            (0.1, 0.920_344_325_445_942),
            (-1.0, 0.317_310_507_862_914_1),
            (3.0, 0.002_699_796_063_260_186_6),
            (10.0, 1.523_970_604_832_094e-23),
        ] {
            close(normal_two_sided(z), p);
        }
        close(normal_two_sided(NORMAL_95), 0.05);
    }
}
