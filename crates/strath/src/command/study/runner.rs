//! Runs a plan: several runs at once, each a `strath train` of its own, what is finished left as it is.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::process::Stdio;
use std::time::Instant;

use strath_study::study::{Measure, Plan};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::afterwards;
use super::cluster::Cluster;
use super::estimate::{Estimate, human};
use super::folder::StudyFolder;
use crate::outcome::Failure;
use crate::{log, runtime, telling};

/// Times that a run is tried.
const TRIES: usize = 2;

/// What runs a plan.
pub(super) struct Runner<'a> {
    pub(super) folder: &'a StudyFolder,
    pub(super) plan: &'a Plan,
    pub(super) measures: &'a [Measure],
    pub(super) estimate: &'a Estimate,
    /// Runs at once.
    pub(super) jobs: usize,
    /// Worker processes of each.
    pub(super) workers: usize,
    /// Worker processes by which what came of a run is measured, on this machine.
    pub(super) measuring: usize,
    /// Whose workers train; none: this machine's.
    pub(super) cluster: Option<Cluster>,
}

/// How it ended.
pub(super) enum End {
    /// Every run was tried.
    Done {
        /// Those that failed twice, with the last words of each.
        failed: Vec<String>,
    },
    /// By a signal.
    Stopped,
}

/// What a try ended with.
enum Try {
    Done,
    Failed(String),
    Stopped,
}

impl Runner<'_> {
    pub(super) async fn run(&self) -> Result<End, Failure> {
        let mut stop = runtime::stop_signals()?;
        let (stopping, stopped) = watch::channel(false);
        let mut queue: VecDeque<(usize, usize)> = self.order().into_iter().map(|run| (run, 0)).collect();
        let mut left: BTreeSet<usize> = queue.iter().map(|(run, _)| *run).collect();
        let (all, bar, mut failed) = (self.plan.runs.len(), telling::runs_bar(self.plan.runs.len()), Vec::new());
        bar.set_position((all - left.len()) as u64);
        let mut at_work = JoinSet::new();
        loop {
            while at_work.len() < self.jobs && !*stopped.borrow() {
                let Some((run, tries)) = queue.pop_front() else { break };
                let attempt = self.attempt(run, stopped.clone())?;
                at_work.spawn(async move { (run, tries, attempt.await) });
            }
            let (run, tries, (end, seconds)) = tokio::select! {
                Some(()) = stop.recv() => {
                    let _ = stopping.send(true);
                    continue;
                }
                ended = at_work.join_next() => match ended {
                    Some(ended) => ended.map_err(Failure::other)?,
                    None => break,
                },
            };
            let name = &self.plan.runs[run].folder;
            match end {
                Try::Stopped => continue,
                Try::Failed(reason) if tries + 1 < TRIES => {
                    bar.suspend(|| log::warn(&format!("{name} failed and is tried once more: {reason}")));
                    queue.push_back((run, tries + 1));
                    continue;
                }
                Try::Failed(reason) => failed.push(format!("{name}: {reason}")),
                Try::Done => self.estimate.took(run, seconds),
            }
            left.remove(&run);
            let time = human(self.estimate.left(left.iter().copied()) / self.jobs as f64);
            bar.inc(1);
            bar.set_message(format!("{time} left"));
            if bar.is_hidden() {
                let error =
                    self.folder.summary(&self.plan.runs[run], self.measures).and_then(|run| run["test_error"].as_f64());
                let error = error.map_or_else(|| "failed".into(), |error| format!("test error {:.2} %", 100.0 * error));
                log::say(&format!("{}/{all}  {name}  {error}  {seconds:.1} s   about {time} left", all - left.len()));
            }
        }
        bar.finish_and_clear();
        Ok(if *stopped.borrow() { End::Stopped } else { End::Done { failed } })
    }

    /// The runs that are not finished, seed by seed, the long ones of a seed first, so that no long one is left to the end alone.
    fn order(&self) -> Vec<usize> {
        let (planned, seconds) = (&self.plan.runs, self.estimate.seconds());
        let is_left = |run: &usize| self.folder.summary(&planned[*run], self.measures).is_none();
        let mut runs: Vec<usize> = (0..planned.len()).filter(is_left).collect();
        // As planned, the runs of a seed stand together.
        for of_seed in runs.chunk_by_mut(|a, b| planned[*a].seed == planned[*b].seed) {
            of_seed.sort_by(|a, b| seconds[*b].unwrap_or(0.0).total_cmp(&seconds[*a].unwrap_or(0.0)));
        }
        runs
    }

    /// One try of a run, with the seconds that it takes.
    fn attempt(
        &self,
        run: usize,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<impl Future<Output = (Try, f64)> + Send + 'static, Failure> {
        let planned = &self.plan.runs[run];
        let name = format!("configs/{}.toml", planned.folder);
        self.folder.write(&name, planned.config.to_toml().as_bytes())?;
        let config = self.folder.path(&name);
        let said = self.folder.path("logs").join(format!("{}.log", planned.folder));
        let (out, errors) = (File::create(&said).map_err(Failure::other)?, said.clone());
        let (folder, program) = (self.folder.run(planned), std::env::current_exe().map_err(Failure::other)?);
        let (workers, measuring) = (self.workers, self.measuring);
        let (measures, of) = (self.measures.to_vec(), planned.config.clone());
        let mut command = Command::new(&program);
        match &self.cluster {
            Some(cluster) => {
                command.arg("coordinator").arg("--config").arg(&config).arg("--out").arg(&folder);
                command.args(cluster.arguments(workers));
            }
            None => {
                command.arg("train").arg(&config).arg("--out").arg(&folder).args(["--workers", &workers.to_string()]);
            }
        }
        command.args(["--orphan-stops", "--no-report"]);
        if folder.exists() {
            command.arg("--resume");
        }
        // Held open by this process: where it ends without a word, so does the run.
        command.stdin(Stdio::piped()).stderr(out.try_clone().map_err(Failure::other)?).stdout(out);
        // A terminal's Ctrl-C is this process's to hand on.
        command.process_group(0);
        Ok(async move {
            let began = Instant::now();
            let took = |end: Try| (end, began.elapsed().as_secs_f64());
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => return took(Try::Failed(error.to_string())),
            };
            // Waiting would close it.
            let _held = child.stdin.take();
            let status = tokio::select! {
                status = child.wait() => status,
                () = stop(&mut stopped) => {
                    if let Some(pid) = child.id().and_then(|id| rustix::process::Pid::from_raw(id as i32)) {
                        // It may have ended a moment ago.
                        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                    }
                    let _ = child.wait().await;
                    return took(Try::Stopped);
                }
            };
            match status {
                Ok(status) if status.success() => {}
                Ok(status) => return took(Try::Failed(last_words(&errors).unwrap_or_else(|| status.to_string()))),
                Err(error) => return took(Try::Failed(error.to_string())),
            }
            tokio::select! {
                found = afterwards::measure(&program, &folder, &of, measuring, &measures) => match found {
                    Ok(found) => {
                        let kept = strath_node::files::write_whole(&folder.join(super::folder::MEASURED), format!("{found}\n").as_bytes());
                        took(kept.map_or_else(|error| Try::Failed(error.to_string()), |()| Try::Done))
                    }
                    Err(reason) => took(Try::Failed(reason)),
                },
                () = stop(&mut stopped) => took(Try::Stopped),
            }
        })
    }
}

/// Comes back once the study is to stop.
async fn stop(stopped: &mut watch::Receiver<bool>) {
    // Without a sender nobody stops it any more.
    if stopped.wait_for(|is| *is).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The last line of a log.
fn last_words(log: &std::path::Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    text.lines().rev().find(|line| !line.trim().is_empty()).map(String::from)
}
