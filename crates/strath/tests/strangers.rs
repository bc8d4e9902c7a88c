//! A coordinator that strangers connect to while it has a run to look after.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::collections::VecDeque;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::{Coordinator, DEADLINE, finish, memberships, metrics, reach, run, signal, stderr, strath};

/// Descriptors that a process has open.
fn descriptors(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}

/// MiB of memory that a process has in use.
fn mebibytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn ten_thousand_connections_cost_the_coordinator_bounded_descriptors_and_memory_and_the_run_goes_on() {
    const FLOOD: usize = 10_000;
    /// How many of them are open at a time.
    const HELD: usize = 1_000;
    let folder = tempfile::tempdir().unwrap();
    let (set, out) = (folder.path().join("certs"), folder.path().join("run"));
    let set = set.to_str().unwrap();
    assert!(run(&["certs", set]).status.success());
    for certs in [&[][..], &["--certs", set]] {
        let out = if certs.is_empty() { out.clone() } else { folder.path().join("encrypted") };
        let long = ["--set", "run.epochs=100000"];
        let Coordinator { child: coordinator, address } = Coordinator::start(&out, &[&long[..], certs].concat());
        let worker = strath().args([&["worker", "--coordinator", &address], certs].concat()).spawn().unwrap();
        reach(&out, 5);
        let (before, memory, since) = (metrics(&out, "step").len(), mebibytes(coordinator.id()), Instant::now());
        let (mut held, mut most_open, mut most_memory) = (VecDeque::new(), 0, 0);
        for n in 0..FLOOD {
            let mut stranger = TcpStream::connect(&address).unwrap();
            let said = match n % 5 {
                // Silence, for as long as it is let: the slowest of slow-loris.
                0 => Ok(()),
                1 => stranger.write_all(b"GET / HTTP/1.1\r\n\r\n"),
                // The beginning of HTTP/2, and a frame that says that it is 16 MiB long.
                2 => stranger.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x00\x00\x00\x00\x00\x01"),
                // The beginning of a TLS record of the greatest length, and of none.
                3 => stranger.write_all(b"\x16\x03\x01\xff\xff\x01"),
                _ => stranger.write_all(&[0xff; 600]),
            };
            // Whoever has been dropped already cannot say it.
            drop(said);
            held.push_back(stranger);
            if held.len() > HELD {
                held.pop_front();
            }
            if n % 100 == 0 {
                most_open = most_open.max(descriptors(coordinator.id()));
                most_memory = most_memory.max(mebibytes(coordinator.id()));
            }
        }
        assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
        // As many as the flood holds, some that it has let go of since, and the coordinator's own.
        assert!(most_open < HELD + 600, "{most_open} descriptors");
        assert!(most_memory < memory + 128, "{memory} MiB grew to {most_memory}");
        let now = metrics(&out, "step").len();
        assert!(now > before, "no step was taken meanwhile");
        drop(held);
        assert_eq!(memberships(&out).len(), 1, "nobody was lost");
        signal(coordinator.id(), "-TERM");
        let ended = finish(coordinator, DEADLINE);
        assert_eq!(ended.status.code(), Some(130), "{}", stderr(&ended));
        assert_eq!(finish(worker, DEADLINE).status.code(), Some(130));
    }
}
