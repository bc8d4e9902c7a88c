use strath_core::config::Compute;
use strath_cuda::Gpu;
use strath_emulator::Emulator;

use super::*;

fn layout(lengths: &[usize]) -> Layout {
    Layout::new(lengths.iter().enumerate().map(|(at, len)| (format!("t{at:02}"), vec![*len]))).unwrap()
}

#[test]
fn pieces_are_whole_tensors_that_cover_the_gradient_and_few() {
    let one = LEAST_VALUES;
    for lengths in [vec![3], vec![one, 5, one], vec![10 * one, 1, 2], vec![one / 5; 100], vec![1, 1, 9 * one]] {
        let layout = layout(&lengths);
        let whole = cut(&layout, false);
        assert_eq!((whole.len(), whole[0].clone()), (1, 0..layout.len()), "not cut");
        let pieces = cut(&layout, true);
        assert!(pieces.len() <= Bucket::MOST_PIECES as usize);
        assert_eq!(pieces.iter().map(ExactSizeIterator::len).sum::<usize>(), layout.len());
        assert!(pieces.windows(2).all(|pair| pair[0].end == pair[1].start) && pieces[0].start == 0);
        let starts: Vec<usize> = layout.entries().iter().map(|entry| entry.range().start).collect();
        assert!(pieces.iter().all(|piece| starts.contains(&piece.start)), "{pieces:?}");
    }
    assert_eq!(cut(&layout(&[one, one, one]), true).len(), 3);
    assert_eq!(cut(&layout(&[100, one]), true).len(), 1, "a small rest goes with its neighbour");
}

#[test]
fn what_lies_behind_large_blocks_by_name_is_not_waited_for_with_them() {
    let one = LEAST_VALUES;
    let starts = |tensors: &[(&str, usize)]| {
        let layout = Layout::new(tensors.iter().map(|(name, len)| ((*name).into(), vec![*len]))).unwrap();
        cut(&layout, true).iter().map(|piece| piece.start).collect::<Vec<_>>()
    };
    let resnet = [("classifier.weight", 10), ("stages.0.weight", one), ("stages.1.weight", one), ("stem.weight", 5)];
    assert_eq!(starts(&resnet), [0, one + 10, 2 * one + 10]);
    let vit =
        [("blocks.0.w", one), ("blocks.1.w", one), ("cls_token", 9), ("head.weight", 9), ("patch_embed.weight", 9)];
    assert_eq!(starts(&vit), [0, one, 2 * one]);
    let small = [("classifier.weight", 10), ("stages.0.weight", one), ("stem.weight", 5)];
    assert_eq!(starts(&small), [0], "one piece of blocks goes with what is around it");
}

/// Where a gradient is added, and the stream that computes it.
fn places() -> Vec<[Place; 2]> {
    let mut places = vec![[Place::default(), Place::default()]];
    for stream in [0, 1] {
        // Each on a device of its own, with an order of its own.
        let gpus = (0..4).map_while(|_| Emulator::or_skip(Compute::F32).map(Gpu::new));
        places.extend(
            gpus.map(|gpu| [gpu.stream(0).unwrap(), gpu.stream(stream).unwrap()].map(|gpu| Place::from(Some(&gpu)))),
        );
    }
    places
}

/// Tells a gradient as a backward does, here tensor by tensor of `order`: on a device, where each has been asked for.
fn tell(mut hears: Hears, layout: &Layout, order: &[usize], gradient: &[f32], at: &Place) -> Flat {
    let (all, mut told) = (at.holding(gradient.to_vec()).unwrap(), at.zeros(layout.len()).unwrap());
    for range in order.iter().map(|tensor| layout.entries()[*tensor].range()) {
        let added = all.part(range.clone()).add_floats(&mut told, range.start, 1.0, f32::INFINITY);
        match (&mut hears, &mut told) {
            (Hears::Host(hears), _) => hears(range.clone(), &gradient[range]),
            (Hears::Device(hears), Flat::Device(told)) => hears(range, told).unwrap(),
            _ => unreachable!(),
        }
        // On the host a value out of range is told here already.
        let _ = added;
    }
    told
}

#[test]
fn a_gradient_that_is_told_tensor_by_tensor_gives_the_bits_of_one_that_is_added_whole() {
    let layout = Arc::new(layout(&[LEAST_VALUES, 7, LEAST_VALUES]));
    let peers = Arc::new(Collective::alone(strath_core::RunId(1), strath_core::Generation(1)));
    let gradient = |of: f32| (0..layout.len()).map(|at| of * (at as f32 + 0.1) * 1e-6).collect::<Vec<f32>>();
    let weights = Arc::new(gradient(-3.0));
    for reduce in [Reduce::Exact, Reduce::F32, Reduce::Bf16] {
        for earlier in 0..3 {
            for decay in [0.0, 0.01] {
                let begun = |pieces: &[Range<usize>], [place, seat]: &[Place; 2]| {
                    let descent = Descent::new(reduce, pieces, &peers, Step(1), place).unwrap();
                    for k in 0..earlier {
                        let earlier = seat.holding(gradient(k as f32 + 0.3)).unwrap();
                        descent.add(&earlier, 0.25).and_then(Checks::settle).unwrap();
                    }
                    descent
                };
                let ended = |descent: Descent| {
                    descent.send_leaving().unwrap();
                    descent.send_rest(Fault::NONE, || vec![0.0; layout.len()]).unwrap();
                    let sum = descent.wait(|| vec![9.0; layout.len()], Duration::from_secs(1)).unwrap();
                    (sum.gradient.into_host().unwrap(), sum.travelled.len())
                };
                let mut last = gradient(7.0);
                let whole = begun(&cut(&layout, false), &Default::default());
                vector::add_scaled(&mut last, &weights, decay as f32);
                whole.add(&Flat::Host(last), 0.25).and_then(Checks::settle).unwrap();
                let (whole, travelled) = ended(whole);
                assert_eq!(travelled, 0);

                for places in places() {
                    let pieces = cut(&layout, true);
                    let descent = begun(&pieces, &places);
                    let at = places[1].weights(weights.clone()).unwrap();
                    let last = Last { share: 0.25, lane: 0, at, decay, layout: layout.clone() };
                    let hears = descent.listener(last).unwrap().unwrap();
                    let told = tell(hears, &layout, &[2, 1, 0], &gradient(7.0), &places[1]);
                    // Its memory serves again.
                    drop(told);
                    places[1].holding(vec![f32::NAN; layout.len()]).unwrap();
                    if let Some(Heard::Device(checks)) = descent.heard() {
                        checks.settle().unwrap();
                    }
                    let (told, travelled) = ended(descent);
                    assert_eq!(travelled, pieces.len());
                    let alike = whole.iter().zip(&told).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(alike, "{reduce:?}, {earlier} earlier, {places:?}");
                }
            }
        }
    }
}

#[test]
fn pieces_are_sent_as_a_backward_completes_them_whatever_their_tensors_are_called() {
    let layout = Arc::new(layout(&[LEAST_VALUES; 3]));
    let peers = Arc::new(Collective::alone(strath_core::RunId(1), strath_core::Generation(1)));
    let gradient = vec![1.0; layout.len()];
    for places in places() {
        for order in [[1, 0, 2], [0, 1, 2], [2, 0, 1]] {
            let descent = Descent::new(Reduce::Exact, &cut(&layout, true), &peers, Step(1), &places[0]).unwrap();
            let at = places[1].weights(Arc::new(gradient.clone())).unwrap();
            let last = Last { share: 1.0, lane: 0, at, decay: 0.0, layout: layout.clone() };
            let hears = descent.listener(last).unwrap().unwrap();
            tell(hears, &layout, &order, &gradient, &places[1]);
            descent.send_leaving().unwrap();
            let sum = descent.wait(|| vec![0.0; layout.len()], Duration::from_secs(1)).unwrap();
            let left = order.map(|piece| sum.travelled[piece].0);
            assert!(left.is_sorted() && left[0] < left[2], "{order:?}: {left:?}");
        }
    }
}

#[test]
fn a_value_out_of_range_is_named_and_its_piece_takes_the_word_along() {
    let layout = Arc::new(layout(&[LEAST_VALUES, 7, LEAST_VALUES]));
    let peers = Arc::new(Collective::alone(strath_core::RunId(1), strath_core::Generation(1)));
    for places in places() {
        let descent = Descent::new(Reduce::Exact, &cut(&layout, true), &peers, Step(1), &places[0]).unwrap();
        let at = places[1].weights(Arc::new(vec![0.0; layout.len()])).unwrap();
        let last = Last { share: 1.0, lane: 3, at, decay: 0.0, layout: layout.clone() };
        let hears = descent.listener(last).unwrap().unwrap();
        let mut gradient = vec![1.0; layout.len()];
        gradient[LEAST_VALUES + 2] = f32::NAN;
        tell(hears, &layout, &[2, 1, 0], &gradient, &places[1]);
        descent.send_leaving().unwrap();
        let (fault, early) = match descent.heard().unwrap() {
            Heard::Host(fault) => (fault, 1),
            // Which all had left; what is told of them goes with what follows.
            Heard::Device(checks) => match checks.settle() {
                Err(SumError::OutOfRange(found)) => {
                    (Fault::new(3, Culprit::DescentGradient(layout.tensor_at(found.index) as u32)), 2)
                }
                other => panic!("{other:?}"),
            },
        };
        assert_eq!(fault, Fault::new(3, Culprit::DescentGradient(1)));
        descent.send_rest(fault, Vec::new).unwrap();
        let sum = descent.wait(|| vec![0.0; layout.len()], Duration::from_secs(1)).unwrap();
        assert_eq!((sum.fault.is_none(), sum.travelled.len()), (early == 2, early));
    }
}
