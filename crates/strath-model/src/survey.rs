//! What a pass has to compute, layer by layer: for peaks and predictions.

use std::cell::RefCell;

use strath_core::Layout;
use strath_kernels::conv;

use crate::error::{Computed, ModelError};
use crate::flow::Dims;
use crate::route::{Conv, Follows, Images, Route};

/// The products of one layer, which are nearly all of its arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Work {
    /// A convolution.
    Convolution {
        /// Its shape.
        shape: conv::Shape,
        /// Whether its input wants a gradient.
        wants_gradient: bool,
    },
    /// `batch` matrix products [rows, inner] by [inner, columns].
    Product {
        /// How many.
        batch: usize,
        /// Rows of the result.
        rows: usize,
        /// Terms of each sum.
        inner: usize,
        /// Columns of the result.
        columns: usize,
        /// Whether its input wants a gradient.
        wants_gradient: bool,
    },
}

impl Work {
    /// Multiplications and additions of one of its products: the forward, or either backward.
    pub fn flops(&self) -> f64 {
        match self {
            Self::Convolution { shape, .. } => shape.flops(),
            Self::Product { batch, rows, inner, columns, .. } => 2.0 * (batch * rows * inner) as f64 * *columns as f64,
        }
    }

    /// Of a forward and a backward pass: the gradients of the input and of the weights cost a forward each.
    pub fn pass_flops(&self) -> f64 {
        let (Self::Convolution { wants_gradient, .. } | Self::Product { wants_gradient, .. }) = self;
        self.flops() * if *wants_gradient { 3.0 } else { 2.0 }
    }
}

/// A route that computes nothing and notes what would have been.
pub(crate) struct Survey<'a> {
    layout: &'a Layout,
    work: RefCell<Vec<Work>>,
}

/// The shape of an activation, and whether it would want a gradient.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shaped {
    dims: Dims,
    wants_gradient: bool,
}

impl<'a> Survey<'a> {
    pub(crate) fn new(layout: &'a Layout) -> Self {
        Self { layout, work: RefCell::default() }
    }

    pub(crate) fn into_work(self) -> Vec<Work> {
        self.work.into_inner()
    }

    fn shape(&self, prefix: &str) -> Computed<&[usize]> {
        let name = format!("{prefix}.weight");
        self.layout.get(&name).map(|entry| &entry.shape[..]).ok_or(ModelError::NoGradient { name })
    }

    fn note(&self, work: Work) {
        self.work.borrow_mut().push(work);
    }
}

fn source(dims: Dims) -> Shaped {
    Shaped { dims, wants_gradient: false }
}

fn made(dims: Dims) -> Shaped {
    Shaped { dims, wants_gradient: true }
}

impl Route for Survey<'_> {
    type Value = Shaped;

    fn images(&self, images: Images<'_>) -> Computed<Shaped> {
        let strath_core::ImageShape { channels, height, width } = images.shape;
        Ok(source(Dims { images: images.count, height, width, channels }))
    }

    fn flat_images(&self, images: Images<'_>) -> Computed<Shaped> {
        Ok(source(Dims::matrix(images.count, images.shape.values())))
    }

    fn patches(&self, images: Images<'_>, patch: usize) -> Computed<Shaped> {
        let strath_core::ImageShape { channels, height, width } = images.shape;
        let patches = (height / patch) * (width / patch);
        let channels = channels * patch * patch;
        Ok(source(Dims { images: images.count, height: patches, width: 1, channels }))
    }

    fn convolution(&self, x: &Shaped, prefix: &str, conv: Conv) -> Computed<Shaped> {
        let &[outputs, inputs, kh, kw] = self.shape(prefix)? else {
            return Err(ModelError::NoGradient { name: format!("{prefix}.weight") });
        };
        let (Dims { images, height, width, .. }, Conv { stride, padding }) = (x.dims, conv);
        let shape = conv::Shape { images, inputs, height, width, outputs, kernel: (kh, kw), stride, padding };
        self.note(Work::Convolution { shape, wants_gradient: x.wants_gradient });
        let (height, width) = shape.output();
        Ok(made(Dims { images, height, width, channels: outputs }))
    }

    fn batch_norm(&self, x: &Shaped, _: &str, _: Follows<&Shaped>) -> Computed<Shaped> {
        Ok(made(x.dims))
    }

    fn group_norm(&self, x: &Shaped, _: &str, _: Follows<&Shaped>) -> Computed<Shaped> {
        Ok(made(x.dims))
    }

    fn bias(&self, x: &Shaped, _: &str, _: Option<Follows<&Shaped>>) -> Computed<Shaped> {
        Ok(made(x.dims))
    }

    fn relu(&self, x: &Shaped) -> Computed<Shaped> {
        Ok(made(x.dims))
    }

    fn subsample_and_pad(&self, x: &Shaped, stride: usize, added: usize) -> Computed<Shaped> {
        let Dims { images, height, width, channels } = x.dims;
        let (height, width) = (height.div_ceil(stride), width.div_ceil(stride));
        Ok(made(Dims { images, height, width, channels: channels + added }))
    }

    fn global_average(&self, x: &Shaped) -> Computed<Shaped> {
        Ok(made(Dims::matrix(x.dims.images, x.dims.channels)))
    }

    fn linear(&self, x: &Shaped, prefix: &str) -> Computed<Shaped> {
        let columns = self.shape(prefix)?[0];
        let (rows, inner) = (x.dims.rows(), x.dims.channels);
        self.note(Work::Product { batch: 1, rows, inner, columns, wants_gradient: x.wants_gradient });
        Ok(made(Dims { channels: columns, ..x.dims }))
    }

    fn linear_relu(&self, x: &Shaped, prefix: &str) -> Computed<Shaped> {
        self.linear(x, prefix)
    }

    fn linear_gelu(&self, x: &Shaped, prefix: &str) -> Computed<Shaped> {
        self.linear(x, prefix)
    }

    fn add_linear(&self, _: &Shaped, x: &Shaped, prefix: &str) -> Computed<Shaped> {
        self.linear(x, prefix)
    }

    fn add(&self, a: &Shaped, _: &Shaped) -> Computed<Shaped> {
        Ok(made(a.dims))
    }

    fn layer_norm(&self, x: &Shaped, _: &str) -> Computed<Shaped> {
        Ok(made(x.dims))
    }

    fn attention(&self, qkv: &Shaped, heads: usize) -> Computed<Shaped> {
        let Dims { images, height: tokens, channels, .. } = qkv.dims;
        let (dim, batch) = (channels / 3, images * heads);
        let width = dim / heads;
        self.note(Work::Product { batch, rows: tokens, inner: width, columns: tokens, wants_gradient: true });
        self.note(Work::Product { batch, rows: tokens, inner: tokens, columns: width, wants_gradient: true });
        Ok(made(Dims { channels: dim, ..qkv.dims }))
    }

    fn with_class_and_positions(&self, x: &Shaped) -> Computed<Shaped> {
        Ok(made(Dims { height: x.dims.height + 1, ..x.dims }))
    }

    fn first_row(&self, x: &Shaped) -> Computed<Shaped> {
        Ok(made(Dims::matrix(x.dims.images, x.dims.channels)))
    }
}

#[cfg(test)]
mod tests {
    use strath_core::ImageShape;
    use strath_core::config::{ModelKind, NormLayer};
    use strath_kernels::conv::Method;

    use crate::Model;

    #[test]
    fn a_resnet_20_has_the_arithmetic_of_its_paper() {
        let shape = ImageShape { channels: 3, height: 32, width: 32 };
        let model =
            Model::build(&ModelKind::ResNet { depth: 20, skip: true, norm: NormLayer::Batch }, shape, 10, Method::Auto)
                .unwrap();
        let work = model.work(1).unwrap();
        assert_eq!(work.len(), 20);
        // 40.6 million multiply-adds a CIFAR image (He et al. 2016 give 0.27 M parameters; the count follows from the shapes).
        let forward: f64 = work.iter().map(super::Work::flops).sum();
        assert!((forward / 2.0 / 40.55e6 - 1.0).abs() < 0.01, "{forward}");
        let pass: f64 = work.iter().map(super::Work::pass_flops).sum();
        let stem = work[0].flops();
        assert!((pass - (3.0 * forward - stem)).abs() < 1.0, "the images want no gradient");
    }
}
