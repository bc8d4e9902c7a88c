//! Memory that operations are done with, for the next ones: fresh pages cost more than the sums that are written to them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Blocks of bytes that are kept: the terms of every other rank of a large world. More are freed.
const MOST_BYTES: usize = 64;
/// Blocks of floats that are kept: the results of operations under way at once. More are freed.
const MOST_FLOATS: usize = 4;

/// A store of memory, shared by all who hold a clone. What is in it never shows in a result.
#[derive(Debug, Clone, Default)]
pub struct Spares(Arc<Mutex<Blocks>>);

#[derive(Debug, Default)]
struct Blocks {
    bytes: Vec<Vec<u8>>,
    floats: Vec<Vec<f32>>,
}

impl Spares {
    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        // Every block is whole at every time, also where a thread panicked between two of them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At least `len` bytes with anything in them.
    pub fn take_bytes(&self, len: usize) -> Vec<u8> {
        let mut block = self.blocks().bytes.pop().unwrap_or_default();
        if block.len() < len {
            block.resize(len, 0);
        }
        block
    }

    /// Gives bytes back.
    pub fn give_bytes(&self, block: Vec<u8>) {
        let mut blocks = self.blocks();
        if blocks.bytes.len() < MOST_BYTES {
            blocks.bytes.push(block);
        }
    }

    /// `len` floats with anything in them: of the blocks that are kept, the smallest that is large enough.
    pub fn take_floats(&self, len: usize) -> Vec<f32> {
        let floats = &mut self.blocks().floats;
        let fits = |(_, block): &(usize, &Vec<f32>)| block.capacity() >= len;
        let found = floats.iter().enumerate().filter(fits).min_by_key(|(_, block)| block.capacity());
        let mut block = found.map(|(at, _)| at).map_or_else(Vec::new, |at| floats.swap_remove(at));
        block.resize(len, 0.0);
        block
    }

    /// Gives floats back.
    pub fn give_floats(&self, block: Vec<f32>) {
        let mut blocks = self.blocks();
        if blocks.floats.len() < MOST_FLOATS && block.capacity() > 0 {
            blocks.floats.push(block);
        }
    }
}

/// Machines that differ only in the memory at hand are equal.
impl PartialEq for Spares {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_block_that_is_large_enough_is_taken_and_no_more_are_kept_than_allowed() {
        let spares = Spares::default();
        for len in [100, 10, 50] {
            spares.give_floats(vec![1.0; len]);
        }
        let taken = spares.clone().take_floats(40);
        assert_eq!((taken.len(), taken.capacity()), (40, 50));
        assert_eq!(spares.take_floats(60).capacity(), 100);
        assert_eq!(spares.take_floats(60), vec![0.0; 60], "none was large enough");
        for _ in 0..2 * MOST_BYTES {
            spares.give_bytes(vec![7; 3]);
            spares.give_floats(vec![7.0; 3]);
        }
        let blocks = spares.blocks();
        assert_eq!((blocks.bytes.len(), blocks.floats.len()), (MOST_BYTES, MOST_FLOATS));
        drop(blocks);
        assert_eq!(spares.take_bytes(5), [7, 7, 7, 0, 0]);
    }
}
