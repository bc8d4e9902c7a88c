//! `strath`: sharpness-aware training at any scale.

mod command;
mod configuration;
mod errand;
mod living;
mod log;
mod measuring;
mod opening;
mod outcome;
mod runtime;
mod split;
mod telling;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::log::LogFormat;

/// A step allocates the same large blocks again and again. This allocator keeps them; the system's hands them back each time
/// and pays for fresh pages, a quarter of a small network's step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sharpness-aware training (SAM) with m-sharpness, to the same bits for any number of workers.
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
    /// How lines on standard error look: text or json.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, hide_possible_values = true, global = true)]
    log_format: LogFormat,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(command::train::Train),
    Coordinator(command::coordinator::Coordinator),
    Worker(command::worker::Worker),
    Status(command::status::Status),
    Drain(command::drain::Drain),
    Eval(command::eval::Eval),
    Measure(command::measure::Measure),
    Study(command::study::Study),
    Report(command::report::Report),
    Bench(command::bench::Bench),
    Certs(command::certs::Certs),
    Config(command::config::Config),
    Data(command::data::Data),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    log::start(cli.log_format);
    let done = match cli.command {
        Command::Train(train) => train.run(),
        Command::Coordinator(coordinator) => coordinator.run(),
        Command::Worker(worker) => worker.run(),
        Command::Status(status) => status.run(),
        Command::Drain(drain) => drain.run(),
        Command::Eval(eval) => eval.run(),
        Command::Measure(measure) => measure.run(),
        Command::Study(study) => study.run(),
        Command::Report(report) => report.run(),
        Command::Bench(bench) => bench.run(),
        Command::Certs(certs) => certs.run(),
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
