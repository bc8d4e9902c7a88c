//! What goes on the run's record, once each and in order; where something is missing, that is said.

use strath_core::{Evaluations, Step};

use super::Coordinator;
use crate::command::{CoordinatorCommand as Command, Record};
use crate::message::{EvalReport, Job, MOST_EVALUATIONS_TOLD, MOST_STEPS_TOLD, MeasureReport, StepReport};

impl Coordinator {
    /// The newest step on record.
    pub(super) fn recorded(&self) -> Step {
        let reported = self.last_step.as_ref().map_or(Step(0), |report| report.step);
        reported.max(self.kept_step().unwrap_or_default()).max(self.settings.former.recorded)
    }

    /// Notes a step, unless it is on record: a generation that began before it has taken it again, to the same bits.
    pub(super) fn record_step(&mut self, report: StepReport) {
        // A step that is taken again takes as long.
        if report.generation == self.generation {
            self.balance.note(&report);
        }
        let recorded = self.recorded();
        if report.step <= recorded {
            return;
        }
        if let Some(gap) = missing_steps(recorded, report.step) {
            self.commands.push_back(Command::Record(Record::Warning(gap)));
        }
        self.last_step = Some(report.clone());
        self.commands.push_back(Command::Record(Record::Step(report)));
    }

    /// Notes an evaluation, unless it is on record: a generation that began after its step has made it again.
    pub(super) fn record_evaluation(&mut self, report: EvalReport) {
        let known = self.results.evaluated.as_ref().map(EvalReport::place).max(self.settings.former.evaluated);
        if known.is_some_and(|known| known >= report.place()) {
            return;
        }
        let before = known.map_or_else(|| self.kept_step().unwrap_or_default(), |(step, _)| step);
        if let Some(gap) = self.schedule().and_then(|schedule| missing_evaluations(schedule, before, report.step)) {
            self.commands.push_back(Command::Record(Record::Warning(gap)));
        }
        self.results.evaluated = Some(report.clone());
        self.commands.push_back(Command::Record(Record::Eval(report)));
    }

    /// Notes how far a measurement has come, and its result.
    pub(super) fn record_measurement(&mut self, report: MeasureReport) {
        let MeasureReport { done, of, result, .. } = report;
        match result {
            Some(result) => self.results.measured = Some(result),
            None => self.commands.push_back(Command::Record(Record::Measuring { done, of })),
        }
    }

    /// When the run is evaluated, once its length is known.
    fn schedule(&self) -> Option<Evaluations> {
        let (_, reference) = self.reference.as_ref().filter(|_| self.settings.job == Job::Train)?;
        let config = &self.settings.config;
        let train_examples = reference.data.train_examples;
        (train_examples > 0).then(|| Evaluations::of(config, train_examples, config.steps(train_examples as usize)))
    }
}

/// What is to be said of the steps between the newest on record and the next, if there are any.
fn missing_steps(recorded: Step, next: Step) -> Option<String> {
    (next.0 > recorded.0 + 1).then(|| {
        format!(
            "steps {} to {} are on no record, though they were taken: a worker that goes on without its coordinator keeps the \
             newest {MOST_STEPS_TOLD}",
            recorded.0 + 1,
            next.0 - 1
        )
    })
}

/// The same of evaluations.
fn missing_evaluations(schedule: Evaluations, before: Step, next: Step) -> Option<String> {
    let missing: Vec<u64> = (before.0 + 1..next.0).filter(|step| schedule.is_due(*step)).collect();
    let (first, last) = (missing.first()?, missing.last()?);
    Some(format!(
        "{} evaluations after steps {first} to {last} are on no record, though they were made: a worker that goes on without its \
         coordinator keeps the newest {MOST_EVALUATIONS_TOLD}",
        missing.len()
    ))
}
