//! Somebody between two ranks.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Passes bytes on between a rank that dials `from` and the one at `to`, with one bit of the byte numbered `at` turned over on the way there.
pub(crate) fn damage(from: &TcpListener, to: SocketAddr, at: usize) {
    let (mut dialled, _) = from.accept().unwrap();
    let mut passed_on = TcpStream::connect(to).unwrap();
    let (mut answers, mut answered) = (passed_on.try_clone().unwrap(), dialled.try_clone().unwrap());
    thread::spawn(move || std::io::copy(&mut answers, &mut answered));
    thread::spawn(move || {
        let (mut bytes, mut seen) = ([0; 4096], 0);
        while let Ok(read @ 1..) = dialled.read(&mut bytes) {
            if (seen..seen + read).contains(&at) {
                bytes[at - seen] ^= 0x10;
            }
            seen += read;
            if passed_on.write_all(&bytes[..read]).is_err() {
                return;
            }
        }
    });
}
