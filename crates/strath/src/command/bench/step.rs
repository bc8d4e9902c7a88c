//! `strath bench step`: where the time of a step goes, and how fast each part is beside what the machine can do.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use strath_core::config::{Config, OptimizerKind};
use strath_core::{Assignment, ImageShape, Rank};
use strath_cuda::Gpu;
use strath_kernels::isa::Isa;
use strath_model::{Method, Model, Work};
use strath_node::summary::median;
use strath_node::{device, prepare};

use super::on_gpu;
use super::peaks::Peaks;
use super::trained::{self, Trained};
use crate::configuration::{Changes, workers_flag};
use crate::outcome::Failure;
use crate::telling;

/// Anatomy of a training step: time, GFLOP/s and GB/s of each part, beside this machine's peaks
#[derive(Debug, Args)]
#[command(after_help = "\
It trains for a moment, as strath train does, and looks at rank 0's metrics. Peaks are measured
just before and just after, the better counts: multiply-adds and a copy of one thread, or of the GPU.

Examples:
  strath bench step
  strath bench step configs/fashion-mnist.toml --workers 2 --set model.depth=20
  strath bench step configs/digits.toml --steps 100 --json")]
pub struct Step {
    /// A configuration file [default: the built-in digits]
    config: Option<PathBuf>,
    /// Worker processes.
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Steps to take; the first five are left out.
    #[arg(long, value_name = "K", default_value_t = 25, value_parser = clap::value_parser!(u64).range(6..=100_000))]
    steps: u64,
    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    changes: Changes,
}

/// The phases of a step, in the order in which they run, each with those of its metrics that it is made of.
const PHASES: [(&str, &[&str]); 7] = [
    ("data", &["data"]),
    ("ascent", &["ascent"]),
    ("epsilon", &["epsilon"]),
    ("exchange", &["exchange"]),
    ("descent", &["descent"]),
    ("reduce", &["reduce"]),
    ("update", &["update"]),
];

/// The same on a GPU, which computes while the host goes on: nobody waits between the passes to see how long each takes.
const PHASES_ON_GPU: [(&str, &[&str]); 5] = [
    ("data", &["data"]),
    ("passes", &["ascent", "epsilon", "descent"]),
    ("exchange", &["exchange"]),
    ("reduce", &["reduce"]),
    ("update", &["update"]),
];

impl Step {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        let config = self.changes.resolve(self.config.as_deref(), workers_flag(self.workers))?.config;
        // The workers pin themselves, and open their GPUs; the peaks beside them are this process's.
        prepare::pin(config.cluster.isa).map_err(Failure::other)?;
        let gpu = device::open(&config, 0).map_err(Failure::other)?;
        let measure = || match &gpu {
            Some(gpu) => on_gpu::peaks(gpu).map_err(Failure::other),
            None => Ok(Peaks::measure()),
        };
        let before = measure()?;
        let Trained { steps, footprint } = trained::steps(&config, self.steps, &[])?;
        let dataset = strath_data::Dataset::load(&config.data, config.run.seed).map_err(Failure::other)?;
        let peaks = before.better(measure()?);
        let amounts = Amounts::of(&config, dataset.shape(), dataset.classes())?;
        let step_ms = 1e3 * median(steps.iter().filter_map(|line| line["step_s"].as_f64()));
        let mut busy_ms = 0.0;
        let mut rows = Vec::new();
        let phases = if gpu.is_some() { &PHASES_ON_GPU[..] } else { &PHASES };
        for (phase, made_of) in phases {
            let seconds =
                |line: &Value| made_of.iter().map(|part| line[format!("{part}_s")].as_f64()).sum::<Option<f64>>();
            let ms = 1e3 * median(steps.iter().filter_map(seconds));
            busy_ms += ms;
            rows.push(amounts.row(phase, ms, step_ms, &peaks));
        }
        // Medians of parts need not add up to the median of the whole.
        rows.push(amounts.row("idle", (step_ms - busy_ms).max(0.0), step_ms, &peaks));
        let mut whole = amounts.row("step", step_ms, step_ms, &peaks);
        whole["faults_a_step"] = json!(footprint.faults_a_step);
        whole["peak_rss_mib"] = json!(footprint.peak_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20)));
        rows.push(whole);
        telling::print(&if self.json {
            lines(&rows)
        } else {
            table(&rows, &config, step_ms, &peaks, &whose(gpu.as_ref()))
        })
    }
}

/// What rank 0 computes and moves in a step.
struct Amounts {
    /// Operations of a forward and backward pass over its examples.
    flops: f64,
    /// How often a step does that.
    passes: f64,
    /// Bytes that epsilon and w + epsilon read and write.
    epsilon_bytes: f64,
    /// Bytes that the optimizer reads and writes.
    update_bytes: f64,
}

impl Amounts {
    fn of(config: &Config, shape: ImageShape, classes: usize) -> Result<Self, Failure> {
        let model = Model::build(&config.model.kind, shape, classes, Method::Auto).map_err(Failure::other)?;
        let plan = config.plan().map_err(Failure::other)?;
        let held = Assignment::balanced(&plan, config.cluster.workers).of(Rank(0));
        let mut flops = 0.0;
        for micro in &plan.micro_batches()[held.clone()] {
            flops += model.work(micro.size).map_err(Failure::other)?.iter().map(Work::pass_flops).sum::<f64>();
        }
        let lanes: std::collections::BTreeSet<usize> =
            plan.micro_batches()[held].iter().map(|micro| micro.lane).collect();
        let vector = 4.0 * model.parameters().len() as f64;
        // Gradient for the norm; gradient and weights in, w + epsilon out.
        let epsilon = if config.sam.rho > 0.0 { 4.0 } else { 0.0 };
        // Weights and gradient in, weights out, and each slot in and out.
        let slots = match config.optimizer.kind {
            OptimizerKind::Sgd { momentum, .. } => f64::from(u8::from(momentum > 0.0)),
            OptimizerKind::AdamW { .. } => 2.0,
        };
        Ok(Self {
            flops,
            passes: if config.sam.rho > 0.0 { 2.0 } else { 1.0 },
            epsilon_bytes: lanes.len() as f64 * epsilon * vector,
            update_bytes: (3.0 + 2.0 * slots) * vector,
        })
    }

    fn row(&self, phase: &str, ms: f64, step_ms: f64, peaks: &Peaks) -> Value {
        let mut row = json!({ "phase": phase, "ms": ms, "percent_of_step": 100.0 * ms / step_ms });
        let seconds = ms / 1e3;
        let flops = match phase {
            "ascent" | "descent" => self.flops,
            "passes" => self.passes * self.flops,
            _ => 0.0,
        };
        let bytes = match phase {
            "epsilon" => self.epsilon_bytes,
            "update" => self.update_bytes,
            _ => 0.0,
        };
        if flops > 0.0 && seconds > 0.0 {
            row["gflops"] = json!(flops / seconds / 1e9);
            row["percent_of_peak"] = json!(100.0 * flops / seconds / 1e9 / peaks.gflops);
        }
        if bytes > 0.0 && seconds > 0.0 {
            row["gbs"] = json!(bytes / seconds / 1e9);
            row["percent_of_copy"] = json!(100.0 * bytes / seconds / 1e9 / peaks.copy_gbs);
        }
        row
    }
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(Value::to_string).collect::<Vec<_>>().join("\n") + "\n"
}

/// Whose peaks they are.
fn whose(gpu: Option<&Gpu>) -> String {
    gpu.map_or_else(
        || format!("one thread's ({})", Isa::active()),
        |gpu| format!("{}'s ({})", gpu.name(), gpu.compute().name()),
    )
}

fn table(rows: &[Value], config: &Config, step_ms: f64, peaks: &Peaks, whose: &str) -> String {
    let number = |value: &Value, digits: usize| value.as_f64().map_or_else(|| "-".into(), |v| format!("{v:.digits$}"));
    let mut text = format!(
        "{} workers, batch {}: {:.1} images/s; {whose} peak {:.0} GFLOP/s, copy {:.1} GB/s\n{:10} {:>9} {:>7} {:>9} {:>8} {:>7} {:>8}\n",
        config.cluster.workers,
        config.batch.size,
        1e3 * config.batch.size as f64 / step_ms,
        peaks.gflops,
        peaks.copy_gbs,
        "phase",
        "ms",
        "% step",
        "GFLOP/s",
        "% peak",
        "GB/s",
        "% copy"
    );
    for row in rows {
        let _ = writeln!(
            text,
            "{:10} {:>9} {:>7} {:>9} {:>8} {:>7} {:>8}",
            row["phase"].as_str().unwrap_or_default(),
            number(&row["ms"], 2),
            number(&row["percent_of_step"], 1),
            number(&row["gflops"], 1),
            number(&row["percent_of_peak"], 0),
            number(&row["gbs"], 1),
            number(&row["percent_of_copy"], 0),
        );
    }
    if let Some(whole) = rows.last() {
        let (faults, peak) = (number(&whole["faults_a_step"], 1), number(&whole["peak_rss_mib"], 0));
        let _ = writeln!(text, "page faults a step of a worker {faults}, its peak resident memory {peak} MiB");
    }
    text
}
