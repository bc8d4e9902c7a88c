//! Micro-batch against lane: a map that tells batch norm's group and m apart.

use super::super::document::{Block, Drawing};
use super::data::{Data, Which, rest, under};
use crate::figure::{Axis, Figure, HeatMap};

/// Maps.
const MOST: usize = 6;

/// Micro, m and the arm.
type Place = (f64, f64, Which);

/// Test error by micro-batch and m, a map for each setting of the rest.
pub(super) fn maps(data: &Data<'_>) -> Vec<Block> {
    const KEYS: [&str; 2] = ["batch.micro", "sam.m"];
    if !KEYS.iter().all(|key| data.varies(key)) {
        return Vec::new();
    }
    let mut maps: Vec<(String, Vec<Place>)> = Vec::new();
    for (arm, record) in data.record.arms.iter().enumerate() {
        for place in &record.places {
            let number = |key: &str| place.coordinates.get(key)?.as_f64();
            let [Some(micro), Some(m)] = KEYS.map(number) else { continue };
            let rest = rest(&place.coordinates, |key, _| !KEYS.contains(&key) && data.varies(key));
            let name = if rest.is_empty() { place.grid.clone() } else { format!("{}, {rest}", place.grid) };
            under(&mut maps, name).push((micro, m, Which::of(arm)));
        }
    }
    let sorted = |of: &dyn Fn(&Place) -> f64, cells: &[Place]| {
        let mut values: Vec<f64> = cells.iter().map(of).collect();
        values.sort_by(|a, b| b.total_cmp(a));
        values.dedup();
        values
    };
    let mut blocks = Vec::new();
    for (name, cells) in maps.into_iter().take(MOST) {
        let (rows, columns) = (sorted(&|cell| cell.0, &cells), sorted(&|cell| cell.1, &cells));
        let value = |micro: f64, m: f64| {
            let cell = cells.iter().find(|cell| (cell.0, cell.1) == (micro, m))?;
            Some(100.0 * data.mean(cell.2, "test_error")?)
        };
        let values: Vec<f64> =
            (rows.iter()).flat_map(|micro| columns.iter().map(|m| value(*micro, *m).unwrap_or(f64::NAN))).collect();
        if values.iter().filter(|value| value.is_finite()).count() < 2 {
            continue;
        }
        let names = |values: &[f64]| values.iter().map(ToString::to_string).collect();
        blocks.push(Block::Drawing(Drawing {
            stem: format!("micro-against-m-{}", blocks.len() + 1),
            caption: format!(
                "{name}: test error after the last epoch. Down: batch norm's group, the micro-batch, becomes smaller; to the right: m does."
            ),
            figure: Figure::HeatMap(HeatMap {
                x: "m (examples)".into(),
                columns: names(&columns),
                y: "micro (examples)".into(),
                rows: names(&rows),
                value: Axis::linear("test error (%)"),
                values,
                decimals: 1,
            }),
        }));
    }
    blocks
}
