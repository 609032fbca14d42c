use super::*;
use crate::tensor::philox::Stream;
use crate::tensor::simd::Isa;
use crate::tensor::{Accum, Scalar};
use half::bf16;
use proptest::prelude::*;

fn stored<T: Scalar>(data: &[T], rows: usize, cols: usize, transposed: bool) -> Mat<'_, T::Acc> {
    if transposed { Mat::new(data, cols, rows).t() } else { Mat::new(data, rows, cols) }
}

fn as_type<T: Scalar<Acc = S>, S: Accum>(values: &[f64]) -> Vec<T> {
    values.iter().map(|&x| T::narrow(S::of(x))).collect()
}

/// The sum of two products in type `T`, of numbers that T represents exactly, against the naive loops in f64.
fn check<T: Scalar<Acc = S>, S: Accum>(isa: Isa, sizes: [usize; 4], layout: [bool; 4], start: usize, seed: u64, tolerance: f64) {
    let [m, n, k, pad] = sizes;
    let mut s = Stream::new(seed, "gemm");
    // Multiples of 1/128 below 1 are exact in bf16.
    let mut draw = |len: usize| -> Vec<f64> { (0..len).map(|_| (s.below(255) as f64 - 127.0) / 128.0).collect() };
    let k2 = k.min(5);
    let (a, b, a2, b2, bias) = (draw(m * k), draw(k * n), draw(m * k2), draw(k2 * n), draw(n));
    let ldc = n + pad;
    let c0 = draw(m * ldc);
    let exact =
        [(stored(&a, m, k, layout[0]), stored(&b, k, n, layout[1])), (stored(&a2, m, k2, layout[2]), stored(&b2, k2, n, layout[1]))];
    let mut want = c0.clone();
    gemm_naive(&exact, [Init::Zero, Init::Keep, Init::Bias(&bias)][start], &mut want, ldc);
    let (ta, tb, ta2, tb2) = (as_type::<T, S>(&a), as_type::<T, S>(&b), as_type::<T, S>(&a2), as_type::<T, S>(&b2));
    let wide_bias: Vec<S> = bias.iter().map(|&x| S::of(x)).collect();
    let init = [Init::Zero, Init::Keep, Init::Bias(&wide_bias)][start];
    let mut c = as_type::<T, S>(&c0);
    let products =
        [(stored(&ta, m, k, layout[0]), stored(&tb, k, n, layout[1])), (stored(&ta2, m, k2, layout[2]), stored(&tb2, k2, n, layout[1]))];
    sum_on(isa, &products, init, &mut c, ldc, layout[3]);
    let mut wide = as_type::<S, S>(&c0);
    sum_on(isa, &products, init, &mut wide, ldc, layout[3]);
    assert!(c.iter().zip(&wide).all(|(&c, &wide)| c == T::narrow(wide)), "{isa} {}: rounded once, from the same sums", T::DTYPE);
    for (at, (c, &want)) in c.iter().zip(&want).enumerate() {
        let (i, j, got) = (at / ldc, at % ldc, c.widen().f64());
        if j >= n {
            assert_eq!(got, c0[at], "outside of C");
            continue;
        }
        let bound = tolerance * (1.0 + want.abs() + (k as f64).sqrt());
        assert!((got - want).abs() <= bound, "{isa} {} ({i}, {j}): {got} {want}", T::DTYPE);
    }
}

proptest! {
    #[test]
    fn every_layout_equals_the_naive_loops(
        (m, n, k) in prop_oneof![
            (0usize..20, 0usize..40, 0usize..30), (1usize..110, 1usize..70, 200usize..600), (49usize..60, 385usize..450, 1usize..9), (1usize..14, 1usize..60, 760usize..1600), (1usize..9, 300usize..500, 1usize..9), Just((1, 1, 1))
        ],
        layout: [bool; 4], start in 0usize..3, pad in 0usize..3, seed: u64,
    ) {
        // Miri takes a thousand times as long.
        let (m, n, k) = if cfg!(miri) { (m % 9, n % 20, k % 9) } else { (m, n, k) };
        // For an instruction set that this machine lacks, the blocking and packing are the same, with the portable micro-kernels.
        for isa in Isa::ALL {
            check::<f64, f64>(isa, [m, n, k, pad], layout, start, seed, 1e-14);
            check::<f32, f32>(isa, [m, n, k, pad], layout, start, seed, 1e-6);
            check::<bf16, f32>(isa, [m, n, k, pad], layout, start, seed, 1.0 / 256.0);
        }
    }
}

/// A NaN in A makes its row of C NaN, and a NaN in B its column, although all other numbers are zero. The other elements of C stay 0.
fn check_nan<T: Scalar<Acc = S>, S: Accum>(isa: Isa, [m, n, k]: [usize; 3], rows_first: [bool; 2]) {
    for (in_a, first) in [(true, true), (true, false), (false, true), (false, false)] {
        let [mut a, mut b] = [vec![0.0; m * k], vec![0.0; k * n]];
        let spoilt = if in_a { &mut a } else { &mut b };
        let at = if first { 0 } else { spoilt.len() - 1 };
        spoilt[at] = f64::NAN;
        let (a, b) = (as_type::<T, S>(&a), as_type::<T, S>(&b));
        let mut c = vec![T::narrow(S::ONE); m * n];
        let product = (stored(&a, m, k, rows_first[0]), stored(&b, k, n, rows_first[1]));
        sum_on(isa, &[product], Init::Zero, &mut c, n, false);
        for (at, c) in c.iter().enumerate() {
            let line = if in_a { (at / n, m) } else { (at % n, n) };
            let (c, nan) = (c.widen().f64(), line.0 == if first { 0 } else { line.1 - 1 });
            assert!(c.is_nan() == nan && (nan || c == 0.0), "{isa} {} {m} {n} {k} {rows_first:?} {in_a} {at}: {c}", T::DTYPE);
        }
    }
}

#[test]
fn a_nan_shows_in_its_row_or_column_and_nowhere_else() {
    for isa in Isa::ALL {
        for sizes in [[1, 1, 1], [5, 3, 2], [13, 50, 7], [20, 100, 3], [60, 33, 41], [100, 49, 800]] {
            for rows_first in [[true, true], [true, false], [false, true], [false, false]] {
                check_nan::<f64, f64>(isa, sizes, rows_first);
                check_nan::<f32, f32>(isa, sizes, rows_first);
                check_nan::<bf16, f32>(isa, sizes, rows_first);
            }
        }
    }
}

#[test]
fn special_sums_are_rounded_as_single_numbers_are() {
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, 1e-40, -0.0];
    let halfway = [0x3F80_8000, 0x3F81_8000, 0x3F80_7FFF, 0x3F80_8001].map(f32::from_bits);
    let a: Vec<f32> = special.into_iter().chain(halfway).cycle().take(64).collect();
    for isa in Isa::ALL {
        // Whole tiles and partial tiles. With few rows, C is computed transposed.
        for (m, n) in [(64, 1), (64, 8), (64, 16), (64, 32), (64, 48), (64, 50), (20, 50)] {
            let (mut c, mut wide) = (vec![bf16::ZERO; m * n], vec![0.0; m * n]);
            let ones = vec![1.0f32; n];
            let product = (Mat::new(&a[..m], m, 1), Mat::new(&ones, 1, n));
            sum_on(isa, &[product], Init::Zero, &mut c, n, false);
            sum_on(isa, &[product], Init::Zero, &mut wide, n, false);
            for (at, (c, &wide)) in c.iter().zip(&wide).enumerate() {
                let (x, want) = (a[at / n], bf16::narrow(wide));
                assert!(wide == x || wide.is_nan() && x.is_nan(), "{isa} {n}: {x} became {wide}");
                assert!(*c == want || c.is_nan() && want.is_nan(), "{isa} {n}: {x} became {c}, not {want}");
            }
        }
    }
}

/// The number of rows changes the roles of A and B, the tiles and the tasks, but not the order in which an element is summed.
#[test]
fn a_row_has_the_same_bits_whatever_the_other_rows_are() {
    fn check<T: Scalar<Acc = S>, S: Accum>(isa: Isa) {
        let (rows, n, k) = (230, 100, 1601);
        let mut s = Stream::new(3, "rows");
        let mut draw = |len: usize| -> Vec<f64> { (0..len).map(|_| s.below(2001) as f64 / 1000.0 - 1.0).collect() };
        let (a, b) = (as_type::<T, S>(&draw(rows * k)), as_type::<T, S>(&draw(k * n)));
        let product = |first: usize, m: usize| {
            let mut c = vec![S::ZERO; m * n];
            sum_on(isa, &[(Mat::new(&a[first * k..], m, k), Mat::new(&b, n, k).t())], Init::Zero, &mut c, n, true);
            c
        };
        let all = product(0, rows);
        for (first, m) in [(0, 1), (7, 1), (3, 8), (0, 48), (0, 49), (91, 97), (229, 1)] {
            assert!(product(first, m) == all[first * n..][..m * n], "{isa} {}: {m} rows from row {first}", T::DTYPE);
        }
    }
    for isa in Isa::ALL {
        check::<f64, f64>(isa);
        check::<f32, f32>(isa);
        check::<bf16, f32>(isa);
    }
}

/// Products of sizes that wrap around would pass for small ones, and the loops would run out of the memory.
#[test]
fn sizes_that_are_too_large_are_refused() {
    const HUGE: usize = 1 << (usize::BITS - 2);
    let (four, eight) = ([1.0_f32; 4], [1.0_f32; 8]);
    let refused = |sizes: &str, f: &dyn Fn()| {
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).expect_err(sizes);
        let text = panic.downcast_ref::<String>().expect("a message with the sizes");
        assert!(text.contains(sizes), "{text}");
    };
    refused(&format!("[{}, 4] with rows 4 apart", HUGE + 1), &|| _ = Mat::new(&four, HUGE + 1, 4));
    refused(&format!("rows {} apart", 2 * HUGE), &|| _ = Mat::strided(&eight, 3, 4, 2 * HUGE));
    refused(&format!("[{HUGE}, 4] with rows 0 apart"), &|| _ = Mat::strided(&eight, HUGE, 4, 0));
    refused(&format!("{0} rows from row {0}", 3 * HUGE), &|| _ = Mat::new(&four, 1, 4).rows_from(3 * HUGE, 3 * HUGE));
    // C of four numbers cannot take that many rows.
    let tall = Mat::new::<f32>(&[], HUGE + 1, 0);
    refused(&format!("C [{}, 4]", HUGE + 1), &|| gemm_serial(tall, Mat::new::<f32>(&[], 0, 4), &mut [0.0_f32; 4], 4, false));
    // A matrix without columns has no elements, wherever its rows begin.
    assert_eq!(Mat::strided::<f32>(&[], HUGE, 0, HUGE).rows_from(5, 7).to_accum().len(), 0);
}
