//! Directions in the space of parameters: random ones, and their filter normalisation.

use strath_core::Layout;
use strath_core::random::{Purpose, Stream};

use crate::sums::l2_norm;

/// A random direction: every value standard normal, each tensor drawn from (seed, `name/TENSOR`).
pub fn gaussian(layout: &Layout, seed: u64, name: &str) -> Vec<f32> {
    let mut drawn = Vec::with_capacity(layout.len());
    for entry in layout.entries() {
        let mut stream = Stream::new(seed, Purpose::Measurement { name: &format!("{name}/{}", entry.name) });
        drawn.extend((0..entry.len).map(|_| stream.normal()));
    }
    drawn
}

/// A random direction of signs, +1 or -1, each tensor drawn from (seed, `name/TENSOR`): Hutchinson's, whose quadratic form has the least variance.
pub fn signs(layout: &Layout, seed: u64, name: &str) -> Vec<f32> {
    let mut drawn = Vec::with_capacity(layout.len());
    for entry in layout.entries() {
        let mut stream = Stream::new(seed, Purpose::Measurement { name: &format!("{name}/{}", entry.name) });
        drawn.extend((0..entry.len).map(|_| if stream.next_u32() >> 31 == 0 { 1.0f32 } else { -1.0 }));
    }
    drawn
}

/// Filter normalisation (Li et al., "Visualizing the loss landscape of neural nets", NeurIPS 2018, section 4): each slice of dimension 0 of a tensor, a filter or a
/// neuron's weights, takes the length of the same slice of w, `d <- d ||w|| / (||d|| + 1e-10)`; tensors of one dimension, biases and those of norms, become zero.
/// The picture then does not depend on the scale of weights that the network does not feel.
///
/// # Panics
/// Where the vectors are not of this layout.
pub fn filter_normalise(layout: &Layout, weights: &[f32], direction: &mut [f32]) {
    assert!(weights.len() == layout.len() && direction.len() == layout.len(), "vectors of this layout");
    for entry in layout.entries() {
        let (w, d) = (&weights[entry.range()], &mut direction[entry.range()]);
        if entry.shape.len() < 2 {
            d.fill(0.0);
            continue;
        }
        let slice = entry.len / entry.shape[0].max(1);
        for (w, d) in w.chunks_exact(slice.max(1)).zip(d.chunks_exact_mut(slice.max(1))) {
            let factor = l2_norm(w) / (l2_norm(d) + 1e-10);
            for d in d {
                *d = (f64::from(*d) * factor) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::new([("bias".into(), vec![3]), ("conv".into(), vec![2, 1, 1, 2]), ("linear".into(), vec![2, 2])])
            .unwrap()
    }

    #[test]
    fn each_filter_takes_the_length_of_its_weights_and_biases_become_zero() {
        let weights = [1.0, 1.0, 1.0, 3.0, 4.0, 0.0, 0.0, 0.0, 2.0, 1.0, 0.0];
        let mut direction = [5.0, 5.0, 5.0, 0.0, 2.0, 7.0, 7.0, 6.0, 8.0, 0.0, -4.0];
        filter_normalise(&layout(), &weights, &mut direction);
        let want = [0.0, 0.0, 0.0, 0.0, 5.0, 0.0, 0.0, 1.2, 1.6, 0.0, -1.0];
        assert!(direction.iter().zip(want).all(|(got, want): (&f32, f32)| (got - want).abs() < 1e-6), "{direction:?}");
    }

    #[test]
    fn a_tensor_is_drawn_by_its_name_alone() {
        let other = Layout::new([("linear".into(), vec![2, 2]), ("a".into(), vec![7])]).unwrap();
        let of = |layout: &Layout, drawn: Vec<f32>| drawn[layout.get("linear").unwrap().range()].to_vec();
        for draw in [gaussian, signs] {
            assert_eq!(of(&layout(), draw(&layout(), 3, "x")), of(&other, draw(&other, 3, "x")));
            assert_ne!(draw(&layout(), 3, "x"), draw(&layout(), 3, "y"));
        }
        assert!(signs(&layout(), 0, "z").iter().all(|s| s.abs() == 1.0));
    }
}
