//! Sums and maxima in 16 lanes: element i goes to lane i mod 16, and the lanes are joined at the end. The compiler turns such loops into vector
//! code, which it must not do with a plain sum, because that would change the order of the additions.

use super::Accum;

/// Number of partial results.
const LANES: usize = 16;

/// Folds each lane with `f`, starting from `zero`, and then the lanes with `join`.
#[inline(always)]
fn fold<T: Copy, S: Accum>(x: &[T], zero: S, f: impl Fn(S, T) -> S, join: impl Fn(S, S) -> S) -> S {
    let mut lanes = [zero; LANES];
    let (pieces, rest) = x.as_chunks::<LANES>();
    for piece in pieces {
        for j in 0..LANES {
            lanes[j] = f(lanes[j], piece[j]);
        }
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, &x)| *lane = f(*lane, x));
    lanes.into_iter().fold(zero, join)
}

/// Σ f(x).
#[inline(always)]
pub fn sum<T: Copy, S: Accum>(x: &[T], f: impl Fn(T) -> S) -> S {
    fold(x, S::ZERO, |sum, x| sum + f(x), |a, b| a + b)
}

/// x = f(x), and Σ f(x).
#[inline(always)]
pub fn map_sum<S: Accum>(x: &mut [S], f: impl Fn(S) -> S) -> S {
    let mut lanes = [S::ZERO; LANES];
    let (pieces, rest) = x.as_chunks_mut::<LANES>();
    for piece in pieces {
        for x in piece.iter_mut() {
            *x = f(*x);
        }
        for j in 0..LANES {
            lanes[j] += piece[j];
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *x = f(*x);
        *lane += *x;
    }
    lanes.into_iter().fold(S::ZERO, |a, b| a + b)
}

/// Σ f(x, y) over the length of `x`.
#[inline(always)]
pub fn sum2<T: Copy, U: Copy, S: Accum>(x: &[T], y: &[U], f: impl Fn(T, U) -> S) -> S {
    sum3(x, y, x, |x, y, _| f(x, y))
}

/// Σ f(x, y, z) over the length of `x`.
#[inline(always)]
pub fn sum3<T: Copy, U: Copy, V: Copy, S: Accum>(x: &[T], y: &[U], z: &[V], f: impl Fn(T, U, V) -> S) -> S {
    let mut lanes = [S::ZERO; LANES];
    let (xs, ys, zs) = (x.as_chunks::<LANES>(), y[..x.len()].as_chunks::<LANES>(), z[..x.len()].as_chunks::<LANES>());
    for ((x, y), z) in xs.0.iter().zip(ys.0).zip(zs.0) {
        for j in 0..LANES {
            lanes[j] += f(x[j], y[j], z[j]);
        }
    }
    let rest = xs.1.iter().zip(ys.1).zip(zs.1);
    lanes.iter_mut().zip(rest).for_each(|(lane, ((&x, &y), &z))| *lane += f(x, y, z));
    lanes.into_iter().fold(S::ZERO, |a, b| a + b)
}

/// The largest element of `x`; 0 if it is empty. A NaN at the first place is returned; any other NaN is ignored, because comparisons with it are
/// false. A softmax may use this: x − max is NaN where x is NaN, whatever the maximum is.
#[inline(always)]
pub fn max<S: Accum>(x: &[S]) -> S {
    let larger = |a, b| if b > a { b } else { a };
    let first = x.first().copied().unwrap_or(S::ZERO);
    // Four maxima of each lane at a time: a comparison waits for the one before it in its chain, and the result is the same in any order.
    let (pieces, rest) = x.as_chunks::<{ 4 * LANES }>();
    let mut lanes = [[first; LANES]; 4];
    for piece in pieces {
        for (lanes, x) in lanes.iter_mut().zip(piece.as_chunks::<LANES>().0) {
            for j in 0..LANES {
                lanes[j] = larger(lanes[j], x[j]);
            }
        }
    }
    let [mut most, b, c, d] = lanes;
    for j in 0..LANES {
        most[j] = larger(larger(most[j], b[j]), larger(c[j], d[j]));
    }
    larger(fold(&most, first, larger, larger), fold(rest, first, larger, larger))
}

/// The largest of some numbers ≥ 0; 0 if there are none. NaN if one of them is NaN, which `f64::max` would ignore.
pub fn largest(x: impl IntoIterator<Item = f64>) -> f64 {
    x.into_iter().fold(0.0, |most, x| if x > most || x.is_nan() { x } else { most })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_largest_is_nan_if_one_is() {
        assert_eq!((super::largest([]), super::largest([1.0, 3.0, 2.0])), (0.0, 3.0));
        for at in 0..3 {
            let mut x = [1.0, 3.0, 2.0];
            x[at] = f64::NAN;
            assert!(super::largest(x).is_nan());
        }
    }
}
