//! `strath measure sharpness`

use clap::Args;
use strath_core::config::LaneSizes;
use strath_node::measure::{Ball, SharpnessOf, What};

use super::Common;
use super::norm::{NormArgument, not_negative, positive};
use crate::outcome::Failure;
use crate::telling;

/// How much the loss rises within a radius: the mean over lanes of m examples of L(w + epsilon) - L(w)
#[derive(Debug, Args)]
pub(super) struct Sharpness {
    #[command(flatten)]
    common: Common,
    /// Examples of a lane, each with an epsilon of its own; the last may be shorter [default: sam.m, where that is one number]
    #[arg(long, value_name = "M")]
    m: Option<usize>,
    /// Radius of the ball [default: sam.rho]
    #[arg(long, value_name = "R", value_parser = positive)]
    rho: Option<f64>,
    /// p of the ball's norm: a number of at least 1, or inf.
    #[arg(long, value_name = "P", default_value = "2")]
    norm: NormArgument,
    /// Scale each parameter's part by |w| + eta, as ASAM does.
    #[arg(long)]
    adaptive: bool,
    /// ASAM's eta; at 0 rescaling a ReLU network changes nothing.
    #[arg(long, value_name = "ETA", default_value_t = 0.0, requires = "adaptive", value_parser = not_negative)]
    eta: f64,
    /// Steps of projected gradient ascent; 1 is the epsilon of training.
    #[arg(long, value_name = "K", default_value_t = 1)]
    ascent_steps: usize,
    /// Also try so many random directions a lane.
    #[arg(long, value_name = "N", default_value_t = 0)]
    random: usize,
}

impl Sharpness {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.common.config()?;
        let m = match (self.m, &config.sam.m) {
            (Some(0), _) => return Err(Failure::Usage("--m is 0, expected at least 1 example".into())),
            (Some(m), _) | (None, &LaneSizes::Each(m)) => m,
            (None, LaneSizes::Batch) => config.batch.size,
            (None, LaneSizes::List(_)) => {
                return Err(Failure::Usage(
                    "the configuration's sam.m is a list; say with --m how many examples a lane has".into(),
                ));
            }
        };
        if self.ascent_steps == 0 {
            return Err(Failure::Usage("--ascent-steps is 0, expected at least 1".into()));
        }
        let rho = self.rho.unwrap_or(config.sam.rho);
        if rho <= 0.0 {
            return Err(Failure::Usage("the configuration's sam.rho is 0; say the radius with --rho".into()));
        }
        let ball = Ball { rho, p: self.norm.0, adaptive: self.adaptive, eta: self.eta };
        let what = What::Sharpness(SharpnessOf { m, ball, ascent_steps: self.ascent_steps, random: self.random });
        let found = self.common.measure(&config, what, "examples")?;
        if self.common.json {
            return telling::print(&format!("{found}\n"));
        }
        let number = |key: &str| found[key].as_f64().unwrap_or(f64::NAN);
        let mut lines = vec![format!(
            "{} lanes of {} examples ({}), rho {rho}, p {}\n\
             loss at w                {:.6}\n\
             at w + epsilon           {:.6}\n\
             sharpness                {:.6}",
            found["lanes"],
            found["m"],
            found["split"].as_str().unwrap_or_default(),
            found["norm"],
            number("clean_loss"),
            number("perturbed_loss"),
            number("sharpness"),
        )];
        if self.ascent_steps > 1 {
            lines.push(format!("with one step            {:.6}", number("one_step_sharpness")));
        }
        if self.random > 0 {
            let (mean, worst) = (number("random_sharpness"), number("random_worst"));
            lines.push(format!("random directions        {mean:.6}, the worst {worst:.6}"));
        }
        lines.push(String::new());
        telling::print(&lines.join("\n"))
    }
}
