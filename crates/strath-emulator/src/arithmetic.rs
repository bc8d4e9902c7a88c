//! What the libraries of a device compute: matrix products and convolutions, as plain sums in f64, rounded as the device rounds.

use strath_core::config::Compute;
use strath_cuda::{Convolution, Number, Numbers, Product, Products, Side, bf16};
use strath_kernels::conv::Shape;

/// The values at an address, in f64.
///
/// # Safety
/// So many of such numbers lie there, and nobody writes them meanwhile.
unsafe fn values(of: Number, at: u64, len: usize) -> Vec<f64> {
    // SAFETY: as this function's.
    unsafe {
        match of {
            Number::F32 => std::slice::from_raw_parts(at as *const f32, len).iter().map(|x| f64::from(*x)).collect(),
            Number::Bf16 => std::slice::from_raw_parts(at as *const bf16, len).iter().map(|x| x.to_f64()).collect(),
        }
    }
}

/// Puts values there, each rounded once.
///
/// # Safety
/// So many of such numbers have room there, and nobody else uses them meanwhile.
unsafe fn put(of: Number, at: u64, values: &[f64]) {
    // SAFETY: as this function's.
    unsafe {
        match of {
            Number::F32 => {
                let to = std::slice::from_raw_parts_mut(at as *mut f32, values.len());
                to.iter_mut().zip(values).for_each(|(to, value)| *to = *value as f32);
            }
            // By way of f32, in which a device sums.
            Number::Bf16 => {
                let to = std::slice::from_raw_parts_mut(at as *mut bf16, values.len());
                to.iter_mut().zip(values).for_each(|(to, value)| *to = bf16::from_f32(*value as f32));
            }
        }
    }
}

/// The nearest number of ten bits of mantissa, ties to even.
fn to_tf32(value: f64) -> f64 {
    let bits = (value as f32).to_bits();
    let rounded = bits.wrapping_add(0xfff + (bits >> 13 & 1)) & !0x1fff;
    if value.is_finite() { f64::from(f32::from_bits(rounded)) } else { value }
}

/// The factors of a product, as they are multiplied.
///
/// # Safety
/// As [`values`].
unsafe fn factors(compute: Compute, of: Number, at: u64, len: usize) -> Vec<f64> {
    // SAFETY: as this function's.
    let mut values = unsafe { values(of, at, len) };
    if compute == Compute::Tf32 {
        for value in &mut values {
            *value = to_tf32(*value);
        }
    }
    values
}

/// Matrix products, as [`Driver::products`](strath_cuda::Driver::products).
///
/// # Safety
/// As there.
pub(crate) unsafe fn products(compute: Compute, products: &Products, of: Numbers, a: u64, b: u64, c: u64) {
    let Products { product: Product { rows, columns, inner, transposed_a, transposed_b, adds }, count } = *products;
    // SAFETY: as this function's.
    let (a, b, mut sums) = unsafe {
        (
            factors(compute, of.factors, a, count * rows * inner),
            factors(compute, of.factors, b, count * inner * columns),
            if adds { values(of.result, c, count * rows * columns) } else { vec![0.0; count * rows * columns] },
        )
    };
    for product in 0..count {
        let (a, b) = (&a[product * rows * inner..], &b[product * inner * columns..]);
        for row in 0..rows {
            for column in 0..columns {
                let sum: f64 = (0..inner)
                    .map(|k| {
                        let a = a[if transposed_a { k * rows + row } else { row * inner + k }];
                        let b = b[if transposed_b { column * inner + k } else { k * columns + column }];
                        a * b
                    })
                    .sum();
                sums[(product * rows + row) * columns + column] += sum;
            }
        }
    }
    // SAFETY: as this function's.
    unsafe { put(of.result, c, &sums) };
}

/// A convolution's product, as [`Driver::convolution`](strath_cuda::Driver::convolution).
///
/// # Safety
/// As there.
pub(crate) unsafe fn convolution(compute: Compute, product: &Convolution, first: u64, second: u64, out: u64) {
    let Convolution { of, shape, side } = *product;
    let (first_len, second_len, out_len) = side.lengths(&shape);
    // SAFETY: as this function's.
    let (first, second) = unsafe { (factors(compute, of, first, first_len), factors(compute, of, second, second_len)) };
    let mut sums = vec![0.0f64; out_len];
    each_term(&shape, |x, w, y| {
        let (to, a, b) = match side {
            Side::Forward => (y, x, w),
            Side::Images => (x, y, w),
            Side::Weights => (w, x, y),
        };
        sums[to] += first[a] * second[b];
    });
    // SAFETY: as this function's.
    unsafe { put(of, out, &sums) };
}

/// Every product of a convolution, by the places of its image's value, its weight and its result.
fn each_term(shape: &Shape, mut term: impl FnMut(usize, usize, usize)) {
    let Shape { images, inputs, height, width, outputs, kernel: (kh, kw), stride, padding } = *shape;
    let (oh, ow) = shape.output();
    for (image, row, column) in (0..images).flat_map(|n| (0..oh).flat_map(move |r| (0..ow).map(move |c| (n, r, c)))) {
        for (dy, dx) in (0..kh).flat_map(|dy| (0..kw).map(move |dx| (dy, dx))) {
            let (y, x) = ((row * stride + dy).wrapping_sub(padding), (column * stride + dx).wrapping_sub(padding));
            if y >= height || x >= width {
                continue;
            }
            for (output, input) in (0..outputs).flat_map(|o| (0..inputs).map(move |i| (o, i))) {
                term(
                    ((image * height + y) * width + x) * inputs + input,
                    ((output * kh + dy) * kw + dx) * inputs + input,
                    ((image * oh + row) * ow + column) * outputs + output,
                );
            }
        }
    }
}
