//! Figures as their readers find them: four files, the same each time.

use std::path::Path;

use strath_study::figure::{
    Axis, Contour, Curve, Density, Figure, FigureError, Grid, HeatMap, Lines, Mark, Panel, Sample, Series, Stem, Stems,
    Surface,
};

fn lines(series: Vec<Series>) -> Lines {
    Lines { y: Axis::linear("test error (%)"), panels: vec![Panel { x: Axis::log("ρ"), series }] }
}

fn curve(name: &str) -> Series {
    let point = |(x, y)| Sample { x, y, standard_error: Some(0.1) };
    let points = [(0.01, 5.0), (0.05, 4.25), (0.1, f64::NAN), (0.2, 4.5)].map(point).into();
    Series { points, ..Series::new(name, []) }
}

fn grid() -> Grid {
    let axis: Vec<f64> = (-4..=4).map(|i| f64::from(i) / 4.0).collect();
    let values = axis.iter().flat_map(|b| axis.iter().map(|a| 0.1 * (8.0 * a.hypot(*b)).exp())).collect();
    Grid { alpha: axis.clone(), beta: axis, values }
}

fn contour(grid: Grid) -> Contour {
    let marks = vec![Mark { x: 0.0, y: 0.0, name: "w".into() }];
    Contour { x: "α".into(), y: "β".into(), value: Axis::log("loss (nats)"), grid, levels: None, marks }
}

/// One figure of each kind, with the labels that its reader needs.
fn one_of_each() -> Vec<(Figure, Vec<&'static str>)> {
    let density = Density {
        x: Axis::linear("eigenvalue λ"),
        y: Axis::log("density"),
        curves: vec![Curve {
            name: "final".into(),
            density: (0..50).map(|i| (f64::from(i) - 10.0, 1e-6 + (f64::from(-i) / 3.0).exp())).collect(),
            eigenvalues: vec![30.0, 21.0, -3.0],
        }],
    };
    let surface = Surface { x: "α".into(), y: "β".into(), value: Axis::log("loss").within(0.1, 50.0), grid: grid() };
    let names = |names: [&str; 2]| names.map(String::from).to_vec();
    let heat_map = HeatMap {
        x: "m".into(),
        columns: names(["8", "64"]),
        y: "micro".into(),
        rows: names(["1", "32"]),
        value: Axis::linear("test error (%)"),
        values: vec![4.123, 4.5, f64::NAN, -1.0],
        decimals: 1,
    };
    let stem = |name: &str, values: [f64; 3]| Stem { name: name.into(), values: values.into() };
    let stems = Stems {
        x: "number k".into(),
        y: Axis::linear("eigenvalue"),
        sets: vec![stem("SGD", [60.0, 30.0, -2.0]), stem("SAM", [20.0, 11.0, 5.0])],
    };
    vec![
        (Figure::Lines(lines(vec![curve("m = 1"), curve("m = 64")])), vec!["test error (%)", "ρ", "m = 64", "0.1"]),
        (Figure::Density(density), vec!["eigenvalue λ", "density", "final", "negative", "10⁻⁴"]),
        (Figure::Contour(contour(grid())), vec!["α", "β", "loss (nats)", "100", "w"]),
        (Figure::Surface(surface), vec!["α", "β", "loss, log, cut off at 50", "10"]),
        (Figure::HeatMap(heat_map), vec!["micro", "test error (%)", "4.1", "–", "−1.0", "Grey: no value."]),
        (Figure::Stems(stems), vec!["number k", "eigenvalue", "SAM", "40"]),
    ]
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).expect("a figure is four files")
}

/// Width and height as the header of a PNG has them.
fn png_size(png: &[u8]) -> (u32, u32) {
    let number = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| png[at + i]));
    assert_eq!(&png[1..4], b"PNG");
    (number(16), number(20))
}

#[test]
fn every_figure_is_four_files_with_its_labels() {
    let folder = tempfile::tempdir().unwrap();
    for (figure, labels) in one_of_each() {
        let paths = figure.write(folder.path(), "figure").unwrap();
        let names: Vec<_> = paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["figure.svg", "figure.png", "figure.pdf", "figure.csv"]);
        let svg = String::from_utf8(read(folder.path(), "figure.svg")).unwrap();
        for label in labels {
            assert!(svg.contains(&format!(">{label}</text>")), "{label:?} is not in the SVG of {figure:?}");
        }
        let size = svg.split_once(r#"viewBox="0 0 480 "#).and_then(|(_, rest)| rest.split_once('"')).unwrap().0;
        let (width, height) = png_size(&read(folder.path(), "figure.png"));
        assert_eq!((width, height), (960, 2 * size.parse::<u32>().unwrap()), "twice the size of the SVG");
        assert!(read(folder.path(), "figure.pdf").starts_with(b"%PDF-"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "a number of {figure:?} lies nowhere");
    }
}

#[test]
fn the_same_data_gives_the_same_bytes() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (figure, _) in one_of_each() {
        figure.write(one.path(), "a").unwrap();
        figure.write(other.path(), "a").unwrap();
        for name in ["a.svg", "a.png", "a.pdf", "a.csv"] {
            assert!(read(one.path(), name) == read(other.path(), name), "{name} of {figure:?} differs");
        }
    }
}

#[test]
fn the_table_holds_what_is_drawn_with_all_its_digits() {
    let folder = tempfile::tempdir().unwrap();
    let csv = |figure: Figure| {
        figure.write(folder.path(), "a").unwrap();
        String::from_utf8(read(folder.path(), "a.csv")).unwrap()
    };
    let series = |x: f64| Series::new("m = 1", [(x, 1.0 / 3.0)]);
    let mut two = lines(vec![series(0.1 + 0.2)]);
    two.panels.push(Panel { x: Axis::log("equivalent ρ"), series: vec![series(2.0)] });
    assert_eq!(
        csv(Figure::Lines(two)),
        "series,ρ,equivalent ρ,test error (%),standard error\n\
         m = 1,0.30000000000000004,,0.3333333333333333,\n\
         m = 1,,2.0,0.3333333333333333,\n"
    );
    let table = csv(Figure::Contour(contour(grid())));
    assert_eq!(table.lines().count(), 1 + 81);
    assert!(table.starts_with("α,β,loss (nats)\n-1.0,-1.0,"), "{table}");
}

#[test]
fn a_constant_landscape_and_a_single_point_are_figures_too() {
    let folder = tempfile::tempdir().unwrap();
    let flat = Grid { values: vec![0.5; 81], ..grid() };
    Figure::Contour(contour(flat.clone())).write(folder.path(), "a").unwrap();
    let value = Axis::linear("loss");
    Figure::Surface(Surface { x: "α".into(), y: "β".into(), value, grid: flat }).write(folder.path(), "b").unwrap();
    Figure::Lines(lines(vec![Series::new("", [(0.1, 0.0)])])).write(folder.path(), "c").unwrap();
}

#[test]
fn what_a_landscape_does_not_show_is_said_below_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut values = grid().values;
    (values[3], values[40], values[44], values[60]) = (f64::NAN, f64::INFINITY, 0.0, -1.0);
    Figure::Contour(contour(Grid { values, ..grid() })).write(folder.path(), "a").unwrap();
    let svg = String::from_utf8(read(folder.path(), "a.svg")).unwrap();
    assert!(svg.contains("Grey: not finite (2 of 81 points)."));
    assert!(svg.contains("2 of 81 points are beyond the colours: drawn as the nearest."));
}

#[test]
fn what_cannot_be_drawn_is_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let error = |figure: Figure| figure.write(folder.path(), "a").unwrap_err();
    let empty = error(Figure::Lines(lines(vec![curve("m = 1"), Series::new("m = 8", [])])));
    assert!(matches!(&empty, FigureError::Empty { .. }), "{empty}");
    assert!(empty.to_string().contains("\"m = 8\""), "{empty}");
    let nowhere = error(Figure::Lines(lines(vec![Series::new("m = 2", [(0.0, 1.0), (0.1, f64::NAN)])])));
    assert!(matches!(nowhere, FigureError::NothingToDraw { count: 2, .. }), "{nowhere}");
    let many = (0..9).map(|i| curve(&format!("m = {i}"))).collect();
    assert!(matches!(error(Figure::Lines(lines(many))), FigureError::TooMany { found: 9, .. }));
    let nan = Grid { values: vec![f64::NAN; 81], ..grid() };
    assert!(matches!(error(Figure::Contour(contour(nan))), FigureError::NothingToDraw { count: 81, .. }));
    let levels = Some(vec![1.0, 0.5]);
    let descending = error(Figure::Contour(Contour { levels, ..contour(grid()) }));
    assert!(matches!(descending, FigureError::Order { found: 0.5, .. }), "{descending}");
    let below = error(Figure::Contour(Contour { levels: Some(vec![0.0, 0.5]), ..contour(grid()) }));
    assert!(matches!(below, FigureError::NothingToDraw { count: 1, .. }), "{below}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let stem = Figure::Lines(lines(vec![curve("a")])).write(folder.path(), "a/b").unwrap_err();
    assert!(matches!(stem, FigureError::Stem { .. }), "{stem}");
    let absent = Figure::Lines(lines(vec![curve("a")])).write(&folder.path().join("absent"), "a").unwrap_err();
    assert!(matches!(absent, FigureError::File(_)), "{absent}");
}
