//! Files of data.

use strath_data::untrusted::{self, Packing};

use crate::input::Input;
use crate::memory::{Bound, USUAL, within};

/// Of packed files: gzip makes at most 1032 bytes of one, and a vector that grows is up to three times as long for a moment.
const PACKED: Bound = Bound { times: 4 * 1032, beside: 1 << 20 };

/// Two IDX files, the first with its length before it, packed where the first byte is odd.
pub fn idx(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (packing, bound) = if input.u8() % 2 == 1 { (Packing::Gzip, PACKED) } else { (Packing::Plain, USUAL) };
    let (images, labels) = (input.piece(), input.take(usize::MAX));
    let Ok((pixels, found)) = within(bound, bytes, || untrusted::idx(images, labels, packing)) else { return };
    assert_eq!(pixels.len(), 784 * found.len());
    assert!(!found.is_empty() && found.iter().all(|label| *label < 10));
    if packing == Packing::Plain {
        assert!(images.ends_with(&pixels));
    }
}

/// A file of CIFAR-10, or of CIFAR-100 where the first byte is odd. What follows is repeated to whole records where the second is odd: the
/// bytes of an input are few, those of a record many.
pub fn cifar(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (classes, record) = if input.u8() % 2 == 1 { (100, 3074) } else { (10, 3073) };
    let is_repeated = input.u8() % 2 == 1;
    let given = input.take(8 * record);
    let file: Vec<u8> = if is_repeated && !given.is_empty() {
        given.iter().copied().cycle().take(2 * record).collect()
    } else {
        given.to_vec()
    };
    let Ok((pixels, labels)) = within(USUAL, &file, || untrusted::cifar(&file, classes)) else { return };
    assert_eq!((labels.len() * record, pixels.len()), (file.len(), 3072 * labels.len()));
    assert!(labels.iter().all(|label| (*label as usize) < classes));
}

/// A number of classes, then a safetensors file.
pub fn safetensors(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (classes, file) = (usize::from(input.u8()), input.take(usize::MAX));
    let Ok((train, test, values)) = within(USUAL, bytes, || untrusted::safetensors(file, classes)) else { return };
    for split in [train, test] {
        let mut image = vec![0.0; values];
        for example in 0..split.len() {
            assert!((split.label(example) as usize) < classes);
            split.image(example, &mut image);
            assert!(image.iter().all(|value| value.is_finite()));
        }
        assert!(!split.is_empty());
    }
}
