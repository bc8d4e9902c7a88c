//! The coordinator's connections: accepted up to a limit, and dropped once they have had no session for a while.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tonic::transport::server::Connected;

use crate::tls::{ServerTls, Stream};

/// A connection without a session, and a session without a first message, live this long.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(10);

/// Pause after an error of the listener (no file descriptors left, for example), so as not to spin on it.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections of which it is said why they were refused: more lines would let strangers fill a disk, or a pipe that nobody empties.
const MOST_TOLD: usize = 100;

/// Accepts until nobody takes connections any more. Above `limit` connections at a time, further ones are dropped; one on
/// which no session begins within `handshake` fails, that of TLS included, and so does one that has had none for twice as long since. Nobody
/// waits for another's.
pub(crate) async fn accept(
    listener: TcpListener,
    tls: Option<ServerTls>,
    limit: usize,
    handshake: Duration,
    accepted: mpsc::Sender<io::Result<Accepted>>,
) {
    let slots = Arc::new(Semaphore::new(limit));
    let told = Arc::new(AtomicUsize::new(0));
    let refuse = move |peer: SocketAddr, why: &dyn std::fmt::Display| match told.fetch_add(1, Ordering::Relaxed) {
        ..MOST_TOLD => tracing::info!("refused a connection from {peer}: {why}"),
        MOST_TOLD => tracing::warn!("{MOST_TOLD} connections were refused; of further ones nothing is said"),
        _ => tracing::debug!("refused a connection from {peer}: {why}"),
    };
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            refuse(peer, &format_args!("{limit} are open already"));
            continue;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!("dropped a connection from {peer}: {error}");
            continue;
        }
        let origin = Origin { peer, sessions: Arc::default() };
        let deadline = Box::pin(tokio::time::sleep(handshake));
        let Some(tls) = tls.clone() else {
            let stream = Stream::Left(stream);
            if accepted.send(Ok(Accepted { stream, origin, deadline, handshake, _slot: slot })).await.is_err() {
                return;
            }
            continue;
        };
        if accepted.is_closed() {
            return;
        }
        let (accepted, refuse) = (accepted.clone(), refuse.clone());
        tokio::spawn(async move {
            let mut deadline = deadline;
            let secured = tokio::select! {
                secured = TlsAcceptor::from(tls.0).accept(stream) => secured,
                () = &mut deadline => Err(io::ErrorKind::TimedOut.into()),
            };
            match secured {
                Ok(stream) => {
                    let stream = Stream::Right(Box::new(stream.into()));
                    // Where nobody takes connections any more it is dropped.
                    let _ = accepted.send(Ok(Accepted { stream, origin, deadline, handshake, _slot: slot })).await;
                }
                Err(error) => refuse(peer, &error),
            }
        });
    }
}

/// What a call learns of the connection it came on.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The other end.
    pub(crate) peer: SocketAddr,
    /// How many sessions it has now.
    sessions: Arc<AtomicUsize>,
}

impl Origin {
    /// A session begins: for as long as it lasts the connection may live.
    pub(crate) fn session_begins(&self) -> InSession {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        InSession(Arc::clone(&self.sessions))
    }
}

/// A session of a connection.
#[derive(Debug)]
pub(crate) struct InSession(Arc<AtomicUsize>);

impl Drop for InSession {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that is looked at once in a while, whether it has a session.
pub(crate) struct Accepted {
    stream: Stream,
    origin: Origin,
    deadline: Pin<Box<Sleep>>,
    handshake: Duration,
    _slot: OwnedSemaphorePermit,
}

impl Connected for Accepted {
    type ConnectInfo = Origin;

    fn connect_info(&self) -> Origin {
        self.origin.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.deadline.as_mut().poll(context).is_ready() {
            if self.origin.sessions.load(Ordering::Relaxed) == 0 {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            let again = tokio::time::Instant::now() + self.handshake;
            self.deadline.as_mut().reset(again);
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    async fn accepting(limit: usize, handshake: Duration) -> (SocketAddr, mpsc::Receiver<io::Result<Accepted>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(accept(listener, None, limit, handshake, sender));
        (address, receiver)
    }

    #[tokio::test]
    async fn a_connection_fails_once_it_has_had_no_session_for_a_while_and_not_before() {
        let (address, mut accepted) = accepting(4, Duration::from_millis(50)).await;
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut silent = accepted.recv().await.unwrap().unwrap();
        assert_eq!(silent.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);

        let mut worker = TcpStream::connect(address).await.unwrap();
        let mut session = accepted.recv().await.unwrap().unwrap();
        let begun = session.connect_info().session_begins();
        tokio::time::sleep(Duration::from_millis(100)).await;
        worker.write_u8(7).await.unwrap();
        assert_eq!(session.read_u8().await.unwrap(), 7);
        // Its session over, it lives no longer than it may without one.
        drop(begun);
        assert_eq!(session.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn connections_above_the_limit_are_dropped_until_one_ends() {
        let (address, mut accepted) = accepting(1, Duration::from_secs(60)).await;
        let _first = TcpStream::connect(address).await.unwrap();
        let first = accepted.recv().await.unwrap().unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        assert_eq!(second.read(&mut [0]).await.unwrap(), 0);
        drop(first);
        let third = TcpStream::connect(address).await.unwrap();
        let taken = accepted.recv().await.unwrap().unwrap();
        assert_eq!(taken.connect_info().peer, third.local_addr().unwrap());
    }
}
