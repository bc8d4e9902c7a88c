//! `strath`: sharpness-aware training at any scale.

mod command;
mod configuration;
mod opening;
mod outcome;
mod runtime;
mod telling;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::outcome::Failure;

/// A step allocates the same large blocks again and again. This allocator keeps them; the system's hands them back each time
/// and pays for fresh pages, a quarter of a small network's step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sharpness-aware training (SAM) with m-sharpness, data-parallel, to the same bits for any number of workers.
#[derive(Debug, Parser)]
#[command(
    name = "strath",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  strath train                              the built-in digits, in under a minute
  strath train configs/fashion-mnist.toml   60,000 images, two workers
  strath config configs/digits.toml         every key with its value, origin and meaning"
)]
struct Cli {
    /// How log lines on standard error look.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, global = true)]
    log_format: LogFormat,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(command::train::Train),
    Coordinator(command::coordinator::Coordinator),
    Worker(command::worker::Worker),
    Status(command::status::Status),
    Eval(command::eval::Eval),
    Config(command::config::Config),
    Data(command::data::Data),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging(cli.log_format, matches!(cli.command, Command::Worker(_)));
    let done = match cli.command {
        Command::Train(train) => train.run(),
        Command::Coordinator(coordinator) => coordinator.run(),
        Command::Worker(worker) => worker.run(),
        Command::Status(status) => status.run(),
        Command::Eval(eval) => eval.run(),
        Command::Config(config) => config.run(),
        Command::Data(data) => data.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            failure.exit_code()
        }
    }
}

/// Logs go to standard error; `RUST_LOG` chooses what, by default what a user of the command wants to see.
fn start_logging(format: LogFormat, is_worker: bool) {
    use tracing_subscriber::EnvFilter;
    let default = if is_worker { "warn,strath=info,strath_node=info" } else { "warn" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_target(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// Reports a failure that has no command to report it.
impl Failure {
    fn tell(&self) {
        eprintln!("{self}");
    }
}
