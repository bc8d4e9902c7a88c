//! Work follows speed: a worker that gets half of the time of its processor gets less to compute, and the bits stay the same.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use support::{DEADLINE, finish, metrics, reach, sha, stderr, strath, summary, train, workers_of};

/// A process that stops and continues another one, ten milliseconds each, and leaves it to itself when it is dropped.
struct HalfSpeed {
    pid: u32,
    switch: Child,
}

impl HalfSpeed {
    fn of(pid: u32) -> Self {
        let script = "while kill -STOP $0; do sleep 0.01; kill -CONT $0 || exit; sleep 0.01; done";
        Self { pid, switch: Command::new("sh").args(["-c", script, &pid.to_string()]).spawn().unwrap() }
    }
}

impl Drop for HalfSpeed {
    fn drop(&mut self) {
        // It may have ended with whom it slows down.
        let _ = self.switch.kill();
        let _ = self.switch.wait();
        let _ =
            Command::new("kill").args(["-CONT", &self.pid.to_string()]).stderr(std::process::Stdio::null()).status();
    }
}

/// How many generations have begun. No line is parsed: whoever watches is to take little of the time of those who compute.
fn generations(out: &Path) -> usize {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    text.lines().filter(|line| line.contains("\"kind\":\"cluster\"") && line.ends_with('}')).count()
}

#[test]
fn a_worker_at_half_speed_gets_less_to_compute_and_the_bits_stay_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("run.toml");
    // 32 micro-batches, 16 a worker. Two workers: of more than a machine has cores all are slow, and one at half speed stands out less.
    let text = "[run]\nsteps = 5000\neval_every_epochs = 100\n[data]\nkind = \"digits\"\n[model]\nkind = \"convnet\"\nwidths = [16, 16]\n\
                [batch]\nsize = 128\n[sam]\nm = 4\n[optimizer]\nlr = 0.01\n[checkpoint]\nevery_steps = 5000\n\
                [cluster]\nthreads = 1\nlease_ms = 1000\n";
    std::fs::write(&config, text).unwrap();
    let undisturbed = train(&config, &folder.path().join("whole"), &["--workers", "3"]);
    let out = folder.path().join("run");
    let mut command = strath();
    command.args(["train", config.to_str().unwrap(), "--out", out.to_str().unwrap(), "--workers", "2"]);
    let mut child = command.spawn().unwrap();
    reach(&out, 20);
    let slowed = HalfSpeed::of(workers_of(child.id())[1]);
    let begun = Instant::now();
    while generations(&out) < 2 {
        let is_over = child.try_wait().unwrap().is_some();
        assert!(!is_over && begun.elapsed() < Duration::from_secs(20), "nothing was moved in {:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    eprintln!("moved after {:?}", begun.elapsed());
    let causes = metrics(&out, "cluster");
    let cause = causes[1]["cause"].as_str().unwrap();
    assert!(cause.starts_with("work follows speed: worker ") && causes[1]["world_size"] == 2, "{cause}");
    drop(slowed);
    let output = finish(child, DEADLINE);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(sha(&summary(&out)), sha(&undisturbed));
    let steps: Vec<u64> = metrics(&out, "step").iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=5000).collect::<Vec<u64>>(), "each step is recorded once");
}
