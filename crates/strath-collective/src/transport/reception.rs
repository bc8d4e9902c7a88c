//! Taking the peers' connections, among whoever else connects.
//!
//! A stranger costs a descriptor and some hundred bytes, for at most [`KNOCK_TIMEOUT`], of which at most [`MOST_KNOCKS`] are held at a time: of more,
//! those go first that have shown least, the oldest before the newer. Only whoever has proven that it knows the generation's ticket, in answer to
//! a nonce of this connection, has a TLS session or anything else allocated for it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustls::server::UnbufferedServerConnection;
use strath_core::Rank;

use super::handshake::{HELLO_BYTES, Hello, MAC_BYTES, Transcript, Word};
use super::mesh::{Attempt, TICK, local, untrusted};
use super::records::Opener;
use super::session::{Progress, Session, sealed_bytes};
use super::watch::timespec;
use crate::collective::Member;
use crate::error::{CollectiveError, Mismatch};
use crate::tls::RingTls;

/// Time that whoever connects has for its part of the handshake.
const KNOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that are not through their handshake.
const MOST_KNOCKS: usize = 128;
/// Connections that are taken before those that are there are listened to.
const MOST_AT_ONCE: usize = 32;
/// Pause after an error of the listener, as when no descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(5);

/// Connections that the kernel keeps for a listener that takes none yet, where the host allows as many (`net.core.somaxconn`, 4096 by default).
/// Of more it answers none, and whoever connects takes the host for dead.
const QUEUE: i32 = 4096;

/// A listener for a ring or a coordinator. Between two generations nobody takes a ring's connections: strangers that fill its queue then keep peers out.
///
/// # Errors
/// As [`TcpListener::bind`].
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    rustix::net::listen(&listener, QUEUE)?;
    Ok(listener)
}

/// A connection from a peer that is through its handshake.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    /// What decrypts it, where it is encrypted.
    pub(super) opener: Option<Box<Opener>>,
}

/// A connection that is not through its handshake.
struct Knock {
    stream: TcpStream,
    address: SocketAddr,
    since: Instant,
    stage: Stage,
    /// What it said in this stage, in clear.
    bytes: [u8; HELLO_BYTES],
    have: usize,
}

/// How far a connection has come.
enum Stage {
    /// It has yet to say who it is.
    Hello,
    /// It knew the ticket, at some time, and has yet to prove that it does now.
    Proof(Transcript, Rank),
    /// It knows the ticket, and has yet to show that its certificate is a worker's.
    Secure(Transcript, Rank, Box<Shaking>),
}

/// A TLS session that is being established.
struct Shaking {
    session: Session<UnbufferedServerConnection>,
    words: Vec<u8>,
}

/// What a knock has come to.
enum Knocked {
    /// More is to come.
    Waiting,
    /// This peer, checked and welcomed.
    Peer(Rank),
    /// Dropped: closed, silent for too long, or no rank of ours.
    Stranger,
    /// It speaks another version of the protocol.
    OtherVersion(Mismatch),
    /// It knows the ticket, and something else about it is wrong.
    Wrong(CollectiveError),
}

/// Takes the peers' connections.
pub(super) struct Reception<'a> {
    listener: TcpListener,
    attempt: &'a Attempt<'a>,
    peers: &'a [Member],
    knocks: Vec<Knock>,
    accepted: Vec<Option<Accepted>>,
    /// Who spoke another version last: the likely reason where a peer is missing at the end.
    other_version: Option<(SocketAddr, Mismatch)>,
}

impl<'a> Reception<'a> {
    pub(super) fn new(
        listener: TcpListener,
        attempt: &'a Attempt<'a>,
        peers: &'a [Member],
    ) -> Result<Self, CollectiveError> {
        let rank = attempt.identity.rank;
        listener.set_nonblocking(true).map_err(|e| local(rank, "listen without blocking", &e))?;
        let accepted = peers.iter().map(|_| None).collect();
        Ok(Self { listener, attempt, peers, knocks: Vec::new(), accepted, other_version: None })
    }

    /// Until every peer is here and every peer was dialled: one whose first connection broke dials again until then.
    pub(super) fn run(mut self, all_dialled: impl Fn() -> bool) -> Result<Vec<Accepted>, CollectiveError> {
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
    fn give_up(self) -> Result<Vec<Accepted>, CollectiveError> {
        let Some(missing) = self.accepted.iter().position(Option::is_none) else {
            return Ok(self.accepted.into_iter().flatten().collect());
        };
        let missing = &self.peers[missing];
        Err(match self.other_version {
            Some((peer, mismatch)) => CollectiveError::Handshake { rank: missing.rank, peer, mismatch },
            None => self.attempt.unreachable(missing, "it did not connect to this rank".into()),
        })
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
        for _ in 0..MOST_AT_ONCE {
            let (stream, address) = match self.listener.accept() {
                Ok(connection) => connection,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // A connection that broke before it was taken, or a lack of descriptors that may pass, is no reason to end.
                Err(_) => return thread::sleep(ACCEPT_PAUSE),
            };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if self.knocks.len() == MOST_KNOCKS {
                let shown_nothing = self.knocks.iter().position(|knock| matches!(knock.stage, Stage::Hello));
                self.knocks.remove(shown_nothing.unwrap_or(0));
            }
            let (since, bytes) = (Instant::now(), [0; HELLO_BYTES]);
            self.knocks.push(Knock { stream, address, since, stage: Stage::Hello, bytes, have: 0 });
        }
    }

    /// # Errors
    /// [`CollectiveError::Handshake`] or [`Untrusted`](CollectiveError::Untrusted) where somebody who knows the ticket differs for good.
    /// Whoever else has knocked by then is still answered.
    fn listen_to_knocks(&mut self) -> Result<(), CollectiveError> {
        let mut outcome = Ok(());
        for mut knock in std::mem::take(&mut self.knocks) {
            match self.listen_to(&mut knock) {
                Knocked::Waiting if knock.since.elapsed() < KNOCK_TIMEOUT => self.knocks.push(knock),
                Knocked::Peer(rank) => {
                    let opener = match knock.stage {
                        Stage::Secure(_, _, shaking) => {
                            let opener = shaking.session.into_secrets().and_then(Opener::new);
                            Some(Box::new(opener.map_err(|error| untrusted(rank, knock.address, &error))?))
                        }
                        Stage::Hello | Stage::Proof(..) => None,
                    };
                    let at = self.peers.iter().position(|p| p.rank == rank);
                    // The newer of two connections stays: the peer dials again only after the older broke.
                    let accepted = Accepted { stream: knock.stream, opener };
                    self.accepted[at.expect("only peers pass the check")] = Some(accepted);
                }
                Knocked::Waiting | Knocked::Stranger => {
                    tracing::debug!(address = %knock.address, "dropped a connection that did not prove the ticket");
                }
                Knocked::OtherVersion(mismatch) => {
                    tracing::debug!(address = %knock.address, %mismatch, "dropped a connection");
                    self.other_version = Some((knock.address, mismatch));
                }
                Knocked::Wrong(wrong) => {
                    tracing::debug!(%wrong, "refused a connection");
                    outcome = outcome.and(Err(wrong));
                }
            }
        }
        outcome
    }

    /// Hears a connection as far as it has spoken.
    fn listen_to(&mut self, knock: &mut Knock) -> Knocked {
        loop {
            if let Stage::Secure(transcript, rank, shaking) = &mut knock.stage {
                return shaking.listen(&knock.stream, knock.address, transcript, *rank);
            }
            let wanted = if matches!(knock.stage, Stage::Hello) { HELLO_BYTES } else { MAC_BYTES };
            match knock.stream.read(&mut knock.bytes[knock.have..wanted]) {
                Ok(0) => return Knocked::Stranger,
                Ok(n) => knock.have += n,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    return Knocked::Waiting;
                }
                Err(_) => return Knocked::Stranger,
            }
            let knocked = match knock.stage {
                Stage::Hello => self.take_hello(knock),
                Stage::Proof(transcript, rank) if knock.have == MAC_BYTES => self.take_proof(knock, transcript, rank),
                Stage::Proof(..) | Stage::Secure(..) => Knocked::Waiting,
            };
            if !matches!(knocked, Knocked::Waiting) {
                return knocked;
            }
        }
    }

    /// What there is of a hello. A stranger learns nothing. Of those who know the ticket also a wrong one is answered, so that it too
    /// can say what differs.
    fn take_hello(&self, knock: &mut Knock) -> Knocked {
        match Hello::check_beginning(&knock.bytes[..knock.have]) {
            Ok(()) => {}
            Err(mismatch) if mismatch.field == "magic" => return Knocked::Stranger,
            Err(mismatch) => {
                // Where that fails it cannot be told.
                let _ = knock.stream.write(&Hello::only_version());
                return Knocked::OtherVersion(mismatch);
            }
        }
        if knock.have < HELLO_BYTES {
            return Knocked::Waiting;
        }
        let Attempt { identity, .. } = self.attempt;
        let Ok((hello, mac)) = Hello::parse(&knock.bytes) else { return Knocked::Stranger };
        let mut transcript = Transcript::new(identity.ticket, &hello);
        if !transcript.proves(Word::Hello, &mac) {
            return Knocked::Stranger;
        }
        let Ok(answer) = Hello::new(identity, self.attempt.protection(), hello.from) else { return Knocked::Stranger };
        transcript.answered(&answer);
        let answer = answer.to_bytes(&transcript.mac(Word::Answer));
        let is_answered = knock.stream.write(&answer).is_ok_and(|n| n == HELLO_BYTES);
        let known = self.peers.iter().any(|p| p.rank == hello.from);
        let expected = if known { hello.from } else { self.peers[0].rank };
        match hello.check_against(&Hello::expected(identity, self.attempt.protection(), expected)) {
            Ok(()) if is_answered => {
                (knock.stage, knock.have) = (Stage::Proof(transcript, hello.from), 0);
                Knocked::Waiting
            }
            Ok(()) => Knocked::Stranger,
            Err(mismatch) => {
                Knocked::Wrong(CollectiveError::Handshake { rank: hello.from, peer: knock.address, mismatch })
            }
        }
    }

    /// Whether it knows the ticket now. From here on it is worth some memory.
    fn take_proof(&self, knock: &mut Knock, transcript: Transcript, rank: Rank) -> Knocked {
        let proof = knock.bytes.first_chunk().expect("a hello is longer than a MAC");
        if !transcript.proves(Word::Proof, proof) {
            return Knocked::Stranger;
        }
        match self.attempt.tls.map(RingTls::accept) {
            None => {
                let welcome = transcript.mac(Word::Welcome);
                let is_welcomed = knock.stream.write(&welcome).is_ok_and(|n| n == MAC_BYTES);
                if is_welcomed { Knocked::Peer(rank) } else { Knocked::Stranger }
            }
            Some(Ok(session)) => {
                let shaking = Shaking { session: Session::new(session), words: Vec::new() };
                knock.stage = Stage::Secure(transcript, rank, Box::new(shaking));
                Knocked::Waiting
            }
            Some(Err(error)) => Knocked::Wrong(untrusted(rank, knock.address, &error)),
        }
    }
}

impl Shaking {
    fn listen(
        &mut self,
        mut stream: &TcpStream,
        address: SocketAddr,
        transcript: &mut Transcript,
        rank: Rank,
    ) -> Knocked {
        loop {
            match self.session.fill(stream) {
                Ok((0, _)) => return Knocked::Stranger,
                Ok(_) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    return Knocked::Waiting;
                }
                Err(_) => return Knocked::Stranger,
            }
            let mut outgoing = Vec::new();
            let progress = self.session.shake(&mut outgoing, &mut self.words);
            // What is said here fits the buffer of a new connection.
            let is_said = stream.write(&outgoing).is_ok_and(|n| n == outgoing.len());
            match progress {
                Ok(Progress::Established) if self.words.len() >= MAC_BYTES => {
                    return match self.welcome(stream, transcript) {
                        Ok(true) => Knocked::Peer(rank),
                        Ok(false) => Knocked::Stranger,
                        Err(error) => Knocked::Wrong(untrusted(rank, address, &error)),
                    };
                }
                Ok(_) if is_said => {}
                Ok(_) => return Knocked::Stranger,
                Err(error) => return Knocked::Wrong(untrusted(rank, address, &error)),
            }
        }
    }

    /// Whether the other end of the session is whoever proved the ticket, and has been welcomed.
    fn welcome(&mut self, mut stream: &TcpStream, transcript: &mut Transcript) -> Result<bool, rustls::Error> {
        transcript.bind(self.session.secret()?);
        let is_bound = self.words.as_slice().try_into().is_ok_and(|bound| transcript.proves(Word::Bound, bound));
        if !is_bound {
            return Ok(false);
        }
        let mut room = [0; sealed_bytes(MAC_BYTES)];
        let sealed = self.session.seal(&transcript.mac(Word::Welcome), &mut room)?;
        Ok(stream.write(&room[..sealed]).is_ok_and(|n| n == sealed))
    }
}
