//! `strath measure landscape`

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;
use strath_model::{Model, convolution_method};
use strath_node::measure::{self, LandscapeOf, What};
use strath_node::{checkpoint, files};

use super::norm::positive;
use super::{Common, figures};
use crate::outcome::Failure;
use crate::telling;

/// The most points along an axis.
const MOST_POINTS: usize = 201;

/// Loss and error along filter-normalised random directions, or on the straight line to another checkpoint
#[derive(Debug, Args)]
pub(super) struct Landscape {
    #[command(flatten)]
    common: Common,
    /// Axes.
    #[arg(long, value_name = "1|2", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    dims: u8,
    /// Points along each axis.
    #[arg(long, value_name = "N", default_value_t = 25)]
    grid: usize,
    /// The axes go from -X to X; 1 is the length of the weights, filter by filter.
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = positive)]
    extent: f64,
    /// Directions from a file of an earlier landscape.
    #[arg(long, value_name = "FILE", conflicts_with = "seed")]
    directions: Option<PathBuf>,
    /// The line to this checkpoint, from 0 (here) to 1 (there), running statistics included.
    #[arg(long, value_name = "CHECKPOINT", conflicts_with_all = ["directions", "dims", "extent", "seed"])]
    to: Option<PathBuf>,
    /// Folder for landscape.csv, directions.safetensors and the figures.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Landscape {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.common.config()?;
        if !(2..=MOST_POINTS).contains(&self.grid) {
            return Err(Failure::Usage(format!("--grid is {}, expected 2 to {MOST_POINTS}", self.grid)));
        }
        let absolute = |path: &PathBuf| {
            std::fs::canonicalize(path).map_err(|e| Failure::Other(format!("cannot read {}: {e}", path.display())))
        };
        let of = LandscapeOf {
            grid: self.grid,
            dims: if self.to.is_some() { 1 } else { usize::from(self.dims) },
            extent: self.extent,
            directions: self.directions.as_ref().map(absolute).transpose()?,
            to: self.to.as_ref().map(absolute).transpose()?,
        };
        std::fs::create_dir_all(&self.out).map_err(Failure::other)?;
        let found = self.common.measure(&config, What::Landscape(of.clone()), "points")?;
        let points = found["points"].as_array().cloned().unwrap_or_default();
        let write = |name: &str, bytes: &[u8]| files::write_whole(&self.out.join(name), bytes).map_err(Failure::other);
        let number = |point: &Value, at: usize| point[at].as_f64().unwrap_or(f64::INFINITY);
        let drawn = points.iter().map(|p| [number(p, 0), number(p, 1), number(p, 2)]);
        let drawn = strath_study::landscape::Landscape { points: drawn.collect() };
        let along = match of.to {
            Some(_) => "share of the way to the other checkpoint",
            None => "alpha (length of the weights)",
        };
        figures::landscape(&self.out, &drawn, along)?;
        // The figure's own numbers have no errors.
        let mut csv = vec!["alpha,beta,loss,error".to_string()];
        for point in &points {
            let cell = |at: usize| point[at].as_f64().map_or_else(|| "inf".into(), |v| v.to_string());
            csv.push([0, 1, 2, 3].map(cell).join(","));
        }
        csv.push(String::new());
        write("landscape.csv", csv.join("\n").as_bytes())?;
        if of.to.is_none() {
            let data = strath_data::Dataset::load(&config.data, config.run.seed).map_err(Failure::other)?;
            let method = convolution_method(config.model.convolution);
            let model =
                Model::build(&config.model.kind, data.shape(), data.classes(), method).map_err(Failure::usage)?;
            let bytes = files::read(&self.common.checkpoint).map_err(Failure::other)?;
            let (weights, _) = checkpoint::decode_model(&model, &bytes).map_err(Failure::other)?;
            let layout = model.parameters();
            let drawn = measure::directions(&of, layout, &weights, self.common.seed).map_err(Failure::other)?;
            write("directions.safetensors", &measure::encode_directions(layout, &drawn))?;
        }
        if self.common.json {
            return telling::print(&format!("{found}\n"));
        }
        let loss = |point: &Value| point[2].as_f64().unwrap_or(f64::INFINITY);
        let least = points.iter().min_by(|a, b| loss(a).total_cmp(&loss(b)));
        let most = points.iter().map(loss).fold(f64::NEG_INFINITY, f64::max);
        let least = least.map_or_else(String::new, |p| format!("{:.6} at ({}, {})", loss(p), p[0], p[1]));
        telling::print(&format!(
            "{} points, losses from {least} to {most:.6}\nwritten to {}\n",
            points.len(),
            telling::short(&self.out)
        ))
    }
}
