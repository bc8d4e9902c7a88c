//! SHA-256 digests: of weights, data sets and files.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::layout::Layout;

/// A SHA-256 digest, shown as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Its first sixteen bytes as two little-endian words.
    pub fn words(self) -> [u64; 2] {
        let word = |from: &[u8]| from.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte));
        [word(&self.0[..8]), word(&self.0[8..16])]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let wrong = || NotADigest { found: text.chars().take(80).collect() };
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

/// A text that should have been a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a SHA-256 digest of 64 hexadecimal digits, found {found:?}")]
pub struct NotADigest {
    /// What was found instead, its first 80 characters.
    pub found: String,
}

/// A digest that takes its input in pieces.
#[derive(Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in `bytes`.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(bytes);
        self
    }

    /// Takes in `values` as their little-endian bytes.
    pub fn floats(&mut self, values: &[f32]) -> &mut Self {
        let mut buffer = [0u8; 4096];
        for chunk in values.chunks(buffer.len() / 4) {
            for (to, value) in buffer.chunks_exact_mut(4).zip(chunk) {
                to.copy_from_slice(&value.to_le_bytes());
            }
            self.0.update(&buffer[..chunk.len() * 4]);
        }
        self
    }

    /// The digest of everything taken in.
    pub fn finish(&self) -> Digest {
        Digest(self.0.clone().finalize().into())
    }
}

/// `weights_sha256`: parameters and running statistics together, tensors in ascending order of name, each as its
/// little-endian `f32` bytes in row-major order.
pub fn weights_sha256(parts: &[(&Layout, &[f32])]) -> Digest {
    let mut tensors: Vec<(&str, &[f32])> = parts
        .iter()
        .flat_map(|(layout, values)| layout.entries().iter().map(|e| (e.name.as_str(), &values[e.range()])))
        .collect();
    tensors.sort_unstable_by_key(|(name, _)| *name);
    let mut hasher = Hasher::new();
    for (_, values) in tensors {
        hasher.floats(values);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_survives_text_and_bad_text_is_refused() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for bad in ["", "ba78", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(bad.parse::<Digest>(), Err(NotADigest { found: bad.into() }));
        }
    }

    #[test]
    fn the_weights_digest_orders_tensors_of_both_layouts_by_name() {
        let parameters = Layout::new([("c".into(), vec![1]), ("a".into(), vec![2])]).unwrap();
        let statistics = Layout::new([("b".into(), vec![1])]).unwrap();
        let got = weights_sha256(&[(&parameters, &[1.0, 2.0, 4.0]), (&statistics, &[3.0])]);
        let bytes: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(got, Digest::of(&bytes));
    }
}
