//! What comes out: warnings, rows, the texts that people write, and what a resumed run must keep.

use std::path::{Path, PathBuf};

use strath_core::config::{ConfigError, LaneSizes, ModelKind, Norm, RunLength, Schedule, resumable};

use crate::support::{config, resolve, with};

#[test]
fn lanes_that_leave_workers_idle_are_warned_of() {
    let warned = |sets: &[&str]| with(sets).unwrap().warnings().join(" ");
    assert!(warned(&["sam.m=batch"]).contains("set batch.micro to spread the lane"));
    assert!(warned(&["sam.m=64"]).contains("1 micro-batch for 2 workers, so 1 idle"));
    assert!(warned(&["cluster.workers=4"]).contains("2 micro-batches for 4 workers, so 2 idle"));
    for busy in [&["sam.m=8"][..], &["sam.m=batch", "cluster.workers=1"], &["sam.m=batch", "batch.micro=8"]] {
        assert_eq!(warned(busy), "", "{busy:?}");
    }
}

#[test]
fn the_effective_configuration_says_what_a_kind_fixes() {
    let effective = with(&["cluster.device=cpu", "cluster.transport=tcp", "data.classes=10"]).unwrap();
    let value = |key: &str| effective.rows().into_iter().find(|row| row.key == key).unwrap().value;
    assert_eq!((value("cluster.device"), value("cluster.transport")), ("\"cpu\"".into(), "\"tcp\"".into()));
    assert_eq!((value("data.classes"), value("data.path")), ("10".into(), "-".into()));
    assert_eq!(effective.to_toml(), effective.config.to_toml());
}

#[test]
fn texts_as_researchers_write_them_are_read() {
    let asam_inf = "[run]\nseed = 0\nsteps = 8\n\n[data]\nkind = \"safetensors\"\npath = \"data.safetensors\"\nclasses = 10\n\
                    shuffle = false\n\n[model]\nkind = \"mlp\"\nhidden = [32, 16]\ninit = \"init.safetensors\"\n\n[batch]\nsize = 32\n\n\
                    [sam]\nrho = 0.01\nm = 8\nadaptive = true\neta = 0.01\nnorm = inf\n\n[optimizer]\nkind = \"sgd\"\nlr = 0.1\n\
                    momentum = 0.9\n";
    let read = resolve(asam_inf).unwrap().config;
    assert_eq!((read.run.length, read.data.classes), (RunLength::Steps(8), Some(10)));
    assert_eq!((read.sam.norm, read.sam.adaptive, read.sam.m), (Norm::Infinity, true, LaneSizes::Each(8)));
    assert_eq!(read.model.init, Some(PathBuf::from("/configs/init.safetensors")));
    let vit_uneven = "[run]\nsteps = 4\n[data]\nkind = \"safetensors\"\npath = \"/d.safetensors\"\nclasses = 10\nshuffle = false\n\
                      [model]\nkind = \"vit\"\npatch = 7\ndim = 24\ndepth = 2\nheads = 3\n[batch]\nsize = 32\nmicro = 4\n\
                      [sam]\nrho = 0.1\nm = [16, 8, 4, 4]\nnorm = 1\n[optimizer]\nkind = \"adamw\"\nlr = 1e-3\nclip_norm = 1\n\
                      [schedule]\nkind = \"step\"\nmilestones = [2, 3]\ngamma = 0.5\n";
    let read = resolve(vit_uneven).unwrap().config;
    assert_eq!((read.sam.m.clone(), read.sam.norm), (LaneSizes::List(vec![16, 8, 4, 4]), Norm::P(1.0)));
    assert_eq!(read.model.kind, ModelKind::ViT { patch: 7, dim: 24, depth: 2, heads: 3, mlp_ratio: 4 });
    assert_eq!(read.schedule.kind, Schedule::Step { milestones: vec![2, 3], gamma: 0.5 });
    assert_eq!((read.optimizer.clip_norm, read.plan().unwrap().micro_batches().len()), (Some(1.0), 8));
}

#[test]
fn the_configurations_that_ship_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let resolved = resolve(&std::fs::read_to_string(&path).unwrap());
            assert!(resolved.is_ok(), "{}: {resolved:?}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 3);
}

#[test]
fn a_run_is_resumed_only_under_what_decides_its_bits() {
    let base = config(&[]);
    for free in [
        "cluster.workers=5",
        "cluster.threads=1",
        "checkpoint.every_steps=7",
        "telemetry.every=0",
        "run.name=x",
        "cluster.algorithm=ring",
        "cluster.min_workers=2",
        "model.init=/elsewhere",
        "cluster.device=cpu",
    ] {
        assert_eq!(resumable(&base, &config(&[free])), Ok(()), "{free}");
    }
    for bound in [
        &["run.seed=1"][..],
        &["run.epochs=11"],
        &["run.steps=4"],
        &["run.stop_loss=0.1"],
        &["data.shuffle=false"],
        &["data.augment=[\"flip\"]"],
        &["data.train_limit=100"],
        &["data.label_noise=0.1"],
        &["data.validation=0.1"],
        &["model.widths=[8]"],
        &["model.norm=group"],
        &["loss.label_smoothing=0.1"],
        &["batch.size=128"],
        &["batch.micro=16"],
        &["sam.rho=0.1"],
        &["sam.m=16"],
        &["sam.adaptive=true"],
        &["sam.rho_rule=sqrt-m"],
        &["sam.direction=random"],
        &["optimizer.momentum=0.5"],
        &["optimizer.clip_norm=1.0"],
        &["schedule.kind=cosine"],
        &["schedule.warmup_steps=3"],
        &["cluster.reduce=f32"],
    ] {
        let key = bound[0].split_once('=').unwrap().0;
        match resumable(&base, &config(bound)) {
            // Steps in place of epochs: the epochs are missed first.
            Err(ConfigError::NotResumable { key: found, .. }) if key == "run.steps" => assert_eq!(found, "run.epochs"),
            Err(ConfigError::NotResumable { key: found, old, new }) => {
                assert_eq!(found, key);
                assert_ne!(old, new);
            }
            other => panic!("{bound:?}: {other:?}"),
        }
    }
}
