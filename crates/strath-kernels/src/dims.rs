//! The shape of an activation.

/// Images by rows, columns and channels, channels innermost; a matrix [n, width] is n images of one pixel, tokens [N, T, width]
/// are images of T rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dims {
    /// N.
    pub images: usize,
    /// H.
    pub height: usize,
    /// W.
    pub width: usize,
    /// C.
    pub channels: usize,
}

impl Dims {
    /// Those of a matrix.
    pub fn matrix(rows: usize, channels: usize) -> Self {
        Self { images: rows, height: 1, width: 1, channels }
    }

    /// Pixels of all images.
    pub fn rows(self) -> usize {
        self.images * self.height * self.width
    }

    /// Values.
    pub fn values(self) -> usize {
        self.rows() * self.channels
    }
}
