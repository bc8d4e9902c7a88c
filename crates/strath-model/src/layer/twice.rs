//! candle's switch for second derivatives.
//!
//! Without it candle detaches each gradient: differentiated again it would count as constant, and the second derivative would be
//! wrong without a word.

use std::sync::OnceLock;

/// Whether candle keeps the graph of gradients: its variable `CANDLE_GRAD_DO_NOT_DETACH` is set to anything but 0. candle reads
/// it at a thread's first backward, so it is to be set before the process starts.
pub(crate) fn keeps_graph() -> bool {
    static KEEPS: OnceLock<bool> = OnceLock::new();
    *KEEPS
        .get_or_init(|| std::env::var("CANDLE_GRAD_DO_NOT_DETACH").is_ok_and(|value| !value.is_empty() && value != "0"))
}

#[cfg(test)]
pub(crate) mod tests {
    /// Runs the body of the test `name` in a process of its own that has candle's switch set.
    pub(crate) fn with_graph_kept(name: &str, body: impl FnOnce()) {
        if super::keeps_graph() {
            return body();
        }
        let own = std::env::current_exe().unwrap();
        let run = std::process::Command::new(own)
            .args(["--exact", name, "--nocapture"])
            .env("CANDLE_GRAD_DO_NOT_DETACH", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&run.stderr));
    }
}
