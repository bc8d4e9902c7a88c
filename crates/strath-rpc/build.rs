//! Compiles the wire format. protox parses it in Rust, so that no protoc need be installed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let proto = "../../proto";
    println!("cargo::rerun-if-changed={proto}/strath/v1/strath.proto");
    let files = protox::compile(["strath/v1/strath.proto"], [proto])?;
    let codec = "crate::counted::CountedCodec";
    // Thousands of reports may come at once, most without it.
    let boxed = ".strath.v1.StepReport.telemetry";
    tonic_prost_build::configure().build_transport(false).codec_path(codec).boxed(boxed).compile_fds(files)?;
    Ok(())
}
