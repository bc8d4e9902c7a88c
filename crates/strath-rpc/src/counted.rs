//! How many elements a message may have is checked before it is decoded.
//!
//! Two bytes on the wire say "one more report, of which every field is zero", and take 136 in memory: a message of 4 MiB would take 272
//! before any conversion could refuse it. So the bytes are walked first, which takes no memory, and the elements of each repeated field
//! counted, wherever in the message they come.

use prost::Message;
use prost::bytes::Buf as _;
use strath_core::config::MOST_WORKERS;
use strath_core::telemetry::MOST_RUNGS;
use strath_protocol::message::{MOST_EVALUATIONS_TOLD, MOST_STEPS_TOLD};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use crate::error::RpcError;
use crate::service::SESSIONS;
use crate::wire;

/// Decisions that a status shows at most: more than a coordinator remembers.
const DECISIONS: usize = 1024;

/// The most elements of a repeated field.
#[derive(Debug)]
pub(crate) struct Most {
    /// Numbers of the fields that lead to it from the message, its own last.
    path: &'static [u32],
    /// Its name, for messages.
    field: &'static str,
    elements: usize,
}

const fn most(path: &'static [u32], field: &'static str, elements: usize) -> Most {
    Most { path, field, elements }
}

/// A message that arrives.
pub(crate) trait Counted: Message + Default + Send + 'static {
    /// Its repeated fields, but for those that take no more memory than bytes.
    const MOST: &'static [Most] = &[];
}

impl Counted for wire::WorkerMessage {
    const MOST: &'static [Most] = &[
        most(&[11, 4], "Halted.unrecorded", MOST_STEPS_TOLD),
        most(&[11, 5], "Halted.evaluations", MOST_EVALUATIONS_TOLD),
        most(&[1, 7, 5, 4], "Halted.unrecorded", MOST_STEPS_TOLD),
        most(&[1, 7, 5, 5], "Halted.evaluations", MOST_EVALUATIONS_TOLD),
        most(&[5, 11, 5, 9], "Survey.ladder", MOST_RUNGS),
    ];
}

impl Counted for wire::CoordinatorMessage {
    const MOST: &'static [Most] = &[
        most(&[2, 3], "Assign.members", MOST_WORKERS as usize),
        most(&[2, 4], "Assign.bounds", MOST_WORKERS as usize + 1),
    ];
}

impl Counted for wire::StatusReply {
    const MOST: &'static [Most] = &[
        most(&[1, 8], "ClusterStatus.workers", SESSIONS),
        most(&[1, 9], "ClusterStatus.decisions", DECISIONS),
        most(&[1, 7, 11, 5, 9], "Survey.ladder", MOST_RUNGS),
    ];
}

impl Counted for wire::StatusRequest {}
impl Counted for wire::DrainRequest {}
impl Counted for wire::DrainReply {}

/// Decodes a message that has no more elements than it may.
///
/// # Errors
/// [`RpcError::Malformed`] where it has, or is no message.
pub(crate) fn decode<M: Counted>(bytes: &[u8]) -> Result<M, RpcError> {
    let mut counts = vec![0; M::MOST.len()];
    count(bytes, &mut Vec::new(), M::MOST, &mut counts)?;
    M::decode(bytes).map_err(|error| RpcError::malformed("message", error.to_string(), "protobuf of this version"))
}

/// Adds the elements of a message, to which the fields of these numbers lead, to those `counts`.
fn count(mut bytes: &[u8], path: &mut Vec<u32>, limits: &'static [Most], counts: &mut [usize]) -> Result<(), RpcError> {
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let number = u32::try_from(key >> 3).map_err(|_| garbled())?;
        let content: &[u8] = match key & 7 {
            // An integer, or a number of eight or four bytes.
            0 => varint(&mut bytes).map(|_| &[][..])?,
            1 => take(&mut bytes, 8)?,
            5 => take(&mut bytes, 4)?,
            2 => {
                let length = varint(&mut bytes)?;
                take(&mut bytes, length)?
            }
            // A group's begin and end, of which there are none in these messages: what is in one counts as if it were not.
            3 | 4 => &[],
            _ => return Err(garbled()),
        };
        path.push(number);
        if let Some(at) = limits.iter().position(|limit| limit.path == *path) {
            counts[at] += elements(key & 7, content, limits[at].field);
            let Most { field, elements, .. } = limits[at];
            if counts[at] > elements {
                return Err(RpcError::malformed(field, "longer", format!("at most {elements} elements")));
            }
        } else if key & 7 == 2 && limits.iter().any(|limit| limit.path.starts_with(path)) {
            count(content, path, limits, counts)?;
        }
        path.pop();
    }
    Ok(())
}

/// Elements that an occurrence of a field adds: packed integers are many at once.
fn elements(kind: u64, content: &[u8], field: &str) -> usize {
    if kind == 2 && field == "Assign.bounds" { content.iter().filter(|byte| **byte < 0x80).count() } else { 1 }
}

/// An integer in groups of seven bits, the least first.
fn varint(bytes: &mut &[u8]) -> Result<u64, RpcError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes.split_off_first().ok_or_else(garbled)?;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok(value);
        }
    }
    Err(garbled())
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8], RpcError> {
    let length = usize::try_from(length).map_err(|_| garbled())?;
    bytes.split_off(..length).ok_or_else(garbled)
}

fn garbled() -> RpcError {
    RpcError::malformed("message", "torn or garbled", "protobuf of this version")
}

/// What the calls encode and decode with.
#[derive(Debug)]
pub(crate) struct CountedCodec<T, U>(ProstCodec<T, U>);

impl<T, U> Default for CountedCodec<T, U> {
    fn default() -> Self {
        Self(ProstCodec::default())
    }
}

impl<T: Message + Send + 'static, U: Counted> Codec for CountedCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = CountedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        CountedDecoder(self.0.decoder())
    }
}

/// Counts, then decodes.
#[derive(Debug)]
pub(crate) struct CountedDecoder<U>(ProstDecoder<U>);

impl<U: Counted> Decoder for CountedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // A message lies there in one piece.
        let message = decode(bytes.chunk()).map_err(|error| Status::invalid_argument(error.to_string()))?;
        bytes.advance(bytes.remaining());
        Ok(Some(message))
    }

    fn buffer_settings(&self) -> tonic::codec::BufferSettings {
        self.0.buffer_settings()
    }
}
