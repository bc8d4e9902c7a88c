//! How a command ends: exit status 0 done, 2 bad usage or configuration, 130 stopped by a signal, 1 anything else.

use std::fmt;
use std::process::ExitCode;

use strath_core::config::ConfigError;
use strath_node::coordinator::CoordinatorError;

use crate::log;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// Bad usage or configuration.
    Usage(String),
    /// Stopped by Ctrl-C or SIGTERM after a checkpoint.
    Stopped(String),
    /// Anything else.
    Other(String),
}

impl Failure {
    /// The exit status that stands for it.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_) => ExitCode::from(2),
            Self::Stopped(_) => ExitCode::from(130),
            Self::Other(_) => ExitCode::from(1),
        }
    }

    /// What it says, in one line.
    pub fn message(&self) -> &str {
        match self {
            Self::Usage(message) | Self::Stopped(message) | Self::Other(message) => message,
        }
    }

    /// Says it on standard error.
    pub fn tell(&self) {
        match self {
            Self::Usage(_) | Self::Other(_) => log::error(self.message()),
            Self::Stopped(_) => log::say(self.message()),
        }
    }

    /// Anything that has a message, as [`Failure::Usage`].
    pub fn usage(error: impl fmt::Display) -> Self {
        Self::Usage(error.to_string())
    }

    /// Anything that has a message, as [`Failure::Other`].
    pub fn other(error: impl fmt::Display) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<CoordinatorError> for Failure {
    fn from(error: CoordinatorError) -> Self {
        match error {
            CoordinatorError::Misconfigured(message) => Self::Usage(message),
            other => Self::other(other),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}
