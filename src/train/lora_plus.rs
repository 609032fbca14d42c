//! LoRA+: a higher learning rate for B.

use super::optimizer::LrFactor;
use crate::autograd::Parameter;
use crate::{Error, Result};
use std::collections::BTreeSet;

/// LoRA+: the learning rate of B is `ratio` times that of A. Hayou et al. 2024, <https://arxiv.org/abs/2402.12354>, section 4. As in PEFT, vectors
/// such as the head's biases have the higher rate, too.
///
/// # Errors
/// If the ratio is not a positive finite number.
pub fn lora_plus(parameters: &[&Parameter], ratio: f64) -> Result<LrFactor> {
    if !(ratio > 0.0 && ratio.is_finite()) {
        return Err(Error::invalid(format!("lora+: the ratio is {ratio}, and must be positive")));
    }
    let faster = parameters.iter().filter(|p| p.name().contains(".lora_B.") || p.value().dims().len() == 1);
    let faster: BTreeSet<String> = faster.map(|p| p.name().to_string()).collect();
    Ok(Box::new(move |name| if faster.contains(name) { ratio } else { 1.0 }))
}
