//! Adapters whose factors started as a part of the base weight: PiSSA and OLoRA.
//!
//! PiSSA starts B A as the largest singular values of W with their vectors (Meng et al. 2024, <https://arxiv.org/abs/2404.02948>, equations 2
//! to 4), OLoRA as the first columns of Q and rows of R of W = Q R (Büyükakyüz 2024, <https://arxiv.org/abs/2406.01775>, section 3). Training starts
//! from W − s B₀ A₀, and PEFT subtracts s B₀ A₀ again whenever it loads the adapter. Here the base stays unchanged, because the same function is a plain term of
//! twice the rank: W − s B₀ A₀ + s B A = W + s [B, −B₀] [A; A₀]. Such a term can be merged and combined like any other.

use super::LoraConfig;
use crate::nn::{DistilBert, LowRank, Weight};
use crate::tensor::svd::{Svd, leading_svd};
use crate::tensor::{DType, Tensor};
use crate::{AtLayer, Error, Result};

/// Which part of the base weight the factors of an adapter started as.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum InitFromBase {
    /// None.
    #[default]
    Apart,
    /// The largest singular values of the base, with their vectors.
    Pissa,
    /// The first columns of Q and rows of R.
    Olora,
}

/// Turns terms that started as `start` into plain terms of twice the rank, and changes the configuration accordingly.
///
/// # Errors
/// If B₀ and A₀ cannot be computed from the base.
pub(super) fn make_plain(model: &mut DistilBert, config: &mut LoraConfig, start: InitFromBase) -> Result<()> {
    if start == InitFromBase::Apart {
        return Ok(());
    }
    for linear in model.linears_mut() {
        let ((output, input), name) = (linear.dims(), linear.name.clone());
        for term in &mut linear.terms {
            if term.rank() > output.min(input) {
                return cannot("the rank is larger than the base weight").at(|| name.clone());
            }
            let w = linear.weight.value()?.to_f64()?;
            let first = match start {
                InitFromBase::Pissa => pissa(&w, [output, input], term),
                _ => olora(&w, [output, input], term),
            };
            double(term, first.at(|| name.clone())?, [output, input])?;
        }
    }
    // Rank and alpha change together, so that the scale does not.
    let grown = if config.rank_stabilised { f64::sqrt(2.0) } else { 2.0 };
    config.rank *= 2;
    config.alpha *= grown;
    config.rank_pattern.iter_mut().for_each(|(_, rank)| *rank *= 2);
    config.alpha_pattern.iter_mut().for_each(|(_, alpha)| *alpha *= grown);
    Ok(())
}

/// B₀ `[out, r]` and A₀ `[r, in]`, both row-major.
type First = (Vec<f64>, Vec<f64>);

fn cannot<T>(problem: &str) -> Result<T> {
    let problem = format!("init_lora_weights: {problem}, so that what the factors started as cannot be told");
    Err(Error::invalid(format!("{problem}; merge the adapter in PEFT (merge_and_unload) and save the whole model")))
}

/// If two singular values differ by less than this part of the largest, f32 does not determine their vectors.
const TIED: f64 = 1e-6;

fn pissa(w: &[f64], [output, input]: [usize; 2], term: &LowRank) -> Result<First> {
    let rank = term.rank();
    let Svd { u, s, v } = leading_svd(w, output, input, rank);
    let k = s.len();
    // The vectors of singular values near zero do not matter.
    let (last, least) = (s[rank - 1], TIED * s[0]);
    if last > least && s.get(rank).is_some_and(|next| last - next <= least) {
        return cannot(&format!("singular values {rank} and {} of the base weight are equal", rank + 1));
    }
    if term.scale <= 0.0 {
        return cannot("the scale alpha / r is not positive");
    }
    let root = |l: usize| (s[l] / term.scale).sqrt();
    let b = (0..output).flat_map(|o| (0..rank).map(move |l| (o, l))).map(|(o, l)| root(l) * u[o * k + l]);
    let a = (0..rank).flat_map(|l| (0..input).map(move |i| (l, i))).map(|(l, i)| root(l) * v[i * k + l]);
    Ok((b.collect(), a.collect()))
}

fn olora(w: &[f64], [output, input]: [usize; 2], term: &LowRank) -> Result<First> {
    let rank = term.rank();
    // Modified Gram-Schmidt on the first columns. A second pass makes them orthogonal up to rounding.
    let mut q: Vec<Vec<f64>> = Vec::new();
    for l in 0..rank {
        let mut column: Vec<f64> = (0..output).map(|o| w[o * input + l]).collect();
        let whole = norm(&column);
        for earlier in q.iter().chain(&q) {
            let along: f64 = earlier.iter().zip(&column).map(|(a, b)| a * b).sum();
            column.iter_mut().zip(earlier).for_each(|(x, e)| *x -= along * e);
        }
        let left = norm(&column);
        if left <= TIED * whole {
            return cannot(&format!("column {} of the base weight depends on those before it", l + 1));
        }
        column.iter_mut().for_each(|x| *x /= left);
        q.push(column);
    }
    let b = (0..output).flat_map(|o| q.iter().map(move |column| column[o])).collect();
    // R = Qᵀ W.
    let mut a = vec![0.0; rank * input];
    for (row, column) in a.chunks_exact_mut(input).zip(&q) {
        for (w, q) in w.chunks_exact(input).zip(column) {
            row.iter_mut().zip(w).for_each(|(r, w)| *r += q * w);
        }
    }
    Ok((b, a))
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Replaces B by [B, −B₀] and A by [A; A₀]. These are frozen: training them would not be PiSSA or OLoRA.
fn double(term: &mut LowRank, (b0, a0): First, [output, input]: [usize; 2]) -> Result<()> {
    let (a, b, rank) = (term.a.value()?, term.b.value()?, term.rank());
    let all = [a.to_f64()?, a0].concat();
    let halves = b.to_f64()?;
    let rows = halves.chunks_exact(rank).zip(b0.chunks_exact(rank));
    let wide: Vec<f64> = rows.flat_map(|(own, first)| own.iter().copied().chain(first.iter().map(|x| -x))).collect();
    let tensor = |values, dtype: DType, dims: [usize; 2]| Tensor::from_f64(values, DType::F64, dims)?.to_dtype(dtype);
    term.a = Weight::frozen(term.a.name(), tensor(all, a.dtype(), [2 * rank, input])?);
    term.b = Weight::frozen(term.b.name(), tensor(wide, b.dtype(), [output, 2 * rank])?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(rank: usize, scale: f64) -> LowRank {
        let zeros = |dims: [usize; 2]| Tensor::zeros(DType::F64, dims);
        LowRank { a: Weight::trained("a", zeros([rank, 3])), b: Weight::trained("b", zeros([3, rank])), scale, dropout: 0.0 }
    }

    fn product((b, a): First, rank: usize) -> Vec<f64> {
        let element = |o: usize, i: usize| (0..rank).map(|l| b[o * rank + l] * a[l * 3 + i]).sum();
        (0..9).map(|at| element(at / 3, at % 3)).collect()
    }

    #[test]
    fn starts_are_parts_of_the_weight_and_ties_are_refused() {
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        let w = [0.0, 3.0, 0.0, -2.0, 0.0, 0.0, 0.0, 0.0, 1.0];
        let first = pissa(&w, [3, 3], &term(2, 0.5)).unwrap();
        // s B₀ A₀ has the two largest values.
        let scaled: Vec<f64> = product(first, 2).iter().map(|x| 0.5 * x).collect();
        assert!(close(&scaled, &[0.0, 3.0, 0.0, -2.0, 0.0, 0.0, 0.0, 0.0, 0.0]), "{scaled:?}");
        // Q R of the first column: W projected on it.
        let first = olora(&[3.0, 1.0, 0.0, 4.0, 0.0, 5.0, 0.0, 7.0, 0.0], [3, 3], &term(1, 0.5)).unwrap();
        assert!(close(&product(first, 1), &[3.0, 0.36, 2.4, 4.0, 0.48, 3.2, 0.0, 0.0, 0.0]));

        let says = |refused: Result<First>, word: &str| assert!(refused.is_err_and(|e| e.to_string().contains(word)), "{word}");
        says(pissa(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], [3, 3], &term(2, 1.0)), "are equal");
        says(pissa(&w, [3, 3], &term(2, 0.0)), "not positive");
        says(olora(&[1.0, 2.0, 0.0, 1.0, 2.0, 1.0, 0.0, 0.0, 1.0], [3, 3], &term(2, 1.0)), "column 2");
        // Values that are nothing are equal without harm.
        assert!(pissa(&[0.0; 9], [3, 3], &term(2, 1.0)).is_ok() && pissa(&w, [3, 3], &term(3, 1.0)).is_ok());
    }
}
