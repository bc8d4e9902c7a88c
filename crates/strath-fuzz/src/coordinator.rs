//! The coordinator's machine among workers that say anything at any time.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use strath_core::config::{Config, Layers, MOST_WORKERS};
use strath_core::{Generation, RingKey, RunId, Timestamp, WorkerId};
use strath_protocol::message::{DrainRequest, Job, Shortage};
use strath_protocol::{Connection, Coordinator, CoordinatorEvent as Event, Former, Gather, Settings};
use strath_rpc::untrusted;

use crate::input::Input;
use crate::memory::{Bound, within};

/// Of a machine, the copy of it that it is compared with, and what waits to be sent: a message answers at most with one to each worker.
const MACHINE: Bound = Bound { times: 4096, beside: 4 << 20 };
/// Most events of an execution: each is a copy of the machine.
const MOST_EVENTS: usize = 256;

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let text =
        "[run]\nsteps = 3\n[data]\nkind = \"digits\"\n[model]\nkind = \"convnet\"\n[batch]\nsize = 8\n[sam]\nm = 2\n";
    let layers = Layers::new().file(text, "run.toml", Path::new("/"));
    layers.and_then(Layers::resolve).expect("a small configuration is valid").config
});

fn machine(workers: usize) -> Coordinator {
    let settings = Settings {
        version: "1".into(),
        token: None,
        ring_key: RingKey([9; 16]),
        run: RunId(7),
        configuration: String::new(),
        config: CONFIG.clone(),
        job: Job::Train,
        gather: Gather::Exactly(workers),
        most_workers: MOST_WORKERS as usize,
        generation: Generation(4),
        start: None,
        former: Former::default(),
    };
    Coordinator::new(settings, Timestamp(Duration::ZERO))
}

/// Events: connections that begin and end, messages of workers, requests, and time that passes.
pub fn coordinator(bytes: &[u8]) {
    LazyLock::force(&CONFIG);
    within(MACHINE, bytes, || {
        let mut input = Input::new(bytes);
        let mut machine = machine(1 + usize::from(input.u8() % 3));
        let mut now = Timestamp(Duration::ZERO);
        for _ in 0..MOST_EVENTS {
            if input.is_empty() {
                return;
            }
            if let Some(event) = event(&mut input, &mut now) {
                handle(&mut machine, event, now);
            }
        }
    });
}

fn event(input: &mut Input<'_>, now: &mut Timestamp) -> Option<Event> {
    let (kind, worker) = (input.u8(), u64::from(input.u8() % 4));
    let connection = Connection(worker);
    Some(match kind % 8 {
        0 => Event::Connected { connection, address: SocketAddr::from(([127, 0, 0, 1], 9000 + worker as u16)) },
        1 => Event::Disconnected { connection, cause: "it broke".into() },
        2 => {
            *now = now.after(Duration::from_millis(u64::from(input.u16())));
            Event::Tick
        }
        3 if kind & 0x80 != 0 => Event::StopRequested,
        3 => {
            let shortage = if kind & 0x40 != 0 { Shortage::Accept } else { Shortage::Refuse };
            Event::DrainRequested(DrainRequest { worker: WorkerId(worker), shortage, token: None })
        }
        _ => {
            let (mut messages, _) = untrusted::from_worker(std::iter::once(input.piece()));
            Event::Message { connection, message: messages.pop()? }
        }
    })
}

/// What is rejected changes nothing; what is not leaves a machine that can say how it stands.
fn handle(machine: &mut Coordinator, event: Event, now: Timestamp) {
    let before = machine.clone();
    if let Err(rejected) = machine.handle(event, now) {
        assert!(*machine == before, "{rejected}, and not unchanged");
        return;
    }
    while machine.poll_command().is_some() {}
    assert!(machine.status(now).workers.len() <= 4);
    assert!(machine.next_deadline().is_none_or(|deadline| deadline >= Timestamp(Duration::ZERO)));
}
