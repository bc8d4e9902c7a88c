//! Page faults and resident memory of a run's workers, as /proc tells them while the run goes on.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

/// What the workers of a run took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Footprint {
    /// Minor page faults a step in steady state, of the worker with the most; `None` where the run was over too soon to tell.
    pub faults_a_step: Option<f64>,
    /// Peak resident memory of the largest worker, bytes; `None` where /proc does not say.
    pub peak_bytes: Option<u64>,
}

/// One look at one process.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Look {
    steps: u64,
    faults: u64,
}

/// Whoever looks at the workers of a run, now and then.
#[derive(Debug)]
pub struct Watch {
    parent: u32,
    workers: usize,
    /// Steps after the first and before the second of which a worker is taken to be in its steady state.
    steady: Range<u64>,
    known: Vec<u32>,
    /// The first and the last look at each in steady state.
    looks: BTreeMap<u32, (Look, Look)>,
    peak_bytes: Option<u64>,
}

impl Watch {
    /// Of the `workers` children of process `parent`, whose steady state begins and ends with these steps.
    pub fn new(parent: u32, workers: usize, steady: Range<u64>) -> Self {
        Self { parent, workers, steady, known: Vec::new(), looks: BTreeMap::new(), peak_bytes: None }
    }

    /// Looks, when so many steps are done.
    pub fn look(&mut self, steps: u64) {
        if self.known.len() < self.workers {
            self.known = children(self.parent); // a look at every process, which is not to be a load on the run
        }
        for worker in self.known.iter().copied() {
            let Some(faults) = stat(worker).and_then(|line| child(self.parent, &line)) else { continue };
            self.peak_bytes = self.peak_bytes.max(peak_bytes(worker));
            // What follows the last step, an evaluation or a checkpoint, is no step.
            if self.steady.contains(&steps) {
                let look = Look { steps, faults };
                self.looks.entry(worker).and_modify(|(_, last)| *last = look).or_insert((look, look));
            }
        }
    }

    /// What was found so far.
    pub fn footprint(&self) -> Footprint {
        let rates = self.looks.values().filter_map(|(first, last)| rate(*first, *last));
        Footprint { faults_a_step: rates.reduce(f64::max), peak_bytes: self.peak_bytes }
    }
}

fn rate(first: Look, last: Look) -> Option<f64> {
    let (steps, faults) = (last.steps - first.steps, last.faults.saturating_sub(first.faults));
    (steps > 0).then(|| faults as f64 / steps as f64)
}

/// The children of a process.
fn children(parent: u32) -> Vec<u32> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|process| stat(*process).is_some_and(|line| child(parent, &line).is_some())).collect()
}

fn stat(process: u32) -> Option<String> {
    std::fs::read_to_string(PathBuf::from("/proc").join(process.to_string()).join("stat")).ok()
}

/// The minor page faults in a line of /proc/PID/stat, if it is a child's of `parent`.
fn child(parent: u32, stat: &str) -> Option<u64> {
    // The name, in parentheses, may hold anything; after it come state, parent, group, session, terminal, its group, flags, faults.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    (fields.nth(1)?.parse() == Ok(parent)).then(|| fields.nth(5)?.parse().ok())?
}

fn peak_bytes(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat_names_the_parent_and_the_faults() {
        let line = "412 (a) b (c)) S 77 412 412 0 -1 4194560 1234 5 6 7 8 9";
        assert_eq!(child(77, line), Some(1234));
        assert_eq!(child(78, line), None);
        assert_eq!(child(77, "412 (cut"), None);
    }

    #[test]
    fn the_rate_is_of_the_steps_between_two_looks() {
        let look = |steps, faults| Look { steps, faults };
        assert_eq!(rate(look(5, 1000), look(15, 1030)), Some(3.0));
        assert_eq!(rate(look(5, 1000), look(5, 1030)), None);
    }

    #[test]
    fn a_process_finds_itself_among_its_parents_children_and_knows_its_peak() {
        let own = std::process::id();
        assert!(children(std::os::unix::process::parent_id()).contains(&own));
        assert!(peak_bytes(own).unwrap() > 1 << 20);
    }
}
