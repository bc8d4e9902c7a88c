//! What AVX-512 computes, in plain Rust, so that code for 16 lanes is tested where no processor has it.

use super::simd::Simd;

/// Sixteen floats.
#[derive(Clone, Copy)]
pub(super) struct Sixteen([f32; 16]);

impl Sixteen {
    fn each(self, other: Self, of: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|k| of(self.0[k], other.0[k])))
    }
}

// SAFETY: the trait's: pointers hold what the functions touch.
#[allow(unsafe_code, reason = "the trait's pointers")]
impl Simd for Sixteen {
    const LANES: usize = 16;
    type Mask = bool;
    unsafe fn splat(value: f32) -> Self {
        Self([value; 16])
    }
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { from.cast::<[f32; 16]>().read() })
    }
    unsafe fn store(self, to: *mut f32) {
        unsafe { to.cast::<[f32; 16]>().write(self.0) }
    }
    unsafe fn mask(on: bool) -> bool {
        on
    }
    unsafe fn gather(from: *const f32, stride: usize) -> Self {
        Self(std::array::from_fn(|k| unsafe { *from.add(k * stride) }))
    }
    unsafe fn load_if(mask: bool, from: *const f32) -> Self {
        if mask { unsafe { Self::load(from) } } else { Self([0.0; 16]) }
    }
    unsafe fn add(self, other: Self) -> Self {
        self.each(other, |a, b| a + b)
    }
    unsafe fn sub(self, other: Self) -> Self {
        self.each(other, |a, b| a - b)
    }
    unsafe fn mul(self, other: Self) -> Self {
        self.each(other, |a, b| a * b)
    }
    unsafe fn plus(self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|k| a.0[k].mul_add(b.0[k], self.0[k])))
    }
    unsafe fn minus(self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|k| (-a.0[k]).mul_add(b.0[k], self.0[k])))
    }
}
