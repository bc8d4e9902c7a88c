//! Sessions end: in good order, by a fault, by a vanished end.

use std::io::Write as _;
use std::time::{Duration, Instant};

use strath_core::Generation;
use strath_protocol::message::{CoordinatorMessage, Ending, WorkerMessage};
use strath_rpc::{RpcError, Session, SessionHappening};
use tokio::time::timeout;

use crate::harness::{PATIENCE, SOON, coordinator, finished, heartbeat, received, register, state};
use crate::link::frozen_link;

#[tokio::test]
async fn the_end_cuts_a_state_short_and_closes_the_session() {
    let mut coordinator = coordinator();
    let (mut session, connection) = coordinator.worker().await;
    let end = CoordinatorMessage::End(Ending::Failed("a worker was lost".into()));
    coordinator.server.send(connection, CoordinatorMessage::State(state(64 << 20, 0)));
    coordinator.server.send(connection, end.clone());
    coordinator.server.close(connection);
    assert_eq!(received(&mut session).await, end);
    assert!(matches!(session.receive().await, Err(RpcError::Closed)));
    drop(session);
    coordinator.disconnected().await;
}

#[tokio::test]
async fn a_worker_that_finishes_has_sent_everything() {
    let mut coordinator = coordinator();
    let (session, _) = coordinator.placed_worker().await;
    let sent = state(3 << 20, 2 << 20);
    let sender = session.sender();
    sender.send(WorkerMessage::State(sent.clone())).await.unwrap();
    sender.send(finished()).await.unwrap();
    let start = Instant::now();
    session.finish(PATIENCE).await;
    assert!(start.elapsed() < PATIENCE / 2, "the grace ran out");
    assert!(matches!(sender.send(finished()).await, Err(RpcError::Over)));
    assert_eq!(coordinator.message().await, WorkerMessage::State(sent));
    assert_eq!(coordinator.message().await, finished());
    assert!(coordinator.disconnected().await.contains("closed"));
}

#[tokio::test]
async fn a_server_that_shuts_down_has_sent_everything() {
    let mut coordinator = coordinator();
    let (mut session, connection) = coordinator.worker().await;
    let sent = state(3 << 20, 2 << 20);
    coordinator.server.send(connection, CoordinatorMessage::State(sent.clone()));
    let worker = tokio::spawn(async move {
        let got = received(&mut session).await;
        (got, session.receive().await)
    });
    let start = Instant::now();
    coordinator.server.shutdown(PATIENCE).await;
    assert!(start.elapsed() < PATIENCE / 2, "the grace ran out");
    let (got, end) = worker.await.unwrap();
    assert_eq!(got, CoordinatorMessage::State(sent));
    assert!(matches!(end, Err(RpcError::Closed)));
}

#[tokio::test]
async fn a_server_that_shuts_down_does_not_wait_for_a_worker_that_does_not_leave() {
    let mut coordinator = coordinator();
    let (mut session, _) = coordinator.worker().await;
    let start = Instant::now();
    coordinator.server.shutdown(Duration::from_millis(200)).await;
    assert!(start.elapsed() < SOON);
    assert!(timeout(SOON, session.receive()).await.unwrap().is_err());
}

#[tokio::test]
async fn a_worker_that_vanishes_is_noticed_at_once() {
    let mut coordinator = coordinator();
    let address = coordinator.address.to_string();
    // A runtime of its own, whose end closes the sockets without a word, as the end of a process does.
    let elsewhere = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let session =
        elsewhere.spawn(async move { Session::connect(&address, PATIENCE, None).await.unwrap() }).await.unwrap();
    session.sender().send(register()).await.unwrap();
    assert!(matches!(coordinator.event().await.what, SessionHappening::Connected(_)));
    assert_eq!(coordinator.message().await, register());
    let start = Instant::now();
    elsewhere.shutdown_background();
    coordinator.disconnected().await;
    assert!(start.elapsed() < SOON);
    drop(session);
}

#[tokio::test]
async fn a_session_that_is_dropped_is_noticed_at_once_even_where_a_sender_lives_on() {
    let mut coordinator = coordinator();
    let (session, _) = coordinator.worker().await;
    let sender = session.sender();
    let start = Instant::now();
    drop(session);
    coordinator.disconnected().await;
    assert!(start.elapsed() < SOON);
    assert!(matches!(sender.send(heartbeat(0)).await, Err(RpcError::Over)));
}

#[tokio::test]
async fn a_coordinator_that_vanishes_is_noticed_at_once() {
    let elsewhere = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut coordinator = elsewhere.spawn(async { coordinator() }).await.unwrap();
    let (mut session, _) = coordinator.worker().await;
    let start = Instant::now();
    elsewhere.shutdown_background();
    let end = timeout(PATIENCE, session.receive()).await.unwrap();
    assert!(matches!(end, Err(RpcError::Broken(_))), "{end:?}");
    assert!(start.elapsed() < SOON);
}

#[tokio::test]
async fn a_worker_that_does_not_read_is_dropped() {
    let mut coordinator = coordinator();
    let (session, connection) = coordinator.worker().await;
    coordinator.server.send(connection, CoordinatorMessage::State(state(32 << 20, 0)));
    let message = CoordinatorMessage::Start { generation: Generation(1), communicator: None };
    for _ in 0..1100 {
        coordinator.server.send(connection, message.clone());
    }
    assert_eq!(coordinator.disconnected().await, "does not read");
    drop(session);
}

#[tokio::test]
async fn a_coordinator_that_does_not_read_breaks_the_session_and_holds_nobody_up() {
    let mut coordinator = coordinator();
    let address = frozen_link(coordinator.address).await.to_string();
    let mut session = Session::connect(&address, PATIENCE, None).await.unwrap();
    coordinator.event().await;
    let sender = session.sender();
    let sent = timeout(PATIENCE, async {
        let mut sent = 0;
        while sender.send(heartbeat(sent)).await.is_ok() {
            sent += 1;
        }
        sent
    });
    assert!(sent.await.unwrap() > 16_000, "what fits is taken");
    let end = timeout(SOON, session.receive()).await.unwrap();
    assert!(matches!(&end, Err(RpcError::Broken(cause)) if cause.contains("has read nothing")), "{end:?}");
    let start = Instant::now();
    assert!(matches!(sender.send(heartbeat(0)).await, Err(RpcError::Over)));
    assert!(start.elapsed() < SOON, "nobody waits for room any more");
}

#[tokio::test]
async fn a_state_from_a_worker_without_a_place_ends_its_session_before_it_takes_memory() {
    let mut coordinator = coordinator();
    let (mut session, _) = coordinator.worker().await;
    session.sender().send(WorkerMessage::State(state(4 << 20, 0))).await.unwrap();
    let cause = coordinator.disconnected().await;
    assert!(cause.contains("WorkerMessage.state") && cause.contains("place in a generation"), "{cause}");
    assert!(timeout(SOON, session.receive()).await.unwrap().is_err());
}

#[tokio::test]
async fn garbage_does_not_disturb_the_server() {
    let mut coordinator = coordinator();
    let mut held = Vec::new();
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff",
        &[0; 4096],
        b"",
    ] {
        let mut stream = std::net::TcpStream::connect(coordinator.address).unwrap();
        stream.write_all(garbage).unwrap();
        held.push(stream);
    }
    let (session, _) = coordinator.worker().await;
    session.sender().send(register()).await.unwrap();
    assert_eq!(coordinator.message().await, register());
}

#[tokio::test]
async fn a_malformed_message_ends_its_session_and_says_what_is_wrong() {
    let mut coordinator = coordinator();
    let (mut session, _) = coordinator.worker().await;
    let (_other, _) = coordinator.worker().await;
    let WorkerMessage::Heartbeat(mut progress) = heartbeat(1) else { unreachable!() };
    progress.images_per_s = f64::NAN;
    session.sender().send(WorkerMessage::Heartbeat(progress)).await.unwrap();
    let cause = coordinator.disconnected().await;
    assert_eq!(cause, "malformed message: Progress.images_per_s is NaN, expected a finite number");
    assert!(timeout(SOON, session.receive()).await.unwrap().is_err());
}
