//! Global average pooling and its transpose.

/// `y [planes]` from `x [planes, area]`: the mean of each plane, summed in `f64`.
pub fn average(area: usize, x: &[f32], y: &mut [f32]) {
    for (plane, y) in x.chunks_exact(area).zip(y) {
        *y = (plane.iter().map(|v| f64::from(*v)).sum::<f64>() / area as f64) as f32;
    }
}

/// `x [planes, area]` from `y [planes]`: each value over `area`, on every pixel of its plane.
pub fn spread(area: usize, y: &[f32], x: &mut [f32]) {
    for (plane, y) in x.chunks_exact_mut(area).zip(y) {
        plane.fill(y / area as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreading_is_the_transpose_of_averaging() {
        let (mut y, mut x) = ([0.0; 2], [0.0; 8]);
        average(4, &[1.0, 2.0, 3.0, 6.0, 0.0, 0.0, -4.0, 0.0], &mut y);
        assert_eq!(y, [3.0, -1.0]);
        spread(4, &[4.0, -8.0], &mut x);
        assert_eq!(x, [1.0, 1.0, 1.0, 1.0, -2.0, -2.0, -2.0, -2.0]);
    }
}
