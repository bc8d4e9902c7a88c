//! Names for the operations of a step.

use std::fmt;

/// Which operation of a step: operations under way at the same time differ in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(pub u32);

const FIRST_PIECE: u32 = 11;
const FIRST_LANE: u32 = FIRST_PIECE + Bucket::MOST_PIECES;

impl Bucket {
    /// The descent gradient.
    pub const GRADIENT: Self = Self(0);
    /// Losses, counts and batch-norm statistics.
    pub const TALLY: Self = Self(1);
    /// The barrier.
    pub const BARRIER: Self = Self(2);
    /// The sums of an evaluation.
    pub const EVALUATION: Self = Self(3);
    /// What links are measured with.
    pub(crate) const PROBE: Self = Self(4);
    /// The digests of the ranks' states from which a step has begun.
    pub const VERIFICATION: Self = Self(5);
    /// The digests of the ranks' states that are about to be kept.
    pub const CHECKPOINT: Self = Self(6);
    /// The sums of an evaluation on the validation split, which may be under way beside one on another.
    pub const VALIDATION: Self = Self(7);
    /// The ascent gradient of the batch, in a step whose lanes are surveyed.
    pub const SURVEY_ASCENT: Self = Self(8);
    /// The mean epsilon of the lanes, in such a step.
    pub const SURVEY_EPSILON: Self = Self(9);
    /// The sums of an evaluation on the training split.
    pub const TRAINING: Self = Self(10);
    /// No operation: what frames between the transports themselves carry.
    pub(crate) const CONTROL: Self = Self(u32::MAX);

    /// Pieces in which the descent gradient may be reduced.
    pub const MOST_PIECES: u32 = 8;

    /// Piece `n` of the descent gradient, where it is reduced in several.
    ///
    /// # Panics
    /// Where `n` is not below [`MOST_PIECES`](Self::MOST_PIECES).
    pub fn piece(n: u32) -> Self {
        assert!(n < Self::MOST_PIECES, "a gradient has no piece {n}");
        Self(FIRST_PIECE + n)
    }

    /// The ascent gradient of lane `n`.
    ///
    /// # Panics
    /// Where `n` is within 20 of `u32::MAX`; a lane has an example of its own, so no batch has so many.
    pub fn lane(n: u32) -> Self {
        let bucket = n.checked_add(FIRST_LANE).map(Self).filter(|b| *b != Self::CONTROL);
        bucket.expect("a batch has fewer than 2^32 - 20 lanes")
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::GRADIENT => f.write_str("gradient"),
            Self::TALLY => f.write_str("tally"),
            Self::BARRIER => f.write_str("barrier"),
            Self::EVALUATION => f.write_str("evaluation"),
            Self::VERIFICATION => f.write_str("verification"),
            Self::VALIDATION => f.write_str("validation"),
            Self::TRAINING => f.write_str("evaluation of the training split"),
            Self::CHECKPOINT => f.write_str("verification of a checkpoint"),
            Self::SURVEY_ASCENT => f.write_str("survey, ascent gradient"),
            Self::SURVEY_EPSILON => f.write_str("survey, mean epsilon"),
            Self::PROBE => f.write_str("measurement"),
            Self::CONTROL => f.write_str("no operation"),
            Self(n) if (FIRST_PIECE..FIRST_LANE).contains(&n) => write!(f, "gradient, piece {}", n - FIRST_PIECE),
            Self(n) if n >= FIRST_LANE => write!(f, "lane {}", n - FIRST_LANE),
            Self(n) => write!(f, "bucket {n}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_of_lanes_are_apart_from_the_others_and_every_name_is_one() {
        let buckets = [
            Bucket::GRADIENT,
            Bucket::TALLY,
            Bucket::BARRIER,
            Bucket::EVALUATION,
            Bucket::VERIFICATION,
            Bucket::CHECKPOINT,
            Bucket::VALIDATION,
            Bucket::SURVEY_ASCENT,
            Bucket::SURVEY_EPSILON,
            Bucket::TRAINING,
            Bucket::piece(0),
            Bucket::piece(Bucket::MOST_PIECES - 1),
            Bucket::lane(0),
            Bucket::lane(7),
        ];
        let names = buckets.map(|b| b.to_string());
        let pieces = ["gradient, piece 0", "gradient, piece 7"];
        assert_eq!(names[..5], ["gradient", "tally", "barrier", "evaluation", "verification"]);
        assert_eq!(names[5..7], ["verification of a checkpoint", "validation"]);
        assert_eq!(names[7..9], ["survey, ascent gradient", "survey, mean epsilon"]);
        assert_eq!(
            (&names[9..10], &names[10..12], &names[12..]),
            (
                &["evaluation of the training split".to_string()][..],
                &pieces.map(String::from)[..],
                &["lane 0", "lane 7"].map(String::from)[..]
            )
        );
        assert!(buckets.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
