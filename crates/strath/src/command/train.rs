//! `strath train`

use std::path::{Path, PathBuf};

use clap::Args;
use strath_core::config::{Config, Effective, LaneSizes, Reduce};
use strath_node::coordinator::{CoordinatorSettings, RunEnd};
use strath_node::local::{LocalWorkers, part};
use strath_node::summary::Summary;
use strath_protocol::Gather;
use strath_protocol::message::Job;

use super::report;
use crate::configuration::{Changes, OutArguments, workers_flag};
use crate::opening::{Opened, open};
use crate::outcome::Failure;
use crate::telling;
use crate::{log, runtime};

/// Train on this machine: a coordinator and worker processes over loopback
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strath train                                     the built-in digits
  strath train configs/fashion-mnist.toml --workers 4
  strath train configs/digits.toml --set sam.rho=0 --out runs/plain
  strath train configs/digits.toml --out runs/digits --resume")]
pub struct Train {
    /// A configuration file [default: the built-in digits]
    config: Option<PathBuf>,
    /// Worker processes to start; the same as --set cluster.workers=N.
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Write what each rank did when, as a Chrome trace.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Stop after a step once standard input ends: whoever started this run has ended.
    #[arg(long, hide = true)]
    orphan_stops: bool,
    /// Write no report.html at the end.
    #[arg(long)]
    no_report: bool,
    #[command(flatten)]
    changes: Changes,
    #[command(flatten)]
    out: OutArguments,
}

impl Train {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        let effective = self.changes.resolve(self.config.as_deref(), workers_flag(self.workers))?;
        telling::warn(effective.warnings());
        runtime::block_on(self.train(effective))
    }

    async fn train(self, effective: Effective) -> Result<(), Failure> {
        let config = effective.config;
        let Some(Opened { folder, start }) = open(&config, &self.out)? else { return Ok(()) };
        let path = folder.path().to_path_buf();
        let listener = runtime::listen(runtime::LOOPBACK)?;
        let address = listener.local_addr().map_err(Failure::other)?;
        let token = runtime::token()?;
        let program = std::env::current_exe().map_err(Failure::other)?;
        let workers = config.cluster.workers;
        let logs = path.join("logs");
        let traces = self.trace.as_deref().map(|_| logs.as_path());
        let local = LocalWorkers::start(&program, workers, address, &token, &logs, &log::flag(), traces)
            .await
            .map_err(Failure::other)?;
        let settings = CoordinatorSettings {
            config: config.clone(),
            listener,
            folder: Some(folder),
            job: Job::Train,
            gather: Gather::Exactly(workers),
            tls: None,
            token: Some(token),
            ring_key: runtime::ring_key()?,
            start,
            local: Some(local),
        };
        let stop = if self.orphan_stops { runtime::stop_signals_or_orphaned() } else { runtime::stop_signals() }?;
        let end = strath_node::coordinator::run(settings, telling::observer(), stop).await;
        if let Some(trace) = &self.trace {
            let parts: Vec<PathBuf> = (0..workers).map(|index| part(&logs, index)).collect();
            strath_node::trace::merge(&parts, trace).map_err(Failure::other)?;
            log::say(&format!(
                "trace of every rank: {}; open it in ui.perfetto.dev or chrome://tracing",
                trace.display()
            ));
        }
        finish(end?, &path, &config, !self.no_report)
    }
}

/// The report and the last words of a run that ended in order.
pub fn finish(end: RunEnd, path: &Path, config: &Config, reports: bool) -> Result<(), Failure> {
    match end {
        RunEnd::Done(summary) => {
            // What was trained is not lost by a page that could not be written.
            let report = reports.then(|| report::of_run(path, path));
            if let Some(Err(failure)) = &report {
                log::warn(&format!("no report was written: {}", failure.message()));
            }
            telling::print(&last_words(&summary, path, config, matches!(report, Some(Ok(_)))))
        }
        RunEnd::Stopped(Some(step)) => {
            Err(Failure::Stopped(format!("stopped after step {step}; continue with --resume --out {}", path.display())))
        }
        RunEnd::Stopped(None) => Err(Failure::Stopped("stopped before a step was taken".into())),
        RunEnd::Evaluated(_) | RunEnd::Measured(_) => Ok(()),
    }
}

/// What was learned, where the files are and what to try next.
fn last_words(summary: &Summary, path: &Path, config: &Config, is_reported: bool) -> String {
    let mut lines = Vec::new();
    let folder = telling::short(path);
    let worlds: Vec<String> = summary.world_sizes.iter().map(ToString::to_string).collect();
    lines.push(format!(
        "test error {:.2} %   test loss {:.4}   train loss {:.4}   {} steps, {:.1} epochs, {:.1} s, {:.0} images/s on {} workers",
        100.0 * summary.test_error,
        summary.test_loss,
        summary.train_loss,
        summary.steps,
        summary.epochs,
        summary.seconds,
        summary.images_per_s,
        worlds.join(" and "),
    ));
    if let (Some(below), "run.stop_loss") = (config.run.stop_loss, summary.ended_by) {
        lines.push(format!("ended by run.stop_loss, as the last epoch's mean loss is below {below}"));
    }
    lines.push(format!("weights_sha256 {}", summary.weights_sha256));
    lines.push(String::new());
    lines.push(format!("{folder}/"));
    lines.push("  final.safetensors   the model; PyTorch and candle load it".into());
    lines.push(format!("  metrics.jsonl       every step and evaluation; the same for: tensorboard --logdir {folder}"));
    lines.push(
        "  config.toml         the whole configuration; training with it repeats this run to the same bits".into(),
    );
    if is_reported {
        lines.push("  report.html         its curves and numbers on one page".into());
    }
    lines.push(String::new());
    lines.push("Next:".into());
    let m = match &config.sam.m {
        LaneSizes::Each(m) if *m >= 4 && m.is_multiple_of(4) => m / 4,
        _ => config.batch.size,
    };
    // As this program was called: it may not be on the path.
    let program = std::env::args().next().unwrap_or_else(|| "strath".into());
    let source = format!("{program} train {folder}/config.toml");
    if config.sam.rho > 0.0 {
        lines.push(format!("  {source} --set sam.rho=0     the plain optimizer, same seed"));
        lines.push(format!("  {source} --set sam.m={m}     another m, same everything else"));
    } else {
        lines.push(format!("  {source} --set sam.rho=0.05  sharpness-aware, same seed"));
    }
    let workers = config.cluster.workers + 1;
    let bits = match config.cluster.reduce {
        Reduce::Exact => "other workers, the same weights_sha256",
        Reduce::F32 | Reduce::Bf16 => "other workers; only cluster.reduce=exact gives the same bits",
    };
    lines.push(format!("  {source} --workers {workers}     {bits}"));
    lines.join("\n") + "\n"
}
