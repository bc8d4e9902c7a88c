//! What ranks do after a step: go on, rest or stop. Some of them are asked to, and all of them agree.

/// What ranks do after a step. Of two wishes the greater counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum After {
    /// The next step.
    #[default]
    GoOn,
    /// Nothing: the generation ends there, and the run goes on with the next.
    Pause,
    /// Nothing: the run ends there, with a checkpoint.
    Stop,
}

impl After {
    /// All of them, in ascending order.
    pub const ALL: [Self; 3] = [Self::GoOn, Self::Pause, Self::Stop];

    /// The wish as two integers that ranks sum: how many want to pause, and how many to stop.
    pub fn words(self) -> [i64; 2] {
        [i64::from(self == Self::Pause), i64::from(self == Self::Stop)]
    }

    /// What all ranks do, from the sums of their words.
    pub fn agreed(sums: [i64; 2]) -> Self {
        match sums {
            [_, stop] if stop != 0 => Self::Stop,
            [pause, _] if pause != 0 => Self::Pause,
            _ => Self::GoOn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_wish_of_all_ranks_counts() {
        for (all, agreed) in [
            (&[After::GoOn, After::GoOn][..], After::GoOn),
            (&[After::GoOn, After::Pause], After::Pause),
            (&[After::Pause, After::Pause, After::Pause], After::Pause),
            (&[After::Stop, After::Pause, After::GoOn], After::Stop),
        ] {
            let words = all.iter().map(|after| after.words());
            let sums = words.fold([0, 0], |sums, words| [sums[0] + words[0], sums[1] + words[1]]);
            assert_eq!(After::agreed(sums), agreed, "{all:?}");
        }
    }
}
