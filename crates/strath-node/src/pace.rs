//! How fast a rank computes by itself: what work is handed out by.

use strath_protocol::message::PhaseSeconds;

/// Steps at the beginning of a generation that say nothing: memory is touched for the first time.
const WARMING: u32 = 2;
/// A speed is told of so many seconds of computing, or of one step where that takes longer: of less the system's own pauses decide.
const LEAST_BUSY: f64 = 0.1;

/// A rank's examples and the seconds that their passes took, since its speed was told last.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    steps: u32,
    examples: usize,
    busy: f64,
}

impl Pace {
    /// Notes a step in which a rank computed so many examples. Gives examples a second where enough were computed since it last did: of
    /// reading examples and both passes over them, which take as long for each example whatever the rank's share is; the rest of a step is
    /// the same for every rank, or is waiting.
    pub fn note(&mut self, examples: usize, seconds: &PhaseSeconds) -> Option<f64> {
        self.steps = self.steps.saturating_add(1);
        if self.steps <= WARMING || examples == 0 {
            return None;
        }
        self.examples += examples;
        self.busy += seconds.data + seconds.ascent + seconds.descent;
        if self.busy < LEAST_BUSY {
            return None;
        }
        let rate = self.examples as f64 / self.busy;
        (self.examples, self.busy) = (0, 0.0);
        Some(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step whose passes take this long an example, and everything else half a second.
    fn step(examples: usize, each: f64) -> PhaseSeconds {
        let pass = examples as f64 * each / 2.0;
        PhaseSeconds { ascent: pass, descent: pass, exchange: 0.5, reduce: 0.5, update: 0.5, ..PhaseSeconds::default() }
    }

    #[test]
    fn it_does_not_depend_on_the_share_nor_on_waits() {
        for examples in [1, 4, 64] {
            let mut pace = Pace::default();
            let told: Vec<f64> = (0..2000).filter_map(|_| pace.note(examples, &step(examples, 0.001))).collect();
            assert!(!told.is_empty() && told.iter().all(|rate| (rate - 1000.0).abs() < 1e-6), "{told:?}");
        }
        assert_eq!(Pace::default().note(0, &step(0, 1.0)), None);
    }

    #[test]
    fn pauses_of_some_steps_are_in_it_and_the_first_steps_are_not() {
        let mut pace = Pace::default();
        assert_eq!(pace.note(4, &step(4, 9.0)), None);
        assert_eq!(pace.note(4, &step(4, 9.0)), None);
        // Every other step is held up for as long as it takes.
        let told: Vec<f64> =
            (0..400).filter_map(|k| pace.note(4, &step(4, if k % 2 == 0 { 0.001 } else { 0.003 }))).collect();
        assert!(told.len() >= 20 && told.iter().all(|rate| (400.0..620.0).contains(rate)), "{told:?}");
    }
}
