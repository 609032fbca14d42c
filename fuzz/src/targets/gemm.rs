//! Compares `tensor::gemm::gemm_sum` and `gemm_packed` with `gemm_naive`: sizes, layouts, starts and values are from the input. The bounds are those
//! of the engine's own tests (`src/tensor/gemm/tests.rs`).
//!
//! The matrices lie in buffers that end with their last element, and all elements that are not theirs are NaN.

use super::input::Bytes;
use lowrank::tensor::gemm::{Init, Mat, Packed, gemm_naive, gemm_packed, gemm_sum};
use lowrank::tensor::{Accum, BF16, Scalar};

/// Most multiplications of a product.
const MOST: usize = 1 << 15;

pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    match bytes.below(3) {
        0 => check::<f64, f64>(bytes, 1e-14),
        1 => check::<f32, f32>(bytes, 1e-6),
        _ => check::<BF16, f32>(bytes, 1.0 / 256.0),
    }
}

/// A matrix of f64 numbers, and the place of the same numbers in a buffer of another type.
struct Matrix {
    rows: usize,
    cols: usize,
    values: Vec<f64>,
    transposed: bool,
    /// Rows and columns before the matrix, and columns after it.
    around: [usize; 3],
}

impl Matrix {
    fn new(rows: usize, cols: usize, bytes: &mut Bytes, draw: &mut impl FnMut() -> f64) -> Matrix {
        let layout = bytes.byte();
        let around = [layout >> 1 & 1, layout >> 2 & 3, layout >> 4 & 3].map(usize::from);
        Matrix { rows, cols, values: (0..rows * cols).map(|_| draw()).collect(), transposed: layout & 1 == 1, around }
    }

    fn exact(&self) -> Mat<'_, f64> {
        Mat::new(&self.values, self.rows, self.cols)
    }

    /// Rows and columns as they are stored.
    fn stored(&self) -> (usize, usize) {
        if self.transposed { (self.cols, self.rows) } else { (self.rows, self.cols) }
    }

    fn stride(&self) -> usize {
        self.around[1] + self.stored().1 + self.around[2]
    }

    fn buffer<T: Scalar>(&self) -> Vec<T> {
        let ((rows, cols), [above, left, _]) = (self.stored(), self.around);
        if rows == 0 || cols == 0 {
            return vec![narrow(f64::NAN); above * self.stride()];
        }
        let mut buffer = vec![narrow(f64::NAN); (above + rows - 1) * self.stride() + left + cols];
        for (i, j) in (0..rows).flat_map(|i| (0..cols).map(move |j| (i, j))) {
            let at = if self.transposed { j * self.cols + i } else { i * self.cols + j };
            buffer[(above + i) * self.stride() + left + j] = narrow(self.values[at]);
        }
        buffer
    }

    /// The matrix in its buffer, as a part of a larger one.
    fn of<'a, T: Scalar>(&self, buffer: &'a [T]) -> Mat<'a, T::Acc> {
        let ((rows, cols), [above, left, _]) = (self.stored(), self.around);
        let (all_rows, all_cols) = if rows == 0 || cols == 0 { (above + rows, 0) } else { (above + rows, left + cols) };
        let mat = match all_cols {
            0 => Mat::new::<T>(&[], rows, cols),
            _ => Mat::strided(buffer, all_rows, all_cols, self.stride()).rows_from(above, rows).cols_from(left, cols),
        };
        if self.transposed { mat.t() } else { mat }
    }
}

fn narrow<T: Scalar>(x: f64) -> T {
    T::narrow(T::Acc::of(x))
}

/// Sizes m, n and k: usually small, sometimes larger than a block of the product in one direction.
fn sizes(bytes: &mut Bytes) -> [usize; 3] {
    let most = [[20, 40, 30], [110, 30, 40], [56, 450, 8], [14, 30, 900], [6, 500, 8], [110, 110, 9]][bytes.below(8).min(5)];
    let mut sizes = most.map(|most| bytes.below(most));
    while sizes.iter().product::<usize>() > MOST {
        let largest = sizes.iter_mut().max().expect("three sizes");
        *largest /= 2;
    }
    sizes
}

fn check<T: Scalar<Acc = S>, S: Accum>(mut bytes: Bytes, tolerance: f64) {
    let [m, n, k] = sizes(&mut bytes);
    let (start, pad, flags, specials) = (bytes.below(3), bytes.below(3), bytes.byte(), bytes.below(4));
    let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY][bytes.below(3)];
    let mut state = bytes.0.iter().fold(0xCBF2_9CE4_8422_2325, |hash: u64, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    // Multiples of 1/128 below 1 are exact in bf16.
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % 255) as f64 / 128.0 - 127.0 / 128.0
    };
    let k2 = if flags & 1 == 1 { k.min(5) } else { 0 };
    let mut pairs = vec![(Matrix::new(m, k, &mut bytes, &mut draw), Matrix::new(k, n, &mut bytes, &mut draw))];
    if k2 > 0 {
        pairs.push((Matrix::new(m, k2, &mut bytes, &mut draw), Matrix::new(k2, n, &mut bytes, &mut draw)));
    }
    for i in 0..specials {
        let (a, b) = &mut pairs[0];
        let values = if i % 2 == 0 { &mut a.values } else { &mut b.values };
        if !values.is_empty() {
            let at = bytes.below(values.len());
            values[at] = special;
        }
    }
    let ldc = n + pad;
    let length = if m == 0 || n == 0 { 0 } else { (m - 1) * ldc + n };
    let (c0, bias): (Vec<f64>, Vec<f64>) = ((0..length).map(|_| draw()).collect(), (0..n).map(|_| draw()).collect());

    let exact: Vec<_> = pairs.iter().map(|(a, b)| (a.exact(), b.exact())).collect();
    let mut want = c0.clone();
    gemm_naive(&exact, [Init::Zero, Init::Keep, Init::Bias(&bias)][start], &mut want, ldc);

    let buffers: Vec<_> = pairs.iter().map(|(a, b)| (a.buffer::<T>(), b.buffer::<T>())).collect();
    let products: Vec<_> = pairs.iter().zip(&buffers).map(|((a, b), (of_a, of_b))| (a.of::<T>(of_a), b.of::<T>(of_b))).collect();
    let wide_bias: Vec<S> = bias.iter().map(|&x| S::of(x)).collect();
    let init = [Init::Zero, Init::Keep, Init::Bias(&wide_bias)][start];
    let mut c: Vec<T> = c0.iter().map(|&x| narrow(x)).collect();
    let mut wide: Vec<S> = c0.iter().map(|&x| S::of(x)).collect();
    match (&products[..], init) {
        (&[(a, b)], Init::Zero | Init::Keep) if flags & 4 == 4 => {
            let (packed, keep) = (Packed::for_products_of(a, b), matches!(init, Init::Keep));
            gemm_packed(a, &packed, &mut c, ldc, keep);
            gemm_packed(a, &packed, &mut wide, ldc, keep);
        }
        _ => {
            gemm_sum(&products, init, &mut c, ldc);
            gemm_sum(&products, init, &mut wide, ldc);
        }
    }
    for (at, (c, (&wide, &want))) in c.iter().zip(wide.iter().zip(&want)).enumerate() {
        let (rounded, got): (T, f64) = (T::narrow(wide), c.widen().f64());
        assert!(*c == rounded || got.is_nan() && rounded.widen().f64().is_nan(), "rounded once, from the same sums");
        if at % ldc >= n {
            assert_eq!(got, c0[at], "outside of C");
        } else if want.is_finite() {
            let bound = tolerance * (1.0 + want.abs() + (k as f64).sqrt());
            assert!((got - want).abs() <= bound, "{} ({}, {}): {got} {want}", T::DTYPE, at / ldc, at % ldc);
        } else {
            assert!(got == want || got.is_nan() && want.is_nan(), "{} ({}, {}): {got} {want}", T::DTYPE, at / ldc, at % ldc);
        }
    }
}
