//! What ranks do after a step: go on, rest or stop. Some of them are asked to, and all of them agree.

use std::sync::atomic::{AtomicU8, Ordering};

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
    const ALL: [Self; 3] = [Self::GoOn, Self::Pause, Self::Stop];

    /// The wish as two integers that ranks sum: how many want to pause, and how many to stop.
    pub(crate) fn words(self) -> [i64; 2] {
        [i64::from(self == Self::Pause), i64::from(self == Self::Stop)]
    }

    /// What all ranks do, from the sums of their words.
    pub(crate) fn agreed(sums: [i64; 2]) -> Self {
        match sums {
            [_, stop] if stop != 0 => Self::Stop,
            [pause, _] if pause != 0 => Self::Pause,
            _ => Self::GoOn,
        }
    }
}

/// What a rank was asked to do after the step under way: written by its session, read by its training thread.
#[derive(Debug, Default)]
pub struct Asked(AtomicU8);

impl Asked {
    /// Asks for something, beside what was asked for before.
    pub fn ask(&self, after: After) {
        self.0.fetch_max(after as u8, Ordering::Relaxed);
    }

    /// What is asked for.
    pub fn get(&self) -> After {
        After::ALL[usize::from(self.0.load(Ordering::Relaxed))]
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

    #[test]
    fn what_was_asked_for_stays_until_more_is() {
        let asked = Asked::default();
        assert_eq!(asked.get(), After::GoOn);
        for (after, expected) in [(After::Pause, After::Pause), (After::Stop, After::Stop), (After::Pause, After::Stop)]
        {
            asked.ask(after);
            assert_eq!(asked.get(), expected);
        }
    }
}
