//! Standard error in two forms: plain lines for people, or one JSON object a line (`--log-format json`).

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How lines on standard error look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Plain lines.
    Text,
    /// One JSON object a line.
    Json,
}

static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// The format that was asked for.
pub fn format() -> LogFormat {
    FORMAT.get().copied().unwrap_or(LogFormat::Text)
}

/// The flag that gives another process of this program the same format.
pub fn flag() -> [&'static str; 2] {
    ["--log-format", if format() == LogFormat::Json { "json" } else { "text" }]
}

/// Starts logging to standard error. `RUST_LOG` chooses what; by default warnings of anything, and `strath`'s own words.
pub fn start(format: LogFormat) {
    FORMAT.get_or_init(|| format);
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,strath=info,strath_node=info"));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    match format {
        LogFormat::Text => builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// Says what goes on.
pub fn say(text: &str) {
    match format() {
        LogFormat::Text => line(text),
        LogFormat::Json => tracing::info!("{text}"),
    }
}

/// Says what the user should know but what stops nothing.
pub fn warn(text: &str) {
    match format() {
        LogFormat::Text => line(&format!("warning: {text}")),
        LogFormat::Json => tracing::warn!("{text}"),
    }
}

/// Says why the command failed.
pub fn error(text: &str) {
    match format() {
        LogFormat::Text => line(&format!("error: {text}")),
        LogFormat::Json => tracing::error!("{text}"),
    }
}

/// A line on standard error. Whoever read it may have gone away, as `head` does; that ends no run.
fn line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
