//! Memory that does not keep what it was given: a bit of one worker's weights is turned over from outside.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use support::{finish, reach, repository, stderr, strath, workers_of};

/// Bytes of the weights that are looked for: enough to be nothing else.
const PATTERN: usize = 64;

/// Bytes in the middle of the largest tensor of a run's first checkpoint.
fn some_weights(out: &Path) -> Vec<u8> {
    let path = out.join("checkpoints/step-20.safetensors");
    let since = Instant::now();
    let bytes = loop {
        if let Ok(bytes) = std::fs::read(&path) {
            break bytes;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "no {}", path.display());
        std::thread::sleep(Duration::from_millis(5));
    };
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let (_, largest) = tensors.tensors().into_iter().max_by_key(|(_, view)| view.data().len()).unwrap();
    let middle = largest.data().len() / 8 * 4;
    largest.data()[middle..middle + PATTERN].to_vec()
}

/// Turns over one bit of every copy of these bytes in a process's memory; how many there were. `None`: said so, and to be skipped.
fn turn_over(pid: u32, pattern: &[u8]) -> Option<usize> {
    let Ok(memory) = OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem")) else {
        assert!(std::env::var_os("STRATH_REQUIRE_ALL").is_none(), "another process's memory cannot be opened");
        eprintln!("skipped: another process's memory cannot be opened (kernel.yama.ptrace_scope)");
        return None;
    };
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut found = 0;
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with("rw-p"))) {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (start, end) = (u64::from_str_radix(start, 16).unwrap(), u64::from_str_radix(end, 16).unwrap());
        let mut bytes = vec![0; (end - start) as usize];
        // A mapping may be gone, or have pages that cannot be read.
        if memory.read_exact_at(&mut bytes, start).is_err() {
            continue;
        }
        let places = bytes.windows(pattern.len()).step_by(4).zip((start..).step_by(4)).filter(|(at, _)| *at == pattern);
        for (_, at) in places {
            // A passing copy may be gone meanwhile.
            found += usize::from(memory.write_all_at(&[pattern[0] ^ 1], at).is_ok());
        }
    }
    Some(found)
}

/// Digits that stay where they are, as their learning rate is too small to move a weight; what `train` ends with once the last bit of
/// a weight of the worker in this place of the list of processes is another. `None`: skipped.
fn corrupted(workers: &str, place: usize) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let config = repository().join("configs/digits.toml");
    let sets = ["optimizer.lr=1e-30", "run.epochs=100000", "checkpoint.every_steps=20", "checkpoint.keep=100000"];
    let mut command = strath();
    command.args(["train", config.to_str().unwrap(), "--out", out.to_str().unwrap(), "--workers", workers]);
    command.args(sets.map(|set| ["--set", set]).concat());
    let run = command.spawn().unwrap();
    reach(&out, 25);
    let pattern = some_weights(&out);
    let pids = workers_of(run.id());
    let Some(copies) = turn_over(pids[place], &pattern) else {
        support::signal(run.id(), "-TERM");
        finish(run, Duration::from_secs(60));
        return None;
    };
    assert!(copies > 0, "the weights were not found in the memory of process {}", pids[place]);
    let ended = finish(run, Duration::from_secs(60));
    assert_eq!(ended.status.code(), Some(1), "{}", stderr(&ended));
    Some(stderr(&ended))
}

#[test]
fn a_worker_whose_memory_changed_under_it_is_named_by_the_others() {
    for place in [0, 2] {
        let Some(said) = corrupted("3", place) else { return };
        let error = said.lines().find(|line| line.starts_with("error:")).unwrap_or(&said);
        for part in ["worker ", "holds another state after step ", "the other 2 workers", "SHA-256 ", "--resume"] {
            assert!(error.contains(part), "{part:?} is not in {said}");
        }
    }
}

#[test]
fn of_two_workers_that_differ_neither_is_blamed() {
    let Some(said) = corrupted("2", 1) else { return };
    assert!(said.contains("2 different states after step "), "{said}");
}
