//! What a method costs at inference.

use crate::lora::{Method, merge};
use crate::nn::DistilBert;
use crate::tensor::Tensor;
use crate::tensor::philox::Stream;
use crate::train::logits;
use crate::{Error, Result};
use serde::Serialize;
use std::time::Instant;

/// Times of a method, as medians with 95 % intervals: median, lower end, upper end.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Name given.
    pub method: String,
    /// Seconds of a batch.
    pub seconds: [f64; 3],
    /// Ratio to the base in the same round.
    pub ratio: [f64; 3],
}

/// What is timed.
pub struct Timing {
    /// Texts of the batch.
    pub batch: usize,
    /// Tokens of each text.
    pub length: usize,
    /// Rounds, in each of which every method has its turn.
    pub rounds: usize,
}

/// Times of one batch through `base`, and through it with each method (name, method, whether it is merged into the base). Methods take turns, and each
/// is set against the base of its own round: what slows the machine slows both.
///
/// # Errors
/// If a size is out of range, or a method cannot be applied.
pub fn latency(base: &DistilBert, methods: &[(String, Method, bool)], timing: &Timing) -> Result<Vec<Latency>> {
    let Timing { batch, length, rounds } = *timing;
    if batch == 0 || length < 3 || rounds == 0 {
        return Err(Error::invalid("latency: the batch and the rounds must be at least 1, the length at least 3"));
    }
    let room = |model: &DistilBert| match length <= model.longest_text() {
        true => Ok(()),
        false => Err(Error::invalid(format!("latency: a length of {length}, but there are {} positions for a text", model.longest_text()))),
    };
    room(base)?;
    let classes = base.classifier.dims().0;
    let mut models = vec![("base".to_string(), base.share(classes)?)];
    for (name, method, merged) in methods {
        let mut model = base.share(classes)?;
        method.apply(&mut model, 0)?;
        move_from_start(&mut model)?;
        if *merged {
            merge(&mut model)?;
            // As it is when it comes from its file: frozen.
            model = model.share(classes)?;
        }
        room(&model)?;
        models.push((name.clone(), model));
    }
    let mut random = Stream::new(0, "latency");
    let ids: Vec<Vec<u32>> = (0..batch).map(|_| (0..length).map(|_| random.below(base.config.vocab_size) as u32).collect()).collect();
    let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
    let mut seconds = vec![Vec::new(); models.len()];
    // The first round is for warming up.
    for round in 0..=rounds {
        for ((_, model), seconds) in models.iter().zip(&mut seconds) {
            let started = Instant::now();
            logits(model, &ids, batch)?;
            if round > 0 {
                seconds.push(started.elapsed().as_secs_f64());
            }
        }
    }
    let row = |(name, own): (String, &Vec<f64>)| {
        let ratios: Vec<f64> = own.iter().zip(&seconds[0]).map(|(own, base)| own / base).collect();
        Latency { method: name, seconds: median(own.clone()), ratio: median(ratios) }
    };
    Ok(models.into_iter().map(|(name, _)| name).zip(&seconds).map(row).collect())
}

/// Middle and the 95 % interval of the middle of some numbers: the order statistics that enclose it in 95 of 100 samples.
fn median(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let at = |i: f64| values[(i.max(0.0) as usize).min(values.len() - 1)];
    let half = 0.98 * n.sqrt();
    [at((n - 1.0) / 2.0), at((n - 1.0) / 2.0 - half), at(((n - 1.0) / 2.0 + half).ceil())]
}

/// Moves what trains from where it starts: a B of zeros is no usual adapter.
fn move_from_start(model: &mut DistilBert) -> Result<()> {
    let mut random = Stream::new(0, "moved");
    for p in model.parameters_mut() {
        let values = p.value().to_f64()?.iter().map(|x| x + 0.01 * random.normal()).collect();
        p.set(Tensor::from_f64(values, p.value().dtype(), p.value().shape())?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_interval_encloses_the_median() {
        // Order statistics 40 and 60 of 101, by the normal approximation.
        assert_eq!(median((0..101).rev().map(f64::from).collect()), [50.0, 40.0, 60.0]);
        assert_eq!(median(vec![2.0]), [2.0; 3]);
    }
}
