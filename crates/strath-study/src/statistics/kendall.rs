//! Kendall's tau-b: how far two lists put the same things in the same order.

use super::distribution::normal_two_sided;
use super::error::StatisticsError;
use super::rank::{Correlation, Ranks, ranked};

/// The most values without ties whose p value is exact whatever their order.
const EXACT: usize = 33;

/// Kendall's tau-b of two lists (Kendall 1938, 1945) with its two-sided p value, as `scipy.stats.kendalltau` by its
/// defaults.
///
/// Of the `N = n (n - 1) / 2` pairs of positions C are in the same order in both lists and D in opposite orders, X are
/// tied in the first and Y in the second: `tau = (C - D) / sqrt((N - X) (N - Y))`. The p value is that of C - D among
/// all orders of one list: exact without ties and of at most 33 values (or fewer than two pairs in C or in D), else
/// normal with variance `(m (2n + 5) - x1 - y1) / 18 + 2 X Y / m + x0 y0 / (9 m (n - 2))`, `m = n (n - 1)`, where x1
/// adds up `t (t - 1) (2t + 5)` and x0 `t (t - 1) (t - 2)` over the groups of t equal values (Kendall 1970). `None`
/// where a list is constant, and so has no order. Takes time of n^2.
///
/// # Errors
/// [`StatisticsError`]: values that are not finite, lists of different lengths, fewer than two values.
pub fn kendall(first: &[f64], second: &[f64]) -> Result<Option<Correlation>, StatisticsError> {
    let Some([x, y]) = ranked(first, second)? else { return Ok(None) };
    let n = first.len();
    let (concordant, discordant) = concordance(&x, &y);
    let difference = concordant as f64 - discordant as f64;
    let size = n as f64;
    let pairs = size * (size - 1.0) / 2.0;
    let tied = |ranks: &Ranks| ranks.over_ties(|t| t * (t - 1.0) / 2.0);
    let (x_tied, y_tied) = (tied(&x), tied(&y));
    let coefficient = (difference / ((pairs - x_tied) * (pairs - y_tied)).sqrt()).clamp(-1.0, 1.0);
    let fewer = concordant.min(discordant);
    let p = if x.distinct() && y.distinct() && (n <= EXACT || fewer <= 1) {
        exact(n, fewer)
    } else {
        let m = 2.0 * pairs;
        let five = |ranks: &Ranks| ranks.over_ties(|t| t * (t - 1.0) * (2.0 * t + 5.0));
        let triples = |ranks: &Ranks| ranks.over_ties(|t| t * (t - 1.0) * (t - 2.0));
        // With ties and an order there are at least three values.
        let variance = (m * (2.0 * size + 5.0) - five(&x) - five(&y)) / 18.0
            + 2.0 * x_tied * y_tied / m
            + triples(&x) * triples(&y) / (9.0 * m * (size - 2.0));
        normal_two_sided(difference / variance.sqrt())
    };
    Ok(Some(Correlation { coefficient, p: Some(p) }))
}

/// How many pairs of positions both lists put in the same order, and how many in opposite orders.
fn concordance(x: &Ranks, y: &Ranks) -> (u64, u64) {
    let (mut concordant, mut discordant) = (0, 0);
    for a in 0..x.dense.len() {
        for b in 0..a {
            let (in_x, in_y) = (x.dense[a].cmp(&x.dense[b]), y.dense[a].cmp(&y.dense[b]));
            if in_x.is_ne() && in_y.is_ne() {
                if in_x == in_y { concordant += 1 } else { discordant += 1 }
            }
        }
    }
    (concordant, discordant)
}

/// The probability that an order of n different values has at most `fewer` inversions, or as few pairs that are none.
fn exact(n: usize, fewer: u64) -> f64 {
    let pairs = (n * (n - 1) / 2) as u64;
    if 2 * fewer == pairs {
        return 1.0;
    }
    // Of n! orders 1 has no inversion and n - 1 have one.
    if fewer <= 1 {
        let orders = if fewer == 0 { 1.0 } else { n as f64 };
        return 2.0 * (2..=n).fold(orders, |p, k| p / k as f64);
    }
    // Orders by inversions: the k-th value may stand before 0 to k - 1 of those that are there. 33! is less than 2^128.
    let mut orders = vec![0u128; fewer as usize + 1];
    orders[0] = 1;
    let mut all = 1u128;
    for k in 1..=n {
        orders = (0..orders.len()).map(|i| orders[(i + 1).saturating_sub(k)..=i].iter().sum()).collect();
        all *= k as u128;
    }
    2.0 * (orders.iter().sum::<u128>() as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use strath_core::random::{Purpose, Stream};

    fn check(first: &[f64], second: &[f64], coefficient: f64, p: f64) {
        let found = kendall(first, second).unwrap().unwrap();
        assert!((found.coefficient - coefficient).abs() < 1e-12, "{found:?}, expected {coefficient}");
        assert!((found.p.unwrap() / p - 1.0).abs() < 1e-10, "{found:?}, expected {p}");
    }

    fn squares(n: u32, modulus: u32) -> Vec<f64> {
        (0..n).map(|i| f64::from(i * i % modulus)).collect()
    }

    #[test]
    fn coefficients_and_p_values_are_scipys() {
        // scipy.stats.kendalltau(x, y)
        check(
            &[12.0, 2.0, 1.0, 12.0, 2.0],
            &[1.0, 4.0, 7.0, 1.0, 0.0],
            -0.471_404_520_791_031_7,
            0.282_745_459_932_774_8,
        );
        let rising = |n: u32| (0..n).map(f64::from).collect::<Vec<f64>>();
        // y = [i * 7 % 11 for i in range(10)]
        let scattered: Vec<f64> = (0..10).map(|i| f64::from(i * 7 % 11)).collect();
        check(&rising(10), &scattered, 0.066_666_666_666_666_67, 0.861_800_595_238_095_3);
        // y = [i * 17 % 37 for i in range(33)] and up to 36
        let longer: Vec<f64> = (0..36).map(|i| f64::from(i * 17 % 37)).collect();
        check(&rising(33), &longer[..33], 0.007_575_757_575_757_577, 0.963_227_857_387_388_6);
        check(&rising(36), &longer, -0.063_492_063_492_063_49, 0.585_866_478_032_733_7);
        // y = [i * i % 13 for i in range(40)], x = [i * i % 7 for i in range(40)]
        check(&squares(40, 7), &squares(40, 13), 0.012_603_880_843_984_205, 0.921_823_387_795_346_9);
    }

    #[test]
    fn long_lists_almost_in_one_order_have_an_exact_p_value() {
        let rising: Vec<f64> = (0..40).map(f64::from).collect();
        let mut one_off = rising.clone();
        one_off.swap(3, 4);
        // scipy.stats.kendalltau(range(40), y).pvalue
        check(&rising, &rising, 1.0, 2.451_234_878_256_772e-48);
        check(&rising, &one_off, 1.0 - 4.0 / 1560.0, 9.804_939_513_027_087e-47);
    }

    #[test]
    fn the_exact_p_value_is_a_count_of_all_orders() {
        for n in 2..=6usize {
            let inversions = |order: &[usize]| {
                (0..n).flat_map(|a| (0..a).map(move |b| (a, b))).filter(|(a, b)| order[*a] < order[*b]).count()
            };
            let pairs = n * (n - 1) / 2;
            let mut by_inversions = vec![0u32; pairs + 1];
            permutations(&mut (0..n).collect(), 0, &mut |order| by_inversions[inversions(order)] += 1);
            let all: u32 = by_inversions.iter().sum();
            for fewer in 0..=pairs / 2 {
                let tail: u32 = by_inversions[..=fewer].iter().sum();
                let expected = (2.0 * f64::from(tail) / f64::from(all)).min(1.0);
                assert!((exact(n, fewer as u64) - expected).abs() < 1e-14, "{n} {fewer}");
            }
        }
    }

    fn permutations(order: &mut Vec<usize>, at: usize, f: &mut impl FnMut(&[usize])) {
        if at == order.len() {
            return f(order);
        }
        for other in at..order.len() {
            order.swap(at, other);
            permutations(order, at + 1, f);
            order.swap(at, other);
        }
    }

    #[test]
    fn a_constant_list_has_no_coefficient_and_one_value_no_order() {
        assert_eq!(kendall(&[1.0, 1.0, 1.0], &[1.0, 2.0, 3.0]), Ok(None));
        assert_eq!(kendall(&[1.0, 2.0], &[3.0, 3.0]), Ok(None));
        assert_eq!(kendall(&[1.0], &[1.0]), Err(StatisticsError::TooFew { what: "values", found: 1, needed: 2 }));
        assert_eq!(kendall(&[1.0, 2.0], &[2.0, 1.0]), Ok(Some(Correlation { coefficient: -1.0, p: Some(1.0) })));
    }

    #[test]
    fn p_values_of_unrelated_lists_are_spread_evenly() {
        let below: usize = (0..400)
            .filter(|draw| {
                let mut stream = Stream::new(3, Purpose::Null { draw: *draw });
                let mut list = || (0..12).map(|_| f64::from(stream.next_u32())).collect::<Vec<f64>>();
                kendall(&list(), &list()).unwrap().unwrap().p.unwrap() <= 0.2
            })
            .count();
        assert!((50..=100).contains(&below), "{below} of 400 at or below 0.2");
    }

    proptest! {
        #[test]
        fn the_order_alone_counts(values in prop::collection::vec((-4i32..4, -4i32..4), 2..40)) {
            let (x, y): (Vec<f64>, Vec<f64>) = values.iter().map(|(a, b)| (f64::from(*a), f64::from(*b))).unzip();
            let found = kendall(&x, &y).unwrap();
            let bent: Vec<f64> = x.iter().map(|v| v.exp()).collect();
            let turned: Vec<f64> = y.iter().map(|v| -v).collect();
            prop_assert_eq!(kendall(&bent, &y).unwrap(), found);
            prop_assert_eq!(kendall(&y, &x).unwrap(), found);
            let back = kendall(&x, &turned).unwrap();
            prop_assert_eq!(back.map(|c| (-c.coefficient, c.p)), found.map(|c| (c.coefficient, c.p)));
            if let Some(found) = found {
                prop_assert!(found.coefficient.abs() <= 1.0, "{found:?}");
                prop_assert!((0.0..=1.0).contains(&found.p.unwrap()), "{found:?}");
            }
        }
    }
}
