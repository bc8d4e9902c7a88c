//! The sending side of a session: a bounded queue, and the pump that brings its messages to the wire.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc};
use tokio::time::timeout;

use crate::chunks::Cutter;
use crate::message::{Encoded, Message, Precedence};

/// Where messages wait. A message counts until it has gone to the wire, wherever it waits.
#[derive(Debug)]
pub(crate) struct Queue<M> {
    entries: mpsc::UnboundedSender<Entry<M>>,
    slots: Arc<Semaphore>,
}

impl<M> Clone for Queue<M> {
    fn clone(&self) -> Self {
        Self { entries: self.entries.clone(), slots: Arc::clone(&self.slots) }
    }
}

#[derive(Debug)]
enum Entry<M> {
    Message(M, OwnedSemaphorePermit),
    Close,
}

/// Why a message was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotQueued {
    Full,
    Over,
}

/// A queue with room for so many messages, and its pump.
pub(crate) fn queue<M: Message>(room: usize) -> (Queue<M>, Pump<M>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let slots = Arc::new(Semaphore::new(room));
    let pump =
        Pump { entries: receiver, slots: Arc::clone(&slots), behind: VecDeque::new(), transfer: None, closing: false };
    (Queue { entries: sender, slots }, pump)
}

impl<M: Message> Queue<M> {
    /// Queues a message where there is room.
    pub(crate) fn try_send(&self, message: M) -> Result<(), NotQueued> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|refused| match refused {
            TryAcquireError::NoPermits => NotQueued::Full,
            TryAcquireError::Closed => NotQueued::Over,
        })?;
        self.entries.send(Entry::Message(message, slot)).map_err(|_| NotQueued::Over)
    }

    /// Queues a message once there is room, if there is some within `patience`. Cancelled, it has not queued it.
    pub(crate) async fn send(&self, message: M, patience: Duration) -> Result<(), NotQueued> {
        let slot = match timeout(patience, Arc::clone(&self.slots).acquire_owned()).await {
            Ok(slot) => slot.map_err(|_| NotQueued::Over)?,
            Err(_) => return Err(NotQueued::Full),
        };
        self.entries.send(Entry::Message(message, slot)).map_err(|_| NotQueued::Over)
    }

    /// Takes nothing more; what is queued still goes out.
    pub(crate) fn close(&self) {
        self.slots.close();
        // A pump that is gone needs no telling.
        let _ = self.entries.send(Entry::Close);
    }
}

/// Brings queued messages to the wire, in order of [`Precedence`].
#[derive(Debug)]
pub(crate) struct Pump<M> {
    entries: mpsc::UnboundedReceiver<Entry<M>>,
    slots: Arc<Semaphore>,
    /// What keeps its place behind the state under way.
    behind: VecDeque<(M, OwnedSemaphorePermit)>,
    /// The state under way.
    transfer: Option<(Cutter, OwnedSemaphorePermit)>,
    closing: bool,
}

impl<M> Drop for Pump<M> {
    fn drop(&mut self) {
        self.slots.close();
    }
}

impl<M: Message> Pump<M> {
    /// Runs until the queue is closed and empty, or nobody takes from the wire any more.
    pub(crate) async fn run<T>(mut self, wire: mpsc::Sender<T>, wrap: fn(M::Wire) -> T) {
        loop {
            let message = tokio::select! {
                message = self.next() => message,
                () = wire.closed() => return,
            };
            let Some(message) = message else { return };
            if wire.send(wrap(message)).await.is_err() {
                return;
            }
        }
    }

    /// The next message for the wire; `None` at the end.
    async fn next(&mut self) -> Option<M::Wire> {
        loop {
            // What kept its place behind a state goes before anything newer, up to the next state.
            if self.transfer.is_none()
                && let Some((message, slot)) = self.behind.pop_front()
            {
                if let Some(wire) = self.begin(message, slot) {
                    return Some(wire);
                }
                continue;
            }
            if let Some((message, slot)) = self.take().await {
                match message.precedence() {
                    Precedence::InOrder if self.transfer.is_some() => {
                        self.behind.push_back((message, slot));
                        continue;
                    }
                    Precedence::InOrder | Precedence::Overtakes => {}
                    Precedence::Last => {
                        self.transfer = None;
                        self.behind.clear();
                    }
                }
                if let Some(wire) = self.begin(message, slot) {
                    return Some(wire);
                }
                continue;
            }
            let (cutter, _) = self.transfer.as_mut()?;
            match cutter.next() {
                Some(chunk) => return Some(M::chunk(chunk)),
                None => self.transfer = None,
            }
        }
    }

    /// The message for the wire, or the beginning of a transfer. States keep their place, so none is under way yet.
    fn begin(&mut self, message: M, slot: OwnedSemaphorePermit) -> Option<M::Wire> {
        match message.encode() {
            Encoded::Whole(wire) => Some(wire),
            Encoded::State(state) => {
                self.transfer = Some((Cutter::new(state), slot));
                None
            }
        }
    }

    /// The next queued message; waits for one only where nothing else is left to send.
    async fn take(&mut self) -> Option<(M, OwnedSemaphorePermit)> {
        loop {
            let entry = if self.transfer.is_none() && !self.closing {
                self.entries.recv().await
            } else {
                match self.entries.try_recv() {
                    Ok(entry) => Some(entry),
                    Err(TryRecvError::Empty) => return None,
                    Err(TryRecvError::Disconnected) => None,
                }
            };
            match entry {
                Some(Entry::Message(message, slot)) => return Some((message, slot)),
                Some(Entry::Close) => self.closing = true,
                None => {
                    self.closing = true;
                    return None;
                }
            }
        }
    }
}
