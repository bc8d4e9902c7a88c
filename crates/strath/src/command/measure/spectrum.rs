//! `strath measure spectrum`

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;
use strath_node::measure::{SpectrumOf, What};

use super::{Common, figures};
use crate::outcome::Failure;
use crate::telling;

/// The most nodes of a density: what a worker's report holds.
const MOST_NODES: usize = 50_000;

/// Eigenvalues and trace of the Hessian of the mean loss, from exact products with vectors
#[derive(Debug, Args)]
pub(super) struct Spectrum {
    #[command(flatten)]
    common: Common,
    /// How many of the largest eigenvalues, each to a residual of 1e-3 of its size.
    #[arg(long, value_name = "K", default_value_t = 5)]
    top: usize,
    /// Random vectors for the trace (Hutchinson), at least 2 for its standard error.
    #[arg(long, value_name = "N", default_value_t = 20)]
    trace_samples: usize,
    /// Random starts for the spectral density (stochastic Lanczos quadrature); 0 leaves it out.
    #[arg(long, value_name = "N", default_value_t = 0)]
    density_samples: usize,
    /// Lanczos steps of each.
    #[arg(long, value_name = "N", default_value_t = 60)]
    density_steps: usize,
    /// Folder for spectrum.json and the figures.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Spectrum {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.common.config()?;
        if self.top == 0 {
            return Err(Failure::Usage("--top is 0, expected at least 1 eigenvalue".into()));
        }
        if self.density_samples.saturating_mul(self.density_steps) > MOST_NODES {
            let message = "--density-samples times --density-steps is more than";
            return Err(Failure::Usage(format!("{message} {MOST_NODES}, which no picture shows")));
        }
        let what = What::Spectrum(SpectrumOf {
            top: self.top,
            trace_samples: self.trace_samples,
            density_samples: self.density_samples,
            density_steps: self.density_steps,
        });
        let found = self.common.measure(&config, what, "products")?;
        let list = |key: &str| found[key].as_array().into_iter().flatten().filter_map(Value::as_f64);
        if let Some(out) = &self.out {
            std::fs::create_dir_all(out).map_err(Failure::other)?;
            let text = format!("{found}\n");
            strath_node::files::write_whole(&out.join("spectrum.json"), text.as_bytes()).map_err(Failure::other)?;
            let values: Vec<f64> = list("eigenvalues").collect();
            let nodes = found["density"].as_array().into_iter().flatten();
            let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
            let nodes: Vec<[f64; 2]> = nodes.map(|node| [number(&node[0]), number(&node[1])]).collect();
            figures::spectrum(out, &values, &nodes)?;
        }
        if self.common.json {
            return telling::print(&format!("{found}\n"));
        }
        let mut lines = vec![format!("  {:>14}  {:>10}", "eigenvalue", "residual")];
        for (value, residual) in list("eigenvalues").zip(list("residuals")) {
            lines.push(format!("  {value:>14.6}  {residual:>10.1e}"));
        }
        if let Some(ratio) = found["ratio_1_5"].as_f64() {
            lines.push(format!("first over fifth  {ratio:.3}"));
        }
        if let (Some(trace), Some(error)) = (found["trace"].as_f64(), found["trace_stderr"].as_f64()) {
            lines.push(format!("trace             {trace:.4} +- {error:.4}"));
        }
        lines.push(String::new());
        telling::print(&lines.join("\n"))
    }
}
