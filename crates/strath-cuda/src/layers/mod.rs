//! Layers, forward and backward, on activations with channels innermost: [N, H, W, C], matrices [rows, C], tokens [N, T, C].
//!
//! Each function checks the lengths of what it is given, and launches what computes it; gradients of parameters are overwritten.

pub mod attention;
pub mod linear;
pub mod loss;
pub mod norm;
pub mod pointwise;
pub mod shapes;
