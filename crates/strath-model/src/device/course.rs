//! One pass through a network on a device.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use strath_core::{ImageShape, Layout};
use strath_cuda::layers::attention::Attention;
use strath_cuda::layers::linear;
use strath_cuda::layers::norm::{self, Affine, Moments, Over};
use strath_cuda::layers::pointwise::{self, Follows as Then};
use strath_cuda::layers::shapes::{self, Subsample};
use strath_cuda::{Activation, Gpu, GpuError, PartMut, Vector};
use strath_kernels::conv::Shape;

use super::{Flow, Outcome};
use crate::error::{Computed, ModelError};
use crate::flow::{Backward, Dims, Parameter, Parameters, Tape, Values};
use crate::layer::{BATCH_NORM_FLOOR, LAYER_NORM_FLOOR};
use crate::normaliser::groups;
use crate::route::{Conv, Follows, Images, Route};

/// What is told of each parameter's gradient as soon as it has been asked for: its range in the model's layout, and the vector that it lies in, whose other
/// values may not have been asked for yet.
pub type DeviceListener = Box<dyn FnMut(Range<usize>, &mut Vector<f32>) -> Result<(), GpuError> + Send>;

/// Where the gradients of a pass's parameters go.
#[derive(Clone)]
pub(super) struct Sink(Arc<Mutex<Filling>>);

struct Filling {
    /// Until the pass is over.
    gradient: Option<Vector<f32>>,
    listener: Option<DeviceListener>,
}

impl Sink {
    pub(super) fn new(gradient: Vector<f32>, listener: Option<DeviceListener>) -> Self {
        Self(Arc::new(Mutex::new(Filling { gradient: Some(gradient), listener })))
    }

    fn lock(&self) -> MutexGuard<'_, Filling> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `write` with the places of some parameters' gradients: every parameter is used by one layer, which fills it.
    fn fill<const N: usize>(
        &self,
        parameters: [&Parameter<Vector<f32>>; N],
        write: impl FnOnce([PartMut<'_, f32>; N]) -> Result<(), GpuError>,
    ) -> Result<(), GpuError> {
        let Filling { gradient, listener } = &mut *self.lock();
        let gradient = gradient.as_mut().expect("it is taken when the pass is over");
        let ranges = parameters.map(|parameter| parameter.range.clone());
        write(gradient.parts_mut(ranges.clone()))?;
        match listener {
            Some(listener) => ranges.into_iter().try_for_each(|range| listener(range, gradient)),
            None => Ok(()),
        }
    }

    /// The filled vector; nothing is heard any more.
    pub(super) fn into_gradient(self) -> Vector<f32> {
        let Filling { gradient, listener } = &mut *self.lock();
        *listener = None;
        gradient.take().expect("it is taken once")
    }
}

/// What batch norm normalises by, flat in the layout of the running statistics.
pub(super) struct Norms<'a> {
    layout: &'a Layout,
    statistics: Mutex<Vector<f32>>,
    /// Whether those are the batch's own, which are collected there.
    are_own: bool,
}

impl<'a> Norms<'a> {
    pub(super) fn batch(layout: &'a Layout, to: Vector<f32>) -> Self {
        Self { layout, statistics: Mutex::new(to), are_own: true }
    }

    pub(super) fn running(layout: &'a Layout, statistics: Vector<f32>) -> Self {
        Self { layout, statistics: Mutex::new(statistics), are_own: false }
    }

    fn range(&self, prefix: &str, name: &str) -> Result<Range<usize>, ModelError> {
        let full = format!("{prefix}.{name}");
        Ok(self.layout.get(&full).ok_or(ModelError::NoGradient { name: full })?.range())
    }

    fn moments<A: Activation>(&self, gpu: &Gpu, x: &Vector<A>, channels: usize, prefix: &str) -> Computed<Moments> {
        let ranges = [self.range(prefix, "running_mean")?, self.range(prefix, "running_var")?];
        let mut statistics = self.statistics.lock().unwrap_or_else(PoisonError::into_inner);
        if self.are_own {
            let [mut means, mut variances] = statistics.parts_mut(ranges);
            return Ok(norm::batch_moments(x, channels, BATCH_NORM_FLOOR, Some((&mut means, &mut variances)))?);
        }
        let [means, variances] = ranges.map(|range| statistics.part(range));
        Ok(norm::running_moments(gpu, means, variances, BATCH_NORM_FLOOR)?)
    }
}

/// One pass through a network.
pub(super) struct Course<'a, A> {
    gpu: Gpu,
    pub(super) tape: Tape,
    parameters: Parameters<Vector<f32>>,
    norms: Norms<'a>,
    sink: Sink,
    activations: PhantomData<A>,
}

impl<'a, A: Activation> Course<'a, A> {
    pub(super) fn new(
        gpu: &Gpu,
        tape: Tape,
        layout: &Arc<Layout>,
        weights: &Arc<Vector<f32>>,
        norms: Norms<'a>,
        sink: Sink,
    ) -> Self {
        let parameters = Parameters::new(layout.clone(), weights.clone());
        Self { gpu: gpu.clone(), tape, parameters, norms, sink, activations: PhantomData }
    }

    /// What batch norm saw, where it normalised by the batch.
    pub(super) fn into_statistics(self) -> Option<Vector<f32>> {
        let Norms { statistics, are_own, .. } = self.norms;
        are_own.then(|| statistics.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn affine(&self, prefix: &str) -> Computed<[Parameter<Vector<f32>>; 2]> {
        Ok([self.parameters.get(prefix, "weight")?, self.parameters.get(prefix, "bias")?])
    }

    /// A norm of x by its moments, and what follows.
    fn normalised(
        &self,
        name: &'static str,
        x: &Flow<A>,
        moments: Moments,
        prefix: &str,
        follows: Option<Follows<&Flow<A>>>,
    ) -> Computed<Flow<A>> {
        let [weight, bias] = self.affine(prefix)?;
        let affine = Affine { weight: weight.part(), bias: bias.part() };
        let y = norm::normalise(&x.values.buffer, &moments, affine, then(follows))?;
        let (input, sink) = (x.values.clone(), self.sink.clone());
        let is_rectified = follows.is_some();
        let back = move |y: &Values<Vector<A>>, g: &mut Vector<A>| {
            let mut dx = None;
            sink.fill([&weight, &bias], |[mut of_weight, mut of_bias]| {
                let y = is_rectified.then_some(&y.buffer);
                let places = (&mut of_weight, &mut of_bias);
                dx = Some(norm::normalise_backward(&input.buffer, y, g, &moments, weight.part(), places)?);
                Ok(())
            })?;
            input.add_gradient(dx.expect("it was computed")).0
        };
        self.followed(name, x, follows, y, back)
    }

    /// The result y of a layer of x and, where that follows, a shortcut, whose gradient is what is left of g.
    fn followed(
        &self,
        name: &'static str,
        x: &Flow<A>,
        follows: Option<Follows<&Flow<A>>>,
        y: Vector<A>,
        back: impl FnOnce(&Values<Vector<A>>, &mut Vector<A>) -> Result<(), GpuError> + Send + 'static,
    ) -> Computed<Flow<A>> {
        let Some(Follows::AddRelu(shortcut)) = follows else {
            return Ok(self.tape.of_one(name, x, x.dims(), y, || backward(move |y, mut g| back(y, &mut g)))?);
        };
        let other = shortcut.values.clone();
        let way = move |y: &Values<Vector<A>>, mut g: Vector<A>| {
            back(y, &mut g)?;
            other.add_gradient(g).0
        };
        Ok(self.tape.of_two(name, (x, shortcut), x.dims(), y, || backward(way))?)
    }

    /// `x W'` and the way back of x and W.
    fn product(&self, x: &Flow<A>, prefix: &str) -> Computed<Product<A>> {
        let [weight, bias] = self.affine(prefix)?;
        let y = linear::forward(&x.values.buffer, weight.part(), x.dims().channels)?;
        let dims = Dims { channels: bias.range.len(), ..x.dims() };
        Ok(Product { x: x.values.clone(), y, dims, weight, bias, sink: self.sink.clone() })
    }

    fn uploaded(&self, images: Images<'_>) -> Computed<(Vector<f32>, Dims)> {
        let ImageShape { channels, height, width } = images.shape;
        Ok((self.gpu.copied(images.values)?, Dims { images: images.count, height, width, channels }))
    }
}

/// A linear layer under way.
struct Product<A: Activation> {
    x: Arc<Values<Vector<A>>>,
    /// `x W'`.
    y: Vector<A>,
    dims: Dims,
    weight: Parameter<Vector<f32>>,
    bias: Parameter<Vector<f32>>,
    sink: Sink,
}

impl<A: Activation> Product<A> {
    /// Its result with the bias, and what is left for the way back.
    fn biased(self, then: Then<'_, A>) -> Computed<(Vector<A>, Back<A>)> {
        let y = pointwise::bias(&self.y, self.bias.part(), then)?;
        Ok((y, self.into_back()))
    }

    fn into_back(self) -> Back<A> {
        Back { x: self.x, weight: self.weight, bias: self.bias, sink: self.sink }
    }
}

/// The way back of a linear layer.
struct Back<A: Activation> {
    x: Arc<Values<Vector<A>>>,
    weight: Parameter<Vector<f32>>,
    bias: Parameter<Vector<f32>>,
    sink: Sink,
}

impl<A: Activation> Back<A> {
    /// From the gradient g of `x W' + b`.
    fn go(&self, g: &Vector<A>) -> Result<(), GpuError> {
        let outputs = self.bias.range.len();
        self.sink.fill([&self.weight, &self.bias], |[mut of_weight, mut of_bias]| {
            pointwise::bias_backward(g, &mut of_bias)?;
            linear::backward_weight(g, &self.x.buffer, outputs, &mut of_weight)
        })?;
        if self.x.wants_gradient {
            self.x.add_gradient(linear::backward_data(g, self.weight.part(), outputs)?).0?;
        }
        Ok(())
    }
}

/// A way back as the tape takes it.
fn backward<A: Activation>(
    way: impl FnOnce(&Values<Vector<A>>, Vector<A>) -> Result<(), GpuError> + Send + 'static,
) -> Backward<Vector<A>> {
    Box::new(move |y, g| Outcome(way(y, g)))
}

fn then<A: Activation>(follows: Option<Follows<&Flow<A>>>) -> Then<'_, A> {
    match follows {
        None => Then::Nothing,
        Some(Follows::Relu) => Then::Relu,
        Some(Follows::AddRelu(shortcut)) => Then::AddRelu(&shortcut.values.buffer),
    }
}

impl<A: Activation> Route for Course<'_, A> {
    type Value = Flow<A>;

    fn images(&self, images: Images<'_>) -> Computed<Flow<A>> {
        let (x, dims) = self.uploaded(images)?;
        Ok(self.tape.source(dims, shapes::channels_last(&x, dims)?)?)
    }

    fn flat_images(&self, images: Images<'_>) -> Computed<Flow<A>> {
        let dims = Dims::matrix(images.count, images.shape.values());
        Ok(self.tape.source(dims, A::from_f32(self.gpu.copied(images.values)?)?)?)
    }

    fn patches(&self, images: Images<'_>, patch: usize) -> Computed<Flow<A>> {
        let (x, dims) = self.uploaded(images)?;
        let Dims { images, height, width, channels } = dims;
        let tokens = (height / patch) * (width / patch);
        let rows = Dims { images, height: tokens, width: 1, channels: channels * patch * patch };
        Ok(self.tape.source(rows, shapes::patches(&x, dims, patch)?)?)
    }

    fn convolution(&self, x: &Flow<A>, prefix: &str, conv: Conv) -> Computed<Flow<A>> {
        let weight = self.parameters.get(prefix, "weight")?;
        let (&[outputs, inputs, kh, kw], Dims { images, height, width, .. }) = (&weight.shape[..], x.dims()) else {
            return Err(candle_core::Error::Msg(format!("{prefix}.weight is no weight of a convolution")).into());
        };
        let Conv { stride, padding } = conv;
        let shape = Shape { images, inputs, height, width, outputs, kernel: (kh, kw), stride, padding };
        let (height, width) = shape.output();
        let y = linear::convolution(&x.values.buffer, weight.part(), &shape)?;
        let (input, sink) = (x.values.clone(), self.sink.clone());
        let way = move |_: &Values<Vector<A>>, g: Vector<A>| {
            sink.fill([&weight], |[mut dw]| linear::convolution_weight(&input.buffer, &g, &shape, &mut dw))?;
            if input.wants_gradient {
                input.add_gradient(linear::convolution_data(&g, weight.part(), &shape)?).0?;
            }
            Ok(())
        };
        let dims = Dims { images, height, width, channels: outputs };
        Ok(self.tape.of_one("convolution", x, dims, y, || backward(way))?)
    }

    fn batch_norm(&self, x: &Flow<A>, prefix: &str, follows: Follows<&Flow<A>>) -> Computed<Flow<A>> {
        let moments = self.norms.moments(&self.gpu, &x.values.buffer, x.dims().channels, prefix)?;
        self.normalised("batch-norm", x, moments, prefix, Some(follows))
    }

    fn group_norm(&self, x: &Flow<A>, prefix: &str, follows: Follows<&Flow<A>>) -> Computed<Flow<A>> {
        let Dims { height, width, channels, .. } = x.dims();
        let over = Over::Group { area: height * width, groups: groups(channels) };
        let moments = norm::own_moments(&x.values.buffer, channels, over, BATCH_NORM_FLOOR)?;
        self.normalised("group-norm", x, moments, prefix, Some(follows))
    }

    fn bias(&self, x: &Flow<A>, prefix: &str, follows: Option<Follows<&Flow<A>>>) -> Computed<Flow<A>> {
        let bias = self.parameters.get(prefix, "bias")?;
        let y = pointwise::bias(&x.values.buffer, bias.part(), then(follows))?;
        let (input, sink) = (x.values.clone(), self.sink.clone());
        let is_rectified = follows.is_some();
        let back = move |y: &Values<Vector<A>>, g: &mut Vector<A>| {
            if is_rectified {
                pointwise::relu_backward(&y.buffer, g)?;
            }
            sink.fill([&bias], |[mut db]| pointwise::bias_backward(g, &mut db))?;
            input.add_gradient(g.duplicate()?).0
        };
        self.followed("bias", x, follows, y, back)
    }

    fn relu(&self, x: &Flow<A>) -> Computed<Flow<A>> {
        let y = pointwise::relu(&x.values.buffer)?;
        let input = x.values.clone();
        let way = move |y: &Values<Vector<A>>, mut g: Vector<A>| {
            pointwise::relu_backward(&y.buffer, &mut g)?;
            input.add_gradient(g).0
        };
        Ok(self.tape.of_one("relu", x, x.dims(), y, || backward(way))?)
    }

    fn subsample_and_pad(&self, x: &Flow<A>, stride: usize, added: usize) -> Computed<Flow<A>> {
        let kernel = Subsample { dims: x.dims(), stride, added };
        let y = kernel.forward(&x.values.buffer)?;
        let input = x.values.clone();
        let way = move |_: &Values<Vector<A>>, g: Vector<A>| input.add_gradient(kernel.backward(&g)?).0;
        Ok(self.tape.of_one("subsample", x, kernel.output(), y, || backward(way))?)
    }

    fn global_average(&self, x: &Flow<A>) -> Computed<Flow<A>> {
        let dims = x.dims();
        let y = shapes::average(&x.values.buffer, dims)?;
        let input = x.values.clone();
        let way = move |_: &Values<Vector<A>>, g: Vector<A>| input.add_gradient(shapes::average_backward(&g, dims)?).0;
        Ok(self.tape.of_one("average", x, Dims::matrix(dims.images, dims.channels), y, || backward(way))?)
    }

    fn linear(&self, x: &Flow<A>, prefix: &str) -> Computed<Flow<A>> {
        let product = self.product(x, prefix)?;
        let dims = product.dims;
        let (y, back) = product.biased(Then::Nothing)?;
        Ok(self.tape.of_one("linear", x, dims, y, || backward(move |_, g| back.go(&g)))?)
    }

    fn linear_relu(&self, x: &Flow<A>, prefix: &str) -> Computed<Flow<A>> {
        let product = self.product(x, prefix)?;
        let dims = product.dims;
        let (y, back) = product.biased(Then::Relu)?;
        let way = move |y: &Values<Vector<A>>, mut g: Vector<A>| {
            pointwise::relu_backward(&y.buffer, &mut g)?;
            back.go(&g)
        };
        Ok(self.tape.of_one("linear-relu", x, dims, y, || backward(way))?)
    }

    fn linear_gelu(&self, x: &Flow<A>, prefix: &str) -> Computed<Flow<A>> {
        let product = self.product(x, prefix)?;
        let dims = product.dims;
        let (y, slopes) = pointwise::bias_gelu(&product.y, product.bias.part())?;
        let back = product.into_back();
        let way = move |_: &Values<Vector<A>>, mut g: Vector<A>| {
            pointwise::multiply(&mut g, &slopes)?;
            back.go(&g)
        };
        Ok(self.tape.of_one("linear-gelu", x, dims, y, || backward(way))?)
    }

    fn add_linear(&self, residual: &Flow<A>, x: &Flow<A>, prefix: &str) -> Computed<Flow<A>> {
        self.add(residual, &self.linear(x, prefix)?)
    }

    fn add(&self, a: &Flow<A>, b: &Flow<A>) -> Computed<Flow<A>> {
        let y = pointwise::add(&a.values.buffer, &b.values.buffer)?;
        let (first, second) = (a.values.clone(), b.values.clone());
        let way = move |_: &Values<Vector<A>>, g: Vector<A>| {
            first.add_gradient(g.duplicate()?).0?;
            second.add_gradient(g).0
        };
        Ok(self.tape.of_two("add", (a, b), a.dims(), y, || backward(way))?)
    }

    fn layer_norm(&self, x: &Flow<A>, prefix: &str) -> Computed<Flow<A>> {
        let moments = norm::own_moments(&x.values.buffer, x.dims().channels, Over::Row, LAYER_NORM_FLOOR)?;
        self.normalised("layer-norm", x, moments, prefix, None)
    }

    fn attention(&self, qkv: &Flow<A>, heads: usize) -> Computed<Flow<A>> {
        let Dims { images, height: tokens, channels, .. } = qkv.dims();
        let dim = channels / 3;
        let kernel = Attention { images, tokens, heads, width: dim / heads };
        let (y, kept) = kernel.forward(&qkv.values.buffer)?;
        let input = qkv.values.clone();
        let way = move |_: &Values<Vector<A>>, g: Vector<A>| input.add_gradient(kernel.backward(&kept, &g)?).0;
        Ok(self.tape.of_one("attention", qkv, Dims { channels: dim, ..qkv.dims() }, y, || backward(way))?)
    }

    fn with_class_and_positions(&self, x: &Flow<A>) -> Computed<Flow<A>> {
        let (class, positions) = (self.parameters.get("", "cls_token")?, self.parameters.get("", "pos_embed")?);
        let Dims { images, height: tokens, channels: dim, .. } = x.dims();
        let y = shapes::with_class(&x.values.buffer, class.part(), positions.part())?;
        let (input, sink) = (x.values.clone(), self.sink.clone());
        let way = move |_: &Values<Vector<A>>, g: Vector<A>| {
            let mut dx = None;
            sink.fill([&class, &positions], |[mut of_class, mut of_positions]| {
                dx = Some(shapes::with_class_backward(&g, dim, &mut of_class, &mut of_positions)?);
                Ok(())
            })?;
            input.add_gradient(dx.expect("it was computed")).0
        };
        let dims = Dims { images, height: tokens + 1, width: 1, channels: dim };
        Ok(self.tape.of_one("class-and-positions", x, dims, y, || backward(way))?)
    }

    fn first_row(&self, x: &Flow<A>) -> Computed<Flow<A>> {
        let Dims { images, height: tokens, channels: dim, .. } = x.dims();
        let y = shapes::first_row(&x.values.buffer, tokens, dim)?;
        let input = x.values.clone();
        let way = move |_: &Values<Vector<A>>, g: Vector<A>| {
            input.add_gradient(shapes::first_row_backward(&g, tokens, dim)?).0
        };
        Ok(self.tape.of_one("first-row", x, Dims::matrix(images, dim), y, || backward(way))?)
    }
}
