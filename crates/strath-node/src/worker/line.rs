//! A worker's line to its coordinator: a session, or the search for the next one.

use std::pin::Pin;
use std::time::Duration;

use strath_protocol::message::CoordinatorMessage;
use strath_rpc::{RpcError, Session, SessionSender};

use super::WorkerSettings;

/// A search takes so long before it says that nobody was found, and then begins anew.
const SEARCH: Duration = Duration::from_secs(10);
/// A session that breaks as soon as it has begun is no reason to try without end.
const BREATH: Duration = Duration::from_millis(20);
/// A coordinator that is there and will not have the session is tried again after a pause.
const PAUSE: Duration = Duration::from_secs(1);

/// A line to the coordinator.
pub(super) enum Line {
    Up(Box<Session>),
    Sought(Pin<Box<dyn Future<Output = Result<Session, RpcError>> + Send>>),
    Down,
}

/// What comes over a line.
pub(super) enum Heard {
    Message(CoordinatorMessage),
    /// A session has begun.
    Found,
    /// The session has ended, or none was found, for this cause.
    Lost(String),
}

impl Line {
    /// Gives up the session, if there is one, and begins to look for another.
    pub(super) fn seek(&mut self, settings: &WorkerSettings) {
        let (address, tls) = (settings.coordinator.clone(), settings.tls.clone());
        *self = Self::Sought(Box::pin(async move {
            tokio::time::sleep(BREATH).await;
            let found = Session::connect(&address, SEARCH, tls.as_ref()).await;
            if !matches!(found, Ok(_) | Err(RpcError::Absent { .. })) {
                tokio::time::sleep(PAUSE).await;
            }
            found
        }));
    }

    /// Waits for what comes next. Cancelled, it loses nothing.
    pub(super) async fn hear(&mut self) -> Heard {
        match self {
            Self::Up(session) => match session.receive().await {
                Ok(message) => Heard::Message(message),
                Err(error) => Heard::Lost(error.to_string()),
            },
            Self::Sought(search) => match search.await {
                Ok(session) => {
                    *self = Self::Up(Box::new(session));
                    Heard::Found
                }
                Err(error) => {
                    *self = Self::Down;
                    Heard::Lost(error.to_string())
                }
            },
            Self::Down => std::future::pending().await,
        }
    }

    /// Sends on the session, where there is one.
    pub(super) fn sender(&self) -> Option<SessionSender> {
        if let Self::Up(session) = self { Some(session.sender()) } else { None }
    }

    /// Sends what is queued, then closes, within `grace`.
    pub(super) async fn finish(self, grace: Duration) {
        if let Self::Up(session) = self {
            session.finish(grace).await;
        }
    }
}
