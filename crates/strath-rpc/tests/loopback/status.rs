//! The status request.

use std::net::Ipv4Addr;
use std::time::Duration;

use strath_core::{Generation, RunId, Step, WorkerId};
use strath_protocol::message::Phase;
use strath_protocol::{ClusterStatus, DecisionStatus, WorkerStatus};
use strath_rpc::status;

use crate::harness::{PATIENCE, coordinator, coordinator_showing};

#[tokio::test]
async fn a_status_request_shows_the_cluster() {
    let shown = ClusterStatus {
        run: RunId(9),
        name: "digits".into(),
        stage: "running".into(),
        generation: Generation(2),
        step: Step(10),
        steps: Step(100),
        last_step: None,
        survey: None,
        workers: vec![WorkerStatus {
            worker: WorkerId(1),
            host: "here".into(),
            address: (Ipv4Addr::LOCALHOST, 80).into(),
            pid: 4,
            rank: None,
            micro_batches: 8,
            step: Step(10),
            phase: Phase::Ascent,
            images_per_s: 100.0,
            silent_ms: 12,
            late: String::new(),
        }],
        decisions: vec![DecisionStatus { what: "began".into(), why: "all are ready".into(), ago_ms: 7 }],
    };
    let coordinator = coordinator_showing(Some(shown.clone()));
    for _ in 0..2 {
        assert_eq!(status(&coordinator.address.to_string(), PATIENCE, None).await.unwrap(), shown);
    }
}

#[tokio::test]
async fn a_status_request_says_what_is_missing() {
    let coordinator = coordinator();
    let address = coordinator.address.to_string();
    let error = status(&address, PATIENCE, None).await.unwrap_err().to_string();
    assert!(error.contains("nothing to show yet"), "{error}");
    drop(coordinator);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let error = status(&address, PATIENCE, None).await.unwrap_err().to_string();
    assert!(error.contains(&address), "{error}");
}
