//! Seeds of what ranks say to each other.

use strath_collective::Bucket;
use strath_collective::frame::{Header, Phase};
use strath_collective::packing::Encoding;
use strath_collective::untrusted::{HELLO_BYTES, OFFER_SLOTS, proven_hello};
use strath_core::{Fault, Generation, RunId, Step, Ticket};

use super::{Inputs, named};

pub(super) fn inputs() -> Vec<(&'static str, Inputs)> {
    vec![
        ("frame", frames()),
        ("hello", hellos()),
        ("offer", offers()),
        ("feed_word", words()),
        ("connection", connections()),
        ("shared_memory", attacks()),
        ("all_reduce", sums()),
    ]
}

fn header(phase: Phase, encoding: Encoding) -> Header {
    let width = encoding.width(phase) as u32;
    Header {
        phase,
        encoding,
        run: RunId(7),
        generation: Generation(2),
        step: Step(3),
        bucket: Bucket::GRADIENT,
        chunk: 1,
        group_start: 0,
        group_end: 3,
        entries: 100,
        offset: 0,
        length: if width == 0 { 0 } else { 4 },
        width,
        fault: Fault::NONE,
    }
}

fn frames() -> Inputs {
    let of = |phase, encoding| {
        let header = header(phase, encoding);
        let values = vec![7; header.body_bytes()];
        [&header.to_bytes_above(&values)[..], &values].concat()
    };
    let encodings = [Encoding::Exact, Encoding::Wide, Encoding::Integers, Encoding::Floats, Encoding::Halves];
    let reduce = encodings.map(|encoding| (format!("reduce-{encoding:?}").to_lowercase(), of(Phase::Reduce, encoding)));
    let mut inputs = named(reduce);
    inputs.insert("gather".into(), of(Phase::Gather, Encoding::Exact));
    inputs.insert("ready".into(), of(Phase::Ready, Encoding::Exact));
    inputs.insert("farewell".into(), of(Phase::Farewell, Encoding::Exact));
    inputs.insert("without-checksums".into(), header(Phase::Reduce, Encoding::Exact).to_bytes().to_vec());
    let long = Header { length: u32::MAX, ..header(Phase::Reduce, Encoding::Floats) };
    inputs.insert("too-long".into(), long.to_bytes().to_vec());
    inputs
}

fn hellos() -> Inputs {
    let mut hello = [3; HELLO_BYTES];
    hello[..8].copy_from_slice(b"STRL\x05\0\x01\0");
    let proven = proven_hello(&hello, Ticket([6; 32])).expect("it is a hello");
    let mut older = hello;
    older[4] = 4;
    named([
        ("stranger", hello.to_vec()),
        ("proven", proven.to_vec()),
        ("older", older.to_vec()),
        ("begun", hello[..5].to_vec()),
        ("http", b"GET / HTTP/1.1\r\nHost: here\r\n\r\n".to_vec()),
    ])
}

fn offers() -> Inputs {
    let offer = |first: i64, pid: i64| {
        let slots: [i64; OFFER_SLOTS] = [first, pid, 7, i64::MIN, 3, -1, -5, 4_026_531_836];
        slots.iter().flat_map(|slot| slot.to_le_bytes()).collect::<Vec<u8>>()
    };
    named([("offer", offer(1, 4_000_000_000)), ("none", offer(0, 0)), ("negative", offer(1, -1))])
}

fn words() -> Inputs {
    let word = |kind: u8, values: u64| {
        let mut word = b"STRF".to_vec();
        word.extend([kind, 0, 0, 0]);
        word.extend([7_u64, 9, values].iter().flat_map(|number| number.to_le_bytes()));
        word.extend([3; 32]);
        word.extend([0; 4]);
        let checksum = strath_collective::checksum(&word);
        word.extend(checksum.to_le_bytes());
        word
    };
    let kinds = [(1, "state"), (2, "step"), (3, "beat"), (4, "end"), (5, "left-behind"), (9, "unknown")];
    named(kinds.map(|(kind, name)| (name, word(kind, 40))))
}

/// A frame of `connection` and `shared_memory`: the choice of encoding and phase, the header's numbers, so many values, the first of them.
fn chosen(encoding: u8, phase: u8, values: u16) -> Vec<u8> {
    [&[encoding, phase][..], &[1; 56], &values.to_le_bytes(), &[9; 32]].concat()
}

fn connections() -> Inputs {
    // Damage, where, then the frame.
    let frame = |damage: u8, at: u16, values| [&[damage][..], &at.to_le_bytes(), &chosen(0, 0, values)].concat();
    named([
        ("one", frame(1, 0, 4)),
        ("byte-by-byte", frame(0, 0, 3)),
        ("several", [frame(3, 0, 40), frame(100, 0, 4000), frame(7, 0, 0)].concat()),
        ("header-damaged", [frame(3, 0, 40), frame(0x83, 70, 40)].concat()),
        ("values-damaged", [frame(3, 0, 40), frame(0x85, 100, 40)].concat()),
    ])
}

fn attacks() -> Inputs {
    let frame = [&[0][..], &chosen(3, 0, 100)].concat();
    let tail = |tail: u64| [&[5][..], &tail.to_le_bytes()].concat();
    let head = |head: u64| [&[7, 0][..], &head.to_le_bytes()].concat();
    let send = |lines: u16| [&[6][..], &lines.to_le_bytes()].concat();
    named([
        ("frames", frame.repeat(3)),
        ("within-a-line", [frame.clone(), vec![4, 1, 0]].concat()),
        ("half", [&[2][..], &chosen(3, 0, 100)].concat()),
        ("too-far", tail(1 << 20)),
        ("far-too-far", tail(u64::MAX)),
        ("back", [frame.clone(), tail(0)].concat()),
        ("read-ahead", [send(40), head(1 << 30), send(4000)].concat()),
        ("read-within-a-line", [send(400), head(65), send(4000), send(4000)].concat()),
        ("sent-and-read", [send(4000), head(64_000), send(4000), frame].concat()),
    ])
}

fn sums() -> Inputs {
    let mut inputs = Inputs::new();
    for (algorithm, name) in (0..5).zip(["ring", "direct", "hierarchical", "exchange", "doubling"]) {
        for (kind, values) in [(0, 3), (1, 4), (3, 2), (4, 3)] {
            // Which way, and what to do: all, then forged, to another rank, and a later one first.
            let actions = [[0, 0], [1, 1], [2, 0], [3, 1]].repeat(4).concat();
            let forged = [&[0, 4, 0, 26, 0, 1][..], &[1, 6, 2], &[0, 7], &[2, 4, 1, 100, 0, 1, 60, 0, 3]].concat();
            let input = [&[algorithm, 2, kind, values][..], &actions, &forged, &actions].concat();
            inputs.insert(format!("{name}-{kind}"), input);
        }
    }
    inputs
}
