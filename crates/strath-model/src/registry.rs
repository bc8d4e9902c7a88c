//! From `model.kind` and `model.convolution` to a network and its kernels.

use strath_core::ImageShape;
use strath_core::config::{Convolution, ModelKind};
use strath_kernels::conv::Method;

use crate::convnet::ConvNet;
use crate::error::{Computed, ModelError};
use crate::init::Declarations;
use crate::mlp::Mlp;
use crate::normaliser::Normaliser;
use crate::resnet::ResNet;
use crate::route::{Images, Route};
use crate::vit::{Options, ViT};
use crate::wide_resnet::WideResNet;

/// The kernels that `model.convolution` asks for.
pub fn convolution_method(asked: Convolution) -> Method {
    match asked {
        Convolution::Auto => Method::Auto,
        Convolution::Winograd => Method::Winograd,
        Convolution::Direct => Method::Direct,
    }
}

/// One of the built-in networks.
#[derive(Debug, Clone)]
pub(crate) enum Network {
    Mlp(Mlp),
    ConvNet(ConvNet),
    ResNet(ResNet),
    WideResNet(WideResNet),
    ViT(ViT),
}

impl Network {
    /// The network of a kind, its tensors declared on the way.
    pub(crate) fn build(
        kind: &ModelKind,
        shape: ImageShape,
        classes: usize,
        tensors: &mut Declarations,
    ) -> Result<Self, ModelError> {
        Ok(match *kind {
            ModelKind::Mlp { ref hidden } => Self::Mlp(Mlp::new(hidden, shape, classes, tensors)),
            ModelKind::ConvNet { ref widths, norm } => {
                Self::ConvNet(ConvNet::new(widths, Normaliser(norm), shape, classes, tensors))
            }
            ModelKind::ResNet { depth, skip, norm } => {
                Self::ResNet(ResNet::new(depth, skip, Normaliser(norm), shape, classes, tensors)?)
            }
            ModelKind::WideResNet { depth, widen, norm } => {
                Self::WideResNet(WideResNet::new(depth, widen, Normaliser(norm), shape, classes, tensors)?)
            }
            ModelKind::ViT { patch, dim, depth, heads, mlp_ratio } => {
                let options = Options { patch, dim, depth, heads, mlp_ratio };
                Self::ViT(ViT::new(options, shape, classes, tensors)?)
            }
        })
    }

    /// Images [N, C, H, W] to logits [N, classes].
    pub(crate) fn forward<R: Route>(&self, images: Images<'_>, route: &R) -> Computed<R::Value> {
        match self {
            Self::Mlp(network) => network.forward(images, route),
            Self::ConvNet(network) => network.forward(images, route),
            Self::ResNet(network) => network.forward(images, route),
            Self::WideResNet(network) => network.forward(images, route),
            Self::ViT(network) => network.forward(images, route),
        }
    }
}
