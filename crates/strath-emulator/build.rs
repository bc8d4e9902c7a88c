//! Compiles the kernels for the processor, where there is a C++ compiler: once, not in every process that runs them.

use std::path::Path;
use std::process::Command;

/// Fortified, longjmp would take another stack for a mistake.
const FLAGS: [&str; 7] = ["-std=c++20", "-O1", "-U_FORTIFY_SOURCE", "-ffp-contract=off", "-shared", "-fPIC", "-o"];

fn main() {
    for file in ["build.rs", "src/shim.h", "src/table.h"] {
        println!("cargo::rerun-if-changed={file}");
    }
    let out = std::env::var("OUT_DIR").expect("cargo says where");
    let (shim, table) = (include_str!("src/shim.h"), include_str!("src/table.h"));
    let mut missing = String::new();
    for (activation, variable) in [("float", "STRATH_EMULATOR_F32"), ("bf16", "STRATH_EMULATOR_BF16")] {
        let at = |ending| Path::new(&out).join(format!("{activation}.{ending}"));
        let (source, library) = (at("cpp"), at("so"));
        let text = format!("{shim}\n#define ACTIVATION {activation}\n{}\n{table}", strath_cuda::KERNELS);
        std::fs::write(&source, text).expect("cargo's folder can be written to");
        match Command::new("c++").args(FLAGS).arg(&library).arg(&source).output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => panic!("c++ does not take the kernels:\n{}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => missing = format!("c++: {error}"),
        }
        println!("cargo::rustc-env={variable}={}", library.display());
    }
    println!("cargo::rustc-env=STRATH_EMULATOR_MISSING={missing}");
}
