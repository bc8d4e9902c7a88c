//! How a worker gets its place in a generation, and the state to start from.

use super::away::Backlog;
use super::{Stage, Worker};
use crate::Rejected;
use crate::command::{WorkerCommand as Command, WorkerOutcome};
use crate::message::{Assign, Phase, State};

impl Worker {
    /// It has a place: it connects, once the state is here where one was announced.
    pub(super) fn assigned(&mut self, assign: Assign) -> Result<(), Rejected> {
        self.expect(&Stage::Waiting, "Assign")?;
        let lacks = assign.keeps && self.held.is_none_or(|(step, _)| step != assign.start);
        if lacks && self.was_fed {
            // It was called in with the state that it held before; what it was fed since was on its way.
            let message = format!("it was to begin at step {} and was fed a later state", assign.start);
            self.exit(WorkerOutcome::Lost { message });
            return Ok(());
        }
        if lacks {
            return Err(Rejected::OutOfOrder { what: "Assign", state: "no such state is held" });
        }
        self.stop_following();
        self.progress.generation = assign.generation;
        self.progress.step = assign.start;
        self.progress.images_per_s = 0.0;
        self.rank = assign.rank;
        if assign.state.is_some() {
            self.enter(Stage::Receiving(Box::new(assign)), Phase::Connecting);
        } else {
            self.connect(assign, None);
        }
        Ok(())
    }

    /// The state that was announced.
    pub(super) fn received(&mut self, state: State) -> Result<(), Rejected> {
        let Stage::Receiving(assign) = &self.stage else {
            return Err(Rejected::OutOfOrder { what: "State", state: self.stage.name() });
        };
        if state.generation != assign.generation {
            let (found, expected) = (state.generation.0, assign.generation.0);
            return Err(Rejected::StaleGeneration { what: "State", found, expected });
        }
        let assign = (**assign).clone();
        if let Some(named) = &assign.state {
            let optimizer = (!state.optimizer.is_empty()).then(|| state.optimizer.digest());
            if state.model.digest() != named.model || optimizer != named.optimizer {
                let message = format!("the state from {} arrived with other bytes than announced", named.source);
                self.exit(WorkerOutcome::Failed { message });
                return Ok(());
            }
        }
        self.connect(assign, Some(state));
        Ok(())
    }

    fn connect(&mut self, assign: Assign, state: Option<State>) {
        (self.rests, self.held, self.was_fed, self.halted_after) = (false, None, false, None);
        self.backlog = Backlog::default();
        // Whoever assigns has read what was told.
        self.recent.clear();
        self.evaluations.clear();
        self.enter(Stage::Connecting(assign.generation), Phase::Connecting);
        self.commands.push_back(Command::Connect { assign, state });
    }
}
