//! CIFAR-10 and CIFAR-100, the binary version's files (Krizhevsky 2009): records of labels and 3x32x32 pixels.

use std::io::Read;
use std::path::Path;

use strath_core::ImageShape;

use super::{Loaded, check_labels, open_plain};
use crate::dataset::{Normalisation, Split};
use crate::error::DataError;

const SHAPE: ImageShape = ImageShape { channels: 3, height: 32, width: 32 };

/// One of the two data sets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    classes: usize,
    /// Label bytes before the pixels; the last is the class (CIFAR-100's first is the coarse one).
    label_bytes: usize,
    train: &'static [&'static str],
    test: &'static str,
    /// The folder inside the published archive.
    folder: &'static str,
    mean: [f32; 3],
    std: [f32; 3],
    advice: &'static str,
}

pub(crate) const CIFAR10: Format = Format {
    classes: 10,
    label_bytes: 1,
    train: &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"],
    test: "test_batch.bin",
    folder: "cifar-10-batches-bin",
    mean: [0.4914, 0.4822, 0.4465],
    std: [0.2470, 0.2435, 0.2616],
    advice: "unpack cifar-10-binary.tar.gz (the binary version, from the data set's page) and set data.path to its folder",
};

pub(crate) const CIFAR100: Format = Format {
    classes: 100,
    label_bytes: 2,
    train: &["train.bin"],
    test: "test.bin",
    folder: "cifar-100-binary",
    mean: [0.5071, 0.4865, 0.4409],
    std: [0.2673, 0.2564, 0.2762],
    advice: "unpack cifar-100-binary.tar.gz (the binary version, from the data set's page) and set data.path to its folder",
};

pub(crate) fn load(folder: &Path, format: Format) -> Result<Loaded, DataError> {
    let inner = folder.join(format.folder);
    let folder = if inner.is_dir() { inner } else { folder.into() };
    let normalisation = Normalisation::new(&format.mean, &format.std);
    let split = |names: &[&str], name: &'static str| -> Result<Split, DataError> {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for file in names {
            records(&folder.join(file), format, name, &mut pixels, &mut labels)?;
        }
        Ok(Split::bytes(SHAPE, pixels, labels, 255.0, &normalisation))
    };
    let (train, test) = (split(format.train, "train")?, split(&[format.test], "test")?);
    Ok(Loaded { shape: SHAPE, classes: format.classes, normalisation, train, test })
}

/// Appends the records of a file.
fn records(
    path: &Path,
    format: Format,
    split: &'static str,
    pixels: &mut Vec<u8>,
    labels: &mut Vec<u32>,
) -> Result<(), DataError> {
    let Some((mut file, found)) = open_plain(path)? else {
        return Err(DataError::Missing { path: path.into(), or_gz: false, advice: format.advice });
    };
    check_length(path, format, split, found)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|e| DataError::io("read", path, e))?;
    parse(path, format, split, &bytes, pixels, labels)
}

/// Appends the records of a file that holds these bytes.
pub(crate) fn parse(
    path: &Path,
    format: Format,
    split: &'static str,
    bytes: &[u8],
    pixels: &mut Vec<u8>,
    labels: &mut Vec<u32>,
) -> Result<(), DataError> {
    check_length(path, format, split, bytes.len() as u64)?;
    let record = format.label_bytes + SHAPE.values();
    let own: Vec<u32> = bytes.chunks_exact(record).map(|r| u32::from(r[format.label_bytes - 1])).collect();
    check_labels(path, &own, format.classes)?;
    labels.extend(own);
    bytes.chunks_exact(record).for_each(|r| pixels.extend_from_slice(&r[format.label_bytes..]));
    Ok(())
}

/// Refuses a file that is not of whole records, before it is read.
fn check_length(path: &Path, format: Format, split: &'static str, found: u64) -> Result<(), DataError> {
    let record = format.label_bytes + SHAPE.values();
    if found == 0 {
        return Err(DataError::Empty { path: path.into(), split });
    }
    if !found.is_multiple_of(record as u64) {
        return Err(DataError::Length { path: path.into(), found, expected: format!("a multiple of {record}") });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(folder: &Path, format: Format, label: u8) {
        let record = |k: u8| {
            let mut bytes = vec![0; format.label_bytes - 1];
            bytes.push(label);
            bytes.extend((0..3072u32).map(|at| (at / 1024) as u8 * 10 + k));
            bytes
        };
        fs::create_dir_all(folder).unwrap();
        for (k, name) in format.train.iter().chain([&format.test]).enumerate() {
            fs::write(folder.join(name), [record(k as u8), record(k as u8 + 1)].concat()).unwrap();
        }
    }

    #[test]
    fn records_are_read_in_order_with_the_fine_label() {
        for (format, label) in [(CIFAR10, 7), (CIFAR100, 99)] {
            let folder = tempfile::tempdir().unwrap();
            write(&folder.path().join(format.folder), format, label);
            let loaded = load(folder.path(), format).unwrap();
            assert_eq!((loaded.train.len(), loaded.test.len()), (2 * format.train.len(), 2));
            assert_eq!(loaded.train.label(1), u32::from(label));
            let mut image = vec![0.0; 3072];
            loaded.train.image(1, &mut image);
            let want = |channel: usize, raw: f32| (raw / 255.0 - format.mean[channel]) / format.std[channel];
            assert_eq!([image[0], image[1024], image[2048]], [want(0, 1.0), want(1, 11.0), want(2, 21.0)]);
        }
    }

    #[test]
    fn the_published_files_may_lie_in_the_folder_itself_or_in_the_archives_one() {
        let (inside, itself) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(&inside.path().join(CIFAR10.folder), CIFAR10, 4);
        write(itself.path(), CIFAR10, 4);
        let (a, b) = (load(inside.path(), CIFAR10).unwrap(), load(itself.path(), CIFAR10).unwrap());
        assert_eq!((a.train, a.test), (b.train, b.test));
    }

    #[test]
    fn every_defect_is_named_with_its_file() {
        for format in [CIFAR10, CIFAR100] {
            let folder = tempfile::tempdir().unwrap();
            let refused = |name: &str| {
                let error = load(folder.path(), format).expect_err(name);
                let message = error.to_string();
                assert!(message.contains(name) && message.contains("; ") && !message.contains('\n'), "{message}");
                error
            };
            let last = *format.train.last().unwrap();
            write(folder.path(), format, 3);
            let file = folder.path().join(last);
            let whole = fs::read(&file).unwrap();
            let torn = whole.len() - 1;
            fs::write(&file, &whole[..torn]).unwrap();
            assert!(matches!(refused(last), DataError::Length { found, .. } if found == torn as u64));
            fs::write(&file, []).unwrap();
            assert!(matches!(refused(last), DataError::Empty { split: "train", .. }));
            fs::remove_file(&file).unwrap();
            assert!(matches!(refused(last), DataError::Missing { or_gz: false, .. }));
            let classes = format.classes;
            let mut bad = whole.clone();
            bad[whole.len() / 2 + format.label_bytes - 1] = classes as u8;
            fs::write(&file, bad).unwrap();
            let DataError::Label { example, label, classes: of, .. } = refused(last) else { panic!("a label") };
            assert_eq!((example, label, of), (1, classes as i64, classes));
            fs::write(&file, &whole).unwrap();
            fs::write(folder.path().join(format.test), []).unwrap();
            assert!(matches!(refused(format.test), DataError::Empty { split: "test", .. }));
        }
    }
}
