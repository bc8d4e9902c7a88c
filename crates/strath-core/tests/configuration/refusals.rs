//! What is refused, by variant and by message.

use std::path::Path;

use strath_core::config::{ConfigError, Device, LaneSizes, Norm, Origin, Transport, resumable};
use strath_core::plan::PlanError;

use crate::support::{MINIMAL, config, layers, refusal, resolve};

#[test]
fn unknown_keys_name_their_place_and_the_nearest_key() {
    let file = resolve(&format!("{MINIMAL}[sam]\nroh = 0.1\n"));
    let origin = Origin::File { name: "run.toml".into(), line: 6 };
    assert_eq!(file, Err(ConfigError::UnknownKey { key: "sam.roh".into(), origin, nearest: "sam.rho" }));
    let environment =
        layers(MINIMAL).unwrap().environment([("STRATH__SAM__ROH".into(), "1".into())].into_iter(), Path::new("/"));
    assert!(matches!(environment, Err(ConfigError::UnknownKey { nearest: "sam.rho", .. })));
    for text in ["[smm]\nrho = 1\n", "[smm]\n", "rho = 1\n", "[sam.rho]\nx = 1\n", "[sam.rho.deep]\nx = 1\n"] {
        assert!(resolve(text).is_err(), "{text}");
    }
}

#[test]
fn values_of_another_type_are_refused_and_never_converted() {
    for (assignment, key) in [
        ("batch.size=128.7", "batch.size"),
        ("batch.size=\"64\"", "batch.size"),
        ("batch.size=0", "batch.size"),
        ("sam.rho=\"0.1\"", "sam.rho"),
        ("sam.rho=nan", "sam.rho"),
        ("sam.rho=-0.1", "sam.rho"),
        ("sam.norm=0.5", "sam.norm"),
        ("sam.norm=nan", "sam.norm"),
        ("sam.m=0", "sam.m"),
        ("sam.m=[]", "sam.m"),
        ("sam.m=[4, 0]", "sam.m"),
        ("data.shuffle=yes", "data.shuffle"),
        ("data.shuffle=1", "data.shuffle"),
        ("data.label_noise=1.5", "data.label_noise"),
        ("run.name=5", "run.name"),
        ("run.name=a/b", "run.name"),
        ("run.seed=-1", "run.seed"),
        ("optimizer.lr=0", "optimizer.lr"),
        ("optimizer.momentum=1.0", "optimizer.momentum"),
        ("optimizer.kind=lion", "optimizer.kind"),
        ("cluster.lease_ms=10", "cluster.lease_ms"),
        ("cluster.verify_every_steps=0", "cluster.verify_every_steps"),
        ("checkpoint.keep=0", "checkpoint.keep"),
        ("telemetry.every=-1", "telemetry.every"),
        ("data.augment=[\"rotate\"]", "data.augment"),
        ("data.augment=[\"crop:x\"]", "data.augment"),
        ("data.augment=[\"crop:0\"]", "data.augment"),
        ("data.augment=[\"cutout:99999999999\"]", "data.augment"),
        ("data.augment=flip", "data.augment"),
        ("data.path=\"\"", "data.path"),
        ("model.init=5", "model.init"),
        ("run.seed=2026-11-24", "run.seed"),
        ("run.name=..", "run.name"),
        ("run.eval_every_epochs=0", "run.eval_every_epochs"),
        ("run.epochs=9223372036854775807", "run.epochs"),
        ("batch.size=9223372036854775807", "batch.size"),
        ("loss.label_smoothing=1.0", "loss.label_smoothing"),
        ("optimizer.lr=inf", "optimizer.lr"),
        ("sam.rho={a = 1}", "sam.rho"),
        ("data.classes=7", "data.classes"),
    ] {
        match refusal(&[assignment]) {
            ConfigError::WrongValue { key: found, .. } => assert_eq!(found, key, "{assignment}"),
            other => panic!("{assignment}: {other}"),
        }
    }
    assert_eq!(config(&["optimizer.lr=1"]).optimizer.lr, 1.0, "an integer serves where a float is due");
    for inf in ["sam.norm=inf", "sam.norm=\"inf\""] {
        assert_eq!(config(&[inf]).sam.norm, Norm::Infinity);
    }
}

#[test]
fn what_this_build_lacks_is_refused_as_such() {
    for assignment in ["data.kind=image-folder", "data.kind=parquet", "study.m=[1, 2]"] {
        let refused = refusal(&[assignment]);
        assert!(matches!(refused, ConfigError::NotInThisBuild { .. }), "{assignment}: {refused}");
    }
    for text in ["[study]\n", "study = 1\n", "[study.grid]\nm = [1]\n", "[[study]]\nm = 1\n"] {
        let refused = resolve(text);
        assert!(matches!(refused, Err(ConfigError::NotInThisBuild { .. })), "{text}: {refused:?}");
    }
    assert_eq!(
        ["cluster.device=cpu", "cluster.device=cuda:3", "cluster.device=auto"].map(|set| config(&[set]).cluster.device),
        [Device::Cpu, Device::Cuda(3), Device::Auto]
    );
    assert_eq!(config(&["cluster.transport=tcp", "cluster.isa=auto"]).cluster.transport, Transport::Tcp);
}

/// The message of every variant: what was found and where, what was expected, what to do; in one line.
#[test]
fn every_refusal_says_in_one_line_what_was_found_what_was_expected_and_what_to_do() {
    let both = format!("[run]\nsteps = 1\nepochs = 2\n{MINIMAL}");
    let set = |assignment: &str| refusal(&[assignment]);
    let file = |text: &str| resolve(text).expect_err(text);
    let lanes = set("sam.m=24");
    for (error, message) in [
        (file("[run]\nname = \n"), "run.toml:2: not valid TOML: "),
        (set("sam.roh=1"), "sam.roh (--set) is not a key; did you mean sam.rho? `strath config` lists them all"),
        (
            set("data.kind=\"parquet\""),
            "data.kind = \"parquet\" (--set) cannot be honoured: this build does not have it; expected one of digits, mnist, fashion-mnist, cifar10, cifar100, safetensors",
        ),
        (
            refusal(&["cluster.transport=nccl", "cluster.reduce=bf16"]),
            "cluster.reduce = \"bf16\" (--set): expected \"exact\" or \"f32\", which NCCL sums (cluster.transport = \"nccl\")",
        ),
        (
            set("cluster.device=\"gpu\""),
            "cluster.device = \"gpu\" (--set): expected \"auto\", \"cpu\", or \"cuda:N\" for the GPU of number N",
        ),
        (
            file("[study]\nm = 1\n"),
            "study.m = 1 (run.toml:2) cannot be honoured: this build does not have it; leave it out",
        ),
        (
            file(&format!("{MINIMAL}[batch]\nsize = 128.7\n")),
            "batch.size = 128.7 (run.toml:6): expected an integer from 1 to 1048576",
        ),
        (set("sam.rho=a\nb"), "sam.rho = \"a\\nb\" (--set): expected a finite number of at least 0"),
        (set("data.shuffle=yes"), "data.shuffle = \"yes\" (--set): expected true or false"),
        (set("run.name=5"), "run.name = 5 (--set): expected a text in double quotes"),
        (file(""), "data.kind is not set; write kind = \"digits\" (built in), mnist, "),
        (set("model.depth=20"), "model.depth (--set) means nothing with model.kind = \"convnet\"; leave it out"),
        (
            refusal(&["model.kind=vit", "model.norm=group"]),
            "model.norm (--set) means nothing with model.kind = \"vit\"; leave it out",
        ),
        (set("sam.eta=0.1"), "sam.eta (--set) means nothing with sam.adaptive = false; leave it out"),
        (file(&both), "run.epochs and run.steps are both set (run.toml:2); keep one"),
        (refusal(&["run.epochs=1", "run.steps=2"]), "run.epochs and run.steps are both set (--set); keep one"),
        (set("sam.rho"), "--set \"sam.rho\": expected KEY=VALUE, such as sam.rho=0.1"),
        (
            refusal(&["sam.m=worker", "cluster.workers=3"]),
            "sam.m = \"worker\": batch.size = 64 is not divisible by cluster.workers = 3; change one of them",
        ),
        (lanes, "sam.m = 24 does not divide batch.size = 64; choose a divisor, or a list"),
        (
            resumable(&config(&[]), &config(&["sam.rho=0.1"])).unwrap_err(),
            "sam.rho: the run in the folder has 0.05, this configuration 0.1; resume with the same, or start a new run with --out",
        ),
    ] {
        let said = error.to_string();
        assert!(said.starts_with(message), "{said}\nshould begin with\n{message}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let long = set(&format!("sam.rho={}", "x".repeat(5000))).to_string();
    assert!(long.len() < 200, "{long}");
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    assert_eq!(refusal(&["sam.m=24"]), PlanError::LaneDoesNotDivideBatch { m: 24, batch: 64 }.into());
    assert_eq!(refusal(&["sam.m=[32, 16]"]), PlanError::LanesDoNotFillBatch { sum: 48, batch: 64 }.into());
    let micro = refusal(&["sam.m=[32, 24, 8]", "batch.micro=16"]);
    assert_eq!(micro, PlanError::MicroDoesNotDivideLane { micro: 16, lane: 24 }.into());
    let worker = refusal(&["sam.m=worker", "cluster.workers=3"]);
    assert_eq!(worker, ConfigError::WorkersDoNotDivideBatch { batch: 64, workers: 3 });
    assert_eq!(config(&["sam.m=worker", "cluster.workers=4"]).sam.m, LaneSizes::Each(16));
    assert_eq!(config(&["sam.m=batch", "batch.micro=8"]).plan().unwrap().micro_batches().len(), 8);
}

#[test]
fn keys_that_would_be_ignored_are_refused() {
    for assignments in [
        &["model.depth=20"][..],
        &["model.kind=mlp", "model.hidden=[8]", "model.skip=false"],
        &["model.kind=mlp", "model.hidden=[8]", "model.norm=batch"],
        &["model.kind=vit", "model.norm=group"],
        &["optimizer.beta1=0.5"],
        &["optimizer.kind=adamw", "optimizer.momentum=0.9"],
        &["schedule.gamma=0.5"],
        &["sam.eta=0.1"],
        &["sam.m_ref=8"],
        &["sam.rho_rule=constant", "sam.m_ref=8"],
        &["data.path=x"],
    ] {
        let refused = refusal(assignments);
        assert!(matches!(refused, ConfigError::MeansNothing { .. }), "{assignments:?}: {refused}");
    }
}

#[test]
fn what_is_missing_is_named_with_what_to_write() {
    for (text, key) in [
        ("", "data.kind"),
        ("[data]\nkind = \"mnist\"\n", "data.path"),
        ("[data]\nkind = \"safetensors\"\npath = \"x\"\n", "data.classes"),
        ("[data]\nkind = \"digits\"\n", "model.kind"),
        ("[data]\nkind = \"digits\"\n[model]\nkind = \"mlp\"\n", "model.hidden"),
        (
            "[data]\nkind = \"digits\"\n[model]\nkind = \"convnet\"\n[schedule]\nkind = \"step\"\n",
            "schedule.milestones",
        ),
    ] {
        match resolve(text).expect_err(text) {
            ConfigError::Missing { key: found, advice } => {
                assert!(found == key && !advice.is_empty(), "{found}: {advice}");
            }
            other => panic!("{text}: {other}"),
        }
    }
}

#[test]
fn shapes_of_models_are_checked() {
    for assignments in [
        &["model.kind=resnet", "model.depth=21"][..],
        &["model.kind=wide-resnet", "model.depth=20"],
        &["model.kind=vit", "model.dim=10", "model.heads=3"],
        &["model.widths=[]"],
        &["schedule.kind=step", "schedule.milestones=[5, 5]"],
        &["optimizer.nesterov=true"],
    ] {
        let refused = refusal(assignments);
        assert!(matches!(refused, ConfigError::WrongValue { .. }), "{assignments:?}: {refused}");
    }
}

#[test]
fn bad_toml_and_bad_assignments_name_their_place() {
    let bad = resolve("[run]\nname = \n");
    assert!(matches!(bad, Err(ConfigError::Syntax { line: 2, .. })), "{bad:?}");
    assert!(matches!(refusal(&["sam.rho"]), ConfigError::NotAnAssignment { .. }));
}

/// Where the identity that a ladder rests on does not hold, it is refused with the reason.
#[test]
fn a_ladder_is_refused_where_coarser_lanes_are_no_means_of_finer_ones() {
    let ladder = "telemetry.ladder=true";
    for (assignments, why) in [
        (&[ladder][..], "batch norm over the whole lane"),
        (&[ladder, "sam.m=[32, 16, 16]", "batch.micro=8"], "different sizes"),
        (&[ladder, "batch.micro=8", "sam.rho=0"], "sam.rho is 0"),
        (&[ladder, "batch.micro=8", "telemetry.every=0"], "telemetry.every is 0"),
    ] {
        let refused = refusal(assignments);
        assert!(matches!(&refused, ConfigError::WrongValue { key, .. } if key == "telemetry.ladder"), "{refused}");
        assert!(refused.to_string().contains(why), "{refused}");
    }
    for assignments in [&[ladder, "batch.micro=8"][..], &[ladder, "model.norm=group"], &[ladder, "model.norm=none"]] {
        assert!(config(assignments).telemetry.ladder, "{assignments:?}");
    }
}
