//! `strath train`

use std::path::PathBuf;

use clap::Args;
use strath_core::config::{Effective, LaneSizes};
use strath_node::coordinator::{CoordinatorSettings, RunEnd, start_from_init};
use strath_node::local::LocalWorkers;
use strath_node::summary::Summary;
use strath_protocol::Gather;
use strath_protocol::message::Job;

use crate::configuration::{Changes, OutArguments};
use crate::opening::{Opened, open};
use crate::outcome::Failure;
use crate::runtime;
use crate::telling;

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
    #[command(flatten)]
    changes: Changes,
    #[command(flatten)]
    out: OutArguments,
}

impl Train {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        let effective = self.changes.resolve(self.config.as_deref(), self.workers)?;
        telling::warn(effective.warnings());
        runtime::block_on(self.train(effective))
    }

    async fn train(self, effective: Effective) -> Result<(), Failure> {
        let config = effective.config;
        let Some(Opened { folder, start }) = open(&config, &self.out)? else { return Ok(()) };
        let start = match start {
            Some(start) => Some(start),
            None => start_from_init(&config).map_err(Failure::other)?,
        };
        let path = folder.path().to_path_buf();
        let listener = runtime::listen("127.0.0.1:0")?;
        let address = listener.local_addr().map_err(Failure::other)?;
        let token = runtime::token()?;
        let program = std::env::current_exe().map_err(Failure::other)?;
        let workers = config.cluster.workers;
        let local = LocalWorkers::start(&program, workers, address, &token, &path.join("logs"))
            .await
            .map_err(Failure::other)?;
        let settings = CoordinatorSettings {
            config: config.clone(),
            listener,
            folder: Some(folder),
            job: Job::Train,
            gather: Gather::Exactly(workers),
            token: Some(token),
            start,
            local: Some(local),
        };
        let end = strath_node::coordinator::run(settings, telling::observer(), runtime::stop_signals()?).await;
        finish(end.map_err(Failure::other)?, &path, &config)
    }
}

/// The last words of a run that ended in order.
pub fn finish(end: RunEnd, path: &std::path::Path, config: &strath_core::config::Config) -> Result<(), Failure> {
    match end {
        RunEnd::Done(summary) => {
            tell_summary(&summary, path, config);
            Ok(())
        }
        RunEnd::Stopped(Some(step)) => {
            Err(Failure::Stopped(format!("stopped after step {step}; continue with --resume --out {}", path.display())))
        }
        RunEnd::Stopped(None) => Err(Failure::Stopped("stopped before the first step".into())),
        RunEnd::Evaluated(_) => Ok(()),
    }
}

fn tell_summary(summary: &Summary, path: &std::path::Path, config: &strath_core::config::Config) {
    let folder = telling::short(path);
    let worlds: Vec<String> = summary.world_sizes.iter().map(ToString::to_string).collect();
    println!(
        "test error {:.2} %   test loss {:.4}   train loss {:.4}   {} steps, {:.1} epochs, {:.1} s, {:.0} images/s on {} workers",
        100.0 * summary.test_error,
        summary.test_loss,
        summary.train_loss,
        summary.steps,
        summary.epochs,
        summary.seconds,
        summary.images_per_s,
        worlds.join(" and "),
    );
    println!("weights_sha256 {}", summary.weights_sha256);
    println!();
    println!("{folder}/");
    println!("  final.safetensors   the model; PyTorch and candle load it");
    println!("  metrics.jsonl       every step and evaluation; the same for: tensorboard --logdir {folder}");
    println!("  config.toml         the whole configuration; training with it repeats this run to the same bits");
    println!();
    println!("Next:");
    let m = match &config.sam.m {
        LaneSizes::Each(m) if *m >= 4 && m.is_multiple_of(4) => m / 4,
        _ => config.batch.size,
    };
    // As this program was called: it may not be on the path.
    let program = std::env::args().next().unwrap_or_else(|| "strath".into());
    let source = format!("{program} train {folder}/config.toml");
    if config.sam.rho > 0.0 {
        println!("  {source} --set sam.rho=0     the plain optimizer, same seed");
        println!("  {source} --set sam.m={m}     another m, same everything else");
    } else {
        println!("  {source} --set sam.rho=0.05  sharpness-aware, same seed");
    }
    println!("  {source} --workers {}     other workers, the same weights_sha256", config.cluster.workers + 1);
}
