//! Training for a moment, to look at the metrics: what `bench step` and `bench scale` measure with.

use std::process::{Command, Stdio};

use serde_json::Value;
use strath_core::config::Config;

use crate::outcome::Failure;

/// Steps that do not count: caches, allocator and connections warm up in them.
pub const WARM_UP: usize = 5;

/// Trains `steps` steps in a process of its own, with `changes` to the configuration (`KEY=VALUE`), and returns rank 0's lines of
/// those that count.
///
/// # Errors
/// What the run ended with.
pub fn steps(config: &Config, steps: u64, changes: &[String]) -> Result<Vec<Value>, Failure> {
    let folder = tempfile::tempdir().map_err(Failure::other)?;
    let (file, out) = (folder.path().join("run.toml"), folder.path().join("run"));
    std::fs::write(&file, config.to_toml()).map_err(Failure::other)?;
    let program = std::env::current_exe().map_err(Failure::other)?;
    let of_all = [
        format!("run.steps={steps}"),
        "run.eval_every_epochs=1000000000".into(),
        "checkpoint.every_steps=1000000000".into(),
    ];
    let output = Command::new(program)
        .arg("train")
        .arg(&file)
        .args(of_all.iter().chain(changes).flat_map(|change| ["--set", change]))
        .arg("--out")
        .arg(&out)
        .stdin(Stdio::null())
        .output()
        .map_err(Failure::other)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().rev().find(|line| line.starts_with("error: ")).unwrap_or("error: no reason given");
        return Err(Failure::Other(line.trim_start_matches("error: ").into()));
    }
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).map_err(Failure::other)?;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(lines.filter(|line| line["kind"] == "step").skip(WARM_UP).collect())
}
