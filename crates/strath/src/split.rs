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
    Noisy,
}

impl SplitArgument {
    /// Checks that the configuration has such a part.
    ///
    /// # Errors
    /// [`Failure::Usage`] where it splits nothing off.
    pub fn check(self, config: &Config) -> Result<(), Failure> {
        match self {
            Self::Validation if config.data.validation == 0.0 => Err(Failure::usage(
                "--split validation: data.validation is 0, so nothing is split off; set it as the run had it",
            )),
            Self::Noisy if config.data.label_noise == 0.0 => Err(Failure::usage(
                "--split noisy: data.label_noise is 0, so no label was replaced; set it as the run had it",
            )),
            _ => Ok(()),
        }
    }
}
