//! Whether a measure of sharpness predicts the generalization gap, and better for smaller lanes (Foret et al. 2021, section 4.1 and figure 3).

use super::super::document::{Block, Cell, Drawing, Table, decimal};
use super::data::{Data, Which};
use crate::figure::{Axis, Figure, Lines, Panel, Series};
use crate::statistics::{Convention, Model, StatisticsError, kendall, permutation_null, spearman};

/// Redistributions of the permutation null.
const REDISTRIBUTIONS: usize = 1000;

/// What one measure predicts.
struct Power {
    column: String,
    m: Option<f64>,
    tau: Option<f64>,
    tau_p: Option<f64>,
    spearman: Option<f64>,
    /// For both conventions: the observed information, the null's mean and 95th percentile, and p.
    information: [Option<[f64; 4]>; 2],
}

/// The conventions, with how they are called.
const CONVENTIONS: [(Convention, &str); 2] =
    [(Convention::Paper, "information (Jiang et al.)"), (Convention::Competition, "information (PGDL scorer)")];

/// Table and figure of the predictive power of each `sharpness_mM_rhoR`.
pub(super) fn sections(data: &Data<'_>) -> Result<Vec<Block>, StatisticsError> {
    let columns = data.columns("sharpness_m");
    let (models, left_out) = models(data);
    if columns.is_empty() || models.len() < 3 {
        return Ok(Vec::new());
    }
    let mut powers = Vec::new();
    for column in columns {
        // Models whose measure is missing are left out.
        let known: Vec<(Vec<u32>, f64, f64)> = (models.iter())
            .filter_map(|(which, seed, hyper)| {
                Some((hyper.clone(), data.number(*which, *seed, column)?, data.number(*which, *seed, "gap")?))
            })
            .collect();
        let (measures, gaps): (Vec<f64>, Vec<f64>) = known.iter().map(|(_, measure, gap)| (*measure, *gap)).unzip();
        let models: Vec<Model> = (known.into_iter())
            .map(|(hyper_parameters, measure, gap)| Model { measure, gap, hyper_parameters })
            .collect();
        if models.len() < 3 {
            continue;
        }
        let (tau, rank) = (kendall(&measures, &gaps)?, spearman(&measures, &gaps)?);
        let mut found = [None, None];
        for (place, (convention, _)) in found.iter_mut().zip(CONVENTIONS) {
            // The scorer's convention is over pairs of hyper-parameters.
            if convention == Convention::Competition && data.record.keys.len() < 2 {
                continue;
            }
            let null = permutation_null(&models, convention, 0, REDISTRIBUTIONS)?;
            *place = null.map(|null| [null.observed, null.mean, null.percentile_95, null.p]);
        }
        powers.push(Power {
            m: column.trim_start_matches("sharpness_m").split('_').next().and_then(|m| m.parse().ok()),
            column: column.into(),
            tau: tau.map(|tau| tau.coefficient),
            tau_p: tau.and_then(|tau| tau.p),
            spearman: rank.map(|rank| rank.coefficient),
            information: found,
        });
    }
    if powers.is_empty() {
        return Ok(Vec::new());
    }
    powers.sort_by(|a, b| a.m.unwrap_or(0.0).total_cmp(&b.m.unwrap_or(0.0)));
    let mut blocks = vec![Block::Text(format!(
        "{} models, one for each combination of {} and each seed; the seed is no hyper-parameter.{} The gap is the test error less the training error of the last weights. \
         Information is I(V_sharpness; V_gap | U_S) / H(V_gap | U_S) over pairs of models, least over the sets S of hyper-parameters, in both conventions; estimated from \
         counts it is biased upwards, which the permutation null shows: sharpness values are dealt out to the models anew, {REDISTRIBUTIONS} times.",
        models.len(),
        data.record.keys.join(", "),
        if left_out > 0 {
            format!(" {left_out} that did not reach the loss at which training stops are left out.")
        } else {
            String::new()
        },
    ))];
    blocks.push(Block::List(words(&powers)));
    blocks.push(figure(&powers));
    blocks.push(table(&powers));
    Ok(blocks)
}

/// A run with its hyper-parameters as indices.
type Found = (Which, u64, Vec<u32>);

/// The runs that are compared, and how many were left out: where some runs end by `run.stop_loss`, those that do not.
fn models(data: &Data<'_>) -> (Vec<Found>, usize) {
    let ended = data.results.column("ended_by");
    let by_loss = |row: &Vec<crate::study::Cell>| ended.is_some_and(|at| row[at].text() == "run.stop_loss");
    let some_stop = data.results.rows.iter().any(by_loss);
    let left_out = if some_stop { data.results.rows.iter().filter(|row| !by_loss(row)).count() } else { 0 };
    let mut values: Vec<Vec<String>> = vec![Vec::new(); data.record.keys.len()];
    let mut models = Vec::new();
    for which in data.all().into_iter().filter(|which| !which.is_doubled) {
        let hyper: Vec<u32> = (data.record.keys.iter().zip(&mut values))
            .map(|(key, known)| {
                let value = data.arm(which).values.get(key).map_or_else(String::new, ToString::to_string);
                let at = known.iter().position(|v| *v == value).unwrap_or_else(|| {
                    known.push(value);
                    known.len() - 1
                });
                at as u32
            })
            .collect();
        for seed in &data.record.seeds {
            let is_kept = data.row(which, *seed).is_some_and(|row| !some_stop || by_loss(row));
            if is_kept {
                models.push((which, *seed, hyper.clone()));
            }
        }
    }
    (models, left_out)
}

/// What may be said by rule.
fn words(powers: &[Power]) -> Vec<String> {
    let mut said = Vec::new();
    for (at, (_, name)) in CONVENTIONS.iter().enumerate() {
        if powers.iter().all(|power| power.information[at].is_none()) {
            said.push(format!(
                "By {name}, nothing is said: it needs hyper-parameters that vary, two of them for the scorer's."
            ));
            continue;
        }
        let beyond: Vec<&Power> = powers
            .iter()
            .filter(|power| power.information[at].is_some_and(|[_, _, _, p]| p < 0.05 / powers.len() as f64))
            .collect();
        said.push(match beyond.as_slice() {
            [] => format!("By {name}, no measure is shown to tell more of the gap than chance does (permutation p < 0.05, Bonferroni over {} measures).", powers.len()),
            some => format!(
                "By {name}, more than chance: {}.",
                some.iter().map(|power| power.column.replace('_', " ")).collect::<Vec<_>>().join(", ")
            ),
        });
    }
    let with: Vec<(f64, f64)> = powers.iter().filter_map(|power| Some((power.m?, power.tau?))).collect();
    if let [first, .., last] = with.as_slice() {
        let falls = with.windows(2).filter(|pair| pair[1].1 < pair[0].1).count();
        said.push(format!(
            "Kendall's tau with the gap goes from {} at m = {} to {} at m = {}; from one m to the next larger it falls {falls} times of {}. No test is made of that order.",
            decimal(first.1, 2),
            first.0,
            decimal(last.1, 2),
            last.0,
            with.len() - 1,
        ));
    }
    said
}

fn figure(powers: &[Power]) -> Block {
    let line = |name: &str, of: &dyn Fn(&Power) -> Option<f64>| {
        Series::new(name, powers.iter().filter_map(|power| Some((power.m?, of(power)?))))
    };
    let mut series = vec![line("Kendall's τ", &|power| power.tau), line("Spearman's ρ", &|power| power.spearman)];
    for (at, (_, name)) in CONVENTIONS.iter().enumerate() {
        series.push(line(name, &|power| power.information[at].map(|[observed, ..]| observed)));
    }
    let null = line("95 % of the null (Jiang et al.)", &|power| power.information[0].map(|[_, _, high, _]| high));
    series.push(Series { join: crate::figure::Join::Dashed, marks: crate::figure::Marks::None, ..null });
    series.retain(|series| !series.points.is_empty());
    Block::Drawing(Drawing {
        stem: "predictive-power".into(),
        caption: "How well the sharpness that is measured over lanes of m examples predicts the generalization gap."
            .into(),
        figure: Figure::Lines(Lines {
            y: Axis::linear("predictive power"),
            panels: vec![Panel { x: Axis::log("m of the measure (examples)"), series }],
        }),
    })
}

fn table(powers: &[Power]) -> Block {
    let mut columns: Vec<String> = ["measure", "Kendall's τ", "p", "Spearman's ρ"].map(String::from).into();
    for (_, name) in CONVENTIONS {
        columns.extend([name.to_string(), "null mean".into(), "null 95 %".into(), "p (null)".into()]);
    }
    let row = |power: &Power| {
        let mut row = vec![
            Cell::text(power.column.replace('_', " ")),
            Cell::number(power.tau, 3),
            Cell::p(power.tau_p),
            Cell::number(power.spearman, 3),
        ];
        for found in &power.information {
            row.extend((0..3).map(|at| Cell::number(found.map(|found| found[at]), 3)));
            row.push(Cell::p(found.map(|[_, _, _, p]| p)));
        }
        row
    };
    Block::Table(Table {
        caption: "Predictive power of each measure.".into(),
        columns,
        rows: powers.iter().map(row).collect(),
    })
}
