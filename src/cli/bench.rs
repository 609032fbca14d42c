//! `lowrank bench`.

use super::Outcome;
use super::common::{ComputeType, say, say_json};
use crate::lora::{LoraConfig, Method, Placement, merge};
use crate::nn::DistilBert;
use crate::tensor::Tensor;
use crate::tensor::philox::Stream;
use crate::train::logits;
use crate::{Error, Result};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Arguments of `bench`.
#[derive(Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Time of one batch through the base, and through it with each method: what does a method cost at inference?
    Latency(Latency),
}

/// Arguments of `bench latency`.
#[derive(Args)]
struct Latency {
    /// Directory of the base checkpoint
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// What to set beside the base
    #[arg(long, value_enum, value_delimiter = ',', default_value = "merged,lora,dora,adapter,adapter-pfeiffer,prefix,prompt")]
    methods: Vec<Kind>,
    /// Texts of the batch
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Tokens of each text
    #[arg(long, default_value_t = 128)]
    length: usize,
    /// Rounds, in each of which every method has its turn
    #[arg(long, default_value_t = 30)]
    rounds: usize,
    /// Rank of the low-rank terms, on all six linears of each layer
    #[arg(long, default_value_t = 8)]
    rank: usize,
    /// Hidden numbers of each adapter
    #[arg(long, default_value_t = 64)]
    adapter_size: usize,
    /// Virtual tokens of a prefix or prompt
    #[arg(long, default_value_t = 20)]
    virtual_tokens: usize,
    /// Type to compute in
    #[arg(long, value_enum, default_value_t = ComputeType::F32)]
    dtype: ComputeType,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Merged,
    Lora,
    Dora,
    Adapter,
    AdapterPfeiffer,
    Prefix,
    Prompt,
}

impl Bench {
    /// Runs the command.
    pub(super) fn run(self) -> Result<Outcome> {
        let What::Latency(latency) = self.what;
        latency.run()
    }
}

/// Middle and the 95 % interval of the middle of some numbers: the order statistics that enclose it in 95 of 100 samples.
fn median(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let n = values.len() as f64;
    let at = |i: f64| values[(i.max(0.0) as usize).min(values.len() - 1)];
    let half = 0.98 * n.sqrt();
    [at((n - 1.0) / 2.0), at((n - 1.0) / 2.0 - half), at(((n - 1.0) / 2.0 + half).ceil())]
}

impl Latency {
    fn method(&self, kind: Kind) -> Method {
        let lora = |dora| Method::Lora(LoraConfig { dora, ..LoraConfig::new(self.rank, &["all-linear"]) });
        match kind {
            Kind::Merged | Kind::Lora => lora(false),
            Kind::Dora => lora(true),
            Kind::Adapter => Method::Adapter { size: self.adapter_size, placement: Placement::Houlsby },
            Kind::AdapterPfeiffer => Method::Adapter { size: self.adapter_size, placement: Placement::Pfeiffer },
            Kind::Prefix => Method::Prefix { tokens: self.virtual_tokens },
            Kind::Prompt => Method::Prompt { tokens: self.virtual_tokens },
        }
    }

    fn run(self) -> Result<Outcome> {
        if self.batch == 0 || self.length < 3 || self.rounds == 0 {
            return Err(Error::invalid("bench latency: --batch and --rounds must be at least 1, --length at least 3"));
        }
        let base = DistilBert::open(&self.model, 2, self.dtype.into(), 0)?.0;
        let mut models = vec![("base".to_string(), base.share(2)?)];
        for &kind in &self.methods {
            let mut model = base.share(2)?;
            self.method(kind).apply(&mut model, 0)?;
            move_from_start(&mut model)?;
            if kind == Kind::Merged {
                merge(&mut model)?;
            }
            if self.length > model.longest_text() {
                return Err(Error::invalid(format!("--length {}: there are {} positions for a text", self.length, model.longest_text())));
            }
            models.push((kind.to_possible_value().map_or_else(String::new, |v| v.get_name().to_string()), model));
        }
        let mut random = Stream::new(0, "latency");
        let ids: Vec<Vec<u32>> =
            (0..self.batch).map(|_| (0..self.length).map(|_| random.below(base.config.vocab_size) as u32).collect()).collect();
        let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        let mut seconds = vec![Vec::new(); models.len()];
        // The first round is for warming up.
        for round in 0..=self.rounds {
            for ((_, model), seconds) in models.iter().zip(&mut seconds) {
                let started = Instant::now();
                logits(model, &ids, self.batch)?;
                if round > 0 {
                    seconds.push(started.elapsed().as_secs_f64());
                }
            }
        }
        // Each against the base of its own round: what slows the machine slows both.
        let mut rows = Vec::new();
        for ((name, _), own) in models.iter().zip(&seconds) {
            let mut ratios: Vec<f64> = own.iter().zip(&seconds[0]).map(|(own, base)| own / base).collect();
            rows.push((name, median(&mut own.clone()), median(&mut ratios)));
        }
        if self.json {
            let rows = rows.iter().map(|(name, seconds, ratio)| json!({ "method": name, "seconds": seconds, "ratio": ratio }));
            return say_json(
                &json!({ "batch": self.batch, "length": self.length, "rounds": self.rounds, "methods": rows.collect::<Vec<_>>() }),
            )
            .map(|()| Outcome::Done);
        }
        say(format!("{} texts of {} tokens, {} rounds; medians with 95 % intervals", self.batch, self.length, self.rounds))?;
        for (name, [ms, low, high], [ratio, lowest, highest]) in
            rows.into_iter().map(|(name, seconds, ratio)| (name, seconds.map(|s| 1e3 * s), ratio))
        {
            say(format!("{name:<17} {ms:7.1} ms ({low:.1}–{high:.1}), {ratio:.3} of the base ({lowest:.3}–{highest:.3})"))?;
        }
        Ok(Outcome::Done)
    }
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
        let mut values: Vec<f64> = (0..101).rev().map(f64::from).collect();
        // Order statistics 40 and 60 of 101, by the normal approximation.
        assert_eq!(median(&mut values), [50.0, 40.0, 60.0]);
        assert_eq!(median(&mut [2.0]), [2.0; 3]);
    }
}
