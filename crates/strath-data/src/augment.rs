//! Augmentation of training images, on normalised pixels; draws are keyed by (seed, epoch, example).

use strath_core::ImageShape;
use strath_core::config::Augmentation;
use strath_core::random::Stream;

/// Applies augmentations in order to `image` [C, H, W], drawing from `stream`; `scratch` has the image's length.
///
/// - flip: one draw; mirrored left-right with probability 1/2.
/// - crop by pad: two draws; the image is padded by `pad` zeros on each side, and a window of its size is taken with its top
///   left corner uniform over `0..=2 pad` on each axis.
/// - cutout of a side: two draws; a centre uniform over the pixels, rows and columns
///   `centre - side / 2 .. centre - side / 2 + side` are zero, clipped at the border.
pub fn augment(
    image: &mut [f32],
    shape: ImageShape,
    augmentations: &[Augmentation],
    stream: &mut Stream,
    scratch: &mut [f32],
) {
    for augmentation in augmentations {
        match *augmentation {
            Augmentation::Flip => {
                if stream.below(2) == 1 {
                    image.chunks_exact_mut(shape.width).for_each(<[f32]>::reverse);
                }
            }
            Augmentation::Crop(pad) => {
                let top = stream.below(2 * pad as u64 + 1) as usize;
                let left = stream.below(2 * pad as u64 + 1) as usize;
                scratch.copy_from_slice(image);
                crop(scratch, image, shape, top, left, pad);
            }
            Augmentation::Cutout(side) => {
                let row = stream.below(shape.height as u64) as usize;
                let column = stream.below(shape.width as u64) as usize;
                cut_out(image, shape, row, column, side);
            }
        }
    }
}

/// The window of `from` whose top left corner lies at (top - pad, left - pad); zero outside.
fn crop(from: &[f32], to: &mut [f32], shape: ImageShape, top: usize, left: usize, pad: usize) {
    let ImageShape { height, width, .. } = shape;
    to.fill(0.0);
    for (from, to) in from.chunks_exact(height * width).zip(to.chunks_exact_mut(height * width)) {
        for row in 0..height {
            let Some(source) = (row + top).checked_sub(pad).filter(|source| *source < height) else { continue };
            for column in 0..width {
                if let Some(at) = (column + left).checked_sub(pad).filter(|at| *at < width) {
                    to[row * width + column] = from[source * width + at];
                }
            }
        }
    }
}

fn cut_out(image: &mut [f32], shape: ImageShape, row: usize, column: usize, side: usize) {
    let ImageShape { height, width, .. } = shape;
    let span = |centre: usize, length: usize| {
        // The square may begin before the border: its end is measured from where it would begin.
        let end = (centre + side).saturating_sub(side / 2).min(length);
        centre.saturating_sub(side / 2)..end
    };
    for channel in image.chunks_exact_mut(height * width) {
        for row in span(row, height) {
            channel[row * width..][span(column, width)].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use strath_core::random::Purpose;

    use super::*;

    const SHAPE: ImageShape = ImageShape { channels: 1, height: 3, width: 3 };
    const IMAGE: [f32; 9] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];

    fn cropped(top: usize, left: usize) -> [f32; 9] {
        let mut out = [0.0; 9];
        crop(&IMAGE, &mut out, SHAPE, top, left, 1);
        out
    }

    #[test]
    fn a_crop_shifts_and_fills_with_zeros() {
        assert_eq!(cropped(1, 1), IMAGE);
        assert_eq!(cropped(0, 0), [0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 4.0, 5.0]);
        assert_eq!(cropped(2, 1), [4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 0.0, 0.0, 0.0]);
        assert_eq!(cropped(1, 2), [2.0, 3.0, 0.0, 5.0, 6.0, 0.0, 8.0, 9.0, 0.0]);
    }

    #[test]
    fn a_cutout_is_clipped_at_the_border() {
        let cut = |row, column, side| {
            let mut image = IMAGE;
            cut_out(&mut image, SHAPE, row, column, side);
            image
        };
        assert_eq!(cut(1, 1, 1), [1.0, 2.0, 3.0, 4.0, 0.0, 6.0, 7.0, 8.0, 9.0]);
        assert_eq!(cut(0, 0, 2), [0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
        assert_eq!(cut(2, 1, 2), [1.0, 2.0, 3.0, 0.0, 0.0, 6.0, 0.0, 0.0, 9.0]);
        assert_eq!(cut(0, 2, 3), [1.0, 0.0, 0.0, 4.0, 0.0, 0.0, 7.0, 8.0, 9.0]);
    }

    #[test]
    fn a_flip_mirrors_half_of_the_examples() {
        let mut flipped = 0;
        for example in 0..400 {
            let mut stream = Stream::new(0, Purpose::Augment { epoch: 0, example });
            let mut image = IMAGE;
            augment(&mut image, SHAPE, &[Augmentation::Flip], &mut stream, &mut [0.0; 9]);
            assert!(image == IMAGE || image == [3.0, 2.0, 1.0, 6.0, 5.0, 4.0, 9.0, 8.0, 7.0]);
            flipped += usize::from(image != IMAGE);
        }
        assert!((150..250).contains(&flipped), "{flipped} of 400");
    }

    #[test]
    fn every_window_of_a_crop_is_drawn() {
        let mut seen = std::collections::BTreeSet::new();
        for example in 0..200 {
            let mut stream = Stream::new(5, Purpose::Augment { epoch: 2, example });
            let mut image = IMAGE;
            augment(&mut image, SHAPE, &[Augmentation::Crop(1)], &mut stream, &mut [0.0; 9]);
            seen.insert(image.map(|v| v as u8));
        }
        assert_eq!(seen.len(), 9);
    }

    /// Reads a pixel of a channel by row and column; zero outside.
    type At<'a> = &'a dyn Fn(i64, i64) -> f32;

    /// The definition, slow and obvious: every pixel asks where it comes from.
    fn naive(image: &[f32], shape: ImageShape, augmentations: &[Augmentation], stream: &mut Stream) -> Vec<f32> {
        let ImageShape { channels, height, width } = shape;
        let map = |from: &[f32], pixel: &dyn Fn(At<'_>, i64, i64) -> f32| -> Vec<f32> {
            let mut out = Vec::new();
            for channel in 0..channels {
                let at = |row: i64, column: i64| {
                    let inside = (0..height as i64).contains(&row) && (0..width as i64).contains(&column);
                    if inside { from[(channel * height + row as usize) * width + column as usize] } else { 0.0 }
                };
                for row in 0..height as i64 {
                    out.extend((0..width as i64).map(|column| pixel(&at, row, column)));
                }
            }
            out
        };
        let mut image = image.to_vec();
        for augmentation in augmentations {
            image = match *augmentation {
                Augmentation::Flip => {
                    let mirrored = stream.below(2) == 1;
                    map(&image, &|at, row, column| at(row, if mirrored { width as i64 - 1 - column } else { column }))
                }
                Augmentation::Crop(pad) => {
                    let [top, left] = [(); 2].map(|()| stream.below(2 * pad as u64 + 1) as i64 - pad as i64);
                    map(&image, &|at, row, column| at(row + top, column + left))
                }
                Augmentation::Cutout(side) => {
                    let [cy, cx] = [height, width].map(|length| stream.below(length as u64) as i64);
                    let (half, side) = ((side / 2) as i64, side as i64);
                    let within = |at: i64, centre: i64| (centre - half..centre - half + side).contains(&at);
                    map(&image, &|at, row, column| {
                        if within(row, cy) && within(column, cx) { 0.0 } else { at(row, column) }
                    })
                }
            };
        }
        image
    }

    fn augmentation() -> impl Strategy<Value = Augmentation> {
        prop_oneof![
            Just(Augmentation::Flip),
            (1usize..5).prop_map(Augmentation::Crop),
            (1usize..6).prop_map(Augmentation::Cutout),
        ]
    }

    proptest! {
        #[test]
        fn any_list_does_what_its_definition_says_with_draws_in_its_order(
            channels in 1usize..4, height in 1usize..7, width in 1usize..7, seed in any::<u64>(),
            augmentations in prop::collection::vec(augmentation(), 0..5)
        ) {
            let shape = ImageShape { channels, height, width };
            let image: Vec<f32> = (1..=shape.values()).map(|value| value as f32).collect();
            let purpose = Purpose::Augment { epoch: 1, example: 2 };
            let want = naive(&image, shape, &augmentations, &mut Stream::new(seed, purpose));
            let (mut got, mut scratch) = (image.clone(), vec![f32::NAN; image.len()]);
            augment(&mut got, shape, &augmentations, &mut Stream::new(seed, purpose), &mut scratch);
            prop_assert_eq!(got, want);
        }
    }
}
