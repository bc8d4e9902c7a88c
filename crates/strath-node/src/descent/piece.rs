//! A piece of the descent gradient: what a rank adds up of it, and its way to the other ranks.

use std::ops::Range;
use std::time::{Duration, Instant};

use strath_collective::{Bucket, Collective, CollectiveError, Payload, Pending, Reduced};
use strath_core::Step;
use strath_core::config::Reduce;
use strath_core::fault::Fault;
use strath_cuda::{GpuError, Vector};

use crate::flat::{Checks, Flat, FlatPart, Integers, Place, SumError, counted_from};
use crate::sums::{DescentSum, Leaving};

pub(super) struct Piece {
    pub(super) range: Range<usize>,
    pub(super) sum: Sum,
    /// Values of the last micro-batch that have not come.
    pub(super) missing: usize,
    /// From when to when it travelled, as far as was looked: where it left as soon as it was whole.
    pub(super) travelled: (Option<Instant>, Option<Instant>),
}

pub(super) enum Sum {
    Growing(DescentSum),
    /// Whole, on its way from a device.
    Leaving(Leaving),
    Sent(Pending),
    /// Of a rank that is alone, and at no fault: the sum, where it was rounded on its device.
    Alone(Flat),
    Taken,
}

impl Piece {
    /// Of nothing yet.
    pub(super) fn new(reduce: Reduce, range: &Range<usize>, place: &Place) -> Result<Self, GpuError> {
        Ok(Self {
            sum: Sum::Growing(DescentSum::new(reduce, range.len(), place)?),
            missing: range.len(),
            range: range.clone(),
            travelled: (None, None),
        })
    }

    /// Makes room for the last micro-batch, which comes tensor by tensor.
    pub(super) fn begin(&mut self) -> Result<(), GpuError> {
        if let Sum::Growing(sum) = &mut self.sum { sum.begin() } else { Ok(()) }
    }

    /// Adds its values of the last micro-batch's gradient on a device, and has the sum leave it.
    pub(super) fn add_and_leave(&mut self, gradient: &Vector<f32>, share: f64) -> Result<Checks, GpuError> {
        let Sum::Growing(mut sum) = std::mem::replace(&mut self.sum, Sum::Taken) else { return Ok(Checks::default()) };
        let added = sum.add_at(0, FlatPart::Device(gradient.part(self.range.clone())), share);
        let checks = match counted_from(self.range.start, added) {
            Ok(checks) => checks,
            Err(SumError::Gpu(error)) => return Err(error),
            Err(SumError::OutOfRange(_)) => unreachable!("a device tells it later"),
        };
        self.sum = Sum::Leaving(sum.leave()?);
        Ok(checks)
    }

    /// Whether its sum needs other memory than its terms'. One of a rank that is alone is rounded on its device.
    pub(super) fn will_need_room(&self, world_size: u32) -> bool {
        match &self.sum {
            Sum::Growing(DescentSum::Exact(Integers::Device(_))) => world_size > 1,
            Sum::Growing(DescentSum::Exact(_)) => true,
            _ => false,
        }
    }

    /// Sends it as soon as it is whole; from a device, once it has come.
    pub(super) fn send_early(&mut self, peers: &Collective, step: Step, bucket: Bucket) -> Result<(), GpuError> {
        let payload = match std::mem::replace(&mut self.sum, Sum::Taken) {
            Sum::Growing(sum) => sum.into_payload()?,
            Sum::Leaving(sum) => sum.arrived()?,
            other => {
                self.sum = other;
                return Ok(());
            }
        };
        self.travelled.0 = Some(Instant::now());
        self.send(peers, step, bucket, payload, Fault::NONE);
        Ok(())
    }

    /// Sends it at the end, with the status word `fault`, unless it has left. Of a rank that is alone it stays where it lies.
    pub(super) fn send_at_end(
        &mut self,
        peers: &Collective,
        step: Step,
        bucket: Bucket,
        fault: Fault,
    ) -> Result<(), GpuError> {
        let Sum::Growing(mut sum) = std::mem::replace(&mut self.sum, Sum::Taken) else { return Ok(()) };
        if peers.identity().world_size == 1 && fault.is_none() {
            sum = match sum.on_device()? {
                Ok(sum) => {
                    self.sum = Sum::Alone(sum.rounded()?);
                    return Ok(());
                }
                Err(sum) => sum,
            };
        }
        self.send(peers, step, bucket, sum.into_payload()?, fault);
        Ok(())
    }

    fn send(&mut self, peers: &Collective, step: Step, bucket: Bucket, payload: Payload, fault: Fault) {
        let everyone = 0..peers.identity().world_size;
        self.sum = Sum::Sent(peers.all_reduce(step, bucket, everyone, payload, fault));
    }

    /// Notes when its sum has come.
    pub(super) fn look(&mut self) {
        if let (Sum::Sent(pending), None) = (&mut self.sum, self.travelled.1)
            && pending.is_done()
        {
            self.travelled.1 = Some(Instant::now());
        }
    }

    /// Waits for the sum over all ranks.
    pub(super) fn wait(&mut self, deadline: Duration) -> Result<(Flat, Fault), CollectiveError> {
        let pending = match std::mem::replace(&mut self.sum, Sum::Taken) {
            Sum::Sent(pending) => pending,
            Sum::Alone(gradient) => return Ok((gradient, Fault::NONE)),
            Sum::Growing(_) | Sum::Leaving(_) | Sum::Taken => {
                unreachable!("every piece is sent before it is waited for")
            }
        };
        let (sum, fault) = pending.wait(deadline)?;
        self.travelled.1.get_or_insert_with(Instant::now);
        let Reduced::Floats(values) = sum else { unreachable!("a gradient is reduced to floats") };
        Ok((Flat::Host(values), fault))
    }
}
