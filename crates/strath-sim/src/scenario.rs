//! What a seed makes of a run: its shape, its workers, and what goes wrong when.

use std::path::Path;
use std::time::Duration;

use strath_core::Timestamp;
use strath_core::config::{Config, Layers};
use strath_protocol::message::Shortage;

use crate::draws::Draws;
use crate::fault::Fault;
use crate::network::{Host, Plane};
use crate::peers::Algorithm;

/// Examples of a micro-batch.
const MICRO: usize = 2;

/// A run and its faults.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Hosts that workers run on, from 1; the coordinator's is 0.
    pub hosts: u32,
    /// How many of them have a worker from the beginning.
    pub workers: u32,
    /// `cluster.min_workers`.
    pub min_workers: usize,
    /// Steps of the run.
    pub steps: u64,
    /// Micro-batches of a batch.
    pub micro_batches: usize,
    /// Steps between two checkpoints.
    pub checkpoint_every: u64,
    /// Steps between two comparisons of all states.
    pub verify_every: u64,
    /// Steps between two evaluations.
    pub evaluate_every: u64,
    /// Which all-reduce it uses.
    pub algorithm: Algorithm,
    /// Time that a micro-batch takes at full speed.
    pub micro_batch_takes: Duration,
    /// The speed of each host in percent of that, before and after `speeds_change`.
    speeds: Vec<[u32; 2]>,
    speeds_change: Timestamp,
    /// Its configuration.
    pub config: Config,
    /// What goes wrong when.
    pub faults: Vec<(Timestamp, Fault)>,
    /// From when on nothing goes wrong any more.
    pub calm: Timestamp,
    /// Whether hosts without a worker then get one, or those who are left have to do.
    pub is_reinforced: bool,
}

impl Scenario {
    /// Draws a run.
    pub fn draw(draws: &mut Draws) -> Self {
        let workers = draws.among(1, 5) as u32;
        let hosts = workers + draws.among(0, 1) as u32;
        let min_workers = if draws.percent(70) { 1 } else { draws.among(1, workers.into()) as usize };
        let (steps, micro_batches) = (draws.among(6, 40), draws.among(1, 6) as usize);
        let (checkpoint_every, lease_ms) = (draws.among(2, 20), draws.pick(&[500, 1000, 2000]));
        let mut scenario = Self {
            hosts,
            workers,
            min_workers,
            steps,
            micro_batches,
            checkpoint_every,
            verify_every: draws.among(1, 10),
            evaluate_every: draws.among(3, 15),
            algorithm: draws.pick(&[Algorithm::Ring, Algorithm::Ring, Algorithm::Direct, Algorithm::Exchange]),
            micro_batch_takes: draws.millis(3, 40),
            speeds: Vec::new(),
            speeds_change: Timestamp::default(),
            config: config(steps, micro_batches, checkpoint_every, lease_ms, min_workers),
            faults: Vec::new(),
            calm: Timestamp::default(),
            is_reinforced: draws.percent(80),
        };
        // Faults come soon after one another, so that one is not over when the next comes, and now and then long after.
        let mut at = Timestamp(draws.millis(0, 500));
        for _ in 0..draws.among(1, 9) {
            let fault = scenario.fault(draws, lease_ms);
            scenario.faults.push((at, fault));
            at = at.after(if draws.percent(85) { draws.millis(0, 300) } else { draws.millis(300, 4000) });
        }
        scenario.calm = at.after(draws.millis(0, 1000));
        let mut speed = || if draws.percent(60) { 100 } else { draws.pick(&[25, 50, 70, 200]) };
        scenario.speeds = (0..=hosts).map(|_| [speed(), speed()]).collect();
        scenario.speeds_change = Timestamp(draws.millis(0, 4000));
        scenario
    }

    /// Draws a run whose only fault is that its network falls apart for a while: some of its workers reach each other, and so do the others, and all
    /// of them the coordinator.
    pub fn draw_apart(draws: &mut Draws) -> Self {
        let mut scenario = Self::draw(draws);
        scenario.workers = draws.among(3, 5) as u32;
        scenario.hosts = scenario.workers;
        scenario.speeds = vec![[100; 2]; scenario.hosts as usize + 1];
        scenario.min_workers = 1;
        (scenario.steps, scenario.micro_batches) = (draws.among(200, 400), 6);
        let lease_ms = draws.pick(&[500, 1000, 2000]);
        scenario.config = config(scenario.steps, 6, scenario.checkpoint_every, lease_ms, 1);
        let first = draws.among(1, u64::from(scenario.workers) - 1) as u32;
        let (at, lasting) = (Timestamp(draws.millis(200, 1500)), draws.millis(lease_ms, 20 * lease_ms));
        let pairs = (1..=first).flat_map(|one| (first + 1..=scenario.workers).map(move |other| (one, other)));
        let parts = |(one, other)| (at, Fault::Parts { one: Host(one), other: Host(other), both: true, lasting });
        scenario.faults = pairs.map(parts).collect();
        scenario.calm = at.after(lasting);
        scenario
    }

    /// Time that a micro-batch takes on a host.
    pub fn micro_batch_takes(&self, host: Host, now: Timestamp) -> Duration {
        let [before, after] = self.speeds[host.0 as usize];
        self.micro_batch_takes * 100 / if now < self.speeds_change { before } else { after }
    }

    /// Images a second of that.
    pub fn images_per_s(&self, host: Host, now: Timestamp) -> f64 {
        MICRO as f64 / self.micro_batch_takes(host, now).as_secs_f64()
    }

    fn fault(&self, draws: &mut Draws, lease_ms: u64) -> Fault {
        let host = Host(draws.among(1, self.hosts.into()) as u32);
        let any = Host(draws.among(0, self.hosts.into()) as u32);
        let other = Host((any.0 + draws.among(1, self.hosts.into()) as u32) % (self.hosts + 1));
        // Shorter than a lease, about as long, and longer.
        let lasting = draws.millis(1, 5 * lease_ms / 2);
        match draws.among(0, 99) {
            0..20 => Fault::Crashes {
                host,
                silently: draws.percent(30),
                back_after: draws.percent(70).then(|| draws.millis(10, 3000)),
            },
            20..38 => Fault::Stalls { host: if draws.percent(20) { Host(0) } else { host }, lasting },
            38..42 => {
                // As long as is borne of short steps, and longer, or hardly any time.
                let (least, most) = draws.pick(&[(4, 8), (4, 8), (0, 1)]);
                Fault::Hangs { host, lasting: draws.millis(least * lease_ms, most * lease_ms) }
            }
            42..56 => Fault::Parts { one: any, other, both: draws.percent(60), lasting },
            56..70 => Fault::Resets { plane: draws.pick(&[Plane::Control, Plane::Data]), one: any, other },
            70..76 => Fault::Slows { one: any, other, by: draws.millis(1, 300), lasting },
            76..80 => Fault::Leaves(host),
            80..84 => Fault::Drains { host, shortage: draws.pick(&[Shortage::Refuse, Shortage::Accept]) },
            84..89 => Fault::Joins(host),
            89..95 => Fault::Strays(host),
            95..98 => Fault::CoordinatorCrashes { silently: draws.percent(30), back_after: draws.millis(10, 3000) },
            _ => Fault::OwnerStops,
        }
    }
}

fn config(steps: u64, micro_batches: usize, checkpoint_every: u64, lease_ms: u64, min_workers: usize) -> Config {
    let text = format!(
        "[run]\nsteps = {steps}\n[data]\nkind = \"digits\"\n[model]\nkind = \"convnet\"\n[batch]\nsize = {}\n[sam]\nm = {MICRO}\n\
         [checkpoint]\nevery_steps = {checkpoint_every}\n[cluster]\nlease_ms = {lease_ms}\nmin_workers = {min_workers}\nrejoin_timeout_s = 30\n",
        MICRO * micro_batches
    );
    let layers = Layers::new().file(&text, "simulated", Path::new("/")).and_then(Layers::resolve);
    layers.expect("every run that is drawn has a configuration that holds").config
}
