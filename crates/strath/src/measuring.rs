//! What the owner of a measurement sees: how far it has come, and what is left.

use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use strath_node::progress::{Happening, Observer};

use crate::{log, telling};

/// How often a measurement without a terminal says where it is.
const REPORT_EVERY: Duration = Duration::from_secs(30);

/// An observer that shows a measurement on standard error, counted in `unit`: a progress bar where that is a terminal, else a line every half a minute.
pub fn observer(unit: &'static str) -> Observer {
    let is_terminal = telling::is_drawn_on();
    let bar = telling::bar(is_terminal, None);
    let mut view = View { bar, is_terminal, unit, first: None, last_report: Instant::now() };
    Box::new(move |happening| match happening {
        Happening::Measuring { done, of } => view.advance(done, of),
        Happening::Warning(message) => view.bar.suspend(|| log::warn(&message)),
        _ => {}
    })
}

struct View {
    bar: ProgressBar,
    is_terminal: bool,
    unit: &'static str,
    /// When it was first heard from, and how far it was then: what was known from before took no time.
    first: Option<(Instant, u64)>,
    last_report: Instant,
}

impl View {
    fn advance(&mut self, done: u64, of: u64) {
        let (since, from) = *self.first.get_or_insert((Instant::now(), done));
        let of_all = if of > 0 { format!(" of {of}") } else { String::new() };
        let left = (of > done && done > from)
            .then(|| since.elapsed().mul_f64((of - done) as f64 / (done - from) as f64).as_secs_f64().round())
            .map(|seconds| format!(", {:#} left", HumanDuration(Duration::from_secs_f64(seconds))))
            .unwrap_or_default();
        let text = format!("{done}{of_all} {}{left}", self.unit);
        if self.is_terminal {
            let template = if of > 0 { "{bar:24} {msg}" } else { "{spinner} {msg}" };
            self.bar
                .set_style(ProgressStyle::with_template(template).expect("a constant template").progress_chars("=> "));
            self.bar.set_length(of);
            self.bar.set_position(done);
            self.bar.set_message(text);
            if done == of {
                self.bar.finish_and_clear();
            }
        } else if self.last_report.elapsed() >= REPORT_EVERY {
            self.last_report = Instant::now();
            log::say(&text);
        }
    }
}
