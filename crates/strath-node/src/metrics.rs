//! `metrics.jsonl`: one JSON object a line, keyed by kind and step; the first writer of a step wins.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use strath_core::Step;
use strath_core::telemetry::NoiseScale;
use strath_protocol::message::Split;

use crate::files::FileError;
use crate::lane_keys::LaneKeys;

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Line {
    /// A completed step.
    Step(StepLine),
    /// An evaluation.
    Eval(EvalLine),
    /// A change of membership.
    Cluster(ClusterLine),
}

impl Line {
    /// The step that the line is about.
    pub fn step(&self) -> u64 {
        match self {
            Self::Step(line) => line.step,
            Self::Eval(line) => line.step,
            Self::Cluster(line) => line.step,
        }
    }
}

/// Steps that tell how long one takes.
const NEWEST: usize = 32;

/// A completed step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepLine {
    /// Completed steps, from 1.
    pub step: u64,
    /// `step * B / N`.
    pub epoch: f64,
    /// Unix seconds.
    pub time: f64,
    /// Mean loss over the batch at w.
    pub clean_loss: f64,
    /// Mean loss over the batch at w + epsilon.
    pub perturbed_loss: f64,
    /// `perturbed_loss - clean_loss`.
    pub sharpness: f64,
    /// Learning rate.
    pub lr: f64,
    /// l2 norm of the reduced descent gradient before clipping, without decay.
    pub gradient_norm: f64,
    /// Mean over lanes of the l2 norm of epsilon.
    pub epsilon_norm: f64,
    /// Lanes without an ascent direction.
    pub zero_gradient_lanes: u64,
    /// Batch size over this step's seconds.
    pub images_per_s: f64,
    /// Seconds of the whole step on rank 0.
    pub step_s: f64,
    /// Seconds of data on rank 0.
    pub data_s: f64,
    /// Seconds of the ascent passes on rank 0.
    pub ascent_s: f64,
    /// Seconds of epsilon and w + epsilon on rank 0.
    pub epsilon_s: f64,
    /// Seconds that rank 0 waited for shared lanes.
    pub exchange_s: f64,
    /// Seconds of the descent passes on rank 0.
    pub descent_s: f64,
    /// Seconds of the all-reduce on rank 0, waiting included.
    pub reduce_s: f64,
    /// Seconds of the update on rank 0.
    pub update_s: f64,
    /// What the lanes told: keys that have a value in this step.
    #[serde(flatten)]
    pub lanes: Box<LaneKeys>,
}

/// An evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalLine {
    /// Completed steps.
    pub step: u64,
    /// `step * B / N`.
    pub epoch: f64,
    /// Unix seconds.
    pub time: f64,
    /// `test` or `validation`.
    pub split: String,
    /// Mean cross-entropy, without smoothing.
    pub loss: f64,
    /// Share of wrong arg-max.
    pub error: f64,
}

/// A change of membership.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterLine {
    /// Completed steps at the time.
    pub step: u64,
    /// `step * B / N`.
    pub epoch: f64,
    /// Unix seconds.
    pub time: f64,
    /// The generation that began.
    pub generation: u64,
    /// Its number of ranks.
    pub world_size: u64,
    /// Everyone, in order of rank.
    #[serde(default)]
    pub members: Vec<MemberLine>,
    /// Why the one before it ended, and this one began.
    pub cause: String,
    /// Seconds from the last step before it to its start; `None` where no step went before under the same coordinator, or where it ended
    /// before it started.
    #[serde(default)]
    pub change_s: Option<f64>,
}

/// One rank of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberLine {
    /// Its worker's id.
    pub worker: u64,
    /// The worker's host.
    pub host: String,
    /// Micro-batches that it holds of every batch.
    pub micro_batches: u64,
}

/// The open `metrics.jsonl` of a run, and what it already says.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    lines: Vec<Line>,
    last_step: u64,
    last_eval: Option<(Step, Split)>,
}

impl EvalLine {
    /// Where it stands in the order of evaluations: by step, then by split; of a split that nobody knows, `None`.
    fn place(&self) -> Option<(Step, Split)> {
        let split = Split::ALL.into_iter().find(|split| split.name() == self.split)?;
        Some((Step(self.step), split))
    }
}

impl MetricsLog {
    /// Opens the log at `path`; lines of steps after `step`, from which the run goes on, are cut off, and so is a torn last
    /// line.
    ///
    /// # Errors
    /// [`FileError`], also where a line before those is damaged: nothing is cut then.
    pub fn open(path: &Path, step: u64) -> Result<Self, FileError> {
        let fail = |action| move |e| FileError::new(action, path, e);
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path).map_err(fail("open"))?;
        let (lines, kept) = read_lines(&mut BufReader::new(&mut file), step).map_err(fail("read"))?;
        file.set_len(kept).map_err(fail("cut"))?;
        file.sync_all().map_err(fail("write"))?;
        let last_step = lines.iter().filter(|l| matches!(l, Line::Step(_))).map(Line::step).max().unwrap_or(0);
        let place = |line: &Line| if let Line::Eval(line) = line { line.place() } else { None };
        let last_eval = lines.iter().filter_map(place).max();
        Ok(Self { path: path.into(), file, lines, last_step, last_eval })
    }

    /// Appends a line and returns true; a step or evaluation that is there already is passed over.
    ///
    /// # Errors
    /// [`FileError`]; a part of a line that reached the disk is cut off again.
    pub fn append(&mut self, line: Line) -> Result<bool, FileError> {
        match &line {
            Line::Step(l) if l.step <= self.last_step => return Ok(false),
            Line::Eval(l) if self.last_eval.is_some() && l.place() <= self.last_eval => return Ok(false),
            _ => {}
        }
        let mut text = serde_json::to_vec(&line).expect("plain structs with string keys are valid JSON");
        text.push(b'\n');
        let before = self.file.metadata().map_err(|e| FileError::new("read", &self.path, e))?.len();
        if let Err(error) = self.file.write_all(&text) {
            // The write has failed already; a torn line that stays is cut off when the log is next opened.
            let _ = self.file.set_len(before);
            return Err(FileError::new("write", &self.path, error));
        }
        match &line {
            Line::Step(l) => self.last_step = l.step,
            Line::Eval(l) => self.last_eval = l.place(),
            Line::Cluster(_) => {}
        }
        self.lines.push(line);
        Ok(true)
    }

    /// Makes sure, when called, that every line so far is on the disk: before a checkpoint that will stand for them. It is to be
    /// called where it holds nobody up.
    ///
    /// # Errors
    /// [`FileError`], now or when called.
    pub fn sync(&self) -> Result<impl FnOnce() -> Result<(), FileError> + Send + use<>, FileError> {
        let path = self.path.clone();
        let file = self.file.try_clone().map_err(|e| FileError::new("open", &path, e))?;
        Ok(move || file.sync_data().map_err(|e| FileError::new("write", &path, e)))
    }

    /// The newest step, 0 before the first, and the newest evaluation.
    pub fn newest(&self) -> (u64, Option<(Step, Split)>) {
        (self.last_step, self.last_eval)
    }

    /// Every line so far, those of earlier sessions included.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// What the surveys on record come to.
    pub fn noise_scale(&self) -> NoiseScale {
        let mut noise = NoiseScale::default();
        for step in self.steps() {
            step.lanes.take_in(&mut noise);
        }
        noise
    }

    /// The completed steps, in order.
    pub fn steps(&self) -> impl Iterator<Item = &StepLine> {
        self.lines.iter().filter_map(|line| if let Line::Step(step) = line { Some(step) } else { None })
    }

    /// Seconds of some of the newest steps, in order.
    pub fn newest_step_s(&self) -> Vec<f64> {
        let mut newest: Vec<f64> = self.steps().map(|step| step.step_s).collect();
        newest.split_off(newest.len().saturating_sub(NEWEST))
    }

    /// The evaluations of a split, in order.
    pub fn evaluations(&self, split: Split) -> impl DoubleEndedIterator<Item = &EvalLine> {
        self.lines.iter().filter_map(move |line| match line {
            Line::Eval(eval) if eval.split == split.name() => Some(eval),
            _ => None,
        })
    }

    /// The sizes of the worlds that took part, ascending.
    pub fn world_sizes(&self) -> Vec<u64> {
        let size = |line: &Line| if let Line::Cluster(cluster) = line { Some(cluster.world_size) } else { None };
        let sizes: std::collections::BTreeSet<u64> = self.lines.iter().filter_map(size).collect();
        sizes.into_iter().collect()
    }
}

/// The lines of steps up to `step`, before the first of a later one, and how many bytes they are; a torn last line is passed over.
///
/// # Errors
/// The reader's; [`ErrorKind::InvalidData`] where a line before the last is damaged.
pub(crate) fn read_lines(reader: &mut impl BufRead, step: u64) -> io::Result<(Vec<Line>, u64)> {
    let (mut lines, mut text) = (Vec::new(), String::new());
    let (mut kept, mut total, mut number) = (0, 0, 0);
    loop {
        text.clear();
        // A line that is not UTF-8 is as torn as one without its end.
        let read = match reader.read_line(&mut text) {
            Ok(read) => read,
            Err(e) if e.kind() == ErrorKind::InvalidData => break,
            Err(e) => return Err(e),
        };
        total += read as u64;
        number += 1;
        let line = text.strip_suffix('\n').and_then(|text| serde_json::from_str::<Line>(text).ok());
        match line {
            Some(line) if line.step() <= step => {
                lines.push(line);
                kept = total;
            }
            None if reader.fill_buf().is_ok_and(|rest| !rest.is_empty()) => {
                let what = format!(
                    "line {number} is damaged; mend it or take it out, or move the file away to go on without a record"
                );
                return Err(io::Error::new(ErrorKind::InvalidData, what));
            }
            _ => break,
        }
    }
    Ok((lines, kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> Line {
        Line::Step(StepLine {
            step,
            epoch: 0.5,
            time: 1.0,
            clean_loss: 2.0,
            perturbed_loss: 2.5,
            sharpness: 0.5,
            lr: 0.1,
            gradient_norm: 1.0,
            epsilon_norm: 0.05,
            zero_gradient_lanes: 0,
            images_per_s: 64.0,
            step_s: 1.0,
            data_s: 0.25,
            ascent_s: 0.0,
            epsilon_s: 0.0,
            exchange_s: 0.0,
            descent_s: 0.0,
            reduce_s: 0.0,
            update_s: 0.0,
            lanes: Box::default(),
        })
    }

    fn eval_on(split: Split, step: u64) -> Line {
        Line::Eval(EvalLine { step, epoch: 1.0, time: 2.0, split: split.to_string(), loss: 0.3, error: 0.05 })
    }

    fn eval(step: u64) -> Line {
        eval_on(Split::Test, step)
    }

    fn cluster(world_size: u64) -> Line {
        Line::Cluster(ClusterLine {
            step: 0,
            epoch: 0.0,
            time: 0.0,
            generation: 1,
            world_size,
            members: vec![MemberLine { worker: 7, host: "here".into(), micro_batches: 4 }],
            cause: "the run began".into(),
            change_s: Some(0.25),
        })
    }

    #[test]
    fn lines_are_keyed_by_step_and_the_first_wins() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = MetricsLog::open(&folder.path().join("m"), 0).unwrap();
        let written: Vec<bool> =
            [cluster(2), step(1), step(1), step(2), eval(2), eval(2), step(2)].map(|l| log.append(l).unwrap()).into();
        assert_eq!(written, [true, true, false, true, true, false, false]);
        let text = std::fs::read_to_string(folder.path().join("m")).unwrap();
        let kinds: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let kinds: Vec<&str> = kinds.iter().map(|v| v["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["cluster", "step", "step", "eval"]);
    }

    #[test]
    fn each_split_of_a_step_is_kept_once_also_where_the_log_was_cut_between_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        let mut log = MetricsLog::open(&path, 0).unwrap();
        let validation = |step| eval_on(Split::Validation, step);
        let lines = [validation(2), validation(2), eval(2), validation(2), validation(4)];
        assert_eq!(lines.map(|l| log.append(l).unwrap()), [true, false, true, false, true]);
        assert_eq!(log.newest(), (0, Some((Step(4), Split::Validation))));
        let mut opened = MetricsLog::open(&path, 4).unwrap();
        assert_eq!([validation(4), eval(4)].map(|l| opened.append(l).unwrap()), [false, true]);
        assert_eq!((opened.evaluations(Split::Test).count(), opened.evaluations(Split::Validation).count()), (2, 2));
    }

    #[test]
    fn resuming_cuts_to_its_step_and_drops_a_torn_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        let mut log = MetricsLog::open(&path, 0).unwrap();
        for line in [cluster(2), step(1), step(2), eval(2), step(3)] {
            log.append(line).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        let mut resumed = MetricsLog::open(&path, 2).unwrap();
        assert_eq!(resumed.lines(), [cluster(2), step(1), step(2), eval(2)]);
        assert_eq!((resumed.world_sizes(), resumed.steps().count()), (vec![2], 2));
        assert_eq!(resumed.newest_step_s(), [1.0, 1.0]);
        assert!(!resumed.append(step(2)).unwrap() && resumed.append(step(3)).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), whole);

        std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        assert_eq!(MetricsLog::open(&path, 99).unwrap().lines().len(), 4);
        let damaged = String::from_utf8(whole.clone()).unwrap().replacen("\"kind\"", "kind", 1);
        std::fs::write(&path, &damaged).unwrap();
        let error = MetricsLog::open(&path, 99).unwrap_err().to_string();
        assert!(error.contains("line 1 is damaged"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), damaged, "nothing is cut");
        std::fs::write(&path, [&whole[..], b"\xff\xfe"].concat()).unwrap();
        assert_eq!(MetricsLog::open(&path, 99).unwrap().lines().len(), 5);
    }
}
