//! What activations and gradients lie in: the host's memory, or a device's.

use candle_core::Result;
use strath_kernels::pointwise;

use super::Buffer;

/// Memory of a kind.
pub(crate) trait Memory: Send + Sync + Sized + 'static {
    /// What a layer's way back comes to: on the host it cannot fail.
    type Outcome: Default;

    /// How many values it has.
    fn values(&self) -> usize;

    /// Adds its values to as many others.
    fn add_to(&self, sum: &mut Self) -> Self::Outcome;

    /// The outcome as candle's autograd takes it.
    fn settled(outcome: Self::Outcome) -> Result<()>;
}

impl Memory for Buffer {
    type Outcome = ();

    fn values(&self) -> usize {
        self.len()
    }

    fn add_to(&self, sum: &mut Self) {
        pointwise::add_to(self, sum);
    }

    fn settled((): ()) -> Result<()> {
        Ok(())
    }
}
