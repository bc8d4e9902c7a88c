//! `strath data`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use strath_data::DataError;

use crate::outcome::Failure;
use crate::telling;

/// Bring a public data set, or check one, by digest
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strath data fetch fashion-mnist --to data/fashion-mnist
  strath data verify fashion-mnist --at /usr/share/datasets/fashion-mnist
  strath train configs/fashion-mnist.toml --set data.path=data/fashion-mnist")]
pub struct Data {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Download a data set from its public address; files that are there and whole are kept.
    #[command(after_help = "\
Examples:
  strath data fetch fashion-mnist
  strath data fetch fashion-mnist --to /data/fashion-mnist --from http://mirror.example/fashion-mnist/")]
    Fetch {
        /// Its name, such as fashion-mnist.
        name: String,
        /// The folder to put it in [default: data/NAME]
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
        /// Another address that has the same files.
        #[arg(long, value_name = "URL")]
        from: Option<String>,
    },
    /// Check the files of a data set against their known digests.
    #[command(after_help = "\
Examples:
  strath data verify fashion-mnist --at /usr/share/datasets/fashion-mnist")]
    Verify {
        /// Its name, such as fashion-mnist.
        name: String,
        /// The folder it is in [default: data/NAME]
        #[arg(long, value_name = "DIR")]
        at: Option<PathBuf>,
    },
}

impl Data {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::Fetch { name, to, from } => {
                let to = to.unwrap_or_else(|| PathBuf::from("data").join(&name));
                let bar = telling::download_bar();
                let mut progress = |file: &str, done: u64, total: Option<u64>| {
                    bar.set_message(file.to_string());
                    bar.set_length(total.unwrap_or(done.max(1)));
                    bar.set_position(done);
                };
                let fetched = strath_data::fetch(&name, &to, from.as_deref(), &mut progress);
                bar.finish_and_clear();
                let fetched = fetched.map_err(failure)?;
                telling::print(&format!(
                    "{fetched}\ntrain on it with: strath train configs/{name}.toml --set data.path={}\n",
                    to.display()
                ))
            }
            Action::Verify { name, at } => {
                let at = at.unwrap_or_else(|| PathBuf::from("data").join(&name));
                telling::print(&format!("{}\n", strath_data::verify(&name, &at).map_err(failure)?))
            }
        }
    }
}

/// A name that is none is bad usage.
fn failure(error: DataError) -> Failure {
    match error {
        DataError::UnknownSet { .. } => Failure::Usage(error.to_string()),
        other => Failure::other(other),
    }
}
