//! Segments in shared memory that lie where they came until others' are there: an owner then adds them from there, and does not copy
//! them first.
//!
//! Behind one that lies a peer is not read. So none lies but while this process turns, with one operation under way: what else a peer
//! has to say is heard before it sleeps, or starts another operation that may wait for it.

use strath_core::Rank;

use super::{Driver, key};
use crate::frame::Header;
use crate::machine::Taking;
use crate::transport::link::Key;

impl Driver {
    /// Lets the next frame of a peer, whose header this is and which is whole, lie, or takes it with those that lie. `false`: it is to be
    /// taken by itself.
    pub(super) fn let_lie(&mut self, at: usize, header: &Header) -> bool {
        if !self.lets_lie
            || self.links[at].inbound.shared.is_none()
            || self.operations.len() > 1
            || !self.shorts.is_empty()
        {
            return false;
        }
        let Some(operation) = self.operations.get(&key(header)) else { return false };
        let lying: Vec<Rank> = self.links.iter().filter(|l| l.lying.is_some()).map(|link| link.member.rank).collect();
        match operation.machine.taking(self.links[at].member.rank, header, &lying) {
            Taking::Now => return false,
            Taking::Later => self.links[at].lying = Some(*header),
            Taking::Together => {
                self.links[at].lying = Some(*header);
                self.take_together(key(header));
            }
        }
        true
    }

    /// Has the operation take all that lies.
    fn take_together(&mut self, key: Key) {
        let Some(operation) = self.operations.get_mut(&key) else { return };
        let lying = self.links.iter().filter_map(|link| Some((link, link.lying?)));
        let segments: Vec<_> =
            lying.filter_map(|(link, header)| Some((link.member.rank, header, link.inbound.body(&header)?))).collect();
        if let Err((from, mismatch)) = operation.machine.handle_together(&segments) {
            let at = self.links.iter().position(|link| link.member.rank == from);
            return self.refuse(at.expect("a segment comes from a link"), key, mismatch);
        }
        for link in &mut self.links {
            if let Some(header) = link.lying.take() {
                link.inbound.consume(&header);
            }
        }
        self.queue_commands(key);
        self.finish_if_complete(key);
    }

    /// Has what lies be taken by itself, and whatever came behind it.
    pub(super) fn take_lying(&mut self) {
        for at in 0..self.links.len() {
            if self.links[at].lying.take().is_some() {
                self.take_frames(at);
            }
        }
    }
}
