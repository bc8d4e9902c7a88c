//! A bias of each channel of x [rows, channels] with what follows it: what is left of a norm that is left out.
//!
//! ```text
//! y = then(x + bias)
//! ```
//!
//! One pass over memory; the way back is [`bias_relu_backward`](crate::pointwise::bias_relu_backward), with a shortcut or without. Bits depend neither on the number of threads nor on the instruction set.

use crate::batch_norm::{Affine, Then};
use crate::isa::Isa;

/// `y = then(x + bias)`.
///
/// # Panics
/// Where the lengths differ or x is no multiple of the channels.
pub fn forward(then: Then<'_>, bias: &[f32], x: &[f32], y: &mut [f32]) {
    forward_by(Isa::active(), then, bias, x, y);
}

fn forward_by(isa: Isa, then: Then<'_>, bias: &[f32], x: &[f32], y: &mut [f32]) {
    assert!(!bias.is_empty() && x.len().is_multiple_of(bias.len()), "x is rows x channels");
    assert_eq!(x.len(), y.len(), "y has the shape of x");
    // Less 0 and times 1 change no bit.
    Affine::of(&vec![1.0; bias.len()], bias, |_| (0.0, 1.0)).forward(isa, then, x, y);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::tests::values;
    use crate::vectorised::tests::same_bits_by_every_isa;

    #[test]
    fn a_bias_is_added_to_the_bit_by_every_instruction_set() {
        for (rows, channels) in [(300, 16), (41, 10), (70, 300), (1, 1)] {
            let (mut x, bias) = (values(rows * channels, 1), values(channels, 2));
            x[0] = -0.0;
            let shortcut = values(x.len(), 3);
            for then in [Then::Nothing, Then::Relu, Then::AddRelu(&shortcut)] {
                let y = same_bits_by_every_isa(|isa| {
                    let mut y = vec![f32::NAN; x.len()];
                    forward_by(isa, then, &bias, &x, &mut y);
                    y
                });
                let want = |at: usize| match then {
                    Then::Nothing => x[at] + bias[at % channels],
                    Then::Relu => (x[at] + bias[at % channels]).max(0.0),
                    Then::AddRelu(shortcut) => (x[at] + bias[at % channels] + shortcut[at]).max(0.0),
                };
                assert!((0..x.len()).all(|at| y[at] == want(at)));
            }
        }
    }
}
