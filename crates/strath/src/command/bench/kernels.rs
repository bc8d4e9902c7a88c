//! `strath bench kernels`: every product of a model's layers beside the peak: of one thread, or of a GPU.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};
use strath_cuda::Gpu;
use strath_kernels::conv::{self, Method};
use strath_kernels::isa::Isa;
use strath_kernels::peak::fma_peak;
use strath_kernels::product::{Side, Sizes, batched};
use strath_model::{Model, Work, convolution_method};
use strath_node::summary::median;
use strath_node::{device, prepare};

use super::on_gpu::{self, traffic::Traffic};
use super::peaks::Peaks;
use crate::configuration::{Changes, workers_flag};
use crate::outcome::Failure;
use crate::telling;

/// Time of each kernel and shape of a model, beside the peak of one thread, or of the GPU
#[derive(Debug, Args)]
#[command(after_help = "\
Winograd's kernels do with fewer multiplications than are counted, so they can be above 100 %;
--set model.convolution=direct shows the direct ones, =winograd tiles of 4x4 for the forward product too.

Examples:
  strath bench kernels configs/fashion-mnist.toml --set model.depth=20
  strath bench kernels configs/fashion-mnist.toml --batch 16 --json")]
pub struct Kernels {
    /// A configuration file [default: the built-in digits]
    config: Option<PathBuf>,
    /// Examples of a pass.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    changes: Changes,
}

/// Bursts of each kernel, interleaved with the peak; the median counts.
const BURSTS: usize = 9;

impl Kernels {
    /// Runs the command.
    pub fn run(self) -> Result<(), Failure> {
        let config = self.changes.resolve(self.config.as_deref(), workers_flag(None))?.config;
        prepare::pin(config.cluster.isa).map_err(Failure::other)?;
        let dataset = strath_data::Dataset::load(&config.data, config.run.seed).map_err(Failure::other)?;
        let method = convolution_method(config.model.convolution);
        let model =
            Model::build(&config.model.kind, dataset.shape(), dataset.classes(), method).map_err(Failure::other)?;
        let gpu = device::open(&config, 0).map_err(Failure::other)?;
        let on = match &gpu {
            Some(gpu) => Some((gpu, on_gpu::peaks(gpu).map_err(Failure::other)?)),
            None => None,
        };
        let works = model.work(self.batch as usize).map_err(Failure::other)?;
        let mut counted: Vec<(Work, usize)> = Vec::new();
        for work in &works {
            match counted.iter_mut().find(|(known, _)| known == work) {
                Some((_, count)) => *count += 1,
                None => counted.push((*work, 1)),
            }
        }
        if !self.json {
            telling::print(&format!(
                "{:38} {:16} {:>5} {:>9} {:>9} {:>7}\n",
                "layer", "product", "times", "us", "GFLOP/s", "% peak"
            ))?;
        }
        for (work, count) in counted {
            let rows = match &on {
                Some((gpu, peaks)) => on_gpu::measure(gpu, &work, peaks).map_err(Failure::other)?,
                None => measure(&work, method),
            };
            for (product, us, percent) in rows {
                let gflops = work.flops() / us / 1e3;
                let by = gpu.as_ref().map_or_else(|| Isa::active().name().into(), of_gpu);
                let row = json!({
                    "isa": by, "layer": name(&work), "product": product, "times": count, "us": us, "gflops": gflops, "percent_of_peak": percent,
                });
                telling::print(&if self.json { format!("{row}\n") } else { line(&row) })?;
            }
        }
        on.map_or(Ok(()), |(gpu, peaks)| self.traffic(gpu, model.parameters().len(), &works, &peaks))
    }

    /// The kernels of a GPU that memory bounds.
    fn traffic(&self, gpu: &Gpu, parameters: usize, works: &[Work], peaks: &Peaks) -> Result<(), Failure> {
        let found = on_gpu::traffic::measure(gpu, parameters, works, peaks).map_err(Failure::other)?;
        if !self.json {
            telling::print(&format!("\n{:38} {:>22} {:>9} {:>9} {:>7}\n", "memory", "values", "us", "GB/s", "% copy"))?;
        }
        for Traffic { what, values, us, gbs, percent } in found {
            telling::print(&if self.json {
                let row = json!({
                    "isa": of_gpu(gpu), "memory": what, "values": values, "us": us, "gbs": gbs, "percent_of_copy": percent,
                });
                format!("{row}\n")
            } else {
                format!("{what:38} {values:>22} {us:>9.1} {gbs:>9.1} {percent:>7.0}\n")
            })?;
        }
        Ok(())
    }
}

/// In what numbers a GPU computes, and which it is.
fn of_gpu(gpu: &Gpu) -> String {
    format!("{} ({})", gpu.compute().name(), gpu.name())
}

fn line(row: &Value) -> String {
    format!(
        "{:38} {:16} {:>5} {:>9.1} {:>9.1} {:>7.0}\n",
        row["layer"].as_str().unwrap_or_default(),
        row["product"].as_str().unwrap_or_default(),
        row["times"],
        row["us"].as_f64().unwrap_or_default(),
        row["gflops"].as_f64().unwrap_or_default(),
        row["percent_of_peak"].as_f64().unwrap_or_default()
    )
}

fn name(work: &Work) -> String {
    match work {
        Work::Convolution { shape: conv::Shape { inputs, outputs, height, width, kernel, stride, .. }, .. } => {
            format!("{}x{} {inputs}->{outputs} at {height}x{width} stride {stride}", kernel.0, kernel.1)
        }
        Work::Product { batch, rows, inner, columns, .. } => {
            format!("product {batch} x [{rows},{inner}] [{inner},{columns}]")
        }
    }
}

/// Name, microseconds and percent of the peak of each product of a layer.
fn measure(work: &Work, method: Method) -> Vec<(&'static str, f64, f64)> {
    let filled = |len: usize| (0..len).map(|at| (at % 17) as f32 / 16.0 - 0.5).collect::<Vec<f32>>();
    match *work {
        Work::Convolution { shape, wants_gradient } => {
            let (x, weight) = (filled(shape.images * shape.input_values()), filled(shape.weights()));
            let dy = filled(shape.images * shape.output_values());
            let (mut y, mut dx, mut dw) = (dy.clone(), x.clone(), weight.clone());
            let mut rows = vec![timed("forward", work, || conv::forward(&shape, method, &x, &weight, &mut y))];
            if wants_gradient {
                rows.push(timed("backward-data", work, || conv::backward_data(&shape, method, &dy, &weight, &mut dx)));
            }
            rows.push(timed("backward-weight", work, || conv::backward_weight(&shape, method, &x, &dy, &mut dw)));
            rows
        }
        Work::Product { batch, rows, inner, columns, wants_gradient } => {
            let (a, b, c) =
                (filled(batch * rows * inner), filled(batch * inner * columns), filled(batch * rows * columns));
            let sizes = |rows, inner, columns| Sizes { batch, rows, inner, columns };
            let (mut y, mut da, mut db) = (c.clone(), a.clone(), b.clone());
            let mut found = vec![timed("forward", work, || {
                batched(sizes(rows, inner, columns), (&a, Side::Plain), (&b, Side::Transposed), &mut y);
            })];
            if wants_gradient {
                found.push(timed("backward-data", work, || {
                    batched(sizes(rows, columns, inner), (&c, Side::Plain), (&b, Side::Plain), &mut da);
                }));
            }
            found.push(timed("backward-weight", work, || {
                batched(sizes(columns, rows, inner), (&c, Side::Transposed), (&a, Side::Plain), &mut db);
            }));
            found
        }
    }
}

fn timed(name: &'static str, work: &Work, mut run: impl FnMut()) -> (&'static str, f64, f64) {
    run();
    let mut times = Vec::new();
    let mut peaks = Vec::new();
    for _ in 0..BURSTS {
        peaks.push(fma_peak(Isa::active()));
        let began = Instant::now();
        run();
        times.push(began.elapsed().as_secs_f64());
    }
    let (seconds, peak) = (median(times.into_iter()), median(peaks.into_iter()));
    (name, seconds * 1e6, 100.0 * work.flops() / seconds / 1e9 / peak)
}
