//! A worker's sessions with the coordinator, one after the other, and what it listens on.

mod line;
mod runtime;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use strath_core::Timestamp;
use strath_protocol::message::{CoordinatorMessage, Register};
use strath_protocol::{Worker, WorkerEvent, WorkerOutcome};
use strath_rpc::{ClientTls, RpcError, Session};
use tokio::sync::mpsc;

use self::line::{Heard, Line};
use self::runtime::Runtime;
use crate::generation::Held;
use crate::prepare::Prepared;
use crate::step::EXCHANGE_DEADLINE;
use crate::whereabouts::Whereabouts;

/// At the end, what was queued for the coordinator has this long to leave; where the coordinator asked for the end, and so lives, a
/// lease: a state may be under way.
const FLUSH: Duration = Duration::from_millis(500);

/// What a worker is told when it begins.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// The coordinator, host:port.
    pub coordinator: String,
    /// The worker's certificate, and whose coordinator it obeys; `None`: the connection is in clear.
    pub tls: Option<ClientTls>,
    /// The token that the coordinator handed out, where it did.
    pub token: Option<String>,
    /// Random bits that nobody else has: they tell this process from one that listens where it did, or has its number.
    pub nonce: u64,
    /// Where the data lies on this host, where that is not what the configuration says.
    pub data: Option<PathBuf>,
    /// Which of the workers of its machine it is: from 0.
    pub local_rank: usize,
    /// Where the ring listens; by default any port of the local address of the connection to the coordinator.
    pub listen: Option<SocketAddr>,
    /// The address that peers dial; by default where the ring listens.
    pub advertise: Option<SocketAddr>,
    /// How long to wait for a coordinator that is not there yet.
    pub connect_timeout: Duration,
    /// Where to write this rank's part of a trace, if one is wanted.
    pub trace: Option<PathBuf>,
}

/// Why a worker ended without the run being complete.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The coordinator could not be reached.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The ring's port could not be had.
    #[error("cannot listen on {address} for the ring: {source}; choose another with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The advertised address is none of this host's.
    #[error(
        "cannot listen on {address}, which --advertise names: {source}; say with --listen where the ring listens on this host"
    )]
    Advertise {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The ring would listen on every address but advertise none.
    #[error("--listen {address} is every address of this host: say with --advertise which one the other workers reach")]
    NothingToAdvertise {
        /// The address.
        address: SocketAddr,
    },
    /// The run, or this worker, failed.
    #[error("{0}")]
    Failed(String),
}

impl WorkerSettings {
    /// Whether it was told where the ring listens, or what peers dial.
    fn names_address(&self) -> bool {
        self.listen.is_some() || self.advertise.is_some()
    }
}

impl WorkerError {
    /// Whether the ring's address is none of this host's, or no longer.
    fn is_of_lost_address(&self) -> bool {
        matches!(self, Self::Listen { source, .. } if source.kind() == std::io::ErrorKind::AddrNotAvailable)
    }
}

/// How a worker ended in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerEnd {
    /// The run is complete.
    Done,
    /// It left a run that goes on: by a signal, or because it was drained.
    Released,
    /// The run was stopped after a checkpoint.
    Stopped,
}

/// A coordinator that is lost before data and model are ready is looked for again so many times in a row: one that ends each session so
/// early is at fault itself.
const MOST_LOST_EARLY: u32 = 3;

/// A part in the run that was longer was no vain one.
const VAIN_PART: Duration = Duration::from_secs(30);
/// The pause after a worker was given up; after each further vain part it is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// How long a worker stays away that was given up so many times in a row: the others are to go on first, and whoever comes in vain costs
/// them a standstill.
fn pause(given_up: u32) -> Duration {
    match given_up {
        0 => Duration::ZERO,
        times => LONGEST_PAUSE.min(FIRST_PAUSE * 2u32.saturating_pow(times - 1)),
    }
}

/// What a part in a run leaves for the next: data and model with the configuration that they are of, and the state.
#[derive(Default)]
struct Left {
    prepared: Option<(String, Prepared)>,
    held: Option<Held>,
}

/// Joins a run and takes part until it ends. One that loses its coordinator, or is given up by it, joins again as a newcomer. `stop`:
/// each message is a request to stop, as by a signal; `leave`: why to leave at once, without finishing the step.
///
/// # Errors
/// [`WorkerError`].
pub async fn run(
    settings: WorkerSettings,
    mut stop: mpsc::Receiver<()>,
    mut leave: mpsc::Receiver<String>,
) -> Result<WorkerEnd, WorkerError> {
    let here = Arc::new(if settings.trace.is_some() { Whereabouts::recorded() } else { Whereabouts::default() });
    let (mut left, mut lost, mut lost_early, mut given_up) = (Left::default(), None, 0, 0);
    loop {
        let connect = async {
            tokio::time::sleep(pause(given_up)).await;
            Session::connect(&settings.coordinator, settings.connect_timeout, settings.tls.as_ref()).await
        };
        let session = tokio::select! {
            session = connect => session,
            Some(()) = stop.recv() => return Ok(WorkerEnd::Stopped),
            Some(reason) = leave.recv() => {
                let when = lost.map_or_else(|| "left before it joined".into(), |lost| format!("{lost}; then left"));
                return Err(WorkerError::Failed(format!("{when}: {reason}")));
            }
        };
        let session = match (session, lost) {
            (Ok(session), _) => session,
            (Err(error), Some(lost)) => return Err(WorkerError::Failed(format!("{lost}; then {error}"))),
            (Err(error), None) => return Err(error.into()),
        };
        let begun = Instant::now();
        let outcome = take_part(&settings, session, &here, &mut left, &mut stop, &mut leave).await?;
        let vain = if begun.elapsed() < VAIN_PART { given_up } else { 0 };
        given_up = if matches!(outcome, WorkerOutcome::Outdated { .. }) { vain + 1 } else { 0 };
        match outcome {
            WorkerOutcome::Done => return Ok(WorkerEnd::Done),
            WorkerOutcome::Released => return Ok(WorkerEnd::Released),
            WorkerOutcome::Stopped => return Ok(WorkerEnd::Stopped),
            WorkerOutcome::Lost { message } | WorkerOutcome::Outdated { message }
                if left.prepared.is_some() || lost_early < MOST_LOST_EARLY =>
            {
                lost_early = if left.prepared.is_some() { 0 } else { lost_early + 1 };
                tracing::warn!("{message}; joining again");
                lost = Some(message);
            }
            WorkerOutcome::Lost { message }
            | WorkerOutcome::Outdated { message }
            | WorkerOutcome::Failed { message } => {
                return Err(WorkerError::Failed(message));
            }
        }
    }
}

/// A worker's part in the run, from its registration to its end: one session, or several where the coordinator was out of sight in
/// between.
async fn take_part(
    settings: &WorkerSettings,
    session: Session,
    here: &Arc<Whereabouts>,
    left: &mut Left,
    stop: &mut mpsc::Receiver<()>,
    leave: &mut mpsc::Receiver<String>,
) -> Result<WorkerOutcome, WorkerError> {
    let (listener, advertised) = listen(settings, session.local_address())?;
    let register = Register {
        version: env!("CARGO_PKG_VERSION").into(),
        token: settings.token.clone(),
        ring_address: advertised,
        host: host_name(),
        pid: std::process::id(),
        nonce: settings.nonce,
        cores: cores() as u32,
        returning: None,
    };
    let begun = Instant::now();
    let now = move || Timestamp(begun.elapsed());
    let machine = Worker::new(settings.coordinator.clone(), register, now());
    let (mut runtime, mut inbox) =
        Runtime::new(machine, &session, settings.clone(), listener, here.clone(), std::mem::take(left));
    let (mut line, mut flush) = (Line::Up(Box::new(session)), FLUSH);
    let outcome = loop {
        if let Some(outcome) = runtime.carry_out(&mut line).await {
            break outcome;
        }
        let deadline = runtime.machine.next_deadline().map(|deadline| deadline.since(now()));
        let event = if let Some(event) = runtime.later.pop_front() {
            event
        } else {
            tokio::select! {
                // What training has told goes before what the coordinator says: its last word would leave a state behind.
                biased;
                Some(reason) = leave.recv() => WorkerEvent::LeaveRequested { reason },
                Some(()) = stop.recv() => WorkerEvent::StopRequested,
                event = inbox.recv() => event.map_or(WorkerEvent::Tick, |event| runtime.take(event)),
                heard = line.hear() => match heard {
                    Heard::Message(message) => WorkerEvent::Message(message),
                    Heard::Found => WorkerEvent::Reconnected,
                    Heard::Lost(cause) => WorkerEvent::Disconnected { cause },
                },
                () = tokio::time::sleep(deadline.unwrap_or(Duration::from_secs(1))) => WorkerEvent::Tick,
            }
        };
        // Before anything else, so that whatever is said now says where training is.
        if let Some(progress) = runtime.progress() {
            // It is rejected before training and after, when there is nothing to say.
            let _ = runtime.machine.handle(progress, now());
        }
        if let (WorkerEvent::Message(CoordinatorMessage::End(_)), Some(admitted)) = (&event, &runtime.admitted) {
            flush = admitted.lease;
        }
        if let Err(rejected) = runtime.machine.handle(event, now()) {
            tracing::debug!("passed over: {rejected}");
        }
    };
    runtime.halt();
    // It does not join again while it still trains.
    let outcome = match outcome {
        WorkerOutcome::Lost { ref message } | WorkerOutcome::Outdated { ref message } => tokio::select! {
            () = runtime.rest(&mut inbox) => outcome.clone(),
            Some(reason) = leave.recv() => WorkerOutcome::Failed { message: format!("{message}; then left: {reason}") },
            Some(()) = stop.recv() => WorkerOutcome::Stopped,
            () = tokio::time::sleep(EXCHANGE_DEADLINE) => {
                let s = EXCHANGE_DEADLINE.as_secs();
                WorkerOutcome::Failed { message: format!("{message}; its training was told to end {s} s ago and hangs") }
            }
        },
        outcome => outcome,
    };
    line.finish(flush).await;
    if let (Some(path), Some(recorder)) = (&settings.trace, here.recorder()) {
        // The run is what counts; whoever asked for the trace is told that a part is missing.
        if let Err(error) = recorder.write(path, runtime.rank) {
            tracing::warn!("{error}");
        }
    }
    *left = Left { prepared: runtime.prepared.take(), held: runtime.held.take() };
    Ok(outcome)
}

/// The ring's listener and the address that peers are told.
fn listen(settings: &WorkerSettings, local: SocketAddr) -> Result<(TcpListener, SocketAddr), WorkerError> {
    // The ring listens on the advertised address only, unless it is told where: behind an address translation, say.
    let address = settings.listen.or(settings.advertise).unwrap_or_else(|| SocketAddr::new(local.ip(), 0));
    let fail = |source| match settings.advertise {
        Some(advertise) if settings.listen.is_none() => WorkerError::Advertise { address: advertise, source },
        _ => WorkerError::Listen { address, source },
    };
    let listener = strath_collective::listen(address).map_err(fail)?;
    let bound = listener.local_addr().map_err(fail)?;
    let advertised = match settings.advertise {
        // Port 0 stands for the port that was had.
        Some(advertise) if advertise.port() == 0 => SocketAddr::new(advertise.ip(), bound.port()),
        Some(advertise) => advertise,
        None if bound.ip().is_unspecified() => return Err(WorkerError::NothingToAdvertise { address: bound }),
        None => bound,
    };
    Ok((listener, advertised))
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub(crate) fn host_name() -> String {
    hostname::get().map_or_else(|_| "unknown".into(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_in_vain_again_and_again_stays_away_longer_each_time() {
        let pauses: Vec<u64> = (0..7).map(|times| pause(times).as_secs()).collect();
        assert_eq!(pauses, [0, 1, 2, 4, 8, 8, 8]);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }
}
