//! States in pieces: cut on the way out, put together and checked on the way in.

use sha2::{Digest as _, Sha256};
use strath_core::{Digest, Generation, Step};
use strath_protocol::message::{FileBytes, Purpose, State};

use crate::convert::{digest, purpose_in, purpose_out, required};
use crate::error::RpcError;
use crate::wire::{StateChunk, StateFile, StateHeader};

/// Largest piece, bytes. What overtakes a state waits for the pieces that have left the queue, a few at most: small pieces
/// keep heartbeats inside their lease on a link of some Mbit/s.
pub(crate) const CHUNK: usize = 64 << 10;

/// Largest state, bytes of both files.
pub(crate) const STATE_LIMIT: u64 = 16 << 30;

/// Cuts a state into pieces, one at a time: no second copy of it ever exists.
#[derive(Debug)]
pub(crate) struct Cutter {
    state: State,
    at: Option<StateFile>,
    offset: usize,
    hash: Sha256,
    header: Option<StateHeader>,
}

impl Cutter {
    pub(crate) fn new(state: State) -> Self {
        let header = StateHeader {
            generation: state.generation.0,
            step: state.step.0,
            purpose: purpose_out(state.purpose).into(),
            model_bytes: state.model.len() as u64,
            optimizer_bytes: state.optimizer.len() as u64,
        };
        Self { state, at: Some(StateFile::Model), offset: 0, hash: Sha256::new(), header: Some(header) }
    }
}

impl Iterator for Cutter {
    type Item = StateChunk;

    fn next(&mut self) -> Option<StateChunk> {
        let file = self.at?;
        let bytes = if file == StateFile::Model { &self.state.model } else { &self.state.optimizer };
        let offset = self.offset;
        let data = &bytes[offset..bytes.len().min(offset + CHUNK)];
        self.hash.update(data);
        self.offset += data.len();
        let mut sha256 = Vec::new();
        if self.offset == bytes.len() {
            sha256 = self.hash.finalize_reset().to_vec();
            self.at = (file == StateFile::Model).then_some(StateFile::Optimizer);
            self.offset = 0;
        }
        let data = data.to_vec();
        Some(StateChunk { header: self.header.take(), file: file.into(), offset: offset as u64, data, sha256 })
    }
}

/// Puts the pieces of one state after the other together.
#[derive(Debug)]
pub(crate) struct Assembler {
    limit: u64,
    transfer: Option<Transfer>,
}

#[derive(Debug)]
struct Transfer {
    generation: Generation,
    step: Step,
    purpose: Purpose,
    at: StateFile,
    model_bytes: u64,
    optimizer_bytes: u64,
    hash: Sha256,
    model: Vec<u8>,
    optimizer: Vec<u8>,
    /// Of the model file, once all of it is there; then of the optimizer file.
    counted: [Digest; 2],
}

impl Assembler {
    /// For states of at most `limit` bytes.
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, transfer: None }
    }

    /// Takes the next piece; the state, where it was the last. An error ends the transfer.
    pub(crate) fn accept(&mut self, chunk: StateChunk) -> Result<Option<State>, RpcError> {
        let StateChunk { header, file, offset, data, sha256 } = chunk;
        let mut transfer = match (self.transfer.take(), header) {
            (None, header) => Transfer::announced(required(header, "StateChunk.header")?, self.limit)?,
            (Some(transfer), None) => transfer,
            (Some(_), Some(_)) => {
                return Err(RpcError::malformed("StateChunk.header", "of a second state", "the rest of the first"));
            }
        };
        if transfer.add(file, offset, &data, &sha256)? {
            return Ok(Some(transfer.complete()));
        }
        self.transfer = Some(transfer);
        Ok(None)
    }
}

impl Transfer {
    fn announced(header: StateHeader, limit: u64) -> Result<Self, RpcError> {
        let StateHeader { generation, step, purpose, model_bytes, optimizer_bytes } = header;
        if model_bytes.checked_add(optimizer_bytes).is_none_or(|total| total > limit) {
            return Err(RpcError::malformed(
                "StateHeader",
                format!("of {model_bytes} + {optimizer_bytes} bytes"),
                format!("at most {limit} bytes"),
            ));
        }
        Ok(Self {
            generation: Generation(generation),
            step: Step(step),
            purpose: purpose_in(purpose, "StateHeader.purpose")?,
            at: StateFile::Model,
            model_bytes,
            optimizer_bytes,
            hash: Sha256::new(),
            model: Vec::new(),
            optimizer: Vec::new(),
            counted: <[Digest; 2]>::default(),
        })
    }

    /// Adds a piece; whether it was the last.
    fn add(&mut self, file: i32, offset: u64, data: &[u8], sha256: &[u8]) -> Result<bool, RpcError> {
        if StateFile::try_from(file) != Ok(self.at) {
            return Err(RpcError::malformed("StateChunk.file", file.to_string(), format!("{:?}", self.at)));
        }
        let (bytes, announced) = match self.at {
            StateFile::Model => (&mut self.model, self.model_bytes),
            _ => (&mut self.optimizer, self.optimizer_bytes),
        };
        let have = bytes.len() as u64;
        if offset != have {
            return Err(RpcError::malformed("StateChunk.offset", offset.to_string(), have.to_string()));
        }
        let room = (announced - have).min(CHUNK as u64);
        if data.len() as u64 > room || (data.is_empty() && announced > 0) {
            let found = format!("{} bytes", data.len());
            return Err(RpcError::malformed("StateChunk.data", found, format!("1 to {room} bytes")));
        }
        bytes.extend_from_slice(data);
        self.hash.update(data);
        if (bytes.len() as u64) < announced {
            return if sha256.is_empty() {
                Ok(false)
            } else {
                Err(RpcError::malformed("StateChunk.sha256", "set before the file's end", "empty"))
            };
        }
        let said = digest(sha256, "StateChunk.sha256")?;
        let counted = Digest(self.hash.finalize_reset().into());
        if said != counted {
            return Err(RpcError::malformed("StateChunk.sha256", said.to_string(), counted.to_string()));
        }
        let last = self.at == StateFile::Optimizer;
        self.counted[usize::from(last)] = counted;
        self.at = StateFile::Optimizer;
        Ok(last)
    }

    fn complete(self) -> State {
        let Self { generation, step, purpose, model, optimizer, counted: [of_model, of_optimizer], .. } = self;
        let model = FileBytes::counted(model, of_model);
        State { generation, step, purpose, model, optimizer: FileBytes::counted(optimizer, of_optimizer) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces() -> Vec<StateChunk> {
        let state = State {
            generation: Generation(1),
            step: Step(2),
            purpose: Purpose::Final,
            model: vec![3; 2 * CHUNK + 5].into(),
            optimizer: vec![4; 7].into(),
        };
        Cutter::new(state).collect()
    }

    /// What the assembler says of the first piece it does not take.
    fn complaint(pieces: Vec<StateChunk>) -> String {
        let mut assembler = Assembler::new(STATE_LIMIT);
        let error = pieces.into_iter().find_map(|piece| assembler.accept(piece).err());
        error.expect("a malformed piece").to_string()
    }

    fn changed(index: usize, change: impl FnOnce(&mut StateChunk)) -> String {
        let mut pieces = pieces();
        change(&mut pieces[index]);
        complaint(pieces)
    }

    #[test]
    fn a_piece_is_at_most_64_kib_and_the_last_of_a_file_carries_its_digest() {
        let pieces = pieces();
        assert_eq!(pieces.iter().map(|piece| piece.data.len()).collect::<Vec<_>>(), [CHUNK, CHUNK, 5, 7]);
        assert_eq!(pieces.iter().map(|piece| piece.sha256.len()).collect::<Vec<_>>(), [0, 0, 32, 32]);
        assert_eq!(pieces[3].sha256, Digest::of(&[4; 7]).0);
    }

    #[test]
    fn states_follow_each_other() {
        let mut assembler = Assembler::new(STATE_LIMIT);
        let states: Vec<_> =
            [pieces(), pieces()].concat().into_iter().filter_map(|piece| assembler.accept(piece).unwrap()).collect();
        assert_eq!(states.len(), 2);
    }

    #[test]
    fn a_changed_byte_is_found() {
        assert!(changed(1, |piece| piece.data[77] ^= 1).contains("StateChunk.sha256"));
        assert!(changed(3, |piece| piece.data[0] ^= 1).contains("StateChunk.sha256"));
        assert!(changed(3, |piece| piece.sha256[0] ^= 1).contains("StateChunk.sha256"));
    }

    #[test]
    fn pieces_out_of_order_are_refused() {
        let mut swapped = pieces();
        swapped.swap(1, 2);
        assert!(complaint(swapped).contains("StateChunk.offset"));
        let mut missing = pieces();
        missing.remove(2);
        assert!(complaint(missing).contains("StateChunk.file"));
        assert!(complaint(pieces().split_off(1)).contains("StateChunk.header"));
        assert!(changed(0, |piece| piece.file = StateFile::Optimizer.into()).contains("StateChunk.file"));
        assert!(changed(0, |piece| piece.file = 0).contains("StateChunk.file"));
    }

    #[test]
    fn a_second_state_within_the_first_is_refused() {
        let mut two = pieces();
        two.insert(1, two[0].clone());
        assert!(complaint(two).contains("second state"));
    }

    #[test]
    fn lengths_that_contradict_the_announced_ones_are_refused() {
        let announce = |model, optimizer| {
            move |piece: &mut StateChunk| {
                let header = piece.header.as_mut().expect("the first piece announces");
                (header.model_bytes, header.optimizer_bytes) = (model, optimizer);
            }
        };
        assert!(changed(0, announce(10, 7)).contains("StateChunk.data"));
        // More announced than comes: the digest stands too early.
        assert!(changed(0, announce(2 * CHUNK as u64 + 6, 7)).contains("StateChunk.sha256"));
        assert!(changed(0, announce(u64::MAX, 7)).contains("at most 17179869184 bytes"));
        assert!(changed(0, announce(STATE_LIMIT, 1)).contains("at most 17179869184 bytes"));
        assert!(changed(1, |piece| piece.data.clear()).contains("StateChunk.data"));
        assert!(changed(0, |piece| piece.data.push(0)).contains("StateChunk.data"));
        assert!(changed(2, |piece| piece.sha256.clear()).contains("StateChunk.sha256"));
        assert!(changed(0, |piece| piece.header.as_mut().expect("announced").purpose = 9).contains("purpose"));
    }

    #[test]
    fn memory_is_not_taken_on_an_announcement() {
        let mut assembler = Assembler::new(STATE_LIMIT);
        let mut first = pieces().swap_remove(0);
        first.header.as_mut().expect("announced").model_bytes = STATE_LIMIT - 7;
        assert!(assembler.accept(first).unwrap().is_none());
        let transfer = assembler.transfer.expect("under way");
        assert!(transfer.model.capacity() <= 2 * CHUNK && transfer.optimizer.capacity() == 0);
    }
}
