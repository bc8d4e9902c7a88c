//! Sessions over the loopback, as a worker and a coordinator see them.

#![expect(clippy::unwrap_used, reason = "a test may panic in its helpers too")]

mod by_hand;
mod drains;
mod endings;
mod harness;
mod lengths;
mod link;
mod loris;
mod sessions;
mod slow;
mod status;
mod tls;
