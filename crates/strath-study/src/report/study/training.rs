//! Training curves of the arms that matter: the best of each value that is compared, and the baseline.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::document::{Block, Drawing};
use super::super::epochs::{Epochs, lines, marks};
use super::curves::LAST;
use super::data::{Data, Which, rest, under};
use crate::figure::{Axis, Figure, Lines, Panel, Sample, Series};
use crate::statistics::describe;

/// Curves of one figure.
const MOST_LINES: usize = 6;
/// Settings that are drawn.
const MOST_SETTINGS: usize = 3;

/// Figures of loss, sharpness and error against the epoch, from the folders of the runs below `runs`; nothing without them.
pub(super) fn figures(data: &Data<'_>, runs: &Path) -> Vec<Block> {
    let mut blocks = Vec::new();
    // Of a crowd of which nothing is compared, some curves would say nothing.
    if data.compared().is_empty() && data.all().len() > MOST_LINES {
        return blocks;
    }
    let folders = folders(data, runs);
    for (place, (setting, arms)) in chosen(data).into_iter().enumerate() {
        let read = |which: &Which| -> Vec<Epochs> {
            let of_arm = data.record.seeds.iter().filter_map(|seed| folders.get(&(*which, *seed)));
            of_arm.filter_map(|folder| Some(Epochs::of(&lines(folder).ok()?))).collect()
        };
        let arms: Vec<(String, Vec<Epochs>)> =
            arms.iter().map(|which| (data.name_beside(*which, &setting), read(which))).collect();
        let place = place + 1;
        let of = if setting.is_empty() { String::new() } else { format!("{setting}: ") };
        let panel = |curve: &dyn Fn(&Epochs) -> Vec<(f64, f64)>| {
            let series = arms.iter().filter_map(|(name, runs)| mean(name, runs.iter().map(curve)));
            Panel { x: Axis::linear("epoch"), series: series.collect() }
        };
        let mut draw = |what: &str, label: &str, caption: String, panels: Vec<Panel>| {
            if panels.iter().all(|panel| !panel.series.is_empty()) {
                let figure = Figure::Lines(Lines { y: Axis::linear(label), panels });
                blocks.push(Block::Drawing(Drawing { stem: format!("{what}-{place}"), caption, figure }));
            }
        };
        let about = "The arm of the least mean test error of each value, and what has no SAM; means over seeds with their standard errors.";
        let loss = panel(&|run| run.curve(|means| means.clean_loss));
        draw(
            "training-loss",
            "loss (nats)",
            format!("{of}training loss at w, mean over each epoch's steps. {about}"),
            vec![loss],
        );
        let sharpness = panel(&|run| run.curve(|means| means.sharpness));
        draw(
            "training-sharpness",
            "sharpness (nats)",
            format!(
                "{of}what epsilon adds to the training loss, mean over each epoch's steps: arms of different ρ climb different balls. {about}"
            ),
            vec![sharpness],
        );
        let test = panel(&|run| run.errors("test"));
        let validation = panel(&|run| run.errors("validation"));
        let (panels, sides) = if validation.series.is_empty() {
            (vec![test], "test error")
        } else {
            (
                vec![test, validation],
                "test error and, right, validation error (its labels are as noisy as the training set's)",
            )
        };
        draw("training-error", "error (%)", format!("{of}{sides}. {about}"), panels);
    }
    blocks
}

/// The folders of runs by arm and seed, as the results name them.
pub(super) fn folders(data: &Data<'_>, runs: &Path) -> BTreeMap<(Which, u64), std::path::PathBuf> {
    let all = data.all().into_iter().flat_map(|which| data.record.seeds.iter().map(move |seed| (which, *seed)));
    all.filter_map(|(which, seed)| Some(((which, seed), runs.join(data.text(which, seed, "run")?)))).collect()
}

/// A value with its least error and the arm that has it.
type Best = (String, f64, Which);
/// The best of each value, and the baselines.
type Setting = (Vec<Best>, Vec<Which>);

/// By setting, of the first few: the arm of the least test error for each value of what is compared, and the baselines.
pub(super) fn chosen(data: &Data<'_>) -> Vec<(String, Vec<Which>)> {
    let key = data.drawn_key();
    let companions = key.as_deref().map(|key| data.companions(key)).unwrap_or_default();
    let mut settings: Vec<(String, Setting)> = Vec::new();
    for which in data.all() {
        let values = &data.arm(which).values;
        let setting = rest(values, |key, _| key != "sam.rho" && !companions.contains(&key));
        let (best, plain) = under(&mut settings, setting);
        let Some(error) = data.mean(which, LAST.0) else { continue };
        if data.is_plain(which) {
            plain.push(which);
            continue;
        }
        let value = rest(values, |key, _| companions.contains(&key));
        match best.iter_mut().find(|(known, ..)| *known == value) {
            Some((_, least, arm)) if error < *least => (*least, *arm) = (error, which),
            Some(_) => {}
            None => best.push((value, error, which)),
        }
    }
    let arms = |best: Vec<Best>, plain: Vec<Which>| {
        let best = best.into_iter().map(|(.., which)| which).take(MOST_LINES - plain.len().min(2));
        best.chain(plain.into_iter().take(2)).collect()
    };
    settings.into_iter().take(MOST_SETTINGS).map(|(setting, (best, plain))| (setting, arms(best, plain))).collect()
}

/// The mean of curves where all of them have a point.
fn mean(name: &str, curves: impl Iterator<Item = Vec<(f64, f64)>>) -> Option<Series> {
    let mut at: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    let mut count = 0;
    for curve in curves {
        count += 1;
        for (x, y) in curve.into_iter().filter(|(x, _)| *x >= 0.0) {
            // Of numbers that are not negative, the bits have their order.
            at.entry(x.to_bits()).or_default().push(y);
        }
    }
    let points = at.into_iter().filter(|(_, values)| values.len() == count).filter_map(|(x, values)| {
        let described = describe(&values).ok()?;
        let standard_error = described.spread.map(|spread| spread.error);
        Some(Sample { x: f64::from_bits(x), y: described.mean?, standard_error })
    });
    let points: Vec<Sample> = points.collect();
    let marks = marks(points.len());
    (!points.is_empty()).then(|| Series { points, marks, ..Series::new(name, []) })
}
