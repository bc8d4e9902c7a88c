//! What somebody outside of a run asks of its coordinator.

use strath_core::WorkerId;
use strath_protocol::message::{DrainAnswer, DrainRequest, Shortage};

use super::{clipped, required, text};
use crate::error::RpcError;
use crate::wire;

impl From<DrainRequest> for wire::DrainRequest {
    fn from(request: DrainRequest) -> Self {
        let DrainRequest { worker, shortage, token } = request;
        Self { worker: worker.0, force: shortage == Shortage::Accept, token }
    }
}

impl TryFrom<wire::DrainRequest> for DrainRequest {
    type Error = RpcError;

    fn try_from(request: wire::DrainRequest) -> Result<Self, RpcError> {
        let wire::DrainRequest { worker, force, token } = request;
        Ok(Self {
            worker: WorkerId(worker),
            shortage: if force { Shortage::Accept } else { Shortage::Refuse },
            token: token.map(|token| text(token, "DrainRequest.token")).transpose()?,
        })
    }
}

impl From<DrainAnswer> for wire::DrainReply {
    fn from(answer: DrainAnswer) -> Self {
        use wire::drain_reply::Answer;
        let answer = match answer {
            DrainAnswer::Leaves => Answer::Leaves(wire::DrainLeaves {}),
            DrainAnswer::HasLeft => Answer::HasLeft(wire::DrainHasLeft {}),
            DrainAnswer::Refused(reason) => Answer::Refused(clipped(reason)),
        };
        Self { answer: Some(answer) }
    }
}

impl TryFrom<wire::DrainReply> for DrainAnswer {
    type Error = RpcError;

    fn try_from(reply: wire::DrainReply) -> Result<Self, RpcError> {
        use wire::drain_reply::Answer;
        Ok(match required(reply.answer, "DrainReply.answer")? {
            Answer::Leaves(wire::DrainLeaves {}) => Self::Leaves,
            Answer::HasLeft(wire::DrainHasLeft {}) => Self::HasLeft,
            Answer::Refused(reason) => Self::Refused(text(reason, "DrainReply.refused")?),
        })
    }
}
