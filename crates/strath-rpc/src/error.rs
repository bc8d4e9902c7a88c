//! What can go wrong on the wire.

use std::error::Error;
use std::time::Duration;

/// A session, a status request or a message that failed.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// The server or the client was started outside of a tokio runtime.
    #[error("no tokio runtime runs on this thread; start the control plane from within one")]
    NoRuntime,
    /// The listener cannot be served on.
    #[error("cannot serve the control plane: {0}")]
    Listener(#[from] std::io::Error),
    /// No coordinator answered in time.
    #[error(
        "no coordinator at {address} after {:.1} s ({cause}); start it, correct the address, or wait longer with --connect-timeout",
        timeout.as_secs_f64()
    )]
    Absent {
        /// The address that was dialled.
        address: String,
        /// How long.
        timeout: Duration,
        /// What the last attempt met.
        cause: String,
    },
    /// The coordinator and this worker do not trust each other's certificates.
    #[error(
        "the coordinator at {address}: {cause}; give both sides a set of one authority with --certs (strath certs DIR makes one)"
    )]
    Untrusted {
        /// The address that was dialled.
        address: String,
        /// Which does not fit.
        cause: String,
    },
    /// The status request failed.
    #[error("no status from the coordinator at {address}: {cause}")]
    Status {
        /// The address that was dialled.
        address: String,
        /// What it met.
        cause: String,
    },
    /// The request to have a worker leave failed.
    #[error("the coordinator at {address} did not answer: {cause}")]
    Drain {
        /// The address that was dialled.
        address: String,
        /// What it met.
        cause: String,
    },
    /// The session was ended by the other side in good order.
    #[error("the session was closed by the other side")]
    Closed,
    /// The session broke.
    #[error("the session broke: {0}")]
    Broken(String),
    /// A message was to be sent on a session that is over.
    #[error("the session is over, nothing more can be sent")]
    Over,
    /// Something that the other side sent is not what the wire format says.
    #[error("malformed message: {field} is {found}, expected {expected}")]
    Malformed {
        /// The message and field.
        field: &'static str,
        /// What stood there.
        found: String,
        /// What may stand there.
        expected: String,
    },
}

impl RpcError {
    pub(crate) fn malformed(field: &'static str, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Malformed { field, found: found.into(), expected: expected.into() }
    }
}

/// An error in one line: the innermost one that is of the operating system, else the innermost that says anything.
pub(crate) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut said = error.to_string();
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.raw_os_error().is_some()
        {
            return io.to_string();
        }
        let text = error.to_string();
        if !text.is_empty() {
            said = text;
        }
        at = error.source();
    }
    said
}

/// What a failed call met, in one line.
pub(crate) fn describe(status: &tonic::Status) -> String {
    if let Some(source) = status.source() {
        innermost(source)
    } else if status.message().is_empty() {
        status.code().description().into()
    } else {
        status.message().into()
    }
}
