//! `strath study`

mod afterwards;
mod cluster;
mod estimate;
mod folder;
mod found;
mod matching;
mod runner;

use std::path::{Path, PathBuf};

use clap::Args;
use strath_core::config::Layers;
use strath_study::study::{Plan, StudyFile};

use crate::configuration::environment;
use crate::outcome::Failure;
use crate::{log, runtime, telling};

use estimate::{Estimate, human};
use folder::StudyFolder;
use runner::Runner;

/// Run a sweep: every combination of what varies, several runs at once, one table
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strath study configs/studies/m-sharpness.toml
  strath study configs/studies/m-sharpness.toml --dry-run          what would run, and for how long
  strath study configs/studies/m-sharpness.toml --set study.quick=true
  strath study configs/studies/m-sharpness.toml --resume           goes on where it was
  strath study STUDY.toml --listen 10.0.0.1:7700 --certs DIR --workers 4     by other machines

A run that failed is tried once more. What came of all: results.csv, results.parquet, report.html.")]
pub struct Study {
    /// The study's file.
    #[arg(value_name = "STUDY")]
    file: PathBuf,
    /// The study's folder [default: studies/NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the study in the folder; finished runs stay.
    #[arg(long)]
    resume: bool,
    /// List the runs with their estimated time, and stop.
    #[arg(long)]
    dry_run: bool,
    /// Runs at once [default: what the processors allow]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Worker processes of each run [default: what --jobs leaves over]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    workers: Option<u16>,
    #[command(flatten)]
    cluster: cluster::ClusterArguments,
    /// Sets one key of the study (study.quick=true) or of its base.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Study {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        let (file, text, plan) = self.plan()?;
        let estimate = Estimate::of(&plan)?;
        let cluster = self.cluster.checked()?;
        let (jobs, workers) = match cluster {
            // All workers that there are take part in each run.
            Some(_) => (1, self.workers.map_or(1, usize::from)),
            None => self.at_once(&plan),
        };
        if let Some(error) = estimate.unknown() {
            if !self.dry_run {
                return Err(Failure::other(error));
            }
            log::warn(&format!("{error}; how long the runs take is not known without"));
        }
        if self.dry_run {
            return telling::print(&listed(&file, &plan, &estimate, jobs));
        }
        let out = self.out.clone().unwrap_or_else(|| Path::new("studies").join(&file.study.name));
        // What the command line changes is part of the study that is kept.
        let changes = self.set.iter().map(|change| format!("# --set {change}"));
        let kept = std::iter::once(text).chain(changes).collect::<Vec<_>>().join("\n");
        let folder = StudyFolder::open(&out, self.resume, &kept)?;
        log::say(&format!(
            "{}: {} runs ({} arms, {} seeds), {jobs} at once on {workers} worker{} each, about {}",
            file.study.name,
            plan.runs.len(),
            plan.arms.len(),
            file.seeds().map_err(Failure::usage)?.len(),
            if workers == 1 { "" } else { "s" },
            human(estimate.total().map(|total| total / jobs as f64)),
        ));
        let (measures, measuring) =
            (&file.study.measure[..], if cluster.is_some() { self.at_once(&plan).0 } else { workers });
        let runner =
            Runner { folder: &folder, plan: &plan, measures, estimate: &estimate, jobs, workers, measuring, cluster };
        runtime::block_on(async {
            let end = runner.run().await?;
            found::write(&file, &plan, &folder)?;
            match end {
                runner::End::Stopped => Err(Failure::Stopped(format!("stopped; continue with: {}", resumed()))),
                runner::End::Done { failed } if failed.is_empty() => Ok(()),
                runner::End::Done { failed } => Err(Failure::Other(format!(
                    "{} of {} runs failed twice: {}",
                    failed.len(),
                    plan.runs.len(),
                    failed.join("; ")
                ))),
            }
        })
    }

    /// The study's file, its text as it is kept, and its runs.
    fn plan(&self) -> Result<(StudyFile, String, Plan), Failure> {
        let name = self.file.display().to_string();
        let text = std::fs::read_to_string(&self.file)
            .map_err(|error| Failure::Usage(format!("cannot read the study {name}: {error}")))?;
        let here = std::env::current_dir().map_err(Failure::other)?;
        let folder = here.join(&self.file).parent().map_or_else(|| here.clone(), Path::to_path_buf);
        let (of_study, of_base): (Vec<&String>, Vec<&String>) =
            self.set.iter().partition(|assignment| assignment.trim_start().starts_with("study."));
        let file = StudyFile::parse(&text, &name, &of_study).map_err(Failure::usage)?;
        let (base, base_name) = match &file.base {
            toml::Value::String(path) => {
                let path = folder.join(path);
                let text = std::fs::read_to_string(&path)
                    .map_err(|error| Failure::Usage(format!("cannot read base = {}: {error}", path.display())))?;
                (text, path.display().to_string())
            }
            tables => (toml::to_string(tables).map_err(Failure::usage)?, format!("{name}, [base]")),
        };
        let layers = Layers::new().file(&base, &base_name, &folder)?.environment(environment(), &here)?;
        let layers = of_base.iter().try_fold(layers, |layers, assignment| layers.set(assignment, &here))?;
        let mut plan = Plan::of(&file, layers, &folder).map_err(Failure::usage)?;
        matching::match_lifts(&mut plan)?;
        Ok((file, text, plan))
    }

    /// Runs at once, and workers of each.
    fn at_once(&self, plan: &Plan) -> (usize, usize) {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = plan.runs.iter().map(|run| run.config.cluster.threads.unwrap_or(1)).max().unwrap_or(1);
        let places = (cores / threads).max(1);
        // Runs side by side exchange nothing: as long as there are enough of them, they are the better use of the processors.
        let workers = self.workers.map(usize::from);
        let jobs =
            self.jobs.map_or_else(|| (places / workers.unwrap_or(1)).max(1), usize::from).min(plan.runs.len().max(1));
        (jobs, workers.unwrap_or_else(|| (places / jobs).max(1)))
    }
}

/// The command that goes on: this one with --resume.
fn resumed() -> String {
    let quoted = |argument: String| {
        let is_plain = argument.chars().all(|c| c.is_ascii_alphanumeric() || "-_=./:,@+".contains(c));
        if is_plain { argument } else { format!("'{}'", argument.replace('\'', r"'\''")) }
    };
    let mut words: Vec<String> = std::env::args().map(quoted).collect();
    if !words.iter().any(|word| word == "--resume") {
        words.push("--resume".into());
    }
    words.join(" ")
}

/// What `--dry-run` prints.
fn listed(file: &StudyFile, plan: &Plan, estimate: &Estimate, jobs: usize) -> String {
    let mut lines = vec![format!("{}: {}", file.study.name, file.study.question)];
    for (run, seconds) in plan.runs.iter().zip(estimate.seconds()) {
        let twice = if run.is_doubled { " twice the epochs" } else { "" };
        let arm = &plan.arms[run.arm].settings;
        let matched = run
            .reference
            .as_ref()
            .map(|_| format!(" and for its lift sam.rho={}", run.config.sam.rho))
            .unwrap_or_default();
        let seconds = seconds.map_or_else(|| "?".into(), |seconds| format!("{seconds:.1}"));
        lines.push(format!("{seconds:>8} s  run.seed={} {arm}{matched}{twice}", run.seed));
    }
    let (runs, total) = (plan.runs.len(), estimate.total());
    lines.push(format!(
        "{runs} runs, {} of computing, about {} with {jobs} at once",
        human(total),
        human(total.map(|total| total / jobs as f64))
    ));
    lines.join("\n") + "\n"
}
