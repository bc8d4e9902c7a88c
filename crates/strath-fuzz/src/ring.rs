//! What ranks say to each other: headers of frames, hellos, offers of shared memory, and words between a donor and a newcomer.

use strath_collective::checksum;
use strath_collective::frame::{HEADER_BYTES, Header};
use strath_collective::untrusted::{self, HELLO_BYTES, OFFER_SLOTS};
use strath_core::Ticket;
use strath_node::untrusted::{WORD_BYTES, word};

use crate::input::Input;
use crate::memory::{USUAL, within};

const TICKET: Ticket = Ticket([6; 32]);
/// Bytes of a frame's header before its checksums.
const CHECKED_BYTES: usize = 80;

/// The header of a frame as it lies in shared memory and, with the rest as its values, as it travels.
pub fn frame(bytes: &[u8]) {
    within(USUAL, bytes, || {
        let mut input = Input::new(bytes);
        let header: [u8; HEADER_BYTES] = input.array();
        let values = input.take(usize::MAX);
        let checked = Header::parse_checked(&header);
        let Ok(parsed) = Header::parse(&header) else {
            assert!(checked.is_err(), "a header with checksums that is none without");
            return;
        };
        assert_eq!(parsed.to_bytes()[..CHECKED_BYTES], header[..CHECKED_BYTES], "the header as it would be written");
        assert!(parsed.body_bytes() <= 1 << 20, "a segment of {} bytes", parsed.body_bytes());
        let sent = parsed.to_bytes_above(values);
        assert_eq!(Header::parse_checked(&sent), Ok(parsed), "the header as it would be sent");
        assert!(checked.is_err() || checked == Ok(parsed));
        assert!(parsed.check_against(&parsed).is_ok());
    });
}

/// A hello, by someone who may or may not know the ticket.
pub fn hello(bytes: &[u8]) {
    within(USUAL, bytes, || {
        if let Some(hello) = bytes.first_chunk::<HELLO_BYTES>() {
            read_hello(hello);
        } else {
            untrusted::may_begin_hello(bytes);
        }
    });
}

fn read_hello(hello: &[u8; HELLO_BYTES]) {
    let Some((again, knows)) = untrusted::hello(hello, TICKET) else { return };
    assert_eq!(again, *hello, "the hello as it would be said again");
    let shorter = (0..HELLO_BYTES).all(|have| untrusted::may_begin_hello(&hello[..have]));
    assert!(shorter, "its beginning is refused, all of it is not");
    let proven = untrusted::proven_hello(hello, TICKET).expect("it was understood");
    assert_eq!(knows, proven == *hello, "the ticket is known to those that prove it, and to no others");
    assert_eq!(untrusted::hello(&proven, TICKET), Some((proven, true)));
}

/// An offer of shared memory.
pub fn offer(bytes: &[u8]) {
    within(USUAL, bytes, || {
        let mut input = Input::new(bytes);
        let slots: [i64; OFFER_SLOTS] = std::array::from_fn(|_| input.u64() as i64);
        if let Some(again) = untrusted::offer(slots) {
            assert_eq!(again, slots, "the offer as it would be made again");
        }
    });
}

/// The header of a word between a donor and a newcomer.
pub fn feed_word(bytes: &[u8]) {
    within(USUAL, bytes, || {
        let mut header: [u8; WORD_BYTES] = Input::new(bytes).array();
        read_word(&header);
        // A checksum that fits: whoever knows the ticket can make one.
        let checksum = checksum(&header[..WORD_BYTES - 4]);
        header[WORD_BYTES - 4..].copy_from_slice(&checksum.to_le_bytes());
        read_word(&header);
    });
}

fn read_word(header: &[u8; WORD_BYTES]) {
    let Some(again) = word(header) else { return };
    // What is no part of a word is not kept.
    assert_eq!(again[..64], header[..64], "the word as it would be said again");
    assert_eq!(word(&again), Some(again));
}
