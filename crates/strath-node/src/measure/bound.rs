//! The right-hand side of the paper's theorem 2, term by term, and its assumption.

use std::sync::Arc;

use serde_json::{Value, json};
use strath_data::SplitName;
use strath_kernels::vector;
use strath_sam::ascent::climb;
use strath_sam::bound::complexity;
use strath_sam::directions::gaussian;
use strath_sam::{Perturbation, mean_and_error};

use super::MeasureError;
use super::ranks::Ranks;
use super::spec::BoundOf;
use super::subject::{Point, Subject};

/// Measures it. `subject` is the training split; the assumption is tried on the test split.
pub(super) fn measure(
    of: &BoundOf,
    ball: &Perturbation,
    subject: &Subject<'_>,
    point: &Point,
    seed: u64,
    ranks: &mut Ranks<'_>,
) -> Result<Value, MeasureError> {
    let (examples, parameters) = (subject.examples, point.weights.len());
    let passes = (2 * of.ascent_steps.max(1) + of.samples + 3) as u64;
    let mut done = 0;
    let found = climb(ball, &point.weights, of.ascent_steps, |weights, asked| {
        let found = subject.asked(ranks, &point.moved(weights), 0..examples, asked)?;
        done += 1;
        ranks.advance(done, passes);
        Ok::<_, MeasureError>(found)
    })?;
    let mut worst = (*point.weights).clone();
    vector::add_scaled(&mut worst, &found.epsilon, 1.0);
    let ends = [point.weights.clone(), Arc::new(worst)];
    let on_training = subject.evaluations(ranks, 2, |at| point.moved(&ends[at]))?;
    // The ascent is of the loss; w itself lies in the ball too.
    let clean_error = on_training[0].error;
    let worst_error = on_training[1].error.max(clean_error);

    let squared_length = vector::sum_of_squares(&point.weights);
    let terms = complexity(examples, parameters, squared_length, of.rho, of.delta);
    let test = Subject { split: SplitName::Test, examples: subject.loader.len(SplitName::Test), ..*subject };
    let noisy = |at: usize| {
        let mut weights = gaussian(subject.model.parameters(), seed, &format!("bound/{at}"));
        weights.iter_mut().zip(&*point.weights).for_each(|(e, w)| *e = w + (terms.sigma * f64::from(*e)) as f32);
        point.moved(&Arc::new(weights))
    };
    let mut errors = Vec::with_capacity(of.samples);
    for at in 0..of.samples {
        errors.push(test.evaluations(ranks, 1, |_| noisy(at))?[0].error);
        ranks.advance(passes - (of.samples - at) as u64, passes);
    }
    let test_error = test.evaluations(ranks, 1, |_| point.clone())?[0].error;
    let (noisy_error, stderr) = mean_and_error(&errors);
    ranks.advance(passes, passes);
    // Within two standard errors the sample does not say.
    let margin = noisy_error - test_error;
    let holds = stderr.filter(|stderr| margin.abs() > 2.0 * stderr).map(|_| margin > 0.0);
    let right_hand_side = worst_error + terms.term;
    Ok(json!({
        "rho": of.rho, "delta": of.delta, "examples": examples, "parameters": parameters, "ascent_steps": of.ascent_steps,
        "squared_length": squared_length, "train_error": clean_error, "perturbed_train_error": worst_error,
        "parameters_term": terms.parameters, "confidence_term": terms.confidence, "remainder_term": terms.remainder,
        "complexity": terms.term, "right_hand_side": right_hand_side, "vacuous": right_hand_side >= 1.0,
        "sigma": terms.sigma, "test_error": test_error, "noisy_test_error": noisy_error,
        "noisy_test_error_stderr": stderr, "samples": errors.len(), "assumption_holds": holds,
    }))
}
