//! The coordinator's side: a handle on the running server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use strath_protocol::message::{CoordinatorMessage, DrainAnswer, DrainRequest, WorkerMessage};
use strath_protocol::{ClusterStatus, Connection};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use crate::connection::{HANDSHAKE, accept};
use crate::error::{RpcError, innermost};
use crate::service::{SESSIONS, Service, Shared};
use crate::tls::ServerTls;
use crate::wire::strath_server::StrathServer;
use crate::{MESSAGE_LIMIT, STREAM_WINDOW};

/// TCP connections at a time: every session's, and room for status requests.
const CONNECTIONS: usize = SESSIONS + 64;

/// Calls at a time on one connection.
const CALLS: u32 = 8;

/// Events that may wait to be taken; beyond them sessions are read no further.
const EVENTS: usize = 1024;

/// Something that happened to a session. A session's events come in order: it connects, says things, is disconnected once.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionEvent {
    /// The session; ids are never used again.
    pub connection: Connection,
    /// What happened.
    pub what: SessionHappening,
}

/// What happens to a session.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionHappening {
    /// It began, from this address.
    Connected(SocketAddr),
    /// The worker said something.
    Message(WorkerMessage),
    /// It ended, whoever ended it; how, in one line.
    Disconnected(String),
}

/// Requests to have a worker leave that may wait to be taken; beyond them the next waits to be read.
const DRAINS: usize = 16;

/// Somebody wants a worker to leave, and waits for an answer.
#[derive(Debug)]
pub struct DrainCall {
    /// What is wanted.
    pub request: DrainRequest,
    /// Where the answer goes. Dropped, the caller is told that there is none.
    pub answer: oneshot::Sender<DrainAnswer>,
}

/// The running server. Dropped, it cuts every session.
pub struct Server {
    shared: Arc<Shared>,
    accept: JoinHandle<()>,
    serve: JoinHandle<Result<(), tonic::transport::Error>>,
    stop: Option<oneshot::Sender<()>>,
}

impl Server {
    /// Serves on a listener that is already bound, with `tls` only those who show a worker's certificate. Sessions' events come through the receiver, and have to be taken from it:
    /// sessions whose events find no room are not read until there is some. `status` answers status requests, on a thread
    /// of the runtime, so it must not block; `None` says that there is nothing to show yet. The second receiver gives what is to be answered
    /// by whoever decides.
    ///
    /// # Errors
    /// [`RpcError::NoRuntime`] outside of a tokio runtime, [`RpcError::Listener`] where the listener cannot be served on.
    pub fn start(
        listener: std::net::TcpListener,
        tls: Option<ServerTls>,
        status: Arc<dyn Fn() -> Option<ClusterStatus> + Send + Sync>,
    ) -> Result<(Self, mpsc::Receiver<SessionEvent>, mpsc::Receiver<DrainCall>), RpcError> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| RpcError::NoRuntime)?;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (events, happenings) = mpsc::channel(EVENTS);
        let (drains, calls) = mpsc::channel(DRAINS);
        let shared = Arc::new(Shared::new(events, status, drains));

        let (accepted, connections) = mpsc::channel(16);
        let accept = runtime.spawn(accept(listener, tls, CONNECTIONS, HANDSHAKE, accepted));
        let service = StrathServer::new(Service(Arc::clone(&shared)))
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = tonic::transport::Server::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW * 2)
            .max_concurrent_streams(CALLS)
            .add_service(service)
            .serve_with_incoming_shutdown(ReceiverStream::new(connections), async {
                // A handle that is gone stops the server just as well.
                let _ = stopped.await;
            });
        let serve = runtime.spawn(serve);
        Ok((Self { shared, accept, serve, stop: Some(stop) }, happenings, calls))
    }

    /// Sends a message on a session; nothing happens where it is over. Never blocks: where 1024 messages wait already, the
    /// session is dropped, and its event says "does not read".
    pub fn send(&self, connection: Connection, message: CoordinatorMessage) {
        self.shared.send(connection, message);
    }

    /// Ends a session once everything queued for it has been sent. Its event still comes.
    pub fn close(&self, connection: Connection) {
        self.shared.close(connection);
    }

    /// Takes no more connections, sends what is queued and closes every session; after `grace`, cuts what is left.
    pub async fn shutdown(mut self, grace: Duration) {
        let deadline = tokio::time::Instant::now() + grace;
        self.accept.abort();
        self.shared.close_all();
        if tokio::time::timeout_at(deadline, self.shared.all_ended()).await.is_err() {
            self.shared.cut_all();
        }
        self.stop = None;
        match tokio::time::timeout_at(deadline, &mut self.serve).await {
            Ok(Ok(Err(error))) => tracing::warn!("the control plane's server ended badly: {}", innermost(&error)),
            Ok(Err(error)) => tracing::warn!("the control plane's server ended badly: {error}"),
            // Connections that do not close are left to the end of the process.
            Ok(Ok(Ok(()))) | Err(_) => {}
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accept.abort();
        self.shared.cut_all();
        self.serve.abort();
    }
}
