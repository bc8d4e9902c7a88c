//! What the two algorithms have in common for those who drive them.

use strath_core::{Fault, Rank};

use crate::error::Mismatch;
use crate::frame::{Header, Phase};
use crate::payload::Reduced;
use crate::reduction::Reduction;
use crate::spares::Spares;

/// The command of a machine: send this segment.
///
/// Its values are read with [`Machine::encode`] when the transport gets to it. They may be read late: a partial sum is
/// replaced only by a result that contains it, so only after the receiver has had it; and results do not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    /// To whom.
    pub to: Rank,
    /// The segment's header.
    pub header: Header,
}

/// When a segment is best taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taking {
    /// At once.
    Now,
    /// Once other ranks' are there.
    Later,
    /// At once, with those that have waited for it.
    Together,
}

/// An all-reduce over a group of at least two ranks as a pure state machine: segments in, commands out, no IO, no clock.
///
/// At most [`EARLY_SEGMENTS`] segments and one other frame reach a peer that has not started the operation, so a transport
/// can keep what comes early in bounded memory, and ranks may start operations in any order.
pub trait Machine {
    /// Whether a segment with this header, sent by `from`, is due now. What does not fit is an error with the field, what
    /// was expected and what was found; nothing changes.
    fn admit(&self, from: Rank, header: &Header) -> Result<(), Mismatch>;

    /// Takes a segment and its values. Refused exactly where [`admit`](Self::admit) refuses or the values are not as long
    /// as the header says, and then nothing changes.
    fn handle(&mut self, from: Rank, header: &Header, body: &[u8]) -> Result<(), Mismatch>;

    /// The next command, if there is one.
    fn poll_command(&mut self) -> Option<Outgoing>;

    /// The vector and its tag.
    fn reduction(&self) -> &Reduction;

    /// Whether everything was received and every command was taken. The result may be taken once every command's values
    /// were read.
    fn is_complete(&self) -> bool;

    /// Whether something from this rank is still missing.
    fn awaits(&self, rank: Rank) -> bool;

    /// The rank that this one waits for first: where several are missing, one that has sent the least.
    fn slowest(&self) -> Option<Rank>;

    /// What this rank is waiting for: partial sums of its own chunk, or others' results.
    fn phase(&self) -> Phase;

    /// The sum and the least status word of the group, once complete.
    fn into_result(self: Box<Self>) -> (Reduced, Fault);

    /// A command's header as it travels, with the width that the segment's values need.
    fn seal(&self, header: Header) -> Header {
        self.reduction().seal(header)
    }

    /// Writes the values of a segment under its sealed header; `out` has the header's `body_bytes`.
    fn encode(&self, header: &Header, out: &mut [u8]) {
        self.reduction().encode(header, out);
    }

    /// Both at once, in one pass over the values where two would be needed: writes them to the front of `out`, which has the
    /// `body_bytes` of the command's header, and gives the header as it travels.
    fn pack(&self, header: Header, out: &mut [u8]) -> Header {
        self.reduction().pack(header, out)
    }

    /// The values of a segment under a command's header, which is then sealed, where they lie in memory as they travel: a
    /// transport may send them from there.
    fn lying(&self, header: &Header) -> Option<&[u8]> {
        self.reduction().lying(header)
    }

    /// Where the values of a segment that was admitted belong, `body_bytes` long, if there is such a place: a transport may
    /// write them there as they arrive, bit by bit, and then call [`handle_placed`](Self::handle_placed) in place of
    /// [`handle`](Self::handle). Nobody reads them before that.
    fn room(&mut self, _from: Rank, _header: &Header) -> Option<&mut [u8]> {
        None
    }

    /// Takes a segment whose values were written to their [`room`](Self::room). Refused where [`admit`](Self::admit) refuses or
    /// there is no such room.
    fn handle_placed(&mut self, _from: Rank, header: &Header) -> Result<(), Mismatch> {
        Err(Mismatch { field: "bytes placed", expected: 0, found: header.body_bytes() as u64 })
    }

    /// When a segment that is due is best taken, by a transport that can let it lie where it came: what is copied once is not
    /// copied twice. `lying`: whose segments lie there already.
    fn taking(&self, _from: Rank, _header: &Header, _lying: &[Rank]) -> Taking {
        Taking::Now
    }

    /// Takes those segments that lie where they came with the one that they have waited for. Refused, with whose it is, where
    /// [`admit`](Self::admit) refuses one or it is not as long as its header says, and then nothing changes.
    fn handle_together(&mut self, segments: &[(Rank, Header, &[u8])]) -> Result<(), (Rank, Mismatch)> {
        segments.iter().try_for_each(|(from, header, body)| self.handle(*from, header, body).map_err(|m| (*from, m)))
    }

    /// Has memory come from a store, where the machine needs some.
    fn use_spares(&mut self, _spares: &Spares) {}
}

/// Segments that a rank sends to a peer before it knows that the peer has started.
///
/// Enough to keep a fast link busy for the time a word takes to come back (512 KiB is a quarter of a millisecond at 2 GB/s).
pub const EARLY_SEGMENTS: usize = 4;

pub(crate) fn check_body(header: &Header, body: &[u8]) -> Result<(), Mismatch> {
    Mismatch::check("body bytes", header.body_bytes() as u64, body.len() as u64)
}
