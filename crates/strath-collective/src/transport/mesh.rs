//! Connecting every pair of ranks: each dials every other and sends on the connection that it dialled.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use strath_core::Rank;

use super::handshake::{HELLO_BYTES, Hello};
use super::link::Link;
use super::watch::timespec;
use crate::collective::{Identity, Member};
use crate::error::{CollectiveError, Mismatch};

/// Time that whoever connects has to say a whole hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that have not said their hello yet; beyond so many the oldest goes, so that strangers cost bounded memory.
const MOST_KNOCKS: usize = 128;
/// Longest that any wait here lasts before it looks whether the others have failed.
const TICK: Duration = Duration::from_millis(20);
/// Longest pause between two attempts at a peer that is not up yet.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// What the dialling threads and the accepting one share.
struct Attempt<'a> {
    identity: Identity,
    started: Instant,
    deadline: Duration,
    /// Set once the outcome is known to be a failure.
    given_up: AtomicBool,
    /// Set from outside: nobody wants the outcome any more.
    cancelled: &'a AtomicBool,
}

impl Attempt<'_> {
    fn is_over(&self) -> bool {
        let is_given_up = self.given_up.load(Ordering::Relaxed) || self.cancelled.load(Ordering::Relaxed);
        is_given_up || self.started.elapsed() >= self.deadline
    }

    fn unreachable(&self, peer: &Member, cause: String) -> CollectiveError {
        CollectiveError::Unreachable { rank: peer.rank, address: peer.address, waited: self.deadline, cause }
    }
}

/// Connects to every peer and is connected to by every peer.
///
/// # Errors
/// As [`crate::Collective::connect`].
pub(super) fn connect(
    listener: TcpListener,
    identity: Identity,
    peers: &[Member],
    deadline: Duration,
    cancelled: &AtomicBool,
) -> Result<Vec<Link>, CollectiveError> {
    let attempt = Attempt { identity, started: Instant::now(), deadline, given_up: AtomicBool::new(false), cancelled };
    let attempt = &attempt;
    thread::scope(|scope| {
        let dials: Vec<_> = peers
            .iter()
            .map(|peer| {
                thread::Builder::new().name(format!("strath-dial-{}", peer.rank)).spawn_scoped(scope, move || {
                    let dialled = dial(attempt, peer);
                    if matches!(dialled, Err(CollectiveError::Handshake { .. })) {
                        attempt.given_up.store(true, Ordering::Relaxed);
                    }
                    dialled
                })
            })
            .collect();
        let all_dialled = || dials.iter().all(|dial| dial.as_ref().is_ok_and(thread::ScopedJoinHandle::is_finished));
        let accepted = Reception::new(listener, attempt, peers).and_then(|reception| reception.run(all_dialled));
        if accepted.is_err() {
            attempt.given_up.store(true, Ordering::Relaxed);
        }
        let mut outbound = Vec::new();
        let mut failures = Vec::new();
        for dial in dials {
            match dial.map(thread::ScopedJoinHandle::join) {
                Ok(Ok(Ok(stream))) => outbound.push(stream),
                Ok(Ok(Err(failure))) => failures.push(failure),
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                Err(error) => failures.push(local(identity.rank, "start a dialling thread", &error)),
            }
        }
        // A peer that answered wrongly says more than those that were not waited for because of it.
        let wrong = |e: &CollectiveError| !matches!(e, CollectiveError::Unreachable { .. });
        let first = failures.iter().position(wrong).unwrap_or(0);
        if first < failures.len() && (wrong(&failures[first]) || accepted.as_ref().err().is_none_or(|e| !wrong(e))) {
            return Err(failures.swap_remove(first));
        }
        let links = peers.iter().zip(accepted?).zip(outbound);
        links
            .map(|((peer, inbound), outbound)| Link::new(*peer, inbound, outbound))
            .collect::<Result<_, _>>()
            .map_err(|error| local(identity.rank, "set up a connection", &error))
    })
}

pub(super) fn local(rank: Rank, doing: &'static str, error: &std::io::Error) -> CollectiveError {
    CollectiveError::Local { rank, doing, cause: error.to_string() }
}

/// Dials until the peer answers, answers wrongly, or the attempt is over.
fn dial(attempt: &Attempt, peer: &Member) -> Result<TcpStream, CollectiveError> {
    let mut pause = Duration::from_millis(5);
    loop {
        let last = match dial_once(attempt, peer) {
            Ok(stream) => return Ok(stream),
            Err(DialError::Wrong(mismatch)) => {
                let wrong = CollectiveError::Handshake { rank: peer.rank, peer: peer.address, mismatch };
                if !may_follow(&mismatch) {
                    return Err(wrong);
                }
                wrong
            }
            Err(DialError::NotYet(cause)) => attempt.unreachable(peer, cause),
        };
        if attempt.is_over() {
            return Err(last);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether a peer that differs so may yet come to agree: one of an older generation is told to follow. Of any other difference
/// neither side is cured by waiting: both end at once, the first by the other's hello or answer, the second because the first
/// has answered or said its hello before it left.
fn may_follow(mismatch: &Mismatch) -> bool {
    mismatch.field == "generation" && mismatch.found < mismatch.expected
}

enum DialError {
    /// Nobody is there yet.
    NotYet(String),
    /// Somebody else is there.
    Wrong(Mismatch),
}

impl From<std::io::Error> for DialError {
    fn from(error: std::io::Error) -> Self {
        Self::NotYet(error.to_string())
    }
}

fn dial_once(attempt: &Attempt, peer: &Member) -> Result<TcpStream, DialError> {
    let left = attempt.deadline.saturating_sub(attempt.started.elapsed());
    // A host that drops packets is dialled anew every second, so that one lost SYN does not cost the deadline.
    let timeout = left.clamp(Duration::from_millis(1), Duration::from_secs(1));
    let mut stream = TcpStream::connect_timeout(&peer.address, timeout)?;
    stream.set_nodelay(true)?;
    stream.write_all(&Hello::new(&attempt.identity, peer.rank).to_bytes())?;
    // The peer's kernel has taken the connection; the peer itself may come to it much later.
    stream.set_read_timeout(Some(TICK))?;
    let mut bytes = [0; HELLO_BYTES];
    let mut have = 0;
    while have < HELLO_BYTES {
        match stream.read(&mut bytes[have..]) {
            Ok(0) => return Err(DialError::NotYet("it closed the connection before it answered".into())),
            Ok(n) => {
                have += n;
                // Another service's answer may be shorter than a hello.
                if let Some(first) = bytes[..have].first_chunk() {
                    Hello::check_magic(*first).map_err(DialError::Wrong)?;
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
                if attempt.is_over() {
                    return Err(DialError::NotYet("it took the connection but did not answer".into()));
                }
            }
            Err(e) => return Err(e.into()),
        }
    }
    let answer = Hello::parse(&bytes).map_err(DialError::Wrong)?;
    answer.check_version().map_err(DialError::Wrong)?;
    if !answer.knows(attempt.identity.key) {
        return Err(DialError::NotYet("whoever listens there is not of this run".into()));
    }
    answer.check_against(&Hello::expected(&attempt.identity, peer.rank)).map_err(DialError::Wrong)?;
    Ok(stream)
}

/// A connection whose hello is not complete.
struct Knock {
    stream: TcpStream,
    address: SocketAddr,
    since: Instant,
    bytes: [u8; HELLO_BYTES],
    have: usize,
}

/// What a knock has come to.
enum Knocked {
    /// More is to come.
    Waiting,
    /// This peer, checked and answered.
    Peer(Rank),
    /// Dropped: closed, silent for too long, or no rank of ours.
    Stranger,
    /// It knows the key of the run, and differs.
    Wrong(CollectiveError, Mismatch),
}

/// Takes the peers' connections.
struct Reception<'a> {
    listener: TcpListener,
    attempt: &'a Attempt<'a>,
    peers: &'a [Member],
    knocks: Vec<Knock>,
    accepted: Vec<Option<TcpStream>>,
    /// The last hello of an older generation: the likely reason where a peer is missing at the end.
    refused: Option<CollectiveError>,
}

impl<'a> Reception<'a> {
    fn new(listener: TcpListener, attempt: &'a Attempt<'a>, peers: &'a [Member]) -> Result<Self, CollectiveError> {
        let rank = attempt.identity.rank;
        listener.set_nonblocking(true).map_err(|e| local(rank, "listen without blocking", &e))?;
        let accepted = peers.iter().map(|_| None).collect();
        Ok(Self { listener, attempt, peers, knocks: Vec::new(), accepted, refused: None })
    }

    /// Until every peer is here and every peer was dialled: one whose first connection broke dials again until then.
    fn run(mut self, all_dialled: impl Fn() -> bool) -> Result<Vec<TcpStream>, CollectiveError> {
        loop {
            if self.accepted.iter().all(Option::is_some) && all_dialled() {
                return Ok(self.accepted.into_iter().flatten().collect());
            }
            if self.attempt.is_over() {
                return self.give_up();
            }
            self.wait()?;
            self.accept();
            self.listen_to_knocks()?;
        }
    }

    /// The peers accepted so far if that is all of them (then the dialling threads know what failed), or who is missing.
    fn give_up(self) -> Result<Vec<TcpStream>, CollectiveError> {
        let Some(missing) = self.accepted.iter().position(Option::is_none) else {
            return Ok(self.accepted.into_iter().flatten().collect());
        };
        let cause = "it did not connect to this rank".to_owned();
        Err(self.refused.unwrap_or_else(|| self.attempt.unreachable(&self.peers[missing], cause)))
    }

    fn wait(&self) -> Result<(), CollectiveError> {
        let mut sources = vec![PollFd::new(&self.listener, PollFlags::IN)];
        sources.extend(self.knocks.iter().map(|k| PollFd::new(&k.stream, PollFlags::IN)));
        match poll(&mut sources, Some(&timespec(TICK))) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(local(self.attempt.identity.rank, "poll", &error.into())),
        }
    }

    fn accept(&mut self) {
        // A connection that broke before it was taken, or a lack of descriptors that may pass, is no reason to end.
        while let Ok((stream, address)) = self.listener.accept() {
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if self.knocks.len() == MOST_KNOCKS {
                self.knocks.remove(0);
            }
            self.knocks.push(Knock { stream, address, since: Instant::now(), bytes: [0; HELLO_BYTES], have: 0 });
        }
    }

    /// # Errors
    /// [`CollectiveError::Handshake`] where somebody who knows the key differs for good. Whoever else has knocked by then is still
    /// answered.
    fn listen_to_knocks(&mut self) -> Result<(), CollectiveError> {
        let mut outcome = Ok(());
        for mut knock in std::mem::take(&mut self.knocks) {
            match self.listen_to(&mut knock) {
                Knocked::Waiting => self.knocks.push(knock),
                Knocked::Peer(rank) => {
                    let at = self.peers.iter().position(|p| p.rank == rank);
                    // The newer of two connections stays: the peer dials again only after the older broke.
                    self.accepted[at.expect("only peers pass the check")] = Some(knock.stream);
                }
                Knocked::Stranger => {
                    tracing::debug!(address = %knock.address, "dropped a connection without a valid hello");
                }
                Knocked::Wrong(wrong, mismatch) if may_follow(&mismatch) => self.refused = Some(wrong),
                Knocked::Wrong(wrong, _) => outcome = outcome.and(Err(wrong)),
            }
        }
        outcome
    }

    fn listen_to(&mut self, knock: &mut Knock) -> Knocked {
        match knock.stream.read(&mut knock.bytes[knock.have..]) {
            Ok(0) => return Knocked::Stranger,
            Ok(n) => knock.have += n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return Knocked::Stranger,
        }
        if knock.have < HELLO_BYTES {
            return if knock.since.elapsed() < HELLO_TIMEOUT { Knocked::Waiting } else { Knocked::Stranger };
        }
        let Ok(hello) = Hello::parse(&knock.bytes) else { return Knocked::Stranger };
        // A stranger learns nothing. Of those who know the key also a wrong one is answered, so that it too can say what differs.
        if !hello.knows(self.attempt.identity.key) {
            return Knocked::Stranger;
        }
        let answer = Hello::new(&self.attempt.identity, hello.from).to_bytes();
        let answered = knock.stream.write(&answer).is_ok_and(|n| n == HELLO_BYTES);
        let known = self.peers.iter().any(|p| p.rank == hello.from);
        let expected = if known { hello.from } else { self.peers[0].rank };
        match hello.check_against(&Hello::expected(&self.attempt.identity, expected)) {
            Ok(()) if answered => Knocked::Peer(hello.from),
            Ok(()) => Knocked::Stranger,
            Err(mismatch) => {
                let wrong = CollectiveError::Handshake { rank: hello.from, peer: knock.address, mismatch };
                tracing::debug!(%wrong, "refused a connection");
                Knocked::Wrong(wrong, mismatch)
            }
        }
    }
}
