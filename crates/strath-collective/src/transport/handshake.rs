//! The first words on every connection: who calls, whom, and the proof on both sides that they know the generation's ticket.
//!
//! ```text
//!  dialling rank                                                        accepting rank
//!  hello   who, whom, nonce, MAC                  ─────────────────►    knows the ticket, or hears nothing
//!          knows the ticket, and now              ◄─────────────────    answer  who, whom, nonce, MAC over both nonces
//!  proof   MAC over both nonces                   ─────────────────►    now, not at some other time: something is allocated
//!          [TLS 1.3, both certificates checked; the first words in it: MAC over both nonces and the session]
//!                                                 ◄─────────────────    welcome MAC over both nonces (and the session)
//! ```
//!
//! Every MAC is HMAC-SHA-256 under the ticket, which never travels, over a label of its own, both hellos with their nonces and, within TLS,
//! what only the two ends of that session have (its exporter secret, RFC 8446 7.5). So what was heard once is worth nothing the next time, a
//! word of one side is no word of the other, and whoever sits between two ranks with a certificate of its own has two sessions, of which
//! each end refuses the other's. Whoever does not know the ticket costs a few hundred bytes and one hash.

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use strath_core::{Generation, Rank, RunId, Ticket};

use crate::collective::Identity;
use crate::error::Mismatch;
use crate::frame::VERSION;

/// Bytes of a MAC.
pub(crate) const MAC_BYTES: usize = 32;
/// Bytes of a hello without its nonce and its MAC.
const FACT_BYTES: usize = 36;
/// Bytes of a hello without its MAC.
const SIGNED_BYTES: usize = FACT_BYTES + NONCE_BYTES;
/// Bytes of a nonce.
const NONCE_BYTES: usize = 32;
/// Bytes of a hello on the wire.
pub(crate) const HELLO_BYTES: usize = SIGNED_BYTES + MAC_BYTES;
/// The first four bytes of every hello, "STRL" in ASCII.
const MAGIC: u32 = u32::from_le_bytes(*b"STRL");

/// A message authentication code under a ticket.
pub(crate) type MacBytes = [u8; MAC_BYTES];

/// What goes over connections that are through their handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protection {
    /// Frames in clear.
    None = 0,
    /// Frames in records of TLS 1.3.
    Tls = 1,
}

/// What the connecting rank sends first, and what the other answers with `from` and `to` exchanged. Little-endian:
///
/// ```text
/// 0 magic u32 | 4 version u16 | 6 protection u16 | 8 run u64 | 16 generation u64 | 24 from u32 | 28 to u32 | 32 world size u32
/// 36 nonce, 32 bytes | 68 MAC, 32 bytes
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello {
    /// Version of the wire format.
    pub(crate) version: u16,
    /// Whether connections are encrypted.
    pub(crate) protection: u16,
    /// The run.
    pub(crate) run: RunId,
    /// The membership.
    pub(crate) generation: Generation,
    /// Who speaks.
    pub(crate) from: Rank,
    /// Who is spoken to.
    pub(crate) to: Rank,
    /// Ranks of the world.
    pub(crate) world_size: u32,
    /// Drawn for this connection.
    pub(crate) nonce: [u8; NONCE_BYTES],
}

impl Hello {
    /// What this rank says to a peer, with a fresh nonce.
    ///
    /// # Errors
    /// The system's, where it gives no random bytes.
    pub(crate) fn new(identity: &Identity, protection: Protection, to: Rank) -> std::io::Result<Self> {
        let mut nonce = [0; NONCE_BYTES];
        let filled = rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())?;
        // Up to 256 bytes come whole (getrandom(2)).
        assert_eq!(filled, nonce.len(), "a short read of random bytes");
        Ok(Self { nonce, ..Self::stated(identity, protection, to) })
    }

    fn stated(identity: &Identity, protection: Protection, to: Rank) -> Self {
        let Identity { run, generation, rank, world_size, .. } = *identity;
        let (version, protection) = (VERSION, protection as u16);
        Self { version, protection, run, generation, from: rank, to, world_size, nonce: [0; NONCE_BYTES] }
    }

    /// What that peer is to say to this rank, its nonce aside.
    pub(crate) fn expected(identity: &Identity, protection: Protection, from: Rank) -> Self {
        Self { from, to: identity.rank, ..Self::stated(identity, protection, from) }
    }

    /// The hello as it travels, without its MAC.
    fn signed(&self) -> [u8; SIGNED_BYTES] {
        let mut out = [0; SIGNED_BYTES];
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..6].copy_from_slice(&self.version.to_le_bytes());
        out[6..8].copy_from_slice(&self.protection.to_le_bytes());
        out[8..16].copy_from_slice(&self.run.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.generation.0.to_le_bytes());
        out[24..28].copy_from_slice(&self.from.0.to_le_bytes());
        out[28..32].copy_from_slice(&self.to.0.to_le_bytes());
        out[32..36].copy_from_slice(&self.world_size.to_le_bytes());
        out[36..].copy_from_slice(&self.nonce);
        out
    }

    /// The hello as it travels.
    pub(crate) fn to_bytes(self, mac: &MacBytes) -> [u8; HELLO_BYTES] {
        let mut out = [0; HELLO_BYTES];
        out[..SIGNED_BYTES].copy_from_slice(&self.signed());
        out[SIGNED_BYTES..].copy_from_slice(mac);
        out
    }

    /// What a hello in another version of the protocol is answered with: magic and version, the rest zero.
    pub(crate) fn only_version() -> [u8; HELLO_BYTES] {
        let mut out = [0; HELLO_BYTES];
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        out
    }

    /// Checks the first bytes of what should be a hello: whose it is, and in which version. The rest may look different, and be of
    /// another length, in another one. So many bytes as there are of the first six.
    ///
    /// # Errors
    /// [`Mismatch`] where the magic is not ours, a stranger, or the version is not this one.
    pub(crate) fn check_beginning(bytes: &[u8]) -> Result<(), Mismatch> {
        if let Some(first) = bytes.first_chunk() {
            Mismatch::check("magic", u64::from(MAGIC), u64::from(u32::from_le_bytes(*first)))?;
        }
        if let Some([.., low, high]) = bytes.first_chunk::<6>() {
            let found = u16::from_le_bytes([*low, *high]);
            Mismatch::check("protocol version", u64::from(VERSION), u64::from(found))?;
        }
        Ok(())
    }

    /// A hello as it arrived, and its MAC.
    ///
    /// # Errors
    /// As [`check_beginning`](Self::check_beginning).
    pub(crate) fn parse(bytes: &[u8; HELLO_BYTES]) -> Result<(Self, MacBytes), Mismatch> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        Self::check_beginning(bytes)?;
        let hello = Self {
            version: VERSION,
            protection: u16::from_le_bytes([bytes[6], bytes[7]]),
            run: RunId(u64_at(8)),
            generation: Generation(u64_at(16)),
            from: Rank(u32_at(24)),
            to: Rank(u32_at(28)),
            world_size: u32_at(32),
            nonce: std::array::from_fn(|at| bytes[FACT_BYTES + at]),
        };
        Ok((hello, std::array::from_fn(|at| bytes[SIGNED_BYTES + at])))
    }

    /// Checks that this hello, as it arrived, is the expected one.
    ///
    /// # Errors
    /// [`Mismatch`] naming the first field that differs.
    pub(crate) fn check_against(&self, expected: &Self) -> Result<(), Mismatch> {
        Mismatch::check("run", expected.run.0, self.run.0)?;
        Mismatch::check("generation", expected.generation.0, self.generation.0)?;
        Mismatch::check("world size", u64::from(expected.world_size), u64::from(self.world_size))?;
        Mismatch::check("rank", u64::from(expected.from.0), u64::from(self.from.0))?;
        Mismatch::check("rank addressed", u64::from(expected.to.0), u64::from(self.to.0))?;
        Mismatch::check("protection (0: none, 1: TLS)", u64::from(expected.protection), u64::from(self.protection))
    }
}

/// Which word of the handshake a MAC is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    Hello,
    Answer,
    Proof,
    Bound,
    Welcome,
}

impl Word {
    /// Of one length, so that no two inputs of a MAC can be read as each other.
    fn label(self) -> &'static [u8; 16] {
        match self {
            Self::Hello => b"strath hello   5",
            Self::Answer => b"strath answer  5",
            Self::Proof => b"strath proof   5",
            Self::Bound => b"strath bound   5",
            Self::Welcome => b"strath welcome 5",
        }
    }
}

/// Both hellos of a connection, as they come to be known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transcript {
    ticket: Ticket,
    /// Of the rank that dialled.
    hello: [u8; SIGNED_BYTES],
    /// Of the other; zero until it has answered.
    answer: [u8; SIGNED_BYTES],
    /// What only the two ends of the TLS session have; zero where there is none, or not yet.
    session: [u8; 32],
}

impl Transcript {
    /// A connection that begins with this hello.
    pub(crate) fn new(ticket: Ticket, hello: &Hello) -> Self {
        Self { ticket, hello: hello.signed(), answer: [0; SIGNED_BYTES], session: [0; 32] }
    }

    /// The accepting rank has answered.
    pub(crate) fn answered(&mut self, answer: &Hello) {
        self.answer = answer.signed();
    }

    /// From here on the words travel within this session.
    pub(crate) fn bind(&mut self, session: [u8; 32]) {
        self.session = session;
    }

    fn over(&self, word: Word) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.ticket.0).expect("HMAC takes a key of any length");
        for part in [&word.label()[..], &self.hello, &self.answer, &self.session] {
            mac.update(part);
        }
        mac
    }

    /// What proves this word.
    pub(crate) fn mac(&self, word: Word) -> MacBytes {
        self.over(word).finalize().into_bytes().into()
    }

    /// Whether whoever says this word knows the ticket. The time that it takes does not tell how much of it is right.
    pub(crate) fn proves(&self, word: Word, mac: &MacBytes) -> bool {
        self.over(word).verify(mac.into()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let (run, generation) = (RunId(0x0102_0304_0506_0708), Generation(9));
        Identity { run, generation, rank: Rank(2), world_size: 5, ticket: Ticket([6; 32]) }
    }

    #[test]
    fn a_hello_survives_the_wire_and_every_difference_is_named() {
        let expected = Hello::expected(&identity(), Protection::Tls, Rank(4));
        let mac = [7; MAC_BYTES];
        assert_eq!(Hello::parse(&expected.to_bytes(&mac)), Ok((expected, mac)));
        assert_eq!(&expected.to_bytes(&mac)[..12], b"STRL\x05\0\x01\0\x08\x07\x06\x05");
        let cases = [
            (6, "protection (0: none, 1: TLS)"),
            (8, "run"),
            (15, "run"),
            (16, "generation"),
            (23, "generation"),
            (24, "rank"),
            (28, "rank addressed"),
            (32, "world size"),
        ];
        for (at, field) in cases {
            let mut bytes = expected.to_bytes(&mac);
            bytes[at] ^= 1;
            let (found, _) = Hello::parse(&bytes).unwrap();
            assert_eq!(found.check_against(&expected).map_err(|m| m.field), Err(field), "byte {at}");
        }
        assert_eq!(Hello::parse(&[0; HELLO_BYTES]).map_err(|m| m.field), Err("magic"));
        let mut older = expected.to_bytes(&mac);
        older[4] = 4;
        assert_eq!(Hello::parse(&older).map_err(|m| m.field), Err("protocol version"));
        assert_eq!(Hello::check_beginning(&older[..5]), Ok(()), "not known yet");
        assert_eq!(Hello::check_beginning(b"HTTP").map_err(|m| m.field), Err("magic"));
    }

    #[test]
    fn a_word_is_proven_by_the_ticket_for_this_word_these_nonces_and_this_session_only() {
        let hello = Hello::new(&identity(), Protection::None, Rank(4)).unwrap();
        let answer = Hello::new(&Identity { rank: Rank(4), ..identity() }, Protection::None, Rank(2)).unwrap();
        let transcript = |ticket, hello: &Hello, answer: &Hello| {
            let mut transcript = Transcript::new(ticket, hello);
            transcript.answered(answer);
            transcript
        };
        let ours = transcript(Ticket([6; 32]), &hello, &answer);
        let words = [Word::Hello, Word::Answer, Word::Proof, Word::Bound, Word::Welcome];
        for word in words {
            for other in words {
                assert_eq!(ours.proves(word, &ours.mac(other)), word == other);
            }
        }
        let proof = ours.mac(Word::Proof);
        let again = Hello::new(&identity(), Protection::None, Rank(4)).unwrap();
        assert_ne!(again.nonce, hello.nonce);
        let mut bound = ours;
        bound.bind([1; 32]);
        let others = [
            transcript(Ticket([5; 32]), &hello, &answer),
            transcript(Ticket([6; 32]), &again, &answer),
            transcript(Ticket([6; 32]), &hello, &Hello { nonce: again.nonce, ..answer }),
            transcript(Ticket([6; 32]), &answer, &hello),
            transcript(Ticket([6; 32]), &Hello { generation: Generation(8), ..hello }, &answer),
            bound,
        ];
        assert!(others.iter().all(|other| !other.proves(Word::Proof, &proof)));
        for at in 0..MAC_BYTES {
            let mut wrong = proof;
            wrong[at] ^= 1;
            assert!(!ours.proves(Word::Proof, &wrong), "byte {at}");
        }
    }
}
