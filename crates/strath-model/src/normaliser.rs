//! `model.norm`: batch norm in a convolutional network, or what stands in its place.
//!
//! | `model.norm` | a norm that takes a convolution's output itself | a norm that takes a sum of branches |
//! | --- | --- | --- |
//! | batch, group | that norm, with what follows it | the same |
//! | none | the convolution has a bias, with what follows | nothing but the ReLU |
//!
//! In a convnet or a residual network every norm takes a convolution's output; in a wide one, of pre-activation blocks, each block's second
//! norm does, that of its first convolution, and the first norm of all, which takes the stem's.

use strath_core::config::NormLayer;

use crate::error::Computed;
use crate::init::Declarations;
use crate::route::{Follows, Route};

/// The most groups of a group norm.
const MOST_GROUPS: usize = 8;

/// Groups of a group norm of so many channels: `gcd(8, channels)`.
pub(crate) fn groups(channels: usize) -> usize {
    1 << channels.trailing_zeros().min(MOST_GROUPS.trailing_zeros())
}

/// What normalises a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Normaliser(pub(crate) NormLayer);

/// A convolution and the norm that takes its output itself, by their names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair<'a> {
    pub(crate) conv: &'a str,
    pub(crate) norm: &'a str,
}

/// The sizes of a convolution's tensors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) kernel: usize,
}

impl Normaliser {
    /// Declares a convolution and what normalises its output, planes of `area` pixels.
    pub(crate) fn declare_pair(self, tensors: &mut Declarations, pair: Pair<'_>, sizes: Sizes, area: usize) {
        let Sizes { inputs, outputs, kernel } = sizes;
        tensors.convolution(pair.conv, inputs, outputs, kernel);
        match self.0 {
            NormLayer::Batch | NormLayer::Group => self.declare(tensors, pair.norm, outputs, area),
            NormLayer::None => tensors.convolution_bias(pair.conv, inputs, outputs, kernel),
        }
    }

    /// Declares a norm that takes a sum.
    pub(crate) fn declare(self, tensors: &mut Declarations, norm: &str, channels: usize, area: usize) {
        match self.0 {
            NormLayer::Batch => tensors.batch_norm(norm, channels, area),
            NormLayer::Group => tensors.norm(norm, channels),
            NormLayer::None => {}
        }
    }

    /// What becomes of y, a convolution's output.
    pub(crate) fn after<R: Route>(
        self,
        route: &R,
        pair: Pair<'_>,
        y: &R::Value,
        follows: Follows<&R::Value>,
    ) -> Computed<R::Value> {
        match self.0 {
            NormLayer::Batch => route.batch_norm(y, pair.norm, follows),
            NormLayer::Group => route.group_norm(y, pair.norm, follows),
            NormLayer::None => route.bias(y, pair.conv, Some(follows)),
        }
    }

    /// What becomes of y, a convolution's output that serves twice: as it goes on along the residual path, and normalised and rectified.
    pub(crate) fn fork<R: Route>(self, route: &R, pair: Pair<'_>, y: R::Value) -> Computed<(R::Value, R::Value)> {
        if self.0 == NormLayer::None {
            // The bias is the convolution's: both ways have it.
            let y = route.bias(&y, pair.conv, None)?;
            let rectified = route.relu(&y)?;
            return Ok((y, rectified));
        }
        let normalised = self.after(route, pair, &y, Follows::Relu)?;
        Ok((y, normalised))
    }

    /// What becomes of x, a sum of branches: normalised, where it is, and rectified.
    pub(crate) fn of_sum<R: Route>(self, route: &R, norm: &str, x: &R::Value) -> Computed<R::Value> {
        match self.0 {
            NormLayer::Batch => route.batch_norm(x, norm, Follows::Relu),
            NormLayer::Group => route.group_norm(x, norm, Follows::Relu),
            NormLayer::None => route.relu(x),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_the_greatest_common_divisor_of_eight_and_the_channels() {
        assert_eq!([1, 3, 4, 6, 12, 16, 20, 24, 64, 100].map(groups), [1, 1, 4, 2, 4, 8, 4, 8, 8, 4]);
    }
}
