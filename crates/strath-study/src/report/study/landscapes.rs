//! Landscapes side by side: the first seed's, of the arms whose training is drawn.

use std::path::Path;

use super::super::document::{Block, Drawing};
use super::data::Data;
use super::training::{chosen, folders};
use crate::landscape::Landscape;

/// Figures on one scale for each setting, from the folders of the runs below `runs`; nothing where none was measured.
pub(super) fn figures(data: &Data<'_>, runs: &Path) -> Vec<Block> {
    let folders = folders(data, runs);
    let Some(seed) = data.record.seeds.first() else { return Vec::new() };
    let mut blocks = Vec::new();
    for (setting, arms) in chosen(data) {
        let read = |which| {
            let file = folders.get(&(which, *seed))?.join("landscape").join("landscape.csv");
            let landscape = Landscape::of_csv(&std::fs::read_to_string(file).ok()?)?;
            Some((data.name_beside(which, &setting), landscape))
        };
        let named: Vec<(String, Landscape)> = arms.into_iter().filter_map(read).collect();
        for (name, figure) in Landscape::side_by_side(&named) {
            let of: Vec<&str> = [&setting[..], &name].into_iter().filter(|part| !part.is_empty()).collect();
            blocks.push(Block::Drawing(Drawing {
                stem: format!("landscape-{}", blocks.len() + 1),
                caption: format!(
                    "{}: loss around the last weights of seed {seed}, along filter-normalised random directions (Li et al. 2018), on one scale for all arms of a setting; of each value the arm of the least mean test error.",
                    of.join(", ")
                ),
                figure,
            }));
        }
    }
    blocks
}
