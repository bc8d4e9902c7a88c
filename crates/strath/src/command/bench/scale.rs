//! `strath bench scale`: what a step would take with more workers, by the measured speed of this machine and the cost model of the
//! collective.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use strath_collective::cost::Scheme;
use strath_collective::rates::{Link, Rates};
use strath_core::Plan;
use strath_core::config::{Config, LaneSizes};
use strath_model::{Method, Model};

use super::allreduce::local_rates;
use super::compute::Compute;
use super::forecast::{Forecast, Job};
use crate::configuration::Changes;
use crate::outcome::Failure;
use crate::telling;

/// Predicted step time, efficiency and best algorithm from one worker up to thousands
#[derive(Debug, Args)]
#[command(after_help = "\
It trains for a moment with one worker, alone and on all cores at once, has workers on this machine
measure their links, and predicts the rest: hosts like this one, --per-host workers on each, joined by
links of --link-gbit and --latency-us. A row takes the configuration's batch unless --grow-batch.

Columns: efficiency, images/s a worker over those of one worker alone; algorithm, what the reduction
takes; log N, the best of recursive doubling and halving-doubling, which are predicted and not built,
and what the gradient's sum takes by each. Worlds of more than 64 workers are predictions only.

Examples:
  strath bench scale configs/fashion-mnist.toml --workers 64 --per-host 8 --link-gbit 10
  strath bench scale configs/fashion-mnist.toml --workers 4096 --per-host 8 --link-gbit 100 --latency-us 5 --grow-batch
  strath bench scale --workers 4 --per-host 4 --json         this machine alone
  taskset -c 0 strath bench scale --workers 2 --per-host 1   hosts of one core")]
pub struct Scale {
    /// A configuration file [default: the built-in digits]
    #[arg(value_name = "CONFIG")]
    file: Option<PathBuf>,
    /// The same.
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    /// The most workers; rows are the powers of two up to it, and it.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=4096))]
    workers: u32,
    /// Workers of a host [default: its cores, over cluster.threads where that is set]
    #[arg(long, value_name = "H", value_parser = clap::value_parser!(u32).range(1..=64))]
    per_host: Option<u32>,
    /// Line rate of a host's link, each way, in Gbit/s.
    #[arg(long, value_name = "B", default_value_t = 10.0, value_parser = positive)]
    link_gbit: f64,
    /// Time of a message from host to host, one way, in microseconds.
    #[arg(long, value_name = "L", default_value_t = 50.0, value_parser = not_negative)]
    latency_us: f64,
    /// Let the batch grow with the workers: batch.size is that of cluster.workers.
    #[arg(long)]
    grow_batch: bool,
    /// Steps of each measurement; the first five are left out.
    #[arg(long, value_name = "K", default_value_t = 25, value_parser = clap::value_parser!(u64).range(6..=100_000))]
    steps: u64,
    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    changes: Changes,
}

fn positive(text: &str) -> Result<f64, String> {
    number(text, |value| value > 0.0, "a number above 0")
}

fn not_negative(text: &str) -> Result<f64, String> {
    number(text, |value| value >= 0.0, "a number of 0 or more")
}

fn number(text: &str, is_legal: impl Fn(f64) -> bool, what: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| value.is_finite() && is_legal(*value));
    value.ok_or_else(|| format!("found \"{text}\", expected {what}"))
}

/// Of what an Ethernet link carries, the share that is TCP's payload: 1448 of 1538 bytes, gap and preamble included.
const PAYLOAD_SHARE: f64 = 1448.0 / 1538.0;
/// Ranks that are started to measure; beyond so many a host is only more crowded.
const MOST_LOCAL: u32 = 16;
/// Integers of a tally beside the statistics of batch norm.
const TALLY: usize = 5;

impl Scale {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        let config = self.changes.resolve(self.file.as_deref().or(self.config.as_deref()), None)?.config;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let per_host = self.per_host.unwrap_or((cores / config.cluster.threads.unwrap_or(1)).clamp(1, 64) as u32);
        let threads = config.cluster.threads.unwrap_or(cores / per_host as usize).max(1);
        let rows: Vec<u32> =
            (0..u32::BITS).map(|power| 1 << power).take_while(|n| *n < self.workers).chain([self.workers]).collect();
        let plans: Vec<Plan> = rows.iter().map(|workers| self.plan(&config, *workers)).collect::<Result<_, _>>()?;
        let job = job(&config, per_host, threads, cores)?;
        let most =
            plans.iter().zip(&rows).map(|(plan, workers)| plan.micro_batches().len().div_ceil(*workers as usize));
        let crowd = (cores / threads).clamp(1, per_host as usize);
        let compute = Compute::measure(&config, most.max().unwrap_or(1), threads, crowd, self.steps)?;
        let mut local = BTreeMap::new();
        let mut forecasts = Vec::new();
        for (workers, plan) in rows.into_iter().zip(&plans) {
            let beside = workers.min(per_host).clamp(2, MOST_LOCAL);
            let near = match local.get(&beside) {
                Some(rates) => *rates,
                None => *local.entry(beside).or_insert(local_rates(beside)?),
            };
            forecasts.push(job.forecast(plan, workers, &compute, &self.rates(near, cores)));
        }
        telling::print(&if self.json { lines(&forecasts) } else { self.table(&config, &job, &forecasts) })
    }

    /// The batch of so many workers.
    fn plan(&self, config: &Config, workers: u32) -> Result<Plan, Failure> {
        let plan = config.plan().map_err(Failure::other)?;
        if !self.grow_batch {
            return Ok(plan);
        }
        let LaneSizes::Each(m) = config.sam.m else {
            return Err(Failure::Usage("--grow-batch needs lanes of one size: set sam.m to a number".into()));
        };
        let lanes = (plan.batch() * workers as usize).div_ceil(config.cluster.workers * m).max(1);
        Plan::uniform(lanes * m, m, config.batch.micro).map_err(Failure::other)
    }

    /// What was measured within a host, and what was given between hosts.
    fn rates(&self, near: Rates, cores: usize) -> Rates {
        let latency_s = 1e-6 * self.latency_us;
        let port_s_per_byte = 8e-9 / self.link_gbit / PAYLOAD_SHARE;
        Rates { far: Link { latency_s, port_s_per_byte, ..near.near }, cores: cores as f64, ..near }
    }

    fn table(&self, config: &Config, job: &Job, forecasts: &[Forecast]) -> String {
        let mut text = format!(
            "{} workers of {} threads a host of {} cores; {} Gbit/s and {} us between hosts; {} values, {} a step\n{:>7} {:>5} {:>7} {:>10} {:>10} {:>10} {:>10} {:>10} {:>6} {:>12} {:>26}\n",
            job.per_host,
            job.threads,
            job.cores,
            self.link_gbit,
            self.latency_us,
            job.parameters,
            config.batch.size,
            "workers",
            "hosts",
            "batch",
            "step ms",
            "compute",
            "exchange",
            "reduce",
            "images/s",
            "eff %",
            "algorithm",
            "log N (not built), ms"
        );
        for forecast in forecasts {
            let algorithm = forecast.algorithm.map_or("-", strath_collective::Choice::name);
            let logarithmic = forecast
                .logarithmic
                .map_or_else(|| "-".into(), |(scheme, s)| format!("{} {:.3}", scheme.name(), 1e3 * s));
            let _ = writeln!(
                text,
                "{:>7} {:>5} {:>7} {:>10.2} {:>10.2} {:>10.2} {:>10.2} {:>10.1} {:>6.1} {:>12} {:>26}",
                forecast.workers,
                forecast.hosts,
                forecast.batch,
                1e3 * forecast.step,
                1e3 * forecast.compute,
                1e3 * forecast.exchange,
                1e3 * forecast.reduce,
                forecast.images_per_s(),
                100.0 * forecast.efficiency(&forecasts[0]),
                algorithm,
                logarithmic
            );
        }
        text + &crossover(forecasts) + "\n"
    }
}

/// From how many workers on an algorithm with latency in log N would take less.
fn crossover(forecasts: &[Forecast]) -> String {
    // The model does not tell less apart.
    let wins = |f: &&Forecast| f.logarithmic.is_some_and(|(_, seconds)| seconds < 0.9 * f.gradient);
    match forecasts.iter().rev().take_while(|f| f.workers > 1).take_while(wins).last() {
        Some(first) => {
            let (scheme, seconds) = first.logarithmic.unwrap_or((Scheme::HalvingDoubling, 0.0));
            format!(
                "from {} workers on {} would sum the gradient faster: {:.3} ms in place of {:.3} ms (predicted, not built)",
                first.workers,
                scheme.name(),
                1e3 * seconds,
                1e3 * first.gradient
            )
        }
        None => "no algorithm whose latency grows with log N would be faster with the most workers".into(),
    }
}

fn lines(forecasts: &[Forecast]) -> String {
    let line = |forecast: &Forecast| -> Value {
        json!({
            "workers": forecast.workers,
            "hosts": forecast.hosts,
            "batch": forecast.batch,
            "step_ms": 1e3 * forecast.step,
            "compute_ms": 1e3 * forecast.compute,
            "exchange_ms": 1e3 * forecast.exchange,
            "reduce_ms": 1e3 * forecast.reduce,
            "images_per_s": forecast.images_per_s(),
            "efficiency": forecast.efficiency(&forecasts[0]),
            "algorithm": forecast.algorithm.map(strath_collective::Choice::name),
            "gradient_ms": 1e3 * forecast.gradient,
            "logarithmic": forecast.logarithmic.map(|(scheme, _)| scheme.name()),
            "logarithmic_ms": forecast.logarithmic.map(|(_, seconds)| 1e3 * seconds),
        })
    };
    forecasts.iter().map(|forecast| line(forecast).to_string() + "\n").collect()
}

fn job(config: &Config, per_host: u32, threads: usize, cores: usize) -> Result<Job, Failure> {
    let dataset = strath_data::Dataset::load(&config.data, config.run.seed).map_err(Failure::other)?;
    let model =
        Model::build(&config.model.kind, dataset.shape(), dataset.classes(), Method::Auto).map_err(Failure::other)?;
    Ok(Job {
        parameters: model.parameters().len(),
        tally: TALLY + model.statistics().len(),
        reduce: config.cluster.reduce,
        algorithm: config.cluster.algorithm,
        has_epsilon: config.sam.rho > 0.0,
        per_host,
        threads,
        cores,
    })
}
