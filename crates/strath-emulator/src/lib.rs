//! A device that is the processor: the same kernels, compiled by the machine's C++ compiler, on the host's memory.
//!
//! It rounds as the device it stands for: factors to ten bits of mantissa with `tf32`, what is stored to bf16 with `bf16`. It shows whether indices, arithmetic and the shapes of launches are right, and nothing of speed, nor of races between blocks or between threads of one; products and convolutions are plain sums in f64.

#![allow(unsafe_code, reason = "code that was compiled a moment ago, on addresses of the host")]

mod nccl;

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use libloading::Library;

use strath_core::config::Compute;
use strath_cuda::nccl::Library as Nccl;
use strath_cuda::{Driver, GpuError, Kernel, Number, Numbers, Product, Products, Side, THREADS, bf16};
use strath_kernels::conv::Shape;

type Launch = unsafe extern "C" fn(*const c_char, c_uint, c_uint, c_uint, *mut *mut c_void) -> c_int;

/// A library of kernels. The shim's threads are globals of it, so one launch runs at a time.
type Kernels = (Library, Mutex<Launch>);

/// The kernels for activations of f32 and of bf16, loaded when they are first asked for.
static KERNELS_OF_PROCESS: OnceLock<Result<[Kernels; 2], GpuError>> = OnceLock::new();

/// How many were opened.
static OPENED: AtomicU64 = AtomicU64::new(0);

/// The processor as a device.
pub struct Emulator {
    kernels: &'static [Kernels; 2],
    compute: Compute,
    number: u64,
    nccl: Arc<nccl::Files>,
}

impl fmt::Debug for Emulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Emulator")
    }
}

impl Emulator {
    /// The processor as a device that multiplies in `compute`.
    ///
    /// # Errors
    /// [`GpuError`] where there was no C++ compiler when this was built.
    pub fn new(compute: Compute) -> Result<Self, GpuError> {
        let kernels = KERNELS_OF_PROCESS.get_or_init(find).as_ref().map_err(Clone::clone)?;
        let number = OPENED.fetch_add(1, Ordering::Relaxed);
        Ok(Self { kernels, compute, number, nccl: Arc::default() })
    }

    /// The processor as a device, for a test: `None`, which is said, where it cannot be.
    ///
    /// # Panics
    /// With STRATH_REQUIRE_ALL in the environment, in place of `None`.
    pub fn or_skip(compute: Compute) -> Option<Self> {
        match Self::new(compute) {
            Ok(emulator) => Some(emulator),
            Err(error) if std::env::var_os("STRATH_REQUIRE_ALL").is_some() => panic!("{error}"),
            Err(error) => {
                eprintln!("skipped: {error}");
                None
            }
        }
    }
}

fn find() -> Result<[Kernels; 2], GpuError> {
    let failed = |cause: &dyn fmt::Display| GpuError::failed("find kernels for the processor", cause);
    let missing = env!("STRATH_EMULATOR_MISSING");
    if !missing.is_empty() {
        return Err(failed(&format!("{missing}; install a C++ compiler, and build again")));
    }
    let load = |path| load(Path::new(path)).map_err(|error| failed(&error));
    Ok([load(env!("STRATH_EMULATOR_F32"))?, load(env!("STRATH_EMULATOR_BF16"))?])
}

fn load(path: &Path) -> Result<Kernels, libloading::Error> {
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

impl Emulator {
    /// The factors of a product, as they are multiplied.
    ///
    /// # Safety
    /// As [`values`].
    unsafe fn factors(&self, of: Number, at: u64, len: usize) -> Vec<f64> {
        // SAFETY: as this function's.
        let mut values = unsafe { values(of, at, len) };
        if self.compute == Compute::Tf32 {
            for value in &mut values {
                *value = to_tf32(*value);
            }
        }
        values
    }
}

impl Driver for Emulator {
    fn name(&self) -> String {
        "emulated".into()
    }

    fn identity(&self) -> String {
        format!("emulated-{}-{}", std::process::id(), self.number)
    }

    fn nccl(&self) -> Option<Arc<dyn Nccl>> {
        Some(self.nccl.clone())
    }

    fn compute(&self) -> Compute {
        self.compute
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

    unsafe fn fill(&self, at: u64, byte: u8, bytes: usize) -> Result<(), GpuError> {
        // SAFETY: as the trait's.
        unsafe { (at as *mut u8).write_bytes(byte, bytes) };
        Ok(())
    }

    unsafe fn launch(&self, kernel: Kernel, (x, y): (u32, u32), arguments: &mut [*mut c_void]) -> Result<(), GpuError> {
        let name = CString::new(kernel.name).expect("names of kernels have no zeros");
        let (_, launch) = &self.kernels[kernel.activations as usize];
        let launch = launch.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: as the trait's.
        match unsafe { launch(name.as_ptr(), x, y, THREADS, arguments.as_mut_ptr()) } {
            0 => Ok(()),
            _ => Err(GpuError::failed("launch a kernel", format!("src/table.h does not have {}", kernel.name))),
        }
    }

    unsafe fn products(&self, products: &Products, of: Numbers, a: u64, b: u64, c: u64) -> Result<(), GpuError> {
        let Products { product: Product { rows, columns, inner, transposed_a, transposed_b, adds }, count } = *products;
        // SAFETY: as the trait's.
        let (a, b, mut sums) = unsafe {
            (
                self.factors(of.factors, a, count * rows * inner),
                self.factors(of.factors, b, count * inner * columns),
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
        // SAFETY: as the trait's.
        unsafe { put(of.result, c, &sums) };
        Ok(())
    }

    unsafe fn convolution(
        &self,
        of: Number,
        shape: &Shape,
        side: Side,
        first: u64,
        second: u64,
        out: u64,
    ) -> Result<(), GpuError> {
        let (first_len, second_len, out_len) = side.lengths(shape);
        // SAFETY: as the trait's.
        let (first, second) = unsafe { (self.factors(of, first, first_len), self.factors(of, second, second_len)) };
        let mut sums = vec![0.0f64; out_len];
        each_term(shape, |x, w, y| {
            let (to, a, b) = match side {
                Side::Forward => (y, x, w),
                Side::Images => (x, y, w),
                Side::Weights => (w, x, y),
            };
            sums[to] += first[a] * second[b];
        });
        // SAFETY: as the trait's.
        unsafe { put(of, out, &sums) };
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
