//! `strath config`

use std::path::PathBuf;

use clap::Args;

use crate::configuration::Changes;
use crate::outcome::Failure;
use crate::telling;

/// Print the effective configuration: each key's value, origin and meaning
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strath config                              the built-in digits
  strath config configs/fashion-mnist.toml --set sam.rho=0.1
  strath config --toml > my.toml             as a file to start from")]
pub struct Config {
    /// A configuration file [default: the built-in digits]
    #[arg(value_name = "CONFIG")]
    file: Option<PathBuf>,
    #[command(flatten)]
    changes: Changes,
    /// Print a TOML file instead of a table.
    #[arg(long)]
    toml: bool,
}

impl Config {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        let effective = self.changes.resolve(self.file.as_deref(), None)?;
        telling::warn(effective.warnings());
        if self.toml {
            return telling::print(&effective.to_toml());
        }
        let rows = effective.rows();
        let width = |column: &dyn Fn(&strath_core::config::Row) -> usize| rows.iter().map(column).max().unwrap_or(0);
        let (keys, values, origins) =
            (width(&|r| r.key.len()), width(&|r| r.value.len()).min(40), width(&|r| r.origin.to_string().len()));
        let lines: Vec<String> = rows
            .iter()
            .map(|row| {
                let origin = row.origin.to_string();
                format!("{:keys$}  {:values$}  {origin:origins$}  {}\n", row.key, row.value, row.meaning)
            })
            .collect();
        telling::print(&lines.concat())
    }
}
