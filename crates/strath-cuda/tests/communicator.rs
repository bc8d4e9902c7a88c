//! What a communicator does when its library is slow, fails or hangs; and sums over several, with one that stands for NCCL.

#![allow(
    clippy::unwrap_used,
    unsafe_code,
    reason = "a test that cannot set itself up has failed; a library's interface"
)]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use strath_core::config::Compute;
use strath_cuda::nccl::{Communicator, Handle, Library, NcclError, Progress, Term, UniqueId};
use strath_cuda::{Gpu, GpuError};
use strath_emulator::Emulator;

const SOON: Duration = Duration::from_millis(200);
const ID: UniqueId = UniqueId([7; UniqueId::BYTES]);

/// A library that answers as it was told, the last answer from then on, and remembers what it was asked beside how far it has come.
#[derive(Debug)]
struct Scripted {
    answers: Mutex<VecDeque<Result<Progress, GpuError>>>,
    abort_takes: Duration,
    device_hangs: bool,
    asked: Mutex<Vec<&'static str>>,
}

impl Scripted {
    fn new(answers: &[Result<Progress, GpuError>]) -> Arc<Self> {
        let answers = Mutex::new(answers.iter().cloned().collect());
        Arc::new(Self { answers, abort_takes: Duration::ZERO, device_hangs: false, asked: Mutex::default() })
    }

    fn note(&self, what: &'static str) {
        self.asked.lock().unwrap().push(what);
    }

    fn asked(&self) -> Vec<&'static str> {
        self.asked.lock().unwrap().clone()
    }

    fn then(&self, answers: &[Result<Progress, GpuError>]) {
        *self.answers.lock().unwrap() = answers.iter().cloned().collect();
    }
}

impl Library for Scripted {
    fn unique_id(&self) -> Result<UniqueId, GpuError> {
        Ok(ID)
    }

    fn begin(&self, id: &UniqueId, _: u32, _: u32) -> Result<Handle, GpuError> {
        assert_eq!(*id, ID);
        self.note("begin");
        Ok(Handle(3))
    }

    unsafe fn progress(&self, of: Handle) -> Result<Progress, GpuError> {
        assert_eq!(of, Handle(3));
        let mut answers = self.answers.lock().unwrap();
        if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() }
    }

    unsafe fn all_reduce(&self, _: Handle, _: Term, _: u64, _: usize) -> Result<(), GpuError> {
        self.note("all_reduce");
        Ok(())
    }

    fn is_through(&self) -> Result<bool, GpuError> {
        Ok(!self.device_hangs)
    }

    unsafe fn finalize(&self, _: Handle) -> Result<(), GpuError> {
        self.note("finalize");
        Ok(())
    }

    unsafe fn destroy(&self, _: Handle) -> Result<(), GpuError> {
        self.note("destroy");
        Ok(())
    }

    unsafe fn abort(&self, _: Handle) -> Result<(), GpuError> {
        self.note("abort");
        std::thread::sleep(self.abort_takes);
        Ok(())
    }
}

const READY: Result<Progress, GpuError> = Ok(Progress::Ready);
const UNDERWAY: Result<Progress, GpuError> = Ok(Progress::Underway);

fn gpu() -> Option<Gpu> {
    Emulator::or_skip(Compute::F32).map(Gpu::new)
}

fn connect(gpu: &Gpu, library: &Arc<Scripted>) -> Result<Communicator, NcclError> {
    Communicator::connect(gpu, library.clone(), &ID, (0, 2), SOON, || true)
}

#[test]
fn ranks_that_come_one_after_the_other_are_waited_for_and_end_in_order() {
    let Some(gpu) = gpu() else { return };
    let library = Scripted::new(&[UNDERWAY, UNDERWAY, READY]);
    let mut connected = connect(&gpu, &library).unwrap();
    library.then(&[UNDERWAY, READY]);
    connected.sum_integers(&mut gpu.zeros(4).unwrap(), SOON, || true).unwrap();
    library.then(&[UNDERWAY, READY]);
    drop(connected);
    assert_eq!(library.asked(), ["begin", "all_reduce", "finalize", "destroy"]);
}

#[test]
fn a_rank_that_does_not_come_is_waited_for_until_the_deadline_and_nothing_is_asked_afterwards() {
    let Some(gpu) = gpu() else { return };
    let library = Scripted::new(&[UNDERWAY]);
    let begun = Instant::now();
    let late = connect(&gpu, &library).unwrap_err();
    assert!(matches!(late, NcclError::Late { hangs: false, .. }), "{late}");
    assert!((SOON..SOON * 5).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(library.asked(), ["begin", "abort"]);

    let library = Scripted::new(&[READY]);
    let mut connected = connect(&gpu, &library).unwrap();
    library.then(&[UNDERWAY]);
    let mut sum = gpu.zeros(4).unwrap();
    let late = connected.sum_integers(&mut sum, SOON, || true).unwrap_err();
    assert!(late.to_string().contains("could not sum over the ranks within"), "{late}");
    let again = connected.sum_integers(&mut sum, SOON, || true).unwrap_err();
    assert!(matches!(again, NcclError::Abandoned { .. }), "{again}");
    drop(connected);
    assert_eq!(library.asked(), ["begin", "all_reduce", "abort"]);
}

#[test]
fn an_error_that_comes_later_ends_it_with_the_words_of_the_library() {
    let Some(gpu) = gpu() else { return };
    let library = Scripted::new(&[READY]);
    let mut connected = connect(&gpu, &library).unwrap();
    library.then(&[UNDERWAY, Err(GpuError::failed("go on", "remote process exited"))]);
    let failed = connected.sum_floats(&mut gpu.zeros(4).unwrap(), SOON, || true).unwrap_err();
    assert!(failed.to_string().contains("remote process exited"), "{failed}");
    assert_eq!(library.asked(), ["begin", "all_reduce", "abort"]);
}

#[test]
fn whoever_learns_that_the_ranks_came_apart_waits_no_longer() {
    let Some(gpu) = gpu() else { return };
    let library = Scripted::new(&[READY]);
    let mut connected = connect(&gpu, &library).unwrap();
    library.then(&[UNDERWAY]);
    let mut looks = 0;
    let goes_on = || {
        looks += 1;
        looks < 4
    };
    let found = connected.sum_integers(&mut gpu.zeros(4).unwrap(), Duration::from_secs(60), goes_on).unwrap_err();
    assert!(matches!(found, NcclError::Abandoned { hangs: false, .. }), "{found}");
    assert_eq!(library.asked(), ["begin", "all_reduce", "abort"]);
}

/// It may wait for what other ranks do on their hosts, long after the device was freed.
#[test]
fn an_abort_that_hangs_is_left_behind_and_the_device_is_lost_only_where_it_hangs_too() {
    for device_hangs in [false, true] {
        let Some(gpu) = gpu() else { return };
        let mut library = Scripted::new(&[Err(GpuError::failed("go on", "no"))]);
        let scripted = Arc::get_mut(&mut library).unwrap();
        (scripted.abort_takes, scripted.device_hangs) = (Duration::from_secs(60), device_hangs);
        let begun = Instant::now();
        let failed = connect(&gpu, &library).unwrap_err();
        assert_eq!(failed.hangs(), device_hangs, "{failed}");
        assert_eq!(failed.to_string().ends_with("the GPU hangs"), device_hangs, "{failed}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert!(gpu.nccl().is_none(), "NCCL is not asked again in this process");
    }
}

#[test]
fn several_ranks_have_the_sum_of_their_integers_round_after_round() {
    if gpu().is_none() {
        return;
    }
    let id = gpu().unwrap().nccl().unwrap().unique_id().unwrap();
    let ranks = [0, 1, 2].map(|rank| {
        std::thread::spawn(move || {
            let gpu = gpu().unwrap();
            let deadline = Duration::from_secs(10);
            let mut connected =
                Communicator::connect(&gpu, gpu.nccl().unwrap(), &id, (rank, 3), deadline, || true).unwrap();
            let own = i64::from(rank) + 1;
            for round in 1..5 {
                let mut sum = gpu.copied(&[own * round, -own, i64::MAX / 6]).unwrap();
                connected.sum_integers(&mut sum, deadline, || true).unwrap();
                assert_eq!(sum.to_host().unwrap(), [6 * round, -6, i64::MAX / 6 * 3]);
            }
            let mut sum = gpu.copied(&[0.5f32 * own as f32]).unwrap();
            connected.sum_floats(&mut sum, deadline, || true).unwrap();
            assert_eq!(sum.to_host().unwrap(), [3.0]);
        })
    });
    for rank in ranks {
        rank.join().unwrap();
    }
    let name = String::from_utf8_lossy(&id.0).trim_end_matches('\0').to_owned();
    assert!(!std::env::temp_dir().join(name).exists(), "the last to leave takes everything away");
}
