//! Writes the seeds of every target: `cargo run --release --example seeds`.

use std::{fs, io};

fn main() -> io::Result<()> {
    for (target, inputs) in strath_fuzz::seeds::all() {
        let folder = strath_fuzz::seeds::folder().join("seeds").join(target);
        fs::create_dir_all(&folder)?;
        for (name, bytes) in inputs {
            fs::write(folder.join(name), bytes)?;
        }
    }
    Ok(())
}
