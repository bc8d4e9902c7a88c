//! `strath measure bound`

use clap::Args;
use strath_node::measure::{BoundOf, What};

use super::Common;
use super::norm::positive;
use crate::outcome::Failure;
use crate::telling;

/// The terms of the paper's generalization bound (theorem 2), and its assumption tried by sampling
#[derive(Debug, Args)]
pub(super) struct Bound {
    #[command(flatten)]
    common: Common,
    /// Radius of the l2 ball [default: sam.rho]
    #[arg(long, value_name = "R", value_parser = positive)]
    rho: Option<f64>,
    /// Probability that the bound fails.
    #[arg(long, value_name = "D", default_value_t = 0.05, value_parser = positive)]
    delta: f64,
    /// Steps of the ascent that looks for the worst epsilon.
    #[arg(long, value_name = "K", default_value_t = 20)]
    ascent_steps: usize,
    /// Samples of the noise of the theorem's assumption.
    #[arg(long, value_name = "N", default_value_t = 20)]
    samples: usize,
}

impl Bound {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.common.config()?;
        if !self.common.is_of_training() {
            return Err(Failure::Usage("--split: the bound is on what was trained on; leave it out".into()));
        }
        let rho = self.rho.unwrap_or(config.sam.rho);
        if rho <= 0.0 {
            return Err(Failure::Usage("the configuration's sam.rho is 0; say the radius with --rho".into()));
        }
        if self.delta >= 1.0 || self.ascent_steps == 0 || self.samples < 2 {
            return Err(Failure::Usage(
                "--delta lies between 0 and 1, --ascent-steps is at least 1, --samples at least 2".into(),
            ));
        }
        let what =
            What::Bound(BoundOf { rho, delta: self.delta, ascent_steps: self.ascent_steps, samples: self.samples });
        let found = self.common.measure(&config, what, "passes")?;
        if self.common.json {
            return telling::print(&format!("{found}\n"));
        }
        let number = |key: &str| found[key].as_f64().unwrap_or(f64::NAN);
        let verdict = match found["vacuous"].as_bool() {
            Some(true) => "vacuous: it is at least 1, as for nearly every network",
            _ => "below 1",
        };
        telling::print(&format!(
            "theorem 2 at rho {rho}, delta {}, {} examples, {} parameters\n\
             0-1 error at w                         {:.6}\n\
             at the worst epsilon found             {:.6}   (a lower bound of the maximum)\n\
             k ln(1 + |w|^2/rho^2 (...)^2)          {:.3}\n\
             4 ln(n / delta)                        {:.3}\n\
             8 ln(6n + 3k), the O~(1)               {:.3}\n\
             root of their sum over n - 1           {:.6}\n\
             right-hand side                        {:.6}   {verdict}\n\
             assumption, sigma {:.3e} a weight   test error {:.6} at w, {:.6} +- {:.6} with noise: {}\n",
            self.delta,
            found["examples"],
            found["parameters"],
            number("train_error"),
            number("perturbed_train_error"),
            number("parameters_term"),
            number("confidence_term"),
            number("remainder_term"),
            number("complexity"),
            number("right_hand_side"),
            number("sigma"),
            number("test_error"),
            number("noisy_test_error"),
            number("noisy_test_error_stderr"),
            match found["assumption_holds"].as_bool() {
                Some(true) => "it holds in the sample",
                Some(false) => "it does not hold in the sample",
                None => "too close for the sample to tell",
            },
        ))
    }
}
