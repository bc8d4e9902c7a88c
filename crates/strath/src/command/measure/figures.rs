//! What the figures of measurements show.

use std::path::Path;

use strath_study::figure::{Axis, Curve, Density, Figure, Stem, Stems};
use strath_study::landscape::Landscape;

use crate::outcome::Failure;

/// Points of a drawn density.
const DENSITY_POINTS: usize = 801;
/// Nodes of a density are drawn as bells whose standard deviation is so much of the range of eigenvalues.
const BELL: f64 = 0.005;

/// Draws a landscape into a folder.
pub(super) fn landscape(folder: &Path, landscape: &Landscape, along: &str) -> Result<(), Failure> {
    landscape.figures(along).iter().try_for_each(|(stem, figure)| write(figure, folder, stem))
}

/// Draws a spectrum into a folder: the largest eigenvalues, `eigenvalues`, and where it was measured the density, `density`.
pub(super) fn spectrum(folder: &Path, eigenvalues: &[f64], nodes: &[[f64; 2]]) -> Result<(), Failure> {
    let stems = Stems {
        x: "rank of the eigenvalue".into(),
        y: Axis::linear("eigenvalue (loss / weight²)"),
        sets: vec![Stem { name: "Hessian at w".into(), values: eigenvalues.to_vec() }],
    };
    write(&Figure::Stems(stems), folder, "eigenvalues")?;
    if nodes.is_empty() {
        return Ok(());
    }
    let curve = Curve { name: "Hessian at w".into(), density: bells(nodes), eigenvalues: eigenvalues.to_vec() };
    let x = Axis::linear("eigenvalue of the Hessian (loss / weight²)");
    let density = Density { x, y: Axis::log("density"), curves: vec![curve] };
    write(&Figure::Density(density), folder, "density")
}

/// The density that nodes with weights stand for, each a bell.
fn bells(nodes: &[[f64; 2]]) -> Vec<(f64, f64)> {
    let (low, high) = (nodes[0][0], nodes[nodes.len() - 1][0]);
    let width = BELL * (high - low).max(f64::MIN_POSITIVE);
    let (from, step) = (low - 4.0 * width, (high - low + 8.0 * width) / (DENSITY_POINTS - 1) as f64);
    let bell = |x: f64, node: f64| {
        let z = (x - node) / width;
        (-0.5 * z * z).exp() / (width * std::f64::consts::TAU.sqrt())
    };
    let at = |k: usize| from + step * k as f64;
    (0..DENSITY_POINTS).map(|k| (at(k), nodes.iter().map(|[node, weight]| weight * bell(at(k), *node)).sum())).collect()
}

fn write(figure: &Figure, folder: &Path, stem: &str) -> Result<(), Failure> {
    figure.write(folder, stem).map(|_| ()).map_err(Failure::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_density_has_the_weight_of_its_nodes() {
        let curve = bells(&[[-1.0, 0.25], [0.5, 0.5], [3.0, 0.25]]);
        let area: f64 =
            curve.windows(2).map(|pair| (pair[1].0 - pair[0].0) * f64::midpoint(pair[0].1, pair[1].1)).sum();
        assert!((area - 1.0).abs() < 1e-3, "{area}");
        assert!(bells(&[[2.0, 1.0]]).iter().all(|(_, y)| !y.is_nan()));
    }

    #[test]
    fn landscapes_of_both_dimensions_and_spectra_become_files() {
        let folder = tempfile::tempdir().unwrap();
        let line = Landscape { points: vec![[-1.0, 0.0, 2.0], [0.0, 0.0, 0.1], [1.0, 0.0, f64::INFINITY]] };
        landscape(folder.path(), &line, "alpha").unwrap();
        let points = (0..9).map(|at| [f64::from(at % 3), f64::from(at / 3), f64::from(at) + 0.1]);
        landscape(folder.path(), &Landscape { points: points.collect() }, "alpha").unwrap();
        spectrum(folder.path(), &[3.0, 1.0], &[[0.0, 0.9], [3.0, 0.1]]).unwrap();
        for stem in ["landscape", "surface", "eigenvalues", "density"] {
            for kind in ["svg", "png", "pdf", "csv"] {
                assert!(folder.path().join(format!("{stem}.{kind}")).exists(), "{stem}.{kind}");
            }
        }
    }
}
