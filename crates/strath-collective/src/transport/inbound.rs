//! Frames from a peer, as they come: from a connection, or from shared memory.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, IoSliceMut, Read};
use std::net::TcpStream;
use std::sync::Arc;

use strath_core::Fault;

use super::link::{KEPT_BYTES, Key, SMALL_BYTES};
use super::pipe::Reader;
use super::records::Opener;
use crate::checksum::checksum;
use crate::error::Mismatch;
use crate::frame::{HEADER_BYTES, Header};

/// Frames from a peer.
#[derive(Debug)]
pub(super) struct Inbound {
    /// The connection, shared with whoever sleeps until it has something to read.
    pub(super) stream: Arc<TcpStream>,
    /// Decrypts what comes on the connection, where that is encrypted.
    opener: Option<Box<Opener>>,
    /// Bytes `start..end` are read and not taken.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The frame whose values are being read to where they belong, how many bytes of them are there, and the checksum of all.
    /// Nothing is in the buffer meanwhile.
    placing: Option<(Header, usize, u32)>,
    /// Takes the place of the connection, on which then only bytes come that wake.
    pub(super) shared: Option<Reader>,
    /// Whether a frame was taken from it since this was last asked.
    taken: bool,
    /// Whole frames of operations that have not been started here.
    early: BTreeMap<Key, VecDeque<(Header, Vec<u8>)>>,
    early_bytes: usize,
}

/// What one read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filled {
    /// So many bytes, as many as there was room for: there may be more.
    All(usize),
    /// So many bytes, and for now no more.
    Some(usize),
    /// Nothing for now.
    Nothing,
    /// The peer sends no more.
    End,
}

impl Filled {
    /// Bytes that came.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::All(bytes) | Self::Some(bytes) => bytes,
            Self::Nothing | Self::End => 0,
        }
    }
}

/// What a read that had so much room has brought.
fn filled(read: io::Result<usize>, room: usize) -> io::Result<Filled> {
    match read {
        Ok(0) => Ok(Filled::End),
        Ok(n) => Ok(if n == room { Filled::All(n) } else { Filled::Some(n) }),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(Filled::Nothing),
        Err(e) if e.kind() == ErrorKind::Interrupted => Ok(Filled::All(0)),
        Err(e) => Err(e),
    }
}

impl Inbound {
    pub(super) fn new(stream: TcpStream, opener: Option<Box<Opener>>) -> Self {
        Self {
            stream: Arc::new(stream),
            opener,
            buffer: vec![0; SMALL_BYTES],
            start: 0,
            end: 0,
            placing: None,
            shared: None,
            taken: false,
            early: BTreeMap::new(),
            early_bytes: 0,
        }
    }

    /// Has frames come from shared memory from now on. Of the connection only its bytes that wake and its end are heard.
    pub(super) fn share(&mut self, reader: Reader) {
        self.shared = Some(reader);
        self.opener = None;
    }

    /// Whether something can be read that is not on the connection any more.
    pub(super) fn has_more(&self) -> bool {
        self.opener.as_ref().is_some_and(|opener| opener.has_more())
    }

    /// Whether frames come with checksums: not where the memory or the records have their own.
    fn has_checksums(&self) -> bool {
        self.shared.is_none() && self.opener.is_none()
    }

    /// Bytes that are kept for operations that have not been started here.
    pub(super) fn early_bytes(&self) -> usize {
        self.early_bytes
    }

    /// Whether frames were taken from shared memory since this was last asked.
    pub(super) fn has_taken(&mut self) -> bool {
        std::mem::take(&mut self.taken)
    }

    /// Takes the bytes that woke this process off the connection beside shared memory.
    pub(super) fn hear_ringing(&self) -> io::Result<Filled> {
        filled((&*self.stream).read(&mut [0; 64]), 64)
    }

    /// The frame whose values are being read to where they belong.
    pub(super) fn placing(&self) -> Option<Header> {
        self.placing.map(|(header, _, _)| header)
    }

    /// Begins to read the values of the next frame, whose header this is, to their `room`, with those that are here already.
    pub(super) fn place(&mut self, header: &Header, room: &mut [u8]) {
        let checksum = self.checksum();
        let have = &self.buffer[self.start + HEADER_BYTES..self.end];
        room[..have.len()].copy_from_slice(have);
        self.placing = Some((*header, have.len(), checksum));
        (self.start, self.end) = (0, 0);
    }

    /// Reads once to the room of the frame being placed, and the next frame's header to the buffer.
    pub(super) fn fill_room(&mut self, room: &mut [u8]) -> io::Result<Filled> {
        let Some((_, have, _)) = &mut self.placing else { return Ok(Filled::Nothing) };
        if let Some(opener) = &mut self.opener {
            return opener.read_many(&self.stream, &mut room[*have..]).inspect(|filled| *have += filled.bytes());
        }
        let missing = room.len() - *have;
        let mut parts = [IoSliceMut::new(&mut room[*have..]), IoSliceMut::new(&mut self.buffer[..HEADER_BYTES])];
        let read = (&*self.stream).read_vectored(&mut parts);
        filled(read, missing + HEADER_BYTES).inspect(|filled| {
            let read = filled.bytes();
            *have += read.min(missing);
            self.end = read.saturating_sub(missing);
        })
    }

    /// Once all values of the frame being placed are in their `room`, whether they are what was sent; then it is no longer being placed.
    pub(super) fn placed(&mut self, room: &[u8]) -> Option<Result<(), Mismatch>> {
        let (_, _, sent) = self.placing.take_if(|(_, have, _)| *have == room.len())?;
        if !self.has_checksums() {
            return Some(Ok(()));
        }
        Some(Mismatch::check("checksum", u64::from(checksum(room)), u64::from(sent)))
    }

    /// Reads once.
    pub(super) fn fill(&mut self) -> io::Result<Filled> {
        if let Some(reader) = &mut self.shared {
            return reader.refresh().map(|there| if there == 0 { Filled::Nothing } else { Filled::All(there) });
        }
        let room = self.buffer.len().min(self.wanted()).saturating_sub(self.end);
        if room == 0 {
            return Ok(Filled::Nothing);
        }
        if let Some(opener) = &mut self.opener {
            let room = &mut self.buffer[self.end..self.end + room];
            return opener.read(&self.stream, room).inspect(|filled| self.end += filled.bytes());
        }
        let read = (&*self.stream).read(&mut self.buffer[self.end..self.end + room]);
        filled(read, room).inspect(|filled| self.end += filled.bytes())
    }

    /// The index in the buffer up to which to read: a long segment that goes through the buffer is read to its end, so that
    /// the next one starts at the front; short frames are read many at once.
    fn wanted(&self) -> usize {
        match self.header() {
            Ok(Some(header)) => (self.start + HEADER_BYTES + header.body_bytes()).max(SMALL_BYTES),
            _ => SMALL_BYTES,
        }
    }

    /// What is read and not taken.
    fn unread(&self) -> &[u8] {
        self.shared.as_ref().map_or(&self.buffer[self.start..self.end], Reader::unread)
    }

    /// The header of the next frame, once it is there.
    pub(super) fn header(&self) -> Result<Option<Header>, Mismatch> {
        let Some(reader) = &self.shared else {
            let parse = if self.has_checksums() { Header::parse_checked } else { Header::parse };
            return self.unread().first_chunk().map(parse).transpose();
        };
        let unread = reader.unread().len();
        if unread == 0 {
            return Ok(None);
        }
        // Frames are handed over whole there.
        let missing =
            |expected: usize| Mismatch { field: "frame bytes", expected: expected as u64, found: unread as u64 };
        let header = Header::parse(&reader.front().ok_or_else(|| missing(HEADER_BYTES))?)?;
        let whole = HEADER_BYTES + header.body_bytes();
        if unread < whole { Err(missing(whole)) } else { Ok(Some(header)) }
    }

    /// The status word and the values of the next frame in shared memory, where it is there and the one that is `due`.
    pub(super) fn next_as(&self, due: &Header) -> Option<(Fault, &[u8])> {
        let reader = self.shared.as_ref()?;
        let fault = due.fault_of_same(&reader.front()?)?;
        Some((fault, reader.unread().get(HEADER_BYTES..HEADER_BYTES + due.body_bytes())?))
    }

    /// Looks into shared memory until something is there, at most so often; what is left of that stays.
    pub(super) fn look(&self, looks: &mut u32) {
        let has_nothing = || self.shared.as_ref().is_some_and(|reader| !reader.has_more());
        while *looks > 0 && has_nothing() {
            *looks -= 1;
            std::hint::spin_loop();
        }
    }

    /// The checksum of the next frame's values, whose header is there.
    fn checksum(&self) -> u32 {
        self.unread().first_chunk().map_or(0, Header::checksum_of_values)
    }

    /// Checks the values of the next frame, all of which are there, as they arrived over a network in clear.
    pub(super) fn check(&self, body: &[u8]) -> Result<(), Mismatch> {
        if !self.has_checksums() {
            return Ok(());
        }
        Mismatch::check("checksum", u64::from(checksum(body)), u64::from(self.checksum()))
    }

    /// The values of the frame with this header, which is the next, once they are there.
    pub(super) fn body(&self, header: &Header) -> Option<&[u8]> {
        self.unread().get(HEADER_BYTES..HEADER_BYTES + header.body_bytes())
    }

    /// Drops the next frame, whose header this is.
    pub(super) fn consume(&mut self, header: &Header) {
        if let Some(reader) = &mut self.shared {
            self.taken = true;
            return reader.consume(HEADER_BYTES + header.body_bytes());
        }
        self.start += HEADER_BYTES + header.body_bytes();
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Makes room for the rest of a frame whose header (`None`: not even that) is all that could be taken. The caller has
    /// checked that the frame is due, so memory is only taken for what is.
    pub(super) fn make_room(&mut self, header: Option<&Header>) {
        if self.shared.is_some() {
            return;
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let whole = HEADER_BYTES + header.map_or(0, Header::body_bytes);
        if self.buffer.len() < whole {
            self.buffer.resize(whole, 0);
        }
    }

    /// Keeps the next frame, whose header this is, for an operation that has not been started.
    pub(super) fn keep(&mut self, key: Key, header: &Header) {
        let body = self.body(header).map(<[u8]>::to_vec).unwrap_or_default();
        self.early_bytes += KEPT_BYTES + body.len();
        self.early.entry(key).or_default().push_back((*header, body));
        self.consume(header);
    }

    /// The frames that were kept for an operation, in order.
    pub(super) fn take_early(&mut self, key: Key) -> VecDeque<(Header, Vec<u8>)> {
        if self.early.is_empty() {
            return VecDeque::new();
        }
        let frames = self.early.remove(&key).unwrap_or_default();
        self.early_bytes -= frames.iter().map(|(_, body)| KEPT_BYTES + body.len()).sum::<usize>();
        frames
    }
}
