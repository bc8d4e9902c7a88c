//! The built-in digits: 1,797 images of 8x8 pixels, the first 1,437 to train on, the last 360 to test on.
//!
//! UCI "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998), CC BY 4.0, as scikit-learn ships it.

use std::io::Read;

use flate2::read::GzDecoder;
use strath_core::ImageShape;

use super::Loaded;
use crate::dataset::{Normalisation, Split};

const FILE: &[u8] = include_bytes!("../../assets/digits.csv.gz");
const EXAMPLES: usize = 1797;
/// The first so many are the training examples.
const TRAIN: usize = 1437;
const CLASSES: usize = 10;
const SHAPE: ImageShape = ImageShape { channels: 1, height: 8, width: 8 };
/// Pixels go from 0 to 16.
const RANGE: f32 = 16.0;

pub(crate) fn load() -> Loaded {
    let mut text = String::new();
    GzDecoder::new(FILE).read_to_string(&mut text).expect("the file is part of the program, and a test reads it");
    let (mut pixels, mut labels) = (Vec::with_capacity(EXAMPLES * SHAPE.values()), Vec::with_capacity(EXAMPLES));
    for line in text.lines() {
        let mut fields = line.split(',').map(|field| field.parse::<u8>().expect("a test pins the file's digest"));
        pixels.extend(fields.by_ref().take(SHAPE.values()));
        labels.extend(fields.map(u32::from));
    }
    let normalisation = Normalisation::new(&[0.3053], &[0.3760]);
    let (test_pixels, test_labels) = (pixels.split_off(TRAIN * SHAPE.values()), labels.split_off(TRAIN));
    let test = Split::bytes(SHAPE, test_pixels, test_labels, RANGE, &normalisation);
    let train = Split::bytes(SHAPE, pixels, labels, RANGE, &normalisation);
    Loaded { shape: SHAPE, classes: CLASSES, normalisation, train, test }
}

#[cfg(test)]
mod tests {
    use strath_core::Digest;

    use super::*;

    fn counts(split: &Split) -> [u32; 10] {
        (0..split.len()).fold([0; 10], |mut counts, at| {
            counts[split.label(at) as usize] += 1;
            counts
        })
    }

    #[test]
    fn the_digits_are_those_of_scikit_learn() {
        let mut text = Vec::new();
        GzDecoder::new(FILE).read_to_end(&mut text).unwrap();
        // zcat digits.csv.gz | sha256sum
        let unpacked = "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8";
        assert_eq!(Digest::of(&text).to_string(), unpacked);
        let loaded = load();
        assert_eq!((loaded.train.len(), loaded.test.len()), (1437, 360));
        // numpy.bincount of the label column's first 1,437 and last 360 rows.
        assert_eq!(counts(&loaded.train), [143, 146, 142, 146, 144, 145, 144, 143, 141, 143]);
        assert_eq!(counts(&loaded.test), [35, 36, 35, 37, 37, 37, 37, 36, 33, 37]);
        let labels: Vec<u32> = (0..10).map(|at| loaded.train.label(at)).collect();
        assert_eq!(labels, (0..10).collect::<Vec<u32>>());
        let mut image = [0.0; 64];
        loaded.train.image(0, &mut image);
        let want = [0u8, 0, 5, 13, 9, 1, 0, 0].map(|raw| (f32::from(raw) / 16.0 - 0.3053) / 0.3760);
        assert_eq!(image[..8], want);
    }

    #[test]
    fn the_published_constants_normalise_the_training_images() {
        let loaded = load();
        let mut image = [0.0; 64];
        let mut values: Vec<f64> = Vec::new();
        for example in 0..loaded.train.len() {
            loaded.train.image(example, &mut image);
            values.extend(image.iter().map(|v| f64::from(*v)));
        }
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
        assert!(mean.abs() < 0.01 && (std - 1.0).abs() < 0.01, "mean {mean}, deviation {std}");
    }
}
