//! Frames within TLS: each of a peer's two connections has one end that seals and one that opens.
//!
//! ```text
//!  a record (RFC 8446, 5.2)   │ 23 │ 3 3 │ length u16 │ plaintext, its type: encrypted │ tag, 16 bytes │    big-endian
//! ```
//!
//! Handshake, certificates and keys are rustls's; once a session is established its keys are taken from it and records are made here, as
//! rustls would copy every byte twice more on either side, which costs more than to encrypt it. Values are copied once from where they lie,
//! and encrypted there, some records at a time, so that they are still in the cache when the kernel copies them; what comes is decrypted where it was
//! read to, and copied once to where it belongs. A header is a record of its own, so a segment's values begin with a record. The records' tags
//! take the place of the frames' checksums.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::ops::Range;

use ring::aead::Aad;
use rustls::Error;
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;

use super::inbound::Filled;
use super::keys::Keys;
use super::session::Secrets;

/// Bytes of plaintext in a full record.
pub(super) const PLAIN_BYTES: usize = 16 * 1024;
/// Records that are encrypted before they are written: about those of the longest segment, on which the other end works once it is there.
/// With a quarter of them, 16 MiB took 1.2 times as long.
pub(super) const BATCH_RECORDS: usize = 16;
/// Bytes that are read at once.
const READ_BYTES: usize = 256 * 1024;
const LINE_BYTES: usize = 64;
const HEADER_BYTES: usize = 5;
const TAG_BYTES: usize = 16;
/// The type of every encrypted record, and of those that carry words.
const APPLICATION_DATA: u8 = 23;
/// The type of records of the handshake, of which after its end there is but one.
const HANDSHAKE: u8 = 22;
/// What that says: from the next record on the sender's keys are the next ones; it wants none of the peer (RFC 8446, 4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
/// Records after which the keys are updated: half of what AES-GCM is safe for (RFC 8446, 5.5).
const KEY_RECORDS: u64 = 1 << 23;

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// The end that frames go into.
#[derive(Debug)]
pub(super) struct Sealer {
    keys: Keys<ClientConnectionData>,
    key_records: u64,
    /// A slot for each record of a batch, whose plaintext begins at a cache line as long memory does.
    slots: Vec<u8>,
    /// Where those records are that are not written to their end, and how much of the first is written.
    sealed: VecDeque<Range<usize>>,
    sent: usize,
    filled: usize,
}

impl Sealer {
    pub(super) fn new(secrets: Secrets<ClientConnectionData>) -> Result<Self, Error> {
        let keys = Keys::new(secrets.keys.tx, secrets.next)?;
        Ok(Self { keys, key_records: KEY_RECORDS, slots: Vec::new(), sealed: VecDeque::new(), sent: 0, filled: 0 })
    }

    /// Whether records are not written yet.
    pub(super) fn is_pending(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// Encrypts bytes, behind what is not written yet.
    pub(super) fn seal(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.sealed.is_empty() {
            (self.sent, self.filled) = (0, 0);
        }
        for plain in bytes.chunks(PLAIN_BYTES) {
            if self.keys.number >= self.key_records {
                self.record(HANDSHAKE, &KEY_UPDATE)?;
                self.keys.update(KernelConnection::update_tx_secret)?;
            }
            self.record(APPLICATION_DATA, plain)?;
        }
        Ok(())
    }

    fn record(&mut self, kind: u8, plain: &[u8]) -> io::Result<()> {
        let at = self.filled;
        // Whole cache lines: the header at the end of the first, then the words with their type and the tag.
        self.filled += LINE_BYTES + (plain.len() + 1 + TAG_BYTES).next_multiple_of(LINE_BYTES);
        if self.slots.len() < self.filled {
            self.slots.resize(self.filled, 0);
        }
        let slot = at..at + LINE_BYTES + plain.len() + 1 + TAG_BYTES;
        let (head, body) = self.slots[slot.clone()].split_at_mut(LINE_BYTES);
        let [high, low] = (body.len() as u16).to_be_bytes();
        let header = [APPLICATION_DATA, 3, 3, high, low];
        head[LINE_BYTES - HEADER_BYTES..].copy_from_slice(&header);
        let (inner, tag) = body.split_at_mut(plain.len() + 1);
        inner[..plain.len()].copy_from_slice(plain);
        inner[plain.len()] = kind;
        let nonce = self.keys.nonce();
        let sealed = self.keys.key.seal_in_place_separate_tag(nonce, Aad::from(header), inner);
        tag.copy_from_slice(sealed.map_err(|_| invalid("a record cannot be encrypted"))?.as_ref());
        self.sealed.push_back(slot.start + LINE_BYTES - HEADER_BYTES..slot.end);
        Ok(())
    }

    /// Writes as far as the kernel takes it. `true`: all of it.
    pub(super) fn flush(&mut self, mut stream: &TcpStream) -> io::Result<bool> {
        while let Some(first) = self.sealed.front() {
            let mut parts = [IoSlice::new(&[]); BATCH_RECORDS];
            parts[0] = IoSlice::new(&self.slots[first.start + self.sent..first.end]);
            let rest = self.sealed.range(1..self.sealed.len().min(BATCH_RECORDS));
            for (part, record) in parts[1..].iter_mut().zip(rest) {
                *part = IoSlice::new(&self.slots[record.clone()]);
            }
            match stream.write_vectored(&parts[..self.sealed.len().min(BATCH_RECORDS)]) {
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Counts bytes that were written.
    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.sealed.front() {
            let left = first.len() - self.sent;
            if written < left {
                self.sent += written;
                return;
            }
            (written, self.sent) = (written - left, 0);
            self.sealed.pop_front();
        }
    }
}

/// The end that a peer's frames come from.
#[derive(Debug)]
pub(super) struct Opener {
    keys: Keys<ServerConnectionData>,
    /// Bytes `start..end` came and were not decrypted; before them lies the plaintext that was not taken.
    incoming: Vec<u8>,
    start: usize,
    end: usize,
    /// Plaintext that was not taken.
    plain: Range<usize>,
}

impl Opener {
    pub(super) fn new(secrets: Secrets<ServerConnectionData>) -> Result<Self, Error> {
        let (keys, mut incoming) = (Keys::new(secrets.keys.rx, secrets.next)?, secrets.unread);
        let end = incoming.len();
        incoming.resize(end.max(READ_BYTES), 0);
        Ok(Self { keys, incoming, start: 0, end, plain: 0..0 })
    }

    /// Whether something can be had without the connection.
    pub(super) fn has_more(&self) -> bool {
        // What is no record is an error to be had.
        !self.plain.is_empty() || self.record().map_or(true, |record| record.is_some())
    }

    /// Reads plaintext to the front of `room` as a connection would: what is left of a record, or the next one once it is there.
    pub(super) fn read(&mut self, stream: &TcpStream, room: &mut [u8]) -> io::Result<Filled> {
        let mut is_drained = false;
        while self.plain.is_empty() && !self.open()? {
            if is_drained {
                return Ok(Filled::Nothing);
            }
            match self.fill(stream) {
                Ok((0, _)) => return Ok(Filled::End),
                // A short read has emptied the connection.
                Ok((read, most)) => is_drained = read < most,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Filled::Nothing),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let taken = self.take(room);
        Ok(if is_drained && !self.has_more() { Filled::Some(taken) } else { Filled::All(taken) })
    }

    /// The same with as many records as there are and fit.
    pub(super) fn read_many(&mut self, stream: &TcpStream, room: &mut [u8]) -> io::Result<Filled> {
        let mut filled = self.read(stream, room)?;
        while let Filled::All(have) = filled
            && have < room.len()
            && self.has_more()
        {
            let more = self.read(stream, &mut room[have..])?.bytes();
            filled = Filled::All(have + more);
        }
        Ok(filled)
    }

    fn take(&mut self, room: &mut [u8]) -> usize {
        let bytes = room.len().min(self.plain.len());
        room[..bytes].copy_from_slice(&self.incoming[self.plain.start..][..bytes]);
        self.plain.start += bytes;
        bytes
    }

    /// Reads once from the connection; how many bytes came, and of how many that would have fitted.
    fn fill(&mut self, mut stream: &TcpStream) -> io::Result<(usize, usize)> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.incoming.len() - self.start < HEADER_BYTES + PLAIN_BYTES + 256 {
            // The rest of a record might not fit.
            self.incoming.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let room = &mut self.incoming[self.end..];
        let most = room.len();
        let read = stream.read(room)?;
        self.end += read;
        Ok((read, most))
    }

    /// Where the next record's header and body are, once both are there.
    fn record(&self) -> io::Result<Option<([u8; HEADER_BYTES], Range<usize>)>> {
        let Some(header) = self.incoming[self.start..self.end].first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [kind, major, minor, high, low] = *header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if (kind, major, minor) != (APPLICATION_DATA, 3, 3) || !(TAG_BYTES + 1..=PLAIN_BYTES + 256).contains(&length) {
            return Err(invalid("what came is no record of the session"));
        }
        let body = self.start + HEADER_BYTES..self.start + HEADER_BYTES + length;
        Ok((body.end <= self.end).then_some((*header, body)))
    }

    /// Decrypts the next record where it lies. `false`: there is no whole one.
    fn open(&mut self) -> io::Result<bool> {
        while let Some((header, body)) = self.record()? {
            let nonce = self.keys.nonce();
            let opened = self.keys.key.open_in_place(nonce, Aad::from(header), &mut self.incoming[body.clone()]);
            let inner = opened.map_err(|_| invalid("a record cannot be decrypted: it was changed on the way"))?;
            // Behind the words and their type there may be zeros.
            let kind_at =
                inner.iter().rposition(|byte| *byte != 0).ok_or_else(|| invalid("a record without a type"))?;
            let (kind, plain) = (inner[kind_at], &inner[..kind_at]);
            self.start = body.end;
            match kind {
                APPLICATION_DATA if plain.is_empty() => {}
                APPLICATION_DATA => {
                    self.plain = body.start..body.start + kind_at;
                    return Ok(true);
                }
                HANDSHAKE if *plain == KEY_UPDATE => {
                    self.keys.update(KernelConnection::update_rx_secret)?;
                }
                _ => return Err(invalid("it ended the session")),
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Arc;

    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    use rustls::RootCertStore;
    use rustls::pki_types::PrivateKeyDer;

    use super::*;
    use crate::tls::RingTls;
    use crate::transport::session::{Progress, Session, Unbuffered};

    fn worker() -> RingTls {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let mut roots = RootCertStore::empty();
        roots.add(params.self_signed(&key).unwrap().der().clone()).unwrap();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["worker.strath".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        RingTls::new(Arc::new(roots), vec![certificate.der().clone()], key, "worker.strath").unwrap()
    }

    /// Says what this end has to say; `true`: it is through.
    fn shake<C: Unbuffered>(session: &mut Session<C>, mut stream: &TcpStream) -> bool {
        let mut outgoing = Vec::new();
        let progress = session.shake(&mut outgoing, &mut Vec::new()).unwrap();
        stream.write_all(&outgoing).unwrap();
        progress == Progress::Established
    }

    /// Both ends of a session, each with its connection.
    fn session() -> ((TcpStream, Sealer), (TcpStream, Opener)) {
        let tls = worker();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dialling = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepting, _) = listener.accept().unwrap();
        let (mut client, mut server) = (Session::new(tls.dial().unwrap()), Session::new(tls.accept().unwrap()));
        let mut is_through = shake(&mut client, &dialling);
        while !is_through {
            server.fill(&accepting).unwrap();
            shake(&mut server, &accepting);
            client.fill(&dialling).unwrap();
            is_through = shake(&mut client, &dialling);
        }
        server.fill(&accepting).unwrap();
        while !shake(&mut server, &accepting) {
            server.fill(&accepting).unwrap();
        }
        assert_eq!(client.secret(), server.secret());
        accepting.set_nonblocking(true).unwrap();
        dialling.set_nonblocking(true).unwrap();
        let sealer = Sealer::new(client.into_secrets().unwrap()).unwrap();
        let opener = Opener::new(server.into_secrets().unwrap()).unwrap();
        ((dialling, sealer), (accepting, opener))
    }

    /// Reads what there is, through rooms of these lengths in turns.
    fn heard(stream: &TcpStream, opener: &mut Opener, rooms: &[usize], bytes: usize) -> io::Result<Vec<u8>> {
        let mut heard = Vec::new();
        for room in rooms.iter().cycle() {
            if heard.len() == bytes {
                break;
            }
            let mut room = vec![0; *room];
            let filled = opener.read_many(stream, &mut room)?;
            assert_ne!(filled, Filled::End);
            heard.extend_from_slice(&room[..filled.bytes()]);
        }
        Ok(heard)
    }

    #[test]
    fn words_of_every_length_arrive_whole_through_rooms_of_every_length_and_any_number_of_keys() {
        for key_records in [KEY_RECORDS, 3] {
            let ((dialling, mut sealer), (accepting, mut opener)) = session();
            sealer.key_records = key_records;
            let mut said = Vec::new();
            for (round, length) in
                (0_u8..).zip([1, 88, PLAIN_BYTES, PLAIN_BYTES + 1, 0, 17, 3 * PLAIN_BYTES - 1].repeat(4))
            {
                let words = vec![round; length];
                sealer.seal(&words).unwrap();
                assert!(sealer.flush(&dialling).unwrap(), "it fits the buffers of the kernel");
                said.extend(words);
                if round % 7 == 6 {
                    let heard = heard(&accepting, &mut opener, &[88, 5, 16 * 1024, 100_000], said.len()).unwrap();
                    assert!(heard == std::mem::take(&mut said), "round {round}, keys of {key_records} records");
                }
            }
            // The last keys are young where keys are changed often.
            assert_eq!(sealer.keys.number <= 4, key_records == 3);
            assert_eq!(sealer.keys.number, opener.keys.number);
            assert!(!opener.has_more());
        }
    }

    #[test]
    fn a_record_that_was_changed_left_out_or_said_twice_is_found() {
        let changed: [fn(&mut Vec<u8>); 4] = [
            |records| records[70] ^= 1,
            |records| drop(records.drain(..88 + 22)),
            |records| records.extend_from_within(..88 + 22),
            |records| records[3..5].copy_from_slice(&[0xff, 0xff]),
        ];
        for (at, change) in changed.into_iter().enumerate() {
            let ((dialling, mut sealer), (accepting, mut opener)) = session();
            sealer.seal(&[1; 88]).unwrap();
            sealer.seal(&[2; 88]).unwrap();
            let mut records: Vec<u8> =
                sealer.sealed.iter().flat_map(|record| sealer.slots[record.clone()].to_vec()).collect();
            assert_eq!(records.len(), 2 * (88 + 22));
            change(&mut records);
            { &dialling }.write_all(&records).unwrap();
            let error = heard(&accepting, &mut opener, &[100], 300).unwrap_err().to_string();
            assert!(error.contains("changed on the way") || error.contains("no record"), "change {at}: {error}");
        }
    }
}
