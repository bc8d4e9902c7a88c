//! On a slow link what overtakes a state still comes in time.

use std::time::{Duration, Instant};

use strath_protocol::message::{CoordinatorMessage, WorkerMessage};
use strath_rpc::Session;

use crate::harness::{PATIENCE, coordinator, heartbeat, received, register, state};
use crate::link::slow_link;

/// Bytes: three seconds of the link.
const STATE: usize = 3_000_000;

/// The default of `cluster.lease_ms`, less the time between two heartbeats.
const IN_TIME: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn heartbeats_of_a_worker_that_sends_a_state_arrive_within_the_lease() {
    let mut coordinator = coordinator();
    let address = slow_link(coordinator.address).await.to_string();
    let mut session = Session::connect(&address, PATIENCE, None).await.unwrap();
    let connection = coordinator.event().await.connection;
    coordinator.place(&mut session, connection).await;
    let sender = session.sender();
    sender.send(WorkerMessage::State(state(STATE, 0))).await.unwrap();
    let begun = Instant::now();
    let beating = tokio::spawn(async move {
        for step in 0.. {
            let sent = Instant::now();
            if sender.send(heartbeat(step)).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100).saturating_sub(sent.elapsed())).await;
        }
    });
    let (mut heard, mut longest, mut beats) = (Instant::now(), Duration::ZERO, 0);
    while !matches!(coordinator.message().await, WorkerMessage::State(_)) {
        longest = longest.max(heard.elapsed());
        heard = Instant::now();
        beats += 1;
    }
    beating.abort();
    longest = longest.max(heard.elapsed());
    assert!(begun.elapsed() > Duration::from_secs(2), "the link was not slow: {:?}", begun.elapsed());
    assert!(beats > 5 && longest < IN_TIME, "{beats} beats, {longest:?} between two");
}

#[tokio::test]
async fn answers_to_a_worker_that_receives_a_state_arrive_within_the_lease() {
    let mut coordinator = coordinator();
    let address = slow_link(coordinator.address).await.to_string();
    let mut session = Session::connect(&address, PATIENCE, None).await.unwrap();
    let connection = coordinator.event().await.connection;
    session.sender().send(register()).await.unwrap();
    assert_eq!(coordinator.message().await, register());
    coordinator.server.send(connection, CoordinatorMessage::State(state(STATE, 0)));
    let receiving = tokio::spawn(async move {
        let (mut heard, mut longest, mut answers) = (Instant::now(), Duration::ZERO, 0);
        while received(&mut session).await == CoordinatorMessage::Ack {
            longest = longest.max(heard.elapsed());
            heard = Instant::now();
            answers += 1;
        }
        (longest.max(heard.elapsed()), answers)
    });
    while !receiving.is_finished() {
        coordinator.server.send(connection, CoordinatorMessage::Ack);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (longest, answers) = receiving.await.unwrap();
    assert!(answers > 5 && longest < IN_TIME, "{answers} answers, {longest:?} between two");
}
