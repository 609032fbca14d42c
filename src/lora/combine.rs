//! Several LoRA adapters of one base as one: W + Σ wᵢ sᵢ Bᵢ Aᵢ, as PEFT's `add_weighted_adapter`.

use super::{LoraConfig, check_finite};
use crate::nn::{DistilBert, Linear, Weight, in_head, in_pooler};
use crate::tensor::svd::{Svd, svd};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};
use std::ops::RangeInclusive;

/// How adapters are combined. Every wᵢ sᵢ is split evenly: √(wᵢ sᵢ) scales Aᵢ, and Bᵢ too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Combination {
    /// A = Σ √(wᵢ sᵢ) Aᵢ and B = Σ √(wᵢ sᵢ) Bᵢ, of equal ranks. This is not the sum of the products: B A also has products of factors of different
    /// adapters.
    Linear,
    /// The rows of all A in one A, and the columns of all B in one B: exactly the sum, of rank Σ rᵢ.
    Cat,
    /// The sum cut to its largest singular values: the nearest matrix of this rank (Eckart & Young 1936).
    Svd {
        /// Rank of the result.
        rank: usize,
    },
}

/// The weights that an adapter may have. A larger one would not fit into the numbers of the result.
const WEIGHTS: RangeInclusive<f64> = 0.0..=1e6;

/// Puts Σ wᵢ · adapter i on `base`, which has no terms yet, and the weighted mean of the heads. `adapted` are models and their weights wᵢ. Returns the
/// configuration of the new terms, which have scale 1.
///
/// # Errors
/// - If a weight is negative or above 10⁶, or none is above 0.
/// - If the models adapt different linears, trained something that is not a low-rank term or the head, or hold a number that is not finite.
/// - If the ranks do not fit.
pub fn combine(base: &mut DistilBert, mut adapted: Vec<(DistilBert, f64)>, how: Combination) -> Result<LoraConfig> {
    if let Some((_, weight)) = adapted.iter().find(|(_, weight)| !WEIGHTS.contains(weight)) {
        let (least, most) = (WEIGHTS.start(), WEIGHTS.end());
        return Err(Error::invalid(format!("combine: the weight {weight:e} of an adapter must be a number from {least} to {most}")));
    }
    let total: f64 = adapted.iter().map(|(_, weight)| weight).sum();
    if total == 0.0 {
        return Err(Error::invalid("combine: there must be an adapter whose weight is above 0"));
    }
    for (model, _) in &adapted {
        let of_base = |name: &str| !in_head(name) || (in_pooler(name) && !base.pre_classifier_in_head);
        let trained = |w: &&Weight| w.parameter().is_some() && of_base(w.name());
        if let Some(w) = model.weights().into_iter().find(trained) {
            return Err(Error::invalid(format!("combine: {} trained itself: only low-rank terms and heads can be combined", w.name())));
        }
    }
    let head = mean_head(&adapted, total)?;
    let mut linears: Vec<_> = adapted.iter_mut().map(|(model, weight)| (model.linears_mut(), *weight)).collect();
    let mut joined = Vec::new();
    for (i, linear) in base.linears_mut().into_iter().enumerate() {
        let same: Vec<_> = linears.iter_mut().map(|(linears, weight)| (&*linears[i], *weight)).collect();
        if let Some(factors) = join(&same, how)? {
            joined.push((linear.name.clone(), factors));
        }
    }
    let config = config_of(&joined)?;
    super::adapt(base, &config, 0)?;
    let terms = base.linears_mut().into_iter().flat_map(|l| &mut l.terms);
    for (term, (_, Factors { a, b, .. })) in terms.zip(joined) {
        set(&mut term.a, a)?;
        set(&mut term.b, b)?;
    }
    let own = base.head_linears_mut().into_iter().flat_map(Linear::parts_mut);
    own.zip(head).try_for_each(|(part, values)| set(part.weight(), values))?;
    adapted.iter().try_for_each(|(model, _)| model.check_unchanged())?;
    Ok(config)
}

/// Σ wᵢ · headᵢ / Σ wᵢ: the values of each weight of the head.
fn mean_head(adapted: &[(DistilBert, f64)], total: f64) -> Result<Vec<Vec<f64>>> {
    let mut mean: Vec<Vec<f64>> = Vec::new();
    for (model, weight) in adapted {
        let parts = model.head_linears().into_iter().flat_map(Linear::parts);
        let own: Vec<Vec<f64>> = parts.map(|part| finite(part.weight())).collect::<Result<_>>()?;
        if mean.is_empty() {
            mean = own.iter().map(|w| vec![0.0; w.len()]).collect();
        }
        if own.iter().zip(&mean).any(|(a, b)| a.len() != b.len()) {
            return Err(Error::invalid("combine: the adapters have heads of different sizes"));
        }
        let share = *weight / total;
        mean.iter_mut().flatten().zip(own.iter().flatten()).for_each(|(sum, x)| *sum += share * x);
    }
    Ok(mean)
}

/// The configuration of terms of scale 1: the rank of the first linear, and the other ranks as exceptions.
fn config_of(joined: &[(String, Factors)]) -> Result<LoraConfig> {
    let Some((_, first)) = joined.first() else { return Err(Error::invalid("combine: the adapters have no low-rank term")) };
    let mut config = LoraConfig { alpha: first.rank as f64, dropout: 0.0, ..LoraConfig::new(first.rank, &[]) };
    for (name, Factors { rank, .. }) in joined {
        config.targets.push(name.clone());
        if *rank != first.rank {
            config.rank_pattern.push((name.clone(), *rank));
            config.alpha_pattern.push((name.clone(), *rank as f64));
        }
    }
    Ok(config)
}

/// The values of a weight, which must be finite.
fn finite(weight: &Weight) -> Result<Vec<f64>> {
    check_finite("combine", weight)?;
    weight.value()?.to_f64()
}

/// Gives a weight these values, rounded to its type, in which they must be finite too.
fn set(weight: &mut Weight, values: Vec<f64>) -> Result<()> {
    let old = weight.value()?;
    weight.set(Tensor::from_f64(values, DType::F64, old.shape())?.to_dtype(old.dtype())?)?;
    check_finite("combine", weight)
}

/// A `[r, in]` and B `[out, r]`, row by row.
struct Factors {
    a: Vec<f64>,
    b: Vec<f64>,
    rank: usize,
}

/// A row of A, and the column of B that it is multiplied with.
type Pair = (Vec<f64>, Vec<f64>);

/// The rows of A and columns of B of one linear of an adapter of weight w, both scaled by √(w s).
fn pairs(linear: &Linear, weight: f64) -> Result<Vec<Pair>> {
    let [term] = &linear.terms[..] else { return Err(problem(linear, "adapted by some and not by others, or twice")) };
    if linear.variant.is_some() {
        return Err(problem(linear, "has a magnitude (DoRA), which does not add up"));
    }
    let ((output, input), rank, root) = (linear.dims(), term.rank(), (weight * term.scale).sqrt());
    if !root.is_finite() {
        return Err(problem(linear, "has a negative scale"));
    }
    let (a, b) = (finite(&term.a)?, finite(&term.b)?);
    let row = |k: usize| a[k * input..][..input].iter().map(|x| root * x).collect();
    let column = |k: usize| (0..output).map(|o| root * b[o * rank + k]).collect();
    Ok((0..rank).map(|k| (row(k), column(k))).collect())
}

fn problem(linear: &Linear, what: &str) -> Error {
    Error::invalid(format!("combine: {}: {what}", linear.name))
}

/// The combined factors of one linear, given that linear of every adapter; `None` if none adapts it.
fn join(linears: &[(&Linear, f64)], how: Combination) -> Result<Option<Factors>> {
    let first = linears[0].0;
    if linears.iter().all(|(linear, _)| linear.terms.is_empty()) {
        return Ok(None);
    }
    let mut all = linears.iter().map(|(linear, weight)| pairs(linear, *weight)).collect::<Result<Vec<_>>>()?;
    let (output, input) = first.dims();
    if how == Combination::Linear {
        let mut sum = all.remove(0);
        for other in all {
            if other.len() != sum.len() {
                return Err(problem(first, "the ranks differ: combine by cat or svd"));
            }
            for ((a, b), (x, y)) in sum.iter_mut().zip(other) {
                a.iter_mut().zip(x).for_each(|(a, x)| *a += x);
                b.iter_mut().zip(y).for_each(|(b, y)| *b += y);
            }
        }
        return Ok(Some(side_by_side(&sum, output)));
    }
    let joined = side_by_side(&all.concat(), output);
    let Combination::Svd { rank } = how else { return Ok(Some(joined)) };
    if rank == 0 || rank > joined.rank {
        return Err(problem(first, &format!("rank {rank} is not between 1 and the {} of all together", joined.rank)));
    }
    Ok(Some(cut(&joined, [output, input], rank)))
}

/// A of its rows, and B of its columns.
fn side_by_side(pairs: &[Pair], output: usize) -> Factors {
    let a = pairs.iter().flat_map(|(row, _)| row.iter().copied()).collect();
    let b = (0..output).flat_map(|o| pairs.iter().map(move |(_, column)| column[o])).collect();
    Factors { a, b, rank: pairs.len() }
}

/// The largest `rank` singular values of B A, and their vectors: A = √S Vᵀ, B = U √S. B A `[out, in]` itself is never formed: with B = U₁ S₁ V₁ᵀ, the
/// small matrix S₁ V₁ᵀ A `[k, in]` has the same singular values.
fn cut(Factors { a, b, rank: k }: &Factors, [output, input]: [usize; 2], rank: usize) -> Factors {
    let left = svd(b, output, *k);
    let n = left.s.len();
    let mut core = vec![0.0; n * input];
    for i in 0..n {
        for j in 0..*k {
            let factor = left.s[i] * left.v[j * n + i];
            core[i * input..][..input].iter_mut().zip(&a[j * input..][..input]).for_each(|(c, a)| *c += factor * a);
        }
    }
    let Svd { u, s, v } = svd(&core, n, input);
    let m = s.len();
    // Beyond the m singular values of the product, rows of A and columns of B are zero.
    let value = |l: usize, of: &dyn Fn() -> f64| if l < m { s[l].sqrt() * of() } else { 0.0 };
    let column = |o: usize, l: usize| (0..n).map(|i| left.u[o * n + i] * u[i * m + l]).sum::<f64>();
    let (mut small_a, mut small_b) = (Vec::new(), Vec::new());
    for l in 0..rank {
        small_a.extend((0..input).map(|i| value(l, &|| v[i * m + l])));
    }
    for o in 0..output {
        small_b.extend((0..rank).map(|l| value(l, &|| column(o, l))));
    }
    Factors { a: small_a, b: small_b, rank }
}
