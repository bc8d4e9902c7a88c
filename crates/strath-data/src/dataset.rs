//! A data set in memory, and what decides its examples.

use strath_core::config::{Augmentation, DataKind, DataTable};
use strath_core::digest::Hasher;
use strath_core::{Digest, ImageShape};

use crate::error::DataError;
use crate::examples::Examples;
use crate::{noise, source, validation};

/// Which part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplitName {
    /// The training examples.
    Train,
    /// Those that were split off the training examples; none unless `data.validation` says so.
    Validation,
    /// The test examples.
    Test,
    /// Those training examples whose label is not the one that they came with; none unless `data.label_noise` says so.
    Noisy,
}

impl SplitName {
    /// Its name in files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
            Self::Noisy => "noisy",
        }
    }
}

/// Mean and deviation a channel, applied after dividing pixels by their range.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalisation {
    /// Means.
    pub mean: Vec<f32>,
    /// Standard deviations.
    pub std: Vec<f32>,
}

impl Normalisation {
    /// No normalisation, for data that is taken as it is.
    pub fn identity(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], std: vec![1.0; channels] }
    }

    pub(crate) fn new(mean: &[f32], std: &[f32]) -> Self {
        Self { mean: mean.to_vec(), std: std.to_vec() }
    }
}

/// Images side by side, [N, C, H, W].
#[derive(Debug, Clone, PartialEq)]
enum Pixels {
    /// As a file holds them; `table[channel][pixel]` is the normalised value.
    Bytes {
        /// The raw pixels.
        values: Vec<u8>,
        /// The normalised value of each raw one, a row of 256 a channel.
        table: Vec<[f32; 256]>,
    },
    /// Taken as they are.
    Floats(Vec<f32>),
}

/// The images and labels of one split.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    shape: ImageShape,
    pixels: Pixels,
    labels: Vec<u32>,
    /// Examples with another label than they came with, in order.
    noisy: Vec<u32>,
}

impl Split {
    pub(crate) fn bytes(shape: ImageShape, values: Vec<u8>, labels: Vec<u32>, range: f32, by: &Normalisation) -> Self {
        let row = |(mean, std): (&f32, &f32)| std::array::from_fn(|pixel| (pixel as f32 / range - mean) / std);
        let table = by.mean.iter().zip(&by.std).map(row).collect();
        Self { shape, pixels: Pixels::Bytes { values, table }, labels, noisy: Vec::new() }
    }

    pub(crate) fn floats(shape: ImageShape, values: Vec<f32>, labels: Vec<u32>) -> Self {
        Self { shape, pixels: Pixels::Floats(values), labels, noisy: Vec::new() }
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The class of an example.
    ///
    /// # Panics
    /// Where there is no such example.
    pub fn label(&self, example: usize) -> u32 {
        self.labels[example]
    }

    /// Writes the normalised image of an example, [C, H, W], to `out`.
    ///
    /// # Panics
    /// Where there is no such example, or `out` has another length than an image.
    pub fn image(&self, example: usize, out: &mut [f32]) {
        let values = self.shape.values();
        assert_eq!(out.len(), values, "an image is {}", self.shape);
        let range = example * values..(example + 1) * values;
        match &self.pixels {
            Pixels::Floats(pixels) => out.copy_from_slice(&pixels[range]),
            Pixels::Bytes { values: pixels, table } => {
                let area = self.shape.height * self.shape.width;
                let channels = pixels[range].chunks_exact(area).zip(table).zip(out.chunks_exact_mut(area));
                for ((from, table), to) in channels {
                    for (to, from) in to.iter_mut().zip(from) {
                        *to = table[usize::from(*from)];
                    }
                }
            }
        }
    }

    /// Replaces a share of the labels.
    fn add_noise(&mut self, classes: usize, share: f64, seed: u64) {
        self.noisy = noise::replace_labels(&mut self.labels, classes, share, seed);
    }

    /// These examples of it, in this order.
    pub(crate) fn part(&self, examples: &[u32]) -> Self {
        fn rows<T: Copy>(values: &[T], size: usize, examples: &[u32]) -> Vec<T> {
            examples.iter().flat_map(|example| &values[*example as usize * size..][..size]).copied().collect()
        }
        let size = self.shape.values();
        let pixels = match &self.pixels {
            Pixels::Bytes { values, table } => {
                Pixels::Bytes { values: rows(values, size, examples), table: table.clone() }
            }
            Pixels::Floats(values) => Pixels::Floats(rows(values, size, examples)),
        };
        let is_noisy = |place: &u32| self.noisy.binary_search(&examples[*place as usize]).is_ok();
        let noisy = (0..examples.len() as u32).filter(is_noisy).collect();
        Self { shape: self.shape, pixels, labels: rows(&self.labels, 1, examples), noisy }
    }

    fn truncate(&mut self, examples: usize) {
        self.labels.truncate(examples);
        match &mut self.pixels {
            Pixels::Bytes { values, .. } => values.truncate(examples * self.shape.values()),
            Pixels::Floats(values) => values.truncate(examples * self.shape.values()),
        }
    }

    fn digest_into(&self, hasher: &mut Hasher) {
        hasher.bytes(&(self.len() as u64).to_le_bytes());
        match &self.pixels {
            Pixels::Bytes { values, table } => {
                for row in table {
                    hasher.floats(row);
                }
                hasher.bytes(values);
            }
            Pixels::Floats(values) => {
                hasher.floats(values);
            }
        }
        for label in &self.labels {
            hasher.bytes(&label.to_le_bytes());
        }
    }
}

/// A data set in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    shape: ImageShape,
    classes: usize,
    normalisation: Normalisation,
    train: Split,
    validation: Split,
    test: Split,
    digest: Digest,
}

impl Dataset {
    /// Loads the data set of a valid configuration; `train_limit` applies first, then the label noise, then what is
    /// split off for validation, both drawn from `seed`.
    ///
    /// # Errors
    /// [`DataError`] with the file, what was found, what was expected and what to do.
    ///
    /// # Panics
    /// Where `table` is not valid: no path, or no number of classes for safetensors.
    pub fn load(table: &DataTable, seed: u64) -> Result<Self, DataError> {
        let path = || table.path.as_deref().expect("a valid table of every kind but the digits has a path");
        let classes = || table.classes.expect("a valid table of safetensors says how many classes there are");
        let mut loaded = match table.kind {
            DataKind::Digits => source::digits::load(),
            DataKind::Mnist => source::idx::load(path(), source::idx::MNIST)?,
            DataKind::FashionMnist => source::idx::load(path(), source::idx::FASHION_MNIST)?,
            DataKind::Cifar10 => source::cifar::load(path(), source::cifar::CIFAR10)?,
            DataKind::Cifar100 => source::cifar::load(path(), source::cifar::CIFAR100)?,
            DataKind::Safetensors => source::safetensors::load(path(), classes())?,
        };
        for augmentation in &table.augment {
            fits(*augmentation, loaded.shape)?;
        }
        if let Some(limit) = table.train_limit {
            if limit > loaded.train.len() {
                return Err(DataError::Limit { limit, examples: loaded.train.len() });
            }
            loaded.train.truncate(limit);
        }
        loaded.train.add_noise(loaded.classes, table.label_noise, seed);
        let validation = validation::split_off(&mut loaded.train, table.validation, seed)?;
        Ok(Self::new(loaded, validation))
    }

    fn new(loaded: source::Loaded, validation: Split) -> Self {
        let source::Loaded { shape, classes, normalisation, train, test } = loaded;
        let mut hasher = Hasher::new();
        for size in [shape.channels, shape.height, shape.width, classes] {
            hasher.bytes(&(size as u64).to_le_bytes());
        }
        train.digest_into(&mut hasher);
        test.digest_into(&mut hasher);
        // Data of which nothing is split off keeps the digest that it always had.
        if !validation.is_empty() {
            validation.digest_into(&mut hasher);
        }
        Self { shape, classes, normalisation, train, validation, test, digest: hasher.finish() }
    }

    /// The shape of an image.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// What images are normalised by.
    pub fn normalisation(&self) -> &Normalisation {
        &self.normalisation
    }

    /// A split by name.
    pub fn split(&self, name: SplitName) -> Examples<'_> {
        match name {
            SplitName::Train => Examples::all(&self.train),
            SplitName::Validation => Examples::all(&self.validation),
            SplitName::Test => Examples::all(&self.test),
            SplitName::Noisy => Examples::of(&self.train, &self.train.noisy),
        }
    }

    /// SHA-256 of everything that decides the examples: shapes, pixels, normalisation, labels after limit and noise,
    /// and what is split off.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// Refuses a padding or a square that is larger than the image.
fn fits(augmentation: Augmentation, shape: ImageShape) -> Result<(), DataError> {
    let side = shape.height.min(shape.width);
    let (name, pixels) = match augmentation {
        Augmentation::Flip => return Ok(()),
        Augmentation::Crop(pad) => ("crop", pad),
        Augmentation::Cutout(length) => ("cutout", length),
    };
    if pixels <= side {
        return Ok(());
    }
    Err(DataError::Augmentation { augmentation: format!("{name}:{pixels}"), height: shape.height, width: shape.width })
}
