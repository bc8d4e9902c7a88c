//! Messages with more elements than they may have.

use prost::Message as _;

use crate::counted::{Counted, decode};
use crate::wire;

/// A field of this number that holds these bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut bytes);
    bytes.extend(content);
    bytes
}

/// So many elements of the repeated field to which these numbers lead, each of two bytes.
fn empty(path: &[u8], elements: usize) -> Vec<u8> {
    let (last, above) = path.split_last().expect("a path leads somewhere");
    let content = field(*last, &[]).repeat(elements);
    above.iter().rev().fold(content, |content, number| field(*number, &content))
}

fn refused<M: Counted + std::fmt::Debug>(bytes: &[u8]) -> String {
    decode::<M>(bytes).expect_err("more than there may be").to_string()
}

#[test]
fn one_element_more_than_there_may_be_is_refused_by_name_however_deep_it_is() {
    let cases: [(&[u8], usize, &str); 4] = [
        (&[11, 4], 4096, "Halted.unrecorded"),
        (&[11, 5], 256, "Halted.evaluations"),
        (&[1, 7, 5, 4], 4096, "Halted.unrecorded"),
        (&[1, 7, 5, 5], 256, "Halted.evaluations"),
    ];
    for (path, most, name) in cases {
        assert!(decode::<wire::WorkerMessage>(&empty(path, most)).is_ok(), "{path:?}");
        let message = refused::<wire::WorkerMessage>(&empty(path, most + 1));
        assert_eq!(message, format!("malformed message: {name} is longer, expected at most {most} elements"));
    }
    let cases: [(&[u8], usize, &str); 2] =
        [(&[1, 8], 4096, "ClusterStatus.workers"), (&[1, 9], 1024, "ClusterStatus.decisions")];
    for (path, most, name) in cases {
        assert!(decode::<wire::StatusReply>(&empty(path, most)).is_ok(), "{path:?}");
        assert!(refused::<wire::StatusReply>(&empty(path, most + 1)).contains(name));
    }
    assert!(decode::<wire::CoordinatorMessage>(&empty(&[2, 3], 64)).is_ok());
    assert!(refused::<wire::CoordinatorMessage>(&empty(&[2, 3], 65)).contains("Assign.members"));
}

#[test]
fn elements_are_counted_over_all_parts_of_a_message_that_the_decoder_puts_together() {
    let part = empty(&[11, 4], 4096);
    let both = [part.clone(), empty(&[11, 4], 1)].concat();
    assert!(refused::<wire::WorkerMessage>(&both).contains("Halted.unrecorded"));
    // Without the limit both parts end up in one message.
    let whole = wire::WorkerMessage::decode(&*both).unwrap();
    let Some(wire::worker_message::Kind::Halted(halted)) = whole.kind else { panic!("{whole:?}") };
    assert_eq!(halted.unrecorded.len(), 4097);
    let other = [part, empty(&[11, 5], 256)].concat();
    assert!(decode::<wire::WorkerMessage>(&other).is_ok(), "each field by itself");
}

#[test]
fn packed_numbers_are_counted_one_by_one_and_so_are_those_that_are_not_packed() {
    let packed = |bytes: &[u8]| field(2, &field(4, bytes));
    let unpacked = |numbers: usize| field(2, &[4 << 3, 7].repeat(numbers));
    assert!(decode::<wire::CoordinatorMessage>(&packed(&[0xff, 1].repeat(65))).is_ok());
    assert!(decode::<wire::CoordinatorMessage>(&unpacked(65)).is_ok());
    for bytes in [packed(&[1; 66]), packed(&[0xff, 1].repeat(66)), unpacked(66)] {
        assert!(refused::<wire::CoordinatorMessage>(&bytes).contains("Assign.bounds"));
    }
}

#[test]
fn what_is_no_message_is_refused() {
    let torn = field(11, &[0; 9]);
    let cases: [&[u8]; 6] = [&torn[..5], &[0x08], &[0xff; 11], &[0x0f], &[0x0a, 0x05, 0x00], &[0x09, 1, 2]];
    for bytes in cases {
        let message = refused::<wire::WorkerMessage>(bytes);
        assert!(message.contains("protobuf of this version"), "{bytes:?}: {message}");
    }
    assert_eq!(decode::<wire::WorkerMessage>(&[]).unwrap(), wire::WorkerMessage::default());
}
