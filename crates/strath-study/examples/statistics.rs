//! Writes what `strath_study::statistics` finds for made-up data, with the data, as JSON for tests/peers/statistical_tests.py:
//! `cargo run --release --example statistics > FILE`.

use serde_json::{Value, json};
use strath_core::random::{Purpose, Stream};
use strath_study::statistics::{
    Conditioned, Convention, Correlation, Description, Interval, Model, Paired, StatisticsError, binomial, describe,
    equivalence, holm, information, kendall, paired, permutation_null, spearman,
};

const SEED: u64 = 20;
/// Redistributions of each null.
const DRAWS: usize = 30;

fn main() -> Result<(), StatisticsError> {
    let mut stream = Stream::new(SEED, Purpose::Probe);
    let cases = json!({
        "describe": (0..40).map(|k| describe_case(&mut stream, k)).collect::<Result<Vec<_>, _>>()?,
        "paired": (0..60).map(|k| paired_case(&mut stream, k)).collect::<Result<Vec<_>, _>>()?,
        "holm": (0..40).map(|k| holm_case(&mut stream, k)).collect::<Result<Vec<_>, _>>()?,
        "binomial": (0..60).map(|k| binomial_case(&mut stream, k)).collect::<Result<Vec<_>, _>>()?,
        "rank": (0..150).map(|k| rank_case(&mut stream, k)).collect::<Result<Vec<_>, _>>()?,
        "information": (0..48).map(|k| information_case(&mut stream, k)).collect::<Result<Vec<_>, _>>()?,
    });
    println!("{cases}");
    Ok(())
}

/// A value of case `k`: continuous, or one of few so that there are ties, around a mean that may be far from 0.
fn value(stream: &mut Stream, k: usize) -> f64 {
    let drawn = f64::from(stream.normal());
    match k % 4 {
        0 => drawn,
        1 => 1e3 + 1e-2 * drawn,
        2 => (2.0 * drawn).round(),
        _ => (10.0 * drawn).round() / 10.0,
    }
}

fn ends(interval: Interval) -> Value {
    json!([interval.low, interval.high])
}

fn describe_case(stream: &mut Stream, k: usize) -> Result<Value, StatisticsError> {
    let values: Vec<f64> = (0..k).map(|_| value(stream, k)).collect();
    let Description { mean, spread, .. } = describe(&values)?;
    let spread = spread.map(|s| json!({"deviation": s.deviation, "error": s.error, "interval": ends(s.interval)}));
    Ok(json!({"values": values, "mean": mean, "spread": spread}))
}

fn paired_case(stream: &mut Stream, k: usize) -> Result<Value, StatisticsError> {
    let first: Vec<f64> = (0..2 + k / 3).map(|_| value(stream, k)).collect();
    // Every seventh case differs by the same everywhere, but for rounding.
    let shift = 0.1 * f64::from(stream.normal());
    let second: Vec<f64> =
        first.iter().map(|v| v + shift + if k % 7 == 6 { 0.0 } else { value(stream, k % 4) }).collect();
    let margin = 0.05 + f64::from(stream.uniform());
    let Paired { difference, error, degrees, test, interval, .. } = paired(&first, &second)?;
    let test = test.map(|test| json!({"t": test.t, "p": test.p}));
    let one_sided = equivalence(&first, &second, margin)?.tests;
    let one_sided =
        one_sided.map(|tests| json!({"not_below": tests.not_below, "not_above": tests.not_above, "p": tests.p}));
    Ok(json!({
        "first": first, "second": second, "difference": difference, "error": error, "degrees": degrees, "test": test,
        "interval": ends(interval), "margin": margin, "equivalence": one_sided,
    }))
}

fn holm_case(stream: &mut Stream, k: usize) -> Result<Value, StatisticsError> {
    let mut p_value = |at: usize| {
        let drawn = f64::from(stream.uniform()).powi(3);
        // Some tests were not made, some p values are equal.
        (at % 5 != k % 6).then_some(if k.is_multiple_of(2) { drawn } else { (drawn * 10.0).round() / 10.0 })
    };
    let p_values: Vec<Option<f64>> = (0..=k / 2).map(&mut p_value).collect();
    Ok(json!({"p": p_values, "adjusted": holm(&p_values)?}))
}

fn binomial_case(stream: &mut Stream, k: usize) -> Result<Value, StatisticsError> {
    let examples = 1 + stream.below(10u64.pow(k as u32 % 5 + 1));
    let count = match k % 6 {
        0 => 0,
        1 => examples,
        _ => stream.below(examples + 1),
    };
    let found = binomial(count as f64 / examples as f64, examples)?;
    Ok(json!({"count": count, "examples": examples, "error": found.error, "interval": ends(found.interval)}))
}

fn rank_case(stream: &mut Stream, k: usize) -> Result<Value, StatisticsError> {
    let count = 2 + k * 3 / 5;
    let first: Vec<f64> = (0..count).map(|_| value(stream, k)).collect();
    let weight = f64::from(stream.normal());
    let mut second: Vec<f64> = first.iter().map(|v| weight * v + value(stream, k / 4)).collect();
    match k % 10 {
        7 => second.fill(1.5),
        8 => second.clone_from(&first),
        // In one order but for two neighbours.
        9 => {
            second = first.iter().map(|v| -v).collect();
            let mut order: Vec<usize> = (0..count).collect();
            order.sort_by(|a, b| second[*a].total_cmp(&second[*b]));
            second.swap(order[0], order[1]);
        }
        _ => {}
    }
    let both = |found: Option<Correlation>| found.map(|c| json!({"coefficient": c.coefficient, "p": c.p}));
    let (kendall, spearman) = (kendall(&first, &second)?, spearman(&first, &second)?);
    Ok(json!({"first": first, "second": second, "kendall": both(kendall), "spearman": both(spearman)}))
}

fn information_case(stream: &mut Stream, k: usize) -> Result<Value, StatisticsError> {
    let hyper_parameters = 2 + k / 3 % 3;
    let values = 1 + k as u64 % 4;
    let mut model = |at: usize| {
        // A complete grid in order in every third case, as the competition's scorer needs it; else at random.
        let of = |parameter: usize| at as u64 / values.pow(parameter as u32) % values;
        let hyper_parameters: Vec<u32> = (0..hyper_parameters)
            .map(|parameter| if k.is_multiple_of(3) { of(parameter) } else { stream.below(values) } as u32)
            .collect();
        let gap = value(stream, k) + f64::from(hyper_parameters[0]);
        Model { measure: 0.5 * gap + value(stream, k / 4), gap, hyper_parameters }
    };
    let count =
        if k.is_multiple_of(3) { (values.pow(hyper_parameters as u32) as usize).clamp(4, 81) } else { 2 + k / 2 };
    let models: Vec<Model> = (0..count).map(&mut model).collect();
    let seed = k as u64;
    let draw = |draw| Stream::new(seed, Purpose::Null { draw }).permutation(models.len());
    Ok(json!({
        "measures": models.iter().map(|m| m.measure).collect::<Vec<_>>(),
        "gaps": models.iter().map(|m| m.gap).collect::<Vec<_>>(),
        "hyper_parameters": models.iter().map(|m| m.hyper_parameters.clone()).collect::<Vec<_>>(),
        "permutations": (0..DRAWS as u64).map(draw).collect::<Vec<_>>(),
        "paper": convention(&models, Convention::Paper, seed)?,
        "competition": convention(&models, Convention::Competition, seed)?,
    }))
}

fn convention(models: &[Model], convention: Convention, seed: u64) -> Result<Value, StatisticsError> {
    let found = information(models, convention)?;
    let subset = |s: &Conditioned| json!({"given": s.given, "information": s.information, "entropy": s.entropy, "share": s.share});
    let drawn = permutation_null(models, convention, seed, DRAWS)?;
    let drawn = drawn.map(|n| json!({"mean": n.mean, "percentile_95": n.percentile_95, "p": n.p}));
    Ok(json!({
        "least": found.least,
        "subsets": found.subsets.iter().map(subset).collect::<Vec<_>>(),
        "null": drawn,
    }))
}
