//! Links between a worker and its coordinator that are worse than the loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// 8 Mbit/s, as bytes a second.
const RATE: f64 = 1e6;

/// Enough for a session to begin, and for nothing after it.
const BEGINNING: usize = 4096;

/// Forwards one connection to `to`, at 8 Mbit/s each way.
pub(crate) async fn slow_link(to: SocketAddr) -> SocketAddr {
    link(to, |read, _| Duration::from_secs_f64(read as f64 / RATE)).await
}

/// Forwards the beginning of one connection to `to`, and then nothing more, without closing it: as a host that was paused.
pub(crate) async fn frozen_link(to: SocketAddr) -> SocketAddr {
    link(to, |_, total| if total < BEGINNING { Duration::ZERO } else { Duration::MAX }).await
}

/// What a link does before it passes something on: it waits, given how much that is and how much it has read in all.
type Pause = fn(usize, usize) -> Duration;

async fn link(to: SocketAddr, pause: Pause) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (near_in, near_out) = listener.accept().await.unwrap().0.into_split();
        let (far_in, far_out) = TcpStream::connect(to).await.unwrap().into_split();
        tokio::join!(carry(near_in, far_out, pause), carry(far_in, near_out, pause));
    });
    address
}

/// Carries what comes until either end is gone.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, pause: Pause) {
    let mut buffer = [0; 4096];
    let mut total = 0;
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        total += read;
        tokio::time::sleep(pause(read, total)).await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
