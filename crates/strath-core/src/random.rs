//! Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//!
//! A draw is a pure function of what it is for, never of how many draws came before it elsewhere: changing m, the number
//! of workers or the order of work changes no draw.

use crate::digest::Digest;

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// The 10-round Philox bijection: 128 random bits for a counter under a key.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let b = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// What a stream of random numbers is for: streams of different purposes never overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose<'a> {
    /// The permutation of an epoch.
    Order {
        /// Which pass over the data, from 0.
        epoch: u64,
    },
    /// The augmentation of one example.
    Augment {
        /// Which pass over the data, from 0.
        epoch: u64,
        /// Index of the example in its split.
        example: u64,
    },
    /// Which training labels are replaced, and by what.
    LabelNoise,
    /// Which training examples are split off for validation.
    Validation,
    /// The initial values of one tensor.
    Initial {
        /// Its name.
        tensor: &'a str,
    },
    /// Made-up data, as the probe of numerics uses.
    Probe,
    /// A vector of parameters, for a measurement.
    Measurement {
        /// Which one, and of which tensor.
        name: &'a str,
    },
    /// What stands for one tensor's part of a lane's ascent gradient (`sam.direction = "random"`).
    Direction {
        /// Completed steps.
        step: u64,
        /// Position in the batch of the lane's first example.
        first: u32,
        /// Which tensor of the model's, in ascending order of name.
        tensor: u32,
    },
    /// Which value each of a study's runs is given, to know a statistic where there is nothing to find.
    Null {
        /// Which of the redistributions, from 0.
        draw: u64,
    },
}

/// A stream of random numbers, keyed by (seed, purpose).
#[derive(Debug, Clone)]
pub struct Stream {
    key: [u32; 2],
    /// Words 2 and 3 of the counter; words 0 and 1 count blocks.
    domain: [u32; 2],
    block: u64,
    words: [u32; 4],
    used: usize,
}

impl Stream {
    /// The stream for `purpose` under the run's `seed`, from its beginning.
    pub fn new(seed: u64, purpose: Purpose<'_>) -> Self {
        let (tag, a, b) = match purpose {
            Purpose::Order { epoch } => (1u8, epoch, 0),
            Purpose::Augment { epoch, example } => (2, epoch, example),
            Purpose::LabelNoise => (3, 0, 0),
            Purpose::Initial { tensor } => {
                let [a, b] = Digest::of(tensor.as_bytes()).words();
                (4, a, b)
            }
            Purpose::Probe => (5, 0, 0),
            Purpose::Measurement { name } => {
                let [a, b] = Digest::of(name.as_bytes()).words();
                (16, a, b)
            }
            Purpose::Validation => (7, 0, 0),
            Purpose::Direction { step, first, tensor } => (6, step, u64::from(first) | u64::from(tensor) << 32),
            Purpose::Null { draw } => (8, draw, 0),
        };
        let split = |v: u64| [v as u32, (v >> 32) as u32];
        // The key is itself drawn from (seed, tag, a), the counter's upper half is b: no two purposes share a block.
        let [hi, lo] = split(a);
        let drawn = philox([hi, lo, u32::from(tag), 0x5742_5448], split(seed));
        Self { key: [drawn[0], drawn[1]], domain: split(b), block: 0, words: [0; 4], used: 4 }
    }

    /// What its words are made from: the key of every block, and the upper half of every block's counter.
    pub fn key_and_domain(&self) -> ([u32; 2], [u32; 2]) {
        (self.key, self.domain)
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            let counter = [self.block as u32, (self.block >> 32) as u32, self.domain[0], self.domain[1]];
            self.words = philox(counter, self.key);
            self.block += 1;
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// The next 32 random bits, as many times as there are `words`.
    pub fn fill(&mut self, words: &mut [u32]) {
        words.fill_with(|| self.next_u32());
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        low | (u64::from(self.next_u32()) << 32)
    }

    /// Uniform over `0..bound`, without bias (Lemire 2019).
    ///
    /// # Panics
    /// Where `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number is below 0");
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(bound);
            if (wide as u64) >= bound.wrapping_neg() % bound {
                return (wide >> 64) as u64;
            }
        }
    }

    /// Uniform over the multiples of 2^-24 in [0, 1).
    pub fn uniform(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// Standard normal, by Box and Muller in f64 with `libm`, so that every platform draws the same bits.
    pub fn normal(&mut self) -> f32 {
        let radius = ((self.next_u32() as f64) + 1.0) / 4_294_967_296.0;
        let angle = self.next_u32() as f64 / 4_294_967_296.0;
        (libm::sqrt(-2.0 * libm::log(radius)) * libm::cos(2.0 * std::f64::consts::PI * angle)) as f32
    }

    /// A permutation of `0..n`, each equally likely (Fisher and Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for at in (1..n).rev() {
            order.swap(at, self.below(at as u64 + 1) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_vectors() {
        // Random123's kat_vectors, philox4x32 with 10 rounds.
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn streams_of_different_purposes_differ_and_equal_ones_agree() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..3 {
            for purpose in [
                Purpose::Order { epoch: 0 },
                Purpose::Order { epoch: 1 },
                Purpose::Augment { epoch: 0, example: 0 },
                Purpose::Augment { epoch: 0, example: 1 },
                Purpose::Augment { epoch: 1, example: 0 },
                Purpose::LabelNoise,
                Purpose::Validation,
                Purpose::Initial { tensor: "a" },
                Purpose::Initial { tensor: "b" },
                Purpose::Probe,
                Purpose::Measurement { name: "a" },
                Purpose::Measurement { name: "b" },
                Purpose::Direction { step: 0, first: 0, tensor: 0 },
                Purpose::Direction { step: 1, first: 0, tensor: 0 },
                Purpose::Direction { step: 0, first: 1, tensor: 0 },
                Purpose::Direction { step: 0, first: 0, tensor: 1 },
                Purpose::Null { draw: 0 },
                Purpose::Null { draw: 1 },
            ] {
                let draw = Stream::new(seed, purpose).next_u64();
                assert_eq!(draw, Stream::new(seed, purpose).next_u64());
                assert!(seen.insert(draw), "{purpose:?} repeats a draw");
            }
        }
    }

    #[test]
    fn a_permutation_holds_every_index_once_and_moves_them() {
        let order = Stream::new(7, Purpose::Order { epoch: 3 }).permutation(1000);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<u32>>());
        let fixed = order.iter().enumerate().filter(|(at, v)| *at == **v as usize).count();
        assert!(fixed < 10, "{fixed} of 1000 entries did not move");
    }

    #[test]
    fn normal_draws_have_mean_zero_and_variance_one() {
        let mut stream = Stream::new(0, Purpose::Probe);
        let draws: Vec<f64> = (0..20_000).map(|_| f64::from(stream.normal())).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "mean {mean}, variance {variance}");
    }
}
