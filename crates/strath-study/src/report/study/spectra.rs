//! Spectra of last models side by side.

use super::super::document::{Block, Drawing};
use super::curves;
use super::data::{Data, Which};
use super::families::Family;
use crate::figure::{Axis, Figure, Stem, Stems};

/// Sets of eigenvalues that a figure can tell apart.
const MOST: usize = 6;

/// Eigenvalues of a set.
const MOST_EIGENVALUES: usize = 20;

/// The largest eigenvalue and the trace against what is compared, and all eigenvalues that were taken, of each family at its largest radius.
pub(super) fn figures(data: &Data<'_>, families: &[Family]) -> Vec<Block> {
    let mut blocks = curves::against_key(data, families, ("lambda_1", "largest eigenvalue λ1", 1.0), "lambda-1");
    blocks.extend(curves::against_key(data, families, ("trace", "trace of the Hessian", 1.0), "trace"));
    let columns: Vec<String> =
        (1..=MOST_EIGENVALUES).map(|k| format!("lambda_{k}")).take_while(|column| data.has(column)).collect();
    if columns.len() < 2 {
        return blocks;
    }
    for family in families {
        let Some(radius) = family.radii.last() else { continue };
        let sets = radius.arms.iter().enumerate().filter_map(|(value, arm)| {
            let values: Vec<f64> = columns.iter().filter_map(|column| data.mean(Which::of((*arm)?), column)).collect();
            (values.len() == columns.len()).then(|| Stem { name: family.called(value), values })
        });
        let sets: Vec<Stem> = sets.take(MOST).collect();
        if sets.len() > 1 {
            blocks.push(Block::Drawing(Drawing {
                stem: format!("eigenvalues-{}", blocks.len() + 1),
                caption: format!(
                    "{}, {}: the largest eigenvalues of the Hessian at the last weights, means over seeds.",
                    family.name(),
                    radius.name
                ),
                figure: Figure::Stems(Stems { x: "eigenvalue k".into(), y: Axis::linear("λ"), sets }),
            }));
        }
    }
    blocks
}
