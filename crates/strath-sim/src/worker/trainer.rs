//! What a training thread does, in order: the sim's counterpart of `strath_node::trainer`.

use std::collections::VecDeque;

use strath_collective::Bucket;
use strath_core::{After, Assignment, Digest, Rank, Step};
use strath_protocol::message::{Assign, Purpose};

use crate::quadratic::State;
use crate::scenario::Scenario;

/// Integers of a digest.
const WORDS: usize = 4;

/// Something that a training thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Computes its micro-batches.
    Compute,
    /// Sums the gradients of all ranks, and takes the step.
    Reduce,
    /// Evaluates, with all ranks.
    Evaluate,
    /// Compares its state with all ranks'.
    Verify,
    /// Hands its state over, as rank 0.
    Save(Purpose),
    /// Is through, whether or not it was asked to stop.
    Finish(bool),
    /// Rests, as all ranks do.
    Rest,
}

/// A rank's training in one generation.
#[derive(Debug)]
pub(crate) struct Trainer {
    pub(crate) state: State,
    pub(crate) rank: Rank,
    world_size: usize,
    steps: Step,
    own: std::ops::Range<usize>,
    micro_batches: usize,
    /// What is to be done next.
    tasks: VecDeque<Task>,
    /// What this rank was asked to do after the step.
    pub(crate) asked: After,
    checkpoint_every: u64,
    verify_every: u64,
    evaluate_every: u64,
}

impl Trainer {
    pub(crate) fn new(assign: &Assign, state: State, scenario: &Scenario) -> Self {
        let assignment = Assignment::from_bounds(assign.bounds.clone(), scenario.micro_batches)
            .expect("the coordinator hands out the micro-batches of its plan");
        let mut trainer = Self {
            own: assignment.of(assign.rank),
            state,
            rank: assign.rank,
            world_size: assign.members.len(),
            steps: assign.steps,
            micro_batches: scenario.micro_batches,
            tasks: VecDeque::new(),
            asked: After::GoOn,
            checkpoint_every: scenario.checkpoint_every,
            verify_every: scenario.verify_every,
            evaluate_every: scenario.evaluate_every,
        };
        if assign.unsettled {
            trainer.settle(false);
        }
        trainer.go_on();
        trainer
    }

    /// The next thing to do.
    pub(crate) fn next(&mut self) -> Option<Task> {
        self.tasks.pop_front()
    }

    /// How many micro-batches this rank computes.
    pub(crate) fn share(&self) -> usize {
        self.own.len()
    }

    /// The micro-batches of this rank; `one_more`: and one that is another's.
    pub(crate) fn micro_batches(&self, one_more: bool) -> std::ops::Range<usize> {
        self.own.start..(self.own.end + usize::from(one_more)).min(self.micro_batches)
    }

    /// The operation of a task that needs all ranks, and this rank's term of it.
    pub(crate) fn term(&self, task: Task, one_more: bool) -> Option<(Bucket, Vec<i64>)> {
        match task {
            Task::Reduce => {
                let term = self.state.term(self.micro_batches(one_more), self.micro_batches, self.asked);
                Some((Bucket::GRADIENT, term))
            }
            Task::Evaluate => Some((Bucket::EVALUATION, vec![1])),
            Task::Verify => {
                let mut all = vec![0; WORDS * self.world_size];
                let digest = self.state.digest();
                let own = &mut all[WORDS * self.rank.index()..][..WORDS];
                own.iter_mut().zip(digest.0.as_chunks().0).for_each(|(at, word)| *at = i64::from_le_bytes(*word));
                Some((Bucket::VERIFICATION, all))
            }
            _ => None,
        }
    }

    /// Takes the step with the sum of all ranks' terms, and plans what follows it. Gives the counts of its micro-batches.
    pub(crate) fn step(&mut self, sum: &[i64]) -> Vec<i64> {
        let (counts, after) = self.state.advance(sum);
        let after = if self.state.step < self.steps { after } else { After::GoOn };
        self.settle(after == After::Stop);
        match after {
            After::GoOn => self.go_on(),
            After::Pause => self.tasks.push_back(Task::Rest),
            After::Stop => self.tasks.push_back(Task::Finish(true)),
        }
        counts
    }

    fn go_on(&mut self) {
        if self.state.step < self.steps {
            self.tasks.extend([Task::Compute, Task::Reduce]);
        } else {
            self.tasks.extend([Task::Save(Purpose::Final), Task::Finish(false)]);
        }
    }

    /// What follows a step: an evaluation, a comparison of all states, a checkpoint, each where it is due.
    fn settle(&mut self, stopping: bool) {
        let step = self.state.step;
        if step == self.steps || step.0.is_multiple_of(self.evaluate_every) {
            self.tasks.push_back(Task::Evaluate);
        }
        let saves = stopping || step.0.is_multiple_of(self.checkpoint_every) || step == self.steps;
        if saves || step.0.is_multiple_of(self.verify_every) {
            self.tasks.push_back(Task::Verify);
        }
        if saves && step < self.steps {
            self.tasks.push_back(Task::Save(Purpose::Checkpoint));
        }
    }

    /// Whether all ranks hold the same state.
    pub(crate) fn agree(all: &[i64]) -> bool {
        let (digests, _) = all.as_chunks::<WORDS>();
        digests.iter().all(|words| words == &digests[0])
    }

    /// The digest of its weights.
    pub(crate) fn digest(&self) -> Digest {
        self.state.digest()
    }
}
