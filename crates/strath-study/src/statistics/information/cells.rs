//! Pairs of models, sorted into cells by what both models' hyper-parameters are.

use super::{Conditioned, Convention, Model};
use crate::statistics::rank::Ranks;

/// The outcomes of comparing two models: smaller, equal, larger.
const SIGNS: usize = 3;

/// All pairs of models, by the ranks of what is compared.
pub(super) struct Pairs {
    convention: Convention,
    /// The rank of each model's measure.
    pub(super) measures: Vec<u32>,
    /// The rank of each model's gap.
    gaps: Vec<u32>,
    subsets: Vec<Subset>,
}

/// A subset of the hyper-parameters, and which models agree in it.
struct Subset {
    /// Positions of the hyper-parameters.
    given: Vec<usize>,
    /// Which combination of values each model has.
    combination: Vec<usize>,
    /// How many combinations there are.
    combinations: usize,
}

impl Subset {
    fn of(models: &[Model], given: Vec<usize>) -> Self {
        let values = |model: &Model| given.iter().map(|at| model.hyper_parameters[*at]).collect::<Vec<u32>>();
        let mut there: Vec<Vec<u32>> = models.iter().map(values).collect();
        there.sort_unstable();
        there.dedup();
        // Each is there: the list was made of them.
        let combination = models.iter().map(|model| there.partition_point(|other| *other < values(model))).collect();
        Self { given, combination, combinations: there.len() }
    }
}

/// How many of a cell's pairs have each outcome: of the gap by row, of the measure by column.
type Cell = [[u32; SIGNS]; SIGNS];

impl Pairs {
    /// The pairs of `models`, which have the same number of hyper-parameters, for `convention`'s subsets of these.
    pub(super) fn of(models: &[Model], convention: Convention) -> Self {
        let ranks = |value: fn(&Model) -> f64| Ranks::of(&models.iter().map(value).collect::<Vec<f64>>()).dense;
        let count = models.first().map_or(0, |model| model.hyper_parameters.len());
        let mut given = Vec::new();
        if convention == Convention::Paper {
            given.push(Vec::new());
            given.extend((0..count).map(|a| vec![a]));
        }
        given.extend((0..count).flat_map(|a| (a + 1..count).map(move |b| vec![a, b])));
        let subsets = given.into_iter().map(|given| Subset::of(models, given)).collect();
        Self { convention, measures: ranks(|model| model.measure), gaps: ranks(|model| model.gap), subsets }
    }

    /// What a measure of these ranks says about the gap, given each subset.
    pub(super) fn conditioned(&self, measures: &[u32]) -> Vec<Conditioned> {
        self.subsets.iter().map(|subset| self.given(subset, measures)).collect()
    }

    fn given(&self, subset: &Subset, measures: &[u32]) -> Conditioned {
        let (mut information, mut entropy, mut weights) = (0.0, 0.0, 0.0);
        for cell in self.cells(subset, measures) {
            let pairs: u32 = cell.iter().flatten().sum();
            if pairs > 0 {
                let weight = match self.convention {
                    Convention::Paper => f64::from(pairs),
                    Convention::Competition => 1.0,
                };
                let (of_both, of_gap) = bits(&cell, f64::from(pairs));
                information += weight * of_both;
                entropy += weight * of_gap;
                weights += weight;
            }
        }
        let share = (entropy > 0.0).then(|| (information / entropy).clamp(0.0, 1.0));
        Conditioned {
            given: subset.given.clone(),
            information: (information / weights).max(0.0),
            entropy: entropy / weights,
            share,
        }
    }

    fn cells(&self, subset: &Subset, measures: &[u32]) -> Vec<Cell> {
        let mut cells = vec![Cell::default(); subset.combinations * subset.combinations];
        for a in 0..self.gaps.len() {
            let row = subset.combination[a] * subset.combinations;
            for b in 0..self.gaps.len() {
                if a == b && self.convention == Convention::Paper {
                    continue;
                }
                let gap = self.outcome(self.gaps[a], self.gaps[b]);
                let measure = self.outcome(measures[a], measures[b]);
                cells[row + subset.combination[b]][gap][measure] += 1;
            }
        }
        cells
    }

    fn outcome(&self, first: u32, second: u32) -> usize {
        match self.convention {
            Convention::Paper => (first.cmp(&second) as i8 + 1) as usize,
            Convention::Competition => usize::from(first > second),
        }
    }
}

/// Mutual information of gap and measure, and entropy of the gap, among a cell's `n` pairs.
fn bits(cell: &Cell, n: f64) -> (f64, f64) {
    let rows: [u32; SIGNS] = std::array::from_fn(|i| cell[i].iter().sum());
    let columns: [u32; SIGNS] = std::array::from_fn(|j| cell.iter().map(|row| row[j]).sum());
    let (mut information, mut entropy) = (0.0, 0.0);
    for (row, of_row) in cell.iter().zip(rows).filter(|(_, of_row)| *of_row > 0) {
        let of_row = f64::from(of_row);
        entropy -= of_row / n * (of_row / n).log2();
        for (both, of_column) in row.iter().zip(columns).filter(|(both, _)| **both > 0) {
            let both = f64::from(*both);
            information += both / n * (both / of_row * (n / f64::from(of_column))).log2();
        }
    }
    (information, entropy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_has_the_bits_of_its_shares() {
        assert_eq!(bits(&[[2, 0, 0], [0, 0, 0], [0, 0, 2]], 4.0), (1.0, 1.0));
        assert_eq!(bits(&[[1, 0, 1], [0, 0, 0], [1, 0, 1]], 4.0), (0.0, 1.0));
        assert_eq!(bits(&[[0, 0, 0], [3, 0, 2], [0, 0, 0]], 5.0), (0.0, 0.0));
        let (information, entropy) = bits(&[[1, 0, 0], [0, 1, 0], [0, 0, 1]], 3.0);
        assert!((information - 3f64.log2()).abs() < 1e-15 && (entropy - 3f64.log2()).abs() < 1e-15);
    }

    #[test]
    fn cells_hold_every_pair_once_in_both_orders() {
        let model = |measure: i32, gap: i32, value| Model {
            measure: f64::from(measure),
            gap: f64::from(gap),
            hyper_parameters: vec![value, 0],
        };
        let models = [model(1, 1, 4), model(2, 1, 4), model(3, 0, 9)];
        for (convention, subsets, expected) in [(Convention::Paper, 4, 6), (Convention::Competition, 1, 9)] {
            let pairs = Pairs::of(&models, convention);
            assert_eq!(pairs.subsets.len(), subsets);
            let last = &pairs.subsets[subsets - 1];
            assert_eq!((last.combination.as_slice(), last.combinations), ([0, 0, 1].as_slice(), 2));
            let cells = pairs.cells(last, &pairs.measures);
            assert_eq!(cells.iter().flatten().flatten().sum::<u32>(), expected);
            match convention {
                // Of the first two models: equal gaps, the measure smaller and larger.
                Convention::Paper => assert_eq!(cells[0], [[0, 0, 0], [1, 0, 1], [0, 0, 0]]),
                // The same, and both with themselves.
                Convention::Competition => assert_eq!(cells[0], [[3, 1, 0], [0, 0, 0], [0, 0, 0]]),
            }
        }
    }
}
