//! Dialling a peer: again and again until it answers, answers wrongly, or the attempt is over.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::handshake::{HELLO_BYTES, Hello, MAC_BYTES, Transcript, Word};
use super::link::notice_silence;
use super::mesh::{Attempt, TICK, untrusted};
use super::records::Sealer;
use super::session::{Progress, Session, sealed_bytes};
use crate::collective::Member;
use crate::error::{CollectiveError, Mismatch};
use crate::tls::RingTls;

/// Longest pause between two attempts at a peer that is not up yet.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// A host is knocked at for these parts of the time that a sign of it is waited for, one after the other: packets are lost now and then, and some
/// ways are long.
const KNOCKS: [f64; 3] = [1.0 / 6.0, 1.0 / 3.0, 1.0 / 2.0];

/// A connection to a peer that is through its handshake.
pub(super) struct Dialled {
    pub(super) stream: TcpStream,
    /// What encrypts it, where it is encrypted.
    pub(super) sealer: Option<Box<Sealer>>,
}

/// Dials until the peer answers, answers wrongly, gives no sign for too long, or the attempt is over.
pub(super) fn dial(attempt: &Attempt, peer: &Member) -> Result<Dialled, CollectiveError> {
    let mut pause = Duration::from_millis(5);
    let mut unanswered = 0;
    loop {
        let begun = Instant::now();
        let last = match dial_once(attempt, peer, unanswered) {
            Ok(dialled) => return Ok(dialled),
            Err(DialError::NoSign(_)) if unanswered + 1 >= KNOCKS.len() => {
                return Err(no_sign_of(peer, attempt.sign()));
            }
            Err(DialError::Silent) => return Err(no_sign_of(peer, begun.elapsed())),
            Err(DialError::NoSign(cause)) => {
                unanswered += 1;
                attempt.unreachable(peer, cause)
            }
            Err(DialError::Wrong(mismatch)) => {
                return Err(CollectiveError::Handshake { rank: peer.rank, peer: peer.address, mismatch });
            }
            Err(DialError::Untrusted(error)) => return Err(untrusted(peer.rank, peer.address, &error)),
            Err(DialError::NotYet(cause)) => {
                unanswered = 0;
                attempt.unreachable(peer, cause)
            }
        };
        if attempt.is_over() {
            return Err(last);
        }
        // Whoever has waited for a sign has paused already.
        thread::sleep(pause.saturating_sub(begun.elapsed()));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn no_sign_of(peer: &Member, waited: Duration) -> CollectiveError {
    CollectiveError::Unanswered { rank: peer.rank, address: peer.address, waited }
}

enum DialError {
    /// Nobody is there yet.
    NotYet(String),
    /// Nor is its host.
    NoSign(String),
    /// Its host took the connection, and has given no sign for as long as one is waited for on a connection that stands.
    Silent,
    /// Somebody else is there.
    Wrong(Mismatch),
    /// It knows the ticket, and its certificate is not good enough, or ours is not for it.
    Untrusted(rustls::Error),
}

impl From<std::io::Error> for DialError {
    fn from(error: std::io::Error) -> Self {
        // A read that waits no longer is told as one that would block: this is the kernel's word on the connection.
        if error.kind() == ErrorKind::TimedOut { Self::Silent } else { Self::NotYet(error.to_string()) }
    }
}

impl From<rustls::Error> for DialError {
    fn from(error: rustls::Error) -> Self {
        Self::Untrusted(error)
    }
}

fn dial_once(attempt: &Attempt, peer: &Member, unanswered: usize) -> Result<Dialled, DialError> {
    // Dialled anew before its time is up, so that one lost SYN does not cost it; the kernel sends it again after a second only.
    let timeout = attempt.left().min(attempt.sign().mul_f64(KNOCKS[unanswered])).max(Duration::from_millis(1));
    let mut stream = TcpStream::connect_timeout(&peer.address, timeout).map_err(|error| match error.kind() {
        // Of a timeout that was cut short nothing is concluded, as little as of what this host's own routes say.
        ErrorKind::TimedOut if !attempt.is_over() => DialError::NoSign(error.to_string()),
        _ => DialError::NotYet(error.to_string()),
    })?;
    stream.set_nodelay(true)?;
    notice_silence(&stream, attempt.silence())?;
    let hello = Hello::new(&attempt.identity, attempt.protection(), peer.rank)?;
    let mut transcript = Transcript::new(attempt.identity.ticket, &hello);
    stream.write_all(&hello.to_bytes(&transcript.mac(Word::Hello)))?;
    // The peer's kernel has taken the connection; the peer itself may come to it much later.
    stream.set_read_timeout(Some(TICK))?;
    let bytes: [u8; HELLO_BYTES] = hear(attempt, &mut stream, Hello::check_beginning)?;
    let (answer, mac) = Hello::parse(&bytes).map_err(DialError::Wrong)?;
    transcript.answered(&answer);
    if !transcript.proves(Word::Answer, &mac) {
        return Err(DialError::NotYet("whoever listens there does not know the ticket of this generation".into()));
    }
    let expected = Hello::expected(&attempt.identity, attempt.protection(), peer.rank);
    answer.check_against(&expected).map_err(DialError::Wrong)?;
    stream.write_all(&transcript.mac(Word::Proof))?;
    let sealer = match attempt.tls {
        None => {
            let welcome: [u8; MAC_BYTES] = hear(attempt, &mut stream, |_| Ok(()))?;
            check_welcome(&transcript, &welcome)?;
            None
        }
        Some(tls) => Some(Box::new(secure(attempt, &mut stream, tls, &mut transcript)?)),
    };
    Ok(Dialled { stream, sealer })
}

fn check_welcome(transcript: &Transcript, welcome: &[u8]) -> Result<(), DialError> {
    let proves = welcome.try_into().is_ok_and(|welcome| transcript.proves(Word::Welcome, welcome));
    if proves { Ok(()) } else { Err(DialError::NotYet("what it welcomed this rank with was not its own".into())) }
}

/// Hears so many bytes, each beginning of which is to pass the check.
fn hear<const N: usize>(
    attempt: &Attempt,
    stream: &mut TcpStream,
    check: impl Fn(&[u8]) -> Result<(), Mismatch>,
) -> Result<[u8; N], DialError> {
    let mut bytes = [0; N];
    let mut have = 0;
    while have < N {
        have += read_some(attempt, || stream.read(&mut bytes[have..]))?;
        // Another service's answer may be shorter than this.
        check(&bytes[..have]).map_err(DialError::Wrong)?;
    }
    Ok(bytes)
}

/// Reads at least a byte, while the attempt is not over.
fn read_some(attempt: &Attempt, mut read: impl FnMut() -> std::io::Result<usize>) -> Result<usize, DialError> {
    loop {
        match read() {
            Ok(0) => return Err(DialError::NotYet("it closed the connection before it answered".into())),
            Ok(n) => return Ok(n),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                if attempt.is_over() {
                    return Err(DialError::NotYet("it took the connection but did not answer".into()));
                }
            }
            Err(e) => return Err(e.into()),
        }
    }
}

/// Begins a TLS session, and has both sides prove that they are the two ends of one.
fn secure(
    attempt: &Attempt,
    stream: &mut TcpStream,
    tls: &RingTls,
    transcript: &mut Transcript,
) -> Result<Sealer, DialError> {
    let mut session = Session::new(tls.dial()?);
    let (mut outgoing, mut words, mut is_bound) = (Vec::new(), Vec::new(), false);
    loop {
        let progress = session.shake(&mut outgoing, &mut words);
        // An alert says why, also where the session has failed here.
        let said = stream.write_all(&std::mem::take(&mut outgoing));
        if progress? == Progress::Established {
            if !is_bound {
                transcript.bind(session.secret()?);
                let mut room = [0; sealed_bytes(MAC_BYTES)];
                let sealed = session.seal(&transcript.mac(Word::Bound), &mut room)?;
                stream.write_all(&room[..sealed])?;
                is_bound = true;
            }
            if words.len() >= MAC_BYTES {
                check_welcome(transcript, &words)?;
                return Ok(Sealer::new(session.into_secrets()?)?);
            }
        }
        said?;
        read_some(attempt, || session.fill(stream).map(|(read, _)| read))?;
    }
}
