//! What memory a thread has in use: the allocator of whoever links this crate counts it.

#![allow(unsafe_code, reason = "an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that this thread has in use, less those that it has freed for others, and their peak since it was last reset.
    static USED: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

/// The system's allocator, and a count.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: isize) {
    // A thread that is about to end has no count any more.
    let _ = USED.try_with(|used| {
        let (now, peak) = used.get();
        used.set((now + bytes, peak.max(now + bytes)));
    });
}

// SAFETY: every call is the system allocator's own, with the arguments of the caller, who promises what they need; counting touches a value of
// the thread that needs neither memory nor a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may be in use at once while what is in the one is copied to the other.
        count(size as isize);
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// The most memory that `work` had in use at once, beyond what was in use before.
pub(crate) fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = USED.with(|used| {
        let (now, _) = used.get();
        used.set((now, now));
        now
    });
    let done = work();
    let peak = USED.with(|used| used.get().1);
    (done, usize::try_from(peak - before).unwrap_or(0))
}

/// What a reader may take of memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bound {
    /// Times the bytes that it reads.
    pub(crate) times: usize,
    /// Bytes beside that.
    pub(crate) beside: usize,
}

/// Of most readers: a value has some words a byte of text or of the wire, vectors are up to twice as long as they need be while they grow, and
/// a limit on elements that are small on the wire may take as much as a MiB.
pub(crate) const USUAL: Bound = Bound { times: 64, beside: 1 << 20 };

/// Does the `work` on so many bytes.
///
/// # Panics
/// Where it takes more memory than `bound`.
pub(crate) fn within<T>(bound: Bound, bytes: &[u8], work: impl FnOnce() -> T) -> T {
    let (done, peak) = peak_of(work);
    let most = bytes.len() * bound.times + bound.beside;
    assert!(peak <= most, "{} bytes took {peak} bytes of memory, at most {most} are allowed", bytes.len());
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_counted_and_what_is_given_back_is_not() {
        let (_, peak) = peak_of(|| {
            drop(vec![1_u8; 100_000]);
            vec![1_u8; 50_000]
        });
        assert!((100_000..101_000).contains(&peak), "{peak}");
        let mut grown = Vec::with_capacity(1000);
        grown.resize(1000, 1_u8);
        let ((), peak) = peak_of(|| grown.reserve_exact(2000));
        assert!((3000..4000).contains(&peak), "the old and the new at once: {peak}");
    }

    #[test]
    #[should_panic(expected = "are allowed")]
    fn more_than_the_bound_is_a_panic() {
        within(Bound { times: 64, beside: 1000 }, &[0; 10], || vec![0_u8; 1641].len());
    }

    #[test]
    fn what_other_threads_take_is_theirs() {
        let (_, peak) = peak_of(|| std::thread::spawn(|| vec![1_u8; 1 << 24].len()).join().unwrap());
        assert!(peak < 1 << 20, "{peak}");
    }
}
