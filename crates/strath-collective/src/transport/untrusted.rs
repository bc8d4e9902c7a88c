//! What arrives from whoever connects or shares memory: for `strath-fuzz`, which looks for bytes that do harm.

#![allow(unsafe_code, reason = "shared memory")]

use std::io;
use std::net::TcpStream;
use std::sync::atomic::Ordering;

use strath_core::Ticket;

use super::handshake::{HELLO_BYTES as HELLO, Hello, Transcript, Word};
use super::inbound::Inbound;
use super::map::{Pages, PipeFile};
use super::pipe::{Reader, Writer};
use super::share::{Offer, SLOTS};
use crate::frame::Header;

/// Bytes of a hello.
pub const HELLO_BYTES: usize = HELLO;
/// Integers of an offer of shared memory.
pub const OFFER_SLOTS: usize = SLOTS;
/// Pipes of a file, enough that each has the fewest bytes.
const PIPES: usize = 3;

/// A hello that was understood, as it would be said again, and whether whoever says it knows the ticket.
pub fn hello(bytes: &[u8; HELLO_BYTES], ticket: Ticket) -> Option<([u8; HELLO_BYTES], bool)> {
    let (hello, mac) = Hello::parse(bytes).ok()?;
    Some((hello.to_bytes(&mac), Transcript::new(ticket, &hello).proves(Word::Hello, &mac)))
}

/// Whether what there is of a hello may be the beginning of one.
pub fn may_begin_hello(bytes: &[u8]) -> bool {
    Hello::check_beginning(bytes).is_ok()
}

/// This hello, said by someone who knows the ticket.
pub fn proven_hello(bytes: &[u8; HELLO_BYTES], ticket: Ticket) -> Option<[u8; HELLO_BYTES]> {
    let (hello, _) = Hello::parse(bytes).ok()?;
    Some(hello.to_bytes(&Transcript::new(ticket, &hello).mac(Word::Hello)))
}

/// An offer of shared memory that was understood, as it would be made again.
pub fn offer(slots: [i64; OFFER_SLOTS]) -> Option<[i64; OFFER_SLOTS]> {
    Offer::from_slots(slots).map(Offer::to_slots)
}

/// What the next frame is read with.
fn take(inbound: &mut Inbound) -> Result<Option<(Header, Vec<u8>)>, String> {
    let Some(header) = inbound.header().map_err(|mismatch| mismatch.to_string())? else {
        inbound.make_room(None);
        return Ok(None);
    };
    let Some(body) = inbound.body(&header) else {
        inbound.make_room(Some(&header));
        return Ok(None);
    };
    inbound.check(body).map_err(|mismatch| mismatch.to_string())?;
    let body = body.to_vec();
    inbound.consume(&header);
    Ok(Some((header, body)))
}

/// Frames that come over a connection in clear.
#[derive(Debug)]
pub struct Connection(Inbound);

impl Connection {
    /// Frames on this connection, which does not block.
    pub fn new(stream: TcpStream) -> Self {
        Self(Inbound::new(stream, None))
    }

    /// Reads once; how many bytes came.
    ///
    /// # Errors
    /// The system's.
    pub fn fill(&mut self) -> io::Result<usize> {
        self.0.fill().map(super::inbound::Filled::bytes)
    }

    /// The next frame, once it is there.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn take(&mut self) -> Result<Option<(Header, Vec<u8>)>, String> {
        take(&mut self.0)
    }
}

/// Memory that pipes lie in.
#[derive(Debug)]
pub struct Memory(PipeFile);

impl Memory {
    /// New memory.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> io::Result<Self> {
        PipeFile::create(PIPES).map(Self)
    }
}

/// A pipe of which the other end does what it likes with the memory.
#[derive(Debug)]
pub struct Shared {
    /// The other end's view.
    pages: Pages,
    inbound: Inbound,
    writer: Writer,
}

impl Shared {
    /// The first pipe of this memory, as if nothing had gone through it, beside this connection.
    ///
    /// # Errors
    /// The system's.
    pub fn new(memory: &Memory, stream: TcpStream) -> io::Result<Self> {
        let pages = memory.0.map(0)?;
        pages.control().tail.0.store(0, Ordering::SeqCst);
        pages.control().head.0.store(0, Ordering::SeqCst);
        let mut inbound = Inbound::new(stream, None);
        inbound.share(Reader::new(memory.0.map(0)?));
        Ok(Self { pages, inbound, writer: Writer::new(memory.0.map(0)?) })
    }

    /// Bytes of the pipe.
    pub fn size(&self) -> usize {
        self.pages.size()
    }

    /// The other end writes bytes to a position.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        // SAFETY: nobody else has a part in this memory, and no slice of it is held.
        let room = unsafe { self.pages.slice_mut(at, bytes.len().min(self.pages.size())) };
        room.copy_from_slice(&bytes[..room.len()]);
    }

    /// The other end, as a writer, says that it has written up to a position.
    pub fn say_written(&mut self, tail: u64) {
        self.pages.control().tail.0.store(tail, Ordering::SeqCst);
    }

    /// The other end, as a reader, says that it has read up to a position.
    pub fn say_read(&mut self, head: u64) {
        self.pages.control().head.0.store(head, Ordering::SeqCst);
    }

    /// This end looks what has come; how many bytes.
    ///
    /// # Errors
    /// What is wrong with the other end.
    pub fn fill(&mut self) -> io::Result<usize> {
        self.inbound.fill().map(super::inbound::Filled::bytes)
    }

    /// This end takes the next frame, if there is one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn take(&mut self) -> Result<Option<(Header, Vec<u8>)>, String> {
        take(&mut self.inbound)
    }

    /// This end writes a frame of so many bytes, where there is room.
    pub fn send(&mut self, bytes: usize) -> bool {
        let Some(room) = self.writer.room(bytes) else { return false };
        room.fill(1);
        self.writer.publish(bytes);
        true
    }
}
