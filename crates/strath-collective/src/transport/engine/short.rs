//! The short way of a small sum between ranks that share memory: terms straight into memory and out of it, without an operation.
//!
//! What is out of the ordinary (a full pipe, another operation's frame in front, a peer that is gone or misbehaves) is not dealt
//! with here: the exchange becomes an operation like any other, with whatever it has received so far.

use std::sync::mpsc::Sender;

use super::{Driver, Outcome, key};
use crate::exchange::Exchange;
use crate::frame::Phase;
use crate::machine::Machine;
use crate::transport::link::{Key, Link, Presence};

/// How far a sum has come on the short way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport) enum Short {
    /// All terms are there.
    Complete,
    /// Some are missing.
    Waiting,
    /// It is to become an operation.
    Unusual,
}

fn key_of(exchange: &Exchange) -> Key {
    let tag = exchange.reduction().tag();
    (tag.step, tag.bucket)
}

fn in_group(exchange: &Exchange, link: &Link) -> bool {
    exchange.reduction().tag().group.contains(&link.member.rank.0)
}

impl Driver {
    /// Hands this rank's term to every peer if that can be done at once. `false`: nothing was done.
    pub(in crate::transport) fn begin_short(&mut self, exchange: &mut Exchange) -> bool {
        let key = key_of(exchange);
        let bytes = exchange.header().body_bytes();
        let takes = |link: &Link| link.presence == Presence::Here && link.outbound.takes_at_once(bytes);
        let is_new = !self.operations.contains_key(&key) && !self.shorts.contains(&key);
        if self.ending.is_some() || !is_new || !self.links.iter().filter(|l| in_group(exchange, l)).all(takes) {
            return false;
        }
        while let Some(command) = exchange.poll_command() {
            let Some(link) = self.links.iter_mut().find(|link| link.member.rank == command.to) else { continue };
            link.outbound.publish(bytes, |out| exchange.pack(command.header, out));
            link.ring();
        }
        self.shorts.push(key);
        true
    }

    /// Takes what peers have handed over, or do while this looks for it so often.
    pub(in crate::transport) fn take_short(&mut self, exchange: &mut Exchange, mut looks: u32) -> Short {
        let key_of_sum = key_of(exchange);
        for link in &mut self.links {
            let from = link.member.rank;
            if !exchange.awaits(from) {
                continue;
            }
            // What another thread has read on the way lies there, also of a peer that has left since.
            for (header, body) in link.inbound.take_early(key_of_sum) {
                if exchange.handle_in_place(from, &header, &body).is_err() {
                    return Short::Unusual;
                }
            }
            if !exchange.awaits(from) {
                continue;
            }
            link.inbound.look(&mut looks);
            if self.ending.is_some() || !link.is_read() || link.inbound.fill().is_err() {
                return Short::Unusual;
            }
            if let Some((fault, body)) = link.inbound.next_as(exchange.header()) {
                exchange.handle_due(from, fault, body);
                link.inbound.consume(exchange.header());
                link.ring();
                continue;
            }
            match link.inbound.header() {
                Ok(None) => {}
                Ok(Some(header)) if header.phase == Phase::Reduce && key(&header) == key_of_sum => {
                    let Some(body) = link.inbound.body(&header) else { return Short::Unusual };
                    if exchange.handle_in_place(from, &header, body).is_err() {
                        return Short::Unusual;
                    }
                    link.inbound.consume(&header);
                    link.ring();
                }
                _ => return Short::Unusual,
            }
        }
        if !exchange.is_complete() {
            return Short::Waiting;
        }
        self.shorts.retain(|key| *key != key_of_sum);
        Short::Complete
    }

    /// Goes on with it as an operation.
    pub(in crate::transport) fn adopt(&mut self, exchange: Box<Exchange>, reply: Sender<Outcome>) {
        let key = key_of(&exchange);
        self.shorts.retain(|short| *short != key);
        self.start(exchange, reply);
    }
}
