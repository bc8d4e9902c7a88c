//! What every command that talks to others needs: an async runtime, a listener, signals, a token.

use std::future::Future;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::outcome::Failure;

/// Runs a future to its end. Two threads serve the sockets; computing has threads of its own.
///
/// # Errors
/// The future's, or [`Failure::Other`] where the system grants no threads.
pub fn block_on(future: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(Failure::other)?;
    let done = runtime.block_on(future);
    // A training thread that is in the middle of a step is not waited for.
    runtime.shutdown_background();
    done
}

/// Binds an address.
///
/// # Errors
/// [`Failure::Usage`] for what is no address, [`Failure::Other`] where it is taken.
pub fn listen(address: &str) -> Result<TcpListener, Failure> {
    let parsed = parse(address)?;
    TcpListener::bind(parsed).map_err(|e| {
        let advice = if e.kind() == std::io::ErrorKind::AddrInUse {
            "in use by another process; choose another port, or 0 for any"
        } else {
            "choose an address of this host"
        };
        Failure::Other(format!("cannot listen on {address}: {e}: {advice}"))
    })
}

/// An address to listen on.
///
/// # Errors
/// [`Failure::Usage`].
pub fn parse(address: &str) -> Result<SocketAddr, Failure> {
    address
        .parse()
        .map_err(|_| Failure::Usage(format!("{address:?} is not an address: expected IP:PORT, such as 127.0.0.1:7700")))
}

/// A message for each Ctrl-C or SIGTERM; the second ends the process at once.
///
/// # Errors
/// [`Failure::Other`] where signals cannot be caught.
pub fn stop_signals() -> Result<mpsc::Receiver<()>, Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::other)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::other)?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut seen = 0;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            seen += 1;
            if seen > 1 {
                std::process::exit(130);
            }
            eprintln!("stopping after this step; once more to end at once");
            // A run that is over has nobody to hear it.
            let _ = sender.send(()).await;
        }
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

/// A join token of 128 random bits, in hexadecimal digits.
///
/// # Errors
/// [`Failure::Other`] where the system gives no random bits.
pub fn token() -> Result<String, Failure> {
    Ok(format!("{:016x}{:016x}", random_word()?, random_word()?))
}
