//! Between the domain's values and the wire's: `From` on the way out, `TryFrom` on the way in.

mod coordinator;
mod drain;
mod status;
mod telemetry;
mod worker;

use std::net::SocketAddr;

use strath_core::{Digest, Generation, Step};
use strath_protocol::message::{CommunicatorId, Phase, Purpose, Split};

use crate::error::RpcError;
use crate::wire;

/// Longest text but for the configuration, bytes.
const TEXT_LIMIT: usize = 64 << 10;

/// Longest configuration, bytes.
const CONFIGURATION_LIMIT: usize = 1 << 20;
/// Bytes of a measurement's result: a landscape of 201 x 201 points.
pub(crate) const RESULT_LIMIT: usize = 7 << 19;

/// The value of a field that may not be absent.
pub(crate) fn required<T>(value: Option<T>, field: &'static str) -> Result<T, RpcError> {
    value.ok_or_else(|| RpcError::malformed(field, "absent or not known", "a value that this version knows"))
}

/// A text that is not too long.
pub(crate) fn text(value: String, field: &'static str) -> Result<String, RpcError> {
    bounded(value, TEXT_LIMIT, field)
}

fn bounded(value: String, limit: usize, field: &'static str) -> Result<String, RpcError> {
    if value.len() > limit {
        return Err(RpcError::malformed(
            field,
            format!("a text of {} bytes", value.len()),
            format!("at most {limit} bytes"),
        ));
    }
    Ok(value)
}

/// Free text on its way out, cut to what the other side takes: a failure must arrive, whatever its message.
pub(crate) fn clipped(mut value: String) -> String {
    if value.len() > TEXT_LIMIT {
        let boundary = (0..=TEXT_LIMIT).rev().find(|end| value.is_char_boundary(*end));
        value.truncate(boundary.unwrap_or(0));
    }
    value
}

/// A number that is finite.
fn finite(value: f64, field: &'static str) -> Result<f64, RpcError> {
    if value.is_finite() { Ok(value) } else { Err(RpcError::malformed(field, value.to_string(), "a finite number")) }
}

/// Numbers that are all finite.
fn all_finite(values: Vec<f32>, field: &'static str) -> Result<Vec<f32>, RpcError> {
    match values.iter().find(|value| !value.is_finite()) {
        None => Ok(values),
        Some(value) => Err(RpcError::malformed(field, value.to_string(), "finite numbers")),
    }
}

/// A generation that exists: they are counted from 1.
pub(crate) fn generation(value: u64, field: &'static str) -> Result<Generation, RpcError> {
    from_one(value, field).map(Generation)
}

/// A number of completed steps that is not none.
fn step(value: u64, field: &'static str) -> Result<Step, RpcError> {
    from_one(value, field).map(Step)
}

fn from_one(value: u64, field: &'static str) -> Result<u64, RpcError> {
    if value == 0 { Err(RpcError::malformed(field, "0", "a number from 1")) } else { Ok(value) }
}

/// A digest of the right length.
pub(crate) fn digest(bytes: &[u8], field: &'static str) -> Result<Digest, RpcError> {
    match bytes.try_into() {
        Ok(bytes) => Ok(Digest(bytes)),
        Err(_) => Err(RpcError::malformed(field, format!("{} bytes", bytes.len()), "the 32 bytes of a SHA-256")),
    }
}

/// A GPU's name; none: it has none, or none that sums by itself.
pub(crate) fn gpu(value: String, field: &'static str) -> Result<Option<String>, RpcError> {
    Ok(Some(text(value, field)?).filter(|gpu| !gpu.is_empty()))
}

/// What names the GPUs of a generation; no bytes: nothing does.
pub(crate) fn communicator(bytes: &[u8], field: &'static str) -> Result<Option<CommunicatorId>, RpcError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let found = || RpcError::malformed(field, format!("{} bytes", bytes.len()), "128 bytes, or none");
    Ok(Some(CommunicatorId(Box::new(bytes.try_into().map_err(|_| found())?))))
}

/// The other way.
pub(crate) fn communicator_bytes(communicator: Option<CommunicatorId>) -> Vec<u8> {
    communicator.map(|id| id.0.to_vec()).unwrap_or_default()
}

/// A socket address in digits.
fn address(value: String, field: &'static str) -> Result<SocketAddr, RpcError> {
    let value = text(value, field)?;
    value.parse().map_err(|_| RpcError::malformed(field, format!("{value:?}"), "a socket address `ip:port`"))
}

/// Both ways between an enum of the domain and the one of the same name and variants on the wire, which also has "none".
macro_rules! enumeration {
    ($name:ident, $outgoing:ident, $incoming:ident: $($variant:ident)*) => {
        pub(crate) fn $outgoing(value: $name) -> wire::$name {
            match value {
                $($name::$variant => wire::$name::$variant,)*
            }
        }

        pub(crate) fn $incoming(value: i32, field: &'static str) -> Result<$name, RpcError> {
            match wire::$name::try_from(value) {
                $(Ok(wire::$name::$variant) => Ok($name::$variant),)*
                Ok(wire::$name::Unspecified) | Err(_) => {
                    Err(RpcError::malformed(field, value.to_string(), concat!("a known ", stringify!($name))))
                }
            }
        }
    };
}

enumeration!(Split, split_out, split_in: Train Validation Test Noisy);
enumeration!(Purpose, purpose_out, purpose_in: Start Checkpoint Final Handover);
enumeration!(Phase, phase_out, phase_in:
    Joining Preparing Waiting Connecting Ascent Exchange Descent Reduce Update Evaluate Checkpoint Finished);
