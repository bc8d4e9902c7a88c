//! The machines of the all-reduce among peers of which one lies: frames that are changed on their way, come again, or come out of order.

use std::collections::VecDeque;
use std::fmt::Debug;

use strath_collective::bucket::Bucket;
use strath_collective::direct::Direct;
use strath_collective::doubling::Doubling;
use strath_collective::exchange::Exchange;
use strath_collective::frame::{HEADER_BYTES, Header};
use strath_collective::hierarchical::Hierarchical;
use strath_collective::hosts::Hosts;
use strath_collective::machine::Machine;
use strath_collective::reduction::Tag;
use strath_collective::ring::Ring;
use strath_collective::{Payload, Reduced};
use strath_core::{Fault, Generation, Rank, RunId, Step};

use crate::input::Input;
use crate::memory::{Bound, within};

/// Of up to five machines of 20,000 values, their terms, sums and results, and a copy to compare with.
const MACHINES: Bound = Bound { times: 4096, beside: 16 << 20 };

/// An all-reduce whose frames the input delivers, or changes, until it has no more to say; then all are delivered as they are.
pub fn all_reduce(bytes: &[u8]) {
    within(MACHINES, bytes, || {
        let mut input = Input::new(bytes);
        let (algorithm, world_size, kind) = (input.u8() % 5, 2 + u32::from(input.u8() % 4), input.u8() % 6);
        let lengths: &[usize] = if algorithm < 2 { &[0, 1, 3, 17, 200, 20_000] } else { &[0, 1, 3, 17, 200, 1000] };
        let length = lengths[usize::from(input.u8()) % lengths.len()];
        let term = |rank: u32| payload(kind, rank, length);
        match algorithm {
            0 => World::new(world_size, |tag, rank| Ring::new(tag, term(rank), Fault::NONE)).run(input),
            1 => World::new(world_size, |tag, rank| Direct::new(tag, term(rank), Fault::NONE)).run(input),
            // Its terms are added as they come: floats have an order.
            2 if kind >= FLOATS => {}
            2 => {
                let labels: Vec<u32> = (0..world_size).map(|rank| rank * 2 / world_size).collect();
                let hosts = Hosts::new(&labels);
                World::new(world_size, |tag, rank| Hierarchical::new(tag, term(rank), Fault::NONE, &hosts)).run(input);
            }
            // These round at every rank, so no term may change on its way.
            _ if kind == HALVES => {}
            3 => World::new(world_size, |tag, rank| Exchange::new(tag, term(rank), Fault::NONE)).run(input),
            _ => {
                let world_size = if world_size < 4 { 2 } else { 4 };
                World::new(world_size, |tag, rank| Doubling::new(tag, term(rank), Fault::NONE)).run(input);
            }
        }
    });
}

const FLOATS: u8 = 4;
const HALVES: u8 = 5;

/// A rank's term of a sum.
fn payload(kind: u8, rank: u32, length: usize) -> Payload {
    let number = |at: usize| (at as i64 % 251 + 1) * (i64::from(rank) - 1);
    let float = |at: usize| number(at) as f32 / 64.0;
    match kind {
        0 => Payload::Exact((0..length).map(|at| number(at) << (rank * 9)).collect()),
        1 => Payload::Weighted((0..length).map(float).collect()),
        2 => Payload::Wide { high: (0..length).map(number).collect(), low: (0..length).map(number).collect() },
        3 => Payload::Integers((0..length).map(number).collect()),
        4 => Payload::Floats((0..length).map(float).collect()),
        _ => Payload::Halves((0..length).map(float).collect()),
    }
}

/// Frames that are under way between two ranks, in order.
type Way = VecDeque<(Header, Vec<u8>)>;

struct World<M> {
    machines: Vec<M>,
    /// From the rank of the first index to that of the second.
    ways: Vec<Vec<Way>>,
    /// Whether a frame was taken that nobody sent: the sum may then be any.
    is_deceived: bool,
}

impl<M: Machine + Clone + PartialEq + Debug> World<M> {
    fn new(world_size: u32, start: impl Fn(Tag, u32) -> M) -> Self {
        let tag = |rank| Tag {
            run: RunId(7),
            generation: Generation(2),
            step: Step(3),
            bucket: Bucket::GRADIENT,
            group: 0..world_size,
            rank: Rank(rank),
        };
        let machines: Vec<M> = (0..world_size).map(|rank| start(tag(rank), rank)).collect();
        let ways = vec![vec![Way::new(); machines.len()]; machines.len()];
        Self { machines, ways, is_deceived: false }
    }

    fn run(mut self, mut input: Input<'_>) {
        self.send();
        while !input.is_empty() {
            let (choice, action) = (usize::from(input.u8()), input.u8());
            let Some((from, to)) = self.under_way(choice) else { break };
            match action % 8 {
                // As it is.
                0..4 => self.deliver(from, to, action),
                // With other bytes in its header or its values.
                4 | 5 => self.forge(from, to, &mut input),
                // To another rank.
                6 => {
                    let other = usize::from(input.u8()) % self.machines.len();
                    let (header, body) = self.ways[from][to][0].clone();
                    self.try_frame(from, other, &header, &body);
                }
                // A later one first.
                _ => {
                    if let Some((header, body)) = self.ways[from][to].get(1).cloned() {
                        self.try_frame(from, to, &header, &body);
                    }
                }
            }
            self.send();
        }
        while let Some((from, to)) = self.under_way(0) {
            self.deliver(from, to, 0);
            self.send();
        }
        self.check_results();
    }

    /// Puts what machines send under way.
    fn send(&mut self) {
        for (from, machine) in self.machines.iter_mut().enumerate() {
            while let Some(command) = machine.poll_command() {
                let mut body = vec![0; command.header.body_bytes()];
                let header = machine.pack(command.header, &mut body);
                body.truncate(header.body_bytes());
                self.ways[from][command.to.index()].push_back((header, body));
            }
        }
    }

    /// One of the ways that have frames.
    fn under_way(&self, choice: usize) -> Option<(usize, usize)> {
        let ranks = 0..self.machines.len();
        let ways = ranks.clone().flat_map(|from| ranks.clone().map(move |to| (from, to)));
        let used: Vec<(usize, usize)> = ways.filter(|(from, to)| !self.ways[*from][*to].is_empty()).collect();
        used.get(choice % used.len().max(1)).copied()
    }

    /// Hands over the next frame as it was sent.
    fn deliver(&mut self, from: usize, to: usize, how: u8) {
        let Some((header, body)) = self.ways[from][to].pop_front() else { return };
        let (rank, machine) = (Rank(from as u32), &mut self.machines[to]);
        let mut taken = machine.admit(rank, &header);
        if taken.is_ok() {
            taken = match machine.room(rank, &header).filter(|_| how % 2 == 1) {
                Some(room) => {
                    room.copy_from_slice(&body);
                    machine.handle_placed(rank, &header)
                }
                None => machine.handle(rank, &header, &body),
            };
        }
        assert!(taken.is_ok() || self.is_deceived, "what {from} sent to {to} was refused: {taken:?}");
    }

    /// Tries a frame that was changed.
    fn forge(&mut self, from: usize, to: usize, input: &mut Input<'_>) {
        let (header, mut body) = self.ways[from][to][0].clone();
        let mut bytes = header.to_bytes();
        for _ in 0..=input.u8() % 3 {
            let (at, change) = (usize::from(input.u16()), input.u8());
            match bytes.get_mut(at % (HEADER_BYTES + 64)) {
                Some(byte) => *byte ^= change,
                None if body.is_empty() => {}
                None => {
                    let at = at % body.len();
                    body[at] ^= change;
                }
            }
        }
        let Ok(forged) = Header::parse(&bytes) else { return };
        body.resize(forged.body_bytes(), 0);
        if (forged, &body) != (header, &self.ways[from][to][0].1) {
            self.try_frame(from, to, &forged, &body);
        }
    }

    /// Hands over what nobody sent there; where that is refused nothing has changed.
    fn try_frame(&mut self, from: usize, to: usize, header: &Header, body: &[u8]) {
        let (rank, machine) = (Rank(from as u32), &mut self.machines[to]);
        let before = machine.clone();
        let admitted = machine.admit(rank, header);
        match machine.handle(rank, header, body) {
            Ok(()) => {
                assert!(admitted.is_ok(), "taken, and not admitted: {admitted:?}");
                self.is_deceived = true;
            }
            // A value may be no number by now, and is then no value's equal.
            Err(_) => assert!(self.is_deceived || *machine == before, "refused, and not unchanged"),
        }
    }

    /// All ranks have the same bits.
    fn check_results(self) {
        if self.is_deceived {
            return;
        }
        let results = self.machines.into_iter().map(|machine| {
            assert!(machine.is_complete(), "not complete, and nothing is under way: {machine:?}");
            Box::new(machine).into_result()
        });
        let results: Vec<(Reduced, Fault)> = results.collect();
        assert!(results.iter().all(|result| *result == results[0]), "ranks differ");
    }
}
