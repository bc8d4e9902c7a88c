//! What a rank is asked to do after a step.

use std::sync::atomic::{AtomicU8, Ordering};

use strath_core::After;

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
