//! The worker's side: a session with the coordinator, and the status request.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use strath_protocol::ClusterStatus;
use strath_protocol::message::{CoordinatorMessage, DrainAnswer, DrainRequest, WorkerMessage};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::error::{RpcError, describe, innermost};
use crate::inbound::{Gate, Inbound};
use crate::outbound::{NotQueued, Queue, queue};
use crate::tls::{COORDINATOR, ClientTls, Stream, refusal};
use crate::wire;
use crate::wire::strath_client::StrathClient;
use crate::{MESSAGE_LIMIT, ROOM, STREAM_WINDOW, TO_COORDINATOR};

/// Pause before the second attempt to connect; doubled after each.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Longest pause between attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// An attempt takes no longer: the system dials an address that does not answer anew after 1, 3, 7, 15 s, and a host that is back is to
/// be found sooner.
const ATTEMPT: Duration = Duration::from_secs(3);

/// A session with the coordinator. Dropped, it is cut: what is still queued is lost.
#[derive(Debug)]
pub struct Session {
    local: SocketAddr,
    peer: SocketAddr,
    queue: Queue<WorkerMessage>,
    pump: JoinHandle<()>,
    inbound: Inbound<CoordinatorMessage>,
    stalled: watch::Sender<bool>,
}

/// Sends on a session from anywhere.
#[derive(Debug, Clone)]
pub struct SessionSender {
    queue: Queue<WorkerMessage>,
    stalled: watch::Sender<bool>,
}

impl SessionSender {
    /// Queues a message; waits while 16384 wait already, and breaks the session where none of them leaves within five
    /// seconds. Cancelled, it has not queued it. Heartbeats, reports of steps and evaluations, and failures overtake a state
    /// that is under way, and a word of leaving cuts it short.
    ///
    /// # Errors
    /// [`RpcError::Over`] where the session has ended; [`Session::receive`] says why.
    pub async fn send(&self, message: WorkerMessage) -> Result<(), RpcError> {
        self.queue.send(message, ROOM).await.map_err(|refused| {
            if refused == NotQueued::Full {
                self.stalled.send_replace(true);
            }
            RpcError::Over
        })
    }
}

impl Session {
    /// Opens a session with the coordinator at `address`, `host:port`, with `tls` only with one that shows a coordinator's certificate of the
    /// same authority. An absent coordinator is dialled again, each time for at most 3 s and after pauses of 50 ms to 1 s, until `timeout`
    /// has passed.
    ///
    /// # Errors
    /// [`RpcError::Absent`], with what the last attempt met; [`RpcError::Untrusted`] at once where the two ends' certificates do not fit.
    pub async fn connect(address: &str, timeout: Duration, tls: Option<&ClientTls>) -> Result<Self, RpcError> {
        let deadline = Instant::now() + timeout;
        let mut pause = FIRST_PAUSE;
        let mut last = None;
        loop {
            let until = deadline.min(Instant::now() + ATTEMPT);
            let cause = match timeout_at(until, Self::attempt(address, tls)).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(Failure::Untrusted(cause))) => {
                    return Err(RpcError::Untrusted { address: address.into(), cause });
                }
                Ok(Err(Failure::Absent(cause))) => cause,
                // An earlier refusal says more than that the last attempt ran out of time.
                Err(_) => last.take().unwrap_or_else(|| "no answer".into()),
            };
            if Instant::now() + pause >= deadline {
                return Err(RpcError::Absent { address: address.into(), timeout, cause });
            }
            tracing::debug!("no coordinator at {address} yet: {cause}");
            last = Some(cause);
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(address: &str, tls: Option<&ClientTls>) -> Result<Self, Failure> {
        let Dialled { mut client, local, peer } = dial(address, tls).await?;
        let (queue, pump) = queue(TO_COORDINATOR);
        let (sender, receiver) = mpsc::channel(1);
        let response =
            client.session(ReceiverStream::new(receiver)).await.map_err(|status| Failure::of_call(&status))?;
        let pump = tokio::spawn(pump.run(sender, |wire| wire));
        // A worker has chosen its coordinator, and takes what it sends.
        let gate = Gate::closed();
        gate.open();
        let inbound = Inbound::new(response.into_inner(), gate);
        Ok(Self { local, peer, queue, pump, inbound, stalled: watch::Sender::new(false) })
    }

    /// This end of the TCP connection: the address of this host that the coordinator's network reaches.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// The coordinator's end of the TCP connection.
    pub fn peer_address(&self) -> SocketAddr {
        self.peer
    }

    /// A sender on this session.
    pub fn sender(&self) -> SessionSender {
        SessionSender { queue: self.queue.clone(), stalled: self.stalled.clone() }
    }

    /// The coordinator's next message. Cancel-safe.
    ///
    /// # Errors
    /// [`RpcError::Closed`], [`RpcError::Broken`] and [`RpcError::Malformed`], after each of which the session is over.
    pub async fn receive(&mut self) -> Result<CoordinatorMessage, RpcError> {
        let mut stalled = self.stalled.subscribe();
        tokio::select! {
            // Whatever has come is worth more than that nothing goes.
            biased;
            message = self.inbound.next() => message,
            // The sender cannot be gone: this session holds one.
            _ = stalled.wait_for(|stalled| *stalled) => {
                // Nothing more is to be sent, and whoever waits for room learns of it.
                self.pump.abort();
                Err(RpcError::Broken(format!("the coordinator has read nothing for {} s", ROOM.as_secs())))
            }
        }
    }

    /// Sends what is queued, then closes the session and waits until the coordinator has seen it; no longer than `grace`.
    /// Messages that still come are dropped.
    pub async fn finish(mut self, grace: Duration) {
        self.queue.close();
        let ended = async { while self.inbound.next().await.is_ok() {} };
        if timeout(grace, ended).await.is_err() {
            tracing::debug!("the coordinator at {} did not close the session within {grace:?}", self.peer);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// The cluster of the coordinator at `address`, `host:port`, asked once.
///
/// # Errors
/// [`RpcError::Status`] where nothing usable comes within `timeout`.
pub async fn status(address: &str, timeout: Duration, tls: Option<&ClientTls>) -> Result<ClusterStatus, RpcError> {
    let ask = async {
        let mut client = dial(address, tls).await.map_err(Failure::into_cause)?.client;
        let reply = client.status(wire::StatusRequest {}).await;
        let reply = reply.map_err(|status| Failure::of_call(&status).into_cause())?;
        let cluster = reply.into_inner().cluster.ok_or("it has nothing to show yet; ask again")?;
        cluster.try_into().map_err(|error: RpcError| error.to_string())
    };
    answered(timeout, ask).await.map_err(|cause| RpcError::Status { address: address.into(), cause })
}

/// Asks the coordinator at `address`, `host:port`, to have a worker leave, once.
///
/// # Errors
/// [`RpcError::Drain`] where no answer comes within `timeout`.
pub async fn drain(
    address: &str,
    timeout: Duration,
    tls: Option<&ClientTls>,
    request: DrainRequest,
) -> Result<DrainAnswer, RpcError> {
    let ask = async {
        let mut client = dial(address, tls).await.map_err(Failure::into_cause)?.client;
        let reply = client.drain(wire::DrainRequest::from(request)).await;
        let reply = reply.map_err(|status| Failure::of_call(&status).into_cause())?;
        reply.into_inner().try_into().map_err(|error: RpcError| error.to_string())
    };
    answered(timeout, ask).await.map_err(|cause| RpcError::Drain { address: address.into(), cause })
}

/// The answer to one question, or why there is none within `timeout`.
async fn answered<T>(timeout: Duration, ask: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let late = |_| Err(format!("no answer within {:.1} s", timeout.as_secs_f64()));
    tokio::time::timeout(timeout, ask).await.unwrap_or_else(late)
}

/// A client on one TCP connection, and its ends.
struct Dialled {
    client: StrathClient<Channel>,
    local: SocketAddr,
    peer: SocketAddr,
}

/// What an attempt to connect has met.
enum Failure {
    /// Something that may pass.
    Absent(String),
    /// The two ends' certificates, which will be the same next time.
    Untrusted(String),
}

impl Failure {
    fn of(error: &(dyn Error + 'static)) -> Self {
        refusal(error).map_or_else(|| Self::Absent(innermost(error)), Self::Untrusted)
    }

    /// In TLS 1.3 a server's word on its client's certificate comes after the handshake, in place of an answer.
    fn of_call(status: &tonic::Status) -> Self {
        match refusal(status) {
            Some(cause) => Self::Untrusted(cause),
            None => Self::Absent(describe(status)),
        }
    }

    fn into_cause(self) -> String {
        match self {
            Self::Absent(cause) | Self::Untrusted(cause) => cause,
        }
    }
}

async fn dial(address: &str, tls: Option<&ClientTls>) -> Result<Dialled, Failure> {
    let stream = TcpStream::connect(address).await.map_err(|error| Failure::Absent(error.to_string()))?;
    let connected = |stream: &TcpStream| {
        stream.set_nodelay(true)?;
        Ok::<_, io::Error>((stream.local_addr()?, stream.peer_addr()?))
    };
    let (local, peer) = connected(&stream).map_err(|error| Failure::Absent(error.to_string()))?;
    let stream = match tls {
        None => Stream::Left(stream),
        Some(tls) => {
            let name = ServerName::try_from(COORDINATOR).expect("the name is one of the domain name system's");
            let secured = TlsConnector::from(tls.0.clone()).connect(name, stream).await;
            Stream::Right(Box::new(secured.map_err(|error| Failure::of(&error))?.into()))
        }
    };
    // The channel would dial again by itself after a break. It gets this one connection: a session does not outlive it.
    let mut only = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        let connection = only.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        async move { connection }
    });
    // The name goes into a header that nobody reads.
    let channel = Endpoint::from_static("http://coordinator")
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW * 2)
        .connect_with_connector(connector)
        .await
        .map_err(|error| Failure::of(&error))?;
    let client =
        StrathClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT);
    Ok(Dialled { client, local, peer })
}
