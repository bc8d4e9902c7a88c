//! The route on candle tensors.

use candle_core::{Device, Tensor};
use strath_core::ImageShape;

use super::activation::{add_relu, gelu, relu, softmax};
use super::product::{Side, product};
use super::{channels, convolution, norm, pool, product, shortcut};
use crate::error::Computed;
use crate::pass::Pass;
use crate::route::{Conv, Follows, Images, Route};

fn tensor(images: Images<'_>) -> Computed<Tensor> {
    let ImageShape { channels, height, width } = images.shape;
    Ok(Tensor::from_slice(images.values, (images.count, channels, height, width), &Device::Cpu)?)
}

fn followed(y: &Tensor, follows: Follows<&Tensor>) -> candle_core::Result<Tensor> {
    match follows {
        Follows::Relu => relu(y),
        Follows::AddRelu(shortcut) => add_relu(shortcut, y),
    }
}

impl Route for Pass<'_> {
    type Value = Tensor;

    fn images(&self, images: Images<'_>) -> Computed<Tensor> {
        Ok(tensor(images)?.permute((0, 2, 3, 1))?.contiguous()?)
    }

    fn flat_images(&self, images: Images<'_>) -> Computed<Tensor> {
        Ok(tensor(images)?.flatten_from(1)?)
    }

    fn patches(&self, images: Images<'_>, patch: usize) -> Computed<Tensor> {
        let ImageShape { channels, height, width } = images.shape;
        let (count, rows, columns) = (images.count, height / patch, width / patch);
        let cut = tensor(images)?.reshape((count, channels, rows, patch, columns, patch))?;
        Ok(cut.permute((0, 2, 4, 1, 3, 5))?.reshape((count, rows * columns, channels * patch * patch))?)
    }

    fn convolution(&self, x: &Tensor, prefix: &str, conv: Conv) -> Computed<Tensor> {
        convolution::convolution(x, self, prefix, conv)
    }

    fn batch_norm(&self, x: &Tensor, prefix: &str, follows: Follows<&Tensor>) -> Computed<Tensor> {
        Ok(followed(&norm::batch_norm(x, self, prefix)?, follows)?)
    }

    fn group_norm(&self, x: &Tensor, prefix: &str, follows: Follows<&Tensor>) -> Computed<Tensor> {
        Ok(followed(&norm::group_norm(x, self, prefix)?, follows)?)
    }

    fn bias(&self, x: &Tensor, prefix: &str, follows: Option<Follows<&Tensor>>) -> Computed<Tensor> {
        let y = channels::shift(x, self.get(prefix, "bias")?)?;
        Ok(follows.map_or(Ok(y.clone()), |follows| followed(&y, follows))?)
    }

    fn relu(&self, x: &Tensor) -> Computed<Tensor> {
        Ok(relu(x)?)
    }

    fn subsample_and_pad(&self, x: &Tensor, stride: usize, added: usize) -> Computed<Tensor> {
        Ok(shortcut::subsample_and_pad(x, stride, added)?)
    }

    fn global_average(&self, x: &Tensor) -> Computed<Tensor> {
        Ok(pool::global_average(x)?)
    }

    fn linear(&self, x: &Tensor, prefix: &str) -> Computed<Tensor> {
        product::linear(x, self, prefix)
    }

    fn linear_relu(&self, x: &Tensor, prefix: &str) -> Computed<Tensor> {
        Ok(relu(&product::linear(x, self, prefix)?)?)
    }

    fn linear_gelu(&self, x: &Tensor, prefix: &str) -> Computed<Tensor> {
        Ok(gelu(&product::linear(x, self, prefix)?)?)
    }

    fn add_linear(&self, residual: &Tensor, x: &Tensor, prefix: &str) -> Computed<Tensor> {
        Ok((residual + product::linear(x, self, prefix)?)?)
    }

    fn add(&self, a: &Tensor, b: &Tensor) -> Computed<Tensor> {
        Ok((a + b)?)
    }

    fn layer_norm(&self, x: &Tensor, prefix: &str) -> Computed<Tensor> {
        norm::layer_norm(x, self, prefix)
    }

    fn attention(&self, qkv: &Tensor, heads: usize) -> Computed<Tensor> {
        let (images, tokens, channels) = qkv.dims3()?;
        let width = channels / 3 / heads;
        let qkv = qkv.reshape((images, tokens, 3, heads, width))?.permute((2, 0, 3, 1, 4))?;
        let part = |k: usize| qkv.narrow(0, k, 1)?.contiguous()?.reshape((images * heads, tokens, width));
        let (q, k, v) = (part(0)?, part(1)?, part(2)?); // [N heads, T, width]
        let logits = product((&q, Side::Plain), (&k, Side::Transposed))?;
        let weights = softmax(&(logits / (width as f64).sqrt())?)?; // [N heads, T, T]
        let y = product((&weights, Side::Plain), (&v, Side::Plain))?;
        let y = y.reshape((images, heads, tokens, width))?.transpose(1, 2)?.contiguous()?;
        Ok(y.reshape((images, tokens, heads * width))?)
    }

    fn with_class_and_positions(&self, x: &Tensor) -> Computed<Tensor> {
        let (images, _, dim) = x.dims3()?;
        let class = self.get("", "cls_token")?.broadcast_as((images, 1, dim))?;
        Ok(Tensor::cat(&[&class, x], 1)?.broadcast_add(self.get("", "pos_embed")?)?)
    }

    fn first_row(&self, x: &Tensor) -> Computed<Tensor> {
        Ok(x.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?)
    }
}
