//! Eigenvalues and eigenvectors of a small symmetric matrix.

/// Sweeps after which the method has always converged: it does quadratically, after about six.
const MOST_SWEEPS: usize = 60;

/// The eigenvalues of a symmetric matrix, descending, each with its eigenvector of length 1.
///
/// Jacobi's method with cyclic sweeps (Golub and Van Loan, "Matrix Computations", section 8.5): slower than a reduction to tridiagonal form, accurate
/// for small eigenvalues too, and made of additions, multiplications, divisions and square roots alone, so that every platform finds the same bits.
///
/// # Panics
/// Where the matrix is not square.
pub fn symmetric(matrix: &[Vec<f64>]) -> Vec<(f64, Vec<f64>)> {
    let n = matrix.len();
    assert!(matrix.iter().all(|row| row.len() == n), "a square matrix");
    let mut a = matrix.to_vec();
    // Row i is the i-th eigenvector.
    let mut vectors: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    let size = a.iter().flatten().map(|v| v * v).sum::<f64>();
    for _ in 0..MOST_SWEEPS {
        let outside: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i][j] * a[i][j]).sum();
        if outside <= size * f64::EPSILON * f64::EPSILON {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut vectors, p, q);
            }
        }
    }
    let mut pairs: Vec<(f64, Vec<f64>)> = (0..n).map(|i| a[i][i]).zip(vectors).collect();
    pairs.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    pairs
}

/// Makes entry (p, q) zero by a rotation of both axes, p before q.
fn rotate(a: &mut [Vec<f64>], vectors: &mut [Vec<f64>], p: usize, q: usize) {
    if a[p][q] == 0.0 {
        return;
    }
    let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
    let tangent = 1f64.copysign(theta) / (theta.abs() + (theta * theta + 1.0).sqrt());
    let cosine = 1.0 / (tangent * tangent + 1.0).sqrt();
    let sine = tangent * cosine;
    for row in a.iter_mut() {
        let (at_p, at_q) = (row[p], row[q]);
        (row[p], row[q]) = (cosine * at_p - sine * at_q, sine * at_p + cosine * at_q);
    }
    for lines in [a, vectors] {
        let (upper, lower) = lines.split_at_mut(q);
        for (of_p, of_q) in upper[p].iter_mut().zip(&mut lower[0]) {
            let (at_p, at_q) = (*of_p, *of_q);
            (*of_p, *of_q) = (cosine * at_p - sine * at_q, sine * at_p + cosine * at_q);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_second_difference_has_its_known_eigenvalues() {
        let n = 40;
        let entry = |i: usize, j: usize| match i.abs_diff(j) {
            0 => 2.0,
            1 => -1.0,
            _ => 0.0,
        };
        let matrix: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| entry(i, j)).collect()).collect();
        for (k, (value, _)) in symmetric(&matrix).iter().rev().enumerate() {
            let half = (k + 1) as f64 * std::f64::consts::PI / (2 * (n + 1)) as f64;
            assert!((value - 4.0 * half.sin().powi(2)).abs() < 1e-13, "{k}: {value}");
        }
    }

    #[test]
    fn no_matrix_and_a_diagonal_one_are_their_own() {
        assert!(symmetric(&[]).is_empty());
        let pairs = symmetric(&[vec![1.0, 0.0], vec![0.0, 3.0]]);
        assert_eq!(pairs, [(3.0, vec![0.0, 1.0]), (1.0, vec![1.0, 0.0])]);
    }

    proptest! {
        #[test]
        fn pairs_are_orthonormal_and_give_the_matrix_back(n in 1usize..12, entries in prop::collection::vec(-5.0f64..5.0, 144)) {
            let matrix: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| entries[i.min(j) * 12 + i.max(j)]).collect()).collect();
            let pairs = symmetric(&matrix);
            for i in 0..n {
                for j in 0..n {
                    let back: f64 = pairs.iter().map(|(value, v)| value * v[i] * v[j]).sum();
                    prop_assert!((back - matrix[i][j]).abs() < 1e-12);
                    let product: f64 = pairs[i].1.iter().zip(&pairs[j].1).map(|(a, b)| a * b).sum();
                    prop_assert!((product - f64::from(u8::from(i == j))).abs() < 1e-13);
                }
            }
        }
    }
}
