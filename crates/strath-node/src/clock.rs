//! Where the time of a step goes.

use std::time::Instant;

use strath_protocol::message::PhaseSeconds;

/// Attributes the time since the last lap to a phase.
pub(crate) struct Clock {
    last: Instant,
    pub(crate) seconds: PhaseSeconds,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { last: Instant::now(), seconds: PhaseSeconds::default() }
    }

    pub(crate) fn lap(&mut self, phase: impl FnOnce(&mut PhaseSeconds) -> &mut f64) {
        let now = Instant::now();
        *phase(&mut self.seconds) += (now - self.last).as_secs_f64();
        self.last = now;
    }
}
