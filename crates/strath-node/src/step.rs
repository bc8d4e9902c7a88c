//! One SAM step on this rank's share of the batch: the only place that knows its order.

mod later;
mod passes;
mod survey;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use strath_collective::{Bucket, Collective, Pending, Reduced};
use strath_core::config::Config;
use strath_core::fault::Fault;
use strath_core::{After, Assignment, Finish, Plan, Step};
use strath_cuda::GpuError;
use strath_cuda::nccl::NcclError;
use strath_data::Loader;
use strath_model::{Model, ModelError, Work};
use strath_protocol::message::{CommunicatorId, Phase};
use strath_sam::Perturbation;

use crate::buffers::Buffers;
use crate::clock::Clock;
use crate::descent::{self, Descent, Reduction};
use crate::feed::Audience;
use crate::flat::{Flat, Place};
use crate::gpus::Gpus;
use crate::ladder::Rungs;
use crate::outcome::{StepError, StepOutcome};
use crate::resident::Resident;
use crate::seats::{self, Seats};
use crate::share::{LanePart, Share};
use crate::sums::LaneSum;
use crate::tally::{Tally, Totals};
use crate::verify::verify;
use crate::watch::{Scope, Watch};

use self::later::Later;

/// No reduction takes longer than this, or than some times the longest step, while every peer lives. A process that dies is noticed in
/// milliseconds by its connections, one that hangs by the coordinator's lease, and one whose training alone hangs by the coordinator too, in
/// at most half of this; this ends the wait where the coordinator is away as well.
pub const EXCHANGE_DEADLINE: Duration = Duration::from_secs(1200);

/// So many times the longest step so far.
const TIMES_LONGEST: u32 = 10;

/// A rank's part of every step of a generation.
pub struct Stepper {
    model: Model,
    loader: Loader,
    plan: Plan,
    share: Share,
    /// Where the descent gradient is cut.
    pieces: Vec<Range<usize>>,
    perturbation: Perturbation,
    /// What is told of lanes.
    scope: Scope,
    /// The coarser lanes that surveys tell of too.
    rungs: Option<Arc<Rungs>>,
    config: Config,
    finish: Finish,
    buffers: Buffers,
    /// Streams that lanes take turns on.
    streams: usize,
    /// Those who join, and follow step by step.
    audience: Audience,
    /// The ranks' GPUs, where they sum by themselves.
    gpus: Option<Gpus>,
    longest: Duration,
}

/// What a rank gathers over a step.
struct Gathered {
    /// Sum over lanes of `(m_v / B) h_v`.
    descent: Descent,
    tally: Tally,
    watch: Watch,
    clock: Clock,
    /// What a device has yet to tell.
    later: Later,
}

/// Why a lane part was not computed: a fault that every rank must hear of, or the model's own error.
enum Interrupted {
    Fault(Fault),
    Model(ModelError),
}

impl From<GpuError> for Interrupted {
    fn from(error: GpuError) -> Self {
        Self::Model(error.into())
    }
}

impl From<ModelError> for Interrupted {
    fn from(error: ModelError) -> Self {
        Self::Model(error)
    }
}

impl Stepper {
    /// The steps of this rank of `peers` under `assignment`, as many as `finish` plans.
    ///
    /// # Errors
    /// [`strath_sam::NothingToPerturb`] where `sam.perturb` leaves no parameter.
    pub fn new(
        config: Config,
        model: Model,
        loader: Loader,
        plan: Plan,
        assignment: &Assignment,
        peers: &Collective,
        finish: Finish,
    ) -> Result<Self, strath_sam::NothingToPerturb> {
        let perturbation = Perturbation::new(&config.sam, model.parameters(), &model.of_norms())?;
        // Without a perturbation nothing has to be exchanged before the descent: every lane is the rank's own.
        let share = Share::new(&plan, assignment, peers.identity().rank, config.sam.rho > 0.0);
        let flops = model.work(plan.batch()).map_or(0.0, |work| work.iter().map(Work::pass_flops).sum());
        let scope = Scope::new(&config, &plan, model.parameters().len(), flops);
        let held = assignment.of(peers.identity().rank);
        let rungs = config.telemetry.ladder.then(|| Arc::new(Rungs::new(&plan, assignment, held)));
        let buffers = Buffers::new(model.parameters().len(), Place::from(model.gpu()));
        let streams = seats::streams(&config, &plan, &share, buffers.place());
        let is_cut = descent::leaves_in_pieces(peers, buffers.place(), config.cluster.numerics);
        let pieces = descent::cut(model.parameters(), is_cut);
        let audience = Audience::default();
        let longest = Duration::ZERO;
        Ok(Self {
            model,
            loader,
            plan,
            share,
            pieces,
            perturbation,
            scope,
            rungs,
            config,
            finish,
            buffers,
            streams,
            audience,
            gpus: None,
            longest,
        })
    }

    /// The same, with those who join it meanwhile.
    #[must_use]
    pub fn with_audience(self, audience: Audience) -> Self {
        Self { audience, ..self }
    }

    /// Has the ranks' GPUs sum the descent gradient by themselves.
    ///
    /// # Errors
    /// [`NcclError`].
    pub fn connect_gpus(&mut self, id: &CommunicatorId, peers: &Arc<Collective>) -> Result<(), NcclError> {
        let Some(gpu) = self.model.gpu() else { return Ok(()) };
        self.gpus = Some(Gpus::connect(gpu, id, peers)?);
        // They sum it whole.
        self.pieces = descent::cut(self.model.parameters(), false);
        Ok(())
    }

    /// The ranks' GPUs, where they sum by themselves; from now on they do not.
    pub fn take_gpus(&mut self) -> Option<Gpus> {
        self.gpus.take()
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Examples of a batch that this rank computes.
    pub fn examples_a_step(&self) -> usize {
        let parts = self.share.own().iter().chain(self.share.shared());
        parts.flat_map(|part| &self.plan.micro_batches()[part.micro_batches.clone()]).map(|micro| micro.size).sum()
    }

    /// The examples.
    pub fn loader(&self) -> &Loader {
        &self.loader
    }

    /// One SAM step (Foret et al. 2021, algorithm 1) on this rank's micro-batches; `after` is what this rank
    /// was asked to do then.
    ///
    /// # Errors
    /// [`StepError`]; the state is then what it was before the step.
    pub fn sam_step(
        &mut self,
        state: &mut Resident,
        peers: &Arc<Collective>,
        after: After,
        mut enter: impl FnMut(Phase),
    ) -> Result<StepOutcome, StepError> {
        self.audience.admit(state)?;
        let (step, begun) = (Step(state.step()), Instant::now());
        let deadline = EXCHANGE_DEADLINE.max(self.longest.saturating_mul(TIMES_LONGEST));
        let everyone = 0..self.share.world_size();
        let is_surveyed = self.config.sam.rho > 0.0 && self.config.telemetry.is_due(step.0 + 1);
        let mut clock = Clock::start(is_surveyed);
        let w = state.weights();
        let seats = Seats::new(self.buffers.place(), &w, self.streams)?;
        let surveyed = if is_surveyed { Some(w.host()?) } else { None };
        let watch = Watch::new(self.scope, &self.plan, step, surveyed.as_deref(), self.rungs.as_ref());
        clock.lap_survey();
        let mut gathered = self.nothing_yet(peers, step, after, watch, clock)?;
        let mut fault = Fault::NONE;

        enter(Phase::Ascent);
        let mut in_flight = Vec::new();
        for (number, part) in self.share.shared().to_vec().into_iter().enumerate() {
            let batches = self.examples(step, &part, &mut gathered.clock);
            let seat = seats.of(number);
            let ascent = self.ascent(peers, step, seat, &part, &batches, &mut gathered); // this rank's part of g_v at w
            in_flight.push((self.exchange(peers, step, &part, ascent, &mut gathered)?, batches, part));
        }

        for (number, part) in self.share.own().to_vec().into_iter().enumerate() {
            enter(Phase::Ascent);
            let seat = seats.of(number);
            let batches = self.examples(step, &part, &mut gathered.clock);
            let done = if self.config.sam.rho == 0.0 {
                self.plain(seat, &part, &batches, &mut gathered)
            } else {
                self.ascent(peers, step, seat, &part, &batches, &mut gathered).and_then(|ascent| {
                    enter(Phase::Descent);
                    self.descend(step, seat, &part, &batches, ascent.finish()?, &mut gathered) // h_v at w + epsilon_v
                })
            };
            fault = fault.min(settle(done)?);
            self.climb(peers, step, &w, &mut gathered, false, deadline)?;
        }

        // Before others are waited for, which is no part of how fast this rank computes.
        fault = fault.min(self.settle_descents(&mut gathered)?);
        for (number, (pending, batches, part)) in in_flight.into_iter().enumerate() {
            enter(Phase::Exchange);
            let (ascent, lane_fault) = pending.wait(deadline)?; // g_v, the same on every rank that shares it
            gathered.clock.lap(|s| &mut s.exchange);
            enter(Phase::Descent);
            fault = fault.min(lane_fault);
            if lane_fault.is_none() {
                let seat = seats.of(number);
                let ascent = seat.place.holding(floats(ascent))?;
                let done = self.descend(step, seat, &part, &batches, ascent, &mut gathered);
                fault = fault.min(settle(done)?);
            }
        }

        fault = fault.min(self.settle_descents(&mut gathered)?);
        self.climb(peers, step, &w, &mut gathered, true, deadline)?;
        drop(seats);
        enter(Phase::Reduce);
        let Gathered { descent, tally, mut watch, mut clock, .. } = gathered;
        self.send(&descent, fault)?;
        clock.lap(|s| &mut s.reduce);
        let survey = watch.send(peers, step, if is_surveyed { Some(w.host()?) } else { None }.as_deref());
        clock.lap_survey();
        let tally = peers.all_reduce(step, Bucket::TALLY, everyone, tally.into_payload(watch.words()), fault);
        // G, the same bits on every rank
        let (Reduction { gradient, fault, travelled }, tally) = self.reduced(descent, tally, deadline)?;
        clock.lap(|s| &mut s.reduce);
        if let Some(error) = StepError::of_fault(fault, &self.plan, &self.model) {
            return Err(error); // every rank alike
        }
        let integers = integers(tally);
        let (tally, words) = Totals::read(&integers, self.model.statistics().len());
        let survey = survey.map(|survey| survey.wait(deadline)).transpose()?;
        let reduced = survey.as_ref().zip(surveyed.as_deref());
        let mut telemetry = watch.told(&self.plan, &self.config, &self.perturbation, words, reduced);
        clock.lap_survey();
        if let Some(survey) = &mut telemetry.survey {
            survey.seconds = clock.survey;
        }
        drop(surveyed);
        drop(w);
        if (step.0 + 1).is_multiple_of(self.config.cluster.verify_every_steps) && peers.identity().world_size > 1 {
            verify(state.as_it_lies()?, peers, Bucket::VERIFICATION)?; // before w takes what a rank that deviates added to G
        }

        enter(Phase::Update);
        let Totals { clean_loss, statistics, .. } = &tally;
        // After the update nothing may fail any more.
        let gradient = if self.audience.is_empty() { gradient } else { Flat::Host(gradient.into_host()?) };
        let (lr, gradient_norm) = state.update(&gradient, (statistics, *clean_loss), &self.config, self.finish)?;
        self.buffers.give(self.audience.tell(state.step(), gradient, statistics, *clean_loss));
        clock.lap(|s| &mut s.update);
        self.longest = self.longest.max(begun.elapsed());

        Ok(StepOutcome {
            clean_loss: tally.clean_loss,
            perturbed_loss: tally.perturbed_loss,
            lr,
            gradient_norm,
            epsilon_norm: tally.epsilon_norm,
            zero_gradient_lanes: tally.zero_gradient_lanes,
            telemetry,
            after: tally.after,
            travelled,
            seconds: clock.seconds,
        })
    }

    /// What a step has gathered before its first pass.
    fn nothing_yet(
        &self,
        peers: &Arc<Collective>,
        step: Step,
        after: After,
        watch: Watch,
        clock: Clock,
    ) -> Result<Gathered, GpuError> {
        let place = self.buffers.place();
        Ok(Gathered {
            descent: Descent::new(self.config.cluster.reduce, &self.pieces, peers, step, place)?,
            tally: Tally::new(self.model.statistics().len(), after),
            watch,
            clock,
            later: Later::new(place),
        })
    }

    /// Waits for what a device has yet to tell of the descents that were asked for; what has left it is sent on.
    fn settle_descents(&self, gathered: &mut Gathered) -> Result<Fault, GpuError> {
        gathered.descent.send_leaving()?;
        self.settle_later(gathered, |s| &mut s.descent)
    }

    /// Sends what is left of the descent gradient, unless the GPUs sum it once every rank has come there.
    fn send(&self, descent: &Descent, fault: Fault) -> Result<(), GpuError> {
        if self.gpus.is_some() { Ok(()) } else { descent.send_rest(fault, || self.buffers.take_host()) }
    }

    /// Waits for the sum of the descent gradients, the same bits on every rank, and for the tally.
    fn reduced(
        &mut self,
        descent: Descent,
        tally: Pending,
        deadline: Duration,
    ) -> Result<(Reduction, Reduced), StepError> {
        if let Some(gpus) = &mut self.gpus {
            let (tally, told) = tally.wait(deadline)?; // every rank has come here
            return Ok((descent.sum_by(gpus, told, deadline)?, tally));
        }
        let reduction = descent.wait(|| self.buffers.take_host(), deadline)?;
        let (tally, told) = tally.wait(deadline)?;
        // Also of a rank whose pieces had all left when it found it.
        Ok((Reduction { fault: reduction.fault.min(told), ..reduction }, tally))
    }

    /// Sends this rank's part of a shared lane's ascent gradient on its way; a fault travels with zeros.
    fn exchange(
        &self,
        peers: &Collective,
        step: Step,
        part: &LanePart,
        ascent: Result<LaneSum, Interrupted>,
        gathered: &mut Gathered,
    ) -> Result<Pending, StepError> {
        let found = self.settle_later(gathered, |s| &mut s.ascent)?;
        let ascent = if found.is_none() { ascent } else { Err(Interrupted::Fault(found)) };
        let (sum, fault) = match ascent {
            Ok(sum) => (sum, Fault::NONE),
            Err(Interrupted::Fault(fault)) => {
                let pieces = self.plan.lanes()[part.lane].micro_batches.len();
                let (reduce, len) = (self.config.cluster.reduce, self.model.parameters().len());
                (LaneSum::new(reduce, pieces, len, &Place::default())?, fault)
            }
            Err(Interrupted::Model(error)) => return Err(error.into()),
        };
        Ok(peers.all_reduce(step, Bucket::lane(part.lane as u32), part.ranks.clone(), sum.into_payload()?, fault))
    }
}

/// A fault is carried on to the reduction; the model's own error ends the step here.
fn settle(done: Result<(), Interrupted>) -> Result<Fault, StepError> {
    match done {
        Ok(()) => Ok(Fault::NONE),
        Err(Interrupted::Fault(fault)) => Ok(fault),
        Err(Interrupted::Model(error)) => Err(error.into()),
    }
}

fn floats(reduced: Reduced) -> Vec<f32> {
    match reduced {
        Reduced::Floats(values) => values,
        Reduced::Integers(_) => unreachable!("a gradient is reduced to floats"),
    }
}

fn integers(reduced: Reduced) -> Vec<i64> {
    match reduced {
        Reduced::Integers(values) => values,
        Reduced::Floats(_) => unreachable!("a tally is reduced to integers"),
    }
}
