//! The matrix product in plain loops: over rows, columns and the inner index. It defines what the fast product computes, up to the rounding of sums: the tests
//! of the fast product compare the two.
//!
//! A [`Mat`] is a matrix over a borrowed slice, with strides (`mat.rs`). [`Init`] is the start of each sum: 0, the old C, or a bias (`loops.rs`).
//!
//! Several products go into one sum because a linear layer with LoRA terms is such a sum: x Wᵀ + b, plus a product of thin matrices for each term. The whole
//! sum is kept in the accumulator type S and rounded once to C's type. A separate C for each product would be rounded each time, and written and read again.

use super::loops::Init;
use super::mat::Mat;
use crate::tensor::{Accum, Scalar};

/// `c[i, j] = init + Σ over the products Σₚ a[i, p] · b[p, j]`, summed in type S, rounded once. Without products, C stays as it is.
///
/// Every A is `[m, k]` and every B `[k, n]`; k may differ between products. C is `[m, n]` in row-major order, its rows start `ldc` elements apart.
///
/// # Panics
/// If the sizes do not fit.
pub fn gemm_naive<S: Accum, C: Scalar<Acc = S>>(products: &[(Mat<S>, Mat<S>)], init: Init<S>, c: &mut [C], ldc: usize) {
    let Some((first_a, first_b)) = products.first() else { return };
    let (m, n) = (first_a.rows(), first_b.cols());
    assert!(products.iter().all(|(a, b)| a.rows() == m && b.cols() == n && a.cols() == b.rows()), "gemm: sizes");
    for i in 0..m {
        for j in 0..n {
            let element = &mut c[i * ldc + j];
            let mut sum = match init {
                Init::Zero => S::ZERO,
                Init::Keep => element.widen(),
                Init::Bias(bias) => bias[j],
            };
            for (a, b) in products {
                for p in 0..a.cols() {
                    sum += a.at(i, p) * b.at(p, j);
                }
            }
            *element = C::narrow(sum);
        }
    }
}
