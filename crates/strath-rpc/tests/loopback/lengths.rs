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
