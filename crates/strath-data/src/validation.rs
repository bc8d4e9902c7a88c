//! Validation: a seeded share of the training examples that is not trained on.

use strath_core::random::{Purpose, Stream};

use crate::dataset::Split;
use crate::error::DataError;

/// Splits `floor(share N)` examples off the N of `train` and gives them; both parts keep the order of the file, and every example its
/// label, noisy or not. Which ones depends on the seed, on N and the share, and on nothing else.
///
/// # Errors
/// [`DataError::Validation`] where a share that is not 0 comes to no example.
pub(crate) fn split_off(train: &mut Split, share: f64, seed: u64) -> Result<Split, DataError> {
    let examples = train.len();
    let count = (share * examples as f64).floor() as usize;
    if share > 0.0 && count == 0 {
        return Err(DataError::Validation { share, examples });
    }
    let order = if count == 0 { Vec::new() } else { Stream::new(seed, Purpose::Validation).permutation(examples) };
    let mut is_validation = vec![false; examples];
    order.iter().take(count).for_each(|example| is_validation[*example as usize] = true);
    let of = |wanted: bool| (0..examples as u32).filter(|e| is_validation[*e as usize] == wanted).collect::<Vec<u32>>();
    let validation = train.part(&of(true));
    if count > 0 {
        *train = train.part(&of(false));
    }
    Ok(validation)
}

#[cfg(test)]
mod tests {
    use strath_core::ImageShape;

    use super::*;

    /// Example k is an image of one pixel k, of class k mod 10.
    fn examples(count: usize) -> Split {
        let shape = ImageShape { channels: 1, height: 1, width: 1 };
        Split::floats(shape, (0..count).map(|k| k as f32).collect(), (0..count as u32).map(|k| k % 10).collect())
    }

    fn pixels(split: &Split) -> Vec<u32> {
        let pixel = |example: usize| {
            let mut pixel = [0.0];
            split.image(example, &mut pixel);
            assert_eq!(split.label(example), pixel[0] as u32 % 10, "an example keeps its label");
            pixel[0] as u32
        };
        (0..split.len()).map(pixel).collect()
    }

    #[test]
    fn the_share_is_taken_once_and_both_parts_keep_their_order() {
        let mut train = examples(107);
        let validation = split_off(&mut train, 0.25, 3).unwrap();
        let (left, taken) = (pixels(&train), pixels(&validation));
        assert_eq!((left.len(), taken.len()), (81, 26));
        assert!(left.is_sorted() && taken.is_sorted());
        let mut all = [left, taken.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..107).collect::<Vec<u32>>());
        assert_ne!(taken, (0..26).collect::<Vec<u32>>(), "they are drawn");
        assert_eq!(split_off(&mut examples(107), 0.25, 3).unwrap(), validation);
        assert_ne!(split_off(&mut examples(107), 0.25, 4).unwrap(), validation);
    }

    #[test]
    fn nothing_is_split_off_unless_asked_and_a_share_that_comes_to_nothing_is_refused() {
        let mut train = examples(10);
        assert!(split_off(&mut train, 0.0, 3).unwrap().is_empty());
        assert_eq!(train, examples(10));
        let refused = split_off(&mut train, 0.09, 3).unwrap_err();
        assert!(matches!(refused, DataError::Validation { examples: 10, .. }), "{refused}");
        assert_eq!(train, examples(10));
    }
}
