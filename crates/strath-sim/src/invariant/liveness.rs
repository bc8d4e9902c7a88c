//! Once faults stop, the run ends in time.
//!
//! ```text
//! no faults from t on, at least cluster.min_workers live     =>     the run is complete before t + patience,
//!                                                                   and then every worker's process ends
//! before that: the run may fail only for want of workers, or of a ring that holds
//! ```
//!
//! Nobody waits without a deadline: what this finds is a wait for somebody who is not there.

use strath_core::Timestamp;
use strath_protocol::Outcome;

use super::{Fact, Invariant, Run};

/// Ends of a run that faults may bring about: the coordinator's own words.
const FAIR: [&str; 2] = ["generations have ended without a step", "workers that are needed were there"];

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Liveness {
    calm_since: Option<Timestamp>,
    is_complete: bool,
}

impl Invariant for Liveness {
    fn name(&self) -> &'static str {
        "once faults stop the run ends in time"
    }

    fn observe(&mut self, fact: &Fact, run: &Run, now: Timestamp) -> Result<(), String> {
        match fact {
            Fact::Calm => self.calm_since = Some(now),
            Fact::Ended(Outcome::Done { .. }) => self.is_complete = true,
            Fact::Ended(Outcome::Stopped { .. }) => {}
            Fact::Ended(Outcome::Failed { message }) => {
                let is_fair = self.calm_since.is_none() && FAIR.iter().any(|fair| message.contains(fair));
                if !is_fair {
                    return Err(format!("the run failed: {message}"));
                }
            }
            Fact::Ended(outcome) => return Err(format!("the run ended otherwise than it can: {outcome:?}")),
            Fact::Over { .. } if !self.is_complete => {
                let waited = now.since(self.calm_since.unwrap_or_default());
                return Err(format!("it is not complete {waited:?} after the last fault (at most {:?})", run.patience));
            }
            Fact::Over { living } if *living > 0 => {
                return Err(format!("{living} workers live on though the run is complete"));
            }
            _ => {}
        }
        Ok(())
    }
}
