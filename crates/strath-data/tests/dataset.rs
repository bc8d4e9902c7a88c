//! What decides the examples of a data set: limit, noise, seed; and what its digest says of it.

#![allow(clippy::unwrap_used, reason = "a test that fails names the line")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use strath_core::ImageShape;
use strath_core::config::{Augmentation, DataKind, DataTable};
use strath_data::{DataError, Dataset, Normalisation, SplitName};

fn table(kind: DataKind, path: Option<&Path>) -> DataTable {
    DataTable {
        kind,
        path: path.map(PathBuf::from),
        shuffle: true,
        augment: Vec::new(),
        train_limit: None,
        label_noise: 0.0,
        validation: 0.0,
        classes: None,
    }
}

fn digits() -> DataTable {
    table(DataKind::Digits, None)
}

fn load(table: &DataTable) -> Dataset {
    Dataset::load(table, 0).unwrap()
}

fn labels(dataset: &Dataset, split: SplitName) -> Vec<u32> {
    let split = dataset.split(split);
    (0..split.len()).map(|example| split.label(example)).collect()
}

fn images(dataset: &Dataset, split: SplitName) -> Vec<Vec<f32>> {
    let split = dataset.split(split);
    let image = |example| {
        let mut image = vec![0.0; dataset.shape().values()];
        split.image(example, &mut image);
        image
    };
    (0..split.len()).map(image).collect()
}

#[test]
fn the_digits_come_with_their_shape_classes_and_normalisation() {
    let dataset = load(&digits());
    assert_eq!(dataset.shape(), ImageShape { channels: 1, height: 8, width: 8 });
    assert_eq!(dataset.classes(), 10);
    assert_eq!(*dataset.normalisation(), Normalisation { mean: vec![0.3053], std: vec![0.3760] });
    assert_eq!((dataset.split(SplitName::Train).len(), dataset.split(SplitName::Test).len()), (1437, 360));
}

#[test]
fn a_limit_keeps_the_first_training_examples_and_every_test_example() {
    let (whole, few) = (load(&digits()), load(&DataTable { train_limit: Some(100), ..digits() }));
    assert_eq!(labels(&few, SplitName::Train), labels(&whole, SplitName::Train)[..100]);
    assert_eq!(images(&few, SplitName::Train), images(&whole, SplitName::Train)[..100]);
    assert_eq!(few.split(SplitName::Test), whole.split(SplitName::Test));
    let all = load(&DataTable { train_limit: Some(1437), ..digits() });
    assert_eq!(all, whole);
}

#[test]
fn a_limit_beyond_the_data_is_an_error() {
    let error = Dataset::load(&DataTable { train_limit: Some(1438), ..digits() }, 0).expect_err("too many");
    assert!(matches!(error, DataError::Limit { limit: 1438, examples: 1437 }));
    assert!(error.to_string().contains("lower it"), "{error}");
}

#[test]
fn noise_replaces_its_share_of_the_limited_training_labels_and_nothing_else() {
    let limited = DataTable { train_limit: Some(101), ..digits() };
    let noisy = DataTable { label_noise: 0.25, ..limited.clone() };
    let (clean, noisy, other) =
        (load(&limited), load(&noisy), Dataset::load(&noisy, 1).expect("another seed draws other labels"));
    let changed = |noisy: &Dataset| -> Vec<usize> {
        let (clean, noisy) = (labels(&clean, SplitName::Train), labels(noisy, SplitName::Train));
        (0..clean.len()).filter(|at| clean[*at] != noisy[*at]).collect()
    };
    // 0.25 * 101 = 25.25, to the nearest whole number.
    assert_eq!((changed(&noisy).len(), changed(&other).len()), (25, 25));
    assert_ne!(changed(&noisy), changed(&other));
    assert!(labels(&noisy, SplitName::Train).iter().all(|label| *label < 10));
    assert_eq!(images(&noisy, SplitName::Train), images(&clean, SplitName::Train));
    assert_eq!(noisy.split(SplitName::Test), clean.split(SplitName::Test));
}

#[test]
fn validation_is_split_off_after_limit_and_noise_and_its_labels_stay_as_noisy_as_they_are() {
    let limited = DataTable { train_limit: Some(101), label_noise: 0.25, ..digits() };
    let (whole, split) = (load(&limited), load(&DataTable { validation: 0.1, ..limited }));
    let (train, validation) = (labels(&split, SplitName::Train), labels(&split, SplitName::Validation));
    // floor(0.1 * 101)
    assert_eq!((train.len(), validation.len(), whole.split(SplitName::Validation).len()), (91, 10, 0));
    let of = |dataset: &Dataset, name| -> Vec<(u32, Vec<f32>)> {
        labels(dataset, name).into_iter().zip(images(dataset, name)).collect()
    };
    let (mut left, taken) = (of(&split, SplitName::Train).into_iter().peekable(), of(&split, SplitName::Validation));
    let mut taken = taken.into_iter().peekable();
    for example in of(&whole, SplitName::Train) {
        let came = left.next_if_eq(&example).or_else(|| taken.next_if_eq(&example));
        assert!(came.is_some(), "both parts are in the order of the file, labels and all");
    }
    assert_eq!(split.split(SplitName::Test), whole.split(SplitName::Test));
}

#[test]
fn the_noisy_examples_are_those_whose_label_was_replaced_without_those_split_off() {
    let clean = DataTable { train_limit: Some(101), ..digits() };
    let noisy = DataTable { label_noise: 0.25, ..clean.clone() };
    let split = DataTable { validation: 0.3, ..noisy.clone() };
    assert!(load(&clean).split(SplitName::Noisy).is_empty());
    let of = |dataset: &Dataset, name| -> Vec<(Vec<f32>, u32)> {
        images(dataset, name).into_iter().zip(labels(dataset, name)).collect()
    };
    // Which examples those are is found without it: by their images, of which no two are the same, in the data without noise.
    let came_with = of(&load(&clean), SplitName::Train);
    let label = |image: &[f32]| came_with.iter().find(|(other, _)| other == image).unwrap().1;
    for (table, count) in [(noisy, 25), (split, 17)] {
        let dataset = load(&table);
        let want: Vec<_> =
            of(&dataset, SplitName::Train).into_iter().filter(|(image, now)| label(image) != *now).collect();
        assert_eq!(of(&dataset, SplitName::Noisy), want);
        let apart = of(&dataset, SplitName::Validation).into_iter().filter(|(image, now)| label(image) != *now);
        // 25 of 101 were replaced; some of those are among the 30 split off.
        assert_eq!((want.len(), want.len() + apart.count()), (count, 25));
    }
}

#[test]
fn the_digest_changes_with_the_examples_and_with_nothing_else() {
    let plain = load(&digits()).digest();
    let same = [
        DataTable { shuffle: false, ..digits() },
        DataTable { augment: vec![Augmentation::Flip, Augmentation::Crop(2)], ..digits() },
        DataTable { train_limit: Some(1437), ..digits() },
    ];
    for table in &same {
        assert_eq!(load(table).digest(), plain, "{table:?}");
    }
    assert_eq!(Dataset::load(&digits(), 5).unwrap().digest(), plain, "without noise no seed enters");
    let noisy = DataTable { label_noise: 0.1, ..digits() };
    let digests = [
        plain,
        load(&DataTable { train_limit: Some(1436), ..digits() }).digest(),
        load(&noisy).digest(),
        Dataset::load(&noisy, 1).unwrap().digest(),
        load(&DataTable { validation: 0.1, ..digits() }).digest(),
        Dataset::load(&DataTable { validation: 0.1, ..digits() }, 1).unwrap().digest(),
        load(&DataTable { validation: 0.2, ..digits() }).digest(),
    ];
    for (at, digest) in digests.iter().enumerate() {
        assert!(!digests[..at].contains(digest), "digest {at} repeats another");
    }
    assert_eq!(load(&noisy).digest(), digests[2]);
}

/// A file of two training images and one test image of 1x2x2 pixels, all `pixel` but for the first.
fn safetensors(path: &Path, pixel: f32, first_label: i64) {
    let floats = |count: usize| -> Vec<u8> { (0..count).flat_map(|_| pixel.to_le_bytes()).collect() };
    let labels = |labels: &[i64]| -> Vec<u8> { labels.iter().flat_map(|label| label.to_le_bytes()).collect() };
    let tensors = BTreeMap::from([
        ("train.images", (Dtype::F32, vec![2, 1, 2, 2], floats(8))),
        ("train.labels", (Dtype::I64, vec![2], labels(&[first_label, 1]))),
        ("test.images", (Dtype::F32, vec![1, 1, 2, 2], floats(4))),
        ("test.labels", (Dtype::I64, vec![1], labels(&[1]))),
    ]);
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, data))| (*name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn the_digest_of_safetensors_covers_pixels_labels_and_classes() {
    let folder = tempfile::tempdir().unwrap();
    let digest = |pixel: f32, first_label: i64, classes: usize| {
        let path = folder.path().join("data.safetensors");
        safetensors(&path, pixel, first_label);
        let table = DataTable { classes: Some(classes), ..table(DataKind::Safetensors, Some(&path)) };
        let dataset = load(&table);
        assert_eq!((dataset.classes(), dataset.normalisation()), (classes, &Normalisation::identity(1)));
        assert_eq!(images(&dataset, SplitName::Test), [[pixel; 4]]);
        dataset.digest()
    };
    let digests = [digest(0.5, 0, 2), digest(0.25, 0, 2), digest(0.5, 1, 2), digest(0.5, 0, 3)];
    for (at, one) in digests.iter().enumerate() {
        assert!(!digests[..at].contains(one), "digest {at} repeats another");
    }
    assert_eq!(digest(0.5, 0, 2), digests[0]);
}

#[test]
fn an_augmentation_larger_than_the_image_is_an_error() {
    for (augmentation, name) in [(Augmentation::Crop(9), "crop:9"), (Augmentation::Cutout(9), "cutout:9")] {
        let table = DataTable { augment: vec![Augmentation::Flip, augmentation], ..digits() };
        let error = Dataset::load(&table, 0).expect_err(name);
        assert!(matches!(&error, DataError::Augmentation { height: 8, width: 8, .. }));
        assert!(error.to_string().contains(name) && error.to_string().contains("8x8"), "{error}");
    }
    for augmentation in [Augmentation::Crop(8), Augmentation::Cutout(8)] {
        load(&DataTable { augment: vec![augmentation], ..digits() });
    }
}

#[test]
fn a_folder_without_the_files_is_an_error_for_every_kind() {
    let folder = tempfile::tempdir().unwrap();
    for kind in [DataKind::Mnist, DataKind::FashionMnist, DataKind::Cifar10, DataKind::Cifar100, DataKind::Safetensors]
    {
        let path = folder.path().join("nothing");
        let table = DataTable { classes: Some(10), ..table(kind, Some(&path)) };
        let error = Dataset::load(&table, 0).expect_err("nothing there");
        assert!(matches!(&error, DataError::Missing { path: file, .. } if file.starts_with(&path)), "{error}");
        assert!(error.to_string().contains("data.path"), "{error}");
    }
}
