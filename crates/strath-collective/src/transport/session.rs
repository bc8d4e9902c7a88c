//! One end of a TLS session while it is being established, over a connection whose bytes this crate reads and writes itself.

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{Error, ExtractedSecrets};

use crate::tls::Exporter;

/// Bytes of the longest record: a header, 16 KiB of plaintext and what ciphers may add (RFC 8446, 5.2).
const RECORD_BYTES: usize = 5 + 16 * 1024 + 256;
/// What a record adds to its plaintext: header, content type and tag.
const OVERHEAD_BYTES: usize = 5 + 1 + 16;

/// The two ends of rustls's sessions without buffers of their own.
pub(super) trait Unbuffered {
    type Data;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn into_kernel(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), Error>;
}

impl Unbuffered for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn into_kernel(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), Error> {
        self.dangerous_into_kernel_connection()
    }
}

impl Unbuffered for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn into_kernel(self) -> Result<(ExtractedSecrets, KernelConnection<Self::Data>), Error> {
        self.dangerous_into_kernel_connection()
    }
}

/// What is left of a session that is established: its keys.
pub(super) struct Secrets<Data> {
    /// The keys of both directions, and the numbers of their next records.
    pub(super) keys: ExtractedSecrets,
    /// Makes the keys that come after them.
    pub(super) next: KernelConnection<Data>,
    /// Bytes that came and were not taken.
    pub(super) unread: Vec<u8>,
}

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Bytes of the peer are needed.
    Shaking,
    /// Both sides are through: words can be sent.
    Established,
}

/// One end of a session, and the bytes that came for it.
pub(super) struct Session<C> {
    connection: C,
    exporter: Arc<Exporter>,
    /// Bytes `start..end` are read and not taken.
    incoming: Vec<u8>,
    start: usize,
    end: usize,
}

impl<C> std::fmt::Debug for Session<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("unread", &(self.end - self.start)).finish_non_exhaustive()
    }
}

impl<C: Unbuffered> Session<C> {
    /// A session that begins, with room for the longest record.
    pub(super) fn new((connection, exporter): (C, Arc<Exporter>)) -> Self {
        Self { connection, exporter, incoming: vec![0; RECORD_BYTES], start: 0, end: 0 }
    }

    /// What only the two ends of this session have, once it is established.
    pub(super) fn secret(&self) -> Result<[u8; 32], Error> {
        self.exporter.secret().ok_or(Error::HandshakeNotComplete)
    }

    /// The keys of the session, which is established, and what came beyond its words so far.
    ///
    /// # Errors
    /// rustls's, where something is still to be said.
    pub(super) fn into_secrets(self) -> Result<Secrets<C::Data>, Error> {
        let Self { connection, incoming, start, end, .. } = self;
        let (keys, next) = connection.into_kernel()?;
        Ok(Secrets { keys, next, unread: incoming[start..end].to_vec() })
    }

    /// Reads once from the connection; how many bytes came, and of how many that would have fitted.
    pub(super) fn fill(&mut self, stream: &TcpStream) -> io::Result<(usize, usize)> {
        if self.start > 0 {
            self.incoming.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let room = &mut self.incoming[self.end..];
        let most = room.len();
        if most == 0 {
            return Err(io::Error::new(ErrorKind::InvalidData, "a record longer than TLS allows"));
        }
        let read = { stream }.read(room)?;
        self.end += read;
        Ok((read, most))
    }

    /// Goes on with the handshake as far as what came allows: `outgoing` grows by what is to be sent, `words` by what the peer said.
    ///
    /// # Errors
    /// rustls's: a certificate that is not good enough, a record that was tampered with.
    pub(super) fn shake(&mut self, outgoing: &mut Vec<u8>, words: &mut Vec<u8>) -> Result<Progress, Error> {
        loop {
            let status = self.connection.process(&mut self.incoming[self.start..self.end]);
            let mut progress = None;
            let outcome = match status.state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => append(outgoing, |room| data.encode(room)),
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    Ok(())
                }
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    let mut outcome = Ok(());
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => words.extend_from_slice(record.payload),
                            Err(error) => outcome = Err(error),
                        }
                    }
                    outcome
                }
                Ok(ConnectionState::WriteTraffic(_)) => {
                    progress = Some(Progress::Established);
                    Ok(())
                }
                Ok(ConnectionState::BlockedHandshake) => {
                    progress = Some(Progress::Shaking);
                    Ok(())
                }
                Ok(_) => Err(Error::General("it ended the session".into())),
                Err(error) => {
                    self.start += status.discard;
                    // The peer is told why, where there is a word for it.
                    self.drain(outgoing);
                    return Err(error);
                }
            };
            self.start += status.discard;
            outcome?;
            if let Some(progress) = progress {
                return Ok(progress);
            }
        }
    }

    /// What is still to be said when a session has failed: an alert.
    fn drain(&mut self, outgoing: &mut Vec<u8>) {
        if let Ok(ConnectionState::EncodeTlsData(mut data)) = self.connection.process(&mut []).state {
            // Without it the peer finds the connection closed.
            let _ = append(outgoing, |room| data.encode(room));
        }
    }

    /// Encrypts words to the front of `room`, of [`sealed_bytes`]; how many bytes they became.
    ///
    /// # Errors
    /// rustls's, where the session is not established or is over.
    pub(super) fn seal(&mut self, words: &[u8], room: &mut [u8]) -> Result<usize, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::General(format!("cannot encrypt: {error}"));
        let mut before = 0;
        loop {
            match self.connection.process(&mut []).state? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    let sealed = traffic.encrypt(words, &mut room[before..]).map_err(|error| failed(&error))?;
                    return Ok(before + sealed);
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    before += data.encode(&mut room[before..]).map_err(|error| failed(&error))?;
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                _ => return Err(Error::HandshakeNotComplete),
            }
        }
    }
}

/// Bytes that so few words that they fit one record become.
pub(super) const fn sealed_bytes(words: usize) -> usize {
    words + OVERHEAD_BYTES
}

/// Has `encode` write to the end of a buffer, with as much room as it asks for.
fn append(
    outgoing: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), Error> {
    let at = outgoing.len();
    let mut room = 1024;
    loop {
        outgoing.resize(at + room, 0);
        match encode(&mut outgoing[at..]) {
            Ok(written) => {
                outgoing.truncate(at + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(short)) if short.required_size > room => room = short.required_size,
            Err(error) => {
                outgoing.truncate(at);
                return Err(Error::General(error.to_string()));
            }
        }
    }
}
