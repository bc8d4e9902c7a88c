//! The right-hand side of the generalization bound of the paper (theorem 2, appendix A.1).

/// Every term of theorem 2 but the empirical risk: with probability `1 - delta` over the training set,
///
/// `L_D(w) <= max_{||e||_2 <= rho} L_S(w + e) + sqrt((k ln(1 + ||w||^2 / rho^2 (1 + sqrt(ln(n) / k))^2) + 4 ln(n / delta) + 8 ln(6 n + 3 k)) / (n - 1))`
///
/// for a loss bounded by 1, where `L_D(w) <= E_e L_D(w + e)` for `e ~ N(0, sigma^2)`, `sigma = rho / (sqrt(k) + sqrt(ln n))` a coordinate. `8 ln(6n + 3k)` is
/// what the theorem prints as `O~(1)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Complexity {
    /// `k ln(1 + ||w||^2 / rho^2 (1 + sqrt(ln(n) / k))^2)`: parameters times nats each.
    pub parameters: f64,
    /// `4 ln(n / delta)`.
    pub confidence: f64,
    /// `8 ln(6 n + 3 k)`.
    pub remainder: f64,
    /// The square root of their sum over `n - 1`: what is added to the risk.
    pub term: f64,
    /// The noise of the proof's assumption, a coordinate.
    pub sigma: f64,
}

/// The terms for `n` examples (at least 2), `k` parameters, the squared length of the weights, the radius and the probability `delta` that the bound fails.
pub fn complexity(n: usize, k: usize, squared_length: f64, rho: f64, delta: f64) -> Complexity {
    let (n, k) = (n as f64, k as f64);
    let log_n = libm::log(n);
    let spread = 1.0 + (log_n / k).sqrt();
    let parameters = k * libm::log1p(squared_length / (rho * rho) * spread * spread);
    let confidence = 4.0 * libm::log(n / delta);
    let remainder = 8.0 * libm::log(6.0 * n + 3.0 * k);
    Complexity {
        parameters,
        confidence,
        remainder,
        term: ((parameters + confidence + remainder) / (n - 1.0)).sqrt(),
        sigma: rho / (k.sqrt() + log_n.sqrt()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terms_are_those_of_a_computation_by_hand() {
        // python: n, k, w2, rho, d = 60000, 270896, 900.0, 0.05, 0.05
        let found = complexity(60_000, 270_896, 900.0, 0.05, 0.05);
        let near = |got: f64, want: f64| assert!((got / want - 1.0).abs() < 1e-9, "{got} for {want}");
        let spread = 1.0 + (60_000f64.ln() / 270_896.0).sqrt();
        near(found.parameters, 270_896.0 * (1.0 + 360_000.0 * spread * spread).ln());
        near(found.confidence, 4.0 * 1_200_000f64.ln());
        near(found.remainder, 8.0 * 1_172_688f64.ln());
        near(found.term, ((found.parameters + found.confidence + found.remainder) / 59_999.0).sqrt());
        near(found.sigma, 0.05 / (270_896f64.sqrt() + 60_000f64.ln().sqrt()));
        assert!(found.term > 7.0, "a bound above 1 says nothing, as for every network of this size");
    }
}
