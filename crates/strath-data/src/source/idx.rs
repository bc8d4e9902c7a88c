//! MNIST's IDX files, plain or gzipped: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same with `t10k`.
//!
//! A file is a header of big-endian words (magic number, count and, for images, height and width), then bytes.

use std::path::Path;

use strath_core::ImageShape;

use super::{Loaded, Source, check_labels};
use crate::dataset::{Normalisation, Split};
use crate::error::DataError;

const IMAGES: u32 = 0x0000_0803;
const LABELS: u32 = 0x0000_0801;
const SHAPE: ImageShape = ImageShape { channels: 1, height: 28, width: 28 };
const CLASSES: usize = 10;

/// The images and labels to train on, then those to test on.
const FILES: [&str; 4] =
    ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];

/// One of the data sets that come as IDX files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    mean: f32,
    std: f32,
    /// How to get the files.
    advice: &'static str,
}

pub(crate) const MNIST: Format = Format {
    mean: 0.1307,
    std: 0.3081,
    advice: "bring the four IDX files from the data set's page and set data.path to their folder",
};

pub(crate) const FASHION_MNIST: Format = Format {
    mean: 0.2860,
    std: 0.3530,
    advice: "install Debian's package dataset-fashion-mnist, or run `strath data fetch fashion-mnist`, and set data.path to \
             the folder",
};

pub(crate) fn load(folder: &Path, format: Format) -> Result<Loaded, DataError> {
    let normalisation = Normalisation::new(&[format.mean], &[format.std]);
    let split = |images, labels, name| -> Result<Split, DataError> {
        let open = |name| Source::open(&folder.join(name), format.advice);
        let (pixels, labels) = examples(open(images)?, open(labels)?, name)?;
        Ok(Split::bytes(SHAPE, pixels, labels, 255.0, &normalisation))
    };
    let (train, test) = (split(FILES[0], FILES[1], "train")?, split(FILES[2], FILES[3], "test")?);
    Ok(Loaded { shape: SHAPE, classes: CLASSES, normalisation, train, test })
}

/// The pixels and labels of a split.
pub(crate) fn examples(
    images: Source<'_>,
    labels: Source<'_>,
    split: &'static str,
) -> Result<(Vec<u8>, Vec<u32>), DataError> {
    let (source, [count, height, width]) = header(images, IMAGES, "images")?;
    let images = source.path().to_path_buf();
    if (height as usize, width as usize) != (SHAPE.height, SHAPE.width) {
        let expected = format!("{}x{}", SHAPE.height, SHAPE.width);
        return Err(DataError::ImageSize { path: images, found: format!("{height}x{width}"), expected });
    }
    let pixels = source.rest(u64::from(count) * SHAPE.values() as u64)?;
    if count == 0 {
        return Err(DataError::Empty { path: images, split });
    }
    let (source, [labelled]) = header(labels, LABELS, "labels")?;
    let path = source.path().to_path_buf();
    let labels: Vec<u32> = source.rest(u64::from(labelled))?.into_iter().map(u32::from).collect();
    if labelled != count {
        return Err(DataError::Count { path, labels: labelled as usize, images: count as usize });
    }
    check_labels(&path, &labels, CLASSES)?;
    Ok((pixels, labels))
}

/// Reads a file's header: the magic number, which has to be `magic`, and `N` words that are returned.
fn header<'a, const N: usize>(
    mut source: Source<'a>,
    magic: u32,
    what: &'static str,
) -> Result<(Source<'a>, [u32; N]), DataError> {
    let needed = 4 * (1 + N);
    let bytes = source.up_to(needed as u64)?;
    let word = |at: usize| bytes.get(4 * at..4 * at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    if let Some(found) = word(0).filter(|found| *found != magic) {
        return Err(DataError::Magic { path: source.path().into(), found, expected: magic, what });
    }
    if bytes.len() < needed {
        let expected = format!("at least the {needed} of a header");
        return Err(DataError::Length { path: source.path().into(), found: bytes.len() as u64, expected });
    }
    let words = std::array::from_fn(|at| word(1 + at).expect("the header is whole, as just checked"));
    Ok((source, words))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_be_bytes()).collect()
    }

    fn images(count: u32) -> Vec<u8> {
        let pixels = (0..count * 784).map(|at| (at % 251) as u8);
        words(&[IMAGES, count, 28, 28]).into_iter().chain(pixels).collect()
    }

    fn labels(labels: &[u8]) -> Vec<u8> {
        [words(&[LABELS, labels.len() as u32]), labels.to_vec()].concat()
    }

    fn pack(bytes: &[u8]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    }

    #[derive(Debug, Clone, Copy)]
    enum Packing {
        Plain,
        Gzip,
    }

    fn folder(files: &[Vec<u8>; 4], packing: Packing) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in FILES.iter().zip(files) {
            match packing {
                Packing::Plain => fs::write(folder.path().join(name), bytes).unwrap(),
                Packing::Gzip => fs::write(folder.path().join(format!("{name}.gz")), pack(bytes)).unwrap(),
            }
        }
        folder
    }

    fn good() -> [Vec<u8>; 4] {
        [images(3), labels(&[0, 9, 5]), images(2), labels(&[1, 2])]
    }

    fn with(at: usize, bytes: Vec<u8>) -> [Vec<u8>; 4] {
        let mut files = good();
        files[at] = bytes;
        files
    }

    /// Each error names a file in the folder and ends with what to do.
    fn refused(files: &[Vec<u8>; 4], packing: Packing) -> DataError {
        let folder = folder(files, packing);
        let error = load(folder.path(), MNIST).expect_err("bad files");
        let message = error.to_string();
        assert!(message.contains(folder.path().to_str().unwrap()) && message.contains("-ubyte"), "{message}");
        assert!(message.contains("; ") && message.contains("expected") && !message.contains('\n'), "{message}");
        error
    }

    #[test]
    fn plain_and_gzipped_files_give_the_same_images() {
        let (plain, packed) = (folder(&good(), Packing::Plain), folder(&good(), Packing::Gzip));
        let (a, b) = (load(plain.path(), FASHION_MNIST).unwrap(), load(packed.path(), FASHION_MNIST).unwrap());
        assert_eq!((&a.train, &a.test), (&b.train, &b.test));
        let mut image = vec![0.0; 784];
        a.train.image(1, &mut image);
        assert_eq!(image[0], (f32::from((784 % 251) as u8) / 255.0 - 0.2860) / 0.3530);
        assert_eq!((a.train.len(), a.train.label(1), a.test.len()), (3, 9, 2));
    }

    #[test]
    fn every_defect_is_named_with_its_file_plain_or_gzipped() {
        for packing in [Packing::Plain, Packing::Gzip] {
            let with = |at: usize, bytes: Vec<u8>| refused(&with(at, bytes), packing);
            assert!(matches!(with(0, words(&[LABELS, 3])), DataError::Magic { found: LABELS, .. }));
            assert!(matches!(with(1, images(3)), DataError::Magic { expected: LABELS, .. }));
            assert!(matches!(with(0, vec![]), DataError::Length { found: 0, .. }));
            assert!(matches!(with(0, vec![0, 0]), DataError::Length { found: 2, .. }));
            assert!(matches!(with(3, words(&[LABELS])), DataError::Length { found: 4, .. }));
            assert!(matches!(with(0, images(3)[..2000].to_vec()), DataError::Length { found: 2000, .. }));
            assert!(matches!(with(0, [images(3), vec![0]].concat()), DataError::Length { found: 2369, .. }));
            assert!(matches!(with(0, words(&[IMAGES, 3, 32, 28])), DataError::ImageSize { .. }));
            assert!(matches!(with(1, labels(&[1, 2])), DataError::Count { labels: 2, images: 3, .. }));
            assert!(matches!(with(3, labels(&[1, 10])), DataError::Label { example: 1, label: 10, classes: 10, .. }));
            let empty = [images(3), labels(&[0, 1, 2]), images(0), labels(&[])];
            assert!(matches!(refused(&empty, packing), DataError::Empty { split: "test", .. }));
        }
    }

    #[test]
    fn a_header_that_promises_terabytes_costs_nothing() {
        let lie = words(&[IMAGES, u32::MAX, 28, 28]);
        for packing in [Packing::Plain, Packing::Gzip] {
            let error = refused(&with(0, lie.clone()), packing);
            let promised = (16 + u64::from(u32::MAX) * 784).to_string();
            assert!(matches!(error, DataError::Length { found: 16, expected, .. } if expected == promised));
        }
    }

    #[test]
    fn a_file_that_unpacks_to_more_than_its_header_says_is_not_followed() {
        let bomb = [images(3), vec![0; 64 << 20]].concat();
        let error = refused(&with(0, bomb), Packing::Gzip);
        assert!(matches!(error, DataError::Length { found: 2369, expected, .. } if expected == "2368 and no more"));
    }

    #[test]
    fn a_gzip_file_that_is_torn_or_has_a_wrong_checksum_is_an_error() {
        let packed = pack(&images(3));
        let mut flipped = packed.clone();
        let checksum = flipped.len() - 8;
        flipped[checksum] ^= 1;
        for bad in [packed[..packed.len() / 2].to_vec(), packed[..packed.len() - 1].to_vec(), flipped] {
            let folder = folder(&good(), Packing::Gzip);
            fs::write(folder.path().join(format!("{}.gz", FILES[0])), bad).unwrap();
            let error = load(folder.path(), MNIST).expect_err("torn");
            assert!(error.to_string().contains("train-images-idx3-ubyte.gz"), "{error}");
        }
    }

    #[test]
    fn a_missing_file_says_how_to_get_it() {
        for (format, advice) in [(FASHION_MNIST, "`strath data fetch fashion-mnist`"), (MNIST, "the data set's page")] {
            let folder = folder(&good(), Packing::Plain);
            fs::remove_file(folder.path().join(FILES[3])).unwrap();
            let error = load(folder.path(), format).expect_err("missing");
            assert!(matches!(&error, DataError::Missing { path, .. } if path.ends_with(FILES[3])));
            assert!(error.to_string().contains(advice) && error.to_string().contains(".gz"), "{error}");
        }
    }
}
