//! Sums over emulated devices of several processes of one machine, by files that they leave for each other.
//!
//! ```text
//! <temporary folder>/strath-emulated-<id>/<round>-<rank>    what a rank brings to a round: its terms; nothing to the first and the last
//! ```
//!
//! A rank that finds everyone's has its sum, and takes its own of the round before away: whoever brings something to a round is through with the one before.

#![allow(unsafe_code, reason = "addresses of the host that stand for a device's")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, fs, io};

use strath_cuda::GpuError;
use strath_cuda::nccl::{Handle, Library, Progress, Term, UniqueId};

use crate::streams::Streams;

/// What stands for NCCL, on a stream.
pub struct Files {
    streams: Arc<Streams>,
    stream: usize,
    communicators: Mutex<BTreeMap<u64, Communicator>>,
}

#[derive(Debug)]
struct Communicator {
    folder: PathBuf,
    rank: u32,
    world: u32,
    round: u64,
    /// Where the sum of the round goes, while it is under way.
    to: Option<(Term, u64, usize)>,
    is_underway: bool,
}

fn failed(error: &io::Error) -> GpuError {
    GpuError::failed("sum over emulated devices", error)
}

/// The values at an address, as bytes.
///
/// # Safety
/// So many bytes lie there, and nobody else uses them meanwhile.
unsafe fn bytes<'a>(at: u64, len: usize) -> &'a mut [u8] {
    // SAFETY: as this function's.
    unsafe { std::slice::from_raw_parts_mut(at as *mut u8, len) }
}

fn width(term: Term) -> usize {
    match term {
        Term::I64 => 8,
        Term::F32 => 4,
    }
}

/// Adds a rank's terms to those of the ranks before it.
fn add(term: Term, sum: &mut [u8], terms: &[u8]) {
    match term {
        Term::I64 => sum.as_chunks_mut().0.iter_mut().zip(terms.as_chunks().0).for_each(|(sum, term)| {
            *sum = i64::from_le_bytes(*sum).wrapping_add(i64::from_le_bytes(*term)).to_le_bytes();
        }),
        Term::F32 => sum.as_chunks_mut().0.iter_mut().zip(terms.as_chunks().0).for_each(|(sum, term)| {
            *sum = (f32::from_le_bytes(*sum) + f32::from_le_bytes(*term)).to_le_bytes();
        }),
    }
}

impl Communicator {
    fn file(&self, round: u64, rank: u32) -> PathBuf {
        self.folder.join(format!("{round}-{rank}"))
    }

    /// Brings something to the next round: whole, or not there.
    fn bring(&mut self, terms: &[u8]) -> io::Result<()> {
        self.round += 1;
        let (written, file) = (self.folder.join(format!("written-{}", self.rank)), self.file(self.round, self.rank));
        fs::write(&written, terms)?;
        fs::rename(written, file)?;
        self.is_underway = true;
        Ok(())
    }

    fn go_on(&mut self) -> io::Result<Progress> {
        if !self.is_underway {
            return Ok(Progress::Ready);
        }
        let files = (0..self.world).map(|rank| self.file(self.round, rank));
        let brought: Vec<Vec<u8>> = match files.map(fs::read).collect() {
            Ok(brought) => brought,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Progress::Underway),
            Err(error) => return Err(error),
        };
        if let Some((term, at, len)) = self.to.take() {
            // SAFETY: so many values were to be summed in place, and whoever asked waits.
            let sum = unsafe { bytes(at, len * width(term)) };
            sum.fill(0);
            for terms in &brought {
                add(term, sum, terms);
            }
        }
        // Nothing was brought to a round before the first.
        let _ = fs::remove_file(self.file(self.round - 1, self.rank));
        self.is_underway = false;
        Ok(Progress::Ready)
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Files(stream {})", self.stream)
    }
}

impl Files {
    /// Sums that come after what was asked of a stream.
    pub fn new(streams: Arc<Streams>, stream: usize) -> Self {
        Self { streams, stream, communicators: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Communicator>> {
        self.communicators.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, of: Handle, act: impl FnOnce(&mut Communicator) -> io::Result<T>) -> Result<T, GpuError> {
        let mut communicators = self.lock();
        let communicator = communicators.get_mut(&of.0).expect("a handle is not used after its communicator's end");
        act(communicator).map_err(|error| failed(&error))
    }
}

impl Library for Files {
    fn unique_id(&self) -> Result<UniqueId, GpuError> {
        static NAMED: AtomicU64 = AtomicU64::new(0);
        let number = NAMED.fetch_add(1, Ordering::Relaxed);
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let name = format!("strath-emulated-{}-{number}-{}", std::process::id(), since.as_nanos());
        let mut id = [0; UniqueId::BYTES];
        id[..name.len()].copy_from_slice(name.as_bytes());
        Ok(UniqueId(id))
    }

    fn begin(&self, id: &UniqueId, rank: u32, world: u32) -> Result<Handle, GpuError> {
        static MADE: AtomicU64 = AtomicU64::new(1);
        let name = String::from_utf8_lossy(&id.0);
        let folder = std::env::temp_dir().join(name.trim_end_matches('\0'));
        fs::create_dir_all(&folder).map_err(|error| failed(&error))?;
        let mut communicator = Communicator { folder, rank, world, round: 0, to: None, is_underway: false };
        communicator.bring(&[]).map_err(|error| failed(&error))?;
        let handle = Handle(MADE.fetch_add(1, Ordering::Relaxed));
        self.lock().insert(handle.0, communicator);
        Ok(handle)
    }

    unsafe fn progress(&self, of: Handle) -> Result<Progress, GpuError> {
        self.with(of, Communicator::go_on)
    }

    unsafe fn all_reduce(&self, of: Handle, term: Term, at: u64, len: usize) -> Result<(), GpuError> {
        self.streams.finish(self.stream)?;
        self.with(of, |communicator| {
            communicator.to = Some((term, at, len));
            // SAFETY: as the trait's.
            communicator.bring(unsafe { bytes(at, len * width(term)) })
        })
    }

    fn is_through(&self) -> Result<bool, GpuError> {
        Ok(self.lock().values().all(|communicator| !communicator.is_underway))
    }

    unsafe fn finalize(&self, of: Handle) -> Result<(), GpuError> {
        self.with(of, |communicator| communicator.bring(&[]))
    }

    unsafe fn destroy(&self, of: Handle) -> Result<(), GpuError> {
        let Some(communicator) = self.lock().remove(&of.0) else { return Ok(()) };
        let Communicator { folder, rank, world, .. } = communicator;
        let left = |rank| folder.join(format!("left-{rank}"));
        fs::write(left(rank), []).map_err(|error| failed(&error))?;
        if (0..world).all(|rank| left(rank).exists()) {
            // Two that are the last together may both try.
            let _ = fs::remove_dir_all(&folder);
        }
        Ok(())
    }

    unsafe fn abort(&self, of: Handle) -> Result<(), GpuError> {
        if let Some(Communicator { folder, .. }) = self.lock().remove(&of.0) {
            // Another rank that has aborted may have been first.
            let _ = fs::remove_dir_all(folder);
        }
        Ok(())
    }
}
