//! Singular values and vectors of matrices, in f64.

use super::gemm::{Mat, gemm};
use super::philox::Stream;

/// A = U diag(s) Vᵀ.
pub struct Svd {
    /// U `[rows, k]` in row-major order, k = min(rows, cols).
    pub u: Vec<f64>,
    /// s `[k]`, descending.
    pub s: Vec<f64>,
    /// V `[cols, k]` in row-major order.
    pub v: Vec<f64>,
}

/// The largest number of sweeps. About five are usual.
const SWEEPS: usize = 60;

/// The SVD of a `[rows, cols]` in row-major order. All results are NaN if an element is not finite.
///
/// One-sided Jacobi rotations: pairs of columns of A are rotated until all columns are orthogonal. They are then U diag(s), and the product of the
/// rotations is V. Hestenes 1958, "Inversion of matrices by biorthogonalization". Each singular value is accurate to its last bits (Demmel &
/// Veselić 1992, <https://doi.org/10.1137/0613074>). A sweep over all pairs takes O(rows · cols · min(rows, cols)) operations.
pub fn svd(a: &[f64], rows: usize, cols: usize) -> Svd {
    if rows < cols {
        let Svd { u, s, v } = svd(&transposed(a, rows, cols), cols, rows);
        return Svd { u: v, s, v: u };
    }
    if a.iter().any(|x| !x.is_finite()) {
        let nan = |n: usize| vec![f64::NAN; n * cols];
        return Svd { u: nan(rows), s: nan(1), v: nan(cols) };
    }
    // The columns of A, which become U diag(s), and the columns of V.
    let mut columns: Vec<Vec<f64>> = transposed(a, rows, cols).chunks_exact(rows.max(1)).map(<[f64]>::to_vec).collect();
    let mut v: Vec<Vec<f64>> = (0..cols).map(|j| (0..cols).map(|i| f64::from(u8::from(i == j))).collect()).collect();
    for _ in 0..SWEEPS {
        let mut rotated = false;
        for p in 0..cols {
            for q in p + 1..cols {
                let (alpha, beta, gamma) = (dot(&columns[p], &columns[p]), dot(&columns[q], &columns[q]), dot(&columns[p], &columns[q]));
                if gamma.abs() <= f64::EPSILON * (alpha * beta).sqrt() {
                    continue;
                }
                rotated = true;
                let zeta = (beta - alpha) / (2.0 * gamma);
                let t = zeta.signum() / (zeta.abs() + zeta.hypot(1.0));
                let c = t.hypot(1.0).recip();
                for pair in [&mut columns, &mut v] {
                    let (left, right) = pair.split_at_mut(q);
                    rotate(&mut left[p], &mut right[0], c, c * t);
                }
            }
        }
        if !rotated {
            break;
        }
    }
    let mut order: Vec<(f64, usize)> = columns.iter().enumerate().map(|(j, column)| (dot(column, column).sqrt(), j)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0));
    let gather = |from: &[Vec<f64>], n: usize, scaled: bool| {
        let at = |i: usize| {
            let value = move |&(s, j): &(f64, usize)| if scaled { if s > 0.0 { from[j][i] / s } else { 0.0 } } else { from[j][i] };
            order.iter().map(value)
        };
        (0..n).flat_map(at).collect()
    };
    Svd { u: gather(&columns, rows, true), v: gather(&v, cols, false), s: order.iter().map(|&(s, _)| s).collect() }
}

/// Up to this size, the full decomposition takes almost no time.
const SMALL: usize = 64;

/// The largest number of steps of the iteration. After them, the full decomposition is computed.
const STEPS: usize = 100;

/// The largest `rank` singular values of a `[rows, cols]` with their vectors, and some more that are less exact.
///
/// Subspace iteration on AᵀA with a Rayleigh-Ritz projection in each step (Halko, Martinsson & Tropp 2011, <https://doi.org/10.1137/090771806>,
/// algorithm 4.4). Between the steps, a Chebyshev polynomial of AᵀA damps the directions of the small singular values (Zhou, Saad, Tiago &
/// Chelikowsky 2006, <https://doi.org/10.1016/j.jcp.2006.03.017>, section 3). The iteration ends when the residuals are small.
pub fn leading_svd(a: &[f64], rows: usize, cols: usize, rank: usize) -> Svd {
    let width = 2 * rank + SMALL / 2;
    if width >= rows.min(cols) || rows.min(cols) <= SMALL {
        return svd(a, rows, cols);
    }
    let a_t = transposed(a, rows, cols);
    let times = |m: &[f64], [rows, inner]: [usize; 2], x: &[f64]| {
        let mut y = vec![0.0; rows * width];
        gemm(Mat::new(m, rows, inner), Mat::new(x, inner, width), &mut y, width, false);
        y
    };
    let mut random = Stream::new(0, "leading svd");
    let mut v: Vec<f64> = (0..cols * width).map(|_| random.normal()).collect();
    orthonormalise(&mut v, width);
    for _ in 0..STEPS {
        // A V = Q R and R = U₁ S V₁ᵀ, so the best approximations in the block are Q U₁ and V V₁.
        let mut q = times(a, [rows, cols], &v);
        let small = svd(&orthonormalise(&mut q, width), width, width);
        let turned = |x: &[f64], n: usize, by: &[f64]| times(x, [n, width], by);
        let (u, best) = (turned(&q, rows, &small.u), turned(&v, cols, &small.v));
        // The residual: Aᵀ u = σ v holds for exact vectors.
        let z = times(&a_t, [cols, rows], &u);
        let far = |l: usize| {
            let part = |i: usize| z[i * width + l] - small.s[l] * best[i * width + l];
            (0..cols).map(|i| part(i).powi(2)).sum::<f64>().sqrt()
        };
        if (0..=rank).all(|l| far(l) <= 1e-11 * small.s[0]) {
            return Svd { u, s: small.s, v: best };
        }
        v = filtered(best, &small.s, rank, |x| times(&a_t, [cols, rows], &times(a, [rows, cols], x)));
        orthonormalise(&mut v, width);
    }
    svd(a, rows, cols)
}

/// T(G) V for G = AᵀA. T is the Chebyshev polynomial that is small on [0, s²], where s is the smallest singular value in the block.
fn filtered(v: Vec<f64>, s: &[f64], rank: usize, g: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let half = s[s.len() - 1].powi(2) / 2.0;
    if half <= f64::EPSILON * s[0].powi(2) {
        return g(&v);
    }
    // The first vectors grow faster than vector `rank`. The degree is limited, so that rounding errors of the first do not hide it.
    let growth = |l: usize| (s[l].powi(2) / half - 1.0).max(1.0).acosh();
    let degree = (1e5_f64.ln() / (growth(0) - growth(rank)).max(1e-3)).clamp(1.0, 12.0) as usize;
    let step = |x: &[f64]| g(x).iter().zip(x).map(|(gx, x)| gx / half - x).collect::<Vec<f64>>();
    let (mut before, mut now) = (v.clone(), step(&v));
    for _ in 1..degree {
        let next = step(&now).iter().zip(&before).map(|(x, b)| 2.0 * x - b).collect();
        before = std::mem::replace(&mut now, next);
    }
    now
}

/// Replaces a matrix `[n, k]` by Q, where matrix = Q R and the columns of Q are orthonormal. Returns R `[k, k]` in row-major order. Modified
/// Gram-Schmidt, done twice for accuracy.
fn orthonormalise(matrix: &mut [f64], k: usize) -> Vec<f64> {
    let n = matrix.len() / k;
    let mut columns: Vec<Vec<f64>> = transposed(matrix, n, k).chunks_exact(n).map(<[f64]>::to_vec).collect();
    let mut r = vec![0.0; k * k];
    for j in 0..k {
        let (before, rest) = columns.split_at_mut(j);
        let column = &mut rest[0];
        for _ in 0..2 {
            for (i, earlier) in before.iter().enumerate() {
                let along = dot(earlier, column);
                column.iter_mut().zip(earlier).for_each(|(x, e)| *x -= along * e);
                r[i * k + j] += along;
            }
        }
        let norm = dot(column, column).sqrt();
        r[j * k + j] = norm;
        if norm > 0.0 {
            column.iter_mut().for_each(|x| *x /= norm);
        }
    }
    matrix.copy_from_slice(&transposed(&columns.concat(), k, n));
    r
}

/// (p, q) becomes (c p − s q, s p + c q).
fn rotate(p: &mut [f64], q: &mut [f64], c: f64, s: f64) {
    p.iter_mut().zip(q).for_each(|(p, q)| (*p, *q) = (c * *p - s * *q, s * *p + c * *q));
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn transposed(a: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    (0..cols).flat_map(|j| (0..rows).map(move |i| a[i * cols + j])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::philox::Stream;

    #[test]
    fn a_number_that_is_not_finite_leaves_none() {
        for (at, bad) in [(0, f64::NAN), (5, f64::INFINITY)] {
            let mut a = vec![1.0; 6];
            a[at] = bad;
            for (rows, cols) in [(3, 2), (2, 3), (6, 1)] {
                let (Svd { u, s, v }, k) = (svd(&a, rows, cols), rows.min(cols));
                assert_eq!((u.len(), s.len(), v.len()), (rows * k, k, cols * k));
                assert!([u, s, v].concat().iter().all(|x| x.is_nan()));
            }
        }
    }

    #[test]
    fn the_largest_values_alone_are_those_of_the_whole() {
        let mut random = Stream::new(2, "svd");
        for (rows, cols, rank, decay) in [(90, 80, 4, 0.0), (70, 110, 5, 0.0), (100, 90, 3, 0.3), (20, 30, 4, 0.0), (80, 80, 40, 0.0)] {
            let a: Vec<f64> = (0..rows * cols).map(|i| random.normal() * (-decay * (i % cols) as f64).exp()).collect();
            let (some, all) = (leading_svd(&a, rows, cols, rank), svd(&a, rows, cols));
            let product = |of: &Svd, i: usize, j: usize| {
                let k = of.s.len();
                (0..rank).map(|l| of.u[i * k + l] * of.s[l] * of.v[j * k + l]).sum::<f64>()
            };
            assert!((0..=rank).all(|l| (some.s[l] - all.s[l]).abs() <= 1e-10 * all.s[0]), "{rows}x{cols}");
            for (i, j) in (0..rows).flat_map(|i| (0..cols).map(move |j| (i, j))) {
                let (x, y) = (product(&some, i, j), product(&all, i, j));
                assert!((x - y).abs() <= 1e-8 * all.s[0], "{rows}x{cols} at {i}, {j}: {x} {y}");
            }
        }
    }

    #[test]
    fn the_factors_are_orthogonal_and_give_the_matrix_back() {
        let mut random = Stream::new(1, "svd");
        for (rows, cols, rank) in [(1, 1, 1), (7, 4, 4), (4, 7, 4), (12, 12, 3), (30, 20, 20), (5, 1, 1), (6, 6, 0)] {
            let (b, c): (Vec<f64>, Vec<f64>) =
                ((0..rows * rank).map(|_| random.normal()).collect(), (0..rank * cols).map(|_| random.normal()).collect());
            let element = |i: usize, j: usize| (0..rank).map(|k| b[i * rank + k] * c[k * cols + j]).sum::<f64>();
            let a: Vec<f64> = (0..rows).flat_map(|i| (0..cols).map(move |j| (i, j))).map(|(i, j)| element(i, j)).collect();
            let Svd { u, s, v } = svd(&a, rows, cols);
            let k = rows.min(cols);
            assert_eq!((u.len(), s.len(), v.len()), (rows * k, k, cols * k));
            assert!(s.windows(2).all(|w| w[0] >= w[1]));
            let largest = s[0].max(1e-300);
            assert!(s[rank.min(k)..].iter().all(|&s| s <= 1e-13 * largest.max(1.0)), "{rows}x{cols} of rank {rank}: {s:?}");
            for i in 0..rows {
                for j in 0..cols {
                    let back: f64 = (0..k).map(|l| u[i * k + l] * s[l] * v[j * k + l]).sum();
                    assert!((back - a[i * cols + j]).abs() <= 1e-13 * (1.0 + largest));
                }
            }
            for (m, n) in [(&u, rows), (&v, cols)] {
                for (p, q) in (0..rank.min(k)).flat_map(|p| (0..rank.min(k)).map(move |q| (p, q))) {
                    let product: f64 = (0..n).map(|i| m[i * k + p] * m[i * k + q]).sum();
                    assert!((product - f64::from(u8::from(p == q))).abs() < 1e-12);
                }
            }
        }
    }
}
