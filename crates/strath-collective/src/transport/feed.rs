//! A connection for one way between two workers of which one has no rank yet: whoever joins is fed over it.
//!
//! It begins as those between ranks do, with a ticket that the coordinator made for these two and this once: the donor is rank 0 of a world
//! of two and dials, the newcomer is rank 1 and takes the connection among whoever else knocks. What goes over it are bytes; what they mean,
//! and how many may come, is known to its user.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use strath_core::Rank;

use super::dial::{Dialled, dial};
use super::inbound::Filled;
use super::link::{SILENCE, notice_silence};
use super::mesh::{Attempt, TICK, local};
use super::reception::{Accepted, Reception};
use super::records::{BATCH_RECORDS, Opener, PLAIN_BYTES, Sealer};
use super::watch::timespec;
use crate::collective::{Identity, Member};
use crate::error::CollectiveError;
use crate::tls::RingTls;

/// The rank of the end that sends.
pub const DONOR: Rank = Rank(0);
/// The rank of the end that receives.
pub const NEWCOMER: Rank = Rank(1);

/// The end that sends.
#[derive(Debug)]
pub struct FeedSender {
    stream: TcpStream,
    sealer: Option<Box<Sealer>>,
}

/// The end that receives.
#[derive(Debug)]
pub struct FeedReceiver {
    stream: TcpStream,
    opener: Option<Box<Opener>>,
}

impl FeedSender {
    /// Connects to the newcomer, which may not be waiting yet. `identity` is that of [`DONOR`] in a world of two.
    ///
    /// # Errors
    /// As [`crate::Collective::connect_unless`], of one peer.
    pub fn connect(
        identity: Identity,
        to: Member,
        tls: Option<&RingTls>,
        deadline: Duration,
        cancelled: &AtomicBool,
    ) -> Result<Self, CollectiveError> {
        let attempt = Attempt::new(identity, tls, deadline.into(), cancelled);
        let Dialled { stream, sealer } = dial(&attempt, &to)?;
        prepare(&stream).map_err(|error| local(identity.rank, "set up a connection", &error))?;
        Ok(Self { stream, sealer })
    }

    /// Sends bytes within `deadline`.
    ///
    /// # Errors
    /// The system's where the connection is over; [`ErrorKind::TimedOut`].
    pub fn send(&mut self, bytes: &[u8], deadline: Duration) -> io::Result<()> {
        let begun = Instant::now();
        let Self { stream, sealer } = self;
        for batch in bytes.chunks(BATCH_RECORDS * PLAIN_BYTES) {
            let Some(sealer) = sealer else {
                let mut sent = 0;
                while sent < batch.len() {
                    match { &*stream }.write(&batch[sent..]) {
                        Ok(written) => sent += written,
                        Err(error) => pass_over(error)?,
                    }
                    if sent < batch.len() {
                        wait(stream, PollFlags::OUT, begun, deadline)?;
                    }
                }
                continue;
            };
            sealer.seal(batch)?;
            while !sealer.flush(stream)? {
                wait(stream, PollFlags::OUT, begun, deadline)?;
            }
        }
        Ok(())
    }
}

impl FeedReceiver {
    /// Takes the donor's connection. `identity` is that of [`NEWCOMER`] in a world of two.
    ///
    /// # Errors
    /// As [`crate::Collective::connect_unless`], of one peer.
    pub fn accept(
        listener: TcpListener,
        identity: Identity,
        from: Member,
        tls: Option<&RingTls>,
        deadline: Duration,
        cancelled: &AtomicBool,
    ) -> Result<Self, CollectiveError> {
        let attempt = Attempt::new(identity, tls, deadline.into(), cancelled);
        let peers = [from];
        let accepted = Reception::new(listener, &attempt, &peers)?.run(|| true)?.pop();
        let missing = || attempt.unreachable(&from, "it did not connect to this worker".into());
        let Accepted { stream, opener } = accepted.ok_or_else(missing)?;
        prepare(&stream).map_err(|error| local(identity.rank, "set up a connection", &error))?;
        Ok(Self { stream, opener })
    }

    /// Fills `room`, within `deadline` and while it is not `cancelled`.
    ///
    /// # Errors
    /// The system's where the connection is over, [`ErrorKind::UnexpectedEof`] where the donor has closed it;
    /// [`ErrorKind::TimedOut`]; [`ErrorKind::ConnectionAborted`] where it was cancelled.
    pub fn receive(&mut self, room: &mut [u8], deadline: Duration, cancelled: &AtomicBool) -> io::Result<()> {
        let begun = Instant::now();
        let Self { stream, opener } = self;
        let mut have = 0;
        while have < room.len() {
            if cancelled.load(Ordering::Relaxed) {
                return Err(io::Error::new(ErrorKind::ConnectionAborted, "nobody wants it any more"));
            }
            let room = &mut room[have..];
            let filled = match opener {
                Some(opener) => opener.read_many(stream, room)?,
                None => match { &*stream }.read(room) {
                    Ok(0) => Filled::End,
                    Ok(read) => Filled::All(read),
                    Err(error) => {
                        pass_over(error)?;
                        Filled::Nothing
                    }
                },
            };
            match filled {
                Filled::End => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the other end has closed it")),
                Filled::Nothing => wait(stream, PollFlags::IN, begun, deadline)?,
                Filled::All(bytes) | Filled::Some(bytes) => have += bytes,
            }
        }
        Ok(())
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    notice_silence(stream, SILENCE)
}

/// Nothing is the matter where nothing can be had for the moment.
fn pass_over(error: io::Error) -> io::Result<()> {
    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) { Ok(()) } else { Err(error) }
}

/// Waits for a moment until a connection can be read or written.
fn wait(stream: &TcpStream, flags: PollFlags, begun: Instant, deadline: Duration) -> io::Result<()> {
    if begun.elapsed() >= deadline {
        let kind = ErrorKind::TimedOut;
        return Err(io::Error::new(kind, format!("the other end did nothing for {} s", deadline.as_secs())));
    }
    match poll(&mut [PollFd::new(stream, flags)], Some(&timespec(TICK))) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
