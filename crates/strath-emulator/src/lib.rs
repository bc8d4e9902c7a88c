//! A device that is the processor: the same kernels, compiled by the machine's C++ compiler, on the host's memory.
//!
//! It shows whether indices, arithmetic and the shapes of launches are right, and nothing of speed, nor of races between blocks or between threads of one; products and convolutions are plain sums in f64.

#![allow(unsafe_code, reason = "code that was compiled a moment ago, on addresses of the host")]

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use libloading::Library;

use strath_cuda::{Driver, GpuError, Product, Products, Side, THREADS};
use strath_kernels::conv::Shape;

type Launch = unsafe extern "C" fn(*const c_char, c_uint, c_uint, c_uint, *mut *mut c_void) -> c_int;

/// The kernels, loaded when they are first asked for. The shim's threads are globals of it, so one launch runs at a time.
static KERNELS_OF_PROCESS: OnceLock<Result<(Library, Mutex<Launch>), GpuError>> = OnceLock::new();

/// The processor as a device.
pub struct Emulator {
    launch: &'static Mutex<Launch>,
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Emulator")
    }
}

impl Emulator {
    /// The processor as a device.
    ///
    /// # Errors
    /// [`GpuError`] where there was no C++ compiler when this was built.
    pub fn new() -> Result<Self, GpuError> {
        let kernels = KERNELS_OF_PROCESS.get_or_init(find).as_ref().map_err(Clone::clone)?;
        Ok(Self { launch: &kernels.1 })
    }

    /// The processor as a device, for a test: `None`, which is said, where it cannot be.
    ///
    /// # Panics
    /// With STRATH_REQUIRE_ALL in the environment, in place of `None`.
    pub fn or_skip() -> Option<Self> {
        match Self::new() {
            Ok(emulator) => Some(emulator),
            Err(error) if std::env::var_os("STRATH_REQUIRE_ALL").is_some() => panic!("{error}"),
            Err(error) => {
                eprintln!("skipped: {error}");
                None
            }
        }
    }
}

fn find() -> Result<(Library, Mutex<Launch>), GpuError> {
    let failed = |cause: &dyn fmt::Display| GpuError::failed("find kernels for the processor", cause);
    let missing = env!("STRATH_EMULATOR_MISSING");
    if !missing.is_empty() {
        return Err(failed(&format!("{missing}; install a C++ compiler, and build again")));
    }
    load(Path::new(env!("STRATH_EMULATOR_LIBRARY"))).map_err(|error| failed(&error))
}

fn load(path: &Path) -> Result<(Library, Mutex<Launch>), libloading::Error> {
    // SAFETY: it was compiled from the sources of this crate, and does nothing when it is loaded.
    unsafe {
        let library = Library::new(path)?;
        let launch: Launch = *library.get::<Launch>(b"strath_launch")?;
        Ok((library, Mutex::new(launch)))
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 256).expect("256 is a power of two, and no test asks for half of the address space")
}

/// The values at an address.
///
/// # Safety
/// So many lie there, and nobody writes them meanwhile.
unsafe fn values<'a>(at: u64, len: usize) -> &'a [f32] {
    // SAFETY: as this function's.
    unsafe { std::slice::from_raw_parts(at as *const f32, len) }
}

/// The same, to be written.
///
/// # Safety
/// So many lie there, and nobody else uses them meanwhile.
unsafe fn values_mut<'a>(at: u64, len: usize) -> &'a mut [f32] {
    // SAFETY: as this function's.
    unsafe { std::slice::from_raw_parts_mut(at as *mut f32, len) }
}

impl Driver for Emulator {
    fn name(&self) -> String {
        "emulated".into()
    }

    fn allocate(&self, bytes: usize) -> Result<u64, GpuError> {
        // SAFETY: vectors have at least 256 bytes.
        let at = unsafe { alloc(layout(bytes)) };
        if at.is_null() {
            return Err(GpuError::Memory { bytes });
        }
        // SAFETY: so many bytes were allocated. What is read before it is written is to be seen.
        unsafe { at.write_bytes(0xff, bytes) };
        Ok(at as u64)
    }

    unsafe fn release(&self, at: u64, bytes: usize) {
        // SAFETY: it was allocated so.
        unsafe { dealloc(at as *mut u8, layout(bytes)) };
    }

    unsafe fn upload(&self, from: &[u8], to: u64) -> Result<(), GpuError> {
        // SAFETY: as the trait's.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to as *mut u8, from.len()) };
        Ok(())
    }

    unsafe fn download(&self, from: u64, to: &mut [u8]) -> Result<(), GpuError> {
        // SAFETY: as the trait's.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    unsafe fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<(), GpuError> {
        // SAFETY: as the trait's.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    unsafe fn clear(&self, at: u64, bytes: usize) -> Result<(), GpuError> {
        // SAFETY: as the trait's.
        unsafe { (at as *mut u8).write_bytes(0, bytes) };
        Ok(())
    }

    unsafe fn launch(
        &self,
        kernel: &'static str,
        (x, y): (u32, u32),
        arguments: &mut [*mut c_void],
    ) -> Result<(), GpuError> {
        let name = CString::new(kernel).expect("names of kernels have no zeros");
        let launch = self.launch.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: as the trait's.
        match unsafe { launch(name.as_ptr(), x, y, THREADS, arguments.as_mut_ptr()) } {
            0 => Ok(()),
            _ => Err(GpuError::failed("launch a kernel", format!("src/table.h does not have {kernel}"))),
        }
    }

    unsafe fn products(&self, products: &Products, a: u64, b: u64, c: u64) -> Result<(), GpuError> {
        let Products { product: Product { rows, columns, inner, transposed_a, transposed_b, adds }, count } = *products;
        // SAFETY: as the trait's.
        let (a, b, c) = unsafe {
            (values(a, count * rows * inner), values(b, count * inner * columns), values_mut(c, count * rows * columns))
        };
        for product in 0..count {
            let (a, b) = (&a[product * rows * inner..], &b[product * inner * columns..]);
            for row in 0..rows {
                for column in 0..columns {
                    let sum: f64 = (0..inner)
                        .map(|k| {
                            let a = a[if transposed_a { k * rows + row } else { row * inner + k }];
                            let b = b[if transposed_b { column * inner + k } else { k * columns + column }];
                            f64::from(a) * f64::from(b)
                        })
                        .sum();
                    let to = &mut c[(product * rows + row) * columns + column];
                    *to = if adds { (f64::from(*to) + sum) as f32 } else { sum as f32 };
                }
            }
        }
        Ok(())
    }

    unsafe fn convolution(&self, shape: &Shape, side: Side, first: u64, second: u64, out: u64) -> Result<(), GpuError> {
        let (first_len, second_len, out_len) = side.lengths(shape);
        // SAFETY: as the trait's.
        let (first, second, out) =
            unsafe { (values(first, first_len), values(second, second_len), values_mut(out, out_len)) };
        let mut sums = vec![0.0f64; out_len];
        each_term(shape, |x, w, y| {
            let (to, a, b) = match side {
                Side::Forward => (y, x, w),
                Side::Images => (x, y, w),
                Side::Weights => (w, x, y),
            };
            sums[to] += f64::from(first[a]) * f64::from(second[b]);
        });
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum as f32);
        Ok(())
    }

    fn wait(&self) -> Result<(), GpuError> {
        Ok(())
    }
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
