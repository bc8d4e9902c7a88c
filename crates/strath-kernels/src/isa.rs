//! Instruction sets: which one the kernels use, found at run time or pinned.
//!
//! Where two sets cannot give equal bits (their vectors have other lengths, so sums are grouped otherwise), a run is pinned to
//! one: `cluster.isa`.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

/// An instruction set that the kernels are written for, from the plainest up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Isa {
    /// Plain Rust, for any processor; what the others are tested against.
    Portable = 1,
    /// x86-64 with AVX2 and FMA: vectors of 8 floats.
    Avx2 = 2,
    /// x86-64 with AVX-512 F, BW, DQ and VL: vectors of 16 floats.
    Avx512 = 3,
}

/// An instruction set that this processor does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this processor does not have {wanted}, the best it has is {best}; set cluster.isa to that or a plainer one on every worker"
)]
pub struct Unsupported {
    /// What was asked for.
    pub wanted: Isa,
    /// The best there is.
    pub best: Isa,
}

/// The set in use; 0: not decided yet.
static ACTIVE: AtomicU8 = AtomicU8::new(0);

impl Isa {
    /// Every set, from the plainest up.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// The best that this processor has.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            match (avx512 && avx2, avx2) {
                (true, _) => return Self::Avx512,
                (_, true) => return Self::Avx2,
                _ => {}
            }
        }
        Self::Portable
    }

    /// The set that the kernels of this process use: the pinned one, else the best.
    pub fn active() -> Self {
        match ACTIVE.load(Ordering::Relaxed) {
            1 => Self::Portable,
            2 => Self::Avx2,
            3 => Self::Avx512,
            _ => {
                let best = Self::best();
                ACTIVE.store(best as u8, Ordering::Relaxed);
                best
            }
        }
    }

    /// Pins the kernels of this process to a set.
    ///
    /// # Errors
    /// [`Unsupported`] where this processor does not have it.
    pub fn pin(self) -> Result<(), Unsupported> {
        let best = Self::best();
        if self > best {
            return Err(Unsupported { wanted: self, best });
        }
        ACTIVE.store(self as u8, Ordering::Relaxed);
        Ok(())
    }

    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_active_set_is_one_that_the_processor_has() {
        assert!(Isa::active() <= Isa::best());
        assert!(Isa::Portable <= Isa::best());
        for isa in Isa::ALL.into_iter().filter(|isa| *isa > Isa::best()) {
            assert_eq!(isa.pin(), Err(Unsupported { wanted: isa, best: Isa::best() }));
        }
    }
}
