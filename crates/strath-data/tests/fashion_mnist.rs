//! The real Fashion-MNIST, where Debian's package dataset-fashion-mnist has put it.

use std::path::Path;

use strath_core::ImageShape;
use strath_core::config::{DataKind, DataTable};
use strath_data::{Dataset, Examples, SplitName, verify};

/// The package's folder, or a printed line and nothing where it is not installed.
fn folder() -> Option<&'static Path> {
    let folder = Path::new("/usr/share/datasets/fashion-mnist");
    if folder.exists() {
        return Some(folder);
    }
    assert!(std::env::var_os("STRATH_REQUIRE_ALL").is_none(), "{} is missing", folder.display());
    eprintln!("skipped: {} is not there (Debian's package dataset-fashion-mnist)", folder.display());
    None
}

/// The sum of an image's raw pixels, from 0 to 255.
fn raw_sum(split: Examples<'_>, example: usize) -> u32 {
    let mut image = vec![0.0; 784];
    split.image(example, &mut image);
    image.iter().map(|value| ((value * 0.3530 + 0.2860) * 255.0).round() as u32).sum()
}

#[test]
fn the_packaged_files_have_the_published_digests() {
    let Some(folder) = folder() else { return };
    assert_eq!(verify("fashion-mnist", folder).unwrap().kept, 4);
}

#[test]
fn the_packaged_files_load_as_published() {
    let Some(folder) = folder() else { return };
    let table = DataTable {
        kind: DataKind::FashionMnist,
        path: Some(folder.into()),
        shuffle: true,
        augment: Vec::new(),
        train_limit: None,
        label_noise: 0.0,
        validation: 0.0,
        classes: None,
    };
    let dataset = Dataset::load(&table, 0).unwrap();
    assert_eq!((dataset.shape(), dataset.classes()), (ImageShape { channels: 1, height: 28, width: 28 }, 10));
    let (train, test) = (dataset.split(SplitName::Train), dataset.split(SplitName::Test));
    for (split, of_each) in [(train, 6000), (test, 1000)] {
        let counts = (0..split.len()).fold([0; 10], |mut counts, example| {
            counts[split.label(example) as usize] += 1;
            counts
        });
        assert_eq!(counts, [of_each; 10]);
    }
    // In Python: list(labels[:10]), sum(images[:784]), sum(images[-784:]) of the unpacked files after their headers.
    let first = |split: Examples<'_>| -> Vec<u32> { (0..10).map(|example| split.label(example)).collect() };
    assert_eq!(first(train), [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]);
    assert_eq!(first(test), [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]);
    assert_eq!((raw_sum(train, 0), raw_sum(train, 59_999)), (76_247, 16_684));
    assert_eq!((raw_sum(test, 0), raw_sum(test, 9_999)), (33_456, 24_390));
}
