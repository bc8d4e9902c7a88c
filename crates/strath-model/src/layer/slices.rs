//! Between candle's storage and the kernels' slices.

use candle_core::{CpuStorage, Layout, Result, Shape};

/// The values of a contiguous tensor's storage.
pub(super) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let values = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => Err(candle_core::Error::RequiresContiguous { op: "a custom op" }),
    }
}

/// The output of a kernel as a custom op hands it over.
pub(super) fn output(values: Vec<f32>, shape: impl Into<Shape>) -> (CpuStorage, Shape) {
    (CpuStorage::F32(values), shape.into())
}

/// The result of an op that stands for something else than its number.
pub(crate) fn scalar() -> (CpuStorage, Shape) {
    (CpuStorage::F32(vec![0.0]), Shape::from(()))
}
