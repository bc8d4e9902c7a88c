//! What is measured of a run's last weights.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Map, Value, json};
use strath_core::config::Config;
use strath_study::study::Measure;
use tokio::process::Command;

/// A command of this program that prints JSON.
struct Asked {
    arguments: Vec<String>,
    /// Names of columns, each with the place of its number in the answer.
    columns: Vec<(String, Number)>,
}

/// A number of an answer.
enum Number {
    /// At this place.
    At(String),
    /// What is left of 1 beside the one at this place.
    Rest(&'static str),
}

impl Number {
    fn of(&self, answer: &Value) -> Value {
        let at = |key: &str| answer.pointer(&format!("/{key}")).cloned().unwrap_or(Value::Null);
        match self {
            Self::At(key) => at(key),
            Self::Rest(key) => at(key).as_f64().map_or(Value::Null, |number| json!(1.0 - number)),
        }
    }
}

fn commands(config: &Config, run: &Path, measures: &[Measure]) -> Vec<Asked> {
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<String>>();
    let mut commands = Vec::new();
    // Otherwise its record has them.
    if !config.run.eval_train {
        commands.push(Asked {
            arguments: words(&["eval", "--split", "train"]),
            columns: vec![
                ("train_loss".to_string(), Number::At("loss".into())),
                ("train_error".to_string(), Number::At("error".into())),
            ],
        });
    }
    if config.data.label_noise > 0.0 {
        let columns = vec![("memorised".to_string(), Number::Rest("error"))];
        commands.push(Asked { arguments: words(&["eval", "--split", "noisy"]), columns });
    }
    let limited = |mut command: Vec<String>, limit: Option<usize>| {
        if let Some(limit) = limit {
            command.extend(["--limit".into(), limit.to_string()]);
        }
        command
    };
    for measure in measures {
        match measure {
            Measure::Sharpness { m, rho, limit } => commands.extend(m.iter().map(|m| {
                let command = words(&["measure", "sharpness", "--m", &m.to_string(), "--rho", &rho.to_string()]);
                let columns = vec![(format!("sharpness_m{m}_rho{rho}"), Number::At("sharpness".into()))];
                Asked { arguments: limited(command, *limit), columns }
            })),
            Measure::Spectrum { top, trace_samples, limit } => {
                let counts = [top.to_string(), trace_samples.to_string()];
                let command = words(&["measure", "spectrum", "--top", &counts[0], "--trace-samples", &counts[1]]);
                let eigenvalue = |k: usize| (format!("lambda_{k}"), Number::At(format!("eigenvalues/{}", k - 1)));
                let mut columns: Vec<(String, Number)> = (1..=*top).map(eigenvalue).collect();
                let rest = [("lambda_1_5", "ratio_1_5"), ("trace", "trace")];
                columns.extend(rest.map(|(column, key)| (column.into(), Number::At(key.into()))));
                commands.push(Asked { arguments: limited(command, *limit), columns });
            }
            Measure::Landscape { dims, grid, extent, limit } => {
                let [dims, grid, extent] = [dims.to_string(), grid.to_string(), extent.to_string()];
                let mut command =
                    words(&["measure", "landscape", "--dims", &dims, "--grid", &grid, "--extent", &extent, "--out"]);
                command.push(run.join("landscape").display().to_string());
                commands.push(Asked { arguments: limited(command, *limit), columns: Vec::new() });
            }
        }
    }
    commands
}

/// The columns that are measured of a run.
pub(super) fn columns(config: &Config, measures: &[Measure]) -> impl Iterator<Item = String> {
    commands(config, Path::new(""), measures).into_iter().flat_map(|asked| asked.columns).map(|(column, _)| column)
}

/// Measures the run in a folder; by column.
pub(super) async fn measure(
    program: &Path,
    run: &Path,
    config: &Config,
    workers: usize,
    measures: &[Measure],
) -> Result<Value, String> {
    let mut found = Map::new();
    for Asked { arguments, columns } in commands(config, run, measures) {
        let mut command = Command::new(program);
        command.args(&arguments).args(["--workers", &workers.to_string(), "--json", "--config"]);
        command.arg(run.join("config.toml")).arg(run.join("final.safetensors"));
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.map_err(|error| error.to_string())?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            // A share of labels so small that it comes to no example.
            if said.contains("0 noisy examples") {
                found.extend(columns.into_iter().map(|(column, _)| (column, Value::Null)));
                continue;
            }
            return Err(format!("{}: {}", arguments.join(" "), said.lines().last().unwrap_or("no word")));
        }
        let answer: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
        for (column, number) in columns {
            found.insert(column, number.of(&answer));
        }
    }
    Ok(Value::Object(found))
}
