//! Values side by side with their derivatives along a direction, their tangents.

/// Values and their tangents, of all images or of one.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// The values.
    pub values: &'a [f32],
    /// Their derivatives along the direction.
    pub along: &'a [f32],
}

/// A [`Pair`] to write to.
#[derive(Debug)]
pub struct PairMut<'a> {
    /// The values.
    pub values: &'a mut [f32],
    /// Their derivatives along the direction.
    pub along: &'a mut [f32],
}

impl Pair<'_> {
    pub(crate) fn at(self, from: usize, len: usize) -> Self {
        Pair { values: &self.values[from..][..len], along: &self.along[from..][..len] }
    }
}

impl PairMut<'_> {
    pub(crate) fn chunks(&mut self, size: usize) -> impl DoubleEndedIterator<Item = PairMut<'_>> + ExactSizeIterator {
        let pairs = self.values.chunks_mut(size).zip(self.along.chunks_mut(size));
        pairs.map(|(values, along)| PairMut { values, along })
    }

    pub(crate) fn shared(&self) -> Pair<'_> {
        Pair { values: self.values, along: self.along }
    }
}
