//! Frames as they are read: off a connection, and out of memory that the other end does what it likes with.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use strath_collective::Bucket;
use strath_collective::frame::{HEADER_BYTES, Header, Phase};
use strath_collective::packing::Encoding;
use strath_collective::untrusted::{Connection, Memory, Shared};
use strath_core::{Fault, Generation, RunId, Step};

use crate::input::Input;
use crate::memory::{Bound, within};

/// Of a connection and its buffers: 16 KiB to read into and the longest frame, twice, beside what it carries.
const CONNECTION: Bound = Bound { times: 64, beside: 3 << 20 };
/// Most frames of an execution, and values of each.
const MOST_FRAMES: usize = 64;
const MOST_VALUES: u32 = 4096;
/// Frames in shared memory begin at multiples of so many bytes.
const LINE_BYTES: u64 = 64;

/// Two ends of a connection over loopback.
struct Line {
    near: TcpStream,
    far: TcpStream,
}

impl Line {
    fn new() -> Self {
        let connected = || -> std::io::Result<Self> {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let far = TcpStream::connect(listener.local_addr()?)?;
            let (near, _) = listener.accept()?;
            for end in [&near, &far] {
                end.set_nonblocking(true)?;
                end.set_nodelay(true)?;
            }
            Ok(Self { near, far })
        };
        connected().expect("loopback is there")
    }

    fn near(&self) -> TcpStream {
        self.near.try_clone().expect("a descriptor is left")
    }

    /// Takes what is left of an execution off the connection.
    fn drain(&self) {
        let mut rest = [0; 4096];
        while { &self.near }.read(&mut rest).is_ok_and(|read| read > 0) {}
    }
}

thread_local! {
    static LINE: Line = Line::new();
    static MEMORY: Memory = Memory::new().expect("a host has memory for some pipes");
}

/// A header that a rank would send, as these bytes choose.
fn header(input: &mut Input<'_>) -> Header {
    let encodings = [Encoding::Exact, Encoding::Wide, Encoding::Integers, Encoding::Floats, Encoding::Halves];
    let phases = [Phase::Reduce, Phase::Gather, Phase::Ready, Phase::Farewell];
    let (encoding, phase) = (encodings[usize::from(input.u8()) % 5], phases[usize::from(input.u8()) % 4]);
    let width = encoding.width(phase) as u32;
    Header {
        phase,
        encoding,
        run: RunId(input.u64()),
        generation: Generation(input.u64()),
        step: Step(input.u64()),
        bucket: Bucket(input.u32()),
        chunk: input.u32(),
        group_start: input.u32(),
        group_end: input.u32(),
        entries: input.u64(),
        offset: input.u64(),
        length: if width == 0 { 0 } else { u32::from(input.u16()) % MOST_VALUES },
        width,
        fault: Fault::NONE,
    }
}

/// So many values, from the input as far as it has some.
fn values(input: &mut Input<'_>, header: &Header) -> Vec<u8> {
    let mut body = vec![0x5a; header.body_bytes()];
    let taken = input.take(body.len().min(32));
    body[..taken.len()].copy_from_slice(taken);
    body
}

/// Frames over a connection in clear, cut anywhere, some of them damaged: those before the first damage arrive as they were sent.
pub fn connection(bytes: &[u8]) {
    LINE.with(|line| {
        line.drain();
        within(CONNECTION, bytes, || talk(line, Input::new(bytes)));
        line.drain();
    });
}

fn talk(line: &Line, mut input: Input<'_>) {
    let mut connection = Connection::new(line.near());
    let (mut sent, mut is_damaged) = (Vec::new(), false);
    let mut received = 0;
    for _ in 0..MOST_FRAMES {
        if input.is_empty() {
            break;
        }
        let (damage, at) = (input.u8(), input.u16());
        let header = header(&mut input);
        let body = values(&mut input, &header);
        let mut frame = [&header.to_bytes_above(&body)[..], &body].concat();
        if damage >= 0x80 {
            // Any bit that is another one, once.
            let at = usize::from(at) % frame.len();
            frame[at] ^= 1 << (damage & 7);
            is_damaged = true;
        } else {
            sent.push((header, body));
        }
        // Byte by byte, or in a few pieces where that were many.
        let piece = (1 + usize::from(damage) * 97).max(frame.len() / 32);
        for part in frame.chunks(piece) {
            let mut part = part;
            while !part.is_empty() {
                match { &line.far }.write(part) {
                    Ok(written) => part = &part[written..],
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
                }
                if !hear(&mut connection, &sent, &mut received) {
                    assert!(is_damaged, "frame {received} was refused, and all were whole");
                    return;
                }
            }
        }
        if is_damaged {
            // The rest may wait for bytes that never come.
            hear(&mut connection, &sent, &mut received);
            assert_eq!(received, sent.len(), "frames before the damage");
            return;
        }
        while received < sent.len() {
            assert!(hear(&mut connection, &sent, &mut received), "frame {received} was refused");
        }
    }
}

/// Takes what has come, and whether that was good.
fn hear(connection: &mut Connection, sent: &[(Header, Vec<u8>)], received: &mut usize) -> bool {
    loop {
        let filled = connection.fill().expect("the connection is there");
        loop {
            match connection.take() {
                Ok(Some(frame)) => {
                    assert!(*received < sent.len(), "a frame that nobody sent: {:?}", frame.0);
                    assert!(frame == sent[*received], "frame {received} is another one");
                    *received += 1;
                }
                Ok(None) => break,
                Err(_) => return false,
            }
        }
        if filled == 0 {
            return true;
        }
    }
}

/// Shared memory whose other end writes what it likes and says that it has written and read what it likes.
pub fn shared_memory(bytes: &[u8]) {
    LINE.with(|line| {
        MEMORY.with(|memory| within(CONNECTION, bytes, || attack(line, memory, Input::new(bytes))));
    });
}

fn attack(line: &Line, memory: &Memory, mut input: Input<'_>) {
    let mut shared = Shared::new(memory, line.near()).expect("what was mapped once can be mapped again");
    let (mut tail, mut sent, mut read) = (0_u64, 0_u64, 0_u64);
    let size = shared.size() as u64;
    while !input.is_empty() {
        match input.u8() % 8 {
            // A frame, as it should be.
            0 | 1 => {
                let header = header(&mut input);
                let frame = [&header.to_bytes()[..], &values(&mut input, &header)].concat();
                shared.write(tail, &frame);
                tail = tail.wrapping_add((frame.len() as u64).next_multiple_of(LINE_BYTES));
                shared.say_written(tail);
            }
            // Half of one.
            2 => {
                shared.write(tail, &header(&mut input).to_bytes());
                tail = tail.wrapping_add(LINE_BYTES);
                shared.say_written(tail);
            }
            3 => {
                let piece = input.u8();
                shared.write(input.u64(), input.take(usize::from(piece)));
            }
            4 => {
                tail = tail.wrapping_add(u64::from(input.u16()));
                shared.say_written(tail);
            }
            5 => {
                tail = input.u64();
                shared.say_written(tail);
            }
            6 => {
                let bytes = usize::from(input.u16()) * 16;
                if shared.send(bytes) {
                    sent += (bytes as u64).next_multiple_of(LINE_BYTES);
                    assert!(sent - read <= size, "{} bytes are under way in a pipe of {size}", sent - read);
                }
            }
            _ => {
                let said = if input.u8().is_multiple_of(2) { input.u64() } else { u64::from(input.u16()) * LINE_BYTES };
                shared.say_read(said);
                // Anything else makes no room.
                if (read..=sent).contains(&said) && said.is_multiple_of(LINE_BYTES) {
                    read = said;
                }
            }
        }
        if !look(&mut shared, tail) {
            return;
        }
    }
}

/// Takes what there is, and whether this end believes it.
fn look(shared: &mut Shared, tail: u64) -> bool {
    let Ok(there) = shared.fill() else { return false };
    assert!(tail.is_multiple_of(LINE_BYTES), "a frame that ends at {tail}");
    assert!(there <= shared.size(), "{there} bytes in a pipe of {}", shared.size());
    // Each takes a line at least.
    for _ in 0..=there as u64 / LINE_BYTES {
        match shared.take() {
            Ok(Some((header, body))) => {
                assert!(HEADER_BYTES + body.len() <= there && body.len() == header.body_bytes());
            }
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
    panic!("more frames than there are lines");
}
