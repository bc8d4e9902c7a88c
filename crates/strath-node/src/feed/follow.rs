//! The newcomer's end of a feed: it takes the same steps as the ranks, with what they have reduced.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use strath_collective::{DONOR, FeedReceiver, Member, NEWCOMER, RingTls};
use strath_core::{RunId, Step};
use strath_protocol::message::Follow;

use super::donor::CONNECT_DEADLINE;
use super::identity;
use super::words::{self, Header, Kind, invalid};
use crate::flat::{Flat, Place};
use crate::generation;
use crate::prepare::Prepared;
use crate::resident::Resident;
use crate::state::TrainingState;
use crate::verify;

/// What a newcomer begins with.
pub(crate) struct Following {
    pub(crate) run: RunId,
    pub(crate) follow: Follow,
    pub(crate) prepared: Prepared,
    /// Where it listens for peers, of the next generation too.
    pub(crate) listener: TcpListener,
    /// The worker's certificate, where it has one.
    pub(crate) tls: Option<RingTls>,
}

/// What following has come to.
pub(crate) struct Followed {
    /// The state after the last step that was fed.
    pub(crate) state: Option<TrainingState>,
    /// Why it ended before the generation.
    pub(crate) broken: Option<String>,
}

/// Follows a generation to its end, or until it is `cancelled`; calls `caught_up` once at most a step is missing.
pub(crate) fn follow(following: &Following, cancelled: &AtomicBool, caught_up: impl FnMut(Step)) -> Followed {
    let donor = following.follow.from.worker;
    let mut state = None;
    let ended = connect(following, cancelled).and_then(|mut line| {
        let mut newcomer = Newcomer { following, cancelled, caught_up, is_close: false };
        newcomer.go_along(&mut line, &mut state).map_err(|error| error.to_string())
    });
    let state = state.map(Resident::into_host).transpose();
    let (state, lost) = state.map_or_else(|error| (None, Some(error.to_string())), |state| (state, None));
    let broken = ended.err().map(|error| format!("worker {donor} feeds it no more: {error}"));
    Followed { state, broken: broken.or(lost) }
}

fn connect(following: &Following, cancelled: &AtomicBool) -> Result<FeedReceiver, String> {
    let Following { run, follow, listener, tls, .. } = following;
    let identity = identity(*run, follow.generation, NEWCOMER, follow.ticket);
    let from = Member { rank: DONOR, address: follow.from.ring_address };
    let listener = listener.try_clone().map_err(|error| error.to_string())?;
    FeedReceiver::accept(listener, identity, from, tls.as_ref(), CONNECT_DEADLINE, cancelled)
        .map_err(|error| error.to_string())
}

struct Newcomer<'a, F> {
    following: &'a Following,
    cancelled: &'a AtomicBool,
    caught_up: F,
    /// Whether it was called.
    is_close: bool,
}

impl<F: FnMut(Step)> Newcomer<'_, F> {
    /// Takes what is fed, to its end. The state is whole whenever this ends.
    fn go_along(&mut self, line: &mut FeedReceiver, state: &mut Option<Resident>) -> io::Result<()> {
        let Prepared { config, model, .. } = &self.following.prepared;
        let finish = generation::finish(&self.following.prepared, self.following.follow.steps.0);
        let (mut gradient, mut statistics) = (Vec::new(), Vec::new());
        loop {
            let header = words::hear(line, self.cancelled)?;
            match (header.kind, state.as_mut()) {
                (Kind::State, None) => {
                    let taken = self.take_state(line, header)?;
                    let resident = Resident::new(taken, &Place::from(model.gpu()));
                    *state = Some(resident.map_err(|(error, _)| io::Error::other(error))?);
                }
                (Kind::Step, Some(state)) if header.step == state.step() + 1 => {
                    gradient.resize(model.parameters().len(), 0.0);
                    statistics.resize(model.statistics().len(), 0.0);
                    words::take(line, header, &mut [&mut gradient, &mut statistics], self.cancelled)?;
                    let clean_loss = f64::from_bits(header.loss);
                    let reduced = Flat::Host(std::mem::take(&mut gradient));
                    state.update(&reduced, (&statistics, clean_loss), config, finish).map_err(io::Error::other)?;
                    gradient = reduced.into_host().map_err(io::Error::other)?;
                }
                (Kind::Beat, _) => {}
                (Kind::End, _) => return Ok(()),
                (Kind::LeftBehind, _) => return Err(io::Error::other("this worker does not keep up")),
                (kind, state) => {
                    let at = state.map_or_else(|| "before a state".into(), |state| format!("at step {}", state.step()));
                    return Err(invalid(format!("found a word ({kind:?}) of step {} {at}", header.step)));
                }
            }
            if let (Some(state), false) = (state.as_ref(), self.is_close)
                && header.newest <= state.step() + 1
            {
                self.is_close = true;
                (self.caught_up)(Step(state.step()));
            }
        }
    }

    fn take_state(&self, line: &mut FeedReceiver, header: Header) -> io::Result<TrainingState> {
        let Prepared { config, model, .. } = &self.following.prepared;
        let mut optimizer = generation::optimizer(config, model);
        let slots = optimizer.slots().into_iter().map(|(name, values)| (name.to_owned(), vec![0.0; values.len()]));
        let mut slots: Vec<(String, Vec<f32>)> = slots.collect();
        let (mut weights, mut statistics) = (vec![0.0; model.parameters().len()], vec![0.0; model.statistics().len()]);
        let mut pieces: Vec<&mut [f32]> = vec![&mut weights, &mut statistics];
        pieces.extend(slots.iter_mut().map(|(_, values)| values.as_mut_slice()));
        words::take(line, header, &mut pieces, self.cancelled)?;
        optimizer.restore(&slots).map_err(|error| invalid(error.to_string()))?;
        let epoch_loss = config.run.stop_loss.map(|_| f64::from_bits(header.loss));
        let state = TrainingState { step: header.step, weights: Arc::new(weights), statistics, optimizer, epoch_loss };
        let found = verify::digest(&state);
        if found == header.digest {
            Ok(state)
        } else {
            Err(invalid(format!("the state of step {} has SHA-256 {found}, expected {}", header.step, header.digest)))
        }
    }
}
