//! Which coordinator a command means that talks to one.

use std::path::Path;

use strath_node::run_folder::{Living, living, newest_coordinator};

use crate::outcome::Failure;
use crate::runtime;

/// A coordinator to talk to.
pub struct Meant {
    /// Where it is, host:port.
    pub address: String,
    /// The token that it asks for, where that was found.
    pub token: Option<String>,
}

/// The coordinator at `address`, of the run in `folder`, or of the newest run under `runs/`.
///
/// # Errors
/// [`Failure`] where there is none, or the address is none.
pub fn meant(address: Option<String>, folder: Option<&Path>) -> Result<Meant, Failure> {
    let found = match folder {
        Some(folder) => Some(living(folder).ok_or_else(|| {
            let folder = folder.display();
            Failure::Other(format!(
                "no run is under way in {folder}: no coordinator.json; name another folder with --run"
            ))
        })?),
        None => newest_coordinator(Path::new("runs")).and_then(|folder| living(&folder)),
    };
    let meant = match (address, found) {
        (Some(address), found) => {
            // A token is for the coordinator that made it.
            let token = found.filter(|found| found.coordinator.address == address).and_then(|found| found.token);
            Meant { address, token }
        }
        (None, Some(Living { coordinator, token })) => Meant { address: coordinator.address, token },
        (None, None) => {
            let message = "no run is under way here: no runs/*/coordinator.json; name one with --coordinator HOST:PORT";
            return Err(Failure::Other(message.into()));
        }
    };
    runtime::check_host_port(&meant.address)?;
    Ok(meant)
}
