//! Sharpness: how much the loss rises in a ball around the weights, lane by lane (Foret et al. 2021, section 2 and m-sharpness of section 4.1).

use std::ops::Range;
use std::sync::Arc;

use serde_json::{Value, json};
use strath_core::config::{Norm, Reduce};
use strath_kernels::vector;
use strath_sam::Perturbation;
use strath_sam::ascent::{Asked, climb};
use strath_sam::directions::gaussian;

use super::MeasureError;
use super::ranks::Ranks;
use super::spec::SharpnessOf;
use super::subject::{Found, Point, Subject};
use crate::evaluate::Losses;
use crate::sums::HostSum;

/// A lane of so many blocks is shared by all ranks; one of fewer is computed by one.
const SHARED_BLOCKS: usize = 8;
/// Lanes are counted off in rounds of about so many examples, after each of which the measurement can go on where it was interrupted.
const ROUND: usize = 4096;

/// What is summed over lanes, each lane's losses weighted by its size.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    clean: Losses,
    one_step: Losses,
    best: Losses,
    /// Mean over a lane's random directions.
    random: Losses,
    /// The worst of a lane's random directions.
    worst: Losses,
}

const WORDS: usize = 15;

impl Sums {
    fn all(&mut self) -> [&mut Losses; 5] {
        [&mut self.clean, &mut self.one_step, &mut self.best, &mut self.random, &mut self.worst]
    }

    fn words(mut self) -> Vec<i64> {
        self.all().iter().flat_map(|losses| losses.words()).collect()
    }

    fn of_words(words: &[i64]) -> Self {
        let mut sums = Self::default();
        for (losses, words) in sums.all().into_iter().zip(words.as_chunks().0) {
            *losses = Losses::of_words(*words);
        }
        sums
    }
}

/// Measures it: losses in nats, means over lanes weighted by their size. The sharpness is that of the best epsilon of the ascent.
pub(super) fn measure(
    of: &SharpnessOf,
    ball: &Perturbation,
    subject: &Subject<'_>,
    point: &Point,
    seed: u64,
    ranks: &mut Ranks<'_>,
) -> Result<Value, MeasureError> {
    let examples = subject.examples;
    let m = of.m.min(examples);
    let lanes: Vec<Range<usize>> = (0..examples).step_by(m).map(|at| at..examples.min(at + m)).collect();
    let is_shared = m.div_ceil(subject.block()) >= SHARED_BLOCKS;
    // A shared lane is a round of its own: its passes are summed one by one.
    let together = if is_shared { 1 } else { (ROUND / m).max(1) };
    let mut sums = vec![0i64; WORDS];
    for (round, lanes) in lanes.chunks(together).enumerate() {
        let found = if is_shared {
            let mut of_lane = Sums::default();
            let lane = Lane { examples: lanes[0].clone(), at: round, of, ball, subject, point, seed };
            lane.shared(ranks, &mut of_lane)?;
            of_lane.words()
        } else {
            ranks.integers(|ranks| {
                let mut mine = Sums::default();
                for at in ranks.share(lanes.len()) {
                    ranks.go_on()?;
                    let (examples, at) = (lanes[at].clone(), round * together + at);
                    Lane { examples, at, of, ball, subject, point, seed }.own(&mut mine)?;
                }
                Ok(mine.words())
            })?
        };
        sums.iter_mut().zip(found).for_each(|(sum, word)| *sum += word);
        ranks.advance(lanes.last().map_or(0, |lane| lane.end) as u64, examples as u64);
    }
    let mut sums = Sums::of_words(&sums);
    if !sums.all().iter().all(|losses| losses.is_finite()) {
        return Err(MeasureError::NotFinite { what: "a loss in the ball" });
    }
    let [clean, one_step, best, random, worst] = sums.all().map(|losses| losses.mean());
    let drawn = |loss: f64| (of.random > 0).then_some(loss - clean);
    let norm = match of.ball.norm() {
        Norm::Infinity => json!("inf"),
        Norm::P(p) => json!(p),
    };
    Ok(json!({
        "m": m, "rho": of.ball.rho, "norm": norm, "adaptive": of.ball.adaptive, "ascent_steps": of.ascent_steps,
        "clean_loss": clean, "perturbed_loss": best, "sharpness": best - clean, "one_step_sharpness": one_step - clean,
        "random_directions": of.random, "random_sharpness": drawn(random), "random_worst": drawn(worst),
        "lanes": lanes.len(),
    }))
}

/// One lane.
struct Lane<'a, 'b> {
    examples: Range<usize>,
    at: usize,
    of: &'a SharpnessOf,
    ball: &'a Perturbation,
    subject: &'a Subject<'b>,
    point: &'a Point,
    seed: u64,
}

impl Lane<'_, '_> {
    fn size(&self) -> f64 {
        self.examples.len() as f64
    }

    /// A lane that this rank computes alone.
    fn own(&self, sums: &mut Sums) -> Result<(), MeasureError> {
        let blocks: Vec<_> = self.subject.blocks(self.examples.clone()).collect();
        let loss = |point: &Point| -> Result<f64, MeasureError> {
            let mut losses = Losses::default();
            for block in &blocks {
                self.subject.score(point, block.clone(), self.examples.len(), &mut losses)?;
            }
            Ok(losses.finite_mean())
        };
        let both = |point: &Point| -> Result<Found, MeasureError> {
            let (mut sum, mut losses) =
                (HostSum::new(Reduce::Exact, blocks.len(), point.weights.len()), Losses::default());
            for block in &blocks {
                let weight = block.len() as f64 / self.size();
                let room = sum.spent();
                let (loss, gradient) = self.subject.gradient(point, block.clone(), room)?;
                losses.add_share(loss, weight);
                sum.add(gradient, weight).map_err(|_| MeasureError::NotFinite { what: "a lane's gradient" })?;
            }
            Ok((losses.finite_mean(), Some(sum.finish())))
        };
        self.climb(sums, &mut |point, asked| match asked {
            Asked::Gradient => both(point),
            Asked::Loss => Ok((loss(point)?, None)),
        })
    }

    /// A lane that all ranks compute together.
    fn shared(&self, ranks: &mut Ranks<'_>, sums: &mut Sums) -> Result<(), MeasureError> {
        self.climb(sums, &mut |point, asked| self.subject.asked(ranks, point, self.examples.clone(), asked))
    }

    /// Climbs, tries random directions, and adds what it finds.
    fn climb(
        &self,
        sums: &mut Sums,
        oracle: &mut dyn FnMut(&Point, Asked) -> Result<Found, MeasureError>,
    ) -> Result<(), MeasureError> {
        let weights = &self.point.weights;
        let found = climb(self.ball, weights, self.of.ascent_steps, |at, asked| oracle(&self.point.moved(at), asked))?;
        let share = self.size() / self.subject.examples as f64;
        let mut random = Vec::with_capacity(self.of.random);
        for direction in 0..self.of.random {
            let name = format!("sharpness/{}/{direction}", self.at);
            let drawn = gaussian(self.subject.model.parameters(), self.seed, &name);
            let mut lifted = vec![0.0; drawn.len()];
            self.ball.along(&drawn, weights, &mut lifted);
            vector::add_scaled(&mut lifted, weights, 1.0);
            random.push(oracle(&self.point.moved(&Arc::new(lifted)), Asked::Loss)?.0);
        }
        // A sum of parts of means over all examples, as its own losses are.
        let mut add = |losses: fn(&mut Sums) -> &mut Losses, loss: f64| losses(sums).add_share(loss, share);
        add(|s| &mut s.clean, found.clean);
        add(|s| &mut s.one_step, found.one_step);
        add(|s| &mut s.best, if found.best.is_finite() { found.best } else { f64::NAN });
        if !random.is_empty() {
            add(|s| &mut s.random, random.iter().sum::<f64>() / random.len() as f64);
            add(|s| &mut s.worst, random.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        }
        Ok(())
    }
}
