//! Nobody is given up as hanging whose training goes on.
//!
//! ```text
//! the coordinator drops a worker because it computes for ever     ──►  training hangs, or has hung, somewhere in the run
//! ```
//!
//! The run would survive it, so no other invariant notices; whoever was dropped has to be fed again.

use strath_core::Timestamp;

use super::{Fact, Invariant, Run};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct NoneSlandered {
    something_hung: bool,
}

impl Invariant for NoneSlandered {
    fn name(&self) -> &'static str {
        "nobody is given up whose training goes on"
    }

    fn observe(&mut self, fact: &Fact, _run: &Run, _now: Timestamp) -> Result<(), String> {
        match fact {
            Fact::Hangs => {
                self.something_hung = true;
                Ok(())
            }
            Fact::GivenUp(why) if !self.something_hung => Err(why.clone()),
            _ => Ok(()),
        }
    }
}
