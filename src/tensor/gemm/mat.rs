//! Matrices over borrowed slices.

use crate::Result;
use crate::tensor::element::{Accum, DType, Elements, Scalar};
use crate::tensor::simd::{self, Kernel};
use crate::tensor::{Pooled, Tensor, alloc};
use half::bf16;

/// A matrix `[rows, cols]` over a borrowed slice: element (i, j) is `data[i * row_stride + j * col_stride]`, read in the accumulator type S. One
/// of the strides is 1: the matrix is row-major or column-major. Every element lies inside the slice.
#[derive(Clone, Copy)]
pub struct Mat<'a, S> {
    pub(super) data: Elements<'a, S>,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl<'a, S: Accum> Mat<'a, S> {
    /// A row-major matrix `[rows, cols]`.
    pub fn new<T: Scalar<Acc = S>>(data: &'a [T], rows: usize, cols: usize) -> Self {
        Mat::strided(data, rows, cols, cols)
    }

    /// The elements of a tensor `[.., cols]`.
    ///
    /// # Errors
    /// If the data type is neither `S` nor, for S = f32, bf16.
    pub fn of(tensor: &'a Tensor) -> Result<Self> {
        let (rows, cols) = (tensor.shape().rows(), tensor.shape().cols());
        let data = match tensor.dtype() {
            DType::BF16 if S::DTYPE == DType::F32 => Elements::BF16(tensor.host::<bf16>()?),
            _ => Elements::Same(tensor.host::<S>()?),
        };
        Ok(Mat { data, rows, cols, row_stride: cols, col_stride: 1 })
    }

    /// A row-major matrix whose rows start `row_stride` elements apart.
    ///
    /// # Panics
    /// If `data` is too short.
    pub fn strided<T: Scalar<Acc = S>>(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        // The end of the last row. The number of elements must fit too: rows may overlap, and a copy has all of them.
        let end = (|| rows.checked_mul(cols).and((rows.checked_sub(1)?).checked_mul(row_stride)?.checked_add(cols)))();
        let fits = rows == 0 || cols == 0 || end.is_some_and(|end| end <= data.len());
        assert!(fits, "gemm: a matrix [{rows}, {cols}] with rows {row_stride} apart does not fit into {} elements", data.len());
        Mat { data: T::source(data), rows, cols, row_stride, col_stride: 1 }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The transpose. No element moves: the strides change places.
    pub fn t(self) -> Self {
        Mat { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    /// `rows` rows, from row `first` on.
    ///
    /// # Panics
    /// If the matrix ends before.
    pub fn rows_from(self, first: usize, rows: usize) -> Self {
        assert!(first <= self.rows && rows <= self.rows - first, "gemm: {rows} rows from row {first} of {}", self.rows);
        // Too large only if there are no columns, and so no elements.
        let at = first.saturating_mul(self.row_stride);
        let data = match self.data {
            Elements::Same(data) => Elements::Same(data.get(at..).unwrap_or_default()),
            Elements::BF16(data) => Elements::BF16(data.get(at..).unwrap_or_default()),
        };
        Mat { data, rows, ..self }
    }

    /// `cols` columns, from column `first` on.
    ///
    /// # Panics
    /// If the matrix ends before.
    pub fn cols_from(self, first: usize, cols: usize) -> Self {
        self.t().rows_from(first, cols).t()
    }

    /// Element (i, j) in the accumulator type.
    pub fn at(&self, i: usize, j: usize) -> S {
        let at = i * self.row_stride + j * self.col_stride;
        match self.data {
            Elements::Same(data) => data[at],
            Elements::BF16(data) => S::of(data[at].widen().into()),
        }
    }

    /// The elements in row-major order.
    pub fn to_accum(self) -> Pooled<S> {
        let mut to = alloc::<S>(self.rows * self.cols);
        simd::dispatch(Each { from: self, to: &mut to, f: |_, x| x });
        to
    }

    /// Multiplies the elements of `by`, a row-major matrix of the same size, by these.
    pub fn scale(self, by: &mut [S]) {
        simd::dispatch(Each { from: self, to: by, f: |by, x| by * x });
    }
}

/// `to[i, j] = f(to[i, j], from[i, j])`. `to` is row-major.
struct Each<'a, S, F> {
    from: Mat<'a, S>,
    to: &'a mut [S],
    f: F,
}

impl<S: Accum, F: Fn(S, S) -> S> Kernel for Each<'_, S, F> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Each { from, to, f } = self;
        match from.data {
            Elements::Same(data) => each(from, data, to, &f),
            Elements::BF16(data) => each(from, data, to, |to, x: bf16| f(to, S::of(x.widen().into()))),
        }
    }
}

/// Rows and columns that are transposed together: the cache lines of both sides stay in the first-level cache.
const CORNER: usize = 16;

#[inline(always)]
fn each<S: Accum, T: Copy>(a: Mat<S>, from: &[T], to: &mut [S], f: impl Fn(S, T) -> S) {
    let cols = a.cols.max(1);
    if a.col_stride == 1 {
        for (i, to) in to.chunks_exact_mut(cols).take(a.rows).enumerate() {
            to.iter_mut().zip(&from[i * a.row_stride..]).for_each(|(to, &x)| *to = f(*to, x));
        }
        return;
    }
    for (i0, to) in to.chunks_mut(CORNER * cols).take(a.rows.div_ceil(CORNER)).enumerate() {
        let rows = CORNER.min(a.rows - i0 * CORNER);
        for j0 in (0..a.cols).step_by(CORNER) {
            for j in j0..a.cols.min(j0 + CORNER) {
                for i in 0..rows {
                    let to = &mut to[i * cols + j];
                    *to = f(*to, from[(i0 * CORNER + i) * a.row_stride + j * a.col_stride]);
                }
            }
        }
    }
}
