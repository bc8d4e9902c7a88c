//! The bytes of an execution, taken from the front.

/// Bytes that are left. What is taken beyond them is zero, or shorter than asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// So many bytes, or as many as there are.
    pub(crate) fn take(&mut self, bytes: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(bytes.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    pub(crate) fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.array())
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A piece whose length stands before it, in four bytes.
    pub(crate) fn piece(&mut self) -> &'a [u8] {
        let length = self.u32();
        self.take(length as usize)
    }

    /// All such pieces.
    pub(crate) fn pieces(mut self) -> impl Iterator<Item = &'a [u8]> {
        std::iter::from_fn(move || (!self.is_empty()).then(|| self.piece()))
    }
}

/// Pieces as [`Input::pieces`] takes them apart.
pub(crate) fn pieces<P: AsRef<[u8]>>(pieces: impl IntoIterator<Item = P>) -> Vec<u8> {
    let prefixed = |piece: P| [&(piece.as_ref().len() as u32).to_le_bytes()[..], piece.as_ref()].concat();
    pieces.into_iter().flat_map(prefixed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_apart_as_they_were_put_together_and_a_torn_one_is_shorter() {
        let bytes = pieces([&b"one"[..], b"", b"three"]);
        assert_eq!(Input::new(&bytes).pieces().collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
        let torn = &bytes[..bytes.len() - 3];
        assert_eq!(Input::new(torn).pieces().last(), Some(&b"th"[..]));
        assert_eq!((Input::new(&[7]).u16(), Input::new(&[]).u64()), (7, 0));
    }
}
