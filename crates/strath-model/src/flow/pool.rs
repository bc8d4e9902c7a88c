//! Global average pooling, and the parameter-free shortcut of He et al. 2016 (option A).

use strath_kernels::pool;
use strath_kernels::shortcut::Shortcut;

use super::course::Course;
use super::token::{Backward, Values};
use super::{Buffer, Dims, Flow};
use crate::error::Computed;

/// x [N, H, W, C] to its means over H and W, [N, C].
pub(crate) fn global_average(x: &Flow, course: &Course<'_>) -> Computed<Flow> {
    let Dims { images, height, width, channels } = x.dims();
    let area = height * width;
    let mut y = Buffer::stale(images * channels);
    pool::average_rows(area, channels, &x.values.buffer, &mut y);
    let backward = || {
        let x = x.values.clone();
        Box::new(move |_: &Values, g: Buffer| {
            let mut dx = Buffer::stale(x.buffer.len());
            pool::spread_rows(area, channels, &g, &mut dx);
            x.add_gradient(dx);
        }) as Backward
    };
    Ok(course.tape.of_one("global-average", x, Dims::matrix(images, channels), y, backward)?)
}

/// x [N, H, W, C] to [N, ceil(H / stride), ceil(W / stride), C + added]: every `stride`-th pixel, `added / 2` channels of zeros
/// before and the rest after.
pub(crate) fn subsample_and_pad(x: &Flow, course: &Course<'_>, stride: usize, added: usize) -> Computed<Flow> {
    let Dims { images, height, width, channels } = x.dims();
    let shortcut = Shortcut { height, width, channels, stride, added };
    let (height, width) = shortcut.output();
    let dims = Dims { images, height, width, channels: channels + added };
    let mut y = Buffer::stale(dims.values());
    shortcut.forward(&x.values.buffer, &mut y);
    let backward = || {
        let x = x.values.clone();
        Box::new(move |_: &Values, g: Buffer| {
            let mut dx = Buffer::stale(x.buffer.len());
            shortcut.backward(&g, &mut dx);
            x.add_gradient(dx);
        }) as Backward
    };
    Ok(course.tape.of_one("shortcut", x, dims, y, backward)?)
}
