//! The runs of a study: arms x seeds, with their whole configurations.

use std::path::Path;

use strath_core::Digest;
use strath_core::config::{Config, Layers, RunLength, parse_value};
use toml::Value;

use super::grid::arms;
use super::setting::{is_own, plain};
use super::{Arm, Compute, Setting, Settings, StudyError, StudyFile};

/// One run.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedRun {
    /// Which arm, by its place in [`Plan::arms`].
    pub arm: usize,
    /// The seed: equal ones mean equal initial weights, order, draws and label noise in every arm.
    pub seed: u64,
    /// Twice the epochs, for compute equal to SAM's two gradients a step.
    pub is_doubled: bool,
    /// Its whole configuration.
    pub config: Config,
    /// The configuration of the run whose lift its own is made equal to, where there is one.
    pub reference: Option<Box<Config>>,
    /// The name of its folder: what varies, the seed, and 8 digits of the configuration's digest, so that a run of a changed study is another.
    pub folder: String,
}

/// A study's runs, seed by seed, so that every arm has as many at any time.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The arms.
    pub arms: Vec<Arm>,
    /// Of each arm, what its configurations hold for the keys that some arm sets and that mean something in it.
    pub values: Vec<Settings>,
    /// Keys that vary: axes by name, paired lists, derived keys.
    pub keys: Vec<String>,
    /// The study's own variables.
    pub variables: Vec<String>,
    /// The runs.
    pub runs: Vec<PlannedRun>,
}

impl Plan {
    /// Of a file, where `base` is the configuration without what varies; relative paths among the settings are relative to `folder`.
    ///
    /// # Errors
    /// [`StudyError`] for a grid that cannot be expanded, and for the first run whose configuration is refused.
    pub fn of(file: &StudyFile, base: Layers, folder: &Path) -> Result<Self, StudyError> {
        let (quick, grids) = file.smaller();
        let base = quick
            .into_iter()
            .try_fold(base, |layers, (key, value)| layers.set_value(&key, value, "[quick]", folder))
            .map_err(|error| StudyError::Base(Box::new(error)))?;
        // A base that leaves out what every arm sets is no error.
        let of_base = base.clone().resolve().map(|effective| effective.rows()).unwrap_or_default();
        let value_of = |key: &str| {
            let row = of_base.iter().find(|row| row.key == key && row.value != "-")?;
            Some(parse_value(&row.value))
        };
        let arms = arms(&grids, value_of)?;
        let mut set: Vec<String> = Vec::new();
        for Setting { key, .. } in arms.iter().flat_map(|arm| arm.settings.of_configuration()) {
            if !set.contains(key) {
                set.push(key.clone());
            }
        }
        let (seeds, mut values, mut configs) = (file.seeds()?, Vec::new(), Vec::new());
        let resolved = |settings: &Settings| {
            let refused = |error| {
                let settings = format!("{settings} run.seed={}", seeds[0]);
                StudyError::Run { settings, error: Box::new(error) }
            };
            let mut layers = base.clone();
            for Setting { key, value } in settings.of_configuration() {
                layers = layers.set_value(key, value.clone(), "the study's grid", folder).map_err(refused)?;
            }
            let layers = layers.set_value("run.seed", seeds[0] as i64, "study.seeds", folder).map_err(refused)?;
            layers.resolve().map_err(refused)
        };
        for arm in &arms {
            let effective = resolved(&arm.settings)?;
            let mut found = Settings::default();
            for row in effective.rows() {
                if row.value != "-" && set.iter().any(|key| key == row.key) {
                    found.set(row.key, parse_value(&row.value));
                }
            }
            values.push(found);
            let reference = arm.reference.as_ref().map(&resolved).transpose()?;
            configs.push((effective.config, reference.map(|effective| Box::new(effective.config))));
        }
        let mut runs = Vec::new();
        for (seed, (arm, (config, reference))) in
            seeds.iter().flat_map(|seed| configs.iter().enumerate().map(move |arm| (*seed, arm)))
        {
            let (mut config, mut reference) = (config.clone(), reference.clone());
            config.run.seed = seed;
            if let Some(reference) = &mut reference {
                reference.run.seed = seed;
            }
            let longer = (file.study.compute == Compute::Equal && config.sam.rho == 0.0).then(|| doubled(&config));
            let run = |config, is_doubled| {
                let (reference, folder) = (reference.clone(), String::new());
                PlannedRun { arm, seed, is_doubled, config, reference, folder }
            };
            runs.push(run(config, false));
            runs.extend(longer.map(|config| run(config, true)));
        }
        // An option of one kind of network alone does not vary.
        let varies = |key: &String| {
            let mut found = values.iter().filter_map(|values| values.get(key));
            let first = found.next();
            found.any(|value| Some(value) != first)
        };
        let mut keys: Vec<String> = set.into_iter().filter(varies).collect();
        if arms.iter().any(|arm| arm.reference.is_some()) && !keys.iter().any(|key| key == RADIUS) {
            keys.push(RADIUS.into());
        }
        let mut variables: Vec<String> = Vec::new();
        let coordinates = arms.iter().flat_map(|arm| &arm.places).flat_map(|place| place.coordinates.iter());
        for Setting { key, .. } in coordinates.filter(|setting| is_own(&setting.key)) {
            if !variables.contains(key) {
                variables.push(key.clone());
            }
        }
        let mut plan = Self { arms, values, keys, variables, runs };
        plan.name_folders();
        Ok(plan)
    }

    /// Sets the radius of each run that has a reference so that its lift is the reference's, to six digits; `lift` is proportional to
    /// `sam.rho`. Runs whose reference has none have none either.
    ///
    /// # Errors
    /// Those of `lift`, and [`StudyError::NoLift`] where a run climbs nothing whatever its radius.
    pub fn match_lifts<E>(&mut self, mut lift: impl FnMut(&Config) -> Result<f64, E>) -> Result<(), E>
    where
        E: From<StudyError>,
    {
        for at in 0..self.runs.len() {
            let run = &self.runs[at];
            let Some(reference) = run.reference.as_deref() else { continue };
            let wanted = lift(reference)?;
            let mut unit = run.config.clone();
            unit.sam.rho = 1.0;
            let (own, mut rho) = (lift(&unit)?, 0.0);
            if wanted > 0.0 {
                let rounded = format!("{:.5e}", wanted / own);
                let settings = || format!("{} run.seed={}", self.arms[run.arm].settings, run.seed);
                rho = rounded
                    .parse()
                    .ok()
                    .filter(|rho: &f64| rho.is_finite() && *rho > 0.0)
                    .ok_or_else(|| StudyError::NoLift { settings: settings(), found: own })?;
            }
            self.runs[at].config.sam.rho = rho;
        }
        self.name_folders();
        Ok(())
    }

    /// What a run has for a key that varies, or for a variable of the study: the arm's value, but its own radius.
    pub fn value(&self, run: &PlannedRun, key: &str) -> Option<Value> {
        if is_own(key) {
            // Of two grids with one arm, one may know no such variable.
            return self.arms[run.arm].places.iter().find_map(|place| place.coordinates.get(key).cloned());
        }
        match run.reference {
            Some(_) if key == RADIUS => Some(Value::Float(run.config.sam.rho)),
            _ => self.values[run.arm].get(key).cloned(),
        }
    }

    fn name_folders(&mut self) {
        let folders: Vec<String> = self.runs.iter().map(|run| self.folder_of(run)).collect();
        for (run, folder) in self.runs.iter_mut().zip(folders) {
            run.folder = folder;
        }
    }

    fn folder_of(&self, run: &PlannedRun) -> String {
        /// Characters of the part that tells what varies.
        const READABLE: usize = 60;
        let part = |key: &String| {
            let value = plain(&self.value(run, key)?);
            let clean = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
            let value: String = value.chars().map(clean).collect();
            Some(format!("{}-{}", key.rsplit('.').next().unwrap_or(key), value.trim_matches('-')))
        };
        let mut readable = self.keys.iter().filter_map(part).collect::<Vec<_>>().join("_");
        readable.truncate(READABLE);
        // Neither the name nor how many workers there are changes what a run finds.
        let mut same = run.config.clone();
        same.run.name = String::new();
        same.cluster.workers = 1;
        let digest = Digest::of(same.to_toml().as_bytes()).to_string();
        let twice = if run.is_doubled { "_twice" } else { "" };
        format!("{readable}{twice}_s{}_{}", run.seed, &digest[..8])
    }
}

/// The key that a matched lift sets.
const RADIUS: &str = "sam.rho";

/// Gradients that a step takes of each example: one of plain descent, two of SAM.
pub fn gradients_an_example(config: &Config) -> u64 {
    if config.sam.rho > 0.0 { 2 } else { 1 }
}

fn doubled(config: &Config) -> Config {
    let mut config = config.clone();
    config.run.length = match config.run.length {
        RunLength::Epochs(epochs) => RunLength::Epochs(2 * epochs),
        RunLength::Steps(steps) => RunLength::Steps(2 * steps),
    };
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[study]\nname = \"s\"\nseeds = 2\ncompute = \"equal\"\n[base]\n\
        [[grid]]\nsam.m = [64, 16]\nsam.rho = [0, 0.1]\nexclude = [{ sam.rho = 0, sam.m = 16 }]\n\
        [quick]\nrun.epochs = 1\nstudy.seeds = 1\nsam.m = [16]\n";
    const BASE: &str = "[run]\nepochs = 4\n[data]\nkind = \"digits\"\n[model]\nkind = \"mlp\"\nhidden = [8]\n[batch]\nsize = 64\n[optimizer]\nlr = 0.1\n";

    fn plan(text: &str) -> Result<Plan, StudyError> {
        let here = Path::new("/");
        Plan::of(&StudyFile::parse(text, "s.toml", &[""; 0])?, Layers::new().file(BASE, "base", here).unwrap(), here)
    }

    #[test]
    fn every_arm_has_a_run_of_each_seed_and_what_has_no_sam_a_longer_one() {
        let plan = plan(TEXT).unwrap();
        assert_eq!((plan.arms.len(), &plan.keys[..]), (3, &["sam.m".to_string(), "sam.rho".to_string()][..]));
        assert_eq!(plan.runs.len(), 2 * (3 + 1));
        let doubled: Vec<_> = plan.runs.iter().filter(|run| run.is_doubled).collect();
        assert!(doubled.iter().all(|run| run.config.sam.rho == 0.0 && run.config.run.length == RunLength::Epochs(8)));
        let mut folders: Vec<_> = plan.runs.iter().map(|run| run.folder.clone()).collect();
        assert!(folders[1].starts_with("m-64_rho-0.0_twice_s0_"), "{folders:?}");
        folders.sort();
        folders.dedup();
        assert_eq!(folders.len(), plan.runs.len(), "each has a folder of its own");
    }

    #[test]
    fn the_quick_version_has_fewer_values_and_its_own_base() {
        let plan = plan(&TEXT.replace("seeds = 2", "seeds = 2\nquick = true")).unwrap();
        assert_eq!((plan.arms.len(), plan.runs.len()), (1, 1));
        assert_eq!(plan.runs[0].config.run.length, RunLength::Epochs(1));
    }

    #[test]
    fn a_matched_run_has_the_radius_that_its_seed_needs() {
        let text =
            TEXT.replace("exclude = [{ sam.rho = 0, sam.m = 16 }]", "match = \"lift\"\nreference = { sam.m = 64 }");
        let mut plan = plan(&text).unwrap();
        let before: Vec<String> = plan.runs.iter().map(|run| run.folder.clone()).collect();
        // A gradient is twice as long over a quarter of the examples, and differs a little from seed to seed.
        let lift = |config: &Config| {
            let lanes = if config.sam.m == strath_core::config::LaneSizes::Each(16) { 2.0 } else { 1.0 };
            Ok::<f64, StudyError>(config.sam.rho * lanes * (1.0 + config.run.seed as f64) * 0.3)
        };
        plan.match_lifts(lift).unwrap();
        for run in plan.runs.iter().filter(|run| !run.is_doubled) {
            let [m, rho] = ["sam.m", "sam.rho"].map(|key| plan.value(run, key).unwrap());
            let of_reference = plan.arms[run.arm].settings.get("sam.rho").unwrap();
            let of_reference = of_reference.as_float().or(of_reference.as_integer().map(|rho| rho as f64)).unwrap();
            let factor = if m.as_integer() == Some(16) { 0.5 } else { 1.0 };
            assert_eq!(rho.as_float(), Some(of_reference * factor), "{}", run.folder);
        }
        let after: Vec<String> = plan.runs.iter().map(|run| run.folder.clone()).collect();
        assert!(before.iter().zip(&after).any(|(a, b)| a != b));
        let nothing = plan.match_lifts(|config| Ok::<f64, StudyError>(if config.sam.rho == 1.0 { 0.0 } else { 0.1 }));
        assert!(nothing.unwrap_err().to_string().contains("no lift"));
    }

    #[test]
    fn a_run_that_cannot_be_is_named() {
        let error = plan(&TEXT.replace("sam.m = [64, 16]", "sam.m = [64, 15]")).unwrap_err().to_string();
        assert!(error.starts_with("the run with sam.m=15 sam.rho=0 run.seed=0: "), "{error}");
        let error = plan(&TEXT.replace("[0, 0.1]", "[0, \"x\"]")).unwrap_err().to_string();
        assert!(error.contains("sam.rho"), "{error}");
    }

    #[test]
    fn a_folder_is_of_what_a_run_finds() {
        let plan = plan(TEXT).unwrap();
        let run = &plan.runs[0];
        let name = |config: &Config| plan.folder_of(&PlannedRun { config: config.clone(), ..run.clone() });
        let mut other = run.config.clone();
        other.cluster.workers = 7;
        other.run.name = "other".into();
        assert_eq!(name(&other), run.folder);
        other.optimizer.lr = 0.2;
        assert_ne!(name(&other), run.folder);
    }
}
