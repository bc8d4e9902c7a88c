//! The descent gradient on its way to the other ranks.
//!
//! Between hosts it is reduced in pieces of whole tensors, and each leaves as soon as the backward of this rank's last micro-batch has filled it:
//! the last layers' are on the wire while the first layers' are still being computed (Li et al. 2020, "PyTorch Distributed", section 3.2.3).
//! Ranks of one host reduce it whole, as what carries their sums is the processors that compute; not so those on GPUs.
//!
//! ```text
//! backward    │ head │ block 6 │ block 5 │ ... │ block 1 │ stem │
//! pieces             └ piece 3 ─►        └ piece 2 ─►  ...     └ piece 0 ─►
//! ```
//!
//! A device is asked for a backward faster than it computes it. Each piece is added up and copied to the host as soon as its tensors have been asked for, beside the
//! layers that follow, and leaves when its copy has come; the host waits for the first of them once it has asked for all of the step's passes.

mod piece;

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use strath_collective::{Bucket, Collective, CollectiveError};
use strath_core::config::{Numerics, Reduce};
use strath_core::fault::{Culprit, Fault};
use strath_core::{Layout, Step};
use strath_cuda::nccl::NcclError;
use strath_cuda::{GpuError, Vector, lanes};
use strath_kernels::vector;
use strath_model::{DeviceListener, Listener};

use crate::flat::{Checks, Flat, FlatPart, Hears, Place, SumError, Weights, counted_from};
use crate::gpus::Gpus;

use self::piece::{Piece, Sum};

/// A piece has at least so many values, 1 MiB: below, what a message costs outweighs what it hides.
const LEAST_VALUES: usize = 1 << 18;

/// Whether ranks send the gradient in pieces: between hosts, and from GPUs. Of these every rank knows by itself whether the others have one too where all must
/// compute the same bits, which a GPU's are not a processor's.
pub fn leaves_in_pieces(peers: &Collective, place: &Place, numerics: Numerics) -> bool {
    let are_on_gpus = place.gpu().is_some() && numerics == Numerics::Same;
    peers.hosts().count() > 1 || (are_on_gpus && peers.identity().world_size > 1)
}

/// Where the gradient is cut, if it is: the same on every rank, and for the whole run, as the cut shows in the bits of `f32` sums.
pub fn cut(layout: &Layout, is_cut: bool) -> Vec<Range<usize>> {
    let whole = 0..layout.len();
    if !is_cut {
        return vec![whole];
    }
    let least = LEAST_VALUES.max(layout.len().div_ceil(Bucket::MOST_PIECES as usize - 1));
    let entries = layout.entries();
    let is_large = |group: &str| {
        entries.iter().filter(|entry| self::group(&entry.name) == group).map(|entry| entry.range().len()).sum::<usize>()
            >= 2 * least
    };
    let (mut pieces, mut end) = (Vec::new(), whole.end);
    for (at, entry) in entries.iter().enumerate().rev() {
        let start = entry.range().start;
        // What is left at the front is not worth a piece of its own if it is small.
        let is_whole = end - start >= least && start >= least / 2;
        // Names are in no order of time: what lies at the end, behind a network's blocks (`stem`, `patch_embed`), is filled last, and they do not wait for it.
        let before = at.checked_sub(1).map(|before| group(&entries[before].name));
        let is_behind =
            pieces.is_empty() && before.is_some_and(|before| before != group(&entry.name) && is_large(before));
        if is_whole || is_behind {
            pieces.push(start..end);
            end = start;
        }
    }
    pieces.push(0..end);
    pieces.reverse();
    pieces
}

/// The layers that a tensor belongs to: the first part of its name.
fn group(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// The pieces' names in the collective: of one, the gradient's.
fn bucket(piece: usize, pieces: usize) -> Bucket {
    if pieces == 1 { Bucket::GRADIENT } else { Bucket::piece(piece as u32) }
}

/// A step's descent gradient, from the first micro-batch to the sum over all ranks.
#[derive(Clone)]
pub struct Descent(Arc<Mutex<Pieces>>);

struct Pieces {
    peers: Arc<Collective>,
    step: Step,
    /// Where sums grow.
    place: Place,
    all: Vec<Piece>,
    /// What was heard of the last micro-batch's gradient, where it is sent as it comes.
    heard: Option<Heard>,
    /// The pieces that leave a device, in the order in which they do.
    leaving: Vec<usize>,
}

/// What is known of a gradient that is sent as it comes.
#[derive(Debug)]
pub enum Heard {
    /// What it was found to be at fault with.
    Host(Fault),
    /// What a device has yet to tell of it.
    Device(Checks),
}

/// The last micro-batch of a rank, whose gradient is sent as it comes.
pub struct Last {
    /// Its part of the batch.
    pub share: f64,
    /// Its lane.
    pub lane: usize,
    /// The vector that it is a gradient at.
    pub at: Weights,
    /// The decay that is part of the loss.
    pub decay: f64,
    /// The layout of both.
    pub layout: Arc<Layout>,
}

impl Descent {
    /// An empty sum over the ranks of `peers`, cut into `pieces`, of gradients at a place.
    ///
    /// # Errors
    /// The device's.
    pub fn new(
        reduce: Reduce,
        pieces: &[Range<usize>],
        peers: &Arc<Collective>,
        step: Step,
        place: &Place,
    ) -> Result<Self, GpuError> {
        let all = pieces.iter().map(|range| Piece::new(reduce, range, place)).collect::<Result<_, GpuError>>()?;
        let (peers, place) = (peers.clone(), place.clone());
        Ok(Self(Arc::new(Mutex::new(Pieces { peers, step, place, all, heard: None, leaving: Vec::new() }))))
    }

    fn lock(&self) -> MutexGuard<'_, Pieces> {
        // A panic in between ends the training of this rank anyway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a micro-batch's whole gradient, weighted by its part of the batch.
    ///
    /// # Errors
    /// As [`DescentSum::add`](crate::sums::DescentSum::add).
    pub fn add(&self, gradient: &Flat, share: f64) -> Result<Checks, SumError> {
        let Pieces { place, all: pieces, .. } = &mut *self.lock();
        gradient.read_at(place, || {
            let mut checks = Checks::default();
            for Piece { range, sum, .. } in pieces {
                if let Sum::Growing(sum) = sum {
                    let added = sum.add(gradient.part(range.clone()), share);
                    checks.extend(counted_from(range.start, added)?);
                }
            }
            Ok(checks)
        })?
    }

    /// Adds the last micro-batch's gradient as a backward tells it, and sends each piece once it is whole; from a device, has it leave. `None`: the gradient is one
    /// piece, and [added](Self::add) at the end.
    ///
    /// # Errors
    /// The device's.
    pub fn listener(&self, last: Last) -> Result<Option<Hears>, GpuError> {
        let mut pieces = self.lock();
        if pieces.all.len() < 2 {
            return Ok(None);
        }
        pieces.all.iter_mut().try_for_each(Piece::begin)?;
        let (heard, hears) = match last.at.clone() {
            Weights::Host(weights) => (Heard::Host(Fault::NONE), Hears::Host(self.on_host(last, weights))),
            Weights::Device(weights) => {
                (Heard::Device(Checks::default()), Hears::Device(self.on_device(last, weights)))
            }
        };
        pieces.heard = Some(heard);
        Ok(Some(hears))
    }

    fn on_host(&self, last: Last, weights: Arc<Vec<f32>>) -> Listener {
        let (descent, mut decayed) = (self.clone(), Vec::new());
        Box::new(move |range, values| {
            let values = if last.decay == 0.0 {
                values
            } else {
                decayed.clear();
                decayed.extend_from_slice(values);
                vector::add_scaled(&mut decayed, &weights[range.clone()], last.decay as f32);
                &decayed
            };
            descent.lock().take(range, values, &last);
        })
    }

    fn on_device(&self, last: Last, weights: Arc<Vector<f32>>) -> DeviceListener {
        let descent = self.clone();
        Box::new(move |range, gradient| descent.lock().take_there(&range, gradient, &last, &weights))
    }

    /// What was heard of the last micro-batch's gradient since it was asked for, where it is sent as it comes. What lies on a device had its decay.
    pub fn heard(&self) -> Option<Heard> {
        match self.lock().heard.as_mut()? {
            Heard::Host(fault) => Some(Heard::Host(*fault)),
            Heard::Device(checks) => Some(Heard::Device(std::mem::take(checks).in_order())),
        }
    }

    /// Sends what leaves a device, each piece when it has come, in the order in which they were copied: waits for the passes that they are of. What is at fault with them is yet to be told, and
    /// goes with what is sent later.
    ///
    /// # Errors
    /// The device's.
    pub fn send_leaving(&self) -> Result<(), GpuError> {
        let Pieces { peers, step, all: pieces, leaving, .. } = &mut *self.lock();
        let several = pieces.len();
        for at in leaving.drain(..) {
            pieces[at].send_early(peers, *step, bucket(at, several))?;
            pieces.iter_mut().for_each(Piece::look);
        }
        Ok(())
    }

    /// Sends what has not left, with the status word `fault`. `room` is asked for memory for a result that does not take the place of its
    /// terms.
    ///
    /// # Errors
    /// The device's.
    pub fn send_rest(&self, fault: Fault, room: impl Fn() -> Vec<f32>) -> Result<(), GpuError> {
        let Pieces { peers, step, all: pieces, .. } = &mut *self.lock();
        let several = pieces.len();
        for (at, piece) in pieces.iter_mut().enumerate() {
            if matches!(piece.sum, Sum::Growing(_)) {
                if several == 1 && piece.will_need_room(peers.identity().world_size) {
                    peers.give_room(room());
                }
                piece.send_at_end(peers, *step, bucket(at, several), fault)?;
            }
        }
        Ok(())
    }

    /// The sum over all ranks, by their GPUs: once every rank is known to have come here, and the least status word of all of them, `fault`. Of one at fault
    /// there is no sum.
    ///
    /// # Errors
    /// As [`Gpus::sum`].
    pub fn sum_by(self, gpus: &mut Gpus, fault: Fault, deadline: Duration) -> Result<Reduction, NcclError> {
        let Pieces { all: pieces, .. } = &mut *self.lock();
        let [Piece { sum, .. }] = &mut pieces[..] else { unreachable!("GPUs sum a gradient whole") };
        let none = Reduction { gradient: Flat::Host(Vec::new()), fault, travelled: Vec::new() };
        match std::mem::replace(sum, Sum::Taken) {
            Sum::Growing(own) if fault.is_none() => Ok(Reduction { gradient: gpus.sum(own, deadline)?, ..none }),
            _ => Ok(none),
        }
    }

    /// Waits for the sum over all ranks; `room` is asked for memory for one that comes in pieces.
    ///
    /// # Errors
    /// As [`Pending::wait`](strath_collective::Pending::wait).
    pub fn wait(self, room: impl FnOnce() -> Vec<f32>, deadline: Duration) -> Result<Reduction, CollectiveError> {
        let Pieces { peers, all: pieces, .. } = &mut *self.lock();
        if let [piece] = &mut pieces[..] {
            let (gradient, fault) = piece.wait(deadline)?;
            return Ok(Reduction { gradient, fault, travelled: Vec::new() });
        }
        let (mut gradient, mut fault, mut travelled) = (room(), Fault::NONE, Vec::new());
        for piece in pieces {
            let (Flat::Host(values), found) = piece.wait(deadline)? else {
                unreachable!("who is alone sends nothing in pieces")
            };
            gradient[piece.range.clone()].copy_from_slice(&values);
            peers.give_room(values);
            fault = fault.min(found);
            if let (Some(from), Some(to)) = piece.travelled {
                travelled.push((from, to));
            }
        }
        Ok(Reduction { gradient: Flat::Host(gradient), fault, travelled })
    }
}

/// The reduced descent gradient.
pub struct Reduction {
    /// The sum, the same bits on every rank: on the host, unless the rank is alone.
    pub gradient: Flat,
    /// The least status word of all ranks and pieces.
    pub fault: Fault,
    /// From when to when each piece was under way that left as soon as it was whole.
    pub travelled: Vec<(Instant, Instant)>,
}

impl Pieces {
    /// Adds what is told of the last micro-batch, and sends a piece that it completes.
    fn take(&mut self, range: Range<usize>, values: &[f32], last: &Last) {
        let Self { peers, step, all: pieces, heard: Some(Heard::Host(fault)), .. } = self else {
            unreachable!("what is told lies on the host")
        };
        let several = pieces.len();
        for (at, piece) in pieces.iter_mut().enumerate() {
            piece.look();
            let Sum::Growing(sum) = &mut piece.sum else { continue };
            if !piece.range.contains(&range.start) {
                continue;
            }
            match sum.add_at(range.start - piece.range.start, FlatPart::Host(values), last.share) {
                // What is told lies on the host, and was checked at once.
                Ok(_) => {}
                Err(SumError::OutOfRange(found)) => {
                    let tensor = last.layout.tensor_at(piece.range.start + found.index) as u32;
                    *fault = (*fault).min(Fault::new(last.lane, Culprit::DescentGradient(tensor)));
                }
                Err(SumError::Gpu(_)) => unreachable!("what is told lies on the host"),
            }
            piece.missing -= values.len();
            // One that is at fault waits for the end, and takes the word with it.
            if piece.missing == 0 && fault.is_none() {
                let sent = piece.send_early(peers, *step, bucket(at, several));
                sent.expect("what lies on the host is sent from there");
            }
        }
    }

    /// Takes in that some of the last micro-batch's gradient has been asked of a device, and has the piece leave that this completes.
    fn take_there(
        &mut self,
        range: &Range<usize>,
        gradient: &mut Vector<f32>,
        last: &Last,
        weights: &Vector<f32>,
    ) -> Result<(), GpuError> {
        let here = self.place.gpu().cloned();
        let (Self { all: pieces, heard: Some(Heard::Device(checks)), leaving, .. }, Some(here)) = (self, here) else {
            unreachable!("what is told lies on a device")
        };
        let found = pieces.iter_mut().enumerate().find(|(_, piece)| piece.range.contains(&range.start));
        let Some((at, piece)) = found.filter(|(_, piece)| matches!(piece.sum, Sum::Growing(_))) else { return Ok(()) };
        piece.missing -= range.len();
        if piece.missing == 0 {
            if last.decay != 0.0 {
                lanes::add_scaled_part(gradient, weights, piece.range.clone(), last.decay as f32)?;
            }
            here.follow(gradient.gpu())?;
            checks.extend(piece.add_and_leave(gradient, last.share)?);
            leaving.push(at);
        }
        if pieces.iter().all(|piece| piece.missing == 0) {
            // Its memory serves again.
            gradient.gpu().follow(&here)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
