//! A run that is disturbed, beside the same run undisturbed.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{
    Coordinator, DEADLINE, digits_in_shared_lanes, finish, memberships, metrics, sha, stderr, strath, summary, train,
};

/// A run to be disturbed, and what it comes to undisturbed.
pub struct Place {
    /// Where its files lie.
    pub folder: tempfile::TempDir,
    /// Its configuration: a lease of a second.
    pub config: PathBuf,
    steps: u32,
    undisturbed: Value,
}

impl Place {
    /// Trains 400 steps undisturbed.
    pub fn new() -> Self {
        Self::of(400)
    }

    /// Trains so many steps undisturbed.
    pub fn of(steps: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = digits_in_shared_lanes(folder.path(), steps, "lease_ms = 1000\ngather_ms = 100\n");
        let undisturbed = train(&config, &folder.path().join("whole"), &["--workers", "2"]);
        Self { folder, config, steps, undisturbed }
    }

    /// Starts it with local workers.
    pub fn start(&self, name: &str, workers: &str) -> (Child, PathBuf) {
        let out = self.folder.path().join(name);
        let mut command = strath();
        command.args(["train", self.config.to_str().unwrap(), "--out", out.to_str().unwrap(), "--workers", workers]);
        (command.spawn().unwrap(), out)
    }

    /// Starts it with a coordinator for workers of many machines: that, its folder and its address.
    pub fn coordinate(&self, name: &str) -> (Child, PathBuf, String) {
        let out = self.folder.path().join(name);
        let child = self.coordinator(&out, "127.0.0.1:0", &["--min-workers", "1"]);
        let address = Coordinator::address_in(&out);
        (child, out, address)
    }

    /// A coordinator that listens there.
    pub fn coordinator(&self, out: &Path, listen: &str, more: &[&str]) -> Child {
        let mut command = strath();
        command.args(["coordinator", "--config", self.config.to_str().unwrap(), "--listen", listen]);
        command.args(["--out", out.to_str().unwrap()]).args(more).spawn().unwrap()
    }

    /// The run is complete, each step is recorded once, and the weights are those of the undisturbed run.
    #[track_caller]
    pub fn ends_in_the_same_bits(&self, child: Child, out: &Path) -> String {
        let output = finish(child, DEADLINE);
        let said = stderr(&output);
        assert!(output.status.success(), "{said}");
        let found = summary(out);
        assert_eq!(sha(&found), sha(&self.undisturbed), "{said}");
        for key in ["test_error", "train_loss", "steps"] {
            assert_eq!(found[key], self.undisturbed[key], "{key}");
        }
        let steps: Vec<u64> = metrics(out, "step").iter().map(|line| line["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, (1..=u64::from(self.steps)).collect::<Vec<u64>>(), "each step is recorded once");
        let evaluated =
            |out: &Path| metrics(out, "eval").iter().map(|line| line["step"].as_u64().unwrap()).collect::<Vec<_>>();
        assert_eq!(evaluated(out), evaluated(&self.folder.path().join("whole")), "and so is each evaluation");
        said
    }
}

/// The sizes of the generations so far.
pub fn world_sizes(out: &Path) -> Vec<u64> {
    memberships(out).iter().map(|line| line["world_size"].as_u64().unwrap()).collect()
}

/// Waits until the run has had so many generations.
#[track_caller]
pub fn generations(out: &Path, count: usize) {
    let since = Instant::now();
    while world_sizes(out).len() < count {
        assert!(!out.join("summary.json").exists(), "the run is over: {:?}", world_sizes(out));
        assert!(since.elapsed() < Duration::from_secs(30), "{:?}", world_sizes(out));
        std::thread::sleep(Duration::from_millis(2));
    }
}
