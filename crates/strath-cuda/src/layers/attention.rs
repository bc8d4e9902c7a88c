//! Softmax attention over several heads.

#![allow(unsafe_code, reason = "launches of kernels, whose vectors' lengths are compared before")]

use crate::activation::Activation;
use crate::driver::{Product, Products};
use crate::error::GpuError;
use crate::gpu::{Argument as Arg, Gpu, Grid};
use crate::vector::{Part, PartMut, Vector};

/// The shape of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attention {
    /// Images.
    pub images: usize,
    /// Tokens of an image, T.
    pub tokens: usize,
    /// Heads.
    pub heads: usize,
    /// Channels of a head.
    pub width: usize,
}

/// What the way back needs.
#[derive(Debug)]
pub struct Kept<A: Activation> {
    /// Queries, keys and values, [3, N, heads, T, width].
    qkv: Vector<A>,
    /// Softmax's weights, [N, heads, T, T].
    weights: Vector<A>,
}

impl Attention {
    fn dim(&self) -> usize {
        self.heads * self.width
    }

    /// Values of [N, heads, T, width].
    fn values(&self) -> usize {
        self.images * self.tokens * self.dim()
    }

    fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    /// For each image and head.
    fn products(&self, rows: usize, columns: usize, inner: usize, transposed: (bool, bool)) -> Products {
        let (transposed_a, transposed_b) = transposed;
        let product = Product { rows, columns, inner, transposed_a, transposed_b, adds: false };
        Products { product, count: self.images * self.heads }
    }

    fn split<A: Activation>(&self, x: &Vector<A>) -> Result<Vector<A>, GpuError> {
        let gpu = x.gpu();
        let mut y = gpu.stale::<A>(x.len())?;
        let shape = [self.tokens, self.heads, self.width].map(|size| Arg::Int(size as i32));
        let [tokens, heads, width] = shape;
        let arguments = [x.all().address(), y.all_mut().address(), tokens, heads, width, Arg::Long(x.len() as i64)];
        // SAFETY: the same values in another order.
        unsafe { gpu.launch_of::<A>("split_heads", Grid::Elements(x.len()), arguments)? };
        Ok(y)
    }

    /// [parts, N, heads, T, width] as [N, T, parts, heads, width].
    fn join<A: Activation>(&self, y: &Vector<A>, parts: usize) -> Result<Vector<A>, GpuError> {
        let gpu = y.gpu();
        let mut x = gpu.stale(y.len())?;
        let [parts, tokens, heads, width] =
            [parts, self.tokens, self.heads, self.width].map(|size| Arg::Int(size as i32));
        let arguments =
            [y.all().address(), x.all_mut().address(), parts, tokens, heads, width, Arg::Long(y.len() as i64)];
        // SAFETY: the same values in another order.
        unsafe { gpu.launch_of::<A>("join_heads", Grid::Elements(y.len()), arguments)? };
        Ok(x)
    }

    fn softmax<A: Activation>(&self, gpu: &Gpu, scores: &mut Vector<A>) -> Result<(), GpuError> {
        let arguments = [scores.all_mut().address(), Arg::Float(self.scale()), Arg::Int(self.tokens as i32)];
        // SAFETY: a block a row of as many tokens.
        unsafe { gpu.launch_of::<A>("softmax", Grid::Blocks(self.images * self.heads * self.tokens, 1), arguments) }
    }

    /// Attention of queries, keys and values [N, T, 3 dim], [N, T, dim].
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// Where there are not as many values as the shape says.
    pub fn forward<A: Activation>(&self, qkv: &Vector<A>) -> Result<(Vector<A>, Kept<A>), GpuError> {
        assert_eq!(qkv.len(), 3 * self.values(), "{self:?}");
        let (gpu, len) = (qkv.gpu(), self.values());
        let (t, width) = (self.tokens, self.width);
        let qkv = self.split(qkv)?;
        let [q, k, v] = [0, 1, 2].map(|part| qkv.part(part * len..(part + 1) * len));
        let mut weights = gpu.stale::<A>(self.images * self.heads * t * t)?;
        gpu.products(self.products(t, t, width, (false, true)), q, k, &mut weights.all_mut())?; // q k'
        self.softmax(gpu, &mut weights)?;
        let mut y = gpu.stale::<A>(len)?;
        gpu.products(self.products(t, width, t, (false, false)), weights.all(), v, &mut y.all_mut())?;
        Ok((self.join(&y, 1)?, Kept { qkv, weights }))
    }

    /// The gradient of queries, keys and values from g [N, T, dim].
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// Where there are not as many values as the shape says.
    pub fn backward<A: Activation>(&self, kept: &Kept<A>, g: &Vector<A>) -> Result<Vector<A>, GpuError> {
        assert_eq!(g.len(), self.values(), "{self:?}");
        let (gpu, len) = (g.gpu(), self.values());
        let (t, width) = (self.tokens, self.width);
        let [q, k, v] = [0, 1, 2].map(|part| kept.qkv.part(part * len..(part + 1) * len));
        let g = self.of_heads(g)?;
        let mut gradient = gpu.stale::<A>(3 * len)?;
        let mut of_weights = gpu.stale::<A>(kept.weights.len())?;
        gpu.products(self.products(t, t, width, (false, true)), g.all(), v, &mut of_weights.all_mut())?; // g v'
        self.into(&mut gradient, 2, (t, width, t), (true, false), kept.weights.all(), g.all())?; // p' g
        let arguments = [
            kept.weights.all().address(),
            of_weights.all_mut().address(),
            Arg::Float(self.scale()),
            Arg::Int(t as i32),
        ];
        // SAFETY: a block a row of as many tokens.
        unsafe { gpu.launch_of::<A>("softmax_backward", Grid::Blocks(self.images * self.heads * t, 1), arguments)? };
        self.into(&mut gradient, 0, (t, width, t), (false, false), of_weights.all(), k)?; // ds k
        self.into(&mut gradient, 1, (t, width, t), (true, false), of_weights.all(), q)?; // ds' q
        self.join(&gradient, 3)
    }

    /// A product for each image and head into a part of a gradient.
    fn into<A: Activation>(
        &self,
        gradient: &mut Vector<A>,
        part: usize,
        (rows, columns, inner): (usize, usize, usize),
        transposed: (bool, bool),
        a: Part<'_, A>,
        b: Part<'_, A>,
    ) -> Result<(), GpuError> {
        let (gpu, len) = (gradient.gpu().clone(), self.values());
        let mut to: PartMut<'_, A> = gradient.part_mut(part * len..(part + 1) * len);
        gpu.products(self.products(rows, columns, inner, transposed), a, b, &mut to)
    }

    /// [N, T, heads, width] as [N, heads, T, width]: joining with heads and tokens in each other's place.
    fn of_heads<A: Activation>(&self, g: &Vector<A>) -> Result<Vector<A>, GpuError> {
        let turned = Self { tokens: self.heads, heads: self.tokens, ..*self };
        turned.join(g, 1)
    }
}
