//! What every command that talks to others needs: an async runtime, a listener, signals, a token.

use std::future::Future;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};

use strath_core::RingKey;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::log;
use crate::outcome::Failure;

/// Runs a future to its end. Two threads serve the sockets; computing has threads of its own.
///
/// # Errors
/// The future's, or [`Failure::Other`] where the system grants no threads.
pub fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(Failure::other)?;
    let done = runtime.block_on(future);
    // A training thread that is in the middle of a step is not waited for.
    runtime.shutdown_background();
    done
}

/// Any port of this host's loopback.
pub const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Binds an address.
///
/// # Errors
/// [`Failure::Other`] where it is taken or not this host's.
pub fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    strath_collective::listen(address).map_err(|e| {
        let advice = if e.kind() == std::io::ErrorKind::AddrInUse {
            "in use by another process; choose another port, or 0 for any"
        } else {
            "choose an address of this host"
        };
        Failure::Other(format!("cannot listen on {address}: {e}: {advice}"))
    })
}

/// An address to listen on, HOST:PORT.
///
/// # Errors
/// [`Failure::Usage`].
pub fn parse(address: &str) -> Result<SocketAddr, Failure> {
    let found = address.to_socket_addrs().ok().and_then(|mut found| found.next());
    found.ok_or_else(|| {
        Failure::Usage(format!("{address:?} is not an address: expected HOST:PORT, such as 127.0.0.1:7700"))
    })
}

/// Checks the form of an address to dial, HOST:PORT; whether the host has an address shows when it is dialled.
///
/// # Errors
/// [`Failure::Usage`].
pub fn check_host_port(address: &str) -> Result<(), Failure> {
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(()),
        _ => Err(Failure::Usage(format!(
            "{address:?} is no address of a coordinator: expected HOST:PORT, such as 10.0.0.1:7700"
        ))),
    }
}

/// A message for each Ctrl-C, SIGTERM or SIGHUP (the terminal is gone); the second ends the process at once.
///
/// # Errors
/// [`Failure::Other`] where signals cannot be caught.
pub fn stop_signals() -> Result<mpsc::Receiver<()>, Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::other)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::other)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(Failure::other)?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut seen = 0;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
            seen += 1;
            if seen > 1 {
                std::process::exit(130);
            }
            log::say("stopping after this step; once more to end at once");
            // A run that is over has nobody to hear it.
            let _ = sender.send(()).await;
        }
    });
    Ok(receiver)
}

/// [`stop_signals`], and a message once standard input ends: whoever started this process holds it open as long as it lives.
///
/// # Errors
/// As [`stop_signals`].
pub fn stop_signals_or_orphaned() -> Result<mpsc::Receiver<()>, Failure> {
    let mut signals = stop_signals()?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let (mut input, mut ignored) = (tokio::io::stdin(), [0; 64]);
        let end = async { while input.read(&mut ignored).await.is_ok_and(|read| read > 0) {} };
        tokio::select! {
            _ = signals.recv() => {}
            () = end => {}
        }
        // A run that is over has nobody to hear it.
        let _ = sender.send(()).await;
    });
    Ok(receiver)
}

/// 64 random bits from the system.
///
/// # Errors
/// [`Failure::Other`] where the system gives none.
pub fn random_word() -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).map_err(Failure::other)?;
    Ok(u64::from_le_bytes(bytes))
}

/// A key to make the tickets of a run's generations from.
///
/// # Errors
/// [`Failure::Other`] where the system gives no random bits.
pub fn ring_key() -> Result<RingKey, Failure> {
    let word = || random_word().map(u64::to_le_bytes);
    let (first, second) = (word()?, word()?);
    Ok(RingKey(std::array::from_fn(|at| if at < 8 { first[at] } else { second[at - 8] })))
}

/// A join token of 128 random bits, in hexadecimal digits.
///
/// # Errors
/// [`Failure::Other`] where the system gives no random bits.
pub fn token() -> Result<String, Failure> {
    Ok(format!("{:016x}{:016x}", random_word()?, random_word()?))
}
