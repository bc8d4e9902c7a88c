//! Convolutions by cuDNN: for each shape and side a deterministic algorithm, chosen once, and its workspace.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};

use cudarc::cudnn::{result as dnn, sys as dnn_sys};
use cudarc::driver::{result as driver, sys};
use dnn_sys::cudnnDataType_t::{CUDNN_DATA_BFLOAT16 as BFLOAT16, CUDNN_DATA_FLOAT as FLOAT};
use dnn_sys::cudnnTensorFormat_t::CUDNN_TENSOR_NHWC as NHWC;

use strath_core::config::Compute;
use strath_kernels::conv::Shape;

use super::{allocated, failed};
use crate::driver::{Convolution, Number, Side};
use crate::error::GpuError;

/// A plan may use so many bytes beside its tensors.
const MOST_WORKSPACE: usize = 1 << 30;
/// Algorithms that cuDNN is asked for.
const ASKED: usize = 16;

/// cuDNN, and what was planned so far.
pub(super) struct Convolutions {
    handle: dnn_sys::cudnnHandle_t,
    compute: Compute,
    plans: BTreeMap<Key, Plan>,
    workspace: Option<(sys::CUdeviceptr, usize)>,
    stream: sys::CUstream,
}

/// Numbers, a shape and a side, in an order.
type Key = (Number, [usize; 9], u8);

#[derive(Clone, Copy)]
enum Algorithm {
    Forward(dnn_sys::cudnnConvolutionFwdAlgo_t),
    Images(dnn_sys::cudnnConvolutionBwdDataAlgo_t),
    Weights(dnn_sys::cudnnConvolutionBwdFilterAlgo_t),
}

#[derive(Clone, Copy)]
struct Plan {
    x: dnn_sys::cudnnTensorDescriptor_t,
    y: dnn_sys::cudnnTensorDescriptor_t,
    w: dnn_sys::cudnnFilterDescriptor_t,
    layer: dnn_sys::cudnnConvolutionDescriptor_t,
    algorithm: Algorithm,
    workspace: usize,
}

fn key(Convolution { of, shape, side }: Convolution) -> Key {
    let Shape { images, inputs, height, width, outputs, kernel: (kh, kw), stride, padding } = shape;
    (of, [images, inputs, height, width, outputs, kh, kw, stride, padding], side as u8)
}

impl Convolutions {
    /// cuDNN on a stream of the current context.
    ///
    /// # Safety
    /// The stream lives at least as long.
    pub(super) unsafe fn new(stream: sys::CUstream, compute: Compute) -> Result<Self, GpuError> {
        let handle = dnn::create_handle().map_err(failed("begin cuDNN"))?;
        // SAFETY: as this function's.
        unsafe { dnn::set_stream(handle, stream.cast()) }.map_err(failed("begin cuDNN"))?;
        Ok(Self { handle, compute, plans: BTreeMap::new(), workspace: None, stream })
    }

    /// Gives everything back.
    ///
    /// # Safety
    /// Nothing is under way, the context is current, and nothing is asked afterwards.
    pub(super) unsafe fn end(&mut self) {
        for plan in std::mem::take(&mut self.plans).into_values() {
            // SAFETY: as this function's. What fails while the process tidies up is nobody's concern.
            unsafe {
                let _ = dnn::destroy_tensor_descriptor(plan.x);
                let _ = dnn::destroy_tensor_descriptor(plan.y);
                let _ = dnn::destroy_filter_descriptor(plan.w);
                let _ = dnn::destroy_convolution_descriptor(plan.layer);
            }
        }
        // SAFETY: as above.
        unsafe {
            if let Some((at, _)) = self.workspace.take() {
                let _ = driver::free_sync(at);
            }
            let _ = dnn::destroy_handle(self.handle);
        }
    }

    /// One of a convolution's products.
    ///
    /// # Safety
    /// The context is current, and the addresses are of memory of the shape's lengths.
    pub(super) unsafe fn run(
        &mut self,
        product: &Convolution,
        first: u64,
        second: u64,
        out: u64,
    ) -> Result<(), GpuError> {
        // SAFETY: as this function's.
        let plan = unsafe { self.plan(product)? };
        let workspace = self.room(plan.workspace)?;
        let (one, zero) = (1.0f32, 0.0f32);
        let (one, zero) = (std::ptr::from_ref(&one).cast(), std::ptr::from_ref(&zero).cast());
        let (a, b, c, room) =
            (first as *const c_void, second as *const c_void, out as *mut c_void, workspace as *mut c_void);
        let Plan { x, y, w, layer, algorithm, workspace } = plan;
        // SAFETY: as this function's; the workspace is as long as the plan says.
        unsafe {
            match algorithm {
                Algorithm::Forward(algorithm) => dnn::convolution_forward(
                    self.handle,
                    one,
                    x,
                    a,
                    w,
                    b,
                    layer,
                    algorithm,
                    room,
                    workspace,
                    zero,
                    y,
                    c,
                ),
                Algorithm::Images(algorithm) => dnn::convolution_backward_data(
                    self.handle,
                    one,
                    w,
                    b,
                    y,
                    a,
                    layer,
                    algorithm,
                    room,
                    workspace,
                    zero,
                    x,
                    c,
                ),
                Algorithm::Weights(algorithm) => dnn::convolution_backward_filter(
                    self.handle,
                    one,
                    x,
                    a,
                    y,
                    b,
                    layer,
                    algorithm,
                    room,
                    workspace,
                    zero,
                    w,
                    c,
                ),
            }
        }
        .map_err(|error| GpuError::failed("convolve", format!("{product:?}: {error:?}")))
    }

    /// Memory for a workspace: the largest so far, as one runs after the other.
    fn room(&mut self, bytes: usize) -> Result<sys::CUdeviceptr, GpuError> {
        match self.workspace {
            _ if bytes == 0 => return Ok(0),
            Some((at, have)) if have >= bytes => return Ok(at),
            Some((at, _)) => {
                // SAFETY: what uses the old one is through before it goes.
                unsafe {
                    driver::stream::synchronize(self.stream).map_err(failed("finish what it was asked"))?;
                    driver::free_sync(at).map_err(failed("take memory back"))?;
                }
                self.workspace = None;
            }
            None => {}
        }
        // SAFETY: whoever asks for a convolution has made the context current.
        let at = unsafe { allocated(bytes)? };
        self.workspace = Some((at, bytes));
        Ok(at)
    }

    /// The plan of a shape and side.
    ///
    /// # Safety
    /// The context is current.
    unsafe fn plan(&mut self, product: &Convolution) -> Result<Plan, GpuError> {
        let Convolution { of, shape, side } = *product;
        if let Some(plan) = self.plans.get(&key(*product)) {
            return Ok(*plan);
        }
        let doing = failed("plan a convolution");
        let Shape { images, inputs, height, width, outputs, kernel: (kh, kw), stride, padding } = shape;
        let (oh, ow) = shape.output();
        let int = |n: usize| n as c_int;
        let f32_alone = of == Number::F32 && self.compute != Compute::Tf32;
        let math = if f32_alone {
            dnn_sys::cudnnMathType_t::CUDNN_FMA_MATH
        } else {
            dnn_sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH
        };
        let number = match of {
            Number::F32 => FLOAT,
            Number::Bf16 => BFLOAT16,
        };
        // SAFETY: each descriptor is made, then set; where one fails the process has a device that it cannot use, and ends.
        let (x, y, w, layer) = unsafe {
            let x = dnn::create_tensor_descriptor().map_err(&doing)?;
            dnn::set_tensor4d_descriptor(x, NHWC, number, [images, inputs, height, width].map(int)).map_err(&doing)?;
            let y = dnn::create_tensor_descriptor().map_err(&doing)?;
            dnn::set_tensor4d_descriptor(y, NHWC, number, [images, outputs, oh, ow].map(int)).map_err(&doing)?;
            let w = dnn::create_filter_descriptor().map_err(&doing)?;
            dnn::set_filter4d_descriptor(w, number, NHWC, [outputs, inputs, kh, kw].map(int)).map_err(&doing)?;
            let layer = dnn::create_convolution_descriptor().map_err(&doing)?;
            let (pad, step) = (int(padding), int(stride));
            let mode = dnn_sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION;
            dnn::set_convolution2d_descriptor(layer, pad, pad, step, step, 1, 1, mode, FLOAT).map_err(&doing)?;
            dnn::set_convolution_math_type(layer, math).map_err(&doing)?;
            (x, y, w, layer)
        };
        let none = || {
            let cause = format!("cuDNN has no deterministic algorithm for {side:?} of {shape:?}");
            GpuError::failed("plan a convolution", cause)
        };
        // Of what cuDNN suggests, best first, the first that is deterministic, computes in what is asked for, runs and has room. The three kinds of suggestions have the same fields.
        macro_rules! plan {
            ($algorithm:ident, $suggestion:ident, $ask:ident($first:ident, $second:ident, $out:ident)) => {{
                let (mut suggested, mut count): ([dnn_sys::$suggestion; ASKED], _) = (std::mem::zeroed(), 0);
                let room = suggested.as_mut_ptr();
                dnn::$ask(self.handle, $first, $second, layer, $out, int(ASKED), &raw mut count, room)
                    .map_err(&doing)?;
                let serves = |found: &&dnn_sys::$suggestion| {
                    found.status == dnn_sys::cudnnStatus_t::CUDNN_STATUS_SUCCESS
                        && found.determinism == dnn_sys::cudnnDeterminism_t::CUDNN_DETERMINISTIC
                        && (!f32_alone || found.mathType == dnn_sys::cudnnMathType_t::CUDNN_FMA_MATH)
                        && found.memory <= MOST_WORKSPACE
                };
                let found = suggested[..count as usize].iter().find(serves).ok_or_else(none)?;
                dnn::set_convolution_math_type(layer, found.mathType).map_err(&doing)?;
                (Algorithm::$algorithm(found.algo), found.memory)
            }};
        }
        // SAFETY: the descriptors are those made above, and as many suggestions have room as are asked for.
        let (algorithm, workspace) = unsafe {
            match side {
                Side::Forward => {
                    plan!(Forward, cudnnConvolutionFwdAlgoPerf_t, get_convolution_forward_algorithm(x, w, y))
                }
                Side::Images => {
                    plan!(Images, cudnnConvolutionBwdDataAlgoPerf_t, get_convolution_backward_data_algorithm(w, y, x))
                }
                Side::Weights => plan!(
                    Weights,
                    cudnnConvolutionBwdFilterAlgoPerf_t,
                    get_convolution_backward_filter_algorithm(x, y, w)
                ),
            }
        };
        let plan = Plan { x, y, w, layer, algorithm, workspace };
        self.plans.insert(key(*product), plan);
        Ok(plan)
    }
}
