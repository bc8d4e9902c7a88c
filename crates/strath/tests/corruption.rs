//! Memory that does not keep what it was given: a bit of one worker's weights is turned over from outside.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use support::{finish, memberships, metrics, reach, repository, stderr, strath, workers_of};

/// Bytes of the weights that are looked for: enough to be nothing else.
const PATTERN: usize = 64;
/// Bytes of a page of memory.
const PAGE: u64 = 4096;

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

/// Turns over one bit of every copy of these bytes in a process's memory, which stands still meanwhile: what is found is where it was found when
/// it is written. How many there were; `None`: said so, and to be skipped.
fn turn_over(pid: u32, pattern: &[u8]) -> Option<usize> {
    let Ok(memory) = OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem")) else {
        assert!(std::env::var_os("STRATH_REQUIRE_ALL").is_none(), "another process's memory cannot be opened");
        eprintln!("skipped: another process's memory cannot be opened (kernel.yama.ptrace_scope)");
        return None;
    };
    support::signal(pid, "-STOP");
    let stopped = Instant::now();
    let found = resident(pid).map(|range| turn_over_in(&memory, range, pattern)).sum();
    let took = stopped.elapsed();
    support::signal(pid, "-CONT");
    assert!(took < Duration::from_secs(1), "the process stood still for {took:?}, which is what may be noticed then");
    Some(found)
}

/// The ranges of a process's memory that it may write and that are in use, of the gigabytes that an allocator has set aside.
fn resident(pid: u32) -> impl Iterator<Item = Range<u64>> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let pages = File::open(format!("/proc/{pid}/pagemap")).unwrap();
    let writable = |line: &&str| line.split(' ').nth(1).is_some_and(|rights| rights.starts_with("rw-p"));
    let ranges: Vec<Range<u64>> = maps.lines().filter(writable).map(range_of).collect();
    ranges.into_iter().flat_map(move |range| {
        let mut entries = vec![0; ((range.end - range.start) / PAGE * 8) as usize];
        pages.read_exact_at(&mut entries, range.start / PAGE * 8).unwrap();
        // Bit 63: in memory.
        let present = |&(_, entry): &(u64, &[u8; 8])| u64::from_le_bytes(*entry) >> 63 == 1;
        let pages = (0..).zip(entries.as_chunks().0).filter(present).map(|(page, _)| range.start + page * PAGE);
        pages
            .collect::<Vec<_>>()
            .chunk_by(|a, b| a + PAGE == *b)
            .map(|run| run[0]..run[run.len() - 1] + PAGE)
            .collect::<Vec<_>>()
    })
}

/// The addresses of a line of `/proc/PID/maps`.
fn range_of(line: &str) -> Range<u64> {
    let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
    u64::from_str_radix(start, 16).unwrap()..u64::from_str_radix(end, 16).unwrap()
}

fn turn_over_in(memory: &File, range: Range<u64>, pattern: &[u8]) -> usize {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    memory.read_exact_at(&mut bytes, range.start).unwrap();
    let places = bytes.windows(pattern.len()).step_by(4).zip(range.step_by(4)).filter(|(at, _)| *at == pattern);
    places.map(|(_, at)| memory.write_all_at(&[pattern[0] ^ 1], at).unwrap()).count()
}

/// Digits that stay where they are, as their learning rate is too small to move a weight. `more`: further settings.
fn motionless(out: &Path, workers: &str, more: &[&str]) -> Child {
    let config = repository().join("configs/digits.toml");
    let sets = ["optimizer.lr=1e-30", "run.epochs=100000", "checkpoint.every_steps=20", "checkpoint.keep=100000"];
    let mut command = strath();
    command.args(["train", config.to_str().unwrap(), "--out", out.to_str().unwrap(), "--workers", workers]);
    command.args([&sets[..], more].concat().iter().flat_map(|set| ["--set", *set]));
    command.spawn().unwrap()
}

/// Such a run, of which the last bit of some weights of the worker in this place of the list of processes is another now. `None`: skipped.
fn corrupted(workers: &str, place: usize, more: &[&str]) -> Option<(Child, tempfile::TempDir)> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let run = motionless(&out, workers, more);
    reach(&out, 25);
    let pattern = some_weights(&out);
    let pids = workers_of(run.id());
    let Some(copies) = turn_over(pids[place], &pattern) else {
        support::signal(run.id(), "-TERM");
        finish(run, Duration::from_secs(60));
        return None;
    };
    assert!(copies > 0, "the weights were not found in the memory of process {}", pids[place]);
    Some((run, folder))
}

#[test]
fn a_worker_whose_memory_changed_under_it_is_named_by_the_others_and_given_their_state() {
    for place in [0, 2] {
        let Some((run, folder)) = corrupted("3", place, &[]) else { return };
        let out = folder.path().join("run");
        let since = Instant::now();
        while memberships(&out).len() < 2 {
            assert!(since.elapsed() < Duration::from_secs(60), "nobody noticed");
            std::thread::sleep(Duration::from_millis(5));
        }
        // All three go on, and agree.
        reach(&out, metrics(&out, "step").len() + 60);
        support::signal(run.id(), "-TERM");
        let ended = finish(run, Duration::from_secs(60));
        assert_eq!(ended.status.code(), Some(130), "{}", stderr(&ended));
        let said = stderr(&ended);
        let warnings: Vec<&str> = said.lines().filter(|line| line.starts_with("warning:")).collect();
        assert_eq!(warnings.len(), 1, "{said}");
        for part in ["worker ", "holds another state after step ", "the other 2 workers", "SHA-256 "] {
            assert!(warnings[0].contains(part), "{part:?} is not in {said}");
        }
        let generations = memberships(&out);
        assert_eq!(generations.len(), 2, "{generations:?}");
        assert_eq!(generations[1]["world_size"], 3);
    }
}

#[test]
fn compared_at_every_step_nothing_is_kept_of_what_a_worker_computed_from_other_weights() {
    // What each step adds to the momentum stays there.
    let more = ["cluster.verify_every_steps=1", "optimizer.momentum=0.9999"];
    let Some((run, folder)) = corrupted("3", 1, &more) else { return };
    let out = folder.path().join("run");
    let since = Instant::now();
    while memberships(&out).len() < 2 {
        assert!(since.elapsed() < Duration::from_secs(60), "nobody noticed");
        std::thread::sleep(Duration::from_millis(5));
    }
    let kept = metrics(&out, "step").len().next_multiple_of(20) + 20;
    let undisturbed = folder.path().join("undisturbed");
    let other = motionless(&undisturbed, "1", &more);
    for (run, out) in [(run, &out), (other, &undisturbed)] {
        reach(out, kept + 1);
        support::signal(run.id(), "-TERM");
        let ended = finish(run, Duration::from_secs(60));
        assert_eq!(ended.status.code(), Some(130), "{}", stderr(&ended));
    }
    let state = |out: &Path| std::fs::read(out.join(format!("checkpoints/step-{kept}.state.safetensors"))).unwrap();
    assert!(state(&out) == state(&undisturbed), "the states after step {kept} differ");
}

#[test]
fn of_two_workers_that_differ_neither_is_blamed() {
    let Some((run, _folder)) = corrupted("2", 1, &[]) else { return };
    let ended = finish(run, Duration::from_secs(60));
    assert_eq!(ended.status.code(), Some(1), "{}", stderr(&ended));
    let said = stderr(&ended);
    assert!(said.contains("2 different states after step "), "{said}");
}
