//! Frames to peers: encoded late, written as far as the kernel takes them.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Driver, Operation, key};
use crate::frame::Header;
use crate::transport::link::{Key, Presence};
use crate::transport::outbound::COPIED_BYTES;

impl Driver {
    pub(super) fn queue_commands(&mut self, key: Key) {
        let Some(operation) = self.operations.get_mut(&key) else { return };
        while let Some(command) = operation.machine.poll_command() {
            let link = self.links.iter_mut().find(|link| link.member.rank == command.to);
            let link = link.expect("a machine sends to ranks of its group, all of which have a link");
            // One that has left has all it needs.
            if link.presence == Presence::Here && link.outbound.stream.is_some() {
                link.outbound.queue.push_back(command.header);
                operation.unread += 1;
            }
        }
    }

    pub(super) fn write(&mut self, at: usize) {
        if self.links[at].outbound.shared.is_some() {
            self.write_shared(at);
            return self.links[at].ring();
        }
        while self.links[at].outbound.is_pending() {
            let mut read = self.fill_batch(at);
            self.moved = true;
            let Self { links, operations, .. } = self;
            let outbound = &mut links[at].outbound;
            let lying: Vec<Header> = outbound.lying().copied().collect();
            let written = outbound.write(|header| lying_values(operations, header));
            let left = outbound.lying().count();
            read.extend_from_slice(&lying[..lying.len() - left]);
            for header in &read {
                self.forget_unread(header);
            }
            match written {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => return self.break_outbound(at),
            }
        }
    }

    /// Packs the frames of a link's queue into shared memory as long as there is room.
    fn write_shared(&mut self, at: usize) {
        while self.links[at].outbound.is_pending() {
            let Self { links, operations, .. } = self;
            let outbound = &mut links[at].outbound;
            let Some(header) = outbound.queue.front().copied() else { return };
            let machine = operations.get(&key(&header)).map(|operation| &operation.machine);
            let published = outbound.publish(header.body_bytes(), |out| match machine {
                Some(machine) => machine.pack(header, out),
                // A frame between the transports themselves has no values.
                None => header,
            });
            if !published {
                return;
            }
            outbound.queue.pop_front();
            self.moved = true;
            self.forget_unread(&header);
        }
    }

    /// Takes frames off a link's queue into its next batch, once the former one is written: those whose values were encoded.
    fn fill_batch(&mut self, at: usize) -> Vec<Header> {
        let Self { links, operations, .. } = self;
        let outbound = &mut links[at].outbound;
        let mut encoded = Vec::new();
        if !outbound.begin() {
            return encoded;
        }
        while let Some(header) = outbound.queue.front().copied() {
            let machine = operations.get(&key(&header)).map(|operation| &operation.machine);
            let is_long = header.body_bytes() > COPIED_BYTES;
            let lying = machine.filter(|_| is_long).and_then(|machine| Some((machine, machine.lying(&header)?)));
            let fits = match (machine, lying) {
                (_, Some((machine, values))) => outbound.push_lying(&machine.seal(header), values),
                (Some(machine), None) => {
                    let fits = outbound.push_encoded(header.body_bytes(), |out| machine.pack(header, out));
                    encoded.extend(fits.then_some(header));
                    fits
                }
                // A frame between the transports themselves has no values.
                (None, None) => outbound.push_encoded(0, |_| header),
            };
            if !fits {
                break;
            }
            outbound.queue.pop_front();
        }
        encoded
    }

    /// Says that the values of a command were read, or need not be.
    fn forget_unread(&mut self, header: &Header) {
        if let Some(operation) = self.operations.get_mut(&key(header)) {
            operation.unread -= 1;
        }
        self.finish_if_complete(key(header));
    }

    /// Copies what is still to be written of values that lie in operations, before those are dropped.
    pub(super) fn detach_lying(&mut self) {
        let Self { links, operations, .. } = self;
        for link in links {
            link.outbound.detach(|header| lying_values(operations, header));
        }
    }

    pub(super) fn check_outbound(&mut self, at: usize) {
        let Some(stream) = &self.links[at].outbound.stream else { return };
        match std::io::Read::read(&mut &**stream, &mut [0]) {
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => {}
            _ => self.break_outbound(at),
        }
    }

    /// The peer no longer reads. What it has sent tells whether it has left or is lost, so that is read first.
    pub(super) fn break_outbound(&mut self, at: usize) {
        self.links[at].outbound.close();
        self.links[at].broken_since = Some(Instant::now());
        self.take_frames(at);
        self.read(at);
    }

    /// Forgets what a peer that has left was still to be sent.
    pub(super) fn drop_outbound(&mut self, at: usize) {
        self.links[at].outbound.close();
        let lying = self.links[at].outbound.drop_lying();
        for header in lying.chain(std::mem::take(&mut self.links[at].outbound.queue)) {
            self.forget_unread(&header);
        }
    }
}

/// The values of a frame in a batch, where they lie in its operation.
fn lying_values<'a>(operations: &'a BTreeMap<Key, Operation>, header: &Header) -> &'a [u8] {
    let operation = operations.get(&key(header)).expect("an operation is under way until its values are read");
    operation.machine.lying(header).expect("what lies in memory as it travels stays there")
}
