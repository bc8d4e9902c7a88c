//! How long a rank computes: measured by training with one worker, on as many micro-batches as a rank would hold.

use std::thread;

use serde_json::Value;
use strath_core::config::Config;
use strath_node::summary::median;

use super::trained;
use crate::outcome::Failure;

/// Phases in which a rank computes and waits for nobody.
const PHASES: [&str; 5] = ["data_s", "ascent_s", "epsilon_s", "descent_s", "update_s"];

/// Seconds of a step, by the micro-batches that a rank holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Compute {
    /// Ascending in micro-batches, at least one.
    pub points: Vec<Point>,
    /// Workers that computed at once in the crowded measurement.
    pub crowd: usize,
}

/// What was measured of one number of micro-batches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Micro-batches of the step.
    pub micro_batches: usize,
    /// Seconds of a worker alone on its host.
    pub alone: Seconds,
    /// Seconds of a worker beside as many others as there are cores for.
    pub crowded: Seconds,
}

/// Parts of a step of one worker.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seconds {
    /// In the phases in which it computes.
    pub compute: f64,
    /// Rounding the sum, which is all there is to reduce alone.
    pub reduce: f64,
    /// In none of the phases.
    pub idle: f64,
}

impl Compute {
    /// Measures steps of one micro-batch and more, up to `most` or four, each with `threads` threads, alone and beside others.
    ///
    /// # Errors
    /// What a run ended with.
    pub fn measure(config: &Config, most: usize, threads: usize, crowd: usize, steps: u64) -> Result<Self, Failure> {
        let micro = config.plan().map_err(Failure::other)?.micro_batches()[0].size;
        let mut counts = vec![1, 2.min(most), 4.min(most)];
        counts.dedup();
        let points = counts.into_iter().map(|micro_batches| {
            let examples = micro * micro_batches;
            let changes = [
                "cluster.workers=1".into(),
                format!("cluster.threads={threads}"),
                format!("batch.size={examples}"),
                format!("batch.micro={micro}"),
                format!("sam.m={}", lane(config, micro, examples)),
            ];
            let alone = together(config, steps, &changes, 1)?;
            let crowded = if crowd > 1 { together(config, steps, &changes, crowd)? } else { alone };
            Ok(Point { micro_batches, alone, crowded })
        });
        Ok(Self { points: points.collect::<Result<_, Failure>>()?, crowd })
    }

    /// Seconds in which a rank computes on `micro_batches`, `beside` of 0 (alone) to 1 (crowded): on the line through the measured points
    /// around, beyond the last on that through the last two.
    pub fn seconds(&self, micro_batches: usize, beside: f64) -> f64 {
        let at = |point: &Point| point.alone.compute + beside * (point.crowded.compute - point.alone.compute);
        match (micro_batches, self.points.as_slice()) {
            (0, _) | (_, []) => 0.0,
            (k, [only]) => at(only) * k as f64 / only.micro_batches as f64,
            (k, points) => {
                let above = points.iter().position(|p| p.micro_batches >= k).unwrap_or(points.len() - 1).max(1);
                let (low, high) = (&points[above - 1], &points[above]);
                let slope = (at(high) - at(low)) / (high.micro_batches - low.micro_batches) as f64;
                at(low) + slope * (k as f64 - low.micro_batches as f64)
            }
        }
    }

    /// Seconds of a step that are none of its phases.
    pub fn idle(&self) -> f64 {
        self.points.last().map_or(0.0, |point| point.alone.idle)
    }

    /// Seconds that a world of one takes to round its sum.
    pub fn rounding(&self, micro_batches: usize) -> f64 {
        let point = self.points.iter().find(|p| p.micro_batches >= micro_batches).or(self.points.last());
        point.map_or(0.0, |point| point.alone.reduce)
    }
}

/// A lane size for a step of so many examples: that of the configuration, or all of them where it is larger.
fn lane(config: &Config, micro: usize, examples: usize) -> usize {
    let lane = config.plan().map_or(micro, |plan| plan.lanes()[0].size);
    if examples.is_multiple_of(lane) { lane } else { examples }
}

/// Trains `workers` times at once; the means over them of the medians of their steps.
fn together(config: &Config, steps: u64, changes: &[String], workers: usize) -> Result<Seconds, Failure> {
    let runs: Vec<_> = thread::scope(|scope| {
        let runs: Vec<_> = (0..workers).map(|_| scope.spawn(|| trained::steps(config, steps, changes))).collect();
        runs.into_iter().map(|run| run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    let mut sum = Seconds { compute: 0.0, reduce: 0.0, idle: 0.0 };
    for run in runs {
        let lines = run?.steps;
        let number = |line: &Value, key: &str| line[key].as_f64().unwrap_or(0.0);
        let compute = |line: &Value| PHASES.iter().map(|phase| number(line, phase)).sum::<f64>();
        let reduce = |line: &Value| number(line, "reduce_s");
        let idle = |line: &Value| (number(line, "step_s") - compute(line) - reduce(line)).max(0.0);
        sum.compute += median(lines.iter().map(compute)) / workers as f64;
        sum.reduce += median(lines.iter().map(reduce)) / workers as f64;
        sum.idle += median(lines.iter().map(idle)) / workers as f64;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(micro_batches: usize, alone: f64, crowded: f64) -> Point {
        let seconds = |compute| Seconds { compute, reduce: 0.5, idle: 0.25 };
        Point { micro_batches, alone: seconds(alone), crowded: seconds(crowded) }
    }

    #[test]
    fn seconds_lie_on_the_lines_between_what_was_measured() {
        let compute = Compute { points: vec![point(1, 1.0, 2.0), point(2, 3.0, 4.0), point(4, 5.0, 8.0)], crowd: 2 };
        assert_eq!([0, 1, 2, 3, 4, 6].map(|k| compute.seconds(k, 0.0)), [0.0, 1.0, 3.0, 4.0, 5.0, 7.0]);
        assert_eq!([1, 3].map(|k| compute.seconds(k, 1.0)), [2.0, 6.0]);
        assert_eq!(compute.seconds(1, 0.5), 1.5);
        let one = Compute { points: vec![point(1, 1.0, 2.0)], crowd: 2 };
        assert_eq!([1, 3].map(|k| one.seconds(k, 0.0)), [1.0, 3.0]);
        assert_eq!((one.idle(), one.rounding(7)), (0.25, 0.5));
    }
}
