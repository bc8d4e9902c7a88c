//! The examples of a split by name, which may be some of those of another.

use crate::dataset::Split;

/// Examples in the order of the file, without a copy of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Examples<'a> {
    split: &'a Split,
    /// Which of them; without, all.
    places: Option<&'a [u32]>,
}

impl<'a> Examples<'a> {
    /// All of a split.
    pub(crate) fn all(split: &'a Split) -> Self {
        Self { split, places: None }
    }

    /// Those of a split that stand at `places`.
    pub(crate) fn of(split: &'a Split, places: &'a [u32]) -> Self {
        Self { split, places: Some(places) }
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.places.map_or(self.split.len(), <[u32]>::len)
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The class of an example.
    ///
    /// # Panics
    /// Where there is no such example.
    pub fn label(&self, example: usize) -> u32 {
        self.split.label(self.place(example))
    }

    /// Writes the normalised image of an example, [C, H, W], to `out`.
    ///
    /// # Panics
    /// Where there is no such example, or `out` has another length than an image.
    pub fn image(&self, example: usize, out: &mut [f32]) {
        self.split.image(self.place(example), out);
    }

    fn place(&self, example: usize) -> usize {
        self.places.map_or(example, |places| places[example] as usize)
    }
}
