//! The range of every number of a method. A number from a command line or a file may have any size, so both ways to a model check the ranges
//! before they allocate memory: [`Method::apply`], which trains, and `adapter.rs`, which reads an adapter's files. Every trained adapter can be loaded,
//! because the ranges are the same.

use super::{LoraConfig, Method};
use crate::nn::Config;
use crate::{Error, Result};
use std::iter::once;

/// The highest rank, the largest width of a bottleneck, and the most virtual tokens.
const LARGEST: usize = 4096;
/// The largest dimension of a subspace.
const LARGEST_SUBSPACE: usize = 1 << 16;
/// The largest |alpha|.
const LARGEST_ALPHA: f64 = 1e9;

fn within(what: &str, n: usize, most: usize) -> Result<()> {
    match (1..=most).contains(&n) {
        true => Ok(()),
        false => Err(Error::invalid(format!("{what} must be at least 1 and at most {most}, got {n}"))),
    }
}

impl Method {
    /// Checks every number against its range and against the sizes `config` of a model.
    ///
    /// # Errors
    /// If one is out of its range; the message names it.
    pub fn check(&self, config: &Config) -> Result<()> {
        self.check_ranges()?;
        let (layers, positions) = (config.n_layers, config.max_position_embeddings);
        let problem = match self {
            Method::Selective { frozen_layers } if *frozen_layers > layers => {
                format!("selective: {frozen_layers} frozen layers, but the model has {layers}")
            }
            Method::Prompt { tokens } if *tokens + 3 > positions => {
                let left = positions.saturating_sub(*tokens);
                let room = format!("there must be room for a text, which needs 3, in the model's {positions}");
                format!("prompt: {tokens} virtual tokens leaves {left} positions: {room}")
            }
            Method::Lora(lora) => match lora.layers.iter().find(|&&layer| layer >= layers) {
                Some(layer) if layers == 0 => format!("lora: there is no layer {layer}: the model has no layers"),
                Some(layer) => format!("lora: there is no layer {layer}: the model has the layers 0 to {}", layers - 1),
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        Err(Error::invalid(problem))
    }

    /// The part of [`Method::check`] that does not depend on the model.
    pub(super) fn check_ranges(&self) -> Result<()> {
        match self {
            Method::Lora(lora) => lora.check_ranges(),
            Method::Bottleneck { size, .. } => within("adapter: the size", *size, LARGEST),
            Method::Prompt { tokens } => within("prompt: the number of virtual tokens", *tokens, LARGEST),
            Method::Prefix { tokens } => within("prefix: the number of virtual tokens", *tokens, LARGEST),
            Method::Intrinsic { dimension, .. } => within("intrinsic: the dimension of the subspace", *dimension, LARGEST_SUBSPACE),
            Method::Head { .. } | Method::Full | Method::Selective { .. } | Method::BitFit => Ok(()),
        }
    }
}

impl LoraConfig {
    fn check_ranges(&self) -> Result<()> {
        for rank in once(self.rank).chain(self.rank_pattern.iter().map(|(_, rank)| *rank)) {
            within("lora: the rank", rank, LARGEST)?;
        }
        for alpha in once(self.alpha).chain(self.alpha_pattern.iter().map(|(_, alpha)| *alpha)) {
            if !(-LARGEST_ALPHA..=LARGEST_ALPHA).contains(&alpha) {
                return Err(Error::invalid(format!("lora: alpha must lie between -{LARGEST_ALPHA:e} and {LARGEST_ALPHA:e}, got {alpha}")));
            }
        }
        match (0.0..1.0).contains(&self.dropout) {
            true => Ok(()),
            false => Err(Error::invalid(format!("lora: dropout must lie in [0, 1), got {}", self.dropout))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Placement;
    use super::*;

    #[test]
    fn a_number_out_of_its_range_is_named() {
        let config = Config::distilbert_base();
        let lora = |change: fn(&mut LoraConfig)| {
            let mut lora = LoraConfig::new(8, &["q_lin"]);
            change(&mut lora);
            Method::Lora(lora)
        };
        for (method, message) in [
            (lora(|l| l.rank = 0), "the rank must be at least 1 and at most 4096, got 0"),
            (lora(|l| l.rank = usize::MAX), "got 18446744073709551615"),
            (lora(|l| l.rank_pattern = [("q_lin".to_string(), 4097)].into()), "the rank must be"),
            (lora(|l| l.alpha = f64::NAN), "alpha must lie"),
            (lora(|l| l.alpha_pattern = [("q_lin".to_string(), -2e9)].into()), "alpha must lie"),
            (lora(|l| l.dropout = 1.0), "dropout must lie in [0, 1), got 1"),
            (lora(|l| l.dropout = f64::NAN), "got NaN"),
            (lora(|l| l.layers = vec![0, 9]), "no layer 9: the model has the layers 0 to 5"),
            (Method::Bottleneck { size: 4097, placement: Placement::Pfeiffer }, "the size must be"),
            (Method::Prefix { tokens: 10_000_000_000 }, "virtual tokens must be"),
            (Method::Prompt { tokens: usize::MAX }, "virtual tokens must be"),
            (Method::Prompt { tokens: 510 }, "leaves 2 positions"),
            (Method::Intrinsic { dimension: 65_537, seed: 0 }, "at most 65536"),
            (Method::Selective { frozen_layers: 7 }, "7 frozen layers, but the model has 6"),
        ] {
            let said = method.check(&config).unwrap_err().to_string();
            assert!(said.contains(message), "{said} should say {message}");
        }
        for method in [
            lora(|l| (l.rank, l.layers, l.alpha) = (4096, vec![5], -1e9)),
            Method::Prompt { tokens: 509 },
            Method::Prefix { tokens: 4096 },
            Method::Intrinsic { dimension: 65_536, seed: u64::MAX },
            Method::Selective { frozen_layers: 6 },
        ] {
            method.check(&config).unwrap();
        }
    }
}
