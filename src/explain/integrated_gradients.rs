//! Integrated gradients. Sundararajan, Taly & Yan 2017, "Axiomatic attribution for deep networks", <https://arxiv.org/abs/1703.01365>, equation 1.
//!
//! aᵢ = (xᵢ − x′ᵢ) · ∫₀¹ ∂F(x′ + α (x − x′)) / ∂xᵢ dα, for the embeddings x `[N, D]` of a text, those of a baseline x′ `[N, D]`, and the logit F of a class. A
//! token's number is the sum over its row. Completeness (proposition 1 of the paper): the sum of all aᵢ is F(x) − F(x′).
//!
//! The integral is a sum over points, so there is a gap. The paper adds points everywhere. But the head's ReLU gives the gradient jumps along the line, and
//! near them a sum converges slowly. The completeness of a part of the line, from F at its two ends, shows where the jumps are: only the parts with a
//! large gap are cut in two, and get new points.

use super::gauss_legendre;
use crate::autograd::{Parameter, Tape};
use crate::data::WordPiece;
use crate::nn::{DistilBert, Pass};
use crate::tensor::{Sequences, Tensor};
use crate::{Error, Result};
use std::sync::Arc;

/// Points of the first sum, over the whole line.
pub const FEWEST_STEPS: usize = 16;
/// Most points that are computed.
pub const MOST_STEPS: usize = 1024;
/// Points of each half of a part that is cut.
const HALF: usize = 8;
/// Rows of the points that are computed together.
const ROWS: usize = 2048;

/// What each token contributes to the logit of a class, compared with a baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribution {
    /// The sum of aᵢ over the row of each token: `[T]`.
    pub tokens: Vec<f64>,
    /// F(x), the logit of the text.
    pub output: f64,
    /// F(x′), the logit of the baseline.
    pub baseline: f64,
    /// Points of the sum.
    pub steps: usize,
}

impl Attribution {
    /// The completeness gap |Σ a − (F(x) − F(x′))| / |F(x) − F(x′)|, as a share: 0.01 is 1 %. Infinite if F(x) = F(x′) and Σ a is another number.
    pub fn gap(&self) -> f64 {
        let change = self.output - self.baseline;
        let missing = (self.tokens.iter().sum::<f64>() - change).abs();
        if missing == 0.0 { 0.0 } else { missing / change.abs() }
    }
}

/// A baseline for `ids`: the first and the last token, `[CLS]` and `[SEP]`, stay, and all others are `[PAD]`; `[UNK]` if the vocabulary has no `[PAD]`.
pub fn baseline(wordpiece: &WordPiece, ids: &[u32]) -> Vec<u32> {
    let blank = wordpiece.id("[PAD]").or(wordpiece.id("[UNK]")).unwrap_or(0);
    let last = ids.len().saturating_sub(1);
    ids.iter().enumerate().map(|(i, &id)| if i == 0 || i == last { id } else { blank }).collect()
}

/// The attribution of `ids` `[T]` for the logit of `class`, compared with `baseline` `[T]`. The first sum has `steps.0` points; further ones are added
/// until the gap is below `gap` or `steps.1` are computed. Before each part of the work, `go_on` may stop it: then the result is `None`.
///
/// # Errors
/// If the baseline has another length, there is no such class, and those of the model.
pub fn integrated_gradients(
    model: &DistilBert,
    ids: &[u32],
    baseline: &[u32],
    class: usize,
    (gap, steps): (f64, (usize, usize)),
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Option<Attribution>> {
    let line = Line::new(model, ids, baseline, class)?;
    let [start, end] = line.ends;
    let first = Part { from: (0.0, start), to: (1.0, end), tokens: vec![0.0; ids.len()], steps: 0 };
    let Some(first) = line.filled(first, steps.0.max(1), go_on)? else { return Ok(None) };
    let (mut parts, mut computed) = (vec![first], steps.0.max(1));
    loop {
        let mut tokens = vec![0.0; ids.len()];
        parts.iter().for_each(|part| tokens.iter_mut().zip(&part.tokens).for_each(|(sum, a)| *sum += a));
        let found = Attribution { tokens, output: end, baseline: start, steps: parts.iter().map(|part| part.steps).sum() };
        let worst = (0..parts.len()).max_by(|&i, &j| parts[i].missing().total_cmp(&parts[j].missing()));
        let enough = found.gap() < gap || computed + 2 * HALF > steps.1;
        let Some(worst) = worst.filter(|_| !enough) else {
            model.check_unchanged()?;
            return Ok(Some(found));
        };
        for half in line.halves(&parts.swap_remove(worst))? {
            let Some(half) = line.filled(half, HALF, go_on)? else { return Ok(None) };
            parts.push(half);
        }
        computed += 2 * HALF;
    }
}

/// A part of the line, and the sum over its points.
struct Part {
    /// α and F at both ends.
    from: (f64, f64),
    to: (f64, f64),
    /// The part of each token's number: `[T]`.
    tokens: Vec<f64>,
    steps: usize,
}

impl Part {
    /// The completeness gap of this part.
    fn missing(&self) -> f64 {
        (self.tokens.iter().sum::<f64>() - (self.to.1 - self.from.1)).abs()
    }
}

/// The straight line from the baseline's embeddings to those of the text.
struct Line<'a> {
    model: &'a DistilBert,
    class: usize,
    /// x′ `[N, D]`, and x − x′ `[N, D]`.
    start: Vec<f64>,
    change: Vec<f64>,
    /// A tensor on the device of the model.
    like: Tensor,
    /// T; N has also the rows of a prompt, which are equal in both.
    tokens: usize,
    /// F(x′) and F(x).
    ends: [f64; 2],
}

impl<'a> Line<'a> {
    fn new(model: &'a DistilBert, ids: &[u32], baseline: &[u32], class: usize) -> Result<Line<'a>> {
        if ids.len() != baseline.len() {
            return Err(Error::shape("integrated gradients", "a baseline as long as the text", &[&[ids.len()], &[baseline.len()]]));
        }
        let classes = model.classifier.dims().0;
        if class >= classes {
            return Err(Error::invalid(format!(
                "integrated gradients: there is no class {class}: the model has {classes}, counted from 0"
            )));
        }
        let both = model.embeddings(&[ids, baseline].concat(), &Arc::new(Sequences::new(&[ids.len(); 2], vec![0; 2])?))?;
        let values = both.to_f64()?;
        let (text, start) = values.split_at(values.len() / 2);
        let change = text.iter().zip(start).map(|(x, start)| x - start).collect();
        let mut line = Line { model, class, start: start.to_vec(), change, like: both, tokens: ids.len(), ends: [0.0; 2] };
        line.ends = [line.logit(0.0)?, line.logit(1.0)?];
        match line.ends.iter().find(|z| !z.is_finite()) {
            Some(bad) => Err(Error::invalid(format!("integrated gradients: the model answers {bad}: it cannot be explained"))),
            None => Ok(line),
        }
    }

    /// The embeddings at some points of the line, as sequences of one packed batch: `[n·N, D]`, and the pass over them.
    fn points(&self, alphas: impl Iterator<Item = f64>) -> Result<(Tensor, Pass)> {
        let at = |alpha: f64| self.start.iter().zip(&self.change).map(move |(start, change)| start + alpha * change);
        let values: Vec<f64> = alphas.flat_map(at).collect();
        let (d, n) = (self.model.config.dim, values.len() / self.start.len());
        let shape = [values.len() / d, d];
        let h = Tensor::from_f64(values, self.model.dtype, shape)?.to_device_of(&self.like)?;
        Ok((h, Pass::evaluation(Arc::new(Sequences::new(&vec![self.tokens; n], vec![0; n])?))))
    }

    /// F at a point.
    fn logit(&self, alpha: f64) -> Result<f64> {
        let (h, pass) = self.points([alpha].into_iter())?;
        let mut tape = Tape::inference();
        let h = tape.constant(&h);
        Ok(self.model.forward_on_embeddings(&mut tape, &h, &pass)?.value().to_f64()?[self.class])
    }

    /// The two halves of a part, still without points.
    fn halves(&self, part: &Part) -> Result<[Part; 2]> {
        let middle = (part.from.0 + part.to.0) / 2.0;
        let middle = (middle, self.logit(middle)?);
        Ok([(part.from, middle), (middle, part.to)].map(|(from, to)| Part { from, to, tokens: Vec::new(), steps: 0 }))
    }

    /// The part with the sum over `n` points; `None` if it was stopped.
    fn filled(&self, part: Part, n: usize, go_on: &mut dyn FnMut() -> bool) -> Result<Option<Part>> {
        let d = self.model.config.dim;
        let (rows, length) = (self.start.len() / d, part.to.0 - part.from.0);
        let mut sums = vec![0.0; rows];
        let points: Vec<(f64, f64)> = gauss_legendre(n).iter().map(|(x, w)| (part.from.0 + length * x, length * w)).collect();
        for points in points.chunks((ROWS / rows).max(1)) {
            if !go_on() {
                return Ok(None);
            }
            let gradient = self.gradients(points)?;
            // Each row of the gradient at each point, times the same row of x − x′.
            for (i, row) in gradient.chunks_exact(d).enumerate() {
                let change = &self.change[i % rows * d..][..d];
                sums[i % rows] += row.iter().zip(change).map(|(g, change)| g * change).sum::<f64>();
            }
        }
        // The rows of a prompt come first.
        Ok(Some(Part { tokens: sums.split_off(rows - self.tokens), steps: n, ..part }))
    }

    /// w · ∂F/∂x at each point (α, w): `[n·N, D]`.
    fn gradients(&self, points: &[(f64, f64)]) -> Result<Vec<f64>> {
        let classes = self.model.classifier.dims().0;
        let (h, pass) = self.points(points.iter().map(|(alpha, _)| *alpha))?;
        // The embeddings are the leaf. The model's own parameters are leaves too, and their gradients are dropped.
        let leaf = Parameter::new("embeddings", h);
        let mut tape = Tape::new();
        let h = tape.parameter(&leaf);
        let logits = self.model.forward_on_embeddings(&mut tape, &h, &pass)?;
        let mut dy = vec![0.0; points.len() * classes];
        points.iter().enumerate().for_each(|(i, &(_, weight))| dy[i * classes + self.class] = weight);
        let dy = Tensor::from_f64(dy, logits.value().dtype(), logits.shape())?.to_device_of(logits.value())?;
        let missing = || Error::invalid("integrated gradients: no gradient reaches the embeddings");
        tape.vjp(&logits, dy)?.get(&leaf).ok_or_else(missing)?.to_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Config;
    use crate::tensor::DType;

    fn tiny(dtype: DType) -> DistilBert {
        let mut config = Config::distilbert_base();
        (config.dim, config.n_heads, config.hidden_dim, config.n_layers, config.vocab_size) = (24, 3, 40, 2, 50);
        DistilBert::random(&config, 3, dtype, 5).unwrap()
    }

    const IDS: [u32; 6] = [2, 17, 33, 8, 41, 3];
    const BASELINE: [u32; 6] = [2, 0, 0, 0, 0, 3];

    fn attribution(model: &DistilBert, class: usize, steps: usize) -> Attribution {
        integrated_gradients(model, &IDS, &BASELINE, class, (0.0, (steps, steps)), &mut || true).unwrap().unwrap()
    }

    #[test]
    fn they_are_complete_and_steps_are_added_until_they_are() {
        let model = tiny(DType::F64);
        for class in 0..3 {
            let found = attribution(&model, class, 64);
            assert!(found.gap() < 1e-9, "{found:?} {}", found.gap());
            assert!((found.output - found.baseline).abs() > 1e-6);
            // Equal tokens in both texts contribute nothing.
            assert_eq!((found.tokens[0], found.tokens[5]), (0.0, 0.0));
        }
        let coarse = attribution(&model, 0, 1).gap();
        let run = |gap, steps| integrated_gradients(&model, &IDS, &BASELINE, 0, (gap, steps), &mut || true).unwrap().unwrap();
        let found = run(coarse / 1e4, (1, 999));
        assert!(found.steps > 1 && found.gap() < coarse / 1e4, "{found:?}");
        // 3 points, then 16 in their place, then 8 of those replaced by 16: no more than 40 were computed.
        assert_eq!(run(0.0, (3, 40)).steps, 24);
    }

    #[test]
    fn each_token_has_the_integral_of_finite_differences_along_its_row() {
        let model = tiny(DType::F64);
        let found = attribution(&model, 1, 12);
        let line = Line::new(&model, &IDS, &BASELINE, 1).unwrap();
        let (d, eps) = (24, 1e-5);
        for token in 0..IDS.len() {
            // F at the point `alpha`, and `moved` further along x − x′ in the row of the token alone.
            let value = |alpha: f64, moved: f64| {
                let shift = |i: usize| if i / d == token { alpha + moved } else { alpha };
                let h: Vec<f64> =
                    line.start.iter().zip(&line.change).enumerate().map(|(i, (start, change))| start + shift(i) * change).collect();
                let mut tape = Tape::inference();
                let h = tape.constant(&Tensor::new(h, [IDS.len(), d]).unwrap());
                let pass = Pass::evaluation(Arc::new(Sequences::new(&[IDS.len()], vec![0]).unwrap()));
                model.forward_on_embeddings(&mut tape, &h, &pass).unwrap().value().to_f64().unwrap()[1]
            };
            let slope = |alpha: f64| (value(alpha, eps) - value(alpha, -eps)) / (2.0 * eps);
            let integral: f64 = gauss_legendre(12).iter().map(|&(alpha, weight)| weight * slope(alpha)).sum();
            assert!((integral - found.tokens[token]).abs() < 1e-8, "token {token}: {integral} {}", found.tokens[token]);
        }
    }

    #[test]
    fn a_prompt_and_trained_terms_change_nothing_of_the_rules() {
        let mut model = tiny(DType::F64);
        let rows = (0..48).map(|i| (f64::from(i) * 0.7).sin()).collect();
        model.prompt = Some(crate::nn::Weight::trained("prompt", Tensor::from_f64(rows, DType::F64, [2, 24]).unwrap()));
        crate::lora::adapt(&mut model, &crate::lora::LoraConfig::new(2, &["q_lin", "v_lin"]), 0).unwrap();
        let found = attribution(&model, 2, 64);
        assert!(found.tokens.len() == IDS.len() && found.gap() < 1e-9, "{found:?}");
        let p = model.attention(&IDS, 1).unwrap();
        assert_eq!((p.len(), p[0].len(), p[0][0].len()), (3, 8, 8), "heads, and the prompt's rows too");
    }

    #[test]
    fn what_cannot_be_explained_is_an_error_and_work_can_be_stopped() {
        let model = tiny(DType::F32);
        let run = |baseline: &[u32], class| integrated_gradients(&model, &IDS, baseline, class, (0.01, (16, 64)), &mut || true);
        assert!(run(&BASELINE, 3).unwrap_err().to_string().contains("no class 3"));
        assert!(run(&BASELINE[1..], 0).unwrap_err().to_string().contains("as long as the text"));
        assert!(model.attention(&IDS, 2).unwrap_err().to_string().contains("no layer 2"));
        let mut calls = 0;
        let mut go_on = || {
            calls += 1;
            calls < 2
        };
        assert!(integrated_gradients(&model, &IDS, &BASELINE, 0, (0.0, (16, 64)), &mut go_on).unwrap().is_none());
        // The text is its own baseline: nothing is missing.
        let same = run(&IDS, 0).unwrap().unwrap();
        assert!(same.gap() == 0.0 && same.tokens == [0.0; 6]);
    }
}
