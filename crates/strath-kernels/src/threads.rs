//! Compute threads: how many, and how pieces of work are shared out among them.

use std::sync::{Arc, PoisonError, RwLock};

use rayon::ThreadPool;
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;

static POOL: RwLock<Option<Arc<ThreadPool>>> = RwLock::new(None);

/// Sets the number of compute threads of this process; 1, as at the start, computes on the caller's thread. Where the system
/// grants no more threads, the caller's serves too: the bits are the same.
pub fn set(threads: usize) {
    let pool = (threads > 1)
        .then(|| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|k| format!("compute-{k}")).build().ok()
        })
        .flatten();
    *POOL.write().unwrap_or_else(PoisonError::into_inner) = pool.map(Arc::new);
}

/// The compute threads, where there are several.
pub(crate) fn pool() -> Option<Arc<ThreadPool>> {
    POOL.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Computes something on the compute threads as a whole: what it shares out among them need not be handed to them each time.
pub fn within<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    match pool() {
        Some(pool) => pool.install(work),
        None => work(),
    }
}

/// Calls `work(k, chunk)` for the k-th chunk of `size` values of `out`, on the compute threads.
///
/// `size` is the caller's constant or follows from shapes, never from the number of threads.
pub(crate) fn for_chunks<T: Send>(out: &mut [T], size: usize, work: impl Fn(usize, &mut [T]) + Send + Sync) {
    let size = size.max(1);
    match pool() {
        Some(pool) if out.len() > size => {
            pool.install(|| out.par_chunks_mut(size).enumerate().for_each(|(k, chunk)| work(k, chunk)));
        }
        _ => out.chunks_mut(size).enumerate().for_each(|(k, chunk)| work(k, chunk)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;

    use super::*;

    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    /// Computes with 1, 2 and 3 threads and asserts that the bits are the same.
    pub(crate) fn same_bits(compute: impl Fn() -> Vec<f32>) -> Vec<f32> {
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        set(1);
        let alone = compute();
        for threads in [2, 3] {
            set(threads);
            let shared = compute();
            assert!(
                alone.iter().zip(&shared).all(|(a, b)| a.to_bits() == b.to_bits()),
                "{threads} threads differ from one"
            );
        }
        set(1);
        alone
    }

    #[test]
    fn every_chunk_is_worked_on_once() {
        same_bits(|| {
            let mut out = vec![0.0; 103];
            for_chunks(&mut out, 10, |k, chunk| chunk.iter_mut().for_each(|v| *v += 1.0 + k as f32));
            assert!(out.iter().enumerate().all(|(at, v)| *v == 1.0 + (at / 10) as f32));
            out
        });
    }
}
