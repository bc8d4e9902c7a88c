//! `--split`: which examples a command is about.

use clap::ValueEnum;
use strath_core::config::Config;

use crate::outcome::Failure;

/// A part of the data set, as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SplitArgument {
    Train,
    Validation,
    Test,
}

impl SplitArgument {
    /// Checks that the configuration has such a part.
    ///
    /// # Errors
    /// [`Failure::Usage`] where it splits nothing off.
    pub fn check(self, config: &Config) -> Result<(), Failure> {
        if self == Self::Validation && config.data.validation == 0.0 {
            return Err(Failure::usage(
                "--split validation: data.validation is 0, so nothing is split off; set it as the run had it",
            ));
        }
        Ok(())
    }
}
