//! A cluster as a table of 80 columns.

use strath_protocol::{ClusterStatus, DecisionStatus, SurveyStatus, WorkerStatus};

/// Columns of a line.
const WIDTH: usize = 80;
/// Columns of a host's name.
const HOST: usize = 18;

/// The lines of a cluster: the run, its newest step, the last decision, its workers, and who is late.
pub fn table(status: &ClusterStatus) -> Vec<String> {
    let mut lines = vec![format!(
        "{} ({}): {}, generation {}, step {} of {}",
        status.name, status.run, status.stage, status.generation, status.step, status.steps
    )];
    if let Some(step) = &status.last_step {
        lines.push(format!(
            "loss {:.4}  at w+epsilon {:.4}  sharpness {:+.4}  {:.1} ms a step",
            step.clean_loss,
            step.perturbed_loss,
            step.perturbed_loss - step.clean_loss,
            1e3 * step.seconds
        ));
    }
    if let Some(survey) = &status.survey {
        lines.extend(wrapped(&surveyed(survey)));
    }
    if let Some(DecisionStatus { what, why, ago_ms }) = status.decisions.last() {
        lines.extend(wrapped(&format!("last decision: {what}, because {why}, {} ago", time(*ago_ms))));
    }
    lines.push(String::new());
    lines.push(format!(
        "{:>6} {:>4} {:HOST$} {:>7} {:>5} {:>7} {:10} {:>8} {:>7}",
        "worker", "rank", "host", "process", "micro", "step", "phase", "images/s", "heard"
    ));
    lines.extend(status.workers.iter().map(row));
    for worker in status.workers.iter().filter(|worker| !worker.late.is_empty()) {
        lines.extend(wrapped(&format!("late: worker {} ({}) {}", worker.worker, worker.host, worker.late)));
    }
    lines
}

/// What the newest survey found, in a sentence.
fn surveyed(survey: &SurveyStatus) -> String {
    let SurveyStatus { step, rho_equivalent, noise_scale, coherence, audit } = survey;
    let number = |value: &Option<f64>| value.map_or_else(|| "-".into(), |value| format!("{value:.4}"));
    let scale = noise_scale.map_or_else(|| "-".into(), |scale| format!("{scale:.0} examples"));
    let lanes = audit.lanes - audit.zero_gradient_lanes.min(audit.lanes);
    let verdict = if audit.passed() {
        "passed".into()
    } else {
        let moved = audit.moved_weights;
        format!(
            "FAILED ({} lanes with more than one epsilon, radius off by {:.1e}, w moved on {moved} workers)",
            audit.split_lanes, audit.radius_deviation
        )
    };
    format!(
        "lanes at step {step}: rho equivalent {}, noise scale {scale}, coherence {}, audit {verdict}, {} epsilons of {lanes} lanes",
        number(rho_equivalent),
        number(coherence),
        audit.distinct_epsilons
    )
}

fn row(worker: &WorkerStatus) -> String {
    let rank = worker.rank.map_or_else(|| "-".into(), |rank| rank.to_string());
    let rate = if worker.images_per_s > 0.0 { format!("{:.0}", worker.images_per_s) } else { "-".into() };
    format!(
        "{:>6} {rank:>4} {:HOST$} {:>7} {:>5} {:>7} {:10} {rate:>8} {:>7}",
        worker.worker.to_string(),
        short(&worker.host),
        worker.pid,
        worker.micro_batches,
        worker.step.to_string(),
        worker.phase.name(),
        time(worker.silent_ms)
    )
}

/// A name that fits its column.
fn short(host: &str) -> String {
    if host.chars().count() <= HOST {
        return host.into();
    }
    host.chars().take(HOST - 1).chain(['~']).collect()
}

/// A time for people.
fn time(ms: u64) -> String {
    match ms {
        ..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{:.1} s", ms as f64 / 1e3),
        60_000..3_600_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

/// A text in lines that fit, broken between words; those after the first are indented.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(std::mem::replace(&mut line, " ".into()));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use strath_core::{Audit, Generation, Rank, RunId, Step, WorkerId};
    use strath_protocol::message::Phase;

    use super::*;

    fn worker(id: u64, host: &str, late: &str) -> WorkerStatus {
        WorkerStatus {
            worker: WorkerId(id),
            host: host.into(),
            address: (Ipv4Addr::LOCALHOST, 7).into(),
            pid: 4_194_304,
            rank: (id < 2).then_some(Rank(id as u32)),
            micro_batches: 12,
            step: Step(1_234_567),
            phase: Phase::Connecting,
            images_per_s: if id == 0 { 12_345.6 } else { 0.0 },
            silent_ms: 120 + 1900 * id,
            late: late.into(),
        }
    }

    #[test]
    fn a_cluster_fits_eighty_columns_and_says_what_was_decided_and_who_is_late() {
        let why = "worker 3 (a-host-with-a-long-name.example.org, 10.0.0.13:41234) was lost at step 1234566 in phase ascent: reset";
        let status = ClusterStatus {
            run: RunId(0xabc),
            name: "digits".into(),
            stage: "connecting".into(),
            generation: Generation(6),
            step: Step(1_234_567),
            steps: Step(2_000_000),
            last_step: None,
            survey: Some(SurveyStatus {
                step: Step(1_234_550),
                rho_equivalent: Some(0.071_26),
                noise_scale: Some(812.4),
                coherence: None,
                audit: Audit { lanes: 8, zero_gradient_lanes: 1, distinct_epsilons: 7, ..Audit::default() },
            }),
            workers: vec![
                worker(0, "h0", ""),
                worker(1, "a-host-with-a-long-name.example.org", "is sent the state of step 1234567, 1042.0 MiB"),
                worker(2, "h2", "still loads its data and model"),
            ],
            decisions: vec![
                DecisionStatus { what: "older".into(), why: "older".into(), ago_ms: 90_000 },
                DecisionStatus {
                    what: "formed generation 6 of 2 workers at step 1234567".into(),
                    why: why.into(),
                    ago_ms: 2500,
                },
            ],
        };
        let expected = "\
digits (0000000000000abc): connecting, generation 6, step 1234567 of 2000000
lanes at step 1234550: rho equivalent 0.0713, noise scale 812 examples,
  coherence -, audit passed, 7 epsilons of 7 lanes
last decision: formed generation 6 of 2 workers at step 1234567, because worker
  3 (a-host-with-a-long-name.example.org, 10.0.0.13:41234) was lost at step
  1234566 in phase ascent: reset, 2.5 s ago

worker rank host               process micro    step phase      images/s   heard
     0    0 h0                 4194304    12 1234567 connecting    12346  120 ms
     1    1 a-host-with-a-lon~ 4194304    12 1234567 connecting        -   2.0 s
     2    - h2                 4194304    12 1234567 connecting        -   3.9 s
late: worker 1 (a-host-with-a-long-name.example.org) is sent the state of step
  1234567, 1042.0 MiB
late: worker 2 (h2) still loads its data and model";
        let lines = table(&status);
        assert_eq!(lines.join("\n"), expected);
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{lines:?}");
    }

    #[test]
    fn an_audit_that_fails_says_why() {
        let audit = Audit { lanes: 4, distinct_epsilons: 5, split_lanes: 1, moved_weights: 2, ..Audit::default() };
        let survey = SurveyStatus { step: Step(50), rho_equivalent: None, noise_scale: None, coherence: None, audit };
        let why = "audit FAILED (1 lanes with more than one epsilon, radius off by 0.0e0, w moved on 2 workers), 5 epsilons of 4 lanes";
        assert!(surveyed(&survey).ends_with(why), "{}", surveyed(&survey));
    }

    #[test]
    fn times_are_for_people() {
        let times: Vec<String> = [0, 999, 1000, 59_999, 60_000, 3_600_000].map(time).into();
        assert_eq!(times, ["0 ms", "999 ms", "1.0 s", "60.0 s", "1 min", "1 h"]);
    }
}
