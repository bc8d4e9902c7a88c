//! `strath certs`

use std::path::PathBuf;

use clap::Args;
use strath_rpc::tls::{MakeError, make};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::outcome::Failure;
use crate::{log, telling};

/// Make a development authority with a coordinator's and a worker's certificate
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strath certs certs
  strath coordinator --certs certs --config configs/digits.toml --listen 10.0.0.1:7700
  strath worker --certs certs --coordinator 10.0.0.1:7700

Give workers' machines ca.pem, worker.pem and worker.key; the coordinator's ca.pem,
coordinator.pem and coordinator.key; keep ca.key, which signs further certificates, elsewhere.
Certificates of another authority serve as well, under these names: the coordinator's for
server authentication and the name coordinator.strath, a worker's for client authentication.")]
pub struct Certs {
    /// The folder to make.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Days until all of them expire.
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Where there is a set already, leave it as it is.
    #[arg(long)]
    keep: bool,
}

impl Certs {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        let made = match make(&self.folder, self.days, OffsetDateTime::now_utc()) {
            Err(MakeError::Exists(file)) if self.keep => {
                log::say(&format!("{} is there already: kept", file.display()));
                return Ok(());
            }
            made => made.map_err(Failure::other)?,
        };
        let mut lines: Vec<String> = made.files.iter().map(|file| file.display().to_string()).collect();
        lines.push(format!("valid until {}", made.expires.format(&Rfc3339).map_err(Failure::other)?));
        telling::print(&(lines.join("\n") + "\n"))
    }
}
