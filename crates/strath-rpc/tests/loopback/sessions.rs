//! Sessions begin, and carry messages both ways.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use strath_core::Generation;
use strath_protocol::message::{CoordinatorMessage, WorkerMessage};
use strath_rpc::{RpcError, Server, Session, SessionHappening};

use crate::harness::{PATIENCE, SOON, admitted, coordinator, finished, heartbeat, received, register, state};

#[tokio::test]
async fn messages_arrive_both_ways_in_order() {
    let mut coordinator = coordinator();
    let (mut session, connection) = coordinator.worker().await;
    assert_eq!(session.peer_address(), coordinator.address);
    let sender = session.sender();
    sender.send(register()).await.unwrap();
    for step in 0..100 {
        sender.send(heartbeat(step)).await.unwrap();
    }
    assert_eq!(coordinator.message().await, register());
    for step in 0..100 {
        assert_eq!(coordinator.message().await, heartbeat(step));
        coordinator.server.send(connection, CoordinatorMessage::Ack);
    }
    coordinator.server.send(connection, admitted());
    for _ in 0..100 {
        assert_eq!(received(&mut session).await, CoordinatorMessage::Ack);
    }
    assert_eq!(received(&mut session).await, admitted());
}

#[tokio::test]
async fn sessions_have_ids_of_their_own_and_hear_only_what_is_for_them() {
    let mut coordinator = coordinator();
    let (mut first, first_id) = coordinator.worker().await;
    let (mut second, second_id) = coordinator.worker().await;
    assert_ne!(first_id, second_id);
    coordinator.server.send(second_id, CoordinatorMessage::Stop { generation: Generation(1) });
    coordinator.server.send(first_id, CoordinatorMessage::Ack);
    assert_eq!(received(&mut first).await, CoordinatorMessage::Ack);
    assert_eq!(received(&mut second).await, CoordinatorMessage::Stop { generation: Generation(1) });
}

#[tokio::test]
async fn heartbeats_overtake_a_state_from_a_worker_and_the_end_does_not() {
    let mut coordinator = coordinator();
    let (session, _) = coordinator.placed_worker().await;
    let sender = session.sender();
    sender.send(register()).await.unwrap();
    assert_eq!(coordinator.message().await, register());
    let sent = state(8 << 20, 300);
    sender.send(WorkerMessage::State(sent.clone())).await.unwrap();
    sender.send(finished()).await.unwrap();
    for step in 0..5 {
        sender.send(heartbeat(step)).await.unwrap();
    }
    for step in 0..5 {
        assert_eq!(coordinator.message().await, heartbeat(step));
    }
    assert_eq!(coordinator.message().await, WorkerMessage::State(sent));
    assert_eq!(coordinator.message().await, finished());
}

#[tokio::test]
async fn acknowledgements_overtake_a_state_from_the_coordinator_and_the_start_does_not() {
    let mut coordinator = coordinator();
    let (mut session, connection) = coordinator.worker().await;
    let sent = state(8 << 20, 0);
    let start = CoordinatorMessage::Start { generation: Generation(1), communicator: None };
    coordinator.server.send(connection, CoordinatorMessage::State(sent.clone()));
    coordinator.server.send(connection, start.clone());
    coordinator.server.send(connection, CoordinatorMessage::Ack);
    assert_eq!(received(&mut session).await, CoordinatorMessage::Ack);
    assert_eq!(received(&mut session).await, CoordinatorMessage::State(sent));
    assert_eq!(received(&mut session).await, start);
}

#[tokio::test]
async fn an_absent_coordinator_is_an_error_once_the_time_is_over() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let start = Instant::now();
    let error = Session::connect(&address, Duration::from_millis(700), None).await.unwrap_err().to_string();
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(300) && took < SOON, "{took:?}");
    assert!(error.contains(&address) && error.contains("--connect-timeout") && error.contains("refused"), "{error}");
}

#[tokio::test]
async fn a_listener_that_never_answers_is_an_error_once_the_time_is_over() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let start = Instant::now();
    let error = Session::connect(&address, Duration::from_millis(300), None).await.unwrap_err();
    assert!(matches!(error, RpcError::Absent { .. }), "{error}");
    assert!(start.elapsed() < SOON);
}

#[tokio::test]
async fn a_coordinator_that_comes_late_is_found() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let session = tokio::spawn(async move { Session::connect(&address.to_string(), PATIENCE, None).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (_server, mut events, _drains) =
        Server::start(TcpListener::bind(address).unwrap(), None, Arc::new(|| None)).unwrap();
    session.await.unwrap().unwrap();
    assert!(matches!(events.recv().await.unwrap().what, SessionHappening::Connected(_)));
}
