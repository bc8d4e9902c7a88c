//! The request to have a worker leave.

use std::time::Duration;

use strath_core::WorkerId;
use strath_protocol::message::{DrainAnswer, DrainRequest, Shortage};
use strath_rpc::drain;

use crate::harness::{PATIENCE, coordinator};

fn request() -> DrainRequest {
    DrainRequest { worker: WorkerId(2), shortage: Shortage::Accept, token: Some("secret".into()) }
}

#[tokio::test]
async fn whoever_decides_is_asked_and_the_answer_comes_back() {
    let mut coordinator = coordinator();
    let address = coordinator.address.to_string();
    for answer in [DrainAnswer::Leaves, DrainAnswer::HasLeft, DrainAnswer::Refused("it is needed".into())] {
        let said = answer.clone();
        let answers = async {
            let call = coordinator.drains.recv().await.unwrap();
            assert_eq!(call.request, request());
            call.answer.send(said).unwrap();
        };
        let (found, ()) = tokio::join!(drain(&address, PATIENCE, None, request()), answers);
        assert_eq!(found.unwrap(), answer);
    }
}

#[tokio::test]
async fn a_coordinator_that_does_not_answer_or_ends_is_named() {
    let mut coordinator = coordinator();
    let address = coordinator.address.to_string();
    let error = drain(&address, Duration::from_millis(200), None, request()).await.unwrap_err().to_string();
    assert!(error.contains(&address) && error.contains("no answer within 0.2 s"), "{error}");
    drop(coordinator.drains.recv().await);
    let ends = async { drop(coordinator.drains.recv().await) };
    let (found, ()) = tokio::join!(drain(&address, PATIENCE, None, request()), ends);
    let error = found.unwrap_err().to_string();
    assert!(error.contains("about to end"), "{error}");
}
