//! Frames to peers: encoded late, written as far as the kernel takes them.

use std::time::Instant;

use super::{Driver, key};
use crate::transport::link::{Key, Presence};

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
                if let Some(operation) = operations.get_mut(&key(header)) {
                    *header = operation.machine.seal(*header);
                    operation.machine.encode(header, &mut out[..header.body_bytes()]);
                    operation.unread -= 1;
                    read.push(key(header));
                }
            });
            self.moved = true;
            let written = self.links[at].outbound.write();
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
        for header in std::mem::take(&mut self.links[at].outbound.queue) {
            if let Some(operation) = self.operations.get_mut(&key(&header)) {
                operation.unread -= 1;
            }
            self.finish_if_complete(key(&header));
        }
    }
}
