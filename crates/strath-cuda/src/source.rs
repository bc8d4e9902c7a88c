//! The kernels' source, as one translation unit.

/// Threads of every block.
pub const THREADS: u32 = 256;

/// All kernels, in CUDA C++. A compiler has to be told what an `ACTIVATION` is.
pub const KERNELS: &str = concat!(
    include_str!("../kernels/common.cuh"),
    include_str!("../kernels/pointwise.cuh"),
    include_str!("../kernels/shapes.cuh"),
    include_str!("../kernels/columns.cuh"),
    include_str!("../kernels/rows.cuh"),
    include_str!("../kernels/lanes.cuh"),
    include_str!("../kernels/ball.cuh"),
    include_str!("../kernels/direction.cuh"),
);
