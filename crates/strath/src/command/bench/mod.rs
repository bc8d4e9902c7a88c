//! `strath bench`: the machine's own limits, and how close Strath is to them.

mod allreduce;
mod compute;
mod encrypted;
mod footprint;
mod forecast;
mod kernels;
mod link;
mod on_gpu;
mod peaks;
mod rank;
mod scale;
mod size;
mod step;
mod trained;

use clap::{Args, Subcommand};

use crate::outcome::Failure;

/// Measure the machine's own limits and how close Strath is to them
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  strath bench step configs/fashion-mnist.toml
  strath bench kernels configs/fashion-mnist.toml --batch 64
  strath bench allreduce --workers 4
  strath bench scale configs/fashion-mnist.toml --workers 64 --per-host 8 --link-gbit 10")]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Step(step::Step),
    Kernels(kernels::Kernels),
    Allreduce(allreduce::Allreduce),
    Scale(scale::Scale),
    #[command(hide = true)]
    AllreduceRank(rank::AllreduceRank),
}

impl Bench {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        match self.what {
            What::Step(step) => step.run(),
            What::Kernels(kernels) => kernels.run(),
            What::Allreduce(allreduce) => allreduce.run(),
            What::Scale(scale) => scale.run(),
            What::AllreduceRank(rank) => rank.run(),
        }
    }
}
