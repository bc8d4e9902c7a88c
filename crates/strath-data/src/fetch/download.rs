//! One file over HTTP, bounded in size and in time.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use crate::error::DataError;

/// How long a download may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// A server that sends nothing for so long is given up.
    pub(super) silence: Duration,
    /// A body that takes longer is given up, however steadily it trickles.
    pub(super) whole: Duration,
}

/// For a user who waits: 30 MB in an hour is a modem's speed.
pub(super) const PATIENCE: Patience = Patience { silence: Duration::from_secs(30), whole: Duration::from_secs(3600) };

/// Writes what `address` answers to the file `to` and syncs it; `progress` hears the bytes so far and in all.
///
/// The bytes are kept as they come: a server that declares a `.gz` file as a content encoding still means the file.
///
/// # Errors
/// [`DataError::Fetch`] for another answer than the file, for more than `limit` bytes and for a server that is too slow;
/// [`DataError::Io`] where the file cannot be written.
pub(super) fn download(
    address: &str,
    to: &Path,
    limit: u64,
    patience: Patience,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<(), DataError> {
    let fail = |reason: String| DataError::Fetch { address: address.into(), reason };
    let mut response = agent(patience).get(address).call().map_err(|e| fail(e.to_string()))?;
    let length = response.headers().get("content-length").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    if let Some(length) = length.filter(|length| *length > limit) {
        return Err(fail(format!("found {length} bytes, expected at most {limit}")));
    }
    let mut out = File::create(to).map_err(|e| DataError::io("make", to, e))?;
    let mut body = response.body_mut().as_reader();
    let mut buffer = vec![0; 64 << 10];
    let mut done = 0;
    loop {
        let read = body.read(&mut buffer).map_err(|e| fail(format!("the connection broke after {done} bytes: {e}")))?;
        if read == 0 {
            break;
        }
        done += read as u64;
        if done > limit {
            return Err(fail(format!("found more bytes, expected at most {limit}")));
        }
        out.write_all(&buffer[..read]).map_err(|e| DataError::io("write", to, e))?;
        progress(done, length);
    }
    if let Some(length) = length.filter(|length| *length != done) {
        return Err(fail(format!("found {done} bytes, expected {length}")));
    }
    out.sync_all().map_err(|e| DataError::io("sync", to, e))
}

fn agent(patience: Patience) -> ureq::Agent {
    let Patience { silence, whole } = patience;
    ureq::Agent::config_builder()
        .timeout_resolve(Some(silence))
        .timeout_connect(Some(silence))
        .timeout_send_request(Some(silence))
        .timeout_recv_response(Some(silence))
        .timeout_per_read(Some(silence))
        .timeout_recv_body(Some(whole))
        .build()
        .into()
}
