//! Several hosts: network namespaces joined by a cable, so that a part of a network can be lost while the rest lives on.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use support::place::world_sizes;
use support::{DEADLINE, finish, metrics, reach, repository, sha, stderr, strath, summary, train};

/// Two hosts, 10.77.0.1 and 10.77.0.2; the second has 10.77.0.3 as well.
struct Hosts {
    names: [String; 2],
    /// The ends of the cable, one in each.
    ends: [String; 2],
}

impl Hosts {
    /// `None` where namespaces cannot be made, which needs root and iproute2.
    fn new() -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let names = ["a", "b"].map(|host| format!("strath-{process}-{number}{host}"));
        let ends = ["a", "b"].map(|host| format!("sv{process}{number}{host}"));
        let hosts = Self { names, ends };
        let ([a, b], cable) = (&hosts.names, &hosts.ends);
        let made = [
            format!("netns add {a}"),
            format!("netns add {b}"),
            format!("link add {} type veth peer name {}", cable[0], cable[1]),
            format!("link set {} netns {a}", cable[0]),
            format!("link set {} netns {b}", cable[1]),
            format!("-n {a} addr add 10.77.0.1/24 dev {}", cable[0]),
            format!("-n {b} addr add 10.77.0.2/24 dev {}", cable[1]),
            format!("-n {b} addr add 10.77.0.3/24 dev {}", cable[1]),
            format!("-n {a} link set {} up", cable[0]),
            format!("-n {b} link set {} up", cable[1]),
            format!("-n {a} link set lo up"),
            format!("-n {b} link set lo up"),
        ]
        .iter()
        .all(|arguments| ip(arguments));
        made.then_some(hosts)
    }

    /// Lets each host send no more than so many Mbit/s.
    fn limit(&self, mbit: u32) {
        for (name, end) in self.names.iter().zip(&self.ends) {
            let limit = format!("-n {name} qdisc add dev {end} root tbf rate {mbit}mbit burst 64kb latency 100ms");
            let done = Command::new("tc").args(limit.split(' ')).status().unwrap();
            assert!(done.success(), "tc {limit}");
        }
    }

    fn spawn(&self, host: usize, arguments: &[&str]) -> Child {
        self.spawn_with(host, arguments, ("RUST_BACKTRACE", "0"))
    }

    fn spawn_with(&self, host: usize, arguments: &[&str], (variable, value): (&str, &str)) -> Child {
        self.command(host, arguments).env(variable, value).spawn().unwrap()
    }

    fn command(&self, host: usize, arguments: &[&str]) -> Command {
        let program = strath();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[host]]).arg(program.get_program()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            ip(&format!("netns del {name}"));
        }
    }
}

fn ip(arguments: &str) -> bool {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    output.is_ok_and(|output| output.status.success())
}

/// `None`: said so, and to be skipped.
fn hosts_or_skip() -> Option<Hosts> {
    let hosts = Hosts::new();
    if hosts.is_none() {
        assert!(std::env::var_os("STRATH_REQUIRE_ALL").is_none(), "network namespaces could not be made");
        eprintln!("skipped: network namespaces could not be made (needs root and iproute2)");
    }
    hosts
}

#[test]
fn workers_of_two_hosts_take_the_slow_link_once_a_host_and_train_to_the_bits_of_one() {
    let Some(hosts) = hosts_or_skip() else { return };
    hosts.limit(200);
    let folder = tempfile::tempdir().unwrap();
    let config = repository().join("configs/digits.toml");
    // 1.2 MB of gradient, which the link carries in 50 ms.
    let sets = ["model.kind=mlp", "model.hidden=[512, 512]", "run.epochs=1", "batch.size=240", "sam.m=48"];
    let sets = sets.map(|set| ["--set", set]).concat();
    let alone = train(&config, &folder.path().join("alone"), &[&["--workers", "1"], &sets[..]].concat());

    let out = folder.path().join("run");
    let paths = ["--config", config.to_str().unwrap(), "--out", out.to_str().unwrap(), "--listen", "10.77.0.1:7700"];
    let coordinator = ["coordinator", "--insecure", "--min-workers", "5"];
    let coordinator = hosts.spawn(0, &[&coordinator[..], &paths, &sets].concat());
    // Three workers on one host, two on the other, joining in turns.
    let join = ["worker", "--coordinator", "10.77.0.1:7700"];
    let workers = [0, 1, 0, 1, 0].map(|host| hosts.spawn_with(host, &join, ("RUST_LOG", "strath_collective=trace")));
    let ended = finish(coordinator, DEADLINE);
    assert!(ended.status.success(), "{}", stderr(&ended));
    for worker in workers {
        let said = stderr(&finish(worker, DEADLINE));
        assert!(said.contains("choice=Hierarchical"), "no gradient went by host: {said}");
    }
    let together = summary(&out);
    let sizes = together["world_sizes"].as_array().unwrap();
    assert!(!sizes.is_empty() && sizes.iter().all(|size| *size == 5), "{sizes:?}");
    assert_eq!(sha(&together), sha(&alone));
}

#[test]
fn of_two_workers_that_lose_each_other_one_goes_on_and_the_other_comes_back() {
    let Some(hosts) = hosts_or_skip() else { return };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let config = repository().join("configs/digits.toml");
    let coordinator = hosts.spawn(
        0,
        &[
            "coordinator",
            "--config",
            config.to_str().unwrap(),
            "--listen",
            "10.77.0.1:7700",
            "--insecure",
            "--out",
            out.to_str().unwrap(),
            "--set",
            "run.epochs=100000",
            "--set",
            "cluster.gather_ms=1500",
            "--set",
            "checkpoint.every_steps=20",
        ],
    );
    let worker =
        |host, more: &[&str]| hosts.spawn(host, &[&["worker", "--coordinator", "10.77.0.1:7700"], more].concat());
    let workers = [worker(0, &[]), worker(1, &["--advertise", "10.77.0.3:0"])];
    reach(&out, 30);
    // What the first host sends to the second's ring goes nowhere; the coordinator's session takes its other address.
    assert!(ip(&format!("-n {} route add blackhole 10.77.0.3/32", hosts.names[0])));
    let cut = Instant::now();
    let before = metrics(&out, "step").len();
    let sizes = || world_sizes(&out);
    while sizes().last() != Some(&1) || metrics(&out, "step").len() < before + 20 {
        assert!(cut.elapsed() < Duration::from_secs(40), "{:?}", sizes());
        std::thread::sleep(Duration::from_millis(20));
    }
    // Whoever was given up has tried again since, or does once what lies between is in order.
    assert!(ip(&format!("-n {} route del blackhole 10.77.0.3/32", hosts.names[0])));
    let mended = Instant::now();
    while sizes().last() != Some(&2) || sizes().len() < 3 {
        assert!(mended.elapsed() < Duration::from_secs(40), "{:?}", sizes());
        std::thread::sleep(Duration::from_millis(20));
    }
    let before = metrics(&out, "step").len();
    while metrics(&out, "step").len() < before + 20 {
        assert!(mended.elapsed() < Duration::from_secs(60), "{:?}", sizes());
        std::thread::sleep(Duration::from_millis(20));
    }
    support::signal(coordinator.id(), "-TERM");
    let ended = finish(coordinator, Duration::from_secs(10));
    let said = stderr(&ended);
    assert_eq!(ended.status.code(), Some(130), "{said}");
    let is_of_loss = |line: &&str| line.starts_with("warning:") && line.contains("goes on without");
    let warnings: Vec<&str> = said.lines().filter(is_of_loss).collect();
    assert!((1..=3).contains(&warnings.len()), "{said}");
    for part in ["worker ", "its host 10.77.0.", "do not reach each other"] {
        assert!(warnings[0].contains(part), "{part:?} is not in {}", warnings[0]);
    }
    let codes = workers.map(|worker| finish(worker, Duration::from_secs(10)).status.code());
    assert_eq!(codes, [Some(130), Some(130)], "both stopped with the run");
}

#[test]
fn a_worker_whose_host_gets_another_address_comes_back_from_there() {
    let Some(hosts) = hosts_or_skip() else { return };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let config = repository().join("configs/digits.toml");
    let paths = ["--config", config.to_str().unwrap(), "--out", out.to_str().unwrap(), "--listen", "10.77.0.1:7700"];
    let sets = ["--set", "run.epochs=100000"];
    let coordinator =
        hosts.spawn(0, &[&["coordinator", "--insecure", "--min-workers", "2"], &paths[..], &sets].concat());
    let workers = [0, 1].map(|host| hosts.spawn(host, &["worker", "--coordinator", "10.77.0.1:7700"]));
    reach(&out, 30);
    let (name, cable) = (&hosts.names[1], &hosts.ends[1]);
    assert!(ip(&format!("-n {name} addr flush dev {cable}")));
    assert!(ip(&format!("-n {name} addr add 10.77.0.4/24 dev {cable}")));
    let moved = Instant::now();
    let sizes = || world_sizes(&out);
    while sizes().last() != Some(&2) || sizes().len() < 2 {
        assert!(moved.elapsed() < Duration::from_secs(40), "{:?}", sizes());
        std::thread::sleep(Duration::from_millis(20));
    }
    let before = metrics(&out, "step").len();
    while metrics(&out, "step").len() < before + 20 {
        assert!(moved.elapsed() < Duration::from_secs(60), "{:?}", sizes());
        std::thread::sleep(Duration::from_millis(20));
    }
    support::signal(coordinator.id(), "-TERM");
    let ended = finish(coordinator, Duration::from_secs(10));
    assert_eq!(ended.status.code(), Some(130), "{}", stderr(&ended));
    let [_, moved] = workers.map(|worker| finish(worker, Duration::from_secs(10)));
    let said = stderr(&moved);
    assert_eq!(moved.status.code(), Some(130), "{said}");
    assert!(said.contains("this host has lost 10.77.0.2"), "{said}");
}

/// A rank of an all-reduce on a host, and where it listens. It takes part once it is told where all do.
fn rank(hosts: &Hosts, host: usize, address: &str) -> (Child, String) {
    let (rank, key) = (host.to_string(), "0123456789abcdef".repeat(2));
    let arguments = ["bench", "allreduce-rank", "--rank", &rank, "--key", &key, "--listen", address, "--workers", "2"];
    let mut child = hosts.command(host, &arguments).stdin(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().to_owned())
}

#[test]
fn a_host_that_is_cut_off_while_it_is_greeted_is_given_up_before_the_time_for_connecting_is_over() {
    let Some(hosts) = hosts_or_skip() else { return };
    let (mut first, one) = rank(&hosts, 0, "10.77.0.1");
    // Its kernel takes the connection; it answers nothing, as it has not been told of anybody.
    let (mut second, other) = rank(&hosts, 1, "10.77.0.2");
    let members = format!("{one},{other}\n");
    let mut told = first.stdin.take().unwrap();
    told.write_all(members.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(first.try_wait().unwrap().is_none(), "it waits for the second");
    assert!(ip(&format!("-n {} link set {} down", hosts.names[1], hosts.ends[1])));
    let cut = Instant::now();
    let ended = finish(first, DEADLINE);
    let said = stderr(&ended);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("rank 1 at 10.77.0.2") && said.contains("its host is down"), "{said}");
    assert!(cut.elapsed() < Duration::from_secs(7), "{:?}", cut.elapsed());
    second.kill().unwrap();
    second.wait().unwrap();
}
