//! Tokens that no text has: rows that are trained in place of weights.
//!
//! Prompt tuning: P rows before each sequence's embeddings. Lester et al. 2021, <https://arxiv.org/abs/2104.08691>. As in PEFT the rows enter
//! before positions and layer norm and take the first P positions, so that texts are at most 512 − P tokens long, and the classifier
//! reads the first of them. Prefix tuning: P keys and values in each layer's attention. Li & Liang 2021,
//! <https://arxiv.org/abs/2101.00190>, section 4, without the reparametrisation, as PEFT's default. Both start at N(0, 1), as PEFT's.

use super::normal;
use crate::Result;
use crate::nn::DistilBert;

/// Key of a prompt in PEFT's file.
pub(super) const PROMPT: &str = "prompt_embeddings";

/// Puts `tokens` rows before the embeddings, which leave positions for `[CLS]`, a token and `[SEP]`.
pub(super) fn prompt(model: &mut DistilBert, tokens: usize, seed: u64) -> Result<()> {
    model.prompt = Some(normal(PROMPT.to_string(), [tokens, model.config.dim], 1.0, model.dtype.accum(), seed)?);
    Ok(())
}

/// Puts `tokens` keys and values into each layer's attention.
pub(super) fn prefix(model: &mut DistilBert, tokens: usize, seed: u64) -> Result<()> {
    let (d, dtype) = (model.config.dim, model.dtype.accum());
    for block in &mut model.blocks {
        let name = |part: &str| format!("distilbert.transformer.layer.{}.attention.prefix_{part}", block.layer);
        block.prefix = Some([normal(name("k"), [tokens, d], 1.0, dtype, seed)?, normal(name("v"), [tokens, d], 1.0, dtype, seed)?]);
    }
    Ok(())
}
