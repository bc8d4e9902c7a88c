//! Every target on every committed seed and finding, and on some thousand mutations of them that are the same each time.

use std::collections::BTreeMap;
use std::fs;
use std::panic::catch_unwind;
use std::path::Path;
use std::time::{Duration, Instant};

use strath_fuzz::{TARGETS, Target, seeds};

/// Mutations of each target, unless it takes longer than `SLICE`.
const MUTATIONS: u64 = 4000;
/// Time for the mutations of one target: a slow one or a slow machine does fewer.
const SLICE: Duration = Duration::from_millis(600);
/// The longest input that a mutation grows to.
const MOST_BYTES: usize = 4096;

/// The inputs in a folder of `fuzz/`, by name.
fn inputs(kind: &str, target: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = seeds::folder().join(kind).join(target);
    let Ok(files) = fs::read_dir(&folder) else { return BTreeMap::new() };
    let read = |path: &Path| (path.display().to_string(), fs::read(path).expect("a committed file is there"));
    files.map(|file| read(&file.expect("a folder can be listed").path())).collect()
}

/// What does not hold, for an input that is named.
fn run(target: Target, name: &str, bytes: &[u8]) {
    let outcome = catch_unwind(|| target(bytes));
    assert!(outcome.is_ok(), "{name} breaks: {:02x?}", &bytes[..bytes.len().min(256)]);
}

/// Numbers that look random: Marsaglia's xorshift64 (2003).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % most.max(1) as u64) as usize
    }

    /// Changes an input in one of the ways that find something soon: a bit, a byte, a number at a limit, a piece left out, said twice or
    /// taken from another input.
    fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(bytes.len());
        match self.below(7) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            1 if !bytes.is_empty() => bytes[at] = self.below(256) as u8,
            2 => {
                let limits: [u64; 8] = [0, 1, 0x7f, 0x80, 0xffff, 1 << 31, u64::MAX >> 1, u64::MAX];
                let limit = limits[self.below(limits.len())].to_le_bytes();
                let width = [1, 2, 4, 8][self.below(4)];
                for (byte, limit) in bytes[at..].iter_mut().zip(&limit[..width]) {
                    *byte = *limit;
                }
            }
            3 => {
                let end = at + self.below(bytes.len() - at + 1);
                bytes.drain(at..end);
            }
            4 => {
                let end = at + self.below(bytes.len() - at + 1).min(64);
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            5 => bytes.truncate(at),
            _ => {
                let from = self.below(other.len());
                let end = from + self.below(other.len() - from + 1).min(256);
                bytes.splice(at..at, other[from..end].iter().copied());
            }
        }
        bytes.truncate(MOST_BYTES);
    }
}

/// Seeds, then findings.
fn committed(target: &str) -> BTreeMap<String, Vec<u8>> {
    let mut committed = inputs("seeds", target);
    committed.extend(inputs("findings", target));
    committed
}

#[test]
fn every_committed_seed_and_finding_passes() {
    for (name, target) in TARGETS {
        let committed = committed(name);
        assert!(committed.len() > 3, "{name} has {} inputs", committed.len());
        for (file, bytes) in committed {
            run(*target, &file, &bytes);
        }
    }
}

#[test]
fn mutations_of_them_pass() {
    for (number, (name, target)) in (1..).zip(TARGETS) {
        let committed: Vec<Vec<u8>> = committed(name).into_values().collect();
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15 * number);
        let begun = Instant::now();
        for mutation in 0..MUTATIONS {
            let mut bytes = committed[numbers.below(committed.len())].clone();
            for _ in 0..=numbers.below(4) {
                let other = numbers.below(committed.len());
                numbers.mutate(&mut bytes, &committed[other]);
            }
            run(*target, &format!("mutation {mutation} of {name}"), &bytes);
            if begun.elapsed() > SLICE {
                break;
            }
        }
    }
}

#[test]
fn the_committed_seeds_are_those_that_the_code_makes() {
    let made = seeds::all();
    let targets: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(made.keys().copied().collect::<Vec<_>>(), targets, "every target has seeds, and they are in order");
    for (target, inputs) in made {
        for (name, bytes) in inputs {
            let path = seeds::folder().join("seeds").join(target).join(name);
            let committed = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(committed == bytes, "{} is another; write all with --example seeds", path.display());
        }
    }
}

#[test]
fn every_target_has_its_program() {
    let programs = seeds::folder().join("targets");
    for (name, _) in TARGETS {
        let program = fs::read_to_string(programs.join(format!("{name}.rs"))).unwrap();
        assert!(program.contains(&format!("strath_fuzz::{name}")), "{program}");
        let manifest = fs::read_to_string(seeds::folder().join("Cargo.toml")).unwrap();
        assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name}");
    }
}
