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
    let (source, library) = (Path::new(&out).join("kernels.cpp"), Path::new(&out).join("kernels.so"));
    let (shim, table) = (include_str!("src/shim.h"), include_str!("src/table.h"));
    let text = format!("{shim}\n#define ACTIVATION float\n{}\n{table}", strath_cuda::KERNELS);
    std::fs::write(&source, text).expect("cargo's folder can be written to");
    let said = match Command::new("c++").args(FLAGS).arg(&library).arg(&source).output() {
        Ok(output) if output.status.success() => String::new(),
        Ok(output) => panic!("c++ does not take the kernels:\n{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => format!("c++: {error}"),
    };
    println!("cargo::rustc-env=STRATH_EMULATOR_LIBRARY={}", library.display());
    println!("cargo::rustc-env=STRATH_EMULATOR_MISSING={said}");
}
