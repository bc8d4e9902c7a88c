//! What arrives over the control plane, and the certificates that it is encrypted by.

use std::fmt::Debug;

use strath_protocol::message::{CoordinatorMessage, WorkerMessage};
use strath_rpc::untrusted;

use crate::input::Input;
use crate::memory::{Bound, USUAL, within};

/// Of certificates: names and extensions of each are put together anew in the store of the authority's.
const CERTIFICATES: Bound = Bound { times: 64, beside: 1 << 20 };

/// The messages of a session of which each survives its way back to the wire.
fn survive<M: Clone + PartialEq + Debug>(
    messages: &[M],
    send: impl Fn(M) -> Vec<Vec<u8>>,
    hear: impl Fn(&[Vec<u8>]) -> Vec<M>,
) {
    for message in messages {
        let again = hear(&send(message.clone()));
        assert_eq!(again, std::slice::from_ref(message), "the message as it would be sent again");
    }
}

/// Messages of a worker, each with its length before it.
pub fn worker_session(bytes: &[u8]) {
    let heard = within(USUAL, bytes, || untrusted::from_worker(Input::new(bytes).pieces()).0);
    survive(&heard, untrusted::to_coordinator, |sent| {
        let (heard, refused): (Vec<WorkerMessage>, _) = untrusted::from_worker(sent.iter().map(Vec::as_slice));
        assert!(refused.is_none(), "{refused:?}");
        heard
    });
}

/// Messages of a coordinator, each with its length before it.
pub fn coordinator_session(bytes: &[u8]) {
    let heard = within(USUAL, bytes, || untrusted::from_coordinator(Input::new(bytes).pieces()).0);
    survive(&heard, untrusted::to_worker, |sent| {
        let (heard, refused): (Vec<CoordinatorMessage>, _) =
            untrusted::from_coordinator(sent.iter().map(Vec::as_slice));
        assert!(refused.is_none(), "{refused:?}");
        heard
    });
}

/// A cluster's status.
pub fn status(bytes: &[u8]) {
    let Ok(cluster) = within(USUAL, bytes, || untrusted::status(bytes)) else { return };
    let again = untrusted::status(&untrusted::to_status(cluster.clone()));
    assert_eq!(again.ok(), Some(cluster), "the status as it would be sent again");
}

/// A question to have a worker leave, and an answer to it.
pub fn drain(bytes: &[u8]) {
    if let Ok(request) = within(USUAL, bytes, || untrusted::drain_request(bytes)) {
        let again = untrusted::drain_request(&untrusted::to_drain_request(request.clone()));
        assert_eq!(again.ok(), Some(request), "the question as it would be asked again");
    }
    if let Ok(answer) = within(USUAL, bytes, || untrusted::drain_answer(bytes)) {
        let again = untrusted::drain_answer(&untrusted::to_drain_answer(answer.clone()));
        assert_eq!(again.ok(), Some(answer), "the answer as it would be given again");
    }
}

/// The authority's certificate, a certificate and its key, each with its length before it.
pub fn certificates(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let [authority, chain, key] = [input.piece(), input.piece(), input.piece()];
    let read = within(CERTIFICATES, bytes, || untrusted::certificates(authority, chain, key));
    if let Err(error) = read {
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}
