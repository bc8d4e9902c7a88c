//! Somebody between a worker's ring and whoever dials it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What went over a connection: from whoever dialled, and back.
pub type Heard = [Vec<u8>; 2];

/// Passes on what goes over connections, writes it down, and may swallow it.
#[derive(Clone)]
pub struct Between {
    /// Where to dial.
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    /// What goes over the connections before this one is swallowed.
    silent: Arc<AtomicUsize>,
}

impl Between {
    /// Before a listener.
    pub fn new(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let between = Self { address, heard: Arc::default(), silent: Arc::default() };
        let passes_on = between.clone();
        thread::spawn(move || {
            for at in 0.. {
                let (dialled, _) = listener.accept().unwrap();
                passes_on.heard.lock().unwrap().push(Heard::default());
                // Not up yet: it will be dialled again.
                let Ok(passed_on) = TcpStream::connect(to) else { continue };
                for (way, (from, to)) in [(&dialled, &passed_on), (&passed_on, &dialled)].into_iter().enumerate() {
                    let (from, to, between) = (from.try_clone().unwrap(), to.try_clone().unwrap(), passes_on.clone());
                    thread::spawn(move || between.pass_on(from, to, at, way));
                }
            }
        });
        between
    }

    /// What went over each connection so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// Swallows from now on whatever goes over the connections that there are. They stand, and look well to either end.
    pub fn fall_silent(&self) {
        self.silent.store(self.heard.lock().unwrap().len(), Ordering::SeqCst);
    }

    /// Passes bytes on until there are no more, and keeps them.
    fn pass_on(&self, mut from: TcpStream, mut to: TcpStream, at: usize, way: usize) {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            if at < self.silent.load(Ordering::SeqCst) {
                continue;
            }
            self.heard.lock().unwrap()[at][way].extend_from_slice(&bytes[..read]);
            if to.write_all(&bytes[..read]).is_err() {
                break;
            }
        }
        // Whoever has gone needs no end.
        let _ = to.shutdown(Shutdown::Write);
    }
}
