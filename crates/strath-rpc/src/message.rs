//! What sending and receiving have to know of a direction's messages.

use prost::Message as Protobuf;
use strath_core::{Generation, Step};
use strath_protocol::message::{CoordinatorMessage, State, WorkerMessage};

use crate::error::RpcError;
use crate::wire;

/// Where a message stands among others that wait to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precedence {
    /// Behind everything that was queued before.
    InOrder,
    /// Before the rest of a state that is under way, and whatever waits behind it.
    Overtakes,
    /// As [`Precedence::Overtakes`]; whatever it overtakes is dropped, because the receiver is through.
    Last,
}

/// A message as it goes to the wire.
#[derive(Debug)]
pub(crate) enum Encoded<W> {
    /// Ready to be sent.
    Whole(W),
    /// To be cut into pieces.
    State(State),
}

/// A message as it comes from the wire.
#[derive(Debug)]
pub(crate) enum Decoded<M> {
    /// Complete.
    Whole(M),
    /// A piece of a state.
    Chunk(wire::StateChunk),
}

/// The messages of one direction.
pub(crate) trait Message: Sized + Send + 'static {
    /// Their wire format.
    type Wire: Protobuf + Default + Send + 'static;

    fn precedence(&self) -> Precedence;
    fn encode(self) -> Encoded<Self::Wire>;
    fn decode(wire: Self::Wire) -> Result<Decoded<Self>, RpcError>;
    fn state(state: State) -> Self;
    fn chunk(chunk: wire::StateChunk) -> Self::Wire;
}

impl Message for WorkerMessage {
    type Wire = wire::WorkerMessage;

    fn precedence(&self) -> Precedence {
        match self {
            Self::Heartbeat(_)
            | Self::Step(_)
            | Self::Eval(_)
            | Self::Measured(_)
            | Self::Failed(_)
            | Self::Retiring => Precedence::Overtakes,
            Self::Leaving { .. } => Precedence::Last,
            Self::Register(_)
            | Self::Prepared(_)
            | Self::RingReady { .. }
            | Self::State(_)
            | Self::Finished(_)
            | Self::Halted(_)
            | Self::CaughtUp { .. }
            | Self::Holds(_) => Precedence::InOrder,
        }
    }

    fn encode(self) -> Encoded<Self::Wire> {
        use wire::worker_message::Kind;
        let kind = match self {
            Self::State(state) => return Encoded::State(state),
            Self::Register(register) => Kind::Register(register.into()),
            Self::Prepared(prepared) => Kind::Prepared(prepared.into()),
            Self::RingReady { generation, gpu, communicator } => {
                let communicator = crate::convert::communicator_bytes(communicator);
                let gpu = gpu.unwrap_or_default();
                Kind::RingReady(wire::RingReady { generation: generation.0, gpu, communicator })
            }
            Self::Heartbeat(progress) => Kind::Heartbeat(progress.into()),
            Self::Step(report) => Kind::Step(report.into()),
            Self::Eval(report) => Kind::Eval(report.into()),
            Self::Measured(report) => Kind::Measured(report.into()),
            Self::Finished(finished) => Kind::Finished(finished.into()),
            Self::Failed(report) => Kind::Failed(report.into()),
            Self::Halted(halted) => Kind::Halted(halted.into()),
            Self::CaughtUp { generation, step } => {
                Kind::CaughtUp(wire::CaughtUp { generation: generation.0, step: step.0 })
            }
            Self::Holds(holds) => Kind::Holds(holds.into()),
            Self::Retiring => Kind::Retiring(wire::Retiring {}),
            Self::Leaving { generation, reason } => {
                let reason = crate::convert::clipped(reason);
                Kind::Leaving(wire::Leaving { reason, generation: generation.0 })
            }
        };
        Encoded::Whole(wire::WorkerMessage { kind: Some(kind) })
    }

    fn decode(wire: Self::Wire) -> Result<Decoded<Self>, RpcError> {
        use wire::worker_message::Kind;
        Ok(Decoded::Whole(match crate::convert::required(wire.kind, "WorkerMessage.kind")? {
            Kind::State(chunk) => return Ok(Decoded::Chunk(chunk)),
            Kind::Register(register) => Self::Register(register.try_into()?),
            Kind::Prepared(prepared) => Self::Prepared(prepared.try_into()?),
            Kind::RingReady(ready) => Self::RingReady {
                generation: crate::convert::generation(ready.generation, "RingReady.generation")?,
                gpu: crate::convert::gpu(ready.gpu, "RingReady.gpu")?,
                communicator: crate::convert::communicator(&ready.communicator, "RingReady.communicator")?,
            },
            Kind::Heartbeat(progress) => Self::Heartbeat(progress.try_into()?),
            Kind::Step(report) => Self::Step(report.try_into()?),
            Kind::Eval(report) => Self::Eval(report.try_into()?),
            Kind::Measured(report) => Self::Measured(report.try_into()?),
            Kind::Finished(finished) => Self::Finished(finished.try_into()?),
            Kind::Failed(report) => Self::Failed(report.try_into()?),
            Kind::Halted(halted) => Self::Halted(halted.try_into()?),
            Kind::CaughtUp(caught_up) => Self::CaughtUp {
                generation: crate::convert::generation(caught_up.generation, "CaughtUp.generation")?,
                step: Step(caught_up.step),
            },
            Kind::Holds(holds) => Self::Holds(holds.try_into()?),
            Kind::Retiring(wire::Retiring {}) => Self::Retiring,
            Kind::Leaving(leaving) => Self::Leaving {
                generation: Generation(leaving.generation),
                reason: crate::convert::text(leaving.reason, "Leaving.reason")?,
            },
        }))
    }

    fn state(state: State) -> Self {
        Self::State(state)
    }

    fn chunk(chunk: wire::StateChunk) -> Self::Wire {
        wire::WorkerMessage { kind: Some(wire::worker_message::Kind::State(chunk)) }
    }
}

impl Message for CoordinatorMessage {
    type Wire = wire::CoordinatorMessage;

    fn precedence(&self) -> Precedence {
        match self {
            Self::Ack | Self::Stop { .. } => Precedence::Overtakes,
            Self::End(_) => Precedence::Last,
            // A generation does not end for a worker before it has heard of it.
            Self::Admitted(_)
            | Self::Assign(_)
            | Self::State(_)
            | Self::Start { .. }
            | Self::Pause { .. }
            | Self::Halt { .. }
            | Self::SendState { .. }
            | Self::Feed(_)
            | Self::Follow(_)
            | Self::TakenBack { .. } => Precedence::InOrder,
        }
    }

    fn encode(self) -> Encoded<Self::Wire> {
        use wire::coordinator_message::Kind;
        let kind = match self {
            Self::State(state) => return Encoded::State(state),
            Self::Admitted(admitted) => Kind::Admitted(admitted.into()),
            Self::Assign(assign) => Kind::Assign(assign.into()),
            Self::Start { generation, communicator } => {
                let communicator = crate::convert::communicator_bytes(communicator);
                Kind::Start(wire::Start { generation: generation.0, communicator })
            }
            Self::Ack => Kind::Ack(wire::Ack {}),
            Self::Stop { generation } => Kind::Stop(wire::Stop { generation: generation.0 }),
            Self::Pause { generation, recorded } => {
                Kind::Pause(wire::Pause { generation: generation.0, recorded: recorded.0 })
            }
            Self::Halt { generation, recorded } => {
                Kind::Halt(wire::Halt { generation: generation.0, recorded: recorded.0 })
            }
            Self::SendState { generation } => Kind::SendState(wire::SendState { generation: generation.0 }),
            Self::Feed(feed) => Kind::Feed(feed.into()),
            Self::Follow(follow) => Kind::Follow(follow.into()),
            Self::TakenBack { generation, recorded } => {
                Kind::TakenBack(wire::TakenBack { generation: generation.0, recorded: recorded.0 })
            }
            Self::End(ending) => Kind::End(ending.into()),
        };
        Encoded::Whole(wire::CoordinatorMessage { kind: Some(kind) })
    }

    fn decode(wire: Self::Wire) -> Result<Decoded<Self>, RpcError> {
        use wire::coordinator_message::Kind;
        Ok(Decoded::Whole(match crate::convert::required(wire.kind, "CoordinatorMessage.kind")? {
            Kind::State(chunk) => return Ok(Decoded::Chunk(chunk)),
            Kind::Admitted(admitted) => Self::Admitted(admitted.try_into()?),
            Kind::Assign(assign) => Self::Assign(assign.try_into()?),
            Kind::Start(start) => Self::Start {
                generation: crate::convert::generation(start.generation, "Start.generation")?,
                communicator: crate::convert::communicator(&start.communicator, "Start.communicator")?,
            },
            Kind::Ack(wire::Ack {}) => Self::Ack,
            Kind::Stop(stop) => {
                Self::Stop { generation: crate::convert::generation(stop.generation, "Stop.generation")? }
            }
            Kind::Pause(pause) => Self::Pause {
                generation: crate::convert::generation(pause.generation, "Pause.generation")?,
                recorded: Step(pause.recorded),
            },
            Kind::Halt(halt) => Self::Halt {
                generation: crate::convert::generation(halt.generation, "Halt.generation")?,
                recorded: Step(halt.recorded),
            },
            Kind::SendState(send) => {
                Self::SendState { generation: crate::convert::generation(send.generation, "SendState.generation")? }
            }
            Kind::Feed(feed) => Self::Feed(feed.try_into()?),
            Kind::Follow(follow) => Self::Follow(follow.try_into()?),
            Kind::TakenBack(taken) => Self::TakenBack {
                generation: crate::convert::generation(taken.generation, "TakenBack.generation")?,
                recorded: Step(taken.recorded),
            },
            Kind::End(ending) => Self::End(ending.try_into()?),
        }))
    }

    fn state(state: State) -> Self {
        Self::State(state)
    }

    fn chunk(chunk: wire::StateChunk) -> Self::Wire {
        wire::CoordinatorMessage { kind: Some(wire::coordinator_message::Kind::State(chunk)) }
    }
}
