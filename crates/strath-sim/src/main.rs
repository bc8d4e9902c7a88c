//! Runs seeds of the simulation: `--seed N [--log]`, or `--seeds A..B`.

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--seed", seed, ref rest @ ..] => {
            let summary = strath_sim::seed::run(seed.parse().unwrap_or_default(), None, rest.contains(&"--log"));
            for line in &summary.log {
                println!("{line}");
            }
            println!("{summary:?}");
        }
        ["--seeds", from, to] => {
            let (from, to): (u64, u64) = (from.parse().unwrap_or(0), to.parse().unwrap_or(0));
            let mut failed = 0;
            let mut total = 0;
            let mut most = std::time::Duration::ZERO;
            let mut faults = 0;
            for seed in from..to {
                match strath_sim::seed::check(seed) {
                    Ok(s) => {
                        total += s.occurrences;
                        faults += s.faults;
                        if s.calm > most { most = s.calm; println!("seed {seed}: {most:?}"); }
                    }
                    Err(e) => { failed += 1; if failed < 12 { println!("{e}") } }
                }
            }
            println!("{failed} failed, {total} occurrences, {faults} faults");
        }
        _ => println!("?"),
    }
}
