//! A coordinator to talk to, and things to say.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use strath_core::{Digest, Generation, Rank, RunId, Step, Ticket, WorkerId};
use strath_protocol::message::{
    Admitted, Assign, CoordinatorMessage, Finished, Job, Member, Phase, Progress, Purpose, Register, State,
    WorkerMessage,
};
use strath_protocol::{ClusterStatus, Connection};
use strath_rpc::{DrainCall, Server, ServerTls, Session, SessionEvent, SessionHappening};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

/// Long enough for a loaded machine; nothing that works takes it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What "within milliseconds" may take on a loaded machine.
pub(crate) const SOON: Duration = Duration::from_secs(2);

pub(crate) struct Coordinator {
    pub(crate) server: Server,
    pub(crate) events: Receiver<SessionEvent>,
    pub(crate) drains: Receiver<DrainCall>,
    pub(crate) address: SocketAddr,
}

pub(crate) fn coordinator() -> Coordinator {
    coordinator_showing(None)
}

pub(crate) fn coordinator_showing(cluster: Option<ClusterStatus>) -> Coordinator {
    serving(None, cluster)
}

pub(crate) fn serving(tls: Option<ServerTls>, cluster: Option<ClusterStatus>) -> Coordinator {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (server, events, drains) = Server::start(listener, tls, Arc::new(move || cluster.clone())).unwrap();
    Coordinator { server, events, drains, address }
}

impl Coordinator {
    pub(crate) async fn worker(&mut self) -> (Session, Connection) {
        let session = Session::connect(&self.address.to_string(), PATIENCE, None).await.unwrap();
        let event = self.event().await;
        assert_eq!(event.what, SessionHappening::Connected(session.local_address()));
        (session, event.connection)
    }

    /// A worker that has its place in a generation, and so may send states.
    pub(crate) async fn placed_worker(&mut self) -> (Session, Connection) {
        let (mut session, connection) = self.worker().await;
        self.place(&mut session, connection).await;
        (session, connection)
    }

    /// Gives a worker its place in a generation.
    pub(crate) async fn place(&mut self, session: &mut Session, connection: Connection) {
        self.server.send(connection, assign());
        assert_eq!(received(session).await, assign());
    }

    pub(crate) async fn event(&mut self) -> SessionEvent {
        timeout(PATIENCE, self.events.recv()).await.unwrap().unwrap()
    }

    pub(crate) async fn message(&mut self) -> WorkerMessage {
        match self.event().await.what {
            SessionHappening::Message(message) => message,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn disconnected(&mut self) -> String {
        match self.event().await.what {
            SessionHappening::Disconnected(cause) => cause,
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn register() -> WorkerMessage {
    WorkerMessage::Register(Register {
        version: "0.1.0".into(),
        token: None,
        ring_address: (Ipv4Addr::LOCALHOST, 7000).into(),
        host: "here".into(),
        pid: 1,
        nonce: 1,
        cores: 2,
        returning: None,
    })
}

pub(crate) fn heartbeat(step: u64) -> WorkerMessage {
    WorkerMessage::Heartbeat(Progress {
        generation: Generation(1),
        step: Step(step),
        phase: Phase::Checkpoint,
        images_per_s: 1.5,
    })
}

pub(crate) fn finished() -> WorkerMessage {
    WorkerMessage::Finished(Finished {
        generation: Generation(1),
        step: Step(9),
        weights: Digest([7; 32]),
        stopped: false,
    })
}

pub(crate) fn state(model: usize, optimizer: usize) -> State {
    let bytes = |length: usize, seed: usize| (0..length).map(|i| ((i * 31 + seed) >> 3) as u8).collect();
    State {
        generation: Generation(1),
        step: Step(4),
        purpose: Purpose::Checkpoint,
        model: bytes(model, 1),
        optimizer: bytes(optimizer, 2),
    }
}

pub(crate) fn admitted() -> CoordinatorMessage {
    CoordinatorMessage::Admitted(Admitted {
        worker: WorkerId(3),
        run: RunId(5),
        configuration: "[run]\n".repeat(10_000),
        job: Job::Train,
        lease: Duration::from_secs(10),
        rejoin_timeout: Duration::from_secs(300),
    })
}

pub(crate) fn assign() -> CoordinatorMessage {
    let ring_address = (Ipv4Addr::LOCALHOST, 7000).into();
    CoordinatorMessage::Assign(Assign {
        generation: Generation(1),
        rank: Rank(0),
        members: vec![Member { worker: WorkerId(3), ring_address }],
        bounds: vec![0, 4],
        start: Step(0),
        steps: Step(9),
        state: None,
        keeps: false,
        unsettled: false,
        some_are_sent: false,
        ticket: Ticket::default(),
    })
}

pub(crate) async fn received(session: &mut Session) -> CoordinatorMessage {
    timeout(PATIENCE, session.receive()).await.unwrap().unwrap()
}
