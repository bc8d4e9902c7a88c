//! Global average pooling and its transpose.

use crate::isa::Isa;
use crate::threads::for_chunks;
use crate::vectorised::vectorised;

/// `y [N, channels]` from `x [N, area, channels]`: the mean over the pixels of each image, summed in `f64`. One pass; bits depend
/// neither on the number of threads nor on the instruction set.
///
/// # Panics
/// Where x is not N images.
pub fn average_rows(area: usize, channels: usize, x: &[f32], y: &mut [f32]) {
    average_rows_by(Isa::active(), area, channels, x, y);
}

fn average_rows_by(isa: Isa, area: usize, channels: usize, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len() * area, "x is images x area x channels");
    for_chunks(y, channels, |image, y| {
        let mut sums = vec![0.0; channels];
        add_rows(isa, &x[image * area * channels..][..area * channels], &mut sums);
        y.iter_mut().zip(sums).for_each(|(y, sum)| *y = (sum / area as f64) as f32);
    });
}

/// `x [N, area, channels]` from `y [N, channels]`: each value over `area`, on every pixel of its image. The transpose of
/// [`average_rows`].
///
/// # Panics
/// Where x is not N images.
pub fn spread_rows(area: usize, channels: usize, y: &[f32], x: &mut [f32]) {
    assert_eq!(x.len(), y.len() * area, "x is images x area x channels");
    for_chunks(x, area * channels, |image, x| {
        let row: Vec<f32> = y[image * channels..][..channels].iter().map(|y| y / area as f32).collect();
        x.chunks_exact_mut(channels).for_each(|x| x.copy_from_slice(&row));
    });
}

vectorised! {
    fn add_rows(x: &[f32], sums: &mut [f64]) {
        for x in x.chunks_exact(sums.len()) {
            sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += f64::from(*x));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::tests::{error, values};
    use crate::threads::tests::same_bits;
    use crate::vectorised::tests::same_bits_by_every_isa;

    #[test]
    fn rows_are_averaged_as_in_float64_and_spreading_is_the_transpose() {
        for (images, area, channels) in [(5, 49, 64), (3, 7, 10), (2, 1, 1)] {
            let (x, g) = (values(images * area * channels, 1), values(images * channels, 2));
            let y = same_bits_by_every_isa(|isa| {
                let mut y = vec![f32::NAN; images * channels];
                average_rows_by(isa, area, channels, &x, &mut y);
                y
            });
            let want = |at: usize| {
                let first = at / channels * area * channels + at % channels;
                (0..area).map(|k| f64::from(x[first + k * channels])).sum::<f64>() / area as f64
            };
            assert!(error(&y, &(0..y.len()).map(want).collect::<Vec<_>>()) < 1e-7);
            let back = same_bits(|| {
                let mut back = vec![f32::NAN; x.len()];
                spread_rows(area, channels, &g, &mut back);
                back
            });
            let inner = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            assert!((inner(&y, &g) - inner(&x, &back)).abs() < 1e-5, "<A x, g> = <x, A' g>");
        }
    }
}
