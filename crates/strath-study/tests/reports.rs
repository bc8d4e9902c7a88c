//! What a report says of a study whose truth is known.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use strath_study::report::{Block, Document, of_study, write};

const SEEDS: u64 = 8;

/// A study of two lane sizes and three radii: m 4 is better by 5 points at the smallest radius, no different at the middle one, and worse by 20 at
/// the largest, where seeds differ much. Without SAM the error is 30 %.
fn study(folder: &Path, change: impl Fn(&mut Value)) {
    let mut arms = vec![json!({
        "places": [{"grid": "equal", "coordinates": [["sam.m", 64], ["sam.rho", 0.0]]}],
        "values": [["sam.m", 64], ["sam.rho", 0.0]], "is_matched": false,
    })];
    for m in [64, 4] {
        for rho in [0.1, 0.2, 0.4] {
            arms.push(json!({
                "places": [{"grid": "equal", "coordinates": [["sam.m", m], ["sam.rho", rho]]}],
                "values": [["sam.m", m], ["sam.rho", rho]], "is_matched": false,
            }));
        }
    }
    let mut plan = json!({
        "name": "known", "question": "What is known?", "source": "", "quick": false, "report": {},
        "seeds": (0..SEEDS).collect::<Vec<u64>>(), "keys": ["sam.m", "sam.rho"], "variables": [], "runs": arms.len() as u64 * SEEDS, "arms": arms,
    });
    change(&mut plan);
    let mut csv = "sam.m,sam.rho,grid,arm,seed,doubled,validation_error,test_error,test_examples,gap,rho_equivalent,seconds,ended_by,run\n".to_string();
    for (arm, record) in plan["arms"].as_array().unwrap().iter().enumerate() {
        let value = |at: usize| record["values"][at][1].as_f64().unwrap();
        let (m, rho) = (value(0), value(1));
        for seed in 0..SEEDS {
            // Seeds differ by points, and pairs of them by tenths of a point.
            let (own, shared) = ((seed * 7 + arm as u64 * 3) % 5, (seed * 3) % 7);
            let error = match (m as u64, (10.0 * rho) as u64) {
                (_, 0) => 0.30,
                (64, 1) => 0.20,
                (64, 4) => 0.18,
                (_, 1 | 2) => 0.15,
                _ => 0.38 + if seed % 2 == 0 { 0.3 } else { -0.3 },
            };
            let error: f64 = error + 0.01 * shared as f64 + 0.001 * own as f64;
            writeln!(
                csv,
                "{m},{rho},equal,{arm},{seed},false,{},{error},1000,{},{},1,run.epochs,r",
                error + 0.2,
                error - 0.1,
                rho * if m < 64.0 { 4.0 } else { 1.0 }
            )
            .unwrap();
        }
    }
    std::fs::write(folder.join("plan.json"), plan.to_string()).unwrap();
    std::fs::write(folder.join("results.csv"), csv).unwrap();
}

fn report(change: impl Fn(&mut Value)) -> (tempfile::TempDir, Document) {
    let folder = tempfile::tempdir().unwrap();
    study(folder.path(), change);
    let document = of_study(folder.path()).unwrap();
    (folder, document)
}

/// All statements of a section.
fn statements(document: &Document, title: &str) -> Vec<String> {
    let section = document.sections.iter().find(|section| section.title == title);
    let blocks = section.iter().flat_map(|section| &section.blocks);
    blocks.filter_map(|block| if let Block::List(list) = block { Some(list.clone()) } else { None }).flatten().collect()
}

#[test]
fn what_is_there_is_said_and_what_is_not_shown_is_not() {
    let (_folder, document) = report(|_| {});
    let said = statements(&document, "What the numbers support");
    let by_radius = said.iter().find(|text| text.starts_with("equal: m 4 against m 64")).unwrap();
    assert!(by_radius.contains("lower at ρ 0.1 (−5.0)"), "{by_radius}");
    assert!(by_radius.contains("alike at ρ 0.2 (0.0)") || by_radius.contains("alike at ρ 0.2 (+0.0)"), "{by_radius}");
    assert!(by_radius.contains("nothing shown at ρ 0.4 (+20.0)"), "{by_radius}");
    // Each at its best: 0.2 for m 64, and a tie of 0.1 and 0.2 for m 4.
    let tuned = said.iter().find(|text| text.contains("against m 64 (ρ 0.2)")).unwrap();
    assert!(tuned.contains("alike"), "{tuned}");
}

#[test]
fn a_best_radius_at_the_edge_of_its_grid_is_marked() {
    let edges = |change: &dyn Fn(&mut Value)| {
        let (_folder, document) = report(change);
        let said = statements(&document, "What the numbers support").join("\n");
        let tuned = said.lines().find(|line| line.contains("95 %")).unwrap().to_string();
        tuned.split_once("may lie beyond it: ").map(|(_, edges)| edges.to_string())
    };
    assert_eq!(edges(&|_| {}), None, "both bests are 0.2, between 0.1 and 0.4");
    // Without the arms of 0.4 that of m 64 is the largest; m 4's is 0.1, and below it there is the arm without SAM.
    let without = |plan: &mut Value| {
        let arms = plan["arms"].as_array_mut().unwrap();
        arms.remove(6);
        arms.remove(3);
    };
    assert_eq!(edges(&without).as_deref(), Some("m 64."));
    // Without an arm without SAM, 0.1 is the smallest of m 4.
    let no_baseline = |plan: &mut Value| {
        plan["arms"].as_array_mut().unwrap().remove(0);
    };
    assert_eq!(edges(&no_baseline).as_deref(), Some("m 4."));
}

#[test]
fn arms_stand_beside_the_one_without_sam() {
    let (_folder, document) = report(|_| {});
    let json = document.json();
    let tables: Vec<&Value> = (json["sections"].as_array().unwrap().iter())
        .flat_map(|section| section["blocks"].as_array().unwrap())
        .filter_map(|block| block.get("table"))
        .collect();
    let arms = tables.iter().find(|table| table["caption"].as_str().unwrap().starts_with("All arms")).unwrap();
    let columns: Vec<&str> = arms["columns"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let at = columns.iter().position(|name| *name == "against no SAM (points)").unwrap();
    let alone = columns.iter().position(|name| *name == "of the test set alone").unwrap();
    let rows = arms["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 7);
    assert_eq!(rows[0][at], "–", "the baseline has none");
    assert!((rows[2][at].as_f64().unwrap() + 15.0).abs() < 0.5, "{}", rows[2]);
    // 1000 examples: sqrt(.33 * .67 / 1000) is 1.5 points.
    assert!((rows[0][alone].as_f64().unwrap() - 1.49).abs() < 0.01, "{}", rows[0]);
    let said = statements(&document, "What the numbers support").join("\n");
    assert!(
        said.contains("against no SAM: lower: ρ 0.1, m 64 (−10.0)")
            || said.contains("against no SAM: lower: m 64, ρ 0.1 (−10.0)"),
        "{said}"
    );
}

#[test]
fn a_row_of_another_plan_is_none_of_this_one() {
    let (_folder, document) = report(|plan| {
        plan["arms"][4]["values"][0][1] = json!(16);
        plan["arms"][4]["places"][0]["coordinates"][0][1] = json!(16);
    });
    // The table was written by the same plan here, so that nothing is missing; then the plan is another.
    assert!(!document.json().to_string().contains("runs are missing"));
    let (folder, _) = report(|_| {});
    let file = folder.path().join("plan.json");
    let mut plan: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    plan["arms"][4]["values"][0][1] = json!(16);
    plan["arms"][4]["places"][0]["coordinates"][0][1] = json!(16);
    std::fs::write(&file, plan.to_string()).unwrap();
    let text = of_study(folder.path()).unwrap().json().to_string();
    assert!(text.contains("8 of 56 runs are missing") && text.contains("m 16, ρ 0.1 (0 of 8 seeds)"), "{text}");
}

#[test]
fn arms_that_learned_nothing_are_not_called_alike() {
    let (folder, _) = report(|_| {});
    let table = folder.path().join("results.csv");
    let csv = std::fs::read_to_string(&table).unwrap();
    let lines = csv.lines().enumerate().map(|(at, line)| {
        let error = if at == 0 {
            "train_error"
        } else if line.contains(",0.2,equal") {
            "0.9"
        } else {
            "0.1"
        };
        format!("{line},{error}")
    });
    std::fs::write(&table, lines.collect::<Vec<_>>().join("\n") + "\n").unwrap();
    let said = statements(&of_study(folder.path()).unwrap(), "What the numbers support").join("\n");
    assert!(said.contains("neither learned at ρ 0.2"), "{said}");
}

#[test]
fn what_is_missing_is_told_and_one_seed_claims_nothing() {
    let (folder, _) = report(|_| {});
    let table = folder.path().join("results.csv");
    let csv = std::fs::read_to_string(&table).unwrap();
    let keep = |line: &&str| line.starts_with("sam.m") || line.split(',').nth(4) == Some("0");
    std::fs::write(&table, csv.lines().filter(keep).collect::<Vec<_>>().join("\n") + "\n").unwrap();
    let document = of_study(folder.path()).unwrap();
    assert!(statements(&document, "What the numbers support").is_empty());
    let text = document.json().to_string();
    assert!(
        text.contains("49 of 56 runs are missing")
            && text.contains("m 4, ρ 0.4 (1 of 8 seeds)") == text.contains("m 64, ρ 0.1 (1 of 8 seeds)"),
        "{text}"
    );
    std::fs::write(&table, "sam.m,arm\n1\n").unwrap();
    let error = of_study(folder.path()).unwrap_err().to_string();
    assert!(error.contains("results.csv") && error.contains("line: 2"), "{error}");
}

#[test]
fn a_page_needs_nothing_else_and_its_figures_lie_beside_it() {
    let (folder, document) = report(|_| {});
    let page = write(&document, folder.path()).unwrap();
    let html = std::fs::read_to_string(page).unwrap();
    for outside in ["http:", "https:", "<script", "<link", "not drawn"] {
        assert!(!html.contains(outside), "{outside}");
    }
    let drawn = document.drawings().count();
    assert!(drawn >= 2 && html.matches("<figure").count() == drawn);
    for drawing in document.drawings() {
        for ending in ["svg", "png", "pdf", "csv"] {
            assert!(folder.path().join(format!("figures/{}.{ending}", drawing.stem)).exists());
        }
    }
    let json: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.path().join("report.json")).unwrap()).unwrap();
    assert_eq!(json, document.json());
    // Against rho there are two lines and the baseline, against the equivalent rho too.
    let figure = document.drawings().find(|drawing| drawing.stem == "error-against-rho-1").unwrap();
    assert!(figure.figure.data()["rows"].as_array().unwrap().len() > 12);
}

#[test]
fn what_is_taken_together_is_called_by_the_text_that_stands_for_it() {
    let (_folder, document) = report(|plan| {
        plan["report"] = json!({"compare": ["let.ball"]});
        plan["variables"] = json!(["let.ball"]);
        for arm in plan["arms"].as_array_mut().unwrap() {
            let ball = if arm["values"][0][1] == 4 { "<small>" } else { "large" };
            arm["places"][0]["together"] = json!([["let.ball", "sam.m"]]);
            let coordinates = arm["places"][0]["coordinates"].as_array_mut().unwrap();
            coordinates.insert(0, json!(["let.ball", ball]));
        }
    });
    let said = statements(&document, "What the numbers support");
    assert!(
        said.iter().any(|text| text.starts_with("equal: <small> against large: lower at ρ 0.1 (−5.0)")),
        "{said:?}"
    );
    let text = document.json().to_string();
    assert!(text.contains("\"<small>, ρ 0.4\"") && !text.contains("m 4,"), "{text}");
}

#[test]
fn a_radius_is_not_chosen_on_too_few_seeds() {
    let (folder, _) = report(|plan| plan["report"] = json!({"choose": "sam.rho"}));
    let file = folder.path().join("plan.json");
    let mut plan: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    plan["seeds"] = json!([0, 1, 2, 3]);
    std::fs::write(&file, plan.to_string()).unwrap();
    let text = of_study(folder.path()).unwrap().json().to_string();
    assert!(text.contains("4 of them are too few, at least 6 are needed"), "{text}");
    assert!(!text.contains("Each at its own best radius"), "{text}");
}

/// What scipy 1.17 and statsmodels 0.15 find of the tables that the repository has.
#[test]
fn the_studies_in_the_docs_have_the_numbers_that_scipy_finds() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/studies");
    let table = |study: &str, caption: &str| {
        let json = of_study(&docs.join(study)).unwrap().json();
        let blocks =
            json["sections"].as_array().unwrap().iter().flat_map(|section| section["blocks"].as_array().unwrap());
        let mut tables = blocks.filter_map(|block| block.get("table").cloned());
        tables.find(|table| table["caption"].as_str().unwrap().starts_with(caption)).unwrap()
    };
    let close = |found: &Value, expected: f64| {
        let found = found.as_f64().unwrap();
        assert!((found / expected - 1.0).abs() < 1e-7, "{found} {expected}");
    };
    let compared = table("m-sharpness", "Test error after the last epoch");
    let row = |names: [&str; 4]| {
        let mut rows = compared["rows"].as_array().unwrap().iter();
        rows.find(|row| (0..4).all(|at| row[at] == names[at])).unwrap()
    };
    let convnet = row(["equal, convnet", "m 1", "m 64", "ρ 0.05"]);
    close(&convnet[7], -16.737_515_299_158_953);
    close(&convnet[8], -13.540_262_478_618_822);
    close(&convnet[9], 4.949_176_372_987_185_6e-9);
    close(&convnet[11], 0.999_999_995_475_065_8);
    assert_eq!(convnet[12], "lower");
    close(&row(["matched, mlp", "m 4", "m 64", "radius 0.1"])[9], 0.007_804_111_921_476_395);
    let power = table("predictive", "Predictive power");
    let measures: Vec<&Value> = power["rows"].as_array().unwrap().iter().map(|row| &row[1]).collect();
    assert!(measures[0].as_f64().unwrap() > 0.35 && measures[5].as_f64().unwrap() < 0.2, "{measures:?}");
}
