//! Where the lanes of a step are computed: on a GPU, lanes of few examples take turns on several streams, as the kernels of one alone leave most of it idle.
//!
//! ```text
//! stream 1   │ lane 0: ascent, lift, descent │         │ lane 2 ...
//! stream 2   │ lane 1: ascent, lift, descent    │      │ lane 3 ...
//! stream 0                                  │ + h_0 │ + h_1 │ ...     the sum, the update
//! ```
//!
//! Each stream reads the weights where they are, and has memory of its own for the rest. The sum is one vector on the first stream, to which gradients are added in
//! the order of the lanes: bits do not depend on the number of streams.

use strath_core::Plan;
use strath_core::config::Config;
use strath_cuda::GpuError;

use crate::flat::{Place, Weights};
use crate::share::Share;

/// Micro-batches of at most so many examples are taken to leave a GPU idle.
const FEW_EXAMPLES: usize = 32;

/// Streams for those, unless `cluster.streams` says how many.
const STREAMS: usize = 2;

/// A stream, and the weights as it reads them.
#[derive(Debug)]
pub struct Seat {
    /// The stream, or the process's memory.
    pub place: Place,
    /// The weights at the beginning of the step.
    pub weights: Weights,
}

/// The seats of a step.
#[derive(Debug)]
pub struct Seats(Vec<Seat>);

/// How many streams the lanes of a share take turns on, at a place.
pub fn streams(config: &Config, plan: &Plan, share: &Share, place: &Place) -> usize {
    if place.gpu().is_none() {
        return 1;
    }
    let parts = || share.shared().iter().chain(share.own());
    let largest =
        parts().flat_map(|part| &plan.micro_batches()[part.micro_batches.clone()]).map(|micro| micro.size).max();
    let wanted = config.cluster.streams.unwrap_or(match largest {
        Some(..=FEW_EXAMPLES) => STREAMS,
        _ => 1,
    });
    wanted.min(parts().count()).max(1)
}

impl Seats {
    /// So many seats at a place, for a step that begins with these weights. To be dropped once the passes have been asked for: the weights are not
    /// changed before.
    ///
    /// # Errors
    /// The device's.
    pub fn new(place: &Place, weights: &Weights, streams: usize) -> Result<Self, GpuError> {
        if streams < 2 {
            return Ok(Self(vec![Seat { place: place.clone(), weights: weights.clone() }]));
        }
        let seat = |number| {
            let place = place.stream(number)?;
            Ok(Seat { weights: weights.read_at(&place)?, place })
        };
        (1..=streams).map(seat).collect::<Result<_, GpuError>>().map(Self)
    }

    /// The seat of the lane part of this number.
    pub fn of(&self, number: usize) -> &Seat {
        &self.0[number % self.0.len()]
    }
}
