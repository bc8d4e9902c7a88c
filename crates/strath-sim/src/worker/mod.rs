//! A worker's process: its sessions with the coordinator, one after the other, as in `strath_node::worker`.

mod feed;
mod runtime;
mod thread;
mod trainer;

use std::time::Duration;

use strath_core::{Generation, Timestamp};
use strath_protocol::message::{Purpose, Register, State as Sent};
use strath_protocol::{Connection, Worker, WorkerEvent, WorkerOutcome};

pub use self::feed::Fed;
pub use self::runtime::Report;
use self::runtime::Runtime;
pub use self::thread::{ThreadId, Told};
use crate::env::{Env, Input};
use crate::network::{Closing, Host, Packet, Plane, ProcessId, Side, StreamId};
use crate::quadratic::State;
use crate::words::prepared;

/// How long a worker tries to reach a coordinator that is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it looks for one that it has lost before it says that nobody is there.
const SEARCH: Duration = Duration::from_secs(10);
/// A worker that was given up stays away for so long before it tries again.
const AFTER_GIVEN_UP: Duration = Duration::from_secs(1);

/// A worker's process.
pub struct Process {
    id: ProcessId,
    host: Host,
    life: Life,
    /// Data and model are at hand from an earlier session.
    is_prepared: bool,
    /// The state that an earlier session has left.
    left: Option<State>,
    /// When it hears of the time next.
    timer: Option<Timestamp>,
}

/// Where a process is.
enum Life {
    /// It tries to reach the coordinator since then.
    Dialling(Timestamp),
    /// It takes part.
    InSession(Box<Runtime>),
    /// It has ended.
    Gone(End),
}

/// How a process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// As it should.
    InOrder,
    /// With an error: whoever looks after it starts it again.
    WithError,
}

impl Process {
    /// A process that begins.
    pub fn start(id: ProcessId, host: Host, env: &mut Env) -> Self {
        env.within(Duration::ZERO, id, Input::Dials);
        Self { id, host, life: Life::Dialling(env.now()), is_prepared: false, left: None, timer: None }
    }

    /// Where it runs.
    pub fn host(&self) -> Host {
        self.host
    }

    /// How it has ended, if it has.
    pub fn end(&self) -> Option<End> {
        if let Life::Gone(end) = self.life { Some(end) } else { None }
    }

    /// Takes in what has happened.
    pub fn take(&mut self, input: Input, env: &mut Env) {
        match (&mut self.life, input) {
            (Life::Dialling(since), Input::Dials) => {
                let since = *since;
                self.dial(since, env);
            }
            (Life::InSession(runtime), Input::Dials) => {
                if let Some(since) = runtime.sought_since {
                    self.dial_again(since, env);
                }
            }
            (Life::Dialling(_), Input::Signal) => self.life = Life::Gone(End::InOrder),
            (Life::InSession(runtime), Input::Timer) => {
                let due = self.timer.take().is_some_and(|timer| timer <= env.now());
                if due && runtime.machine.next_deadline().is_some_and(|deadline| deadline <= env.now()) {
                    self.happen(WorkerEvent::Tick, env);
                }
                self.set_timer(env);
            }
            (Life::InSession(_), Input::Signal) => self.happen(WorkerEvent::StopRequested, env),
            (Life::InSession(runtime), Input::Packet(stream, packet)) => {
                if stream == runtime.session && runtime.sought_since.is_some() {
                    // The rest of a session that is given up.
                } else if stream == runtime.session {
                    let event = match packet {
                        Packet::ToWorker(message) => WorkerEvent::Message(message),
                        Packet::Closed(closing) => WorkerEvent::Disconnected { cause: format!("{closing:?}") },
                        _ => return,
                    };
                    self.happen(event, env);
                } else {
                    runtime.hear(stream, packet, env);
                }
            }
            (Life::InSession(runtime), Input::Prepared(session)) if runtime.session == session => {
                self.is_prepared = true;
                runtime.offer_held();
                self.happen(WorkerEvent::Prepared(prepared(1000)), env);
            }
            (Life::InSession(runtime), Input::Reports(thread, report)) => {
                if let Some(event) = runtime.take(thread, report, env) {
                    self.happen(event, env);
                }
            }
            (Life::InSession(runtime), Input::FeedDeadline(id)) => runtime.check_feed(id, env),
            (Life::InSession(runtime), input) => runtime.of_thread(&input, env),
            _ => {}
        }
    }

    /// Tries to reach the coordinator.
    fn dial(&mut self, since: Timestamp, env: &mut Env) {
        let coordinator = Host(0);
        let Some(listener) = reachable(self.host, env) else {
            if env.now().since(since) >= CONNECT_TIMEOUT {
                env.log(|| format!("process {} gives up the coordinator", self.id.0));
                self.life = Life::Gone(End::WithError);
            } else {
                let again = env.draws.millis(100, 400);
                env.within(again, self.id, Input::Dials);
            }
            return;
        };
        let session = env.network.open(Plane::Control, (self.id, self.host), coordinator.address(7700), Some(listener));
        env.send(session, Side::Dialler, Packet::Opened);
        let ring_address = listen(self.id, self.host, env);
        let register = Register {
            version: "1".into(),
            token: None,
            ring_address,
            host: format!("h{}", self.host.0),
            pid: self.id.0 as u32,
            nonce: self.id.0,
            cores: 1,
            returning: None,
        };
        let machine = Worker::new("the coordinator".into(), register, env.now());
        let runtime =
            Runtime::new(machine, (self.id, self.host), session, ring_address, self.is_prepared, self.left.take());
        self.life = Life::InSession(Box::new(runtime));
        self.carry_out(env);
        self.set_timer(env);
    }

    /// Tries to reach a coordinator again that was lost.
    fn dial_again(&mut self, since: Timestamp, env: &mut Env) {
        let (id, host) = (self.id, self.host);
        let Life::InSession(runtime) = &mut self.life else { return };
        match reachable(host, env) {
            Some(listener) => {
                let address = Host(0).address(7700);
                runtime.session = env.network.open(Plane::Control, (id, host), address, Some(listener));
                runtime.sought_since = None;
                env.send(runtime.session, Side::Dialler, Packet::Opened);
                self.happen(WorkerEvent::Reconnected, env);
            }
            None if env.now().since(since) >= SEARCH => {
                self.happen(WorkerEvent::Disconnected { cause: "nobody is there".into() }, env);
            }
            None => {
                let again = env.draws.millis(20, 400);
                env.within(again, id, Input::Dials);
            }
        }
    }

    /// Has the machine take in an event, and what follows from it.
    fn happen(&mut self, event: WorkerEvent, env: &mut Env) {
        let mut next = Some(event);
        while let Some(event) = next {
            let Life::InSession(runtime) = &mut self.life else { return };
            runtime.handle(event, env);
            self.carry_out(env);
            let Life::InSession(runtime) = &mut self.life else { return };
            next = runtime.later.pop_front();
        }
        self.set_timer(env);
    }

    fn carry_out(&mut self, env: &mut Env) {
        let Life::InSession(runtime) = &mut self.life else { return };
        let Some(outcome) = runtime.carry_out(env) else { return };
        env.log(|| format!("process {} ends its session: {outcome:?}", self.id.0));
        runtime.halt(env);
        env.close(runtime.session, Side::Dialler, Closing::Finished);
        stop_listening(runtime.listener.take(), env);
        self.timer = None;
        if let WorkerOutcome::Lost { .. } | WorkerOutcome::Outdated { .. } = outcome {
            self.left = runtime.leave_behind(env);
        }
        self.life = match outcome {
            WorkerOutcome::Done | WorkerOutcome::Released | WorkerOutcome::Stopped => Life::Gone(End::InOrder),
            WorkerOutcome::Lost { .. } | WorkerOutcome::Outdated { .. } if self.is_prepared => {
                let is_given_up = matches!(outcome, WorkerOutcome::Outdated { .. });
                let pause = if is_given_up { AFTER_GIVEN_UP } else { Duration::ZERO };
                env.within(pause, self.id, Input::Dials);
                Life::Dialling(env.now())
            }
            WorkerOutcome::Lost { .. } | WorkerOutcome::Outdated { .. } | WorkerOutcome::Failed { .. } => {
                Life::Gone(End::WithError)
            }
        };
    }

    /// Has the machine hear of the time when it wants to.
    fn set_timer(&mut self, env: &mut Env) {
        let Life::InSession(runtime) = &self.life else { return };
        let Some(deadline) = runtime.machine.next_deadline() else { return };
        if self.timer.is_none_or(|timer| deadline < timer) {
            self.timer = Some(deadline);
            env.within(deadline.since(env.now()), self.id, Input::Timer);
        }
    }
}

/// The coordinator, where a host can reach it.
fn reachable(host: Host, env: &Env) -> Option<ProcessId> {
    let coordinator = Host(0);
    let blocked = env.network.is_blocked(host, coordinator).or(env.network.is_blocked(coordinator, host));
    env.coordinator.filter(|_| blocked.is_none())
}

/// Ports that a host has: few, so that the address of an old generation is that of another again.
const PORTS: u64 = 5;

/// Listens for peers.
fn listen(process: ProcessId, host: Host, env: &mut Env) -> std::net::SocketAddr {
    let first = env.number();
    let ports = (first..first + PORTS).map(|n| host.address(9000 + (n % PORTS) as u16));
    let address = ports.into_iter().find(|address| !env.listeners.contains_key(address)).unwrap_or(host.address(8999));
    env.listeners.insert(address, process);
    address
}

/// Listens no more; whoever has knocked meanwhile is refused by the kernel.
fn stop_listening(listener: Option<runtime::Listener>, env: &mut Env) {
    let Some(listener) = listener else { return };
    env.listeners.remove(&listener.address);
    for (stream, _) in listener.knocks {
        env.close(stream, Side::Listener, Closing::Ended);
    }
}

/// A state as the control plane carries it.
fn sent(state: &State, generation: Generation, purpose: Purpose) -> Sent {
    let model = state.encode().into();
    Sent { generation, step: state.step, purpose, model, optimizer: [0].into() }
}

/// The stream of a session, as both sides number it.
pub fn connection(stream: StreamId) -> Connection {
    Connection(stream.0)
}
