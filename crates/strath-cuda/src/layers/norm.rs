//! Batch norm, layer norm and group norm with what follows, and the sums over rows that they and biases need.

#![allow(unsafe_code, reason = "launches of kernels, whose vectors' lengths are compared before")]

use super::pointwise::Follows;
use crate::activation::Activation;
use crate::error::GpuError;
use crate::gpu::{Argument as Arg, Gpu, Grid};
use crate::source::THREADS;
use crate::vector::{Part, PartMut, Vector};

/// Rows that one block sums at least: fewer are not worth a block.
const LEAST_SPAN: usize = 256;
/// Blocks above each other in a grid.
const MOST_SPANS: usize = 256;

/// Over which values a norm takes mean and deviation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Those of a channel in all rows: batch norm.
    Channel,
    /// Those of a row: layer norm.
    Row,
    /// Those of a group of an image's channels, in all of its pixels: group norm.
    Group {
        /// Pixels of an image.
        area: usize,
        /// Groups.
        groups: usize,
    },
}

impl Over {
    fn arguments(self) -> [Arg; 3] {
        let (kind, area, groups) = match self {
            Self::Channel => (0, 1, 1),
            Self::Row => (1, 1, 1),
            Self::Group { area, groups } => (2, area, groups),
        };
        [Arg::Int(kind), Arg::Int(area as i32), Arg::Int(groups as i32)]
    }

    /// How many means there are.
    fn count(self, rows: usize, channels: usize) -> usize {
        match self {
            Self::Channel => channels,
            Self::Row => rows,
            Self::Group { area, groups } => rows / area * groups,
        }
    }
}

impl Moments {
    /// That they are those of so many values of so many channels.
    fn check(&self, len: usize, channels: usize) {
        let rows = len / channels;
        assert_eq!(rows * channels, len, "whole rows");
        if let Over::Group { area, groups } = self.over {
            assert!(rows.is_multiple_of(area) && channels.is_multiple_of(groups), "whole images and groups");
        }
        assert_eq!(self.mean.len(), self.over.count(rows, channels), "moments of these values");
    }
}

/// Mean and inverse deviation of each set of values.
#[derive(Debug)]
pub struct Moments {
    mean: Vector<f64>,
    inverse: Vector<f64>,
    over: Over,
    /// Whether they follow from the values that are normalised, so that gradients pass through them.
    are_own: bool,
}

/// How the rows of a matrix are shared among blocks: by its shape alone, so that sums are in one order on every device.
struct Spans {
    across: usize,
    span: usize,
    /// How many spans there are.
    count: usize,
    channels: usize,
    rows: usize,
}

impl Spans {
    fn of(len: usize, channels: usize) -> Self {
        assert!(channels > 0 && len.is_multiple_of(channels), "whole rows");
        let rows = len / channels;
        let across = channels.next_power_of_two().min(32);
        let span = rows.div_ceil(MOST_SPANS).next_multiple_of(THREADS as usize / across).max(LEAST_SPAN);
        Self { across, span, count: rows.div_ceil(span).max(1), channels, rows }
    }

    fn grid(&self) -> Grid {
        Grid::Blocks(self.channels.div_ceil(self.across), self.count)
    }

    fn partial(&self, gpu: &Gpu) -> Result<Vector<f64>, GpuError> {
        gpu.stale(2 * self.count * self.channels)
    }

    fn arguments(&self) -> [Arg; 4] {
        let Self { across, span, channels, rows, .. } = *self;
        [Arg::Int(across as i32), Arg::Int(span as i32), Arg::Int(channels as i32), Arg::Long(rows as i64)]
    }

    /// Adds the spans' sums up: into f32 where gradients are asked for, into f64 where they are needed again.
    fn add(
        &self,
        partial: &Vector<f64>,
        first: Option<&mut PartMut<'_, f32>>,
        second: Option<&mut PartMut<'_, f32>>,
        sums: Option<&mut Vector<f64>>,
    ) -> Result<(), GpuError> {
        for len in [first.as_ref().map(|part| part.len), second.as_ref().map(|part| part.len)] {
            assert_eq!(len.unwrap_or(self.channels), self.channels, "a value a channel");
        }
        let of = |part: Option<&mut PartMut<'_, f32>>| Arg::Address(part.map_or(0, |part| part.at));
        let arguments = [
            partial.all().address(),
            of(first),
            of(second),
            Arg::Address(sums.map_or(0, |sums| sums.all_mut().at)),
            Arg::Int(self.count as i32),
            Arg::Int(self.channels as i32),
        ];
        // SAFETY: a thread a channel, and every place has as many values.
        unsafe { partial.gpu().launch("add_spans", Grid::Elements(self.channels), arguments) }
    }
}

/// g [rows, C] summed over its rows.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where g has no whole rows of as many channels as there are sums.
pub fn column_sums<A: Activation>(g: &Vector<A>, sums: &mut PartMut<'_, f32>) -> Result<(), GpuError> {
    let spans = Spans::of(g.len(), sums.len);
    let mut partial = spans.partial(g.gpu())?;
    let [across, span, channels, rows] = spans.arguments();
    let arguments = [g.all().address(), partial.all_mut().address(), across, span, channels, rows];
    // SAFETY: blocks stay within rows and channels, and each has its place in the sums.
    unsafe { g.gpu().launch_of::<A>("column_sums", spans.grid(), arguments)? };
    spans.add(&partial, Some(sums), None, None)
}

/// The batch's moments of x [rows, C]; its means and unbiased variances for the running ones go to `running`.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the lengths do not fit.
pub fn batch_moments<A: Activation>(
    x: &Vector<A>,
    channels: usize,
    floor: f64,
    running: Option<(&mut PartMut<'_, f32>, &mut PartMut<'_, f32>)>,
) -> Result<Moments, GpuError> {
    let gpu = x.gpu();
    let spans = Spans::of(x.len(), channels);
    let mut partial = spans.partial(gpu)?;
    let [across, span, count, rows] = spans.arguments();
    let arguments = [x.all().address(), partial.all_mut().address(), across, span, count, rows];
    // SAFETY: blocks stay within rows and channels, and each has its place in the sums.
    unsafe { gpu.launch_of::<A>("column_moments", spans.grid(), arguments)? };
    let (mut mean, mut inverse) = (gpu.stale(channels)?, gpu.stale(channels)?);
    let (means, variances) = match running {
        Some((means, variances)) => {
            assert_eq!((means.len, variances.len), (channels, channels), "a value a channel");
            (means.address(), variances.address())
        }
        None => (Arg::Address(0), Arg::Address(0)),
    };
    let arguments = [
        partial.all().address(),
        mean.all_mut().address(),
        inverse.all_mut().address(),
        means,
        variances,
        Arg::Double(floor),
        Arg::Int(spans.count as i32),
        Arg::Int(channels as i32),
        Arg::Long(spans.rows as i64),
    ];
    // SAFETY: a thread a channel, and every place has as many values.
    unsafe { gpu.launch("batch_moments", Grid::Elements(channels), arguments)? };
    Ok(Moments { mean, inverse, over: Over::Channel, are_own: true })
}

/// The moments that running means and variances say.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the two differ in length.
pub fn running_moments(
    gpu: &Gpu,
    means: Part<'_, f32>,
    variances: Part<'_, f32>,
    floor: f64,
) -> Result<Moments, GpuError> {
    assert_eq!(means.len(), variances.len(), "a value a channel");
    let channels = means.len();
    let (mut mean, mut inverse) = (gpu.stale(channels)?, gpu.stale(channels)?);
    let arguments = [
        means.address(),
        variances.address(),
        mean.all_mut().address(),
        inverse.all_mut().address(),
        Arg::Double(floor),
        Arg::Int(channels as i32),
    ];
    // SAFETY: a thread a channel, and every place has as many values.
    unsafe { gpu.launch("running_moments", Grid::Elements(channels), arguments)? };
    Ok(Moments { mean, inverse, over: Over::Channel, are_own: false })
}

/// The moments of each row of x, or of each group of its images.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where x has no whole rows or images.
pub fn own_moments<A: Activation>(x: &Vector<A>, channels: usize, over: Over, floor: f64) -> Result<Moments, GpuError> {
    let (gpu, rows) = (x.gpu(), x.len() / channels);
    let count = over.count(rows, channels);
    let (mut mean, mut inverse) = (gpu.stale(count)?, gpu.stale(count)?);
    let (from, to) = ([x.all().address()], [mean.all_mut().address(), inverse.all_mut().address()]);
    let ([x_at], [mean_at, inverse_at]) = (from, to);
    match over {
        Over::Channel => unreachable!("a batch norm's moments are those of the batch, or running ones"),
        Over::Row => {
            assert_eq!(rows * channels, x.len(), "whole rows");
            let arguments = [x_at, mean_at, inverse_at, Arg::Double(floor), Arg::Int(channels as i32)];
            // SAFETY: a block a row, and every place has as many values.
            unsafe { gpu.launch_of::<A>("row_moments", Grid::Blocks(rows, 1), arguments)? };
        }
        Over::Group { area, groups } => {
            assert!(
                x.len().is_multiple_of(area * channels) && channels.is_multiple_of(groups),
                "whole images and groups"
            );
            let shape = [area, groups, channels].map(|size| Arg::Int(size as i32));
            let [area, groups, channels] = shape;
            let arguments = [x_at, mean_at, inverse_at, Arg::Double(floor), area, groups, channels];
            // SAFETY: a block an image and group, and every place has as many values.
            unsafe { gpu.launch_of::<A>("group_moments", Grid::Blocks(count, 1), arguments)? };
        }
    }
    Ok(Moments { mean, inverse, over, are_own: true })
}

/// A norm's weight and bias, a value a channel.
#[derive(Debug, Clone, Copy)]
pub struct Affine<'a> {
    /// Weight.
    pub weight: Part<'a, f32>,
    /// Bias.
    pub bias: Part<'a, f32>,
}

/// `(x - mean) * inverse * weight + bias`, and what follows.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the lengths do not fit.
pub fn normalise<A: Activation>(
    x: &Vector<A>,
    moments: &Moments,
    affine: Affine<'_>,
    follows: Follows<'_, A>,
) -> Result<Vector<A>, GpuError> {
    let channels = affine.weight.len();
    assert_eq!(affine.bias.len(), channels, "a value a channel");
    moments.check(x.len(), channels);
    let mut y = x.gpu().stale(x.len())?;
    let (number, shortcut) = follows.arguments(x.len());
    let [kind, area, groups] = moments.over.arguments();
    let arguments = [
        x.all().address(),
        shortcut,
        y.all_mut().address(),
        moments.mean.all().address(),
        moments.inverse.all().address(),
        affine.weight.address(),
        affine.bias.address(),
        number,
        kind,
        area,
        groups,
        Arg::Int(channels as i32),
        Arg::Long(x.len() as i64),
    ];
    // SAFETY: every thread stays below the length, and finds its moments and channel.
    unsafe { x.gpu().launch_of::<A>("normalise", Grid::Elements(x.len()), arguments)? };
    Ok(y)
}

/// The way back of [`normalise`]: the gradients of weight and bias, and of x. Of g is left what ReLU's result y lets pass, where a y is given.
///
/// # Errors
/// The device's.
///
/// # Panics
/// Where the lengths do not fit.
pub fn normalise_backward<A: Activation>(
    x: &Vector<A>,
    y: Option<&Vector<A>>,
    g: &mut Vector<A>,
    moments: &Moments,
    weight: Part<'_, f32>,
    (of_weight, of_bias): (&mut PartMut<'_, f32>, &mut PartMut<'_, f32>),
) -> Result<Vector<A>, GpuError> {
    let (gpu, channels) = (x.gpu(), weight.len());
    assert_eq!((x.len(), y.map_or(x.len(), Vector::len)), (g.len(), g.len()), "vectors of one length");
    moments.check(x.len(), channels);
    let spans = Spans::of(x.len(), channels);
    let mut partial = spans.partial(gpu)?;
    let [kind, area, groups] = moments.over.arguments();
    let [across, span, count, rows] = spans.arguments();
    let arguments = [
        x.all().address(),
        Arg::maybe(y.map(Vector::all)),
        g.all_mut().address(),
        moments.mean.all().address(),
        moments.inverse.all().address(),
        partial.all_mut().address(),
        kind,
        area,
        groups,
        across,
        span,
        count,
        rows,
    ];
    // SAFETY: blocks stay within rows and channels, and each has its place in the sums.
    unsafe { gpu.launch_of::<A>("column_gradients", spans.grid(), arguments)? };
    let mut sums = gpu.stale::<f64>(2 * channels)?;
    spans.add(&partial, Some(of_bias), Some(of_weight), Some(&mut sums))?;
    let mut dx = gpu.stale(x.len())?;
    let [x_at, g_at, dx_at] = [x.all().address(), g.all().address(), dx.all_mut().address()];
    let [mean, inverse, weight] = [moments.mean.all().address(), moments.inverse.all().address(), weight.address()];
    let channels = Arg::Int(channels as i32);
    // SAFETY: threads and blocks stay within the values of x, g and dx, which are as many, and find their moments and channels.
    unsafe {
        match moments.over {
            Over::Channel => {
                let sums = if moments.are_own { sums.all().address() } else { Arg::Address(0) };
                let rows = Arg::Long(spans.rows as i64);
                let arguments = [x_at, g_at, dx_at, mean, inverse, weight, sums, channels, rows];
                gpu.launch_of::<A>("batch_norm_backward", Grid::Elements(x.len()), arguments)?;
            }
            Over::Row => {
                let arguments = [x_at, g_at, dx_at, mean, inverse, weight, channels];
                gpu.launch_of::<A>("row_norm_backward", Grid::Blocks(spans.rows, 1), arguments)?;
            }
            Over::Group { area, groups } => {
                let [area, groups] = [area, groups].map(|size| Arg::Int(size as i32));
                let arguments = [x_at, g_at, dx_at, mean, inverse, weight, area, groups, channels];
                gpu.launch_of::<A>("group_norm_backward", Grid::Blocks(moments.mean.len(), 1), arguments)?;
            }
        }
    }
    Ok(dx)
}
