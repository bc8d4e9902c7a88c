//! TensorBoard's event files: TFRecord framing around the few protobuf messages that scalars need.
//!
//! A record is its length (u64), the masked CRC-32C of the length, the bytes, and their masked CRC-32C, all little-endian.
//! The messages are those of TensorFlow's `event.proto` and `summary.proto`, reduced to the fields used here.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prost::Message;

use crate::files::{self, FileError};
use crate::metrics::Line;

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

const PREFIX: &str = "events.out.tfevents.";

/// The event file of a session.
#[derive(Debug)]
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Starts the event file of `folder`: earlier ones are replaced by one that says what `lines` say, so that steps which a
    /// resumed run takes again are there once.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn create(folder: &Path, host: &str, time: f64, lines: &[Line]) -> Result<Self, FileError> {
        remove_event_files(folder)?;
        let path = folder.join(format!("{PREFIX}{:010}.{host}.{}", time as u64, std::process::id()));
        let file = File::create(&path).map_err(|e| FileError::new("make", &path, e))?;
        let mut events = Self { path, file };
        let version = Event { wall_time: time, step: 0, file_version: Some("brain.Event:2".into()), summary: None };
        events.record(&version)?;
        for line in lines {
            events.append(line)?;
        }
        Ok(events)
    }

    /// Adds a line of the metrics as scalars.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn append(&mut self, line: &Line) -> Result<(), FileError> {
        let (step, wall_time, scalars): (u64, f64, Vec<(String, f64)>) = match line {
            Line::Step(l) => {
                let scalars = [
                    ("clean_loss", l.clean_loss),
                    ("perturbed_loss", l.perturbed_loss),
                    ("sharpness", l.sharpness),
                    ("lr", l.lr),
                    ("gradient_norm", l.gradient_norm),
                    ("epsilon_norm", l.epsilon_norm),
                    ("zero_gradient_lanes", l.zero_gradient_lanes as f64),
                    ("images_per_s", l.images_per_s),
                    ("step_s", l.step_s),
                    ("data_s", l.data_s),
                    ("ascent_s", l.ascent_s),
                    ("epsilon_s", l.epsilon_s),
                    ("exchange_s", l.exchange_s),
                    ("descent_s", l.descent_s),
                    ("reduce_s", l.reduce_s),
                    ("update_s", l.update_s),
                ];
                let tag = |name: &str| match name.strip_suffix("_s").filter(|_| name != "images_per_s") {
                    Some(phase) => format!("seconds/{phase}"),
                    None => format!("train/{name}"),
                };
                let lanes = l.lanes.numbers().map(|(name, value)| (format!("lanes/{name}"), value));
                let rungs = l.lanes.ladder.iter().flat_map(|rung| {
                    let of = |what: &str| format!("ladder/{what}_m{}", rung.m);
                    [(of("gradient_norm"), Some(rung.gradient_norm)), (of("lift"), rung.lift)]
                });
                let rungs = rungs.filter_map(|(tag, value)| Some((tag, value?)));
                let survey = l.lanes.survey_s.map(|seconds| ("seconds/survey".to_string(), seconds));
                let scalars =
                    scalars.into_iter().map(|(name, value)| (tag(name), value)).chain(lanes).chain(rungs).chain(survey);
                (l.step, l.time, scalars.collect())
            }
            Line::Eval(l) => {
                let tag = |what: &str| format!("eval/{}_{what}", l.split);
                (l.step, l.time, vec![(tag("loss"), l.loss), (tag("error"), l.error)])
            }
            Line::Cluster(l) => (l.step, l.time, vec![("cluster/world_size".into(), l.world_size as f64)]),
        };
        let value = scalars.into_iter().map(|(tag, value)| Value { tag, simple_value: Some(value as f32) }).collect();
        self.record(&Event { wall_time, step: step as i64, file_version: None, summary: Some(Summary { value }) })
    }

    fn record(&mut self, event: &Event) -> Result<(), FileError> {
        let record = frame(&event.encode_to_vec());
        self.file.write_all(&record).map_err(|e| FileError::new("write", &self.path, e))
    }
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(bytes);
    record.extend(masked_crc(bytes).to_le_bytes());
    record
}

/// TFRecord's mask: `rotate_right(crc, 15) + 0xa282ead8`.
fn masked_crc(bytes: &[u8]) -> u32 {
    strath_collective::checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Removes every event file of a folder.
///
/// # Errors
/// [`FileError`].
pub fn remove_event_files(folder: &Path) -> Result<(), FileError> {
    let list = || -> io::Result<Vec<PathBuf>> { fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect() };
    for path in list().map_err(|e| FileError::new("list", folder, e))? {
        if path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(PREFIX)) {
            files::remove(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::EvalLine;

    #[test]
    fn the_mask_is_that_of_tfrecord() {
        // CRC-32C of "123456789" is 0xe3069283 (RFC 3720, appendix B.4 uses the same polynomial).
        assert_eq!(masked_crc(b"123456789"), 0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8));
    }

    #[test]
    fn a_new_event_file_replaces_the_old_and_frames_what_the_lines_say() {
        let folder = tempfile::tempdir().unwrap();
        let line =
            Line::Eval(EvalLine { step: 3, epoch: 1.0, time: 5.0, split: "test".into(), loss: 0.5, error: 0.25 });
        drop(EventFile::create(folder.path(), "h", 1.0, &[]).unwrap());
        drop(EventFile::create(folder.path(), "h", 2.0, &[line]).unwrap());
        let files: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(files.len(), 1);
        let bytes = fs::read(&files[0]).unwrap();
        let mut events = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let body = &rest[12..12 + length];
            assert_eq!(&rest[..length + 16], &frame(body)[..]);
            events.push(Event::decode(body).unwrap());
            rest = &rest[length + 16..];
        }
        assert_eq!(events[0].file_version.as_deref(), Some("brain.Event:2"));
        let values: Vec<_> =
            events[1].summary.as_ref().unwrap().value.iter().map(|v| (v.tag.as_str(), v.simple_value)).collect();
        assert_eq!((events[1].step, values), (3, vec![("eval/test_loss", Some(0.5)), ("eval/test_error", Some(0.25))]));
    }
}
