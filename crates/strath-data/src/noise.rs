//! Label noise: a seeded share of the training labels is replaced.

use strath_core::random::{Purpose, Stream};

/// Replaces `share` of the labels (to the nearest whole number of them, halves up), each by one of the other classes with
/// equal probability. Which and by what depends on the seed and nothing else.
pub(crate) fn replace_labels(labels: &mut [u32], classes: usize, share: f64, seed: u64) {
    let count = (share * labels.len() as f64 + 0.5).floor() as usize;
    if count == 0 || classes < 2 {
        return;
    }
    let mut stream = Stream::new(seed, Purpose::LabelNoise);
    let order = stream.permutation(labels.len());
    for example in &order[..count.min(labels.len())] {
        let label = &mut labels[*example as usize];
        let other = stream.below(classes as u64 - 1) as u32;
        *label = if other < *label { other } else { other + 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_share_changes_and_every_other_class_is_drawn() {
        let clean: Vec<u32> = (0..1000).map(|k| k % 10).collect();
        let mut noisy = clean.clone();
        replace_labels(&mut noisy, 10, 0.4, 7);
        let changed = clean.iter().zip(&noisy).filter(|(a, b)| a != b).count();
        assert_eq!(changed, 400);
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
        for (share, want) in [(0.0, vec![0, 1, 1, 0]), (1.0, vec![1, 0, 0, 1])] {
            let mut labels = clean.clone();
            replace_labels(&mut labels, 2, share, 0);
            assert_eq!(labels, want);
        }
    }
}
