//! Each arm beside the one without SAM in which all else is equal, trained as long, and twice as long: as many gradients as SAM's.

use std::collections::BTreeMap;

use super::compare::margin;
use super::curves::LAST;
use super::data::{Data, Which, under};
use super::difference::{Difference, Quantity, Verdict};
use crate::statistics::StatisticsError;

/// Arms that a sentence can list.
const MOST: usize = 12;

/// All arms beside one kind of baseline.
pub(super) struct Baseline {
    is_doubled: bool,
    differences: BTreeMap<Which, Difference>,
}

impl Baseline {
    /// Those that the study has, by a column of errors.
    pub(super) fn both(data: &Data<'_>, column: &str) -> Result<Vec<Self>, StatisticsError> {
        let mut found = Vec::new();
        for is_doubled in [false, true] {
            let mut differences = BTreeMap::new();
            for which in data.all() {
                let other = baseline(data, which, is_doubled);
                let Some(other) = other.filter(|other| *other != which) else { continue };
                let seeds = &data.record.seeds;
                let difference = Difference::of(data, [which, other], column, seeds, Some(margin(data)))?;
                differences.extend(difference.map(|difference| (which, difference)));
            }
            Difference::correct(differences.values_mut())?;
            if !differences.is_empty() {
                found.push(Self { is_doubled, differences });
            }
        }
        Ok(found)
    }

    /// What it is called.
    pub(super) fn name(&self) -> &'static str {
        if self.is_doubled { "no SAM, twice the epochs" } else { "no SAM" }
    }

    /// An arm beside it.
    pub(super) fn of(&self, which: Which) -> Option<&Difference> {
        self.differences.get(&which)
    }

    /// A sentence for each setting of few arms.
    pub(super) fn sentences(&self, data: &Data<'_>) -> Vec<String> {
        let mut settings: Vec<(String, Vec<(Which, &Difference)>)> = Vec::new();
        for (which, difference) in &self.differences {
            if data.is_plain(*which) {
                continue;
            }
            under(&mut settings, data.beside_sam(*which)).push((*which, difference));
        }
        let sentence = |(setting, arms): (String, Vec<(Which, &Difference)>)| {
            let of = |verdict: Verdict| {
                let named =
                    arms.iter().filter(|(_, difference)| difference.verdict() == verdict).map(|(which, difference)| {
                        format!("{} ({})", data.name_beside(*which, &setting), difference.signed(Quantity::of(LAST.0)))
                    });
                let named: Vec<String> = named.collect();
                (!named.is_empty()).then(|| format!("{}: {}", verdict.said(), named.join("; ")))
            };
            let verdicts: Vec<String> = Verdict::ALL.into_iter().filter_map(of).collect();
            let setting = if setting.is_empty() { String::new() } else { format!("{setting}, ") };
            (arms.len() <= MOST).then(|| format!("{setting}against {}: {}.", self.name(), verdicts.join(". ")))
        };
        settings.into_iter().filter_map(sentence).collect()
    }
}

fn baseline(data: &Data<'_>, which: Which, is_doubled: bool) -> Option<Which> {
    let own = data.beside_sam(which);
    let is_its =
        |other: &Which| other.is_doubled == is_doubled && data.is_plain(*other) && data.beside_sam(*other) == own;
    data.all().into_iter().find(is_its)
}
