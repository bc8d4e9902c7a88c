//! Where the training thread is, for whoever asks: written at every phase of every step, read at every heartbeat.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use strath_core::Step;
use strath_protocol::message::Phase;

use crate::trace::Recorder;

/// Bits of the phase in the word that holds step and phase.
const PHASE_BITS: u32 = 8;

/// The step, the phase and the rate of a training thread, without a lock between it and its readers.
#[derive(Debug, Default)]
pub struct Whereabouts {
    /// Completed steps and the phase's place in [`Phase::ALL`], as one word, so that they are read as they were written.
    place: AtomicU64,
    /// Images per second, as the bits of an `f64`; those of 0 once they were heard.
    rate: AtomicU64,
    /// Where every phase is noted, if that is wanted.
    recorder: Option<Recorder>,
}

impl Whereabouts {
    /// Whereabouts whose every change is noted for a trace.
    pub fn recorded() -> Self {
        Self { recorder: Some(Recorder::default()), ..Self::default() }
    }

    /// What was noted.
    pub fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_ref()
    }

    /// Says where training is.
    pub fn enter(&self, step: u64, phase: Phase) {
        if let Some(recorder) = &self.recorder {
            recorder.enter(step, phase);
        }
        let code = Phase::ALL.iter().position(|known| *known == phase).expect("every phase is in the list of them");
        self.place.store(step << PHASE_BITS | code as u64, Ordering::Relaxed);
    }

    /// Says from when to when pieces of the step's gradient travelled.
    pub fn travelled(&self, step: u64, pieces: &[(Instant, Instant)]) {
        if let Some(recorder) = &self.recorder {
            recorder.travelled(step, pieces);
        }
    }

    /// Says what its own computing comes to, images per second.
    pub fn set_rate(&self, images_per_s: f64) {
        self.rate.store(images_per_s.to_bits(), Ordering::Relaxed);
    }

    /// Completed steps and phase.
    pub fn get(&self) -> (Step, Phase) {
        let place = self.place.load(Ordering::Relaxed);
        let phase = Phase::ALL[(place & ((1 << PHASE_BITS) - 1)) as usize];
        (Step(place >> PHASE_BITS), phase)
    }

    /// The rate, unless it was heard before: a measurement that is told twice would pass for two that agree.
    pub fn take_rate(&self) -> Option<f64> {
        Some(f64::from_bits(self.rate.swap(0, Ordering::Relaxed))).filter(|rate| *rate > 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_last_is_what_is_heard() {
        let whereabouts = Whereabouts::default();
        assert_eq!((whereabouts.get(), whereabouts.take_rate()), ((Step(0), Phase::Joining), None));
        for phase in Phase::ALL {
            whereabouts.enter(1 << 40, phase);
            whereabouts.set_rate(12.5);
            assert_eq!((whereabouts.get(), whereabouts.take_rate()), ((Step(1 << 40), phase), Some(12.5)));
            assert_eq!(whereabouts.take_rate(), None, "it was heard");
        }
    }
}
