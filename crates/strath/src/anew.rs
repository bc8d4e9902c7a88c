//! A process that replaces itself by a new one of the same program, and what a worker's leaves to the next.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::MemfdFlags;
use strath_node::worker::Kept;

use crate::outcome::Failure;

/// Becomes a process as new as the first, with the same arguments but for `flag`, which is `value` then: what was pinned, kept or opened is none of
/// the next one's. Comes back only where that fails.
pub fn begin(flag: &str, value: &str) -> Failure {
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == flag) {
        arguments.drain(at..(at + 2).min(arguments.len()));
    }
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return Failure::other(error),
    };
    let error = Command::new(program).args(arguments).args([flag, value]).exec();
    Failure::Other(format!("cannot start again with {flag} {value}: {error}"))
}

/// What a worker's process leaves to the one that takes its place.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Estate {
    /// The join token.
    pub token: Option<String>,
    /// The state that it held.
    pub kept: Option<Kept>,
}

/// Parts of an estate: a length of 8 bytes each, then their bytes. An empty token or model file: there is none.
const PARTS: usize = 3;

impl Estate {
    /// Puts it into memory that outlives this process's image, and says where.
    ///
    /// # Errors
    /// The system's.
    pub fn leave(&self) -> std::io::Result<OwnedFd> {
        let memory = rustix::fs::memfd_create("strath-worker", MemfdFlags::empty())?;
        let mut file = std::fs::File::from(memory);
        let (model, optimizer) = self.kept.as_ref().map_or((&[][..], &[][..]), |kept| (&kept.model, &kept.optimizer));
        let parts = [self.token.as_deref().unwrap_or_default().as_bytes(), model, optimizer];
        for part in parts {
            file.write_all(&(part.len() as u64).to_le_bytes())?;
        }
        parts.iter().try_for_each(|part| file.write_all(part))?;
        Ok(file.into())
    }

    /// Takes what lies there, and gives the memory back.
    ///
    /// # Errors
    /// Where there is none, or it is not whole.
    pub fn take(descriptor: i32) -> Result<Self, String> {
        let doing = |error: std::io::Error| format!("cannot read what the process before this one left: {error}");
        let path = format!("/proc/self/fd/{descriptor}");
        let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(doing)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(doing)?;
        file.set_len(0).map_err(doing)?;
        Self::parse(&bytes).ok_or_else(|| "what the process before this one left is not whole".into())
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (lengths, mut rest) = bytes.split_at_checked(PARTS * 8)?;
        let mut parts = lengths.as_chunks::<8>().0.iter().map(|length| {
            let (part, after) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
            rest = after;
            Some(part.to_vec())
        });
        let (token, model, optimizer) = (parts.next()??, parts.next()??, parts.next()??);
        drop(parts);
        let token = String::from_utf8(token).ok()?;
        rest.is_empty().then(|| Self {
            token: Some(token).filter(|token| !token.is_empty()),
            kept: Some(Kept { model, optimizer }).filter(|kept| !kept.model.is_empty()),
        })
    }

    /// Where it lies, as an argument.
    pub fn argument(memory: &OwnedFd, times: u32) -> String {
        format!("{},{times}", memory.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estate_is_taken_as_it_was_left_and_once() {
        let kept = Some(Kept { model: vec![1, 2, 3], optimizer: vec![4; 100_000] });
        for estate in [
            Estate::default(),
            Estate { token: Some("secret".into()), kept: None },
            Estate { token: None, kept: kept.clone() },
            Estate { token: Some("secret".into()), kept },
        ] {
            let memory = estate.leave().unwrap();
            assert_eq!(Estate::take(memory.as_raw_fd()), Ok(estate));
            assert!(Estate::take(memory.as_raw_fd()).is_err(), "its memory was given back");
        }
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        let whole = [&3u64.to_le_bytes()[..], &1u64.to_le_bytes(), &2u64.to_le_bytes(), b"abcdef"].concat();
        assert!(Estate::parse(&whole).is_some());
        for cut in 0..whole.len() {
            assert_eq!(Estate::parse(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(Estate::parse(&[&whole[..], b"g"].concat()), None);
        assert!(Estate::take(9_999).is_err());
    }
}
