//! Label noise: a seeded share of the training labels is replaced.

use strath_core::random::{Purpose, Stream};

/// Replaces `share` of the labels (to the nearest whole number of them, halves up), each by one of the other classes with
/// equal probability. Which and by what depends on the seed and nothing else; their places come back in order.
pub(crate) fn replace_labels(labels: &mut [u32], classes: usize, share: f64, seed: u64) -> Vec<u32> {
    let count = (share * labels.len() as f64 + 0.5).floor() as usize;
    if count == 0 || classes < 2 {
        return Vec::new();
    }
    let mut stream = Stream::new(seed, Purpose::LabelNoise);
    let mut replaced = stream.permutation(labels.len());
    replaced.truncate(count);
    for example in &replaced {
        let label = &mut labels[*example as usize];
        let other = stream.below(classes as u64 - 1) as u32;
        *label = if other < *label { other } else { other + 1 };
    }
    replaced.sort_unstable();
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_share_changes_and_every_other_class_is_drawn() {
        let clean: Vec<u32> = (0..1000).map(|k| k % 10).collect();
        let mut noisy = clean.clone();
        let replaced = replace_labels(&mut noisy, 10, 0.4, 7);
        let changed: Vec<u32> = (0..1000).filter(|at| clean[*at as usize] != noisy[*at as usize]).collect();
        assert_eq!((changed.len(), replaced), (400, changed));
        let from_zero: std::collections::BTreeSet<u32> = noisy.iter().step_by(10).copied().collect();
        assert_eq!(from_zero.len(), 10, "label 0 became each of the others somewhere");
        let mut again = clean.clone();
        replace_labels(&mut again, 10, 0.4, 7);
        assert_eq!(again, noisy);
        let mut other = clean.clone();
        replace_labels(&mut other, 10, 0.4, 8);
        assert_ne!(other, noisy);
    }

    #[test]
    fn no_noise_changes_nothing_and_full_noise_everything() {
        let clean = vec![0, 1, 1, 0];
        for (share, want, places) in [(0.0, vec![0, 1, 1, 0], vec![]), (1.0, vec![1, 0, 0, 1], vec![0, 1, 2, 3])] {
            let mut labels = clean.clone();
            let replaced = replace_labels(&mut labels, 2, share, 0);
            assert_eq!((labels, replaced), (want, places));
        }
    }
}
