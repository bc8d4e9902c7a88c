//! The largest eigenvalues of a symmetric operator that is known by its products with vectors.
//!
//! Lanczos' method with full reorthogonalisation and thick restarts (Wu and Simon, "Thick-restart Lanczos method for large symmetric eigenvalue
//! problems", SIAM J. Matrix Anal. 22, 2000): a basis V of a Krylov space, `H V = V T + beta v e'`, gives Ritz pairs `(theta, V s)` with
//! `||H V s - theta V s|| = beta |s_last|`. A Krylov space holds one vector of each eigenspace, so an eigenvalue that occurs k times is found once: what
//! converged is deflated, and the search begun anew elsewhere, until a fresh start finds nothing above the smallest eigenvalue found.

use strath_kernels::vector;

use crate::eigen;
use crate::sums::l2_norm;

/// Of a start that is to find nothing, at least so many: an eigenvector has a share of one over the root of the dimension in a random vector, which
/// a few products do not bring to light.
const LEAST_OF_A_CHECK: usize = 24;
/// Expansions between two looks at the Ritz pairs.
const LOOK_EVERY: usize = 4;

/// An eigenvalue with its eigenvector.
#[derive(Debug, Clone, PartialEq)]
pub struct EigenPair {
    /// The Rayleigh quotient `v' H v`.
    pub value: f64,
    /// Of length 1.
    pub vector: Vec<f32>,
    /// `||H v - value v||`, of a product of its own.
    pub residual: f64,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The largest eigenvalues, descending, each as often as it occurs.
    pub pairs: Vec<EigenPair>,
    /// Products with vectors that it took.
    pub products: u64,
    /// Starts, the first included.
    pub starts: u64,
}

/// Why a search ended without the eigenvalues.
#[derive(Debug, thiserror::Error)]
pub enum LanczosError<E> {
    /// A product failed.
    #[error(transparent)]
    Product(E),
    /// It took too many products.
    #[error(
        "{} eigenvalues had converged after {products} products, where {wanted} are wanted and none above them elsewhere ({}); the next had only to a \
         residual of {residual:.1e} of its size; ask for fewer",
        .converged.len(), listed(.converged)
    )]
    NotConverged {
        /// Those that had, in the order found.
        converged: Vec<f64>,
        /// How many are wanted.
        wanted: usize,
        /// Products taken.
        products: u64,
        /// Residual over eigenvalue of the first that had not.
        residual: f64,
    },
}

fn listed(values: &[f64]) -> String {
    values.iter().map(|value| format!("{value:.6}")).collect::<Vec<_>>().join(", ")
}

/// What is searched for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Search {
    /// How many of the largest eigenvalues.
    pub wanted: usize,
    /// A pair has converged when `||H v - lambda v|| <= tolerance |lambda|`, or at the precision of f32 of the largest eigenvalue.
    pub tolerance: f64,
    /// The search gives up after so many products.
    pub most_products: u64,
}

impl Search {
    /// The largest eigenvalues (not their magnitudes) of the operator `product` on vectors of `dim` values. `start` gives a random vector for each start,
    /// from 0. The same calls give the same bits. Keeps `2 wanted + 30` vectors and those that have converged.
    ///
    /// # Errors
    /// [`LanczosError`].
    pub fn largest<E>(
        &self,
        dim: usize,
        mut start: impl FnMut(u64) -> Vec<f32>,
        product: impl FnMut(&[f32]) -> Result<Vec<f32>, E>,
    ) -> Result<Found, LanczosError<E>> {
        let wanted = self.wanted.min(dim);
        let mut operator = Counted { product, taken: 0 };
        let (mut locked, mut starts) = (Vec::<(f64, Vec<f32>)>::new(), 0);
        while locked.len() < dim && wanted > 0 {
            let smallest = (locked.len() >= wanted).then(|| locked[wanted - 1].0);
            let goal = smallest.map_or(Goal::Leading(wanted - locked.len()), Goal::Above);
            let found = self.run(goal, start(starts), &locked, &mut operator)?;
            starts += 1;
            let news = found.into_iter().filter(|(value, _)| smallest.is_none_or(|smallest| *value > smallest));
            let before = locked.len();
            locked.extend(news);
            if locked.len() == before && smallest.is_some() {
                break;
            }
            locked.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        }
        locked.truncate(wanted);
        let mut pairs = Vec::with_capacity(wanted);
        for (_, vector) in locked {
            let image = operator.times(&vector)?;
            let value = vector::dot(&vector, &image);
            let mut rest = image;
            vector::add_scaled(&mut rest, &vector, -value as f32);
            pairs.push(EigenPair { value, residual: l2_norm(&rest), vector });
        }
        pairs.sort_by(|a, b| b.value.total_cmp(&a.value));
        Ok(Found { pairs, products: operator.taken, starts })
    }

    /// One start: Ritz pairs that have converged outside the space of those that are `locked`.
    fn run<E, P: FnMut(&[f32]) -> Result<Vec<f32>, E>>(
        &self,
        goal: Goal,
        start: Vec<f32>,
        locked: &[(f64, Vec<f32>)],
        operator: &mut Counted<P>,
    ) -> Result<Vec<(f64, Vec<f32>)>, LanczosError<E>> {
        let leading = match goal {
            Goal::Leading(count) => count,
            Goal::Above(_) => 1,
        };
        let capacity = 2 * leading + 30;
        let room = start.len() - locked.len();
        let mut space = Krylov::new(start, locked);
        loop {
            let beta = space.expand(locked, |v| operator.times(v))?;
            let is_whole = space.len() >= room || beta <= f64::from(f32::EPSILON) * space.scale();
            if !(is_whole || space.len() >= capacity || space.len().is_multiple_of(LOOK_EVERY)) {
                continue;
            }
            let ritz = eigen::symmetric(&space.projected);
            let largest = ritz.iter().map(|(theta, _)| theta.abs()).fold(0.0, f64::max);
            let residual = |at: usize| if is_whole { 0.0 } else { beta * ritz[at].1.last().map_or(0.0, |s| s.abs()) };
            let allowed = |at: usize| {
                // Half, for the rounding between this residual and one that is taken anew.
                (0.5 * self.tolerance * ritz[at].0.abs()).max(4.0 * f64::from(f32::EPSILON) * largest)
            };
            let converged = (0..leading.min(ritz.len())).take_while(|at| residual(*at) <= allowed(*at)).count();
            let is_done = match goal {
                Goal::Leading(_) => converged == leading,
                Goal::Above(smallest) => {
                    let finds_nothing = ritz[0].0 + residual(0) <= smallest && space.len() >= LEAST_OF_A_CHECK;
                    converged == 1 || finds_nothing
                }
            };
            if is_done || is_whole {
                let kept = if is_whole { leading.min(ritz.len()) } else { converged };
                return Ok(ritz[..kept].iter().map(|(theta, s)| (*theta, space.combined(s))).collect());
            }
            if operator.taken >= self.most_products {
                let residual = residual(converged) / ritz[converged].0.abs();
                let converged =
                    locked.iter().map(|(value, _)| *value).chain(ritz[..converged].iter().map(|(theta, _)| *theta));
                return Err(LanczosError::NotConverged {
                    converged: converged.collect(),
                    wanted: self.wanted,
                    products: operator.taken,
                    residual,
                });
            }
            if space.len() >= capacity {
                space.restart(&ritz[..leading + (capacity - leading) / 3]);
            }
        }
    }
}

/// What a start looks for.
#[derive(Debug, Clone, Copy)]
enum Goal {
    /// So many of the largest.
    Leading(usize),
    /// One above this, if there is any.
    Above(f64),
}

struct Counted<P> {
    product: P,
    taken: u64,
}

impl<P> Counted<P> {
    fn times<E>(&mut self, v: &[f32]) -> Result<Vec<f32>, LanczosError<E>>
    where
        P: FnMut(&[f32]) -> Result<Vec<f32>, E>,
    {
        self.taken += 1;
        (self.product)(v).map_err(LanczosError::Product)
    }
}

/// An orthonormal basis with the operator projected onto it, and the vector that continues it.
struct Krylov {
    basis: Vec<Vec<f32>>,
    /// `V' H V` of the basis.
    projected: Vec<Vec<f64>>,
    next: Vec<f32>,
}

impl Krylov {
    fn new(mut start: Vec<f32>, locked: &[(f64, Vec<f32>)]) -> Self {
        for (_, v) in locked.iter().chain(locked) {
            take_out(&mut start, v);
        }
        normalise(&mut start);
        Self { basis: Vec::new(), projected: Vec::new(), next: start }
    }

    fn len(&self) -> usize {
        self.basis.len()
    }

    fn scale(&self) -> f64 {
        self.projected.iter().flatten().fold(0.0, |most, v| v.abs().max(most))
    }

    /// Takes the next vector into the basis, and gives the length of what its product has outside of it.
    fn expand<E>(
        &mut self,
        locked: &[(f64, Vec<f32>)],
        mut product: impl FnMut(&[f32]) -> Result<Vec<f32>, E>,
    ) -> Result<f64, E> {
        let mut image = product(&self.next)?;
        self.basis.push(std::mem::take(&mut self.next));
        let mut column = vec![0.0; self.len()];
        // Once leaves what rounding puts back; twice is enough (Parlett, "The symmetric eigenvalue problem", section 6.9).
        for _ in 0..2 {
            for (_, v) in locked {
                take_out(&mut image, v);
            }
            column.iter_mut().zip(&self.basis).for_each(|(sum, v)| *sum += take_out(&mut image, v));
        }
        for (row, value) in self.projected.iter_mut().zip(&column) {
            row.push(*value);
        }
        self.projected.push(column);
        let beta = normalise(&mut image);
        self.next = image;
        Ok(beta)
    }

    /// The vector with coordinates `s` in the basis, of length 1.
    fn combined(&self, s: &[f64]) -> Vec<f32> {
        let mut sum = vec![0.0; self.basis[0].len()];
        s.iter().zip(&self.basis).for_each(|(s, v)| vector::add_scaled(&mut sum, v, *s as f32));
        normalise(&mut sum);
        sum
    }

    /// Goes on with these Ritz vectors and the vector that continues the basis.
    fn restart(&mut self, ritz: &[(f64, Vec<f64>)]) {
        let basis: Vec<Vec<f32>> = ritz.iter().map(|(_, s)| self.combined(s)).collect();
        self.basis = basis;
        self.projected =
            (0..ritz.len()).map(|i| (0..ritz.len()).map(|j| if i == j { ritz[i].0 } else { 0.0 }).collect()).collect();
    }
}

/// Takes the part along the unit vector `v` out of `x`, and gives its length.
fn take_out(x: &mut [f32], v: &[f32]) -> f64 {
    let part = vector::dot(x, v);
    vector::add_scaled(x, v, -part as f32);
    part
}

/// Scales to length 1 and gives the length before; zero stays zero.
fn normalise(x: &mut [f32]) -> f64 {
    let length = l2_norm(x);
    if length > 0.0 {
        for x in x {
            *x = (f64::from(*x) / length) as f32;
        }
    }
    length
}

/// The nodes and weights of Gauss quadrature of the operator's spectral measure seen from `start`, of length 1: eigenvalues of the tridiagonal matrix of
/// `steps` steps and the squares of their eigenvectors' first entries (Golub and Welsch 1969; Ubaru, Chen and Saad, "Fast estimation of tr(f(A))
/// via stochastic Lanczos quadrature", SIAM J. Matrix Anal. 38, 2017). Fewer where the space is smaller.
///
/// # Errors
/// The product's.
pub fn quadrature<E>(
    start: Vec<f32>,
    steps: usize,
    mut product: impl FnMut(&[f32]) -> Result<Vec<f32>, E>,
) -> Result<Vec<(f64, f64)>, E> {
    let dim = start.len();
    let mut space = Krylov::new(start, &[]);
    for _ in 0..steps.min(dim) {
        let beta = space.expand(&[], &mut product)?;
        if beta <= f64::from(f32::EPSILON) * space.scale() {
            break;
        }
    }
    Ok(eigen::symmetric(&space.projected).into_iter().map(|(node, s)| (node, s[0] * s[0])).collect())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use strath_core::random::{Purpose, Stream};

    use super::*;

    const SEARCH: Search = Search { wanted: 5, tolerance: 1e-3, most_products: 2000 };

    fn random(dim: usize, seed: u64) -> Vec<f32> {
        let mut stream = Stream::new(seed, Purpose::Probe);
        (0..dim).map(|_| stream.normal()).collect()
    }

    /// The operator with these eigenvalues, in a basis that is turned by a reflection, and no axis of which is an eigenvector.
    fn operator(values: &[f64]) -> impl FnMut(&[f32]) -> Result<Vec<f32>, Infallible> + '_ {
        let mut mirror = random(values.len(), 99);
        normalise(&mut mirror);
        let reflected = move |x: &[f32]| {
            let part = vector::dot(x, &mirror);
            x.iter()
                .zip(&mirror)
                .map(|(x, m)| (f64::from(*x) - 2.0 * part * f64::from(*m)) as f32)
                .collect::<Vec<f32>>()
        };
        move |x| {
            let scaled: Vec<f32> =
                reflected(x).iter().zip(values).map(|(x, value)| (f64::from(*x) * value) as f32).collect();
            Ok(reflected(&scaled))
        }
    }

    fn values(found: &Found) -> Vec<f64> {
        found.pairs.iter().map(|pair| pair.value).collect()
    }

    fn assert_near(found: &Found, want: &[f64]) {
        assert_eq!(found.pairs.len(), want.len());
        for (pair, want) in found.pairs.iter().zip(want) {
            assert!((pair.value - want).abs() < 2e-6 * want.abs().max(1.0), "{:?} for {want:?}", values(found));
            assert!(pair.residual <= 1e-3 * pair.value.abs().max(2e-3), "{} of {}", pair.residual, pair.value);
        }
    }

    #[test]
    fn a_bulk_with_outliers_gives_its_outliers() {
        let mut spectrum: Vec<f64> = (0..2000).map(|at| (at % 200) as f64 / 1000.0 - 0.05).collect();
        spectrum[..5].copy_from_slice(&[24.2, 11.0, 3.0, 2.9, 1.5]);
        spectrum[7] = -40.0;
        let found = SEARCH.largest(2000, |at| random(2000, at), operator(&spectrum)).unwrap();
        assert_near(&found, &[24.2, 11.0, 3.0, 2.9, 1.5]);
        assert!(found.products < 150, "{} products", found.products);
    }

    #[test]
    fn an_eigenvalue_that_occurs_three_times_is_listed_three_times() {
        let mut spectrum: Vec<f64> = (0..500).map(|at| (at % 100) as f64 / 200.0).collect();
        spectrum[..6].copy_from_slice(&[9.0, 9.0, 9.0, 4.0, 4.0, 2.0]);
        let found = SEARCH.largest(500, |at| random(500, at), operator(&spectrum)).unwrap();
        assert_near(&found, &[9.0, 9.0, 9.0, 4.0, 4.0]);
        assert!(found.starts >= 2);
    }

    #[test]
    fn the_edge_of_a_bulk_takes_restarts_and_is_found() {
        let spectrum: Vec<f64> = (0..600).map(|at| f64::from(at) / 600.0).collect();
        let found = SEARCH.largest(600, |at| random(600, at), operator(&spectrum)).unwrap();
        for (pair, want) in found.pairs.iter().zip(spectrum.iter().rev()) {
            assert!((pair.value - want).abs() < 1e-5 && pair.residual < 1e-3 * want, "{:?}", values(&found));
        }
    }

    #[test]
    fn a_small_space_gives_all_it_has() {
        for dim in 1..12 {
            let spectrum: Vec<f64> = (0..dim).map(|at| f64::from(at / 2) - 1.0).collect();
            let found = SEARCH.largest(dim as usize, |at| random(dim as usize, at), operator(&spectrum)).unwrap();
            let want: Vec<f64> = spectrum.iter().rev().take(5).copied().collect();
            assert_near(&found, &want);
        }
    }

    #[test]
    fn zero_has_eigenvalues_of_zero() {
        let found = SEARCH.largest(50, |at| random(50, at), operator(&[0.0; 50])).unwrap();
        assert_eq!(values(&found), [0.0; 5]);
    }

    #[test]
    fn who_may_take_no_more_products_says_how_far_it_has_come() {
        let spectrum: Vec<f64> = (0..600).map(|at| f64::from(at) / 600.0).collect();
        let search = Search { most_products: 20, ..SEARCH };
        let error = search.largest(600, |at| random(600, at), operator(&spectrum)).unwrap_err();
        assert!(
            matches!(&error, LanczosError::NotConverged { converged, wanted: 5, products: 20, .. } if converged.is_empty()),
            "{error}"
        );
    }

    #[test]
    fn quadrature_integrates_polynomials_of_the_spectrum_as_its_start_sees_them() {
        let spectrum: Vec<f64> = (0..300).map(|at| f64::from(at % 30) / 10.0 - 1.0).collect();
        let mut start = random(300, 5);
        normalise(&mut start);
        let mut times = operator(&spectrum);
        let image = times(&start).unwrap();
        let moments = [1.0, vector::dot(&start, &image), vector::dot(&image, &image)];
        let nodes = quadrature(start, 12, operator(&spectrum)).unwrap();
        assert_eq!(nodes.len(), 12);
        for (power, want) in moments.iter().enumerate() {
            let got: f64 = nodes.iter().map(|(node, weight)| weight * node.powi(power as i32)).sum();
            assert!((got - want).abs() < 1e-6, "moment {power}: {got} for {want}");
        }
    }
}
