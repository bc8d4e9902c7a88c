//! Waking a thread that sleeps in `poll`.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The end that wakes; cloned freely.
#[derive(Debug, Clone)]
pub(crate) struct Waker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stream: UnixStream,
    /// Whether a byte is on its way, so that many wakes cost one system call.
    rung: AtomicBool,
}

/// The end that is polled.
#[derive(Debug)]
pub(crate) struct Wakeable {
    stream: UnixStream,
    waker: Waker,
}

impl Wakeable {
    /// A pair of both ends.
    pub(crate) fn new() -> io::Result<(Self, Waker)> {
        let (polled, stream) = UnixStream::pair()?;
        polled.set_nonblocking(true)?;
        stream.set_nonblocking(true)?;
        let waker = Waker(Arc::new(Inner { stream, rung: AtomicBool::new(false) }));
        Ok((Self { stream: polled, waker: waker.clone() }, waker))
    }

    /// Takes the wakes so far, once a poll has found this end readable. Whatever was handed over before a wake that this
    /// takes can be seen afterwards, so look for it then.
    pub(crate) fn reset(&self) {
        // The byte goes first: were the flag lowered before it is read, a new byte could be read with the old one and a
        // raised flag be left without a byte.
        let _ = (&self.stream).read(&mut [0; 8]);
        self.waker.0.rung.store(false, Ordering::SeqCst);
    }
}

impl AsFd for Wakeable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Waker {
    /// Ends the poll under way, or the next one.
    pub(crate) fn wake(&self) {
        if !self.0.rung.swap(true, Ordering::SeqCst) {
            // A full buffer means that a wake is already there, a closed one that nobody sleeps.
            let _ = (&self.0.stream).write(&[1]);
        }
    }
}
