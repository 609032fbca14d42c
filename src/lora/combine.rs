//! Several LoRA adapters of one base as one: W₀ + Σ wᵢ sᵢ Bᵢ Aᵢ, as PEFT's `add_weighted_adapter`.

use super::LoraConfig;
use crate::nn::{DistilBert, Linear, Weight};
use crate::tensor::svd::{Svd, svd};
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};

/// How adapters are combined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Combination {
    /// A = Σ √(wᵢ sᵢ) Aᵢ and B = Σ √(wᵢ sᵢ) Bᵢ of equal ranks: cheap, and not the sum of the products, as products of unlike factors come in.
    Linear,
    /// The factors side by side: the sum exactly, of rank Σ rᵢ.
    Cat,
    /// The sum cut to its largest singular values: the nearest of this rank (Eckart & Young 1936).
    Svd {
        /// Rank of the result.
        rank: usize,
    },
}

/// Puts Σ wᵢ · adapter i on `base`, which has no terms yet, and the weighted mean of the heads. Returns the configuration of what it put there;
/// its scale is 1 throughout.
///
/// # Errors
/// If the models adapt different linears, have something that is no plain low-rank term, or a number that is not finite, or the ranks do not fit.
pub fn combine(base: &mut DistilBert, mut adapted: Vec<(DistilBert, f64)>, how: Combination) -> Result<LoraConfig> {
    let total: f64 = adapted.iter().map(|(_, weight)| weight).sum();
    if adapted.is_empty() || !(total > 0.0 && total.is_finite()) || adapted.iter().any(|&(_, w)| w < 0.0) {
        return Err(Error::invalid("combine: there must be an adapter, no negative weight, and one that is positive"));
    }
    for (model, _) in &adapted {
        let plain = |w: &&Weight| matches!(w, Weight::Trained(_)) && w.name().starts_with("distilbert.");
        if let Some(w) = model.weights().into_iter().find(plain) {
            return Err(Error::invalid(format!("combine: {} trained itself: only low-rank terms and heads can be combined", w.name())));
        }
    }
    let heads = |m: &DistilBert| -> Result<Vec<Vec<f64>>> {
        let linears = [&m.pre_classifier, &m.classifier];
        linears.into_iter().flat_map(|l| [Some(&l.weight), l.bias.as_ref()]).flatten().map(finite).collect()
    };
    let mut head: Vec<Vec<f64>> = Vec::new();
    for (model, weight) in &adapted {
        let own = heads(model)?;
        if head.is_empty() {
            head = own.iter().map(|w| vec![0.0; w.len()]).collect();
        }
        if own.iter().zip(&head).any(|(a, b)| a.len() != b.len()) {
            return Err(Error::invalid("combine: the adapters have heads of different sizes"));
        }
        let share = *weight / total;
        head.iter_mut().flatten().zip(own.iter().flatten()).for_each(|(sum, x)| *sum += share * x);
    }
    let mut config = LoraConfig { dropout: 0.0, ..LoraConfig::default() };
    let mut columns: Vec<_> = adapted.iter_mut().map(|(model, weight)| (model.linears_mut(), *weight)).collect();
    let mut factors = Vec::new();
    for i in 0..base.linears_mut().len() {
        let terms: Vec<_> = columns.iter_mut().map(|(linears, weight)| (&*linears[i], *weight)).collect();
        if let Some(joined) = join(&terms, how)? {
            factors.push((i, joined));
        }
    }
    for (i, factors) in &factors {
        let (name, rank) = (base.linears_mut()[*i].name.clone(), factors.rank);
        config.targets.push(name.clone());
        // The first is the rule, others the exceptions.
        if config.rank == 0 {
            (config.rank, config.alpha) = (rank, rank as f64);
        } else if config.rank != rank {
            config.rank_pattern.push((name.clone(), rank));
            config.alpha_pattern.push((name, rank as f64));
        }
    }
    if factors.is_empty() {
        return Err(Error::invalid("combine: the adapters have no low-rank term"));
    }
    super::adapt(base, &config, 0)?;
    for (i, Factors { a, b, .. }) in factors {
        for term in &mut base.linears_mut()[i].terms {
            set(&mut term.a, a.clone())?;
            set(&mut term.b, b.clone())?;
        }
    }
    let weights =
        [&mut base.pre_classifier, &mut base.classifier].into_iter().flat_map(|l| [Some(&mut l.weight), l.bias.as_mut()]).flatten();
    weights.zip(head).try_for_each(|(weight, values)| set(weight, values))?;
    Ok(config)
}

/// The values of a weight.
fn finite(weight: &Weight) -> Result<Vec<f64>> {
    super::check_finite("combine", weight)?;
    weight.value()?.to_f64()
}

/// Gives a weight these values, in its own shape and type, in which they must be finite too.
fn set(weight: &mut Weight, values: Vec<f64>) -> Result<()> {
    let old = weight.value()?;
    weight.set(Tensor::from_f64(values, DType::F64, old.shape())?.to_dtype(old.dtype())?)?;
    super::check_finite("combine", weight)
}

/// A `[r, in]` and B `[out, r]`, row by row.
struct Factors {
    a: Vec<f64>,
    b: Vec<f64>,
    rank: usize,
}

/// The factors of one linear of all adapters; `None` if none adapts it.
fn join(linears: &[(&Linear, f64)], how: Combination) -> Result<Option<Factors>> {
    let name = &linears[0].0.name;
    let problem = |what: &str| Err(Error::invalid(format!("combine: {name}: {what}")));
    let (output, input) = linears[0].0.dims();
    // A row of A and a column of B belong together: a pair of them each, scaled by √(w s) both.
    let mut all: Vec<Vec<(Vec<f64>, Vec<f64>)>> = Vec::new();
    for (linear, weight) in linears {
        let [term] = &linear.terms[..] else {
            if linear.terms.is_empty() && linears.iter().all(|(l, _)| l.terms.is_empty()) {
                return Ok(None);
            }
            return problem("adapted by some and not by others, or twice");
        };
        if linear.variant.is_some() {
            return problem("has a magnitude (DoRA), which does not add up");
        }
        let (rank, root) = (term.rank(), (weight * term.scale).sqrt());
        if !root.is_finite() {
            return problem("has a negative scale");
        }
        let (a, b) = (finite(&term.a)?, finite(&term.b)?);
        let pair = |k: usize| {
            let row = a[k * input..][..input].iter().map(|x| root * x).collect();
            (row, (0..output).map(|o| root * b[o * rank + k]).collect())
        };
        all.push((0..rank).map(pair).collect());
    }
    let pairs: Vec<(Vec<f64>, Vec<f64>)> = match how {
        Combination::Linear => {
            let mut sum = all[0].clone();
            for other in &all[1..] {
                if other.len() != sum.len() {
                    return problem("the ranks differ: combine by cat or svd");
                }
                for ((a, b), (x, y)) in sum.iter_mut().zip(other) {
                    a.iter_mut().zip(x).for_each(|(a, x)| *a += x);
                    b.iter_mut().zip(y).for_each(|(b, y)| *b += y);
                }
            }
            sum
        }
        Combination::Cat | Combination::Svd { .. } => all.concat(),
    };
    let k = pairs.len();
    let (mut a, mut b, mut rank) =
        (pairs.iter().flat_map(|(row, _)| row.iter().copied()).collect::<Vec<f64>>(), side_by_side(&pairs, output), k);
    if let Combination::Svd { rank: wanted } = how {
        if wanted == 0 || wanted > k {
            return problem(&format!("rank {wanted} is not between 1 and the {k} of all together"));
        }
        (a, b) = cut(&a, &b, [output, k, input], wanted);
        rank = wanted;
    }
    Ok(Some(Factors { a, b, rank }))
}

/// B `[out, k]` of its columns.
fn side_by_side(pairs: &[(Vec<f64>, Vec<f64>)], output: usize) -> Vec<f64> {
    (0..output).flat_map(|o| pairs.iter().map(move |(_, column)| column[o])).collect()
}

/// The largest `rank` singular values of B A with their vectors, shared out evenly: A = √s Vᵀ, B = U √s. Of the factors, never of the product:
/// B = U₁ S₁ V₁ᵀ, then S₁ V₁ᵀ A `[k, in]`.
fn cut(a: &[f64], b: &[f64], [output, k, input]: [usize; 3], rank: usize) -> (Vec<f64>, Vec<f64>) {
    let left = svd(b, output, k);
    let n = left.s.len();
    let mut core = vec![0.0; n * input];
    for i in 0..n {
        for j in 0..k {
            let factor = left.s[i] * left.v[j * n + i];
            core[i * input..][..input].iter_mut().zip(&a[j * input..][..input]).for_each(|(c, a)| *c += factor * a);
        }
    }
    let Svd { u, s, v } = svd(&core, n, input);
    let m = s.len();
    // A product of fewer singular values than the rank asked for has zeros for the rest.
    let root = |l: usize| s.get(l).map_or(0.0, |s| s.sqrt());
    let small_a =
        (0..rank).flat_map(|l| (0..input).map(|i| if l < m { root(l) * v[i * m + l] } else { 0.0 }).collect::<Vec<_>>()).collect();
    let column = |o: usize, l: usize| (0..n).map(|i| left.u[o * n + i] * u[i * m + l]).sum::<f64>();
    let small_b = (0..output).flat_map(|o| (0..rank).map(move |l| (o, l))).map(|(o, l)| if l < m { root(l) * column(o, l) } else { 0.0 });
    (small_a, small_b.collect())
}
