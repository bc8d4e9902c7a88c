//! A safetensors file with `train.images` [N, C, H, W] f32, `train.labels` [N] i64 and the same for `test`, taken as it is.

use std::io::Read;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use strath_core::ImageShape;

use super::{Loaded, open_plain};
use crate::dataset::{Normalisation, Split};
use crate::error::DataError;

const ADVICE: &str = "set data.path to a safetensors file with train.images, train.labels, test.images and test.labels";

pub(crate) fn load(path: &Path, classes: usize) -> Result<Loaded, DataError> {
    let Some((mut file, _)) = open_plain(path)? else {
        return Err(DataError::Missing { path: path.into(), or_gz: false, advice: ADVICE });
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|e| DataError::io("read", path, e))?;
    parse(path, &bytes, classes)
}

/// What a file that holds these bytes gives.
pub(crate) fn parse(path: &Path, bytes: &[u8], classes: usize) -> Result<Loaded, DataError> {
    let tensors = SafeTensors::deserialize(bytes)
        .map_err(|e| wrong(path, "the file", e.to_string(), "a whole safetensors file"))?;
    let file = File { path, tensors, classes };
    let ((shape, train), (test_shape, test)) = (file.split("train")?, file.split("test")?);
    if shape != test_shape {
        let expected = format!("{shape}, as in train.images");
        return Err(wrong(path, "test.images", format!("images of {test_shape}"), &expected));
    }
    Ok(Loaded { shape, classes, normalisation: Normalisation::identity(shape.channels), train, test })
}

/// The tensors of a file whose header has been checked against its size.
struct File<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
    classes: usize,
}

impl File<'_> {
    fn split(&self, name: &'static str) -> Result<(ImageShape, Split), DataError> {
        let (shape, pixels) = self.images(name)?;
        let labels = self.labels(name)?;
        let images = pixels.len() / shape.values();
        if labels.len() != images {
            return Err(DataError::Count { path: self.path.into(), labels: labels.len(), images });
        }
        Ok((shape, Split::floats(shape, pixels, labels)))
    }

    fn images(&self, split: &'static str) -> Result<(ImageShape, Vec<f32>), DataError> {
        let name = format!("{split}.images");
        let view = self.tensor(&name, Dtype::F32, 4, "F32 of shape [N, C, H, W]")?;
        let [examples, channels, height, width] = [0, 1, 2, 3].map(|axis| view.shape()[axis]);
        if examples == 0 {
            return Err(DataError::Empty { path: self.path.into(), split });
        }
        let shape = ImageShape { channels, height, width };
        if shape.values() == 0 {
            return Err(wrong(self.path, &name, describe(&view), "at least one pixel an image"));
        }
        let pixels: Vec<f32> =
            view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        match pixels.iter().position(|pixel| !pixel.is_finite()) {
            None => Ok((shape, pixels)),
            Some(at) => {
                let found = format!("the value {} in example {}", pixels[at], at / shape.values());
                Err(wrong(self.path, &name, found, "finite values"))
            }
        }
    }

    fn labels(&self, split: &str) -> Result<Vec<u32>, DataError> {
        let view = self.tensor(&format!("{split}.labels"), Dtype::I64, 1, "I64 of shape [N]")?;
        let labels = view.data().chunks_exact(8).enumerate().map(|(example, b)| {
            let label = i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
            match u32::try_from(label) {
                Ok(class) if (class as usize) < self.classes => Ok(class),
                _ => Err(DataError::Label { path: self.path.into(), example, label, classes: self.classes }),
            }
        });
        labels.collect()
    }

    fn tensor(&self, name: &str, dtype: Dtype, rank: usize, expected: &str) -> Result<TensorView<'_>, DataError> {
        let missing = |_| wrong(self.path, name, "no tensor of that name".into(), expected);
        let view = self.tensors.tensor(name).map_err(missing)?;
        if view.dtype() != dtype || view.shape().len() != rank {
            return Err(wrong(self.path, name, describe(&view), expected));
        }
        Ok(view)
    }
}

fn wrong(path: &Path, tensor: &str, found: String, expected: &str) -> DataError {
    DataError::Tensor { path: path.into(), tensor: tensor.into(), found, expected: expected.into() }
}

fn describe(view: &TensorView<'_>) -> String {
    format!("{:?} of shape {:?}", view.dtype(), view.shape())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    type Tensors = BTreeMap<&'static str, (Dtype, Vec<usize>, Vec<u8>)>;

    fn floats(shape: &[usize], value: f32) -> (Dtype, Vec<usize>, Vec<u8>) {
        let count: usize = shape.iter().product();
        (Dtype::F32, shape.to_vec(), std::iter::repeat_n(value.to_le_bytes(), count).flatten().collect())
    }

    fn labels(labels: &[i64]) -> (Dtype, Vec<usize>, Vec<u8>) {
        (Dtype::I64, vec![labels.len()], labels.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn good() -> Tensors {
        BTreeMap::from([
            ("train.images", floats(&[3, 2, 4, 5], 0.5)),
            ("train.labels", labels(&[0, 1, 2])),
            ("test.images", floats(&[1, 2, 4, 5], -0.5)),
            ("test.labels", labels(&[2])),
        ])
    }

    fn serialize(tensors: &Tensors) -> Vec<u8> {
        let views =
            tensors.iter().map(|(n, (dtype, shape, data))| (*n, TensorView::new(*dtype, shape.clone(), data).unwrap()));
        safetensors::serialize(views, None).unwrap()
    }

    /// Loads bytes as a file of three classes; an error names the file and says what to do.
    fn load_bytes(bytes: &[u8]) -> Result<Loaded, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.safetensors");
        std::fs::write(&path, bytes).unwrap();
        load(&path, 3).inspect_err(|error| {
            let message = error.to_string();
            assert!(message.contains(path.to_str().unwrap()) && message.contains("expected"), "{message}");
            assert!(message.contains("; ") && !message.contains('\n'), "{message}");
        })
    }

    fn attempt(tensors: &Tensors) -> Result<Loaded, DataError> {
        load_bytes(&serialize(tensors))
    }

    #[test]
    fn images_are_taken_as_they_are() {
        let loaded = attempt(&good()).unwrap();
        assert_eq!(loaded.shape, ImageShape { channels: 2, height: 4, width: 5 });
        let mut image = vec![0.0; 40];
        loaded.test.image(0, &mut image);
        assert!(image.iter().all(|v| *v == -0.5));
        assert_eq!((loaded.train.label(2), loaded.normalisation), (2, Normalisation::identity(2)));
    }

    #[test]
    fn every_defect_is_named_with_its_tensor() {
        let with = |name: &'static str, tensor| {
            let mut tensors = good();
            tensors.insert(name, tensor);
            attempt(&tensors).expect_err(name)
        };
        let tensor =
            |error: DataError| if let DataError::Tensor { tensor, .. } = error { tensor } else { panic!("{error}") };
        assert_eq!(tensor(with("train.images", labels(&[1]))), "train.images");
        assert_eq!(tensor(with("train.images", floats(&[3, 40], 0.0))), "train.images");
        assert_eq!(tensor(with("train.images", floats(&[3, 2, 0, 5], 0.0))), "train.images");
        assert_eq!(tensor(with("train.labels", (Dtype::I64, vec![3, 1], vec![0; 24]))), "train.labels");
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (dtype, shape, mut data) = floats(&[3, 2, 4, 5], 0.0);
            data[79 * 4..80 * 4].copy_from_slice(&bad.to_le_bytes());
            let message = with("train.images", (dtype, shape, data)).to_string();
            assert!(message.contains(&format!("train.images: found the value {bad} in example 1")), "{message}");
        }
        assert_eq!(tensor(with("test.images", floats(&[1, 2, 5, 5], 0.0))), "test.images");
        assert_eq!(tensor(with("test.labels", floats(&[1], 1.0))), "test.labels");
        assert!(matches!(with("train.labels", labels(&[0, 1])), DataError::Count { .. }));
        assert!(matches!(with("train.labels", labels(&[0, -1, 2])), DataError::Label { label: -1, example: 1, .. }));
        assert!(matches!(with("train.labels", labels(&[0, 1, 3])), DataError::Label { label: 3, .. }));
        let mut none = good();
        none.insert("test.images", floats(&[0, 2, 4, 5], 0.0));
        none.insert("test.labels", labels(&[]));
        assert!(matches!(attempt(&none), Err(DataError::Empty { split: "test", .. })));
        let mut missing = good();
        missing.remove("train.labels");
        assert_eq!(tensor(attempt(&missing).expect_err("missing")), "train.labels");
        assert!(matches!(load(Path::new("/nowhere"), 3), Err(DataError::Missing { .. })));
    }

    #[test]
    fn a_file_that_is_torn_or_of_another_kind_is_an_error() {
        let whole = serialize(&good());
        let huge = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
        for bad in [&whole[..whole.len() - 1], &whole[..20], b"", b"PK\x03\x04 some zip archive", &huge] {
            let Err(DataError::Tensor { tensor, .. }) = load_bytes(bad) else { panic!("{} bytes", bad.len()) };
            assert_eq!(tensor, "the file");
        }
    }
}
