//! The receiving side of a session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use strath_protocol::message::State;
use tonic::Streaming;

use crate::chunks::{Assembler, STATE_LIMIT};
use crate::error::{RpcError, describe};
use crate::message::{Decoded, Message};

/// Messages as they come, states put together.
#[derive(Debug)]
pub(crate) struct Inbound<M: Message> {
    stream: Streaming<M::Wire>,
    states: Assembler,
    /// Whether states may come.
    gate: Gate,
}

/// Whether the other side may send states. Closed at first where it has yet to be trusted with this side's memory.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<AtomicBool>);

impl Gate {
    pub(crate) fn closed() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    /// From now on states may come. What goes to the other side afterwards cannot be answered before.
    pub(crate) fn open(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl<M: Message> Inbound<M> {
    /// Messages of a stream; states once the gate is open.
    pub(crate) fn new(stream: Streaming<M::Wire>, gate: Gate) -> Self {
        Self { stream, states: Assembler::new(STATE_LIMIT), gate }
    }

    /// The next message. Cancel-safe: what has arrived stays here until it is returned.
    ///
    /// # Errors
    /// [`RpcError::Closed`], [`RpcError::Broken`] and [`RpcError::Malformed`], after each of which the session is over.
    pub(crate) async fn next(&mut self) -> Result<M, RpcError> {
        loop {
            let wire = match self.stream.message().await {
                Ok(Some(wire)) => wire,
                Ok(None) => return Err(RpcError::Closed),
                Err(status) => return Err(RpcError::Broken(describe(&status))),
            };
            match M::decode(wire)? {
                Decoded::Whole(message) => return Ok(message),
                Decoded::Chunk(_) if !self.gate.is_open() => {
                    let expected = "nothing before the worker has its place in a generation";
                    return Err(RpcError::malformed("WorkerMessage.state", "a piece of a state", expected));
                }
                Decoded::Chunk(chunk) => {
                    let state: Option<State> = self.states.accept(chunk)?;
                    if let Some(state) = state {
                        return Ok(M::state(state));
                    }
                }
            }
        }
    }
}
