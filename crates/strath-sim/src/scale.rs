//! How large a cluster the coordinator's machine bears: real workers' machines, no ring, no network, and the time that passes in
//! [`Coordinator::handle`].
//!
//! Steps of 100 ms, the default lease of 2 s: every worker is heard twice a second, and rank 0 ten times more. A machine keeps up as long as
//! it takes in more events a second than its workers send.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use strath_core::config::Layers;
use strath_core::{Digest, Generation, RingKey, RunId, Step, Timestamp};
use strath_protocol::message::{CoordinatorMessage, Job, Register};
use strath_protocol::{
    Connection, Coordinator, CoordinatorCommand, CoordinatorEvent, Former, Gather, Settings, Worker, WorkerCommand,
    WorkerEvent,
};

use crate::words::{prepared, step_report};

/// Steps that are measured.
const STEPS: u64 = 50;
/// Virtual time of one.
const STEP: Duration = Duration::from_millis(100);

/// The table, in Markdown: a row for each number of workers.
pub fn table(sizes: &[usize]) -> String {
    let mut table = String::from(
        "| workers | until the first step, ms | events a second | events that come a second | messages a step | \
         after a loss, ms | memory, MiB |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    // All are kept until the last is made, as what is let go of would serve the next.
    let copies: Vec<(usize, Vec<Coordinator>)> = sizes.iter().map(|workers| copies_of(*workers)).collect();
    let bytes: Vec<usize> = copies.iter().map(|(bytes, _)| *bytes).collect();
    drop(copies);
    for (workers, bytes) in sizes.iter().zip(bytes) {
        let Row { begin, events_per_s, come_per_s, messages_per_step, regroup } = measure(*workers);
        let (begin, regroup) = (1e3 * begin.as_secs_f64(), 1e3 * regroup.as_secs_f64());
        let mib = bytes as f64 / f64::from(1 << 20);
        // Writing to a text does not fail.
        let _ = writeln!(
            table,
            "| {workers} | {begin:.1} | {events_per_s:.0} | {come_per_s:.0} | {messages_per_step:.1} | {regroup:.1} | {mib:.2} |"
        );
    }
    table
}

/// What was measured of one size.
struct Row {
    /// Time in the machine from the first registration to the start.
    begin: Duration,
    /// Events that it takes in a second while it runs.
    events_per_s: f64,
    /// Events that its workers send a second.
    come_per_s: f64,
    /// Messages, both ways.
    messages_per_step: f64,
    /// Time in the machine from the loss of a worker to the start of the next generation.
    regroup: Duration,
}

fn measure(workers: usize) -> Row {
    let mut cluster = Cluster::new(workers, workers);
    cluster.settle();
    let begin = std::mem::take(&mut cluster.spent);
    (cluster.events, cluster.messages) = (0, 0);
    for step in 1..=STEPS {
        cluster.step(Step(step));
    }
    let (events, spent) = (cluster.events, std::mem::take(&mut cluster.spent));
    let virtual_seconds = (STEP * STEPS as u32).as_secs_f64();
    let messages_per_step = cluster.messages as f64 / STEPS as f64;
    let lost = Connection(workers as u64 / 2);
    cluster.tell(CoordinatorEvent::Disconnected { connection: lost, cause: "lost".into() });
    cluster.settle();
    assert_eq!(cluster.machine.status(cluster.now).stage, "running", "a cluster goes on without one of its workers");
    let regroup = cluster.spent;
    Row {
        begin,
        events_per_s: events as f64 / spent.as_secs_f64(),
        come_per_s: events as f64 / virtual_seconds,
        messages_per_step,
        regroup,
    }
}

/// Many copies of a machine to which so many workers have come, and what each takes of the process's memory.
fn copies_of(workers: usize) -> (usize, Vec<Coordinator>) {
    let mut cluster = Cluster::new(workers, workers + 1);
    cluster.settle();
    let resident = || {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        4096 * pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or_default()
    };
    let before = resident();
    let copies = vec![cluster.machine.clone(); 1 + 100_000 / workers];
    (resident().saturating_sub(before) / copies.len(), copies)
}

struct Cluster {
    machine: Coordinator,
    workers: Vec<Worker>,
    /// Workers with commands to be carried out.
    busy: VecDeque<usize>,
    now: Timestamp,
    /// Time in the coordinator's machine.
    spent: Duration,
    events: u64,
    messages: u64,
}

impl Cluster {
    /// Workers that have come, to a coordinator that waits for `wanted`.
    fn new(workers: usize, wanted: usize) -> Self {
        let text = "[run]\nsteps = 1000\n[data]\nkind = \"digits\"\n[model]\nkind = \"convnet\"\n[batch]\nsize = 256\n[sam]\nm = 2\n";
        let layers = Layers::new().file(text, "measured", Path::new("/")).and_then(Layers::resolve);
        let settings = Settings {
            version: "1".into(),
            token: None,
            ring_key: RingKey([9; 16]),
            run: RunId(7),
            config: layers.expect("the configuration holds").config,
            configuration: String::new(),
            job: Job::Train,
            gather: Gather::Exactly(wanted),
            most_workers: wanted,
            generation: Generation(0),
            start: None,
            former: Former::default(),
        };
        let now = Timestamp::default();
        let register = |worker: usize| Register {
            version: "1".into(),
            token: None,
            ring_address: address(worker, 9000),
            host: format!("h{worker}"),
            pid: worker as u32,
            nonce: worker as u64,
            cores: 1,
            returning: None,
        };
        let mut cluster = Self {
            machine: Coordinator::new(settings, now),
            workers: (0..workers).map(|worker| Worker::new("c".into(), register(worker), now)).collect(),
            busy: (0..workers).collect(),
            now,
            spent: Duration::ZERO,
            events: 0,
            messages: 0,
        };
        for worker in 0..workers {
            let connection = Connection(worker as u64);
            cluster.tell(CoordinatorEvent::Connected { connection, address: address(worker, 1000) });
        }
        cluster
    }

    /// Has the coordinator's machine take in an event, and hands out what it says.
    #[expect(clippy::disallowed_methods, reason = "the time that the machine takes is what is measured")]
    fn tell(&mut self, event: CoordinatorEvent) {
        let begun = Instant::now();
        // A word of a worker that is gone may be rejected, and costs time too.
        let _ = self.machine.handle(event, self.now);
        let _ = self.machine.next_deadline();
        self.spent += begun.elapsed();
        self.events += 1;
        while let Some(command) = self.machine.poll_command() {
            if let CoordinatorCommand::Send { connection, message } = command {
                self.messages += 1;
                self.deliver(connection, message);
            }
        }
    }

    fn deliver(&mut self, to: Connection, message: CoordinatorMessage) {
        let worker = to.0 as usize;
        self.happen(worker, WorkerEvent::Message(message));
    }

    fn happen(&mut self, worker: usize, event: WorkerEvent) {
        let handled = self.workers[worker].handle(event, self.now);
        handled.expect("a worker that nothing befalls takes in what it is told");
        self.busy.push_back(worker);
    }

    /// Carries out what workers want, until nobody wants anything.
    fn settle(&mut self) {
        while let Some(worker) = self.busy.pop_front() {
            while let Some(command) = self.workers[worker].poll_command() {
                match command {
                    WorkerCommand::Send(message) => {
                        self.messages += 1;
                        let connection = Connection(worker as u64);
                        self.tell(CoordinatorEvent::Message { connection, message });
                    }
                    WorkerCommand::Prepare(_) => self.happen(worker, WorkerEvent::Prepared(prepared(100_000))),
                    WorkerCommand::Connect { assign, .. } => {
                        self.happen(
                            worker,
                            WorkerEvent::RingConnected { generation: assign.generation, gpu: None, communicator: None },
                        );
                    }
                    WorkerCommand::Halt => {
                        let held = Some((Step(STEPS), Digest([3; 32])));
                        let ring_address = address(worker, 9001);
                        let generation = Generation(1);
                        self.happen(worker, WorkerEvent::Rested { generation, held, ring_address });
                    }
                    _ => {}
                }
            }
        }
    }

    /// A step of all workers, and the heartbeats that fall into it.
    fn step(&mut self, step: Step) {
        self.now = self.now.after(STEP);
        self.happen(0, WorkerEvent::Stepped(step_report(Generation(1), step)));
        for worker in 0..self.workers.len() {
            if self.workers[worker].next_deadline().is_some_and(|deadline| deadline <= self.now) {
                self.happen(worker, WorkerEvent::Tick);
            }
        }
        self.settle();
        if self.machine.next_deadline().is_some_and(|deadline| deadline <= self.now) {
            self.tell(CoordinatorEvent::Tick);
        }
    }
}

fn address(worker: usize, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, (worker >> 16) as u8, (worker >> 8) as u8, worker as u8)), port)
}
