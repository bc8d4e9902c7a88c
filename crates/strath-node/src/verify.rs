//! Silent corruption: whether every rank still holds the same state.
//!
//! A state is a function of configuration and step, so ranks whose digests differ have not computed the same, or not kept it: a bit in
//! memory has turned over, a processor has miscalculated. Of three ranks and more the majority is right.

use std::collections::BTreeMap;

use strath_collective::{Bucket, Collective, CollectiveError, Payload};
use strath_core::digest::Hasher;
use strath_core::{Digest, Fault, Rank, Step};

use crate::state::TrainingState;
use crate::step::EXCHANGE_DEADLINE;

/// Integers of a digest.
const WORDS: usize = 4;

/// Why training cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// One rank differs from the others. The sentence is about it.
    #[error(
        "holds another state after step {step} than the other {others} workers (SHA-256 {found}, theirs {expected}): its memory or \
         processor is at fault, test that machine"
    )]
    Deviates {
        /// The rank.
        rank: Rank,
        /// Completed steps.
        step: u64,
        /// How many ranks agree.
        others: usize,
        /// Its digest.
        found: Digest,
        /// The others'.
        expected: Digest,
    },
    /// The ranks differ, and none can be told to be right.
    #[error(
        "workers hold {states} different states after step {step}, and none of them is that of most: memory or a processor is at \
         fault somewhere; test the machines and start again with --resume"
    )]
    Undecided {
        /// Completed steps.
        step: u64,
        /// How many different states there are.
        states: usize,
    },
    /// A peer was lost.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
}

/// The digest of everything that a step depends on and changes.
pub(crate) fn digest(state: &TrainingState) -> Digest {
    let mut hasher = Hasher::new();
    hasher.floats(&state.weights).floats(&state.statistics);
    for (slot, values) in state.optimizer.slots() {
        hasher.bytes(slot.as_bytes()).floats(values);
    }
    if let Some(sum) = state.epoch_loss {
        hasher.bytes(&sum.to_bits().to_le_bytes());
    }
    hasher.finish()
}

/// Compares this rank's state with every other's, at the same step on each; `bucket` names the occasion.
///
/// # Errors
/// [`VerifyError`], the same on every rank where all live.
pub fn verify(state: &TrainingState, peers: &Collective, bucket: Bucket) -> Result<(), VerifyError> {
    let identity = peers.identity();
    if identity.world_size == 1 {
        return Ok(());
    }
    let own = words(digest(state));
    let mut all = vec![0; WORDS * identity.world_size as usize];
    all[WORDS * identity.rank.index()..][..WORDS].copy_from_slice(&own);
    let everyone = 0..identity.world_size;
    let pending = peers.all_reduce(Step(state.step), bucket, everyone, Payload::Integers(all), Fault::NONE);
    let (all, _) = pending.wait(EXCHANGE_DEADLINE)?;
    let all = all.into_integers().expect("integers are reduced to integers");
    let digests: Vec<Digest> = all.as_chunks().0.iter().map(|words| from_words(*words)).collect();
    judge(&digests, state.step)
}

/// What the ranks' digests, in order of rank, say.
fn judge(digests: &[Digest], step: u64) -> Result<(), VerifyError> {
    let mut holders: BTreeMap<[u8; 32], Vec<u32>> = BTreeMap::new();
    for (rank, digest) in (0..).zip(digests) {
        holders.entry(digest.0).or_default().push(rank);
    }
    if holders.len() <= 1 {
        return Ok(());
    }
    let states = holders.len();
    let most = holders.iter().find(|(_, ranks)| 2 * ranks.len() > digests.len());
    let Some((expected, agreeing)) = most else { return Err(VerifyError::Undecided { step, states }) };
    let other = digests.iter().zip(0..).find(|(digest, _)| digest.0 != *expected);
    let (found, rank) = other.expect("with two states and more somebody has another than most");
    let (found, expected, others) = (*found, Digest(*expected), agreeing.len());
    Err(VerifyError::Deviates { rank: Rank(rank), step, others, found, expected })
}

fn words(digest: Digest) -> [i64; WORDS] {
    let (bytes, mut words) = (digest.0, [0; WORDS]);
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = i64::from_le_bytes(*bytes);
    }
    words
}

fn from_words(words: [i64; WORDS]) -> Digest {
    let mut bytes = [0; 32];
    for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    Digest(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(states: &[u8]) -> Result<(), VerifyError> {
        judge(&states.iter().map(|state| Digest([*state; 32])).collect::<Vec<_>>(), 7)
    }

    #[test]
    fn the_one_that_differs_from_most_is_named_and_without_most_nobody_is() {
        assert_eq!(judged(&[1, 1, 1]), Ok(()));
        for (states, rank, others) in [(&[1, 1, 9][..], 2, 2), (&[9, 1, 1], 0, 2), (&[1, 9, 1, 1, 8], 1, 3)] {
            let (found, expected) = (Digest([9; 32]), Digest([1; 32]));
            assert_eq!(
                judged(states),
                Err(VerifyError::Deviates { rank: Rank(rank), step: 7, others, found, expected })
            );
        }
        for states in [&[1, 9][..], &[1, 1, 9, 9], &[1, 2, 3]] {
            let different = states.iter().collect::<std::collections::BTreeSet<_>>().len();
            assert_eq!(judged(states), Err(VerifyError::Undecided { step: 7, states: different }));
        }
    }

    #[test]
    fn a_digest_survives_its_words() {
        let digest = Digest(std::array::from_fn(|at| (at * 37 + 200) as u8));
        assert_eq!(from_words(words(digest)), digest);
    }
}
