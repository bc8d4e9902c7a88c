//! What a run's owner finds in its folder while its coordinator lives.

use std::fs;
use std::path::Path;

use super::{COORDINATOR, CoordinatorFile, TOKEN, read_coordinator};

/// A coordinator that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Living {
    /// Where it is.
    pub coordinator: CoordinatorFile,
    /// The token that it asks for, where it asks for one and this user may read it.
    pub token: Option<String>,
}

/// The coordinator whose run is in a folder, where it says where it is.
pub fn living(folder: &Path) -> Option<Living> {
    let coordinator = read_coordinator(&folder.join(COORDINATOR))?;
    // Without it, the coordinator says what is missing.
    let token = fs::read_to_string(folder.join(TOKEN)).ok();
    Some(Living { coordinator, token })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use strath_core::RunId;

    use super::*;
    use crate::run_folder::{Existing, RunFolder};

    #[test]
    fn the_token_is_for_the_owner_alone_and_gone_with_the_coordinator() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::open(folder.path(), Existing::Refuse, RunId(1)).unwrap();
        let address = "127.0.0.1:9".into();
        let coordinator = CoordinatorFile { address, pid: 42, host: "here".into(), run: run.run().to_string() };
        run.write_coordinator(&coordinator).unwrap();
        assert_eq!(living(folder.path()), Some(Living { coordinator: coordinator.clone(), token: None }));
        run.write_token("secret").unwrap();
        let mode = fs::metadata(folder.path().join(TOKEN)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(living(folder.path()), Some(Living { coordinator, token: Some("secret".into()) }));
        drop(run);
        assert_eq!(living(folder.path()), None);
        assert!(!folder.path().join(TOKEN).exists());
    }
}
