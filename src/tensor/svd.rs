//! Singular values and vectors of small matrices, in f64.

/// A = U diag(s) Vᵀ by one-sided Jacobi rotations. Hestenes 1958, "Inversion of matrices by biorthogonalization"; accurate to the last bits of
/// each singular value (Demmel & Veselić 1992, <https://doi.org/10.1137/0613074>).
pub struct Svd {
    /// U `[rows, k]`, row by row; k = min(rows, cols).
    pub u: Vec<f64>,
    /// s `[k]`, descending.
    pub s: Vec<f64>,
    /// V `[cols, k]`, row by row.
    pub v: Vec<f64>,
}

/// Sweeps after which one gives up; a handful is usual.
const SWEEPS: usize = 60;

/// The SVD of a, `[rows, cols]`, row by row; all NaN if an element is not finite. O(rows · cols · min(rows, cols)) a sweep.
pub fn svd(a: &[f64], rows: usize, cols: usize) -> Svd {
    if rows < cols {
        let Svd { u, s, v } = svd(&transposed(a, rows, cols), cols, rows);
        return Svd { u: v, s, v: u };
    }
    if a.iter().any(|x| !x.is_finite()) {
        let nan = |n: usize| vec![f64::NAN; n * cols];
        return Svd { u: nan(rows), s: nan(1), v: nan(cols) };
    }
    // Columns of A, which become U diag(s), and of V.
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
