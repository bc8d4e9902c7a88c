//! A length that somebody names is not what memory is taken for.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

use strath_rpc::SessionHappening;

use crate::by_hand::{frame, session};
use crate::harness::{coordinator, register};

/// MiB of memory that this process has in use.
fn mebibytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Opens a session by hand, and says that a message of so many bytes follows.
fn says_that_it_sends(address: SocketAddr, length: u32) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let message = [&[0][..], &length.to_be_bytes(), b"and then not much"].concat();
    stream.write_all(&[session(), frame(0, 0, 1, &message)].concat()).unwrap();
    stream
}

#[tokio::test]
async fn a_message_that_says_it_is_longer_than_any_ends_its_session_before_memory_is_taken() {
    let mut coordinator = coordinator();
    let before = mebibytes();
    for length in [u32::MAX, (4 << 20) + 1] {
        let _stream = says_that_it_sends(coordinator.address, length);
        assert!(matches!(coordinator.event().await.what, SessionHappening::Connected(_)));
        let cause = coordinator.disconnected().await;
        assert!(cause.contains("too large") && cause.contains(&length.to_string()), "{cause}");
    }
    assert!(mebibytes() < before + 64, "{before} MiB grew to {}", mebibytes());
    let (session, _) = coordinator.worker().await;
    session.sender().send(register()).await.unwrap();
    assert_eq!(coordinator.message().await, register());
}

/// What a worker would say that tells of so many steps, of which each is two bytes.
fn tells_of_steps(steps: usize) -> Vec<u8> {
    let steps = [4 << 3 | 2, 0].repeat(steps);
    let length = [(steps.len() & 0x7f) as u8 | 0x80, (steps.len() >> 7 & 0x7f) as u8 | 0x80, (steps.len() >> 14) as u8];
    [&[11 << 3 | 2][..], &length, &steps].concat()
}

#[tokio::test]
async fn a_message_of_more_steps_than_a_worker_tells_of_ends_its_session_before_it_is_decoded() {
    let mut coordinator = coordinator();
    let message = tells_of_steps(5000);
    let mut stream = TcpStream::connect(coordinator.address).unwrap();
    let prefixed = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
    stream.write_all(&[session(), frame(0, 0, 1, &prefixed)].concat()).unwrap();
    assert!(matches!(coordinator.event().await.what, SessionHappening::Connected(_)));
    let cause = coordinator.disconnected().await;
    assert!(cause.contains("Halted.unrecorded is longer, expected at most 4096"), "{cause}");
}
