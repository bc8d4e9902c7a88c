//! A state while it is trained: where the model computes.
//!
//! On a GPU the weights and the optimizer's vectors stay in its memory from step to step; the [`TrainingState`] in the process's memory is brought up to date
//! when somebody looks. Running statistics, a few values a channel, are moved on the host, where they are summed too.

use std::sync::Arc;

use strath_core::Finish;
use strath_core::config::Config;
use strath_cuda::lanes::{self, Terms};
use strath_cuda::{GpuError, Vector};
use strath_sam::{Update, learning_rate};

use crate::flat::{Flat, Place, Weights};
use crate::state::{StepSums, TrainingState};

/// A state, where the model computes.
#[derive(Debug)]
pub struct Resident {
    /// Of a state on a device the vectors may be those of an earlier step.
    state: TrainingState,
    there: Option<There>,
}

/// What lies on a device.
#[derive(Debug)]
struct There {
    weights: Arc<Vector<f32>>,
    /// The optimizer's, in its order.
    slots: Vec<Vector<f32>>,
    /// Whether they are ahead of the host's.
    is_ahead: bool,
}

impl Resident {
    /// A state that is to be trained at a place.
    ///
    /// # Errors
    /// The device's, and the state.
    pub fn new(state: TrainingState, place: &Place) -> Result<Self, (GpuError, Box<TrainingState>)> {
        let there = |gpu: &strath_cuda::Gpu| {
            let weights = Arc::new(gpu.copied(&state.weights)?);
            let slots =
                state.optimizer.slots().into_iter().map(|(_, values)| gpu.copied(values)).collect::<Result<_, _>>()?;
            Ok(There { weights, slots, is_ahead: false })
        };
        match place.gpu().map(there).transpose() {
            Ok(there) => Ok(Self { state, there }),
            Err(error) => Err((error, Box::new(state))),
        }
    }

    /// Completed optimizer updates.
    pub fn step(&self) -> u64 {
        self.state.step
    }

    /// Batch norm's running statistics.
    pub fn statistics(&self) -> &[f32] {
        &self.state.statistics
    }

    /// The clean losses of the epoch under way ([`TrainingState::epoch_loss`]).
    pub fn epoch_loss(&self) -> Option<f64> {
        self.state.epoch_loss
    }

    /// The parameters, to compute with. Let go of before [`update`](Self::update), they are moved in place.
    pub fn weights(&self) -> Weights {
        match &self.there {
            None => Weights::Host(self.state.weights.clone()),
            Some(there) => Weights::Device(there.weights.clone()),
        }
    }

    /// The whole state in the process's memory, copied there where it lies on a device.
    ///
    /// # Errors
    /// The device's.
    pub fn on_host(&mut self) -> Result<&TrainingState, GpuError> {
        if let Some(there) = self.there.as_mut().filter(|there| there.is_ahead) {
            there.weights.download(Arc::make_mut(&mut self.state.weights).as_mut_slice())?;
            for (slot, values) in there.slots.iter().zip(self.state.optimizer.slots_mut()) {
                slot.download(values)?;
            }
            there.is_ahead = false;
        }
        Ok(&self.state)
    }

    /// The same, read anew: what is compared with others' is what is computed with.
    ///
    /// # Errors
    /// The device's.
    pub fn as_it_lies(&mut self) -> Result<&TrainingState, GpuError> {
        if let Some(there) = &mut self.there {
            there.is_ahead = true;
        }
        self.on_host()
    }

    /// The same as [`on_host`](Self::on_host), at the end.
    ///
    /// # Errors
    /// The device's: with it the state is lost.
    pub fn into_host(mut self) -> Result<TrainingState, GpuError> {
        self.on_host()?;
        Ok(self.state)
    }

    /// The end of a step, as [`TrainingState::update`]: to its bits, but for a clipped gradient's norm, which a device adds up in another order.
    ///
    /// # Errors
    /// The device's; the state is then what it was.
    pub fn update(
        &mut self,
        gradient: &Flat,
        (statistics, clean_loss): (&[f32], f64),
        config: &Config,
        finish: Finish,
    ) -> Result<(f64, f64), GpuError> {
        let Some(there) = &mut self.there else {
            let sums = StepSums { gradient: &gradient.host()?, statistics, clean_loss };
            return Ok(self.state.update(sums, config, finish));
        };
        let gpu = there.weights.gpu().clone();
        let uploaded;
        let gradient = match gradient {
            Flat::Device(gradient) => gradient,
            Flat::Host(values) => {
                uploaded = gpu.copied(values)?;
                &uploaded
            }
        };
        let mut squares = gpu.zeros::<f64>(1)?;
        lanes::sum(&mut squares, Terms::Squares(gradient.all()))?;
        let clip = config.optimizer.clip_norm.map(|most| lanes::clip_factor(&squares, most)).transpose()?;
        let lr = learning_rate(self.state.step, finish.steps, config.optimizer.lr, &config.schedule);
        let mut norm = [0.0];
        squares.download(&mut norm)?;
        there.update(gradient, clip.as_ref(), self.state.optimizer.scalars(self.state.step, lr))?;
        there.is_ahead = true;
        self.state.advance(statistics, clean_loss, finish);
        Ok((lr, norm[0].sqrt()))
    }
}

impl There {
    fn update(&mut self, g: &Vector<f32>, clip: Option<&Vector<f64>>, scalars: Update) -> Result<(), GpuError> {
        if Arc::get_mut(&mut self.weights).is_none() {
            // Somebody still computes with them.
            self.weights = Arc::new(self.weights.duplicate()?);
        }
        let w = Arc::get_mut(&mut self.weights).expect("nobody else holds a copy that was made just now");
        match (scalars, &mut self.slots[..]) {
            (Update::Sgd { lr, decay }, []) => lanes::sgd(w, g, clip, lr, decay),
            (Update::Momentum(scalars), [buffer]) => lanes::sgd_momentum(w, g, buffer, clip, scalars),
            (Update::AdamW(scalars), [first, second]) => lanes::adamw(w, g, (first, second), clip, scalars),
            (scalars, slots) => unreachable!("{} slots for {scalars:?}", slots.len()),
        }
    }
}
