//! Losses along directions in the space of parameters (Li et al., NeurIPS 2018).

use std::sync::Arc;

use safetensors::SafeTensors;
use serde_json::{Value, json};
use strath_core::Layout;
use strath_kernels::vector;
use strath_sam::directions::{filter_normalise, gaussian};

use super::MeasureError;
use super::ranks::Ranks;
use super::spec::{LandscapeOf, Norms};
use super::subject::{Point, Subject};
use crate::checkpoint;
use crate::files;

/// The names of the axes, as directions are stored: `alpha/TENSOR`.
const AXES: [&str; 2] = ["alpha", "beta"];

/// The directions of a landscape: from a file, or random and filter-normalised.
///
/// # Errors
/// [`MeasureError`] where the file cannot be read or does not fit the model.
pub fn directions(
    of: &LandscapeOf,
    layout: &Layout,
    weights: &[f32],
    seed: u64,
) -> Result<Vec<Vec<f32>>, MeasureError> {
    let Some(path) = &of.directions else {
        let drawn = AXES[..of.dims].iter().map(|axis| {
            let mut direction = gaussian(layout, seed, &format!("landscape/{axis}"));
            filter_normalise(layout, weights, &mut direction);
            direction
        });
        return Ok(drawn.collect());
    };
    let bytes = files::read(path)?;
    let unfit = |why: String| MeasureError::Directions { path: path.clone(), why };
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| unfit(error.to_string()))?;
    let mut read = Vec::with_capacity(of.dims);
    for axis in &AXES[..of.dims] {
        let mut direction = vec![0.0f32; layout.len()];
        for entry in layout.entries() {
            let name = format!("{axis}/{}", entry.name);
            let tensor = tensors.tensor(&name).map_err(|_| unfit(format!("it has no tensor {name}")))?;
            if tensor.dtype() != safetensors::Dtype::F32 || tensor.shape() != entry.shape {
                let (found, shape) = (tensor.dtype(), tensor.shape());
                return Err(unfit(format!("{name} is {found:?} {shape:?}, expected F32 {:?}", entry.shape)));
            }
            for (to, from) in direction[entry.range()].iter_mut().zip(tensor.data().as_chunks::<4>().0) {
                *to = f32::from_le_bytes(*from);
            }
        }
        read.push(direction);
    }
    Ok(read)
}

/// The directions as a file: `alpha/NAME` and `beta/NAME` for every tensor.
pub fn encode_directions(layout: &Layout, directions: &[Vec<f32>]) -> Vec<u8> {
    let axes = AXES.iter().map(|axis| format!("{axis}/"));
    checkpoint::encode_vectors(layout, axes.zip(directions.iter().map(Vec::as_slice)))
}

/// The places of an axis: `grid` from -extent to extent, or from 0 to 1 along a line to another checkpoint.
fn places(of: &LandscapeOf) -> Vec<f64> {
    let (from, to) = if of.to.is_some() { (0.0, 1.0) } else { (-of.extent, of.extent) };
    let last = of.grid - 1;
    let at = |k: usize| {
        // Symmetric to the bit, and 0 in the middle.
        let (left, right) = (from * (last - k) as f64, to * k as f64);
        (left + right) / last.max(1) as f64
    };
    (0..of.grid).map(at).collect()
}

/// Measures it.
pub(super) fn measure(
    of: &LandscapeOf,
    subject: &Subject<'_>,
    origin: &Point,
    seed: u64,
    ranks: &mut Ranks<'_>,
) -> Result<Value, MeasureError> {
    let layout = subject.model.parameters();
    let places = places(of);
    let line = of.to.as_ref().map(|path| end_of_line(path, subject)).transpose()?;
    let axes = if line.is_some() { Vec::new() } else { directions(of, layout, &origin.weights, seed)? };
    let rows: &[f64] = if of.dims == 2 { &places } else { &[0.0] };
    let (mut lines, points) = (Vec::with_capacity(rows.len() * places.len()), (rows.len() * places.len()) as u64);
    for beta in rows {
        let at = |k: usize| {
            if let Some(end) = &line {
                return between(origin, end, places[k]);
            }
            let mut weights = (*origin.weights).clone();
            for (direction, factor) in axes.iter().zip([places[k], *beta]) {
                vector::add_scaled(&mut weights, direction, factor as f32);
            }
            Point { weights: Arc::new(weights), statistics: origin.statistics.clone() }
        };
        let anew = match subject.norms {
            Norms::Recomputed => Some(subject.statistics(ranks, places.len(), |k| at(k).weights)?),
            Norms::Running | Norms::Batch => None,
        };
        let found = subject.evaluations(ranks, places.len(), |k| {
            let point = at(k);
            match &anew {
                Some(statistics) => Point { statistics: statistics[k].clone(), ..point },
                None => point,
            }
        })?;
        for (alpha, found) in places.iter().zip(found) {
            let finite = |value: f64| if value.is_finite() { json!(value) } else { json!("inf") };
            lines.push(json!([alpha, beta, finite(found.loss), found.error]));
        }
        ranks.advance(lines.len() as u64, points);
    }
    Ok(json!({ "points": lines }))
}

/// The checkpoint at the other end.
fn end_of_line(path: &std::path::Path, subject: &Subject<'_>) -> Result<Point, MeasureError> {
    let decoded = checkpoint::decode_model(subject.model, &files::read(path)?);
    let (weights, statistics) =
        decoded.map_err(|error| MeasureError::Undecided(format!("--to {}: {error}", path.display())))?;
    Ok(Point { weights: weights.into(), statistics: statistics.into() })
}

/// `(1 - t) a + t b`, weights and running statistics alike.
fn between(a: &Point, b: &Point, t: f64) -> Point {
    let mix = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(a, b)| ((1.0 - t) * f64::from(*a) + t * f64::from(*b)) as f32).collect::<Vec<f32>>()
    };
    Point { weights: Arc::new(mix(&a.weights, &b.weights)), statistics: Arc::new(mix(&a.statistics, &b.statistics)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(grid: usize) -> LandscapeOf {
        LandscapeOf { grid, dims: 1, extent: 0.3, directions: None, to: None }
    }

    #[test]
    fn places_are_symmetric_with_zero_in_the_middle_or_go_from_one_end_to_the_other() {
        let found = places(&of(25));
        assert_eq!((found[0], found[12], found[24]), (-0.3, 0.0, 0.3));
        assert!(found.iter().zip(found.iter().rev()).all(|(a, b)| *a == -b));
        let line = places(&LandscapeOf { to: Some("b".into()), ..of(3) });
        assert_eq!(line, [0.0, 0.5, 1.0]);
        assert_eq!(places(&of(1)), [0.0]);
    }

    #[test]
    fn directions_come_back_from_their_file_and_one_that_does_not_fit_says_so() {
        let layout = Layout::new([("a".into(), vec![2]), ("b".into(), vec![1, 3])]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.safetensors");
        let written = vec![vec![1.0, 2.0, 3.0, 4.0, 5.0], vec![-1.0, 0.5, 0.0, 7.0, 9.0]];
        std::fs::write(&path, encode_directions(&layout, &written)).unwrap();
        let of = LandscapeOf { dims: 2, directions: Some(path), ..of(3) };
        assert_eq!(directions(&of, &layout, &[0.0; 5], 0).unwrap(), written);
        let other = Layout::new([("a".into(), vec![3])]).unwrap();
        let error = directions(&of, &other, &[0.0; 3], 0).unwrap_err().to_string();
        assert!(error.contains("alpha/a is F32 [2], expected F32 [3]"), "{error}");
        let more = Layout::new([("c".into(), vec![3])]).unwrap();
        assert!(directions(&of, &more, &[0.0; 3], 0).unwrap_err().to_string().contains("no tensor alpha/c"));
    }
}
