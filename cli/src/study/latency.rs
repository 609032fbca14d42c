//! The time of inference with each method, compared with the base.

use lowrank::lora::{Method, merge};
use lowrank::nn::DistilBert;
use lowrank::tensor::Tensor;
use lowrank::tensor::philox::Stream;
use lowrank::train::logits;
use lowrank::{Error, Result};
use serde::Serialize;
use std::time::Instant;

/// Fewer rounds than this give no verdict.
const FEWEST_ROUNDS: usize = 10;
/// A method that needs at most this share more time than the base costs nothing.
const NOTHING: f64 = 0.02;

/// The verdict on the time of a method, from the 95 % interval of its ratio to the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cost {
    /// At most 2 % more time than the base.
    Nothing,
    /// More than that.
    Time,
    /// The interval allows both.
    Undecided,
}

impl Cost {
    /// From median, lower end and upper end of the ratio to the base. `None` if there were fewer than ten rounds.
    fn of([_, low, high]: [f64; 3], rounds: usize) -> Option<Cost> {
        (rounds >= FEWEST_ROUNDS).then_some(match () {
            () if high <= 1.0 + NOTHING => Cost::Nothing,
            () if low > 1.0 + NOTHING => Cost::Time,
            () => Cost::Undecided,
        })
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Cost::Nothing => "costs nothing",
            Cost::Time => "costs time",
            Cost::Undecided => "undecided",
        })
    }
}

/// Times of a method: median, lower end and upper end of its 95 % interval.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Name of the method.
    pub method: String,
    /// Seconds for one batch.
    pub seconds: [f64; 3],
    /// Ratio to the time of the base in the same round.
    pub ratio: [f64; 3],
    /// The verdict; `None` if there were fewer than ten rounds.
    pub cost: Option<Cost>,
}

/// Sizes of a measurement.
pub struct Timing {
    /// Texts of the batch.
    pub batch: usize,
    /// Tokens of each text.
    pub length: usize,
    /// Rounds; each method runs once a round.
    pub rounds: usize,
}

/// Times one batch through `base`, and through it with each method (name, method, whether it is merged into the base). The order of the methods
/// changes from round to round. Each time is divided by the time of the base in the same round, because a busy machine slows both.
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
            // Frozen, as a merged model is after loading.
            model = model.share(classes)?;
        }
        room(&model)?;
        models.push((name.clone(), model));
    }
    let mut random = Stream::new(0, "latency");
    let ids: Vec<Vec<u32>> = (0..batch).map(|_| (0..length).map(|_| random.below(base.config.vocab_size) as u32).collect()).collect();
    let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
    let mut seconds = vec![Vec::new(); models.len()];
    // Round 0 is a warm-up.
    for round in 0..=rounds {
        for turn in turns(models.len(), round) {
            let started = Instant::now();
            logits(&models[turn].1, &ids, batch)?;
            if round > 0 {
                seconds[turn].push(started.elapsed().as_secs_f64());
            }
        }
    }
    let row = |(name, own): (String, &Vec<f64>)| {
        let ratios: Vec<f64> = own.iter().zip(&seconds[0]).map(|(own, base)| own / base).collect();
        let ratio = median(ratios);
        Latency { method: name, seconds: median(own.clone()), ratio, cost: Cost::of(ratio, rounds) }
    };
    Ok(models.into_iter().map(|(name, _)| name).zip(&seconds).map(row).collect())
}

/// The order of `n` methods in a round. Each round begins with another method, and every second round runs backwards. So no method always runs
/// after the same other method, because data left in the caches could help or harm it.
fn turns(n: usize, round: usize) -> Vec<usize> {
    let first = round % n;
    (0..n).map(|i| if round.is_multiple_of(2) { first + i } else { first + n - i } % n).collect()
}

/// Median of the values and its 95 % interval, by order statistics with the normal approximation: ranks n/2 ± 0.98 √n.
fn median(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let at = |i: f64| values[(i.max(0.0) as usize).min(values.len() - 1)];
    let half = 0.98 * n.sqrt();
    [at((n - 1.0) / 2.0), at((n - 1.0) / 2.0 - half), at(((n - 1.0) / 2.0 + half).ceil())]
}

/// Adds noise to all parameters, so that they look trained: with B = 0 an adapter would add exact zeros.
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
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn in_every_round_all_have_a_turn_in_another_order() {
        for n in 2..9 {
            let rounds: Vec<Vec<usize>> = (0..2 * n).map(|round| turns(n, round)).collect();
            let first: Vec<usize> = rounds.iter().map(|turns| turns[0]).collect();
            assert!((0..n).all(|i| first.iter().filter(|&&f| f == i).count() == 2), "each is first equally often: {first:?}");
            assert!(rounds.iter().all(|turns| turns.iter().copied().collect::<BTreeSet<_>>() == (0..n).collect()));
            let before: BTreeSet<(usize, usize)> = rounds.iter().flat_map(|turns| turns.windows(2).map(|w| (w[0], w[1]))).collect();
            assert!((0..n).all(|i| before.iter().filter(|(_, after)| *after == i).count() >= 2.min(n - 1)), "{n}: {before:?}");
        }
    }

    #[test]
    fn fewer_than_ten_rounds_give_no_verdict() {
        assert_eq!(Cost::of([1.0, 0.99, 1.01], 9), None);
        assert_eq!(Cost::of([1.0, 0.99, 1.01], 10), Some(Cost::Nothing));
        assert_eq!(Cost::of([1.2, 1.1, 1.3], 10), Some(Cost::Time));
        assert_eq!(Cost::of([1.02, 0.9, 1.3], 200), Some(Cost::Undecided));
    }

    #[test]
    fn the_interval_encloses_the_median() {
        // Order statistics 40 and 60 of 101, by the normal approximation.
        assert_eq!(median((0..101).rev().map(f64::from).collect()), [50.0, 40.0, 60.0]);
        assert_eq!(median(vec![2.0]), [2.0; 3]);
    }
}
