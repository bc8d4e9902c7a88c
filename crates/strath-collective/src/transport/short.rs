//! A small sum on its short way ([`engine`](super::engine)'s `short`), from the caller's side.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use super::engine::{Outcome, Short};
use super::turns::{SPIN, Turns, Waiting};
use crate::exchange::Exchange;
use crate::machine::Machine;

/// A sum whose own term every peer has been handed. Dropped before its end it goes on as an operation, so that what peers send for it is
/// not kept for ever.
#[derive(Debug)]
pub(crate) struct ShortSum {
    /// Until it has ended or goes on as an operation.
    under_way: Option<(Box<Exchange>, Arc<Turns>)>,
}

impl ShortSum {
    /// Hands this rank's term to every peer, or gives the exchange back where it has to go another way.
    pub(crate) fn begin(turns: Arc<Turns>, mut exchange: Box<Exchange>) -> Result<Self, Box<Exchange>> {
        let has_begun = turns.driver().is_some_and(|mut driver| driver.begin_short(&mut exchange));
        if has_begun { Ok(Self { under_way: Some((exchange, turns)) }) } else { Err(exchange) }
    }

    /// Waits for the sum, at most `deadline`. `None`: there will be none.
    pub(crate) fn wait(mut self, deadline: Duration) -> Option<Outcome> {
        let (mut exchange, turns) = self.under_way.take()?;
        let _waiting = Waiting::new(&turns);
        // Handing over the core and getting it back takes longer than a peer that is about to come.
        let (mut since, mut looks) = (None, turns.looks());
        loop {
            match turns.driver()?.take_short(&mut exchange, std::mem::take(&mut looks)) {
                Short::Complete => return Some(Ok(exchange.into_result())),
                Short::Unusual => break,
                Short::Waiting if since.get_or_insert_with(Instant::now).elapsed() >= SPIN.min(deadline) => break,
                Short::Waiting => thread::yield_now(),
            }
        }
        let tag = exchange.reduction().tag();
        let (key, (reply, outcome)) = ((tag.step, tag.bucket), channel());
        turns.ask(|driver| driver.adopt(exchange, reply));
        turns.wait(key, &outcome, deadline.saturating_sub(since.map_or(Duration::ZERO, |since| since.elapsed())))
    }
}

impl Drop for ShortSum {
    fn drop(&mut self) {
        if let Some((exchange, turns)) = self.under_way.take() {
            turns.ask(|driver| driver.adopt(exchange, channel().0));
        }
    }
}
