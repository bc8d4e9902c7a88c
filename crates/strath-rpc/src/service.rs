//! The coordinator's calls, and the life of a session.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use strath_protocol::message::{CoordinatorMessage, DrainRequest, WorkerMessage};
use strath_protocol::{ClusterStatus, Connection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::connection::{HANDSHAKE, InSession, Origin};
use crate::error::RpcError;
use crate::inbound::{Gate, Inbound};
use crate::outbound::{NotQueued, Queue, queue};
use crate::server::{DrainCall, SessionEvent, SessionHappening};
use crate::{TO_WORKER, wire};

/// Sessions at a time.
pub(crate) const SESSIONS: usize = 4096;

/// How long a worker may take to leave once everything for it has been sent.
const LINGER: Duration = Duration::from_secs(1);

/// What the calls and the server's handle share.
pub(crate) struct Shared {
    sessions: Mutex<BTreeMap<Connection, Entry>>,
    slots: Arc<Semaphore>,
    next: AtomicU64,
    events: mpsc::Sender<SessionEvent>,
    status: Arc<dyn Fn() -> Option<ClusterStatus> + Send + Sync>,
    drains: mpsc::Sender<DrainCall>,
}

struct Entry {
    queue: Queue<CoordinatorMessage>,
    /// Opened by the worker's place in a generation: nobody else has a state to send.
    states: Gate,
    cut: oneshot::Sender<String>,
}

impl Shared {
    pub(crate) fn new(
        events: mpsc::Sender<SessionEvent>,
        status: Arc<dyn Fn() -> Option<ClusterStatus> + Send + Sync>,
        drains: mpsc::Sender<DrainCall>,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(SESSIONS));
        Self { sessions: Mutex::default(), slots, next: AtomicU64::new(0), events, status, drains }
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<Connection, Entry>> {
        self.sessions.lock().expect("nothing panics while it holds the sessions")
    }

    /// Queues a message; a session that does not read is cut, one that is over is left alone.
    pub(crate) fn send(&self, connection: Connection, message: CoordinatorMessage) {
        let mut sessions = self.sessions();
        let Some(entry) = sessions.get(&connection) else { return };
        if matches!(
            message,
            CoordinatorMessage::Assign(_) | CoordinatorMessage::TakenBack { .. } | CoordinatorMessage::SendState { .. }
        ) {
            entry.states.open();
        }
        if entry.queue.try_send(message) == Err(NotQueued::Full)
            && let Some(entry) = sessions.remove(&connection)
        {
            cut(entry, "does not read");
        }
    }

    /// Ends a session once everything queued has been sent.
    pub(crate) fn close(&self, connection: Connection) {
        if let Some(entry) = self.sessions().get(&connection) {
            entry.queue.close();
        }
    }

    /// As [`Shared::close`], for all.
    pub(crate) fn close_all(&self) {
        for entry in self.sessions().values() {
            entry.queue.close();
        }
    }

    /// Ends every session at once.
    pub(crate) fn cut_all(&self) {
        for (_, entry) in std::mem::take(&mut *self.sessions()) {
            cut(entry, "the server has ended");
        }
    }

    /// Waits until no session is left; afterwards none can begin.
    pub(crate) async fn all_ended(&self) {
        let all = u32::try_from(SESSIONS).expect("a few thousand");
        if let Ok(slots) = self.slots.acquire_many(all).await {
            slots.forget();
        }
    }

    async fn emit(&self, connection: Connection, what: SessionHappening) {
        // Without a listener there is nobody to tell; sessions still end in good order.
        let _ = self.events.send(SessionEvent { connection, what }).await;
    }
}

fn cut(entry: Entry, cause: &str) {
    // A session that has just ended by itself no longer listens.
    let _ = entry.cut.send(cause.into());
}

/// The service that tonic calls.
pub(crate) struct Service(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl wire::strath_server::Strath for Service {
    type SessionStream = ReceiverStream<Result<wire::CoordinatorMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<wire::WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let Ok(slot) = Arc::clone(&self.0.slots).try_acquire_owned() else {
            return Err(Status::resource_exhausted(format!("the coordinator takes no more than {SESSIONS} sessions")));
        };
        let Some(origin) = request.extensions().get::<Origin>().cloned() else {
            return Err(Status::internal("the connection has no origin"));
        };
        let in_session = origin.session_begins();
        let connection = Connection(self.0.next.fetch_add(1, Ordering::Relaxed));
        let (queue, pump) = queue(TO_WORKER);
        let (cut, cut_off) = oneshot::channel();
        let states = Gate::closed();
        self.0.sessions().insert(connection, Entry { queue, states: states.clone(), cut });
        let (sender, receiver) = mpsc::channel(1);
        let pump = tokio::spawn(pump.run(sender, Ok));
        let inbound = Inbound::new(request.into_inner(), states);
        tokio::spawn(live(Arc::clone(&self.0), connection, (origin.peer, in_session), inbound, pump, cut_off, slot));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn status(&self, _: Request<wire::StatusRequest>) -> Result<Response<wire::StatusReply>, Status> {
        Ok(Response::new(wire::StatusReply { cluster: (self.0.status)().map(Into::into) }))
    }

    async fn drain(&self, request: Request<wire::DrainRequest>) -> Result<Response<wire::DrainReply>, Status> {
        let request = DrainRequest::try_from(request.into_inner());
        let request = request.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let (answer, answered) = oneshot::channel();
        let over = || Status::unavailable("the coordinator is about to end");
        self.0.drains.send(DrainCall { request, answer }).await.map_err(|_| over())?;
        let answer = answered.await.map_err(|_| over())?;
        Ok(Response::new(answer.into()))
    }
}

/// A session from its beginning to its end.
async fn live(
    shared: Arc<Shared>,
    connection: Connection,
    (peer, in_session): (SocketAddr, InSession),
    mut inbound: Inbound<WorkerMessage>,
    mut pump: JoinHandle<()>,
    cut_off: oneshot::Receiver<String>,
    slot: OwnedSemaphorePermit,
) {
    let happenings = async {
        shared.emit(connection, SessionHappening::Connected(peer)).await;
        let mut first = true;
        loop {
            let message = if std::mem::take(&mut first) {
                tokio::time::timeout(HANDSHAKE, inbound.next())
                    .await
                    .unwrap_or_else(|_| Err(RpcError::Broken("said nothing in time".into())))
            } else {
                inbound.next().await
            };
            match message {
                Ok(message) => shared.emit(connection, SessionHappening::Message(message)).await,
                Err(error) => return error.to_string(),
            }
        }
    };
    let sent_everything = async {
        // However the pump ended, it sends nothing more.
        let _ = (&mut pump).await;
        tokio::time::sleep(LINGER).await;
    };
    let cause = tokio::select! {
        cause = happenings => cause,
        cause = cut_off => {
            pump.abort();
            cause.unwrap_or_else(|_| "the server has ended".into())
        }
        () = sent_everything => "closed".into(),
    };
    shared.sessions().remove(&connection);
    shared.emit(connection, SessionHappening::Disconnected(cause)).await;
    drop((slot, in_session));
}
