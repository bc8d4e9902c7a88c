//! Precedence, origins, and what a later layer takes away from an earlier one.

use std::path::{Path, PathBuf};

use strath_core::config::{
    LaneSizes, ModelKind, Norm, NormLayer, OptimizerKind, Origin, Perturb, Reduce, RhoRule, RunLength, Schedule,
    WeightDecay,
};

use crate::support::{MINIMAL, config, layers};

#[test]
fn a_file_of_two_lines_has_every_default() {
    let config = config(&[]);
    assert_eq!((config.run.name.as_str(), config.run.length, config.run.seed), ("digits", RunLength::Epochs(10), 0));
    assert_eq!((config.batch.size, config.batch.micro, config.sam.rho), (64, None, 0.05));
    assert_eq!((config.sam.m, config.sam.norm), (LaneSizes::Each(32), Norm::P(2.0)));
    assert_eq!((config.sam.perturb, config.sam.weight_decay), (Perturb::All, WeightDecay::Outside));
    assert_eq!(config.optimizer.kind, OptimizerKind::Sgd { momentum: 0.0, nesterov: false });
    assert_eq!(config.schedule.kind, Schedule::Constant);
    assert_eq!((config.cluster.workers, config.cluster.min_workers, config.cluster.threads), (2, 1, None));
    assert_eq!((config.cluster.reduce, config.cluster.lease_ms, config.cluster.gather_ms), (Reduce::Exact, 2000, 2000));
    assert_eq!((config.checkpoint.every_steps, config.checkpoint.keep), (500, 3));
    assert_eq!(config.telemetry.every, 50);
    assert_eq!(config.model.kind, ModelKind::ConvNet { widths: vec![16, 32, 64], norm: NormLayer::Batch });
}

#[test]
fn a_later_layer_wins_and_rows_tell_where_a_value_comes_from() {
    let text = format!("{MINIMAL}[sam]\nrho = 0.1\nm = 8\n[batch]\nsize = 16\n");
    let variables = [("STRATH__SAM__M", "4"), ("HOME", "/root"), ("STRATH__OPTIMIZER__LR", "1")];
    let effective = layers(&text)
        .unwrap()
        .environment(variables.iter().map(|(a, b)| ((*a).into(), (*b).into())), Path::new("/here"))
        .unwrap()
        .set("sam.m=2", Path::new("/here"))
        .unwrap()
        .resolve()
        .unwrap();
    let row = |key: &str| effective.rows().into_iter().find(|row| row.key == key).unwrap();
    assert_eq!((row("sam.m").value.as_str(), row("sam.m").origin), ("2", Origin::Flag("--set")));
    assert_eq!(row("sam.rho").origin, Origin::File { name: "run.toml".into(), line: 6 });
    assert_eq!(row("optimizer.lr").origin, Origin::Environment("STRATH__OPTIMIZER__LR".into()));
    assert_eq!((row("optimizer.lr").value.as_str(), row("sam.eta").value.as_str()), ("1.0", "-"));
    assert_eq!(row("sam.norm").origin, Origin::Default);
    assert!(effective.rows().iter().all(|row| !row.meaning.is_empty()));
}

#[test]
fn a_flag_of_its_own_is_named_as_the_origin() {
    let workers = |n: i64| layers(MINIMAL).unwrap().set_value("cluster.workers", n, "--workers", Path::new("/here"));
    let effective = workers(1).unwrap().resolve().unwrap();
    let row = effective.rows().into_iter().find(|row| row.key == "cluster.workers").unwrap();
    assert_eq!((row.value.as_str(), row.origin.to_string().as_str()), ("1", "--workers"));
    let none = workers(0).expect_err("no workers").to_string();
    assert_eq!(none, "cluster.workers = 0 (--workers): expected an integer from 1 to 64");
}

#[test]
fn of_two_flags_for_one_key_the_later_wins_over_file_and_environment() {
    let variable = [("STRATH__SAM__RHO".to_string(), "0.3".to_string())].into_iter();
    let flags_first =
        layers(&format!("{MINIMAL}[sam]\nrho = 0.2\n")).unwrap().set("sam.rho=0.4", Path::new("/")).unwrap();
    let set = flags_first.set("sam.rho=0.5", Path::new("/")).unwrap().environment(variable, Path::new("/")).unwrap();
    assert_eq!(set.resolve().unwrap().config.sam.rho, 0.5);
}

#[test]
fn a_later_choice_of_epochs_or_steps_replaces_an_earlier_one() {
    let by = |text: &str, set: &str| layers(text).unwrap().set(set, Path::new("/")).unwrap().resolve().unwrap().config;
    assert_eq!(by(&format!("{MINIMAL}[run]\nsteps = 7\n"), "run.epochs=2").run.length, RunLength::Epochs(2));
    assert_eq!(by(&format!("{MINIMAL}[run]\nepochs = 7\n"), "run.steps=2").run.length, RunLength::Steps(2));
    assert_eq!(config(&["run.steps=7", "run.steps=9"]).run.length, RunLength::Steps(9));
}

#[test]
fn an_option_goes_with_the_kind_that_a_later_layer_replaces_and_a_warning_tells() {
    let text = "[data]\nkind = \"digits\"\n[model]\nkind = \"resnet\"\ndepth = 8\n[optimizer]\nmomentum = 0.9\n";
    let over = |sets: &[&str]| {
        sets.iter().try_fold(layers(text).unwrap(), |layers, set| layers.set(set, Path::new("/"))).unwrap().resolve()
    };
    let plain = over(&["model.kind=convnet", "optimizer.kind=adamw"]).unwrap();
    assert_eq!(plain.config.model.kind, ModelKind::ConvNet { widths: vec![16, 32, 64], norm: NormLayer::Batch });
    assert_eq!(
        plain.warnings(),
        [
            "model.depth (run.toml:5) was written for model.kind = \"resnet\" and is left out, as model.kind = \"convnet\" \
             (--set) replaces it",
            "optimizer.momentum (run.toml:7) was written for optimizer.kind = \"sgd\" and is left out, as optimizer.kind = \
             \"adamw\" (--set) replaces it",
        ]
    );
    // A depth of 8 would be legal for a vit, but it was not written for one.
    let vit = over(&["model.kind=vit"]).unwrap().config.model.kind;
    assert_eq!(vit, ModelKind::ViT { patch: 4, dim: 192, depth: 12, heads: 3, mlp_ratio: 4 });
    // In whatever order, flags belong together, and what they say of the new kind stays.
    for sets in [["model.depth=3", "model.kind=vit"], ["model.kind=vit", "model.depth=3"]] {
        let effective = over(&sets).unwrap();
        assert!(matches!(effective.config.model.kind, ModelKind::ViT { depth: 3, .. }), "{sets:?}");
        assert!(effective.warnings().is_empty());
    }
    let same = over(&["model.kind=resnet"]).unwrap();
    assert_eq!(
        (same.config.model.kind.clone(), same.warnings().len()),
        (ModelKind::ResNet { depth: 8, skip: true, norm: NormLayer::Batch }, 0)
    );
}

#[test]
fn an_option_that_waits_for_a_later_choice_is_kept() {
    let text = format!("{MINIMAL}[sam]\neta = 0.2\n[optimizer]\nbeta1 = 0.8\n");
    let sets = ["sam.adaptive=true", "optimizer.kind=adamw"];
    let layers = sets.iter().try_fold(layers(&text).unwrap(), |layers, set| layers.set(set, Path::new("/"))).unwrap();
    let effective = layers.resolve().unwrap();
    assert_eq!(effective.config.sam.eta, 0.2);
    assert_eq!(effective.config.optimizer.kind, OptimizerKind::AdamW { beta1: 0.8, beta2: 0.999, adam_eps: 1e-8 });
    assert!(effective.warnings().is_empty());
}

#[test]
fn a_path_that_went_with_its_data_set_is_named_where_one_is_missing() {
    let text = "[data]\nkind = \"fashion-mnist\"\npath = \"x\"\n[model]\nkind = \"convnet\"\n";
    let over = |set: &str| layers(text).unwrap().set(set, Path::new("/")).unwrap().resolve();
    let missing = over("data.kind=mnist").expect_err("no path for MNIST").to_string();
    assert!(missing.contains("data.path is not set") && missing.contains("run.toml:3"), "{missing}");
    assert_eq!(over("data.kind=digits").unwrap().config.data.path, None);
}

#[test]
fn a_radius_that_follows_m_refers_to_the_batch_unless_told() {
    let rule = |sets: &[&str]| config(sets).sam.rho_rule;
    assert_eq!(rule(&[]), RhoRule::Constant);
    assert_eq!(rule(&["sam.rho_rule=sqrt-m", "batch.size=32"]), RhoRule::SqrtM { m_ref: 32 });
    assert_eq!(rule(&["sam.rho_rule=sqrt-m", "sam.m_ref=8"]), RhoRule::SqrtM { m_ref: 8 });
    let table = config(&["sam.rho_rule=sqrt-m", "sam.rho=0.2", "batch.size=64"]).sam;
    assert_eq!([64, 16, 4].map(|m| table.radius(m)), [0.2, 0.1, 0.05]);
}

#[test]
fn paths_are_relative_to_the_layer_that_names_them() {
    let text = "[data]\nkind = \"mnist\"\npath = \"../data/./x\"\n[model]\nkind = \"convnet\"\n";
    let config =
        layers(text).unwrap().set("model.init=a.safetensors", Path::new("/here")).unwrap().resolve().unwrap().config;
    assert_eq!(config.data.path, Some(PathBuf::from("/configs/../data/x")));
    assert_eq!(config.model.init, Some(PathBuf::from("/here/a.safetensors")));
}
