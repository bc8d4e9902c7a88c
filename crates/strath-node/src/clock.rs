//! Where the time of a step goes.

use std::time::Instant;

use strath_protocol::message::PhaseSeconds;

/// Attributes the time since the last lap to a phase.
pub(crate) struct Clock {
    last: Instant,
    is_surveyed: bool,
    pub(crate) seconds: PhaseSeconds,
    /// Seconds of the survey, which are of no phase: a worker's speed is not judged by them.
    pub(crate) survey: f64,
}

impl Clock {
    pub(crate) fn start(is_surveyed: bool) -> Self {
        Self { last: Instant::now(), is_surveyed, seconds: PhaseSeconds::default(), survey: 0.0 }
    }

    pub(crate) fn lap(&mut self, phase: impl FnOnce(&mut PhaseSeconds) -> &mut f64) {
        let now = Instant::now();
        *phase(&mut self.seconds) += (now - self.last).as_secs_f64();
        self.last = now;
    }

    /// Attributes it to the survey of a step that is surveyed; of another it stays with the phase that follows.
    pub(crate) fn lap_survey(&mut self) {
        if !self.is_surveyed {
            return;
        }
        let now = Instant::now();
        self.survey += (now - self.last).as_secs_f64();
        self.last = now;
    }
}
