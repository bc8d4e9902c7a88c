//! Every mistake a user can make gets one line that says what was found, what was expected and what to do; the exit status
//! is 2 for usage and configuration, 1 for anything else; nothing is lost.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use strath_protocol::message::{CoordinatorMessage, Ending, Register, WorkerMessage};
use support::{Coordinator, finish, repository, run, signal, stderr, strath, train, vacant};

struct Refusal {
    code: Option<i32>,
    said: String,
}

impl Refusal {
    /// One error line, with all of `parts`.
    #[track_caller]
    fn names(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.said);
        let errors: Vec<&str> = self.said.lines().filter(|line| line.starts_with("error:")).collect();
        assert_eq!(errors.len(), 1, "one line that says error: in\n{}", self.said);
        for part in parts {
            assert!(errors[0].contains(part), "{part:?} is not in: {}", errors[0]);
        }
        assert!(!self.said.contains("panicked"), "{}", self.said);
    }
}

fn attempt(arguments: &[&str]) -> Refusal {
    let output = run(arguments);
    Refusal { code: output.status.code(), said: stderr(&output) }
}

/// Trains the digits for a moment with changes.
fn digits(out: &Path, changes: &[&str]) -> Refusal {
    let config = repository().join("configs/digits.toml");
    let mut arguments =
        vec!["train", config.to_str().unwrap(), "--out", out.to_str().unwrap(), "--set", "run.epochs=1"];
    for change in changes {
        arguments.extend(["--set", change]);
    }
    attempt(&arguments)
}

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    (folder, out)
}

#[test]
fn a_wrong_key_is_refused_with_the_nearest_one() {
    let (_folder, out) = scratch();
    digits(&out, &["sam.roh=0.1"]).names(2, &["sam.roh", "sam.rho"]);
    assert!(!out.exists(), "nothing is made before the configuration is right");
}

#[test]
fn a_value_of_another_type_is_refused_with_both() {
    let (_folder, out) = scratch();
    digits(&out, &["batch.size=128.7"]).names(2, &["batch.size", "128.7", "integer"]);
    digits(&out, &["sam.rho=\"0.1\""]).names(2, &["sam.rho", "0.1"]);
    digits(&out, &["data.shuffle=yes"]).names(2, &["data.shuffle", "yes"]);
}

#[test]
fn sizes_that_do_not_divide_are_refused_with_the_key() {
    let (_folder, out) = scratch();
    digits(&out, &["batch.size=64", "sam.m=24"]).names(2, &["sam.m", "24", "64", "divisor"]);
    digits(&out, &["batch.size=64", "sam.m=16", "batch.micro=5"]).names(2, &["batch.micro", "5", "16"]);
}

#[test]
fn keys_that_this_build_cannot_honour_are_refused_as_such() {
    let (_folder, out) = scratch();
    digits(&out, &["cluster.device=\"cuda:0\""]).names(2, &["cluster.device", "cuda:0"]);
    let processor = ["cluster.transport = \"nccl\"", "computes on the processor", "cluster.transport = \"auto\""];
    digits(&out, &["cluster.transport=nccl", "cluster.device=cpu"]).names(1, &processor);
}

#[test]
fn more_workers_than_micro_batches_idle_with_a_warning() {
    let (folder, out) = scratch();
    let changes = ["batch.size=64", "sam.m=32", "cluster.workers=4"];
    let refusal = digits(&out, &changes);
    assert_eq!(refusal.code, Some(0), "{}", refusal.said);
    let warned = refusal.said.lines().any(|l| l.contains("warning") && l.contains("idle") && l.contains('2'));
    assert!(warned, "{}", refusal.said);
    drop(folder);
}

#[test]
fn a_configuration_that_does_not_fit_the_data_or_the_model_is_bad_usage() {
    let (folder, out) = scratch();
    let misfits: [(&[&str], &[&str]); 8] = [
        (&["model.kind=mlp", "model.hidden=[8]", "sam.perturb=norm-only"], &["norm-only", "normalisation"]),
        (&["model.norm=none", "sam.perturb=norm-only"], &["norm-only", "normalisation"]),
        (&["model.widths=[4,4,4,4]", "sam.m=1"], &["one value a channel", "sam.m"]),
        (&["data.train_limit=2000"], &["data.train_limit", "2000", "1437"]),
        (&["data.augment=[\"crop:9\"]"], &["crop:9", "8x8"]),
        (&["model.kind=vit", "model.patch=3"], &["vit", "patch"]),
        (&["batch.size=2048", "sam.m=64"], &["0 steps", "1437"]),
        (&["sam.norm=0.5"], &["sam.norm", "0.5"]),
    ];
    for (changes, parts) in misfits {
        digits(&out, changes).names(2, parts);
    }
    // A run that never began is in nobody's way.
    let missing = folder.path().join("missing.safetensors");
    digits(&out, &[&format!("model.init={}", missing.display())]).names(1, &["missing.safetensors"]);
    assert_eq!(digits(&out, &["run.epochs=1"]).code, Some(0));
}

#[test]
fn one_example_that_overflows_in_a_lane_of_three_ranks_fails_them_all_alike() {
    let (folder, out) = scratch();
    let data = folder.path().join("data.safetensors");
    // Two batches of 16; one micro-batch of the second is beyond what a network's products can hold. The checkpoint of the step
    // before is still on its way when the run fails.
    let examples = 2 * 16;
    let mut pixels = vec![0.5f32; examples * 16];
    pixels[(examples - 8) * 16..(examples - 4) * 16].fill(3e38);
    let pixels: Vec<u8> = pixels.iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
    let labels: Vec<u8> = (0..examples as i64).flat_map(|at| (at % 3).to_le_bytes()).collect();
    let view =
        |dtype, shape: &[usize], bytes| safetensors::tensor::TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
    let (f32, i64) = (safetensors::Dtype::F32, safetensors::Dtype::I64);
    let tensors = [
        ("train.images", view(f32, &[examples, 1, 4, 4], &pixels)),
        ("train.labels", view(i64, &[examples], &labels)),
        ("test.images", view(f32, &[1, 1, 4, 4], &pixels[..64])),
        ("test.labels", view(i64, &[1], &labels[..8])),
    ];
    std::fs::write(&data, safetensors::serialize(tensors, None).unwrap()).unwrap();
    let config = folder.path().join("run.toml");
    let text = "[run]\nsteps = 4\n[data]\nkind = \"safetensors\"\npath = \"data.safetensors\"\nclasses = 3\nshuffle = false\n\
        [model]\nkind = \"mlp\"\nhidden = [8]\n[batch]\nsize = 16\nmicro = 4\n[sam]\nm = 16\n[checkpoint]\nevery_steps = 1\n";
    std::fs::write(&config, text).unwrap();
    let train = ["train", config.to_str().unwrap(), "--out", out.to_str().unwrap(), "--workers", "3"];
    let refusal = attempt(&train);
    let parts = ["not finite", "lane 0", "examples 0..16", "step 1 ", "the checkpoint of step 1 is whole"];
    refusal.names(1, &parts);
    let reason =
        |text: &str| text.split("the loss at w").nth(1).map(|rest| rest.lines().next().unwrap()[..60].to_string());
    for rank in 0..3 {
        let log = std::fs::read_to_string(out.join(format!("logs/worker-{rank}.log"))).unwrap();
        assert_eq!(reason(&log), reason(&refusal.said), "{log}");
    }
    // Nothing was lost: the run goes on from there, and meets the same end.
    attempt(&[&train[..], &["--resume"]].concat()).names(1, &parts);
}

fn fashion(data: &Path) -> Vec<String> {
    let config = repository().join("configs/fashion-mnist.toml");
    vec!["train".into(), config.display().to_string(), "--set".into(), format!("data.path={}", data.display())]
}

fn fashion_refusal(data: &Path, out: &Path) -> Refusal {
    let mut arguments = fashion(data);
    arguments.extend(["--out".into(), out.display().to_string()]);
    attempt(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn idx_images(count: u32, magic: u32) -> Vec<u8> {
    let mut bytes: Vec<u8> = [magic, count, 28, 28].iter().flat_map(|v| v.to_be_bytes()).collect();
    bytes.extend(vec![7; count as usize * 784]);
    bytes
}

fn idx_labels(labels: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = [0x0801, labels.len() as u32].iter().flat_map(|v| v.to_be_bytes()).collect();
    bytes.extend(labels);
    bytes
}

#[test]
fn data_that_is_missing_truncated_or_wrong_is_refused_with_the_file() {
    let (folder, out) = scratch();
    let data = folder.path().join("data");
    fashion_refusal(&data, &out).names(1, &["train-images-idx3-ubyte", "strath data fetch"]);
    std::fs::create_dir(&data).unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(data.join(name), bytes).unwrap();
    write("train-labels-idx1-ubyte", &idx_labels(&[0; 200]));
    write("t10k-images-idx3-ubyte", &idx_images(10, 0x0803));
    write("t10k-labels-idx1-ubyte", &idx_labels(&[1; 10]));
    write("train-images-idx3-ubyte", &idx_images(200, 0x0803)[..1000]);
    fashion_refusal(&data, &folder.path().join("b")).names(1, &["train-images-idx3-ubyte", "156816", "1000"]);
    write("train-images-idx3-ubyte", &idx_images(200, 0x0802));
    fashion_refusal(&data, &folder.path().join("c")).names(1, &["train-images-idx3-ubyte", "magic"]);
    write("train-images-idx3-ubyte", &idx_images(200, 0x0803));
    write("t10k-labels-idx1-ubyte", &idx_labels(&[1, 2, 3, 11, 1, 1, 1, 1, 1, 1]));
    fashion_refusal(&data, &folder.path().join("d")).names(1, &["t10k-labels-idx1-ubyte", "11", "10 classes"]);
}

#[test]
fn a_checkpoint_of_another_model_is_refused_by_the_tensor() {
    let (folder, out) = scratch();
    let config = repository().join("configs/digits.toml");
    train(&config, &out, &["--set", "run.steps=2"]);
    let checkpoint = out.join("final.safetensors");
    let checkpoint = checkpoint.to_str().unwrap();
    let config = config.to_str().unwrap();
    attempt(&["eval", checkpoint, "--config", config, "--set", "model.widths=[4, 4]"])
        .names(1, &["shape [10, 64]", "expected [10, 4]", "[model]"]);
    let init = format!("model.init={checkpoint}");
    digits(&folder.path().join("b"), &[&init, "model.widths=[4]"]).names(1, &["[model]"]);
    let missing = folder.path().join("missing.safetensors");
    attempt(&["eval", missing.to_str().unwrap(), "--config", config]).names(1, &["missing.safetensors"]);
    std::fs::write(&missing, b"not a checkpoint").unwrap();
    attempt(&["eval", missing.to_str().unwrap(), "--config", config])
        .names(1, &["missing.safetensors", "safetensors file"]);
}

#[test]
fn a_folder_that_holds_a_run_is_refused_and_one_that_is_held_too() {
    let (_folder, out) = scratch();
    let config = repository().join("configs/digits.toml");
    train(&config, &out, &["--set", "run.steps=2"]);
    let before = std::fs::read(out.join("metrics.jsonl")).unwrap();
    digits(&out, &[]).names(1, &["already holds a run", "--resume", "--overwrite"]);
    assert_eq!(std::fs::read(out.join("metrics.jsonl")).unwrap(), before);
    let changed = [
        "train",
        config.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
        "--resume",
        "--set",
        "run.steps=2",
        "--set",
        "sam.rho=0.3",
    ];
    attempt(&changed).names(2, &["sam.rho", "0.3"]);

    let held = out.with_file_name("held");
    let mut first = Coordinator::start(&held, &[]);
    let second = [
        "coordinator",
        "--config",
        config.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--out",
        held.to_str().unwrap(),
    ];
    attempt(&second).names(1, &["held by another coordinator"]);
    first.end();
}

#[test]
fn a_port_in_use_and_an_address_beyond_loopback_are_refused() {
    let (_folder, out) = scratch();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = repository().join("configs/digits.toml");
    let coordinator = |listen: &str| {
        attempt(&[
            "coordinator",
            "--config",
            config.to_str().unwrap(),
            "--listen",
            listen,
            "--out",
            out.to_str().unwrap(),
        ])
    };
    coordinator(&address).names(1, &[&address, "in use"]);
    coordinator("0.0.0.0:0").names(2, &["0.0.0.0", "--insecure"]);
}

#[test]
fn a_worker_without_a_coordinator_gives_up_after_its_timeout() {
    let vacant = vacant().to_string();
    let begun = Instant::now();
    attempt(&["worker", "--coordinator", &vacant, "--connect-timeout", "1"]).names(1, &[&vacant, "--connect-timeout"]);
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    attempt(&["status", "--coordinator", &vacant]).names(1, &[&vacant]);
}

#[test]
fn a_worker_says_what_is_wrong_with_its_addresses_and_its_data() {
    attempt(&["worker", "--coordinator", "localhost"]).names(2, &["localhost", "HOST:PORT"]);
    let (_folder, out) = scratch();
    let mut coordinator = Coordinator::start(&out, &["--min-workers", "2"]);
    let worker = |more: &[&str]| attempt(&[&["worker", "--coordinator", &coordinator.address], more].concat());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    worker(&["--listen", &address]).names(1, &[&address, "in use", "--listen"]);
    // An address of another host (it is one that documentation may use, and nobody's).
    worker(&["--advertise", "192.0.2.1:0"]).names(1, &["192.0.2.1:0", "--advertise", "--listen"]);
    worker(&["--listen", "0.0.0.0:0"]).names(1, &["0.0.0.0", "--advertise"]);
    coordinator.end();
    let (_folder, out) = scratch();
    let mut coordinator = Coordinator::start(&out, &[]);
    attempt(&["worker", "--coordinator", &coordinator.address, "--data", "/nowhere"]).names(1, &["--data", "built in"]);
    coordinator.end();
}

#[test]
fn workers_meet_on_the_addresses_that_they_advertise() {
    let (_folder, out) = scratch();
    let coordinator = Coordinator::start(&out, &["--min-workers", "2", "--set", "run.epochs=1"]);
    let workers: Vec<Child> = ["127.0.0.2:0", "127.0.0.3:0"]
        .iter()
        .map(|advertise| {
            strath().args(["worker", "--coordinator", &coordinator.address, "--advertise", advertise]).spawn().unwrap()
        })
        .collect();
    for worker in workers {
        let ended = finish(worker, Duration::from_secs(60));
        assert!(ended.status.success(), "{}", stderr(&ended));
    }
    let ended = finish(coordinator.child, Duration::from_secs(10));
    assert!(ended.status.success(), "{}", stderr(&ended));
}

#[test]
fn a_later_worker_that_cannot_take_part_leaves_a_running_generation_alone() {
    let (_folder, out) = scratch();
    let more = ["--set", "run.steps=100000", "--min-workers", "1", "--set", "cluster.gather_ms=100"];
    let mut coordinator = Coordinator::start(&out, &more);
    let first = ["worker", "--coordinator", &coordinator.address];
    let mut first = strath().args(first).spawn().unwrap();
    let begun = Instant::now();
    while !out.join("metrics.jsonl").exists()
        || !std::fs::read_to_string(out.join("metrics.jsonl")).unwrap().contains("step\"")
    {
        assert!(begun.elapsed() < Duration::from_secs(60), "no step was taken");
        std::thread::sleep(Duration::from_millis(20));
    }
    let other_data = ["worker", "--coordinator", &coordinator.address, "--data", "/nowhere"];
    attempt(&other_data).names(1, &["--data", "built in"]);
    let status = run(&["status", "--coordinator", &coordinator.address, "--json"]);
    assert!(status.status.success(), "{}", stderr(&status));
    let line: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&line["generation"], line["workers"].as_array().unwrap().len()), (&serde_json::json!(1), 1));
    coordinator.end();
    // It goes on without a coordinator, and ends at once when it is asked to.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(first.try_wait().unwrap(), None);
    signal(first.id(), "-TERM");
    let ended = finish(first, Duration::from_secs(5));
    assert_eq!(ended.status.code(), Some(130));
    for part in ["coordinator", "was lost", "step ", "looking for it"] {
        assert!(stderr(&ended).contains(part), "{part:?} is not in {}", stderr(&ended));
    }
}

#[test]
fn a_loss_that_is_not_finite_ends_the_run_with_lane_and_remedy() {
    let (_folder, out) = scratch();
    let refusal = digits(&out, &["optimizer.lr=1e30", "schedule.kind=constant"]);
    refusal.names(1, &["not finite", "lane", "optimizer.lr", "step"]);
}

#[test]
fn a_full_disk_ends_the_run_with_what_to_do_and_the_last_checkpoint_is_whole() {
    // A file-size limit of the shell stands in for a full disk where no small file system can be made.
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount = |arguments: &[&str]| {
        std::process::Command::new(arguments[0]).args(&arguments[1..]).output().is_ok_and(|o| o.status.success())
    };
    let target = disk.to_str().unwrap();
    if !mount(&["mount", "-t", "tmpfs", "-o", "size=700k", "strath-test", target]) {
        assert!(std::env::var_os("STRATH_REQUIRE_ALL").is_none(), "a small file system could not be mounted");
        eprintln!("skipped: a small file system could not be mounted (needs root)");
        return;
    }
    let out = disk.join("run");
    let refusal = digits(&out, &["run.epochs=60", "checkpoint.every_steps=5", "checkpoint.keep=1"]);
    let checkpoints = std::fs::read_dir(out.join("checkpoints")).unwrap().count();
    assert!(mount(&["umount", target]));
    refusal.names(1, &["disk", "cannot write", "--resume"]);
    assert!(checkpoints >= 2, "the last whole checkpoint is still there");
}

#[test]
fn a_worker_of_another_version_is_refused_with_both() {
    let (_folder, out) = scratch();
    let mut coordinator = Coordinator::start(&out, &[]);
    let register = Register {
        version: "0.0.1".into(),
        token: None,
        ring_address: "127.0.0.1:9".parse().unwrap(),
        host: "test".into(),
        pid: 0,
        nonce: 0,
        cores: 1,
        returning: None,
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let answer = runtime.block_on(async {
        let mut session =
            strath_rpc::Session::connect(&coordinator.address, Duration::from_secs(10), None).await.unwrap();
        session.sender().send(WorkerMessage::Register(register)).await.unwrap();
        session.receive().await.unwrap()
    });
    coordinator.end();
    let CoordinatorMessage::End(Ending::Refused(reason)) = answer else { panic!("{answer:?}") };
    assert!(reason.contains("0.0.1") && reason.contains(env!("CARGO_PKG_VERSION")), "{reason}");
}

#[test]
fn a_download_is_checked_and_a_wrong_one_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nwrong").unwrap();
        line
    });
    let to = folder.path().join("data");
    let refusal = attempt(&["data", "fetch", "fashion-mnist", "--to", to.to_str().unwrap(), "--from", &address]);
    refusal.names(1, &["idx"]);
    assert!(server.join().unwrap().starts_with("GET /"));
    let left = std::fs::read_dir(&to).map_or(0, Iterator::count);
    assert_eq!(left, 0, "nothing half-done is left");
    attempt(&["data", "fetch", "imagenet"]).names(2, &["imagenet", "fashion-mnist"]);
}
