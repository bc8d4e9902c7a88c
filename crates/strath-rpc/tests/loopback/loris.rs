//! Whoever speaks as slowly as it can is not listened to for long.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::by_hand::{PREFACE, frame, session};
use crate::harness::{coordinator, register};

/// What a stranger has, for a session and once it has none: twice ten seconds each at most, and a loaded machine.
const LIMIT: Duration = Duration::from_secs(45);

/// Says `first` at once and `rest` a byte every 100 ms, again and again, until it is closed on; after how long that is.
fn drip(address: SocketAddr, first: &[u8], rest: &[u8]) -> Duration {
    let since = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(first).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut drops = rest.iter().cycle();
    while since.elapsed() < LIMIT {
        let is_heard = drops.next().is_none_or(|byte| stream.write_all(&[*byte]).is_ok());
        match stream.read(&mut [0; 256]) {
            Ok(1..) => thread::sleep(Duration::from_millis(100)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && is_heard => {}
            _ => break,
        }
    }
    since.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_drip_or_whose_session_is_over_end_and_hinder_nobody() {
    let mut coordinator = coordinator();
    let address = coordinator.address;
    // The beginning of HTTP/2; settings, over and over; a first message, whose length has come; nothing at all in a session that then ends.
    let message = [session(), frame(0, 0, 1, &[0, 0, 0, 4, 0])].concat();
    let settings = frame(4, 0, 0, &[]);
    let words =
        [(Vec::new(), PREFACE.to_vec()), (PREFACE.to_vec(), settings), (message, Vec::new()), (session(), Vec::new())];
    let strangers = words.map(|(first, rest)| thread::spawn(move || drip(address, &first, &rest)));
    // Two sessions begin, and a worker's meanwhile.
    for _ in 0..2 {
        coordinator.event().await;
    }
    let (worker, _) = coordinator.worker().await;
    worker.sender().send(register()).await.unwrap();
    assert_eq!(coordinator.message().await, register());
    for _ in 0..2 {
        let cause = coordinator.disconnected().await;
        assert!(cause.contains("said nothing in time"), "{cause}");
    }
    for stranger in strangers {
        let after = tokio::task::spawn_blocking(|| stranger.join().unwrap()).await.unwrap();
        assert!(after < LIMIT, "it was listened to for {after:?}");
    }
    worker.sender().send(register()).await.unwrap();
    assert_eq!(coordinator.message().await, register(), "a session goes on for as long as it likes");
}
