//! What arrives over the control plane, as the bytes that arrive: for `strath-fuzz`, which looks for bytes that do harm.

use std::path::Path;

use prost::Message as _;
use strath_protocol::ClusterStatus;
use strath_protocol::message::{CoordinatorMessage, DrainAnswer, DrainRequest, WorkerMessage};

use crate::chunks::{Assembler, Cutter, STATE_LIMIT};
use crate::counted::{Counted, decode};
use crate::error::RpcError;
use crate::message::{Decoded, Encoded, Message};
use crate::tls::{CertificateError, Parts};
use crate::{convert, wire};

/// A session as a receiver hears it.
struct Session(Assembler);

impl Session {
    /// The next message, where these bytes complete one.
    fn hear<M: Message>(&mut self, bytes: &[u8]) -> Result<Option<M>, RpcError>
    where
        M::Wire: Counted,
    {
        match M::decode(decode(bytes)?)? {
            Decoded::Whole(message) => Ok(Some(message)),
            Decoded::Chunk(chunk) => Ok(self.0.accept(chunk)?.map(M::state)),
        }
    }
}

/// The messages of a session up to the first that ends it, and why it does.
fn session<'a, M: Message>(messages: impl Iterator<Item = &'a [u8]>) -> (Vec<M>, Option<RpcError>)
where
    M::Wire: Counted,
{
    let mut session = Session(Assembler::new(STATE_LIMIT));
    let mut heard = Vec::new();
    for bytes in messages {
        match session.hear(bytes) {
            Ok(message) => heard.extend(message),
            Err(error) => return (heard, Some(error)),
        }
    }
    (heard, None)
}

fn encoded<M: Message>(message: M) -> Vec<Vec<u8>> {
    match message.encode() {
        Encoded::Whole(wire) => vec![wire.encode_to_vec()],
        Encoded::State(state) => Cutter::new(state).map(|chunk| M::chunk(chunk).encode_to_vec()).collect(),
    }
}

/// What a coordinator hears of a worker.
pub fn from_worker<'a>(messages: impl Iterator<Item = &'a [u8]>) -> (Vec<WorkerMessage>, Option<RpcError>) {
    session(messages)
}

/// What a worker says, message by message.
pub fn to_coordinator(message: WorkerMessage) -> Vec<Vec<u8>> {
    encoded(message)
}

/// What a worker hears of its coordinator.
pub fn from_coordinator<'a>(messages: impl Iterator<Item = &'a [u8]>) -> (Vec<CoordinatorMessage>, Option<RpcError>) {
    session(messages)
}

/// What a coordinator says, message by message.
pub fn to_worker(message: CoordinatorMessage) -> Vec<Vec<u8>> {
    encoded(message)
}

/// What somebody who asks for a cluster's status is answered.
pub fn status(bytes: &[u8]) -> Result<ClusterStatus, RpcError> {
    convert::required(decode::<wire::StatusReply>(bytes)?.cluster, "StatusReply.cluster")?.try_into()
}

/// That answer.
pub fn to_status(cluster: ClusterStatus) -> Vec<u8> {
    wire::StatusReply { cluster: Some(cluster.into()) }.encode_to_vec()
}

/// What somebody asks who wants a worker to leave.
pub fn drain_request(bytes: &[u8]) -> Result<DrainRequest, RpcError> {
    decode::<wire::DrainRequest>(bytes)?.try_into()
}

/// That question.
pub fn to_drain_request(request: DrainRequest) -> Vec<u8> {
    wire::DrainRequest::from(request).encode_to_vec()
}

/// What it is answered.
pub fn drain_answer(bytes: &[u8]) -> Result<DrainAnswer, RpcError> {
    decode::<wire::DrainReply>(bytes)?.try_into()
}

/// That answer.
pub fn to_drain_answer(answer: DrainAnswer) -> Vec<u8> {
    wire::DrainReply::from(answer).encode_to_vec()
}

/// A set of certificates, from what its files hold.
///
/// # Errors
/// [`CertificateError`].
pub fn certificates(authority: &[u8], chain: &[u8], key: &[u8]) -> Result<(), CertificateError> {
    let path = Path::new("a file");
    let parts = Parts { authority: (path, authority), chain: (path, chain), key: (path, key) };
    parts.parse().map(|_| ())
}
