//! Where each named tensor lies in one flat vector.

use std::collections::BTreeMap;
use std::ops::Range;

/// The named tensors of a model side by side in one flat vector, in ascending order of name.
///
/// Everything that walks parameters walks them in this order, so that no hash map's order can reach a float or the wire.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    entries: Vec<Entry>,
    len: usize,
}

/// One tensor of a [`Layout`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, as in a checkpoint.
    pub name: String,
    /// Its shape, row-major.
    pub shape: Vec<usize>,
    /// Index of its first value in the flat vector.
    pub offset: usize,
    /// Number of its values.
    pub len: usize,
}

impl Entry {
    /// Its place in the flat vector.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len
    }
}

impl Layout {
    /// Lays out tensors given by name and shape, in any order.
    ///
    /// # Errors
    /// [`DuplicateName`] where two tensors share a name.
    pub fn new(tensors: impl IntoIterator<Item = (String, Vec<usize>)>) -> Result<Self, DuplicateName> {
        let mut sorted = BTreeMap::new();
        for (name, shape) in tensors {
            if sorted.insert(name.clone(), shape).is_some() {
                return Err(DuplicateName(name));
            }
        }
        let mut layout = Self::default();
        for (name, shape) in sorted {
            let len = shape.iter().product();
            layout.entries.push(Entry { name, shape, offset: layout.len, len });
            layout.len += len;
        }
        Ok(layout)
    }

    /// The tensors, in ascending order of name and of offset.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Number of values in the flat vector.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.position(name).map(|at| &self.entries[at])
    }

    /// The index among [`entries`](Self::entries) of the tensor called `name`.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.entries.binary_search_by(|e| e.name.as_str().cmp(name)).ok()
    }

    /// The index of the tensor that holds value `at` of the flat vector.
    ///
    /// # Panics
    /// Where `at` is not below [`len`](Self::len).
    pub fn tensor_at(&self, at: usize) -> usize {
        assert!(at < self.len, "value {at} of a vector of {}", self.len);
        self.entries.partition_point(|e| e.offset + e.len <= at)
    }
}

/// Two tensors of one layout have this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("two tensors are called {0:?}")]
pub struct DuplicateName(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_lie_in_order_of_name() {
        let layout =
            Layout::new([("b".into(), vec![2, 3]), ("a.weight".into(), vec![4]), ("a".into(), vec![])]).unwrap();
        let places: Vec<_> = layout.entries().iter().map(|e| (e.name.as_str(), e.range())).collect();
        assert_eq!(places, [("a", 0..1), ("a.weight", 1..5), ("b", 5..11)]);
        assert_eq!(layout.len(), 11);
        assert_eq!([0, 1, 4, 5, 10].map(|at| layout.tensor_at(at)), [0, 1, 1, 2, 2]);
        assert_eq!(layout.get("b").map(|e| e.offset), Some(5));
        assert_eq!(layout.get("c"), None);
    }

    #[test]
    fn a_name_that_comes_twice_is_refused() {
        let twice = Layout::new([("a".into(), vec![1]), ("a".into(), vec![2])]);
        assert_eq!(twice, Err(DuplicateName("a".into())));
    }
}
