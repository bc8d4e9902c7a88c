//! A quadratic in place of the model: integers throughout, so that a state is a function of its step, whoever computed it.
//!
//! ```text
//! f(w) = sum over micro-batches b of |w - c(s, b)|^2 / 2       G = sum_b (w - c(s, b))
//! v <- v / 2 + G,  w <- w - v / 2^4                            (integers, rounded down)
//! ```
//!
//! What is reduced holds, beside G, a count a micro-batch: whoever computes one says 1, so a sum of anything but ones tells of one that
//! was left out or counted twice.

use strath_core::{After, Digest, Step};

/// Numbers of w.
const DIMENSIONS: usize = 3;

/// Everything that the next step depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Completed steps.
    pub step: Step,
    weights: [i64; DIMENSIONS],
    velocity: [i64; DIMENSIONS],
}

impl State {
    /// The state before the first step.
    pub fn initial() -> Self {
        Self { step: Step(0), weights: [1 << 40; DIMENSIONS], velocity: [0; DIMENSIONS] }
    }

    /// One rank's term of the sum: its micro-batches' gradients, then a count for each of all `micro_batches`, then what it was asked
    /// to do after the step, as two counts.
    pub fn term(&self, own: impl Iterator<Item = usize>, micro_batches: usize, after: After) -> Vec<i64> {
        let wishes = after.words();
        let mut term = vec![0; DIMENSIONS + micro_batches + wishes.len()];
        for micro_batch in own {
            for (at, weight) in self.weights.iter().enumerate() {
                term[at] += weight - centre(self.step, micro_batch, at);
            }
            term[DIMENSIONS + micro_batch] += 1;
        }
        term[DIMENSIONS + micro_batches..].copy_from_slice(&wishes);
        term
    }

    /// Moves the weights by a sum, which is not yet a step.
    pub fn move_weights(&mut self, sum: &[i64]) {
        for (at, gradient) in sum[..DIMENSIONS].iter().enumerate() {
            self.velocity[at] = (self.velocity[at] >> 1) + gradient;
            self.weights[at] -= self.velocity[at] >> 4;
        }
    }

    /// Takes the step, with the sum of every rank's term. Gives how often each micro-batch was counted, and what all ranks do next.
    pub fn advance(&mut self, sum: &[i64]) -> (Vec<i64>, After) {
        self.move_weights(sum);
        self.step.0 += 1;
        let (counts, wishes) = sum[DIMENSIONS..].split_last_chunk().expect("a term has a place for the wishes");
        (counts.to_vec(), After::agreed(*wishes))
    }

    /// The bytes that stand for it, as a checkpoint holds them.
    pub fn encode(&self) -> Vec<u8> {
        let numbers = [self.step.0 as i64].into_iter().chain(self.weights).chain(self.velocity);
        numbers.flat_map(i64::to_le_bytes).collect()
    }

    /// The state of a checkpoint's bytes.
    ///
    /// # Panics
    /// Where they are not as long as those of a state.
    pub fn decode(bytes: &[u8]) -> Self {
        let (numbers, _) = bytes.as_chunks();
        let at = |at: usize| i64::from_le_bytes(numbers[at]);
        Self {
            step: Step(at(0) as u64),
            weights: std::array::from_fn(|n| at(1 + n)),
            velocity: std::array::from_fn(|n| at(1 + DIMENSIONS + n)),
        }
    }

    /// SHA-256 of its bytes.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }
}

/// Where the quadratic of a micro-batch has its least value.
fn centre(step: Step, micro_batch: usize, at: usize) -> i64 {
    let mixed = (step.0 << 16 | (micro_batch as u64) << 4 | at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 24) as i64
}

/// The digests of the states after 0 to `steps` steps: what every run has to come to.
pub fn trajectory(micro_batches: usize, steps: Step) -> Vec<Digest> {
    let mut state = State::initial();
    let mut digests = vec![state.digest()];
    for _ in 0..steps.0 {
        let sum = state.term(0..micro_batches, micro_batches, After::GoOn);
        state.advance(&sum);
        digests.push(state.digest());
    }
    digests
}
