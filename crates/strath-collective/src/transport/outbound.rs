//! Frames to a peer, in batches that are written from where their values lie.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use super::link::SMALL_BYTES;
use super::pipe::Writer;
use super::records::{BATCH_RECORDS, PLAIN_BYTES, Sealer};
use crate::frame::{HEADER_BYTES, Header};

/// Values of so few bytes are copied behind their header: one piece of memory is written faster than two.
pub(super) const COPIED_BYTES: usize = 4 * 1024;
/// Frames of one batch whose values are written from where they lie.
const MOST_LYING: usize = 8;

/// Frames to a peer.
///
/// They are written a batch at a time, in one call where the kernel takes it all: what is in `scratch`, and in between the
/// values that lie in operations.
#[derive(Debug)]
pub(super) struct Outbound {
    /// The connection, until it breaks.
    pub(super) stream: Option<Arc<TcpStream>>,
    /// Encrypts what goes over the connection, where that is encrypted.
    sealer: Option<Box<Sealer>>,
    /// Takes the place of the connection, on which then only bytes are written that wake the peer.
    pub(super) shared: Option<Writer>,
    /// Whether a frame was handed over there since this was last asked.
    published: bool,
    /// Frames that are in no batch yet: their values stay where they are.
    pub(super) queue: VecDeque<Header>,
    /// Headers of the batch, with the values of those frames that were encoded: bytes `sent..filled` are not written.
    scratch: Vec<u8>,
    sent: usize,
    filled: usize,
    /// Frames of the batch whose values are written from where they lie: each header, and where it ends in `scratch`.
    lying: VecDeque<(Header, usize)>,
    /// Bytes of the first of these values that are written.
    lying_sent: usize,
}

impl Outbound {
    pub(super) fn new(stream: TcpStream, sealer: Option<Box<Sealer>>) -> Self {
        Self {
            stream: Some(Arc::new(stream)),
            sealer,
            shared: None,
            published: false,
            queue: VecDeque::new(),
            scratch: Vec::new(),
            sent: 0,
            filled: 0,
            lying: VecDeque::new(),
            lying_sent: 0,
        }
    }

    /// Has frames go to shared memory from now on. Bytes that wake go over the connection as they are: nobody reads them.
    pub(super) fn share(&mut self, writer: Writer) {
        self.shared = Some(writer);
        self.sealer = None;
    }

    /// Whether there is something to write and a connection to write it on.
    pub(super) fn is_pending(&self) -> bool {
        let is_sealed = || self.sealer.as_ref().is_some_and(|sealer| sealer.is_pending());
        self.stream.is_some() && (self.has_batch() || !self.queue.is_empty() || is_sealed())
    }

    /// Whether frames were handed over in shared memory since this was last asked.
    pub(super) fn has_published(&mut self) -> bool {
        std::mem::take(&mut self.published)
    }

    /// Writes the frame of the queue's first command, at most so many bytes of values, straight to shared memory; `values` writes those
    /// and gives the header as it travels. `false`: there is no room.
    pub(super) fn publish(&mut self, most: usize, values: impl FnOnce(&mut [u8]) -> Header) -> bool {
        let Some(writer) = &mut self.shared else { return false };
        let Some(room) = writer.room(HEADER_BYTES + most) else { return false };
        let (head, body) = room.split_at_mut(HEADER_BYTES);
        let header = values(body);
        head.copy_from_slice(&header.to_bytes());
        writer.publish(HEADER_BYTES + header.body_bytes());
        self.published = true;
        true
    }

    /// Whether a frame with so many bytes of values could be written to shared memory now, before any other.
    pub(super) fn takes_at_once(&self, bytes: usize) -> bool {
        let has_room = self.shared.as_ref().is_some_and(|writer| writer.has_room(HEADER_BYTES + bytes));
        has_room && self.stream.is_some() && self.queue.is_empty()
    }

    /// Whether there is something to write to shared memory and room for it by now.
    pub(super) fn has_room(&self) -> bool {
        let next = self.queue.front().filter(|_| self.stream.is_some()).zip(self.shared.as_ref());
        next.is_some_and(|(header, writer)| writer.has_room(HEADER_BYTES + header.body_bytes()))
    }

    /// Wakes a peer that sleeps beside shared memory.
    pub(super) fn ring(&self) {
        if let (Some(stream), Some(writer)) = (&self.stream, &self.shared)
            && writer.peer_sleeps()
        {
            // A full buffer holds bytes that wake, and a connection that has ended wakes by that.
            let _ = (&**stream).write(&[1]);
        }
    }

    /// Whether something of the batch is not written.
    fn has_batch(&self) -> bool {
        self.sent < self.filled || !self.lying.is_empty()
    }

    /// Begins a batch, unless one is not written yet.
    pub(super) fn begin(&mut self) -> bool {
        let begins = !self.has_batch();
        if begins {
            (self.sent, self.filled) = (0, 0);
        }
        begins
    }

    /// Takes a frame whose values are written from where they lie into the batch. `false`: it is full.
    pub(super) fn push_lying(&mut self, header: &Header, values: &[u8]) -> bool {
        if self.lying.len() == MOST_LYING {
            return false;
        }
        let head = head(header, values, self.sealer.is_none());
        self.make_room(HEADER_BYTES).copy_from_slice(&head);
        self.filled += HEADER_BYTES;
        self.lying.push_back((*header, self.filled));
        true
    }

    /// Takes a frame into the batch whose values, at most so many bytes, `values` writes and gives the header of. `false`: it
    /// is full.
    pub(super) fn push_encoded(&mut self, most: usize, values: impl FnOnce(&mut [u8]) -> Header) -> bool {
        let whole = HEADER_BYTES + most;
        if self.filled > 0 && self.filled + whole > SMALL_BYTES {
            return false;
        }
        let has_checksums = self.sealer.is_none();
        let (front, body) = self.make_room(whole).split_at_mut(HEADER_BYTES);
        let header = values(body);
        front.copy_from_slice(&head(&header, &body[..header.body_bytes()], has_checksums));
        self.filled += HEADER_BYTES + header.body_bytes();
        true
    }

    fn make_room(&mut self, bytes: usize) -> &mut [u8] {
        let end = self.filled + bytes;
        if self.scratch.len() < end {
            self.scratch.resize(end, 0);
        }
        &mut self.scratch[self.filled..end]
    }

    /// Frames of the batch whose values lie in operations.
    pub(super) fn lying(&self) -> impl Iterator<Item = &Header> {
        self.lying.iter().map(|(header, _)| header)
    }

    /// Forgets the batch: the frames whose values lie in operations.
    pub(super) fn drop_lying(&mut self) -> impl Iterator<Item = Header> + use<> {
        std::mem::take(&mut self.lying).into_iter().map(|(header, _)| header)
    }

    /// Copies what is left of the batch together, with `values` as they lie, before those are gone.
    pub(super) fn detach<'a>(&mut self, mut values: impl FnMut(&Header) -> &'a [u8]) {
        let mut rest = Vec::new();
        for (header, end) in std::mem::take(&mut self.lying) {
            rest.extend_from_slice(&self.scratch[self.sent..end]);
            rest.extend_from_slice(&values(&header)[std::mem::take(&mut self.lying_sent)..]);
            self.sent = end;
        }
        rest.extend_from_slice(&self.scratch[self.sent..self.filled]);
        (self.sent, self.filled) = (0, rest.len());
        self.scratch = rest;
    }

    /// Ends the connection, also for whoever sleeps on it.
    pub(super) fn close(&mut self) {
        if let Some(stream) = self.stream.take() {
            // A connection that the peer has ended already cannot be ended again.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Writes the batch as far as the kernel takes it, with `values` as they lie. `true`: all of it.
    pub(super) fn write<'a>(&mut self, values: impl Fn(&Header) -> &'a [u8]) -> io::Result<bool> {
        let Some(stream) = self.stream.clone() else { return Ok(true) };
        if let Some(mut sealer) = self.sealer.take() {
            let written = self.write_sealed(&stream, &mut sealer, values);
            self.sealer = Some(sealer);
            return written;
        }
        while self.sent < self.filled || !self.lying.is_empty() {
            let mut parts = [IoSlice::new(&[]); 2 * MOST_LYING + 1];
            let (mut at, mut skipped) = (self.sent, self.lying_sent);
            for (parts, (header, end)) in parts.as_chunks_mut().0.iter_mut().zip(&self.lying) {
                *parts = [IoSlice::new(&self.scratch[at..*end]), IoSlice::new(&values(header)[skipped..])];
                (at, skipped) = (*end, 0);
            }
            let last = 2 * self.lying.len();
            parts[last] = IoSlice::new(&self.scratch[at..self.filled]);
            match (&*stream).write_vectored(&parts[..=last]) {
                Ok(n) => self.advance(n),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// The same in records of TLS: what is encrypted counts as written, as it need not stay where it lies.
    fn write_sealed<'a>(
        &mut self,
        stream: &TcpStream,
        sealer: &mut Sealer,
        values: impl Fn(&Header) -> &'a [u8],
    ) -> io::Result<bool> {
        while sealer.flush(stream)? {
            if !self.has_batch() {
                return Ok(true);
            }
            let mut records = BATCH_RECORDS;
            while records > 0 && self.has_batch() {
                let next = match self.lying.front() {
                    Some((_, end)) if self.sent < *end => &self.scratch[self.sent..*end],
                    Some((header, _)) => &values(header)[self.lying_sent..],
                    None => &self.scratch[self.sent..self.filled],
                };
                let bytes = next.len().min(records * PLAIN_BYTES);
                sealer.seal(&next[..bytes])?;
                self.advance(bytes);
                records -= bytes.div_ceil(PLAIN_BYTES);
            }
        }
        Ok(false)
    }

    /// Counts bytes of the batch that were written.
    fn advance(&mut self, mut bytes: usize) {
        while let Some((header, end)) = self.lying.front() {
            let encoded = bytes.min(end - self.sent);
            self.sent += encoded;
            bytes -= encoded;
            let values = bytes.min(header.body_bytes() - self.lying_sent);
            self.lying_sent += values;
            bytes -= values;
            if self.sent < *end || self.lying_sent < header.body_bytes() {
                return;
            }
            self.lying_sent = 0;
            self.lying.pop_front();
        }
        self.sent += bytes;
    }
}

/// A header as it travels above these values, with checksums where nothing else finds what was changed on the way.
fn head(header: &Header, values: &[u8], has_checksums: bool) -> [u8; HEADER_BYTES] {
    if has_checksums { header.to_bytes_above(values) } else { header.to_bytes() }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use strath_core::{Fault, Generation, RunId, Step};

    use super::*;
    use crate::bucket::Bucket;
    use crate::frame::Phase;
    use crate::packing::Encoding;

    fn header(length: u32) -> Header {
        Header {
            phase: Phase::Gather,
            encoding: Encoding::Floats,
            run: RunId(1),
            generation: Generation(1),
            step: Step(1),
            bucket: Bucket::GRADIENT,
            chunk: 0,
            group_start: 0,
            group_end: 2,
            entries: 0,
            offset: 0,
            length,
            width: 4,
            fault: Fault::NONE,
        }
    }

    /// A batch of two frames that lie, two that are encoded and one that lies again, and what of it is to arrive.
    fn batch(outbound: &mut Outbound, values: &[u8]) -> Vec<u8> {
        let mut expected = Vec::new();
        assert!(outbound.begin());
        for (length, lies) in [(300_000, true), (100_000, true), (10, false), (7, false), (200_000, true)] {
            let header = header(length);
            let body = &values[..header.body_bytes()];
            assert!(if lies {
                outbound.push_lying(&header, body)
            } else {
                outbound.push_encoded(body.len() + 100, |out| {
                    out[..body.len()].copy_from_slice(body);
                    header
                })
            });
            expected.extend_from_slice(&header.to_bytes_above(body));
            expected.extend_from_slice(body);
        }
        assert!(!outbound.push_encoded(SMALL_BYTES, |_| unreachable!("there is no room")));
        expected
    }

    #[test]
    fn a_batch_arrives_whole_however_the_kernel_cuts_it_and_wherever_its_values_are_copied() {
        let values: Vec<u8> = (0..1_200_000u32).map(|v| (v % 251) as u8).collect();
        for detached_after in [None, Some(0), Some(1), Some(3)] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            let mut outbound = Outbound::new(stream, None);
            let expected = batch(&mut outbound, &values);
            let (mut found, mut calls) = (vec![0; expected.len()], 0);
            let mut have = 0;
            while have < expected.len() {
                if detached_after == Some(calls) {
                    outbound.detach(|header| &values[..header.body_bytes()]);
                    assert_eq!(outbound.lying().count(), 0);
                }
                outbound.write(|header| &values[..header.body_bytes()]).unwrap();
                calls += 1;
                let end = expected.len().min(have + 150_001);
                have += peer.read(&mut found[have..end]).unwrap();
            }
            assert!(found == expected, "detached after {detached_after:?} calls");
            assert!(!outbound.has_batch() && calls > 4, "{calls} calls");
        }
    }
}
