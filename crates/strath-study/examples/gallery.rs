//! Writes one figure of each kind, of made-up but lifelike data: `cargo run --example gallery -- FOLDER`.

use std::path::Path;
use std::process::ExitCode;

use strath_study::figure::{
    Axis, Contour, Curve, Density, Figure, Grid, HeatMap, Join, Lines, Mark, Marks, Panel, Sample, Series, Spread,
    Stem, Stems, Surface,
};

fn main() -> ExitCode {
    let Some(folder) = std::env::args().nth(1) else {
        eprintln!("usage: gallery FOLDER");
        return ExitCode::from(2);
    };
    let written = std::fs::create_dir_all(&folder).map_err(|error| format!("cannot create {folder}: {error}"));
    let drawn = written.and_then(|()| {
        for (stem, figure) in gallery() {
            figure.write(Path::new(&folder), stem).map_err(|error| format!("{stem}: {error}"))?;
        }
        Ok(())
    });
    match drawn {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn gallery() -> Vec<(&'static str, Figure)> {
    vec![
        ("rho", Figure::Lines(error_against_rho())),
        ("two-panels", Figure::Lines(two_panels())),
        ("training", Figure::Lines(training())),
        ("density", Figure::Density(density())),
        ("contour", Figure::Contour(contour(landscape()))),
        ("contour-gaps", Figure::Contour(contour(with_gaps(landscape())))),
        ("surface", Figure::Surface(surface(landscape()))),
        ("heat-map", Figure::HeatMap(heat_map())),
        ("eigenvalues", Figure::Stems(eigenvalues())),
    ]
}

const RHOS: [f64; 8] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];

/// Test error of one m: a valley in the logarithm of rho that smaller m makes deeper and moves to smaller rho.
fn series_of(m: i32, x: impl Fn(f64) -> f64) -> Series {
    let depth = 1.4 - 0.3 * f64::from(m).log10();
    let best = 0.05 * f64::from(m).powf(0.25);
    let point = |(i, rho): (usize, &f64)| {
        let away = (rho / best).log10();
        let wobble = ((i as f64 + f64::from(m)) * 2.7).sin();
        let y = 5.4 - depth * (-away * away).exp() + 0.9 * (away - 0.7).max(0.0).powi(2) + 0.05 * wobble;
        Sample { x: x(*rho), y, standard_error: Some(0.08 + 0.03 * wobble.abs()) }
    };
    Series { points: RHOS.iter().enumerate().map(point).collect(), ..Series::new(format!("m = {m}"), []) }
}

fn reference(low: f64, high: f64) -> Series {
    Series { join: Join::Dashed, marks: Marks::None, ..Series::new("SGD", [(low, 5.36), (high, 5.36)]) }
}

fn error_against_rho() -> Lines {
    let mut series: Vec<Series> = [1, 8, 64, 512].map(|m| series_of(m, |rho| rho)).into();
    series.push(reference(0.005, 1.0));
    Lines { y: Axis::linear("test error (%)"), panels: vec![Panel { x: Axis::log("ρ"), series }] }
}

fn two_panels() -> Lines {
    let bars = |series: Series| Series { spread: Spread::Bars, ..series };
    let panel = |label: &str, x: fn(f64, i32) -> f64| Panel {
        x: Axis::log(label),
        series: [1, 8, 64, 512].map(|m| bars(series_of(m, |rho| x(rho, m)))).into(),
    };
    let equivalent = |rho: f64, m: i32| rho / f64::from(m).powf(0.25);
    Lines {
        y: Axis::linear("test error (%)"),
        panels: vec![panel("ρ", |rho, _| rho), panel("equivalent ρ", equivalent)],
    }
}

/// Curves of many points, of which one diverges.
fn training() -> Lines {
    let curve = |name: &str, end: f64, diverges: bool| {
        let points = (0..400).map(|step| {
            let t = f64::from(step) / 400.0;
            let noise = 1.0 + 0.06 * (f64::from(step) * 12.9898).sin() * (f64::from(step) * 0.37).cos();
            let loss = if diverges && step > 260 { f64::INFINITY } else { (2.3 * (-7.0 * t).exp() + end) * noise };
            (f64::from(step) * 100.0, loss)
        });
        Series { marks: Marks::None, ..Series::new(name, points) }
    };
    let series = vec![curve("SGD", 0.002, false), curve("SAM, ρ = 0.05", 0.02, false), curve("SAM, ρ = 2", 0.3, true)];
    Lines { y: Axis::log("training loss (nats)"), panels: vec![Panel { x: Axis::linear("step"), series }] }
}

/// A spectrum of five outliers and a bulk around 0, each eigenvalue broadened a little.
fn spectrum(name: &str, stretch: f64) -> Curve {
    let outliers = [61.0, 38.0, 27.5, 19.0, 14.2].map(|value| value * stretch);
    let negative = [-1.6, -0.9].map(|value| value * stretch);
    let gauss = |x: f64, mean: f64, width: f64| {
        (-(x - mean).powi(2) / (2.0 * width * width)).exp() / (width * std::f64::consts::TAU.sqrt())
    };
    let density = (0..=700).map(|i| {
        let x = -4.0 + 70.0 * f64::from(i) / 700.0;
        let bulk = 0.9 * gauss(x, 0.1, 0.25 * stretch) + 0.1 * gauss(x, 1.5 * stretch, 1.4 * stretch);
        (x, bulk + outliers.iter().chain(&negative).map(|mean| 1e-5 * gauss(x, *mean, 0.3)).sum::<f64>())
    });
    Curve { name: name.into(), density: density.collect(), eigenvalues: outliers.into_iter().chain(negative).collect() }
}

fn density() -> Density {
    Density {
        x: Axis::linear("eigenvalue λ of the Hessian"),
        y: Axis::log("density"),
        curves: vec![spectrum("SGD", 1.0), spectrum("SAM, m = 8", 0.42)],
    }
}

/// Losses of 0.1 to 1000 over two directions: a bent valley between steep walls.
fn landscape() -> Grid {
    let axis: Vec<f64> = (0..25).map(|i| (f64::from(i) - 12.0) / 12.0).collect();
    let loss = |a: f64, b: f64| {
        let bent = b - 0.5 * a * a + 0.2 * a;
        let steep = 1.2 * a * a + 6.0 * bent * bent + 0.3 * (5.0 * a).sin().powi(2) * b.abs();
        1.0 / (10.0 * (-2.6 * steep).exp() + 1e-3)
    };
    let values = axis.iter().flat_map(|b| axis.iter().map(|a| loss(*a, *b))).collect();
    Grid { alpha: axis.clone(), beta: axis, values }
}

fn with_gaps(mut grid: Grid) -> Grid {
    for (i, value) in [(0, f64::NAN), (1, f64::INFINITY), (25, f64::NAN), (310, f64::NAN), (400, f64::NAN)] {
        grid.values[i] = value;
    }
    grid
}

fn contour(grid: Grid) -> Contour {
    let marks = vec![Mark { x: 0.0, y: 0.0, name: "w".into() }];
    Contour { x: "α".into(), y: "β".into(), value: Axis::log("training loss (nats)"), grid, levels: None, marks }
}

fn surface(grid: Grid) -> Surface {
    Surface { x: "α".into(), y: "β".into(), value: Axis::log("training loss (nats)").within(0.09, 30.0), grid }
}

/// Micro-batches of m examples and fewer; a micro-batch larger than m does not exist.
fn heat_map() -> HeatMap {
    let sizes = [1, 8, 64, 512];
    let error = |micro: i32, m: i32| match (micro, m) {
        (micro, m) if micro > m => f64::NAN,
        (micro, m) => 4.0 + 0.25 * f64::from(m).log10() + 0.4 / f64::from(micro).sqrt(),
    };
    HeatMap {
        x: "m (examples)".into(),
        columns: sizes.iter().map(ToString::to_string).collect(),
        y: "micro-batch (examples)".into(),
        rows: sizes.iter().map(ToString::to_string).collect(),
        value: Axis::linear("test error (%)"),
        values: sizes.iter().flat_map(|micro| sizes.iter().map(|m| error(*micro, *m))).collect(),
        decimals: 2,
    }
}

fn eigenvalues() -> Stems {
    let values = |stretch: f64| [61.0, 38.0, 27.5, 19.0, 14.2, 9.1, 8.7, 6.0, 5.5, 4.9].map(|v| v * stretch).to_vec();
    let stem = |name: &str, stretch: f64| Stem { name: name.into(), values: values(stretch) };
    Stems { x: "k".into(), y: Axis::linear("eigenvalue λₖ"), sets: vec![stem("SGD", 1.0), stem("SAM, m = 8", 0.42)] }
}
