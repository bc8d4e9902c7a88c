//! What to sleep on: the connections of every link and a bell, without holding the driver meanwhile.

use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::wake::Wakeable;

/// The connections as they stood when the driver was let go.
#[derive(Debug)]
pub(super) struct Watch {
    /// The driver wants its turn after so long even where nothing happens.
    timeout: Option<Duration>,
    links: Vec<Ends>,
}

/// One link's connections, where something can happen on them.
#[derive(Debug)]
struct Ends {
    inbound: Option<Arc<TcpStream>>,
    outbound: Option<Arc<TcpStream>>,
    /// Whether room on `outbound` is waited for. Its end always is.
    flags: PollFlags,
}

/// Where something happened.
#[derive(Debug)]
pub(super) struct Events(Vec<bool>);

impl Watch {
    /// A watch on nothing yet.
    pub(super) fn new(timeout: Option<Duration>) -> Self {
        Self { timeout, links: Vec::new() }
    }

    /// Adds a link. A connection that is not asked about reports a reset all the same and would end every poll, so one that
    /// is not read now is left out.
    pub(super) fn push(&mut self, inbound: Option<Arc<TcpStream>>, outbound: Option<Arc<TcpStream>>, is_pending: bool) {
        // The peer sends nothing on the outbound connection: whatever can be read there is its end.
        let flags = if is_pending { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        self.links.push(Ends { inbound, outbound, flags });
    }

    /// Sleeps until something happens, the bell rings, or at most `limit`.
    pub(super) fn sleep(&self, bell: &Wakeable, limit: Option<Duration>) -> Events {
        let mut sources = vec![PollFd::new(bell, PollFlags::IN)];
        for Ends { inbound, outbound, flags } in &self.links {
            // The place of a connection that is left out goes to a second, silent watch on the bell.
            let silent = || PollFd::new(bell, PollFlags::empty());
            let ends = [(inbound, PollFlags::IN), (outbound, *flags)];
            sources.extend(ends.map(|(end, flags)| {
                end.as_ref().map_or_else(silent, |stream| PollFd::from_borrowed_fd(stream.as_fd(), flags))
            }));
        }
        let timeout = self.timeout.into_iter().chain(limit).min().map(timespec);
        let count = poll(&mut sources, timeout.as_ref());
        // An interrupted poll says nothing; the next one will.
        let happened: Vec<bool> = sources.iter().map(|s| count.is_ok() && !s.revents().is_empty()).collect();
        if happened[0] {
            bell.reset();
        }
        Events(happened)
    }
}

impl Events {
    /// Whether the bell rang.
    #[cfg(test)]
    pub(super) fn bell(&self) -> bool {
        self.0[0]
    }

    /// Whether a link's inbound connection has something to read.
    pub(super) fn inbound(&self, at: usize) -> bool {
        self.0.get(1 + 2 * at).is_some_and(|happened| *happened)
    }

    /// Whether something happened on the connection that a link is written on.
    pub(super) fn outbound(&self, at: usize) -> bool {
        self.0.get(2 + 2 * at).is_some_and(|happened| *happened)
    }
}

/// A duration as `poll` takes it.
pub(super) fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}
