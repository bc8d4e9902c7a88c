//! How a worker leaves: its generation, because that is over, or the run, because it was asked to.

use strath_core::{Generation, Step};

use super::{Stage, Worker};
use crate::Rejected;
use crate::command::{WorkerCommand as Command, WorkerOutcome};
use crate::message::{Halted, Phase, WorkerMessage};

impl Worker {
    /// One that has a part in the run goes on until the others can do without it: nothing is lost. Asked twice, it leaves at once.
    pub(super) fn stop(&mut self) {
        let takes_part = self.progress.generation != Generation(0);
        match self.stage {
            // The last word is on its way.
            Stage::Failed(_) => {}
            // Nobody is there to say that the others can do without it.
            _ if self.is_away() => self.exit(WorkerOutcome::Stopped),
            _ if takes_part && !self.is_retiring => {
                self.is_retiring = true;
                self.send(WorkerMessage::Retiring);
            }
            _ => {
                self.leave("stopped by a signal".into());
                self.exit(WorkerOutcome::Stopped);
            }
        }
    }

    /// The generation is over: what is at work in it ends, and the state stays.
    pub(super) fn halt(&mut self, generation: Generation, recorded: Step) -> Result<(), Rejected> {
        let at_work = match &self.stage {
            Stage::Receiving(assign) if assign.generation == generation => false,
            Stage::Connecting(current) | Stage::Connected(current) | Stage::Running(current)
                if *current == generation =>
            {
                true
            }
            Stage::Finished(current) | Stage::Halting(current, _) if *current == generation => false,
            stage => return Err(Rejected::OutOfOrder { what: "Halt", state: stage.name() }),
        };
        if at_work {
            self.commands.push_back(Command::Halt);
        }
        if !matches!(self.stage, Stage::Halting(..)) {
            self.stage = Stage::Halting(generation, None);
        }
        self.halted_after = Some(recorded);
        self.say_halted();
        Ok(())
    }

    /// The generation is to end after a step: all ranks agree on which, and this one may have heard of it from them already.
    pub(super) fn pause(&mut self, generation: Generation, recorded: Step) -> Result<(), Rejected> {
        match self.stage {
            Stage::Running(current) if current == generation => self.commands.push_back(Command::PauseAfterStep),
            Stage::Halting(current, None) if current == generation => {}
            _ => return Err(Rejected::OutOfOrder { what: "Pause", state: self.stage.name() }),
        }
        self.halted_after.get_or_insert(recorded);
        self.say_halted();
        Ok(())
    }

    /// Says that it has left its generation, once it has and was told that the generation is over, unless nobody is there to hear it.
    pub(super) fn say_halted(&mut self) {
        let (Stage::Halting(..), Some(recorded), true) = (&self.stage, self.halted_after, self.rests) else {
            return;
        };
        if self.is_away() {
            return;
        }
        let halted = self.halted(recorded);
        self.halted_after = None;
        self.progress.step = self.held.map_or(Step(0), |(step, _)| step);
        self.enter(Stage::Waiting, Phase::Waiting);
        self.send(WorkerMessage::Halted(halted));
    }

    /// What there is to say of a generation that is left, where the steps up to `recorded` are on record.
    pub(super) fn halted(&self, recorded: Step) -> Halted {
        Halted {
            generation: self.progress.generation,
            held: self.held,
            ring_address: self.ring_address,
            unrecorded: self.recent.iter().filter(|report| report.step > recorded).cloned().collect(),
            evaluations: self.evaluations.iter().cloned().collect(),
        }
    }
}
