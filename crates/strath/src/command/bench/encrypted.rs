//! `strath bench allreduce --tls`: what encryption costs, beside the same in clear and what one core can encrypt.

use std::hint::black_box;
use std::time::{Duration, Instant};

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::Serialize;
use time::OffsetDateTime;

use super::allreduce::{Carrier, Measured, Ranks, name};
use super::size::Size;
use crate::outcome::Failure;
use crate::telling;

/// Turns of in clear, then encrypted; each size's median counts.
const TURNS: usize = 5;
/// Plaintext of a full record of TLS.
const RECORD: usize = 16 << 10;
/// Records of one measurement, of which the fastest counts.
const RECORDS: usize = 512;
/// What encryption may take, in times of what the cipher alone takes.
const ALLOWANCE: f64 = 1.3;

/// A line of the result.
#[derive(Debug, Serialize)]
struct Row {
    workers: u32,
    bytes: usize,
    reduce: String,
    algorithm: String,
    plain_us: f64,
    tls_us: f64,
    aes_gcm_gbs: f64,
    allowed_us: f64,
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Usage`] where frames go through memory, which nothing encrypts; what the ranks ended with.
pub fn run(mut what: Measured, json: bool) -> Result<(), Failure> {
    if what.transport == Carrier::Shm {
        return Err(Failure::Usage("--tls is for connections: memory that ranks share is not encrypted".into()));
    }
    what.transport = Carrier::Tcp;
    let folder = tempfile::tempdir().map_err(Failure::other)?;
    let certs = folder.path().join("certs");
    strath_rpc::tls::make(&certs, 1, OffsetDateTime::now_utc()).map_err(Failure::other)?;
    let mut times = vec![[const { Vec::new() }; 2]; what.sizes.len()];
    let mut algorithms = vec![String::new(); what.sizes.len()];
    let mut rate = 0.0_f64;
    for _ in 0..TURNS {
        rate = rate.max(aes_gcm()?);
        for (protection, certs) in [None, Some(certs.as_path())].into_iter().enumerate() {
            let ranks = Ranks::start(&what, certs)?;
            for (times, algorithm) in times.iter_mut().zip(&mut algorithms) {
                let timing = ranks.next()?;
                times[protection].push(timing.us);
                *algorithm = timing.algorithm;
            }
            ranks.finish()?;
        }
    }
    if !json {
        telling::print(&header(rate))?;
    }
    for ((size, times), algorithm) in what.sizes.iter().zip(times).zip(algorithms) {
        let [plain_us, tls_us] = times.map(median);
        let n = f64::from(what.workers);
        // As much is decrypted as is encrypted.
        let bytes = 2.0 * (2.0 * (n - 1.0) / n * size.0 as f64);
        let allowed_us = plain_us + ALLOWANCE * 1e6 * bytes / rate;
        let (workers, reduce) = (what.workers, name(&what.reduce));
        let aes_gcm_gbs = rate / 1e9;
        let row = Row { workers, bytes: size.0, reduce, algorithm, plain_us, tls_us, aes_gcm_gbs, allowed_us };
        telling::print(&if json { serde_json::to_string(&row).map_err(Failure::other)? + "\n" } else { row.line() })?;
    }
    Ok(())
}

fn header(rate: f64) -> String {
    format!(
        "one core encrypts and decrypts {:.2} GB/s with AES-128-GCM\n{:>7} {:>8} {:>6} {:>9} {:>10} {:>10} {:>6} {:>10}\n",
        rate / 1e9,
        "workers",
        "bytes",
        "reduce",
        "algorithm",
        "plain us",
        "TLS us",
        "ratio",
        "allowed us"
    )
}

impl Row {
    fn line(&self) -> String {
        format!(
            "{:>7} {:>8} {:>6} {:>9} {:>10.1} {:>10.1} {:>6.2} {:>10.1}\n",
            self.workers,
            Size(self.bytes).to_string(),
            self.reduce,
            self.algorithm,
            self.plain_us,
            self.tls_us,
            self.tls_us / self.plain_us,
            self.allowed_us
        )
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Bytes a second that one core encrypts, or decrypts, in records that are in its cache.
fn aes_gcm() -> Result<f64, Failure> {
    let broken = |_| Failure::Other("AES-128-GCM does not work here".into());
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).map_err(broken)?);
    let mut record = vec![1_u8; RECORD];
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let since = Instant::now();
        for number in 0..RECORDS as u32 {
            let nonce = || {
                let mut nonce = [0; 12];
                nonce[..4].copy_from_slice(&number.to_le_bytes());
                Nonce::assume_unique_for_key(nonce)
            };
            key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut record).map_err(broken)?;
            let opened = key.open_in_place(nonce(), Aad::empty(), black_box(&mut record)).map_err(broken)?.len();
            record.truncate(opened);
        }
        fastest = fastest.min(since.elapsed());
    }
    Ok((2 * RECORDS * RECORD) as f64 / fastest.as_secs_f64())
}
