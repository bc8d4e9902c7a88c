//! What a run's owner sees: a live line on a terminal, a line for each evaluation elsewhere, and the last words.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use strath_node::metrics::StepLine;
use strath_node::progress::{Happening, Observer};

use crate::log::{self, LogFormat};
use crate::outcome::Failure;

/// How often a run without a terminal says where it is.
const REPORT_EVERY: Duration = Duration::from_secs(30);

/// Happenings on their way to the screen; more are dropped.
const ON_THE_WAY: usize = 1024;

/// An observer that shows a run on standard error: a progress bar where that is a terminal, else lines. It writes on a thread of
/// its own, so that a terminal that stands still (Ctrl-S, a broken connection) holds up no heartbeat.
pub fn observer() -> Observer {
    let (sender, happenings) = sync_channel::<Happening>(ON_THE_WAY);
    let screen = std::thread::spawn(move || {
        let mut view = View::new(is_drawn_on());
        for happening in happenings {
            view.show(&happening);
        }
    });
    let screen = Screen { sender: Some(sender), thread: Some(screen) };
    Box::new(move |happening| {
        if let Some(sender) = &screen.sender {
            // Full or over: the record has it all the same.
            let _ = sender.try_send(happening);
        }
    })
}

/// The thread that writes; what was sent to it is on the screen once this is gone.
struct Screen {
    sender: Option<SyncSender<Happening>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Screen {
    fn drop(&mut self) {
        drop(self.sender.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has told its own story.
            let _ = thread.join();
        }
    }
}

struct View {
    bar: ProgressBar,
    is_terminal: bool,
    steps: u64,
    last_report: Instant,
    /// Images per second, smoothed over about twenty steps.
    rate: Option<f64>,
}

impl View {
    fn new(is_terminal: bool) -> Self {
        Self { bar: bar(is_terminal, None), is_terminal, steps: 0, last_report: Instant::now(), rate: None }
    }

    fn show(&mut self, happening: &Happening) {
        match happening {
            Happening::Listening { address, workers } => {
                self.bar.set_message(format!("coordinator at {address}, waiting for {workers} workers"));
                self.bar.enable_steady_tick(Duration::from_millis(200));
                if !self.is_terminal {
                    log::say(&format!("coordinator at {address}, waiting for {workers} workers"));
                }
            }
            Happening::Began { from, steps, world_size } => {
                self.steps = *steps;
                self.bar.disable_steady_tick();
                self.bar.set_length(*steps);
                self.bar.set_style(
                    ProgressStyle::with_template("{bar:24} step {pos}/{len}  {msg}")
                        .expect("a constant template")
                        .progress_chars("=> "),
                );
                self.bar.set_message("");
                self.bar.set_position(*from);
                self.bar.reset_eta();
                let verb = if *from == 0 { "training" } else { "going on" };
                let workers = if *world_size == 1 { "worker" } else { "workers" };
                self.line(&format!("{verb} from step {from} of {steps} on {world_size} {workers}"));
            }
            Happening::Step(line) => self.step(line),
            Happening::Eval(line) => self.line(&format!(
                "epoch {:.2}  step {}  {} loss {:.4}  {} error {:.2} %",
                line.epoch,
                line.step,
                line.split,
                line.loss,
                line.split,
                100.0 * line.error
            )),
            Happening::Saved { path } => {
                if !self.is_terminal {
                    log::say(&format!("saved {}", path.display()));
                }
            }
            // A run of this kind measures nothing.
            Happening::Measuring { .. } => {}
            Happening::Warning(message) => self.bar.suspend(|| log::warn(message)),
        }
    }

    fn step(&mut self, line: &StepLine) {
        let rate = self.rate.map_or(line.images_per_s, |rate| rate + 0.05 * (line.images_per_s - rate));
        self.rate = Some(rate);
        let message = format!(
            "loss {:.4}  at w+epsilon {:.4}  sharpness {:+.4}  {rate:.0} images/s",
            line.clean_loss, line.perturbed_loss, line.sharpness
        );
        if self.is_terminal {
            self.bar.set_position(line.step);
            let eta = HumanDuration(Duration::from_secs_f64(self.bar.eta().as_secs_f64().round()));
            self.bar.set_message(format!("{message}  {eta:#} left"));
        } else if self.last_report.elapsed() >= REPORT_EVERY {
            self.last_report = Instant::now();
            log::say(&format!("step {}/{}  {message}", line.step, self.steps));
        }
        if line.step >= self.steps {
            self.bar.finish_and_clear();
        }
    }

    fn line(&self, text: &str) {
        self.bar.suspend(|| log::say(text));
    }
}

/// Whether standard error is a terminal that bars may be drawn on.
pub fn is_drawn_on() -> bool {
    log::format() == LogFormat::Text && std::io::stderr().is_terminal()
}

/// A bar on a terminal, hidden elsewhere.
pub fn bar(is_terminal: bool, len: Option<u64>) -> ProgressBar {
    let target = if is_terminal { ProgressDrawTarget::stderr_with_hz(10) } else { ProgressDrawTarget::hidden() };
    ProgressBar::with_draw_target(len, target)
}

/// A progress bar for a study's runs.
pub fn runs_bar(runs: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:24} run {pos}/{len}  {msg}").expect("a constant template");
    let bar = bar(is_drawn_on(), Some(runs as u64));
    bar.set_style(style.progress_chars("=> "));
    bar
}

/// A progress bar for a download.
pub fn download_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes}").expect("a constant template");
    let target =
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(1), target);
    bar.set_style(style);
    bar
}

/// Says warnings on standard error.
pub fn warn(warnings: &[String]) {
    for warning in warnings {
        log::warn(warning);
    }
}

/// A path as a user would type it: relative to here where it lies below.
pub fn short(path: &Path) -> String {
    let here = std::env::current_dir().and_then(|here| here.canonicalize()).ok();
    let below = here.as_deref().and_then(|here| path.strip_prefix(here).ok()).filter(|below| *below != Path::new(""));
    below.unwrap_or(path).display().to_string()
}

/// Prints to standard output; a reader that has gone away, such as `head`, wants no more and is no failure.
///
/// # Errors
/// [`Failure::Other`] where standard output cannot be written for another reason.
pub fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::other(error)),
        _ => Ok(()),
    }
}
