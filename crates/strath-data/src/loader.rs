//! Ready batches: normalised, augmented, in the seeded order.

use std::ops::Range;
use std::sync::Arc;

use strath_core::config::Augmentation;
use strath_core::random::{Purpose, Stream};

use crate::augment::augment;
use crate::dataset::{Dataset, SplitName};
use crate::order::Order;

/// Images and labels side by side.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Images, `[n, C, H, W]` row-major.
    pub images: Vec<f32>,
    /// Labels, `[n]`.
    pub labels: Vec<u32>,
}

/// Makes batches of a data set.
#[derive(Debug, Clone)]
pub struct Loader {
    dataset: Arc<Dataset>,
    order: Order,
    seed: u64,
    augmentations: Vec<Augmentation>,
}

impl Loader {
    /// Training batches of `batch` examples under `seed`.
    pub fn new(
        dataset: Arc<Dataset>,
        batch: usize,
        seed: u64,
        shuffle: bool,
        augmentations: Vec<Augmentation>,
    ) -> Self {
        let order = Order::new(dataset.split(SplitName::Train).len(), batch, seed, shuffle);
        Self { dataset, order, seed, augmentations }
    }

    /// The data set.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// Number of examples of a split.
    pub fn len(&self, split: SplitName) -> usize {
        self.dataset.split(split).len()
    }

    /// Whether a split has no example.
    pub fn is_empty(&self, split: SplitName) -> bool {
        self.len(split) == 0
    }

    /// The training examples at `positions` of the batch of step `step`, augmented.
    ///
    /// # Panics
    /// Where `positions` reach beyond the batch.
    pub fn micro_batch(&mut self, step: u64, positions: Range<usize>) -> Batch {
        let entries = self.order.entries(step, positions);
        let split = self.dataset.split(SplitName::Train);
        let shape = self.dataset.shape();
        let mut images = vec![0.0; entries.len() * shape.values()];
        let mut scratch = vec![0.0; shape.values()];
        for (entry, image) in entries.iter().zip(images.chunks_exact_mut(shape.values())) {
            split.image(entry.example, image);
            if !self.augmentations.is_empty() {
                let purpose = Purpose::Augment { epoch: entry.epoch, example: entry.example as u64 };
                augment(image, shape, &self.augmentations, &mut Stream::new(self.seed, purpose), &mut scratch);
            }
        }
        Batch { images, labels: entries.iter().map(|entry| split.label(entry.example)).collect() }
    }

    /// A run of a split's examples in file order, un-augmented.
    ///
    /// # Panics
    /// Where the split has fewer examples.
    pub fn evaluation(&self, split: SplitName, examples: Range<usize>) -> Batch {
        let split = self.dataset.split(split);
        let values = self.dataset.shape().values();
        let mut images = vec![0.0; examples.len() * values];
        for (example, image) in examples.clone().zip(images.chunks_exact_mut(values)) {
            split.image(example, image);
        }
        Batch { images, labels: examples.map(|example| split.label(example)).collect() }
    }
}

#[cfg(test)]
mod tests {
    use strath_core::config::{DataKind, DataTable};

    use super::*;

    fn loader(augmentations: Vec<Augmentation>) -> Loader {
        let table = DataTable {
            kind: DataKind::Digits,
            path: None,
            shuffle: true,
            augment: augmentations.clone(),
            train_limit: None,
            label_noise: 0.0,
            validation: 0.0,
            classes: None,
        };
        Loader::new(Arc::new(Dataset::load(&table, 0).unwrap()), 32, 9, true, augmentations)
    }

    #[test]
    fn any_cut_of_a_batch_sees_the_same_augmented_examples() {
        let augmentations = vec![Augmentation::Crop(2), Augmentation::Flip, Augmentation::Cutout(3)];
        let whole = loader(augmentations.clone()).micro_batch(44, 0..32);
        let mut cut = loader(augmentations);
        let (late, early) = (cut.micro_batch(44, 20..32), cut.micro_batch(44, 0..20));
        assert_eq!([early.images, late.images].concat(), whole.images);
        assert_eq!([early.labels, late.labels].concat(), whole.labels);
        assert_eq!(cut.micro_batch(44, 20..32).images, whole.images[20 * 64..], "the second pass of a lane");
        let plain = loader(Vec::new()).micro_batch(44, 0..32);
        assert_eq!(plain.labels, whole.labels);
        assert_ne!(plain.images, whole.images);
    }

    #[test]
    fn an_example_is_augmented_anew_in_every_epoch_whatever_its_place_in_the_batch() {
        let mut small = loader(vec![Augmentation::Crop(2)]);
        let mut large = Loader::new(small.dataset.clone(), 1437, 9, true, vec![Augmentation::Crop(2)]);
        let (first, second) = (large.micro_batch(0, 0..1437), large.micro_batch(1, 0..1437));
        assert_eq!(small.micro_batch(3, 7..8).images, first.images[(3 * 32 + 7) * 64..][..64]);
        let of = |loader: &mut Loader, batch: &Batch, step: u64| {
            let at = loader.order.entries(step, 0..1437).iter().position(|entry| entry.example == 5).unwrap();
            batch.images[at * 64..][..64].to_vec()
        };
        assert_ne!(of(&mut large, &first, 0), of(&mut large, &second, 1));
    }

    #[test]
    fn evaluation_takes_the_file_order_as_it_is() {
        let loader = loader(vec![Augmentation::Cutout(7)]);
        let batch = loader.evaluation(SplitName::Test, 350..360);
        let mut image = vec![0.0; 64];
        loader.dataset().split(SplitName::Test).image(359, &mut image);
        assert_eq!(batch.images[9 * 64..], image[..]);
        assert_eq!(batch.labels[9], 8, "the last digit of the file");
    }
}
