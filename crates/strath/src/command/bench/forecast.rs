//! What a step takes with so many workers: the measured time of a rank's computing and the predicted time of what ranks exchange.
//!
//! ```text
//! step = computing of the slowest host + exchange of shared lanes that no computing hides + reduction + the rest
//! ```
//!
//! A host computes for as long as its busiest rank does, or, where its ranks have more threads than it has cores, for as long as the cores
//! need for all of them.

use std::ops::Range;

use strath_collective::Choice;
use strath_collective::choice::{Message, choose};
use strath_collective::cost::{Load, Scheme, Spread, seconds};
use strath_collective::packing::Encoding;
use strath_collective::rates::Rates;
use strath_core::config::{Algorithm, Reduce};
use strath_core::{Assignment, Plan};

use super::compute::Compute;

/// What a forecast is about.
#[derive(Debug, Clone)]
pub struct Job {
    /// Values of the gradient.
    pub parameters: usize,
    /// Integers of the tally that travels beside it.
    pub tally: usize,
    /// `cluster.reduce`
    pub reduce: Reduce,
    /// `cluster.algorithm`
    pub algorithm: Algorithm,
    /// Whether the ranks that share a lane exchange its ascent gradient.
    pub has_epsilon: bool,
    /// Workers of a host.
    pub per_host: u32,
    /// Compute threads of a worker.
    pub threads: usize,
    /// Cores of a host.
    pub cores: usize,
}

/// A step with so many workers.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// Workers.
    pub workers: u32,
    /// Hosts that they fill.
    pub hosts: u32,
    /// Examples of the batch.
    pub batch: usize,
    /// Seconds of computing.
    pub compute: f64,
    /// Seconds of the exchange of shared lanes that are waited for.
    pub exchange: f64,
    /// Seconds of the reduction.
    pub reduce: f64,
    /// Seconds of the step.
    pub step: f64,
    /// The algorithm of the reduction; none with one worker.
    pub algorithm: Option<Choice>,
    /// The best algorithm whose latency grows with log N, and the seconds that the gradient would take by it.
    pub logarithmic: Option<(Scheme, f64)>,
    /// Seconds that the gradient takes by the chosen one.
    pub gradient: f64,
}

impl Forecast {
    /// Images a second.
    pub fn images_per_s(&self) -> f64 {
        self.batch as f64 / self.step
    }

    /// Images a second of a worker over those of one worker alone.
    pub fn efficiency(&self, alone: &Self) -> f64 {
        self.images_per_s() / f64::from(self.workers) / alone.images_per_s()
    }
}

impl Job {
    /// Predicts a step on `plan`; `rates` are those of a host with as many workers as here.
    pub fn forecast(&self, plan: &Plan, workers: u32, compute: &Compute, rates: &Rates) -> Forecast {
        let assignment = Assignment::balanced(plan, workers as usize);
        let held: Vec<usize> = assignment.bounds().windows(2).map(|pair| pair[1] - pair[0]).collect();
        let most = held.iter().copied().max().unwrap_or(0);
        let spread = Spread::filled(workers, self.per_host);
        let hosts = held.chunks(self.per_host as usize);
        let computing = hosts.map(|held| self.host(held, compute)).fold(0.0, f64::max);
        let mut forecast = Forecast {
            workers,
            hosts: spread.hosts,
            batch: plan.batch(),
            compute: computing,
            exchange: 0.0,
            reduce: compute.rounding(most),
            step: 0.0,
            algorithm: None,
            logarithmic: None,
            gradient: 0.0,
        };
        if workers > 1 {
            let encoding = match self.reduce {
                Reduce::Exact => Encoding::Exact,
                Reduce::F32 => Encoding::Floats,
                Reduce::Bf16 => Encoding::Halves,
            };
            let load = Load::new(encoding, self.parameters);
            let load = if most > 1 && self.reduce == Reduce::Exact { load.of_several() } else { load };
            let choice = self.choice(encoding, self.parameters, workers, spread, rates);
            forecast.gradient = seconds(Scheme::Built(choice), &load, &spread, rates);
            let tally = self.choice(Encoding::Integers, self.tally, workers, spread, rates);
            let integers = Load::new(Encoding::Integers, self.tally);
            forecast.reduce = forecast.gradient + seconds(Scheme::Built(tally), &integers, &spread, rates);
            forecast.algorithm = Some(choice);
            let logarithmic = [Scheme::HalvingDoubling, Scheme::Built(Choice::Doubling)];
            let priced = logarithmic.map(|scheme| (scheme, seconds(scheme, &load, &spread, rates)));
            forecast.logarithmic = priced.into_iter().min_by(|one, other| one.1.total_cmp(&other.1));
            if self.has_epsilon {
                forecast.exchange = self.exchange(plan, &assignment, &held, compute, rates);
            }
        }
        forecast.step = forecast.compute + forecast.exchange + forecast.reduce + compute.idle();
        forecast
    }

    /// Seconds in which a host whose ranks hold so many micro-batches computes.
    fn host(&self, held: &[usize], compute: &Compute) -> f64 {
        let busy = held.iter().filter(|k| **k > 0).count();
        let fit = (self.cores / self.threads).max(1);
        let beside = if compute.crowd > 1 {
            ((busy.min(fit).max(1) - 1) as f64 / (compute.crowd - 1) as f64).min(1.0)
        } else {
            0.0
        };
        let each = held.iter().map(|k| compute.seconds(*k, beside));
        let busiest = each.clone().fold(0.0, f64::max);
        busiest.max(each.sum::<f64>() * self.threads as f64 / self.cores as f64)
    }

    /// The longest that a rank waits for the ascent gradients of lanes that it shares, computing its own lanes meanwhile.
    fn exchange(&self, plan: &Plan, assignment: &Assignment, held: &[usize], compute: &Compute, rates: &Rates) -> f64 {
        let bounds = assignment.bounds();
        let encoding = if self.reduce == Reduce::Exact { Encoding::Wide } else { Encoding::Floats };
        let load = Load::new(encoding, self.parameters);
        // Of each rank: seconds of its exchanges, micro-batches of shared lanes.
        let mut shared = vec![(0.0, 0); held.len()];
        for lane in plan.lanes() {
            let ranks = holders(bounds, &lane.micro_batches);
            if ranks.len() < 2 {
                continue;
            }
            let group = Spread::filled(ranks.len() as u32, self.per_host);
            let choice = self.choice(encoding, self.parameters, held.len() as u32, group, rates);
            let takes = seconds(Scheme::Built(choice), &load, &group, rates);
            for rank in ranks {
                let of_lane = lane.micro_batches.end.min(bounds[rank + 1]) - lane.micro_batches.start.max(bounds[rank]);
                shared[rank].0 += takes;
                shared[rank].1 += of_lane;
            }
        }
        let waits = held.iter().zip(shared).map(|(held, (takes, micro))| takes - compute.seconds(held - micro, 1.0));
        waits.fold(0.0, f64::max)
    }

    fn choice(&self, encoding: Encoding, values: usize, world_size: u32, spread: Spread, rates: &Rates) -> Choice {
        choose(self.algorithm, &Message { world_size, spread, encoding, values }, Some(rates)).0
    }
}

/// The ranks that hold some of these micro-batches.
fn holders(bounds: &[usize], micro_batches: &Range<usize>) -> Range<usize> {
    // Rank r holds bounds[r]..bounds[r + 1]; ranks without work are the last.
    let first = bounds.partition_point(|bound| *bound <= micro_batches.start) - 1;
    let past = bounds.partition_point(|bound| *bound < micro_batches.end);
    first..past
}

#[cfg(test)]
mod tests {
    use strath_collective::rates::Link;

    use super::super::compute::{Point, Seconds};
    use super::*;

    fn job(per_host: u32) -> Job {
        Job {
            parameters: 1 << 20,
            tally: 5,
            reduce: Reduce::Exact,
            algorithm: Algorithm::Auto,
            has_epsilon: true,
            per_host,
            threads: 1,
            cores: 2,
        }
    }

    /// A micro-batch takes 100 ms alone, 120 beside another; rounding 1 ms.
    fn compute() -> Compute {
        let seconds = |compute| Seconds { compute, reduce: 1e-3, idle: 0.0 };
        let point = |k: usize| {
            let k = k as f64;
            Point { micro_batches: k as usize, alone: seconds(0.1 * k), crowded: seconds(0.12 * k) }
        };
        Compute { points: vec![point(1), point(2)], crowd: 2 }
    }

    fn rates(gbit: f64) -> Rates {
        let near = Link { latency_s: 0.0, port_s_per_byte: 0.0, message_s: 5e-6, byte_s: 3e-10 };
        let far = Link { latency_s: 50e-6, port_s_per_byte: 8e-9 / gbit, ..near };
        Rates { near, far, add_s_per_byte: 5e-11, cores: 2.0 }
    }

    fn close(found: f64, want: f64) {
        assert!((found - want).abs() < 1e-6 * want, "found {found}, expected {want}");
    }

    #[test]
    fn ranks_beyond_the_cores_share_them_and_ranks_beyond_the_work_idle() {
        let plan = Plan::uniform(64, 8, None).unwrap();
        let of = |workers, per_host| job(per_host).forecast(&plan, workers, &compute(), &rates(1.0));
        close(of(1, 1).compute, 0.8);
        close(of(2, 2).compute, 0.48);
        // Eight micro-batches on two cores: as long whether two, four or eight ranks share them.
        close(of(4, 4).compute, 0.48);
        close(of(8, 8).compute, 0.48);
        close(of(8, 2).compute, 0.12);
        let idle = of(16, 2);
        close(idle.compute, 0.12);
        assert_eq!((idle.hosts, idle.batch), (8, 64));
        close(of(1, 1).step, 0.801);
        assert!(of(8, 2).efficiency(&of(1, 2)) < 1.0 && idle.efficiency(&of(1, 2)) < 0.5);
    }

    #[test]
    fn a_slow_link_shows_in_the_reduction_and_in_shared_lanes() {
        let own = Plan::uniform(64, 8, None).unwrap();
        let shared = Plan::uniform(64, 64, Some(8)).unwrap();
        let of = |plan: &Plan, gbit| job(1).forecast(plan, 2, &compute(), &rates(gbit));
        let bytes = f64::from(1 << 20);
        let slow = of(&own, 1.0);
        // Of several micro-batches six bytes a value to the owner and four back, half of the vector each.
        assert!((slow.gradient / (5.0 * bytes * 8e-9) - 1.0).abs() < 0.2, "{slow:?}");
        assert_eq!(slow.exchange, 0.0);
        // Sixteen bytes a value and four back.
        let wide = of(&shared, 1.0).exchange;
        assert!((wide / (10.0 * bytes * 8e-9) - 1.0).abs() < 0.2, "{wide}");
        assert!(of(&own, 10.0).reduce < 0.2 * slow.reduce);
    }

    #[test]
    fn lanes_are_held_by_the_ranks_that_the_plan_says() {
        for (batch, m, micro) in [(24, 4, 1), (64, 64, 8), (60, 12, 4), (8, 8, 8)] {
            let plan = Plan::uniform(batch, m, Some(micro)).unwrap();
            for workers in 1..20 {
                let assignment = Assignment::balanced(&plan, workers);
                for lane in plan.lanes() {
                    let want = assignment.ranks_of(lane);
                    let found = holders(assignment.bounds(), &lane.micro_batches);
                    assert_eq!(found, want.start as usize..want.end as usize, "{batch} {m} {micro} over {workers}");
                }
            }
        }
    }
}
