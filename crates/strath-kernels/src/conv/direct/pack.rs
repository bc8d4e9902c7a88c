//! Weights as the kernels read them, vector after vector.

/// Where a weight lies in [O, C, kh, kw], for taps counted as a product counts them: `base + o out + c input + a row + b column`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    /// The weight of the first output, channel and tap.
    pub base: isize,
    /// From an output's weights to the next one's.
    pub output: isize,
    /// From a channel's to the next one's.
    pub channel: isize,
    /// From a row of taps to the next.
    pub row: isize,
    /// From a tap to the next of its row.
    pub column: isize,
}

/// Sizes of packed weights.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packing {
    /// Outputs.
    pub outputs: usize,
    /// Channels summed over.
    pub channels: usize,
    /// Rows and columns of taps.
    pub taps: (usize, usize),
    /// Floats in a vector.
    pub lanes: usize,
}

/// One or two vectors of outputs that a block computes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vectors {
    /// The first output.
    pub first: usize,
    /// Number of vectors.
    pub count: usize,
    /// Outputs in the last of them.
    pub tail: usize,
    /// Where its packed weights begin.
    pub start: usize,
}

impl Packing {
    /// The outputs in pairs of vectors, the last alone where they are odd.
    pub(super) fn vectors(&self) -> impl Iterator<Item = Vectors> + use<> {
        let Self { outputs, channels, taps, lanes } = *self;
        (0..outputs).step_by(2 * lanes).map(move |first| {
            let left = outputs - first;
            let count = left.div_ceil(lanes).min(2);
            let tail = (left - (count - 1) * lanes).min(lanes);
            Vectors { first, count, tail, start: first * channels * taps.0 * taps.1 }
        })
    }

    /// Floats of the packed weights.
    pub(super) fn floats(&self) -> usize {
        self.outputs.next_multiple_of(self.lanes) * self.channels * self.taps.0 * self.taps.1
    }

    /// Packs as [pairs of vectors, row, channel, column, outputs of the pair], zeros in the lanes past the last output.
    pub(super) fn pack(&self, source: &Source, weight: &[f32], packed: &mut [f32]) {
        for vectors in self.vectors() {
            let width = vectors.count * self.lanes;
            let outputs = width - self.lanes + vectors.tail;
            let mut groups = packed[vectors.start..].chunks_exact_mut(width);
            for a in 0..self.taps.0 {
                for c in 0..self.channels {
                    for b in 0..self.taps.1 {
                        let first = source.base
                            + vectors.first as isize * source.output
                            + c as isize * source.channel
                            + a as isize * source.row
                            + b as isize * source.column;
                        let group = groups.next().expect("as many groups as (row, channel, column) triples");
                        let (filled, empty) = group.split_at_mut(outputs);
                        for (o, value) in filled.iter_mut().enumerate() {
                            *value = weight[(first + o as isize * source.output) as usize];
                        }
                        empty.fill(0.0);
                    }
                }
            }
        }
    }
}
