//! What a rank adds up over a step, in the number format that `cluster.reduce` asks for.

mod descent;
mod lane;

pub use self::descent::{DescentSum, Leaving, OnDevice};
pub use self::lane::{HostSum, LaneSum};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use strath_collective::Payload;
    use strath_core::Layout;
    use strath_core::config::Reduce;
    use strath_core::fixed::{FixedSum, GRADIENT_BITS, GRADIENT_LIMIT, OutOfRange, WideSum};
    use strath_sam::Perturbation;

    use super::*;
    use crate::flat::{Checks, Flat, FlatPart, Place, SumError};

    fn lane(reduce: Reduce, pieces: usize, len: usize) -> LaneSum {
        LaneSum::new(reduce, pieces, len, &Place::default()).unwrap()
    }

    fn descent(reduce: Reduce, len: usize) -> DescentSum {
        DescentSum::new(reduce, len, &Place::default()).unwrap()
    }

    fn outside(added: &Result<Checks, SumError>) -> Option<usize> {
        match added {
            Err(SumError::OutOfRange(OutOfRange { index })) => Some(*index),
            _ => None,
        }
    }

    #[test]
    fn a_lane_of_one_micro_batch_keeps_its_gradient_to_the_bit() {
        let gradient = vec![1e-30, -3.0, 0.1];
        let mut sum = lane(Reduce::Exact, 1, 3);
        sum.add(Flat::Host(gradient.clone()), 1.0).and_then(Checks::settle).unwrap();
        assert_eq!(sum.finish().unwrap().into_host().unwrap(), gradient);
        assert_eq!(outside(&lane(Reduce::Exact, 1, 2).add(Flat::Host(vec![0.0, f32::NAN]), 1.0)), Some(1));
    }

    #[test]
    fn every_format_names_the_first_value_that_is_not_finite() {
        for reduce in [Reduce::Exact, Reduce::F32, Reduce::Bf16] {
            let bad = [1.0, 2.0, f32::INFINITY];
            assert_eq!(outside(&descent(reduce, 3).add(FlatPart::Host(&bad), 0.5)), Some(2), "{reduce:?}");
            assert_eq!(outside(&lane(reduce, 2, 3).add(Flat::Host(bad.to_vec()), 0.5)), Some(2), "{reduce:?}");
        }
    }

    #[test]
    fn sums_have_the_integers_of_the_definition_and_round_as_it_does() {
        let mut draws = strath_core::random::Stream::new(7, strath_core::random::Purpose::Probe);
        let len = 100_003;
        let (mut descent, mut fixed) = (descent(Reduce::Exact, len), FixedSum::gradient(len));
        let (mut lanes, mut wide) = ([0, 1].map(|_| lane(Reduce::Exact, 5, len)), WideSum::zeros(len));
        for _ in 0..5 {
            let values: Vec<f32> =
                (0..len).map(|_| (draws.uniform() - 0.5) * 2f32.powi(draws.below(60) as i32 - 44)).collect();
            descent.add(FlatPart::Host(&values), 0.2).and_then(Checks::settle).unwrap();
            fixed.add(&values, 0.2).unwrap();
            wide.add(&values, 0.2).unwrap();
            for lane in &mut lanes {
                lane.add(Flat::Host(values.clone()), 0.2).and_then(Checks::settle).unwrap();
            }
        }
        assert_eq!(descent.into_payload().unwrap(), Payload::Exact(fixed.into_entries()));
        let [rounded, sent] = lanes;
        assert_eq!(rounded.finish().unwrap().into_host().unwrap(), wide.to_f32());
        let (high, low) = wide.into_halves();
        assert_eq!(sent.into_payload().unwrap(), Payload::Wide { high, low });
    }

    #[test]
    fn an_exact_sum_of_one_micro_batch_stays_in_f32_and_becomes_fixed_point_with_the_second() {
        let payload = |micro_batches: &[[f32; 2]]| {
            let mut sum = descent(Reduce::Exact, 2);
            for micro_batch in micro_batches {
                sum.add(FlatPart::Host(micro_batch), 0.5).and_then(Checks::settle).unwrap();
            }
            sum.into_payload().unwrap()
        };
        let unit = 1i64 << GRADIENT_BITS;
        assert_eq!(payload(&[]), Payload::Weighted(vec![0.0, 0.0]));
        assert_eq!(payload(&[[2.0, -1.0]]), Payload::Weighted(vec![1.0, -0.5]));
        assert_eq!(payload(&[[2.0, -1.0], [4.0, 1.0]]), Payload::Exact(vec![3 * unit, 0]));
    }

    #[test]
    fn the_terms_of_one_vector_add_up_to_what_the_vector_does() {
        let values = [0.1f32, -32_767.0, 3e-15, 0.0];
        let (mut plain, mut of_terms) = (FixedSum::gradient(4), FixedSum::gradient(4));
        plain.add(&values, 1.0 / 3.0).unwrap();
        let mut one = descent(Reduce::Exact, 4);
        one.add(FlatPart::Host(&values), 1.0 / 3.0).and_then(Checks::settle).unwrap();
        let Payload::Weighted(terms) = one.into_payload().unwrap() else { panic!("one micro-batch stays in f32") };
        of_terms.add(&terms, 1.0).unwrap();
        assert_eq!(plain, of_terms);
        let mut beyond = descent(Reduce::Exact, 2);
        assert_eq!(outside(&beyond.add(FlatPart::Host(&[0.0, GRADIENT_LIMIT]), 0.1)), Some(1));
    }

    fn ascent(seed: u64, splits: &[usize], entries: usize, scale: f32) -> Vec<f32> {
        let mut draws = strath_core::random::Stream::new(seed, strath_core::random::Purpose::Probe);
        let m: usize = splits.iter().sum();
        let mut sum = HostSum::new(Reduce::Exact, splits.len(), entries);
        for size in splits {
            // Of both signs, so that they cancel, and none smaller than 2^-20.
            let values = (0..entries).map(|_| {
                let magnitude = (draws.uniform() * 8.0).max(2f32.powi(-20));
                if draws.below(2) == 0 { magnitude * scale } else { -magnitude * scale }
            });
            sum.add(values.collect(), *size as f64 / m as f64).unwrap();
        }
        sum.finish()
    }

    proptest! {
        #[test]
        fn the_epsilon_of_a_split_lane_does_not_depend_on_the_scale_of_its_gradient(
            seed in any::<u64>(), splits in (0usize..6).prop_flat_map(halvings), p in prop_oneof![Just(2.0), 1.05f64..8.0]
        ) {
            let entries = 40;
            let layout = Layout::new([("w".into(), vec![entries])]).unwrap();
            let table = strath_core::config::SamTable {
                rho: 0.05,
                m: strath_core::config::LaneSizes::Batch,
                norm: strath_core::config::Norm::P(p),
                adaptive: false,
                eta: 0.01,
                perturb: strath_core::config::Perturb::All,
                weight_decay: strath_core::config::WeightDecay::Outside,
                rho_rule: strath_core::config::RhoRule::Constant,
                direction: strath_core::config::Direction::Gradient,
            };
            let perturbation = Perturbation::new(&table, &layout, &[false]).unwrap();
            let [plain, small] = [1.0, 2f32.powi(-40)].map(|scale| {
                let mut epsilon = vec![0.0; entries];
                perturbation.epsilon(&ascent(seed, &splits, entries, scale), &vec![1.0; entries], &mut epsilon);
                epsilon
            });
            prop_assert!(plain.iter().zip(&small).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }

    /// A lane of 2^times examples cut into micro-batches of powers of two, one halving at a time.
    fn halvings(times: usize) -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(any::<prop::sample::Index>(), times).prop_map(move |cuts| {
            let mut sizes = vec![1usize << times];
            for cut in cuts {
                let at = cut.index(sizes.len());
                if sizes[at] > 1 {
                    sizes[at] /= 2;
                    sizes.insert(at, sizes[at]);
                }
            }
            sizes
        })
    }
}
