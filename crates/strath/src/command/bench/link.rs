//! What a loopback connection carries one way: the bandwidth that an all-reduce over it cannot beat.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of one measurement, of which the fastest counts, and of one system call.
const BYTES: usize = 128 << 20;
const CALL: usize = 256 << 10;
const TIMES: usize = 5;
const DEADLINE: Duration = Duration::from_secs(20);

/// Bytes a second from one thread to another over loopback, in calls of 256 KiB.
///
/// # Errors
/// What the system says.
pub fn bandwidth() -> std::io::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let sender = thread::spawn(move || -> std::io::Result<()> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_write_timeout(Some(DEADLINE))?;
        let buffer = vec![1; CALL];
        for _ in 0..TIMES * BYTES / CALL {
            stream.write_all(&buffer)?;
        }
        Ok(())
    });
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut buffer = vec![0; CALL];
    let mut fastest = Duration::MAX;
    for _ in 0..TIMES {
        let since = Instant::now();
        for _ in 0..BYTES / CALL {
            stream.read_exact(&mut buffer)?;
        }
        fastest = fastest.min(since.elapsed());
    }
    sender.join().map_err(|_| std::io::Error::other("the sending thread panicked"))??;
    Ok(BYTES as f64 / fastest.as_secs_f64())
}
