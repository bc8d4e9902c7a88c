//! Frames to peers: encoded late, written as far as the kernel takes them.

use std::time::Instant;

use super::{Driver, key};
use crate::frame::Header;
use crate::transport::link::{COPIED_BYTES, Key, Presence, Values};

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
        while self.links[at].outbound.is_pending() {
            let mut read = Vec::new();
            let operations = &mut self.operations;
            self.links[at].outbound.encode(|header, out| {
                let Some(operation) = operations.get_mut(&key(header)) else { return Values::Encoded(*header) };
                if out.len() > COPIED_BYTES && operation.machine.lying(header).is_some() {
                    return Values::Lie(operation.machine.seal(*header));
                }
                operation.unread -= 1;
                read.push(key(header));
                Values::Encoded(operation.machine.pack(*header, out))
            });
            self.moved = true;
            let lying = self.links[at].outbound.lying();
            let values = lying.and_then(|header| self.operations.get(&key(&header))?.machine.lying(&header));
            let written = self.links[at].outbound.write(values.unwrap_or_default());
            if let (Ok(true), Some(header)) = (&written, &lying) {
                self.forget_unread(header);
            }
            for key in read {
                self.finish_if_complete(key);
            }
            match written {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => return self.break_outbound(at),
            }
        }
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
        for link in &mut self.links {
            let Some(header) = link.outbound.lying() else { continue };
            let values = self.operations.get(&key(&header)).and_then(|o| o.machine.lying(&header));
            link.outbound.detach(values.unwrap_or_default());
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
        for header in lying.into_iter().chain(std::mem::take(&mut self.links[at].outbound.queue)) {
            self.forget_unread(&header);
        }
    }
}
