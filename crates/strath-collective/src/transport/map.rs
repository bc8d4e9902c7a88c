//! Memory that two processes of one host have mapped: all that is `unsafe` about it.
//!
//! ```text
//!  file of a rank   │ nonce │ pipe 0: control, data │ pipe 1: control, data │ ...        one pipe for each rank of the host
//!  a pipe, mapped   │ control │ data │ the same data once more │
//! ```
//!
//! As the data is mapped twice in a row, whatever begins in it is in one piece, also where it goes over the end. The file has no
//! name: its rank says its number and its descriptor's, and a peer opens `/proc/PID/fd/FD`, which the kernel grants to processes of
//! the same user that see each other. It is sealed before that, so nobody can take a page away under another's hands.

#![allow(unsafe_code, reason = "shared memory")]

use std::ffi::c_void;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::rand::GetRandomFlags;

/// Bytes of data of a pipe: more than the largest frame, and most often several.
const DATA_BYTES: usize = 1024 * 1024;
/// The same among more than two ranks: few enough that what goes round in the twelve pipes of four ranks stays in the caches. With twice
/// as much, sums of 1 to 16 MiB took 1.3 times as long; of two ranks each would wait for the other more often.
const DATA_BYTES_OF_MANY: usize = 576 * 1024;
/// Bytes before the data of a pipe and before the first pipe: a multiple of any page.
const CONTROL_BYTES: usize = 64 * 1024;
/// Bytes of a small frame that are fetched from the other core's cache at once, not line by line as they are reached.
const FETCHED_BYTES: usize = 1216;
const LINE_BYTES: usize = 64;
const NAME: &str = "strath";

/// Bytes of data of each of so many pipes, one for each rank of the host.
const fn data_bytes(pipes: usize) -> usize {
    if pipes > 2 { DATA_BYTES_OF_MANY } else { DATA_BYTES }
}

/// Bytes of a file of so many pipes.
const fn file_bytes(pipes: usize) -> u64 {
    (CONTROL_BYTES + pipes * (CONTROL_BYTES + data_bytes(pipes))) as u64
}

/// A value with two cache lines of its own: a processor that fetches pairs of lines does not take it for its neighbour.
#[repr(C, align(128))]
pub(super) struct Line<T>(pub(super) T);

/// What the two ends of a pipe tell each other. All zero at first.
#[repr(C)]
pub(super) struct Control {
    /// Bytes written so far. By the writer only.
    pub(super) tail: Line<AtomicU64>,
    /// Bytes read so far. By the reader only.
    pub(super) head: Line<AtomicU64>,
    /// 1: the reader sleeps, or is about to, and wants a byte on its connection when this pipe was written or the other one read.
    pub(super) asleep: Line<AtomicU32>,
}

/// A file of pipes, open.
#[derive(Debug)]
pub(super) struct PipeFile {
    file: OwnedFd,
    /// Bytes of data of each pipe.
    data: usize,
    /// What tells it from any other file.
    pub(super) nonce: u128,
}

impl PipeFile {
    /// A new file of so many pipes, whose memory is there.
    pub(super) fn create(pipes: usize) -> io::Result<Self> {
        let file = rustix::fs::memfd_create(NAME, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let bytes = file_bytes(pipes);
        rustix::fs::ftruncate(&file, bytes)?;
        // A host without the memory says so here, and not with a signal later.
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let mut nonce = [0; 16];
        rustix::rand::getrandom(&mut nonce, GetRandomFlags::empty())?;
        rustix::io::pwrite(&file, &nonce, 0)?;
        Ok(Self { file, data: data_bytes(pipes), nonce: u128::from_le_bytes(nonce) })
    }

    /// The number of its descriptor in this process.
    pub(super) fn descriptor(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Opens the file of another process, which sees this one and says that it has `pipes` pipes and this nonce.
    pub(super) fn open(pid: u32, descriptor: u32, nonce: u128, pipes: usize) -> io::Result<Self> {
        let path = format!("/proc/{pid}/fd/{descriptor}");
        let wrong = |what: &str| io::Error::new(ErrorKind::InvalidData, format!("{path} is {what}"));
        // Looked at before it is opened: to open a device or a pipe can do things.
        if !std::fs::read_link(&path)?.to_string_lossy().starts_with(&format!("/memfd:{NAME}")) {
            return Err(wrong("no memory of a rank"));
        }
        let file = rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())?;
        if !rustix::fs::fcntl_get_seals(&file)?.contains(SealFlags::SHRINK) {
            return Err(wrong("not sealed"));
        }
        if rustix::fs::fstat(&file)?.st_size as u64 != file_bytes(pipes) {
            return Err(wrong("of another size"));
        }
        let mut found = [0; 16];
        if rustix::io::pread(&file, &mut found, 0)? != found.len() || u128::from_le_bytes(found) != nonce {
            return Err(wrong("of another rank"));
        }
        Ok(Self { file, data: data_bytes(pipes), nonce })
    }

    /// Maps a pipe of the file.
    pub(super) fn map(&self, pipe: usize) -> io::Result<Pages> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let size = self.data;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let base = unsafe { rustix::mm::mmap_anonymous(null_mut(), Pages::mapped(size), ProtFlags::empty(), flags)? };
        let pages = Pages { base: NonNull::new(base.cast()).ok_or(ErrorKind::OutOfMemory)?, size };
        let start = CONTROL_BYTES + pipe * (CONTROL_BYTES + size);
        let data = start + CONTROL_BYTES;
        let copies = [(0, CONTROL_BYTES, start), (CONTROL_BYTES, size, data), (CONTROL_BYTES + size, size, data)];
        for (at, bytes, offset) in copies {
            pages.replace(at, bytes, &self.file, offset as u64)?;
        }
        Ok(pages)
    }
}

/// A pipe's control and data in this process's memory.
#[derive(Debug)]
pub(super) struct Pages {
    base: NonNull<u8>,
    /// Bytes of the data.
    size: usize,
}

// SAFETY: the mapping belongs to this value alone, and no thread has a part in it but through this value.
unsafe impl Send for Pages {}

impl Pages {
    /// Bytes of a mapping with so many of data.
    const fn mapped(size: usize) -> usize {
        CONTROL_BYTES + 2 * size
    }

    /// Bytes of the data.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Maps part of the file in place of part of this mapping.
    fn replace(&self, at: usize, bytes: usize, file: impl AsFd, offset: u64) -> io::Result<()> {
        assert!(at + bytes <= Self::mapped(self.size), "{bytes} bytes at {at}");
        let flags = MapFlags::SHARED | MapFlags::FIXED | MapFlags::POPULATE;
        // SAFETY: the range lies in this mapping, of which nobody has a reference yet.
        unsafe {
            let place = self.base.as_ptr().add(at).cast::<c_void>();
            rustix::mm::mmap(place, bytes, ProtFlags::READ | ProtFlags::WRITE, flags, file, offset)?;
        }
        Ok(())
    }

    /// What the ends tell each other.
    pub(super) fn control(&self) -> &Control {
        // SAFETY: the first CONTROL_BYTES of the mapping are more than a `Control`, aligned to a page, zero or what its atomics were
        // set to, and touched by both processes through these atomics only.
        unsafe { self.base.cast().as_ref() }
    }

    /// So many bytes from position `at` of the stream on.
    ///
    /// # Safety
    /// The writer has published them, and the reader has not said that it is done with them: nobody writes them meanwhile. (A
    /// peer that does so all the same runs this program as this user and knows the ticket; what it could do to these bytes it
    /// could do to this process.)
    ///
    /// # Panics
    /// Where they are more than the pipe holds.
    pub(super) unsafe fn slice(&self, at: u64, bytes: usize) -> &[u8] {
        assert!(bytes <= self.size, "{bytes} bytes");
        // SAFETY: position and length stay within the two copies; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.data(at), bytes) }
    }

    /// The same, to be written.
    ///
    /// # Safety
    /// The reader is done with what was there, and they are not published: nobody else reads or writes them meanwhile.
    ///
    /// # Panics
    /// Where they are more than the pipe holds.
    pub(super) unsafe fn slice_mut(&mut self, at: u64, bytes: usize) -> &mut [u8] {
        assert!(bytes <= self.size, "{bytes} bytes");
        // SAFETY: position and length stay within the two copies, and no byte is in both parts of one slice as it is no longer than
        // the data; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data(at), bytes) }
    }

    /// Has the processor fetch so many bytes from position `at` on, at most [`FETCHED_BYTES`]: to be written, or to be read.
    pub(super) fn fetch(&self, at: u64, bytes: usize, to_write: bool) {
        #[cfg(target_arch = "x86_64")]
        for offset in (0..bytes.min(FETCHED_BYTES)).step_by(LINE_BYTES) {
            use std::arch::x86_64::{_MM_HINT_ET0, _MM_HINT_T0, _mm_prefetch};
            // SAFETY: a hint touches nothing, whatever the address.
            unsafe {
                let line = self.data(at).add(offset).cast::<i8>();
                if to_write { _mm_prefetch::<_MM_HINT_ET0>(line) } else { _mm_prefetch::<_MM_HINT_T0>(line) }
            }
        }
    }

    fn data(&self, at: u64) -> *mut u8 {
        // SAFETY: within the first copy.
        unsafe { self.base.as_ptr().add(CONTROL_BYTES + (at % self.size as u64) as usize) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, to which no reference is left. That a range that was mapped can be unmapped is certain.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), Self::mapped(self.size)) };
    }
}
