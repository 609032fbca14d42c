//! Virtual tokens: trained rows that stand before the tokens of a text.
//!
//! Prompt tuning adds P rows before the embeddings of each sequence. Lester et al. 2021, <https://arxiv.org/abs/2104.08691>. As in PEFT, the rows
//! are added before positions and layer norm, and take the first P positions: a text has at most 512 − P tokens, and the classifier reads the first
//! row of the prompt.
//!
//! Prefix tuning adds P keys and P values to the attention of each layer. Li & Liang 2021, <https://arxiv.org/abs/2101.00190>, section 4; without the
//! reparametrisation, like PEFT's default. Both start at N(0, 1), as in PEFT.

use super::normal;
use crate::Result;
use crate::nn::DistilBert;

/// Name of the prompt in PEFT's file.
pub(super) const PROMPT: &str = "prompt_embeddings";

/// Puts P = `tokens` rows before the embeddings.
pub(super) fn prompt(model: &mut DistilBert, tokens: usize, seed: u64) -> Result<()> {
    model.prompt = Some(normal(PROMPT.to_string(), [tokens, model.config.dim], 1.0, model.dtype.accum(), seed)?);
    Ok(())
}

/// Puts P = `tokens` keys and values into the attention of each layer.
pub(super) fn prefix(model: &mut DistilBert, tokens: usize, seed: u64) -> Result<()> {
    let (d, dtype) = (model.config.dim, model.dtype.accum());
    for block in &mut model.blocks {
        let name = |part: &str| format!("{}.attention.prefix_{part}", block.name);
        block.prefix = Some([normal(name("k"), [tokens, d], 1.0, dtype, seed)?, normal(name("v"), [tokens, d], 1.0, dtype, seed)?]);
    }
    Ok(())
}
