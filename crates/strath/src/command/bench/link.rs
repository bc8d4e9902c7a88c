//! What carries an all-reduce on one host, one way: the bandwidth that it cannot beat.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of one measurement, of which the fastest counts, and of one system call.
const BYTES: usize = 128 << 20;
const CALL: usize = 256 << 10;
const TIMES: usize = 5;
/// Bytes of memory that two ranks share in either direction.
const SHARED: usize = 1 << 20;
const DEADLINE: Duration = Duration::from_secs(20);

/// Bytes a second that one core copies to memory such as two ranks share, 256 KiB at a time.
pub fn copying() -> f64 {
    let (buffer, mut shared) = (vec![1u8; CALL], vec![0u8; SHARED]);
    let mut fastest = Duration::MAX;
    for _ in 0..=TIMES {
        let since = Instant::now();
        for call in 0..BYTES / CALL {
            let at = call * CALL % SHARED;
            shared[at..at + CALL].copy_from_slice(black_box(&buffer));
        }
        black_box(&shared);
        fastest = fastest.min(since.elapsed());
    }
    BYTES as f64 / fastest.as_secs_f64()
}

/// Bytes a second from one thread to another over loopback, in calls of 256 KiB.
///
/// # Errors
/// What the system says.
pub fn loopback() -> std::io::Result<f64> {
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
