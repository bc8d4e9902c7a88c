//! Cross-entropy over the last axis, in `f64`: there is one row an example.

/// Cross-entropy of each row of logits [rows, classes] against its label, in `f64`:
/// `logsumexp(x) - (1 - s) x[label] - s mean(x)` with label smoothing s, as PyTorch's.
///
/// # Panics
/// Where a label is not below `classes`.
pub fn cross_entropy(classes: usize, logits: &[f32], labels: &[u32], smoothing: f64) -> Vec<f64> {
    let rows = logits.chunks_exact(classes).zip(labels);
    rows.map(|(x, label)| {
        let value = |at: usize| f64::from(x[at]);
        let mean = (0..classes).map(value).sum::<f64>() / classes as f64;
        log_sum_exp(x) - (1.0 - smoothing) * value(*label as usize) - smoothing * mean
    })
    .collect()
}

/// The gradient of the mean cross-entropy: `(softmax(x) - (1 - s) onehot - s / classes) scale / rows`.
pub fn cross_entropy_backward(
    classes: usize,
    logits: &[f32],
    labels: &[u32],
    smoothing: f64,
    scale: f64,
    dx: &mut [f32],
) {
    let scale = scale / labels.len() as f64;
    let rows = logits.chunks_exact(classes).zip(labels).zip(dx.chunks_exact_mut(classes));
    for ((x, label), dx) in rows {
        let log_sum = log_sum_exp(x);
        for (class, (dx, x)) in dx.iter_mut().zip(x).enumerate() {
            let hit = if class == *label as usize { 1.0 - smoothing } else { 0.0 };
            let probability = libm::exp(f64::from(*x) - log_sum);
            *dx = ((probability - hit - smoothing / classes as f64) * scale) as f32;
        }
    }
}

/// The derivative of [`cross_entropy_backward`]'s dx along a direction in which the logits move by u, with a scale of 1:
/// `p (u - sum p u) / rows`, p the softmax.
pub fn cross_entropy_tangent(classes: usize, logits: &[f32], u: &[f32], dx_along: &mut [f32]) {
    let scale = classes as f64 / logits.len() as f64;
    let rows = logits.chunks_exact(classes).zip(u.chunks_exact(classes)).zip(dx_along.chunks_exact_mut(classes));
    for ((x, u), to) in rows {
        let log_sum = log_sum_exp(x);
        let probability = |x: f32| libm::exp(f64::from(x) - log_sum);
        let mean: f64 = x.iter().zip(u).map(|(x, u)| probability(*x) * f64::from(*u)).sum();
        for ((to, x), u) in to.iter_mut().zip(x).zip(u) {
            *to = (probability(*x) * (f64::from(*u) - mean) * scale) as f32;
        }
    }
}

fn log_sum_exp(x: &[f32]) -> f64 {
    let largest = x.iter().fold(f64::NEG_INFINITY, |m, v| m.max(f64::from(*v)));
    if !largest.is_finite() {
        // A row that holds an infinity has no finite loss; NaN falls through below.
        return if x.iter().any(|v| v.is_nan()) { f64::NAN } else { largest };
    }
    largest + libm::log(x.iter().map(|v| libm::exp(f64::from(*v) - largest)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::tests::values;

    #[test]
    fn cross_entropy_has_its_closed_forms() {
        let uniform = cross_entropy(4, &[2.0; 4], &[1], 0.1);
        assert!((uniform[0] - 4f64.ln()).abs() < 1e-12);
        let sure = cross_entropy(2, &[0.0, 3f64.ln() as f32], &[1], 0.0);
        assert!((sure[0] - (4.0f64 / 3.0).ln()).abs() < 1e-7);
        assert!(cross_entropy(2, &[f32::NAN, 0.0], &[0], 0.0)[0].is_nan());
        assert!(!cross_entropy(2, &[f32::INFINITY, 0.0], &[1], 0.0)[0].is_finite());
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let (rows, classes, smoothing) = (5, 7, 0.1);
        let x = values(rows * classes, 11);
        let labels = [0, 6, 3, 3, 1];
        let mean = |x: &[f32]| cross_entropy(classes, x, &labels, smoothing).iter().sum::<f64>() / rows as f64;
        let mut dx = vec![0.0; x.len()];
        cross_entropy_backward(classes, &x, &labels, smoothing, 1.0, &mut dx);
        for at in 0..x.len() {
            let moved = |by: f32| {
                let mut x = x.clone();
                x[at] += by;
                x
            };
            let slope = |f: &dyn Fn(&[f32]) -> f64| (f(&moved(1e-2)) - f(&moved(-1e-2))) / 2e-2;
            assert!((slope(&mean) - f64::from(dx[at])).abs() < 1e-4);
        }
    }

    #[test]
    fn the_tangent_is_the_slope_of_the_gradient() {
        let (rows, classes, smoothing, step) = (5, 7, 0.1, 1e-2);
        let (x, u, labels) = (values(rows * classes, 11), values(rows * classes, 12), [0, 6, 3, 3, 1]);
        let gradient = |by: f32| {
            let moved: Vec<f32> = x.iter().zip(&u).map(|(x, u)| x + by * u).collect();
            let mut dx = vec![0.0; x.len()];
            cross_entropy_backward(classes, &moved, &labels, smoothing, 1.0, &mut dx);
            dx
        };
        let (ahead, behind) = (gradient(step), gradient(-step));
        let mut tangent = vec![0.0; x.len()];
        cross_entropy_tangent(classes, &x, &u, &mut tangent);
        for at in 0..x.len() {
            assert!(((ahead[at] - behind[at]) / (2.0 * step) - tangent[at]).abs() < 2e-5);
        }
    }
}
