//! The first words on every connection: who calls, and whom.

use strath_core::{Generation, Rank, RingKey, RunId};
use subtle::ConstantTimeEq;

use crate::collective::Identity;
use crate::error::Mismatch;
use crate::frame::VERSION;

/// Bytes of a hello on the wire.
pub(crate) const HELLO_BYTES: usize = 52;
/// The first four bytes of every hello, "STRL" in ASCII.
const MAGIC: u32 = u32::from_le_bytes(*b"STRL");

/// What the connecting rank sends first, and what the other answers with `from` and `to` exchanged. Little-endian:
///
/// ```text
/// 0 magic u32 | 4 version u16 | 6 zero u16 | 8 run u64 | 16 generation u64 | 24 from u32 | 28 to u32 | 32 world size u32
/// 36 key, 16 bytes
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello {
    /// Version of the wire format.
    pub(crate) version: u16,
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
    /// The secret of the run.
    pub(crate) key: RingKey,
}

impl Hello {
    /// What this rank says to a peer.
    pub(crate) fn new(identity: &Identity, to: Rank) -> Self {
        let Identity { run, generation, rank, world_size, key } = *identity;
        Self { version: VERSION, run, generation, from: rank, to, world_size, key }
    }

    /// What that peer is to say to this rank.
    pub(crate) fn expected(identity: &Identity, from: Rank) -> Self {
        Self { from, to: identity.rank, ..Self::new(identity, from) }
    }

    /// Whether whoever says this knows the secret of the run. The time that it takes does not tell how much of it is right.
    pub(crate) fn knows(&self, key: RingKey) -> bool {
        self.key.0.ct_eq(&key.0).into()
    }

    /// The hello as it travels.
    pub(crate) fn to_bytes(self) -> [u8; HELLO_BYTES] {
        let mut out = [0; HELLO_BYTES];
        out[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[4..6].copy_from_slice(&self.version.to_le_bytes());
        out[8..16].copy_from_slice(&self.run.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.generation.0.to_le_bytes());
        out[24..28].copy_from_slice(&self.from.0.to_le_bytes());
        out[28..32].copy_from_slice(&self.to.0.to_le_bytes());
        out[32..36].copy_from_slice(&self.world_size.to_le_bytes());
        out[36..52].copy_from_slice(&self.key.0);
        out
    }

    /// Checks the first bytes of what should be a hello.
    ///
    /// # Errors
    /// [`Mismatch`] where the magic is not ours: a stranger.
    pub(crate) fn check_magic(first: [u8; 4]) -> Result<(), Mismatch> {
        Mismatch::check("magic", u64::from(MAGIC), u64::from(u32::from_le_bytes(first)))
    }

    /// A hello as it arrived.
    ///
    /// # Errors
    /// [`Mismatch`] where the magic is not ours: a stranger.
    pub(crate) fn parse(bytes: &[u8; HELLO_BYTES]) -> Result<Self, Mismatch> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        Self::check_magic([bytes[0], bytes[1], bytes[2], bytes[3]])?;
        Ok(Self {
            version: u16::from_le_bytes([bytes[4], bytes[5]]),
            run: RunId(u64_at(8)),
            generation: Generation(u64_at(16)),
            from: Rank(u32_at(24)),
            to: Rank(u32_at(28)),
            world_size: u32_at(32),
            key: RingKey(std::array::from_fn(|at| bytes[36 + at])),
        })
    }

    /// Checks that whoever says this speaks this version of the protocol: the first question, as the rest may look different in
    /// another.
    ///
    /// # Errors
    /// [`Mismatch`].
    pub(crate) fn check_version(&self) -> Result<(), Mismatch> {
        Mismatch::check("protocol version", u64::from(VERSION), u64::from(self.version))
    }

    /// Checks that this hello, as it arrived, is the expected one.
    ///
    /// # Errors
    /// [`Mismatch`] naming the first field that differs.
    pub(crate) fn check_against(&self, expected: &Self) -> Result<(), Mismatch> {
        self.check_version()?;
        Mismatch::check("run", expected.run.0, self.run.0)?;
        Mismatch::check("generation", expected.generation.0, self.generation.0)?;
        Mismatch::check("world size", u64::from(expected.world_size), u64::from(self.world_size))?;
        Mismatch::check("rank", u64::from(expected.from.0), u64::from(self.from.0))?;
        Mismatch::check("rank addressed", u64::from(expected.to.0), u64::from(self.to.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_survives_the_wire_and_every_difference_is_named() {
        let identity = Identity {
            run: RunId(0x0102_0304_0506_0708),
            generation: Generation(9),
            rank: Rank(2),
            world_size: 5,
            key: RingKey([6; 16]),
        };
        let expected = Hello::expected(&identity, Rank(4));
        assert_eq!(Hello::parse(&expected.to_bytes()), Ok(expected));
        assert_eq!(&expected.to_bytes()[..12], b"STRL\x04\0\0\0\x08\x07\x06\x05");
        let cases = [
            (4, "protocol version"),
            (8, "run"),
            (15, "run"),
            (16, "generation"),
            (23, "generation"),
            (24, "rank"),
            (28, "rank addressed"),
            (32, "world size"),
        ];
        for (at, field) in cases {
            let mut bytes = expected.to_bytes();
            bytes[at] ^= 1;
            let found = Hello::parse(&bytes).unwrap();
            assert_eq!(found.check_against(&expected).map_err(|m| m.field), Err(field), "byte {at}");
        }
        let mut bytes = expected.to_bytes();
        bytes[51] ^= 1;
        assert!(expected.knows(identity.key) && !Hello::parse(&bytes).unwrap().knows(identity.key));
        assert_eq!(Hello::parse(&[0; HELLO_BYTES]).map_err(|m| m.field), Err("magic"));
    }
}
