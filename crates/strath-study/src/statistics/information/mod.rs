//! Predictive power: what a measure of models says about which of two generalises better, beyond what their
//! hyper-parameters say.

mod cells;
mod null;

pub use null::{Null, permutation_null};

use super::error::{StatisticsError, finite};
use cells::Pairs;

/// A trained model, as the predictive power of a measure needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The measure's value, m-sharpness for one. Its order among models counts alone.
    pub measure: f64,
    /// The generalisation gap: test error less training error. Its order among models counts alone.
    pub gap: f64,
    /// Which value each hyper-parameter has, as an index of the caller's: equal where the values are. Of all models the
    /// same hyper-parameters in the same order, without the seed.
    pub hyper_parameters: Vec<u32>,
}

/// Which of two estimators of a measure's predictive power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Convention {
    /// That of Foret et al. (2021), section 4.1, after Jiang et al. (2020), "Fantastic generalization measures".
    ///
    /// Over the ordered pairs of two different models, `V_mu` and `V_g` are the signs of the difference: -1, 0 where
    /// the two are equal, or 1. Cells weigh as many pairs as they hold, the subsets are all of at most two
    /// hyper-parameters.
    Paper,
    /// That of the public scorer of the competition "Predicting generalization in deep learning" (NeurIPS 2020),
    /// `mutual_information.py`.
    ///
    /// Over the ordered pairs of all models, each with itself too, `V_mu` and `V_g` are whether the first model's value
    /// is larger: a tie is as if it were smaller. Cells weigh equally however many pairs they hold, the subsets are all
    /// of exactly two hyper-parameters. The scorer asks for one model at every point of a grid; where points are
    /// missing, cells without pairs are left out here. It adds 1e-12 inside its logarithms, which moves its results by
    /// about as much, and makes 0 of those without entropy, which have no share here.
    Competition,
}

/// What a measure says about the gap where the hyper-parameters of one subset are known.
#[derive(Debug, Clone, PartialEq)]
pub struct Conditioned {
    /// Positions of the subset's hyper-parameters, ascending.
    pub given: Vec<usize>,
    /// `I(V_mu; V_g | U_S)`, in bits.
    pub information: f64,
    /// `H(V_g | U_S)`, in bits.
    pub entropy: f64,
    /// Information over entropy, in 0..=1. `None` where the entropy is 0: the hyper-parameters leave nothing to be
    /// predicted.
    pub share: Option<f64>,
}

/// The predictive power of a measure.
#[derive(Debug, Clone, PartialEq)]
pub struct Information {
    /// The least of the subsets' shares, in 0..=1: the measure's predictive power. `None` where no subset has one.
    pub least: Option<f64>,
    /// What it is the least of, smaller subsets first.
    pub subsets: Vec<Conditioned>,
}

/// The predictive power of a measure of `models`: the normalised conditional mutual information
/// `min over S of I(V_mu; V_g | U_S) / H(V_g | U_S)`.
///
/// `V_mu` says which model of a pair has the larger measure, `V_g` which has the larger gap, and `U_S` is the values
/// that both models have of the hyper-parameters in S: pairs with the same U_S, in order, form a cell. All
/// probabilities are the shares of pairs counted (the plug-in estimator, without a correction): with `n_ij` pairs of
/// `V_g = i` and `V_mu = j` among the n of a cell, `I = sum n_ij / n log2(n n_ij / (n_i n_j))`,
/// `H = -sum n_i / n log2(n_i / n)`, and over cells the mean of each by the weights that the [`Convention`] says; the
/// quotient is taken of the two means. A cell in which V_g is always the same has an entropy of 0 and so an information
/// of 0: it adds to neither. A subset without any entropy has no share, and does not count in the minimum.
///
/// The estimate is biased upwards, the more the fewer pairs a cell holds: compare it with [`permutation_null`]. It does
/// not depend on the models' order, on an increasing function of the measure or of the gap, nor, by
/// [`Convention::Paper`], on a decreasing one: what predicts the reverse predicts. A hyper-parameter that all models
/// share conditions on nothing.
///
/// # Errors
/// [`StatisticsError`]: fewer than two models, measures or gaps that are not finite, models of different numbers of
/// hyper-parameters, by [`Convention::Competition`] fewer than two hyper-parameters.
pub fn information(models: &[Model], convention: Convention) -> Result<Information, StatisticsError> {
    let pairs = pairs(models, convention)?;
    let subsets = pairs.conditioned(&pairs.measures);
    Ok(Information { least: least(&subsets), subsets })
}

fn least(subsets: &[Conditioned]) -> Option<f64> {
    subsets.iter().filter_map(|subset| subset.share).reduce(f64::min)
}

fn pairs(models: &[Model], convention: Convention) -> Result<Pairs, StatisticsError> {
    finite("the measure", models.iter().map(|model| model.measure))?;
    finite("the gap", models.iter().map(|model| model.gap))?;
    let few = |what, found| Err(StatisticsError::TooFew { what, found, needed: 2 });
    let (Some(first), true) = (models.first(), models.len() > 1) else {
        return few("models", models.len());
    };
    let expected = first.hyper_parameters.len();
    for (model, of) in models.iter().enumerate() {
        let found = of.hyper_parameters.len();
        if found != expected {
            return Err(StatisticsError::HyperParameters { model, found, expected });
        }
    }
    if convention == Convention::Competition && expected < 2 {
        return few("hyper-parameters", expected);
    }
    Ok(Pairs::of(models, convention))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(super) fn model(measure: f64, gap: f64, hyper_parameters: &[u32]) -> Model {
        Model { measure, gap, hyper_parameters: hyper_parameters.to_vec() }
    }

    const BOTH: [Convention; 2] = [Convention::Paper, Convention::Competition];

    #[test]
    fn four_models_by_hand() {
        // Measures 1 2 3 4, gaps 1 2 4 3: of twelve ordered pairs ten agree, I = 1 - H(1/6), H = 1.
        let models: Vec<Model> =
            [1.0, 2.0, 4.0, 3.0].iter().zip(1..).map(|(gap, at)| model(f64::from(at), *gap, &[])).collect();
        let found = information(&models, Convention::Paper).unwrap();
        let sixth = 1.0f64 / 6.0;
        let noise = -sixth * sixth.log2() - (1.0 - sixth) * (1.0 - sixth).log2();
        assert!((found.least.unwrap() - (1.0 - noise)).abs() < 1e-15);
        assert_eq!(found.subsets[0].entropy, 1.0);
    }

    #[test]
    fn what_the_hyper_parameters_say_already_is_no_information() {
        // Measure and gap follow the first hyper-parameter; within its values the measure is constant.
        let models: Vec<Model> =
            (0..8).map(|at| model(f64::from(at / 4), f64::from(at / 4 * 10 + at % 4), &[at / 4, 0])).collect();
        let found = information(&models, Convention::Paper).unwrap();
        assert_eq!(
            found.subsets.iter().map(|s| s.given.clone()).collect::<Vec<_>>(),
            [vec![], vec![0], vec![1], vec![0, 1]]
        );
        assert!(found.subsets[0].share.unwrap() > 0.5);
        assert_eq!((found.subsets[1].share, found.least), (Some(0.0), Some(0.0)));
        assert_eq!(found.subsets[2].share, found.subsets[0].share);
    }

    #[test]
    fn the_scorer_pairs_each_model_with_itself() {
        // Two models alike in all: one cell of four pairs, of which one has the larger gap and the larger measure.
        let models = [model(2.0, 2.0, &[0, 0]), model(1.0, 1.0, &[0, 0])];
        let found = information(&models, Convention::Competition).unwrap();
        let entropy = 0.25 * 2.0 - 0.75 * 0.75f64.log2();
        assert_eq!(found.subsets.len(), 1);
        assert!((found.subsets[0].entropy - entropy).abs() < 1e-15 && found.least == Some(1.0));
    }

    #[test]
    fn where_the_gap_is_settled_nothing_can_be_predicted() {
        // Every model has its own values: a cell holds one pair.
        let models: Vec<Model> =
            (0..6).map(|at| model(f64::from(at), f64::from(at * at % 7), &[at % 2, at / 2])).collect();
        let found = information(&models, Convention::Paper).unwrap();
        assert_eq!(found.subsets[3], Conditioned { given: vec![0, 1], information: 0.0, entropy: 0.0, share: None });
        assert!(found.least.is_some());
        assert_eq!(information(&models, Convention::Competition).unwrap().least, None);
        let equal: Vec<Model> = models.into_iter().map(|m| Model { gap: 1.0, ..m }).collect();
        assert!(BOTH.iter().all(|convention| information(&equal, *convention).unwrap().least.is_none()));
    }

    #[test]
    fn models_that_cannot_be_compared_are_refused() {
        let one = |models: &[Model]| information(models, Convention::Paper).unwrap_err();
        assert_eq!(one(&[]), StatisticsError::TooFew { what: "models", found: 0, needed: 2 });
        assert_eq!(one(&[model(1.0, 1.0, &[])]), StatisticsError::TooFew { what: "models", found: 1, needed: 2 });
        let uneven = [model(1.0, 1.0, &[1]), model(1.0, 1.0, &[])];
        assert_eq!(one(&uneven), StatisticsError::HyperParameters { model: 1, found: 0, expected: 1 });
        let diverged = [model(1.0, 1.0, &[]), model(f64::NAN, 1.0, &[])];
        assert!(matches!(one(&diverged), StatisticsError::Value { what: "the measure", at: 1, .. }));
        let single = [model(1.0, 1.0, &[1]), model(2.0, 1.0, &[2])];
        let few = StatisticsError::TooFew { what: "hyper-parameters", found: 1, needed: 2 };
        assert_eq!(information(&single, Convention::Competition), Err(few));
    }

    fn models() -> impl Strategy<Value = Vec<Model>> {
        let one = (-4i32..4, -4i32..4, prop::collection::vec(0u32..3, 3));
        let one = one.prop_map(|(measure, gap, values)| model(f64::from(measure), f64::from(gap), &values));
        prop::collection::vec(one, 2..24)
    }

    fn shares(models: &[Model], convention: Convention) -> Vec<f64> {
        information(models, convention).unwrap().subsets.iter().map(|s| s.share.unwrap_or(-1.0)).collect()
    }

    fn alike(a: &[f64], b: &[f64]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12)
    }

    proptest! {
        #[test]
        fn shares_lie_between_none_and_all_and_the_least_is_among_them(models in models()) {
            for convention in BOTH {
                let found = information(&models, convention).unwrap();
                prop_assert_eq!(found.subsets.len(), if convention == Convention::Paper { 7 } else { 3 });
                for subset in &found.subsets {
                    prop_assert!(subset.share.is_none_or(|share| (0.0..=1.0).contains(&share)), "{subset:?}");
                    prop_assert!(0.0 <= subset.information && subset.information <= subset.entropy + 1e-12);
                    prop_assert_eq!(subset.share.is_none(), subset.entropy == 0.0);
                }
                prop_assert!(found.subsets.iter().filter_map(|s| s.share).all(|share| found.least.unwrap() <= share));
            }
        }

        #[test]
        fn the_gap_itself_says_all_and_a_constant_nothing(models in models()) {
            for convention in BOTH {
                let with = |measure: fn(&Model) -> f64| -> Vec<Model> {
                    models.iter().map(|m| Model { measure: measure(m), ..m.clone() }).collect()
                };
                if let Some(all) = information(&with(|m| m.gap), convention).unwrap().least {
                    prop_assert!((all - 1.0).abs() < 1e-12, "{all}");
                    prop_assert_eq!(information(&with(|_| 7.0), convention).unwrap().least, Some(0.0));
                }
            }
        }

        #[test]
        fn the_order_of_models_the_scale_of_the_measure_and_the_names_of_values_do_not_matter(models in models()) {
            for convention in BOTH {
                let expected = shares(&models, convention);
                let mut other = models.clone();
                other.reverse();
                for model in &mut other {
                    model.measure = model.measure.exp();
                    model.gap = 3.0 * model.gap - 1.0;
                    model.hyper_parameters.iter_mut().for_each(|value| *value = 7 - 3 * *value);
                }
                prop_assert!(alike(&shares(&other, convention), &expected));
            }
            let turned: Vec<Model> = models.iter().map(|m| Model { measure: -m.measure, ..m.clone() }).collect();
            prop_assert!(alike(&shares(&turned, Convention::Paper), &shares(&models, Convention::Paper)));
        }
    }
}
