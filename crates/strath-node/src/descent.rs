//! The descent gradient on its way to the other ranks.
//!
//! Between hosts it is reduced in pieces of whole tensors, and each leaves as soon as the backward of this rank's last micro-batch has filled it:
//! the last layers' are on the wire while the first layers' are still being computed (Li et al. 2020, "PyTorch Distributed", section 3.2.3).
//! Ranks of one host reduce it whole: what carries their sums is the processors that compute.
//!
//! ```text
//! backward    │ head │ block 6 │ block 5 │ ... │ block 1 │ stem │
//! pieces             └ piece 3 ─►        └ piece 2 ─►  ...     └ piece 0 ─►
//! ```

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use strath_collective::{Bucket, Collective, CollectiveError, Pending, Reduced};
use strath_core::config::Reduce;
use strath_core::fault::{Culprit, Fault};
use strath_core::{Layout, Step};
use strath_cuda::GpuError;
use strath_cuda::nccl::NcclError;
use strath_kernels::vector;
use strath_model::Listener;

use crate::flat::{Checks, Flat, FlatPart, Integers, Place, SumError, Weights, counted_from};
use crate::gpus::Gpus;
use crate::sums::DescentSum;

/// A piece has at least so many values, 1 MiB: below, what a message costs outweighs what it hides.
const LEAST_VALUES: usize = 1 << 18;

/// Where the gradient is cut: the same on every rank, and for the whole run, as the cut shows in the bits of `f32` sums.
pub fn cut(layout: &Layout, hosts: u32) -> Vec<Range<usize>> {
    let whole = 0..layout.len();
    if hosts < 2 {
        return vec![whole];
    }
    let least = LEAST_VALUES.max(layout.len().div_ceil(Bucket::MOST_PIECES as usize));
    let (mut pieces, mut end) = (Vec::new(), whole.end);
    for entry in layout.entries().iter().rev() {
        let start = entry.range().start;
        // What is left at the front is not worth a piece of its own if it is small.
        if end - start >= least && start >= least / 2 {
            pieces.push(start..end);
            end = start;
        }
    }
    pieces.push(0..end);
    pieces.reverse();
    pieces
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
    /// Whether the last micro-batch's gradient is sent as it comes, and what it was found to be at fault with.
    is_heard: bool,
    fault: Fault,
}

struct Piece {
    range: Range<usize>,
    sum: Sum,
    /// Values of the last micro-batch that have not come.
    missing: usize,
    /// From when to when it travelled, as far as was looked.
    travelled: (Option<Instant>, Option<Instant>),
}

enum Sum {
    Growing(DescentSum),
    Sent(Pending),
    /// Of a rank that is alone, and at no fault: the sum, where it was rounded on its device.
    Alone(Flat),
    Taken,
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
        let empty = |range: &Range<usize>| {
            Ok(Piece {
                sum: Sum::Growing(DescentSum::new(reduce, range.len(), place)?),
                missing: range.len(),
                range: range.clone(),
                travelled: (None, None),
            })
        };
        let all = pieces.iter().map(empty).collect::<Result<_, GpuError>>()?;
        let (peers, place) = (peers.clone(), place.clone());
        Ok(Self(Arc::new(Mutex::new(Pieces { peers, step, place, all, is_heard: false, fault: Fault::NONE }))))
    }

    fn lock(&self) -> MutexGuard<'_, Pieces> {
        // A panic in between ends the training of this rank anyway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a micro-batch's whole gradient, weighted by its part of the batch.
    ///
    /// # Errors
    /// As [`DescentSum::add`].
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

    /// Adds the last micro-batch's gradient as a backward tells it, and sends each piece once it is whole. `None`: the gradient is one piece,
    /// or on a device, and [added](Self::add) at the end.
    ///
    /// # Errors
    /// As [`DescentSum::begin`].
    pub fn listener(&self, last: Last) -> Result<Option<Listener>, GpuError> {
        let mut pieces = self.lock();
        let Weights::Host(weights) = last.at.clone() else { return Ok(None) };
        if pieces.all.len() < 2 {
            return Ok(None);
        }
        pieces.is_heard = true;
        for piece in &mut pieces.all {
            if let Sum::Growing(sum) = &mut piece.sum {
                sum.begin()?;
            }
        }
        drop(pieces);
        let (descent, mut decayed) = (self.clone(), Vec::new());
        Ok(Some(Box::new(move |range, values| {
            let values = if last.decay == 0.0 {
                values
            } else {
                decayed.clear();
                decayed.extend_from_slice(values);
                vector::add_scaled(&mut decayed, &weights[range.clone()], last.decay as f32);
                &decayed
            };
            descent.lock().take(range, values, &last);
        })))
    }

    /// What the last micro-batch's gradient was found to be at fault with, where it is sent as it comes.
    pub fn heard(&self) -> Option<Fault> {
        let pieces = self.lock();
        pieces.is_heard.then_some(pieces.fault)
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
                piece.send(peers, *step, bucket(at, several), fault)?;
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
    /// As [`Pending::wait`].
    pub fn wait(self, room: impl FnOnce() -> Vec<f32>, deadline: Duration) -> Result<Reduction, CollectiveError> {
        let Pieces { peers, all: pieces, .. } = &mut *self.lock();
        if let [piece] = &mut pieces[..] {
            let (gradient, fault) = piece.wait(deadline)?;
            return Ok(Reduction { gradient, fault, travelled: Vec::new() });
        }
        let (mut gradient, mut fault, mut travelled) = (room(), Fault::NONE, Vec::new());
        for piece in pieces {
            let (Flat::Host(values), found) = piece.wait(deadline)? else {
                unreachable!("between hosts nobody is alone")
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
    /// From when to when each piece was under way that left during the backward.
    pub travelled: Vec<(Instant, Instant)>,
}

impl Pieces {
    /// Adds what is told of the last micro-batch, and sends a piece that it completes.
    fn take(&mut self, range: Range<usize>, values: &[f32], last: &Last) {
        let Self { peers, step, all: pieces, fault, .. } = self;
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
                piece.travelled.0 = Some(Instant::now());
                let sent = piece.send(peers, *step, bucket(at, several), Fault::NONE);
                sent.expect("what lies on the host is sent from there");
            }
        }
    }
}

impl Piece {
    /// Whether its sum needs other memory than its terms'. One of a rank that is alone is rounded on its device.
    fn will_need_room(&self, world_size: u32) -> bool {
        match &self.sum {
            Sum::Growing(DescentSum::Exact(Integers::Device(_))) => world_size > 1,
            Sum::Growing(DescentSum::Exact(_)) => true,
            _ => false,
        }
    }

    fn send(&mut self, peers: &Collective, step: Step, bucket: Bucket, fault: Fault) -> Result<(), GpuError> {
        let Sum::Growing(mut sum) = std::mem::replace(&mut self.sum, Sum::Taken) else { return Ok(()) };
        let everyone = 0..peers.identity().world_size;
        if everyone.len() == 1 && fault.is_none() {
            sum = match sum.on_device()? {
                Ok(sum) => {
                    self.sum = Sum::Alone(sum.rounded()?);
                    return Ok(());
                }
                Err(sum) => sum,
            };
        }
        self.sum = Sum::Sent(peers.all_reduce(step, bucket, everyone, sum.into_payload()?, fault));
        Ok(())
    }

    /// Notes when its sum has come.
    fn look(&mut self) {
        if let (Sum::Sent(pending), None) = (&mut self.sum, self.travelled.1)
            && pending.is_done()
        {
            self.travelled.1 = Some(Instant::now());
        }
    }

    fn wait(&mut self, deadline: Duration) -> Result<(Flat, Fault), CollectiveError> {
        let pending = match std::mem::replace(&mut self.sum, Sum::Taken) {
            Sum::Sent(pending) => pending,
            Sum::Alone(gradient) => return Ok((gradient, Fault::NONE)),
            Sum::Growing(_) | Sum::Taken => unreachable!("every piece is sent before it is waited for"),
        };
        let (sum, fault) = pending.wait(deadline)?;
        self.travelled.1.get_or_insert_with(Instant::now);
        let Reduced::Floats(values) = sum else { unreachable!("a gradient is reduced to floats") };
        Ok((Flat::Host(values), fault))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(lengths: &[usize]) -> Layout {
        Layout::new(lengths.iter().enumerate().map(|(at, len)| (format!("t{at:02}"), vec![*len]))).unwrap()
    }

    #[test]
    fn pieces_are_whole_tensors_that_cover_the_gradient_and_few() {
        let one = LEAST_VALUES;
        for lengths in [vec![3], vec![one, 5, one], vec![10 * one, 1, 2], vec![one / 5; 100], vec![1, 1, 9 * one]] {
            let layout = layout(&lengths);
            let whole = cut(&layout, 1);
            assert_eq!((whole.len(), whole[0].clone()), (1, 0..layout.len()), "ranks of one host reduce it whole");
            let pieces = cut(&layout, 2);
            assert!(pieces.len() <= Bucket::MOST_PIECES as usize);
            assert_eq!(pieces.iter().map(ExactSizeIterator::len).sum::<usize>(), layout.len());
            assert!(pieces.windows(2).all(|pair| pair[0].end == pair[1].start) && pieces[0].start == 0);
            let starts: Vec<usize> = layout.entries().iter().map(|entry| entry.range().start).collect();
            assert!(pieces.iter().all(|piece| starts.contains(&piece.start)), "{pieces:?}");
        }
        assert_eq!(cut(&layout(&[one, one, one]), 2).len(), 3);
        assert_eq!(cut(&layout(&[100, one]), 2).len(), 1, "a small rest goes with its neighbour");
    }

    #[test]
    fn a_gradient_that_is_told_tensor_by_tensor_gives_the_bits_of_one_that_is_added_whole() {
        let layout = Arc::new(layout(&[LEAST_VALUES, 7, LEAST_VALUES]));
        let peers = Arc::new(Collective::alone(strath_core::RunId(1), strath_core::Generation(1)));
        let gradient = |of: f32| (0..layout.len()).map(|at| of * (at as f32 + 0.1) * 1e-6).collect::<Vec<f32>>();
        let weights = Arc::new(gradient(-3.0));
        for reduce in [Reduce::Exact, Reduce::F32, Reduce::Bf16] {
            for earlier in 0..3 {
                for decay in [0.0, 0.01] {
                    let sum = |pieces: &[Range<usize>], tells: bool| {
                        let descent = Descent::new(reduce, pieces, &peers, Step(1), &Place::default()).unwrap();
                        for k in 0..earlier {
                            descent.add(&Flat::Host(gradient(k as f32 + 0.3)), 0.25).and_then(Checks::settle).unwrap();
                        }
                        let mut last = gradient(7.0);
                        if tells {
                            let at = Weights::Host(weights.clone());
                            let last_of = Last { share: 0.25, lane: 0, at, decay, layout: layout.clone() };
                            let mut listener = descent.listener(last_of).unwrap().unwrap();
                            for entry in layout.entries().iter().rev() {
                                listener(entry.range(), &last[entry.range()]);
                            }
                        } else {
                            if decay != 0.0 {
                                vector::add_scaled(&mut last, &weights, decay as f32);
                            }
                            descent.add(&Flat::Host(last), 0.25).and_then(Checks::settle).unwrap();
                        }
                        descent.send_rest(Fault::NONE, || vec![0.0; layout.len()]).unwrap();
                        let sum = descent.wait(|| vec![9.0; layout.len()], Duration::from_secs(1)).unwrap();
                        assert_eq!(sum.travelled.len(), if tells { pieces.len() } else { 0 });
                        sum.gradient.into_host().unwrap()
                    };
                    let whole = sum(&cut(&layout, 1), false);
                    let told = sum(&cut(&layout, 2), true);
                    assert!(whole.iter().zip(&told).all(|(a, b)| a.to_bits() == b.to_bits()), "{reduce:?}, {earlier}");
                }
            }
        }
    }

    #[test]
    fn a_value_out_of_range_is_named_and_its_piece_takes_the_word_along() {
        let layout = Arc::new(layout(&[LEAST_VALUES, 7, LEAST_VALUES]));
        let peers = Arc::new(Collective::alone(strath_core::RunId(1), strath_core::Generation(1)));
        let descent = Descent::new(Reduce::Exact, &cut(&layout, 2), &peers, Step(1), &Place::default()).unwrap();
        let last = Last { share: 1.0, lane: 3, at: Weights::Host(Arc::default()), decay: 0.0, layout: layout.clone() };
        let mut listener = descent.listener(last).unwrap().unwrap();
        let mut gradient = vec![1.0; layout.len()];
        gradient[LEAST_VALUES + 2] = f32::NAN;
        for entry in layout.entries().iter().rev() {
            listener(entry.range(), &gradient[entry.range()]);
        }
        let fault = Fault::new(3, Culprit::DescentGradient(1));
        assert_eq!(descent.heard(), Some(fault));
        descent.send_rest(fault, Vec::new).unwrap();
        let sum = descent.wait(|| vec![0.0; layout.len()], Duration::from_secs(1)).unwrap();
        assert_eq!((sum.fault, sum.travelled.len()), (fault, 1));
    }
}
