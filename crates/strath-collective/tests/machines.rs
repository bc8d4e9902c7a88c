//! Every machine over a network in memory: links keep their order, everything else is drawn.
#![allow(clippy::unwrap_used, reason = "a test that fails names the line")]

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;

use common::{KINDS, Kind, approximate, oracle, same_bits, term};
use proptest::prelude::*;
use strath_collective::direct::{Direct, SEGMENTS_AHEAD};
use strath_collective::doubling::Doubling;
use strath_collective::exchange::Exchange;
use strath_collective::frame::{Header, Phase};
use strath_collective::hierarchical::Hierarchical;
use strath_collective::hosts::Hosts;
use strath_collective::machine::{EARLY_SEGMENTS, Machine, Outgoing, Taking};
use strath_collective::packing::Encoding;
use strath_collective::reduction::Tag;
use strath_collective::ring::Ring;
use strath_collective::shift::Shift;
use strath_collective::{Bucket, Payload, Reduced};
use strath_core::random::{Purpose, Stream};
use strath_core::{Fault, Generation, Rank, RunId, Step};

/// Groups do not start at rank 0, so that rank and place are told apart.
const FIRST: u32 = 5;

trait Algorithm: Machine + Clone + PartialEq + Debug {
    /// Whether one rank's segments of two chunks may come in either order.
    const ANY_CHUNK_FIRST: bool = false;

    fn start(tag: Tag, payload: Payload, fault: Fault) -> Self;
}

impl Algorithm for Ring {
    fn start(tag: Tag, payload: Payload, fault: Fault) -> Self {
        Ring::new(tag, payload, fault)
    }
}

impl Algorithm for Direct {
    fn start(tag: Tag, payload: Payload, fault: Fault) -> Self {
        Direct::new(tag, payload, fault)
    }
}

impl Algorithm for Exchange {
    fn start(tag: Tag, payload: Payload, fault: Fault) -> Self {
        Exchange::new(tag, payload, fault)
    }
}

impl Algorithm for Doubling {
    fn start(tag: Tag, payload: Payload, fault: Fault) -> Self {
        Doubling::new(tag, payload, fault)
    }
}

impl Algorithm for Hierarchical {
    const ANY_CHUNK_FIRST: bool = true;

    fn start(tag: Tag, payload: Payload, fault: Fault) -> Self {
        let hosts = hosts(tag.group.len() as u32, payload.len());
        Hierarchical::new(tag, payload, fault, &hosts)
    }
}

/// Ranks strewn over two to five hosts of any sizes, another way for every size and length.
fn hosts(size: u32, len: usize) -> Hosts {
    let mut draws = Stream::new(u64::from(size) << 32 | len as u64, Purpose::Probe);
    let most = u64::from(size - 1).min(4);
    let mut labels: Vec<u64> = (0..size).map(|_| draws.below(1 + most)).collect();
    // Two at least.
    labels[0] = 0;
    labels[1] = 1;
    Hosts::new(&labels)
}

fn tag(rank: u32, size: u32) -> Tag {
    Tag {
        run: RunId(7),
        generation: Generation(2),
        step: Step(11),
        bucket: Bucket::GRADIENT,
        group: FIRST..FIRST + size,
        rank: Rank(rank),
    }
}

/// When a segment's values are read.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reading {
    /// With the command, as if the socket took everything.
    Early,
    /// On delivery, as if the socket had been full until then.
    Late,
}

/// What is on its way from one rank to another; the body of a segment that is read early is there already.
type Link = VecDeque<(Header, Option<Vec<u8>>)>;

struct Network<M> {
    reading: Reading,
    draws: Stream,
    terms: BTreeMap<u32, (Payload, Fault)>,
    ranks: BTreeMap<u32, M>,
    links: BTreeMap<(u32, u32), Link>,
    /// What lies where it came, and keeps back what comes behind it: of which link, and the segment.
    lying: BTreeMap<(u32, u32), (Header, Vec<u8>)>,
    lets_lie: bool,
}

impl<M: Algorithm> Network<M> {
    fn new(terms: Vec<(Payload, Fault)>, seed: u64) -> Self {
        let draws = Stream::new(seed, Purpose::Probe);
        let reading = if seed.is_multiple_of(2) { Reading::Early } else { Reading::Late };
        let terms = (FIRST..).zip(terms).collect();
        Self {
            reading,
            draws,
            terms,
            ranks: BTreeMap::new(),
            links: BTreeMap::new(),
            lying: BTreeMap::new(),
            lets_lie: true,
        }
    }

    fn start(&mut self, rank: u32, size: u32) {
        let (payload, fault) = self.terms.remove(&rank).unwrap();
        self.ranks.insert(rank, M::start(tag(rank, size), payload, fault));
        self.take_commands(rank);
    }

    fn take_commands(&mut self, rank: u32) {
        let machine = self.ranks.get_mut(&rank).unwrap();
        while let Some(Outgoing { to, header }) = machine.poll_command() {
            let (header, body) = match self.reading {
                Reading::Early => {
                    let header = machine.seal(header);
                    (header, Some(values(machine, &header)))
                }
                Reading::Late => (header, None),
            };
            self.links.entry((rank, to.0)).or_default().push_back((header, body));
        }
    }

    fn deliver(&mut self, from: u32, to: u32) {
        let (header, body) = self.links.get_mut(&(from, to)).unwrap().pop_front().unwrap();
        let (header, body) = if let Some(body) = body {
            (header, body)
        } else {
            let header = self.ranks[&from].seal(header);
            (header, values(&self.ranks[&from], &header))
        };
        let receiver = self.ranks.get_mut(&to).unwrap();
        assert_eq!(receiver.admit(Rank(from), &header), Ok(()));
        // Every way in which a transport hands values over, where there are several.
        let (is_placed, may_lie) = (self.draws.below(2) == 0, self.draws.below(2) == 0 && self.lets_lie);
        let at_its_rank: Vec<Rank> = self.lying.keys().filter(|(_, at)| *at == to).map(|(of, _)| Rank(*of)).collect();
        let taking = receiver.taking(Rank(from), &header, &at_its_rank);
        match receiver.room(Rank(from), &header) {
            _ if taking == Taking::Later && may_lie => {
                self.lying.insert((from, to), (header, body));
                return;
            }
            _ if taking == Taking::Together => {
                self.lying.insert((from, to), (header, body));
                let (lying, elsewhere) =
                    std::mem::take(&mut self.lying).into_iter().partition(|((_, at), _)| *at == to);
                self.lying = elsewhere;
                let lying: Vec<_> = BTreeMap::into_iter(lying).collect();
                let segments: Vec<_> = lying.iter().map(|((of, _), (h, body))| (Rank(*of), *h, &body[..])).collect();
                receiver.handle_together(&segments).unwrap();
            }
            Some(room) if is_placed => {
                room.copy_from_slice(&body);
                receiver.handle_placed(Rank(from), &header).unwrap();
            }
            _ => receiver.handle(Rank(from), &header, &body).unwrap(),
        }
        self.take_commands(to);
    }

    /// Has a rank take by itself what lies there.
    fn take_lying(&mut self, (from, to): (u32, u32)) {
        let (header, body) = self.lying.remove(&(from, to)).unwrap();
        self.ranks.get_mut(&to).unwrap().handle(Rank(from), &header, &body).unwrap();
        self.take_commands(to);
    }

    /// Starts a rank or delivers a segment, whichever is drawn, until nothing is left to do.
    fn run(&mut self, size: u32) {
        loop {
            let waiting: Vec<u32> = self.terms.keys().copied().collect();
            let full = |(link, queue): (&(u32, u32), &VecDeque<_>)| (!queue.is_empty()).then_some(*link);
            let links: Vec<_> = self.links.iter().filter_map(full).collect();
            for (from, to) in links.iter().filter(|(_, to)| waiting.contains(to)) {
                let (ready, segments): (Vec<_>, Vec<_>) =
                    self.links[&(*from, *to)].iter().partition(|(header, _)| header.phase == Phase::Ready);
                assert!(segments.len() <= EARLY_SEGMENTS && ready.len() <= 1, "{from} sends {to} too much too early");
            }
            let is_heard = |link: &(u32, u32)| !waiting.contains(&link.1) && !self.lying.contains_key(link);
            let links: Vec<_> = links.into_iter().filter(is_heard).collect();
            let choices = waiting.len() + links.len();
            let lying = self.lying.keys().next().copied();
            if let Some(link) = lying.filter(|_| choices == 0 || self.draws.below(8) == 0) {
                self.take_lying(link);
                continue;
            }
            if choices == 0 {
                return;
            }
            let drawn = self.draws.below(choices as u64) as usize;
            match waiting.get(drawn) {
                Some(rank) => self.start(*rank, size),
                None => self.deliver(links[drawn - waiting.len()].0, links[drawn - waiting.len()].1),
            }
        }
    }

    fn results(self) -> Vec<(Reduced, Fault)> {
        let result = |(rank, machine): (u32, M)| {
            assert!(machine.is_complete(), "rank {rank} is not complete: {:?}", machine.slowest());
            assert_eq!(machine.slowest(), None);
            Box::new(machine).into_result()
        };
        self.ranks.into_iter().map(result).collect()
    }
}

/// The values of a segment under its sealed header, which are the same wherever a transport reads them.
fn values(machine: &impl Machine, header: &Header) -> Vec<u8> {
    let mut out = vec![0; header.body_bytes()];
    machine.encode(header, &mut out);
    assert!(machine.lying(header).is_none_or(|lying| lying == out), "what lies in memory is what is encoded");
    let most = Header { width: header.encoding.width(header.phase) as u32, ..*header };
    let mut packed = vec![0; most.body_bytes()];
    assert_eq!(machine.pack(most, &mut packed), *header, "packed at once");
    assert_eq!(packed[..out.len()], out);
    out
}

/// The sums on all ranks, whose terms are those of `ranks`, after a run whose order `seed` decides.
fn sums<M: Algorithm>(kind: Kind, ranks: &[u32], len: usize, seed: u64) -> Vec<Reduced> {
    let fault = |rank: u32| Fault::from_bits(u64::from(rank) * 3 + 50);
    let terms = ranks.iter().map(|rank| (term(kind, *rank, len), fault(*rank))).collect();
    let size = ranks.len() as u32;
    let mut network = Network::<M>::new(terms, seed);
    network.run(size);
    let (sums, faults): (Vec<_>, Vec<_>) = network.results().into_iter().unzip();
    assert_eq!(faults, vec![fault(*ranks.iter().min().unwrap()); ranks.len()], "every rank has the least word");
    assert!(sums.iter().all(|sum| same_bits(sum, &sums[0])), "{kind:?} of {len} over {size}: ranks differ");
    sums
}

fn is_integer(kind: Kind) -> bool {
    matches!(kind, Kind::Exact | Kind::Mixed | Kind::Wide | Kind::Integers)
}

#[test]
fn every_world_length_and_kind_gives_the_oracles_bits_on_every_rank() {
    for size in 2..=16u32 {
        let ranks: Vec<u32> = (0..size).collect();
        for len in [0, 1, size as usize - 1, size as usize, 1000, 40_000] {
            for kind in KINDS {
                let seed = u64::from(size) + len as u64;
                let ring = sums::<Ring>(kind, &ranks, len, seed);
                let direct = sums::<Direct>(kind, &ranks, len, seed + 1);
                if is_integer(kind) {
                    let hierarchical = sums::<Hierarchical>(kind, &ranks, len, seed + 2);
                    let want = oracle(kind, &ranks, len);
                    assert!(same_bits(&ring[0], &want), "ring: {kind:?} of {len} over {size}");
                    assert!(same_bits(&direct[0], &want), "direct: {kind:?} of {len} over {size}");
                    assert!(same_bits(&hierarchical[0], &want), "hierarchical: {kind:?} of {len} over {size}");
                    continue;
                }
                let (want, slack) = approximate(kind, &ranks, len);
                for sum in [&ring[0], &direct[0]] {
                    let Reduced::Floats(found) = sum else { panic!("{kind:?} gave integers") };
                    assert_eq!(found.len(), len);
                    let off = |at: usize| (f64::from(found[at]) - want[at]).abs() > slack[at];
                    assert_eq!((0..len).find(|at| off(*at)), None, "{kind:?} of {len} over {size}");
                }
            }
        }
    }
}

#[test]
fn many_segments_a_chunk_wait_for_the_neighbour_and_for_the_window() {
    // 200,000 wide values over three ranks: nine segments a chunk, eighteen from neighbour to neighbour.
    let want = oracle(Kind::Wide, &[0, 1, 2], 200_000);
    for seed in 0..12 {
        assert!(same_bits(&sums::<Ring>(Kind::Wide, &[0, 1, 2], 200_000, seed)[0], &want));
        assert!(same_bits(&sums::<Direct>(Kind::Wide, &[0, 1, 2], 200_000, seed)[0], &want));
        assert!(same_bits(&sums::<Hierarchical>(Kind::Wide, &[0, 1, 2], 200_000, seed)[0], &want));
    }
}

#[test]
fn float_sums_do_not_depend_on_the_order_of_arrival() {
    for kind in [Kind::Floats, Kind::Halves] {
        for size in [2, 3, 5] {
            let ranks: Vec<u32> = (0..size).collect();
            let ring = sums::<Ring>(kind, &ranks, 70_000, 0);
            let direct = sums::<Direct>(kind, &ranks, 70_000, 0);
            for seed in 1..6 {
                assert!(same_bits(&ring[0], &sums::<Ring>(kind, &ranks, 70_000, seed)[0]));
                assert!(same_bits(&direct[0], &sums::<Direct>(kind, &ranks, 70_000, seed)[0]));
            }
        }
    }
}

#[test]
fn an_exchange_gives_a_direct_exchanges_float_sums() {
    for size in 2..=16u32 {
        let ranks: Vec<u32> = (0..size).collect();
        for seed in 0..4 {
            let direct = sums::<Direct>(Kind::Floats, &ranks, 1000, seed);
            assert!(same_bits(&sums::<Exchange>(Kind::Floats, &ranks, 1000, seed)[0], &direct[0]), "{size} ranks");
        }
    }
}

#[test]
fn doubling_adds_pairs_of_pairs() {
    let floats = |rank, len| if let Payload::Floats(values) = term(Kind::Floats, rank, len) { values } else { vec![] };
    for size in [2, 4, 8, 16u32] {
        let ranks: Vec<u32> = (0..size).collect();
        let mut partial: Vec<Vec<f32>> = ranks.iter().map(|rank| floats(*rank, 1000)).collect();
        while partial.len() > 1 {
            let add = |pair: &[Vec<f32>]| pair[0].iter().zip(&pair[1]).map(|(a, b)| a + b).collect();
            partial = partial.chunks(2).map(add).collect();
        }
        let want = Reduced::Floats(partial.remove(0));
        for seed in 0..8 {
            assert!(same_bits(&sums::<Doubling>(Kind::Floats, &ranks, 1000, seed)[0], &want), "{size} ranks");
            for kind in KINDS.into_iter().filter(|kind| is_integer(*kind)) {
                let sum = &sums::<Doubling>(kind, &ranks, 1000, seed)[0];
                assert!(same_bits(sum, &oracle(kind, &ranks, 1000)), "{kind:?}, {size} ranks");
            }
        }
    }
}

#[test]
fn a_direct_float_sum_adds_the_terms_in_order_of_rank() {
    let ranks = [0, 1, 2, 3];
    let Reduced::Floats(found) = &sums::<Direct>(Kind::Floats, &ranks, 100, 4)[0] else { panic!("integers") };
    let term = |rank| if let Payload::Floats(values) = term(Kind::Floats, rank, 100) { values } else { vec![] };
    let terms = ranks.map(term);
    for (at, found) in found.iter().enumerate() {
        assert_eq!(found.to_bits(), (((terms[0][at] + terms[1][at]) + terms[2][at]) + terms[3][at]).to_bits());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_permutation_of_the_ranks_gives_the_same_sum(
        size in 2u32..=16, len in 0usize..3000, kind in 0usize..4, seed in any::<u64>()
    ) {
        let order = Stream::new(seed, Purpose::Probe).permutation(size as usize);
        let sorted: Vec<u32> = (0..size).collect();
        let kind = KINDS[kind];
        let want = oracle(kind, &sorted, len);
        prop_assert!(same_bits(&sums::<Ring>(kind, &order, len, seed)[0], &want));
        prop_assert!(same_bits(&sums::<Direct>(kind, &order, len, seed)[0], &want));
        prop_assert!(same_bits(&sums::<Exchange>(kind, &order, len, seed)[0], &want));
        prop_assert!(same_bits(&sums::<Hierarchical>(kind, &order, len, seed)[0], &want));
    }

    #[test]
    fn hosts_of_unequal_sizes_take_any_number_of_segments(
        size in 3u32..=9, len in 60_000usize..150_000, seed in any::<u64>()
    ) {
        let ranks: Vec<u32> = (0..size).collect();
        let want = oracle(Kind::Mixed, &ranks, len);
        prop_assert!(same_bits(&sums::<Hierarchical>(Kind::Mixed, &ranks, len, seed)[0], &want));
    }
}

/// Every way in which one field of a due header can be wrong. Fields in which both values are legal are left out.
fn wrong_headers(due: &Header) -> Vec<(&'static str, Header)> {
    let other_encoding = if due.encoding == Encoding::Exact { Encoding::Integers } else { Encoding::Exact };
    let other_phase = if due.phase == Phase::Reduce { Phase::Gather } else { Phase::Reduce };
    vec![
        ("run", Header { run: RunId(8), ..*due }),
        ("generation", Header { generation: Generation(1), ..*due }),
        ("generation", Header { generation: Generation(3), ..*due }),
        ("step", Header { step: Step(10), ..*due }),
        ("step", Header { step: Step(12), ..*due }),
        ("bucket", Header { bucket: Bucket::TALLY, ..*due }),
        ("group start", Header { group_start: FIRST - 1, ..*due }),
        ("group end", Header { group_end: due.group_end + 1, ..*due }),
        ("encoding", Header { encoding: other_encoding, ..*due }),
        ("entries", Header { entries: due.entries + 1, ..*due }),
        ("phase", Header { phase: other_phase, ..*due }),
        ("phase", Header { phase: Phase::Farewell, ..*due }),
        ("phase", Header { phase: Phase::Ready, ..*due }),
        ("chunk", Header { chunk: due.chunk + 1, ..*due }),
        ("chunk", Header { chunk: u32::MAX, ..*due }),
        ("offset", Header { offset: due.offset + 1, ..*due }),
        ("offset", Header { offset: u64::MAX, ..*due }),
        ("length", Header { length: due.length + 1, ..*due }),
        ("length", Header { length: due.length - 1, ..*due }),
        ("width", Header { width: due.width + 8, ..*due }),
    ]
}

/// Runs a small world to its end, and before each delivery tries everything that is not due.
fn refuses_everything_else<M: Algorithm>(size: u32, kind: Kind) {
    let len = 300;
    let terms = (0..size).map(|rank| (term(kind, rank, len), Fault::NONE)).collect();
    let mut network = Network::<M>::new(terms, 1);
    network.lets_lie = false;
    (FIRST..FIRST + size).for_each(|rank| network.start(rank, size));
    let mut tried = 0;
    while let Some(link) = network.links.iter().find_map(|(link, queue)| (!queue.is_empty()).then_some(*link)) {
        let (from, to) = link;
        let header = network.ranks[&from].seal(network.links[&link][0].0);
        let body = values(&network.ranks[&from], &header);
        let receiver = network.ranks.get_mut(&to).unwrap();
        let before = receiver.clone();
        for (field, wrong) in wrong_headers(&header) {
            if M::ANY_CHUNK_FIRST && wrong.chunk == header.chunk + 1 && receiver.admit(Rank(from), &wrong).is_ok() {
                continue;
            }
            let body = vec![0; wrong.body_bytes()];
            assert!(receiver.handle_placed(Rank(from), &wrong).is_err(), "{field}, placed");
            assert!(receiver.handle_together(&[(Rank(from), wrong, &body)]).is_err(), "{field}, together");
            let refused = receiver.handle(Rank(from), &wrong, &body).unwrap_err();
            assert!(receiver.admit(Rank(from), &wrong).is_err(), "{field}");
            assert!(refused.expected != refused.found, "{field}: {refused}");
            let by_name = !matches!(field, "phase" | "chunk" | "offset" | "length" | "width");
            assert!(!by_name || refused.field == field, "{field} is called {}", refused.field);
            assert_eq!(*receiver, before, "a refused {field} changes nothing");
            tried += 1;
        }
        // From a rank outside the group, from itself, with too short a body, and twice.
        for stranger in [FIRST - 1, FIRST + size, to] {
            let refused = receiver.handle(Rank(stranger), &header, &body).unwrap_err();
            assert_eq!(refused.field, "sender");
        }
        let refused = receiver.handle(Rank(from), &header, &body[1..]).unwrap_err();
        assert_eq!(refused.field, "body bytes");
        assert_eq!(*receiver, before, "what is refused changes nothing");
        network.deliver(from, to);
        let receiver = network.ranks.get_mut(&to).unwrap();
        let after = receiver.clone();
        assert!(receiver.handle(Rank(from), &header, &body).is_err(), "the same segment twice");
        assert_eq!(*receiver, after);
    }
    assert!(tried > 0);
    network.results();
}

#[test]
fn whatever_is_not_due_is_refused_and_changes_nothing() {
    for size in [2, 3, 4] {
        for kind in KINDS {
            refuses_everything_else::<Ring>(size, kind);
            refuses_everything_else::<Direct>(size, kind);
            refuses_everything_else::<Exchange>(size, kind);
            if Doubling::serves(size) {
                refuses_everything_else::<Doubling>(size, kind);
            }
            if is_integer(kind) {
                refuses_everything_else::<Hierarchical>(size, kind);
            }
        }
    }
}

#[test]
fn a_shift_brings_each_rank_of_its_ring_the_block_of_the_one_before_and_nothing_else() {
    let along = [0, 1, 3].map(|place| Rank(FIRST + place));
    // A block of as many segments as a rank keeps that has not started, for each of four places.
    let entries = EARLY_SEGMENTS * 16 * 1024;
    let blocks = |rank: Rank| vec![i64::from(rank.0); 4 * entries];
    let mut shifts = along.map(|rank| Shift::new(tag(rank.0, 4), &along, blocks(rank)));
    for at in 0..along.len() {
        let next = (at + 1) % along.len();
        while let Some(Outgoing { to, header }) = shifts[at].poll_command() {
            assert_eq!(to, along[next]);
            let body = values(&shifts[at], &header);
            let before = shifts[next].clone();
            let wrong = Header { chunk: (header.chunk + 1) % 4, ..header };
            assert_eq!(shifts[next].handle(along[at], &wrong, &body).unwrap_err().field, "chunk");
            let stranger = Rank(FIRST + 2);
            assert_eq!(shifts[next].handle(stranger, &header, &body).unwrap_err().field, "sender");
            assert_eq!(shifts[next], before, "what is refused changes nothing");
            assert!(shifts[next].awaits(along[at]) && !shifts[next].is_complete());
            shifts[next].handle(along[at], &header, &body).unwrap();
        }
    }
    for (at, shift) in shifts.into_iter().enumerate() {
        assert!(shift.is_complete(), "{:?}", shift.slowest());
        let before = along[(at + along.len() - 1) % along.len()];
        let mut want = blocks(along[at]);
        let place = (before.0 - FIRST) as usize;
        want[place * entries..(place + 1) * entries].fill(i64::from(before.0));
        assert_eq!(Box::new(shift).into_result(), (Reduced::Integers(want), Fault::NONE));
    }
}

#[test]
fn a_ready_frame_is_taken_once_and_only_where_it_is_due() {
    let len = 800_000;
    let mut waits = Ring::new(tag(FIRST, 2), term(Kind::Exact, 0, len), Fault::NONE);
    let mut neighbour = Ring::new(tag(FIRST + 1, 2), term(Kind::Exact, 1, len), Fault::NONE);
    let ready = neighbour.poll_command().unwrap().header;
    assert_eq!(ready.phase, Phase::Ready);
    let commands = std::iter::from_fn(|| waits.poll_command()).count();
    assert_eq!(commands, 1 + EARLY_SEGMENTS, "its own ready frame and the early segments");
    assert_eq!(waits.slowest(), Some(Rank(FIRST + 1)));
    waits.handle(Rank(FIRST + 1), &ready, &[]).unwrap();
    assert_eq!(
        std::iter::from_fn(|| waits.poll_command()).count(),
        7 - EARLY_SEGMENTS,
        "400,000 values are 7 segments"
    );
    assert_eq!(waits.handle(Rank(FIRST + 1), &ready, &[]).unwrap_err().field, "ready frames");
    let mut small = Ring::new(tag(FIRST, 2), term(Kind::Exact, 0, 10), Fault::NONE);
    let ready = Header { entries: 10, ..ready };
    assert_eq!(small.handle(Rank(FIRST + 1), &ready, &[]).unwrap_err().field, "ready frames");
}

#[test]
fn a_peer_that_runs_past_the_window_of_a_direct_exchange_is_refused() {
    let len = 400_000;
    let mut sender = Direct::new(tag(FIRST, 3), term(Kind::Exact, 0, len), Fault::NONE);
    let mut owner = Direct::new(tag(FIRST + 1, 3), term(Kind::Exact, 1, len), Fault::NONE);
    let first = std::iter::from_fn(|| sender.poll_command()).find(|c| c.to == Rank(FIRST + 1)).unwrap().header;
    let body = vec![0; first.body_bytes()];
    let nth = |n: u64| Header { offset: n * u64::from(first.length), ..first };
    for n in 0..SEGMENTS_AHEAD as u64 {
        owner.handle(Rank(FIRST), &nth(n), &body).unwrap();
    }
    let before = owner.clone();
    assert_eq!(owner.handle(Rank(FIRST), &nth(SEGMENTS_AHEAD as u64), &body).unwrap_err().field, "segments in flight");
    assert_eq!(owner, before);
}
