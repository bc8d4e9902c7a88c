//! A length that somebody names is not what memory is taken for.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

use strath_rpc::SessionHappening;

use crate::harness::{coordinator, register};

/// MiB of memory that this process has in use.
fn mebibytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// An HTTP/2 frame of a stream (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = (payload.len() as u32).to_be_bytes();
    [&[high, middle, low, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A header that is in no table (RFC 7541, 6.2.2).
fn header(name: &str, value: &str) -> Vec<u8> {
    [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

/// Opens a session by hand, and says that a message of so many bytes follows.
fn says_that_it_sends(address: SocketAddr, length: u32) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    // POST over http, by their places in the table that everybody has.
    let headers = [
        vec![0x83, 0x86],
        header(":path", "/strath.v1.Strath/Session"),
        header(":authority", "here"),
        header("content-type", "application/grpc"),
        header("te", "trailers"),
    ];
    let message = [&[0][..], &length.to_be_bytes(), b"and then not much"].concat();
    let words = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, &[]),
        frame(1, 4, 1, &headers.concat()),
        frame(0, 0, 1, &message),
    ];
    stream.write_all(&words.concat()).unwrap();
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
