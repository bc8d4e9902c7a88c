//! The network and the examples that are measured.

use std::ops::Range;
use std::sync::Arc;

use strath_core::fixed::{FixedSum, STATISTIC_BITS, to_f32};
use strath_data::{Loader, SplitName};
use strath_model::{Model, Normalise};
use strath_sam::ascent::Asked;

use super::MeasureError;
use super::ranks::Ranks;
use super::spec::Norms;
use crate::evaluate::{BLOCK, Evaluation, Losses};

/// A network on some examples.
pub(super) struct Subject<'a> {
    pub(super) model: &'a Model,
    pub(super) loader: &'a Loader,
    pub(super) split: SplitName,
    /// The first so many of the split.
    pub(super) examples: usize,
    pub(super) norms: Norms,
    /// Examples that batch norm sees together, where it goes by their statistics.
    pub(super) group: usize,
}

/// A point in the space of parameters.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub(super) weights: Arc<Vec<f32>>,
    /// Running statistics.
    pub(super) statistics: Arc<Vec<f32>>,
}

impl Point {
    /// Other weights with the running statistics of this one.
    pub(super) fn moved(&self, weights: &Arc<Vec<f32>>) -> Self {
        Self { weights: weights.clone(), statistics: self.statistics.clone() }
    }
}

/// A mean loss, and its gradient where that was asked for.
pub(super) type Found = (f64, Option<Vec<f32>>);

impl Subject<'_> {
    /// What batch norm goes by at a point whose running statistics are these.
    pub(super) fn by<'a>(&self, statistics: &'a [f32]) -> Normalise<'a> {
        match self.norms {
            Norms::Batch => Normalise::ByBatch,
            Norms::Running | Norms::Recomputed => Normalise::ByRunning(statistics),
        }
    }

    /// Examples of one pass.
    pub(super) fn block(&self) -> usize {
        if self.norms == Norms::Batch { self.group } else { BLOCK }
    }

    /// A run of examples in blocks, cut from its start.
    pub(super) fn blocks(&self, examples: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        let (block, end) = (self.block(), examples.end);
        examples.step_by(block).map(move |start| start..end.min(start + block))
    }

    /// Mean loss and gradient over some examples of one pass.
    pub(super) fn gradient(
        &self,
        point: &Point,
        examples: Range<usize>,
        room: Option<Vec<f32>>,
    ) -> Result<(f64, Vec<f32>), MeasureError> {
        let batch = self.loader.evaluation(self.split, examples);
        let mut gradient = room.unwrap_or_default();
        gradient.resize(point.weights.len(), 0.0);
        let by = self.by(&point.statistics);
        let pass = self.model.gradient_by(&point.weights, &batch.images, &batch.labels, 0.0, by, &mut gradient)?;
        Ok((pass.loss, gradient))
    }

    /// Sum of losses over some examples of one pass, as parts of a mean over `of`, and how many answers are wrong.
    pub(super) fn score(
        &self,
        point: &Point,
        examples: Range<usize>,
        of: usize,
        losses: &mut Losses,
    ) -> Result<i64, MeasureError> {
        let batch = self.loader.evaluation(self.split, examples);
        let by = self.by(&point.statistics);
        let (scores, _) = self.model.evaluate_by(&point.weights, &batch.images, &batch.labels, by)?;
        for score in &scores {
            losses.add(score.loss, of);
        }
        Ok(scores.iter().map(|score| i64::from(!score.correct)).sum())
    }

    /// Mean loss over a run of examples and, where it is asked for, its gradient, from all ranks together. A loss that is not finite is infinite.
    pub(super) fn asked(
        &self,
        ranks: &mut Ranks<'_>,
        point: &Point,
        examples: Range<usize>,
        asked: Asked,
    ) -> Result<Found, MeasureError> {
        let size = examples.len();
        let blocks: Vec<_> = self.blocks(examples).collect();
        let words = ranks.integers(|ranks| {
            let mut losses = Losses::default();
            for at in ranks.share(blocks.len()) {
                ranks.go_on()?;
                self.score(point, blocks[at].clone(), size, &mut losses)?;
            }
            Ok(losses.words().to_vec())
        })?;
        let loss = Losses::of_words([words[0], words[1], words[2]]).finite_mean();
        if asked == Asked::Loss {
            return Ok((loss, None));
        }
        let gradient = ranks.vector(blocks.len(), point.weights.len(), |_, at, room| {
            let weight = blocks[at].len() as f64 / size as f64;
            self.gradient(point, blocks[at].clone(), room).map(|(_, gradient)| (gradient, weight))
        })?;
        Ok((loss, Some(gradient)))
    }

    /// Loss and error at each of `count` points, which `point` gives: every rank takes a run of all their blocks, so that few blocks a point still keep
    /// every rank busy. A loss that is not finite is infinite.
    pub(super) fn evaluations(
        &self,
        ranks: &mut Ranks<'_>,
        count: usize,
        mut point: impl FnMut(usize) -> Point,
    ) -> Result<Vec<Evaluation>, MeasureError> {
        let blocks: Vec<_> = self.blocks(0..self.examples).collect();
        let sums = ranks.integers(|ranks| {
            let mut sums = vec![0; count * 4];
            let mut at: Option<(usize, Point)> = None;
            for item in ranks.share(count * blocks.len()) {
                ranks.go_on()?;
                let (which, block) = (item / blocks.len(), item % blocks.len());
                let here = match at.take_if(|(at, _)| *at == which) {
                    Some((_, here)) => here,
                    None => point(which),
                };
                let mut losses = Losses::default();
                let wrong = self.score(&here, blocks[block].clone(), self.examples, &mut losses)?;
                let words = losses.words();
                sums[which * 4..].iter_mut().zip([words[0], words[1], words[2], wrong]).for_each(|(s, v)| *s += v);
                at = Some((which, here));
            }
            Ok(sums)
        })?;
        let read = |words: &[i64; 4]| {
            let losses = Losses::of_words([words[0], words[1], words[2]]);
            Evaluation { loss: losses.finite_mean(), error: words[3] as f64 / self.examples as f64 }
        };
        Ok(sums.as_chunks().0.iter().map(read).collect())
    }

    /// The running statistics of each of `count` points, taken anew over the training set: means over groups of their means and unbiased variances.
    pub(super) fn statistics(
        &self,
        ranks: &mut Ranks<'_>,
        count: usize,
        mut weights: impl FnMut(usize) -> Arc<Vec<f32>>,
    ) -> Result<Vec<Arc<Vec<f32>>>, MeasureError> {
        let (len, examples) = (self.model.statistics().len(), self.loader.len(SplitName::Train));
        if len == 0 {
            return Ok(vec![Arc::default(); count]);
        }
        let groups = examples.div_ceil(self.group);
        let sums = ranks.integers(|ranks| {
            let mut sums: Vec<i64> = Vec::with_capacity(count * len);
            let mut of_point = FixedSum::statistics(len);
            let mine = ranks.share(count * groups);
            for which in 0..count {
                let items = mine.start.max(which * groups)..mine.end.min((which + 1) * groups);
                if !items.is_empty() {
                    let weights = weights(which);
                    for item in items {
                        ranks.go_on()?;
                        let start = item % groups * self.group;
                        let batch = self.loader.evaluation(SplitName::Train, start..examples.min(start + self.group));
                        let (_, seen) =
                            self.model.evaluate_by(&weights, &batch.images, &batch.labels, Normalise::ByBatch)?;
                        let share = batch.labels.len() as f64 / examples as f64;
                        of_point
                            .add(&seen, share)
                            .map_err(|_| MeasureError::NotFinite { what: "a batch statistic" })?;
                    }
                }
                sums.extend(std::mem::replace(&mut of_point, FixedSum::statistics(len)).into_entries());
            }
            Ok(sums)
        })?;
        let read = |sums: &[i64]| Arc::new(sums.iter().map(|s| to_f32(*s, STATISTIC_BITS)).collect::<Vec<f32>>());
        Ok(sums.chunks_exact(len).map(read).collect())
    }
}
