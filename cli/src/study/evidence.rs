//! What the claims rest on beside the rows' accuracies: counts, starts, changes of the weights, times.

use super::claims::Evidence;
use super::figure::Heat;
use super::rows::{claim_rows, rows};
use super::{Change, Row, RowResult, Study, Timing, latency};
use lowrank::Result;
use lowrank::lora::{Counts, Init, LoraConfig, Method, adapt, adapter};
use lowrank::nn::{Config, DistilBert, LoadOptions};
use lowrank::tensor::DType;
use lowrank::tensor::math::largest;
use lowrank::train::logits;

/// Trainable counts that the study states.
const STATED: [(&str, usize); 7] = [
    ("head", 1_538),
    ("qv4", 665_858),
    ("qv8", 739_586),
    ("qv16", 887_042),
    ("attention", 887_042),
    ("all", 1_255_682),
    ("full", 66_955_010),
];
/// Cells of a side of a map of ΔW.
const CELLS: usize = 24;
/// Texts that the start is compared on.
const PROBES: usize = 16;

impl Study<'_> {
    /// Measures what there is to see beside accuracies, and maps of what full fine-tuning changed; with `claims` also what only verdicts need. Runs on
    /// the CPU.
    ///
    /// # Errors
    /// If what a row has kept cannot be read.
    pub fn evidence<'a>(&self, rows: &'a [Row], results: &'a [RowResult], claims: bool) -> Result<(Evidence<'a>, Vec<Heat>)>
    where
        Self: 'a,
    {
        let classes = self.train.label_names.len();
        let mut base = DistilBert::open_with(self.model, &LoadOptions { classes: Some(classes), ..LoadOptions::default() })?.0;
        let changes = |base: &mut DistilBert, key: &str| -> Result<Vec<Change>> {
            let Some(row) = rows.iter().find(|row| row.key == key) else { return Ok(Vec::new()) };
            let Some(result) = results.iter().find(|r| r.row == key) else { return Ok(Vec::new()) };
            let folder = self.folder(row, result.seed);
            let mut tuned = match row.method.makes_checkpoint() {
                true => DistilBert::open_with(&folder, &LoadOptions { classes: Some(classes), ..LoadOptions::default() })?.0,
                false => {
                    let mut model = base.share(classes)?;
                    adapter::load(&mut model, &folder)?;
                    model
                }
            };
            Change::of(base, &mut tuned)
        };
        let (full, lora) = (changes(&mut base, "full")?, changes(&mut base, "qv8")?);
        let mut norms = Vec::new();
        let adapted: &[&str] = if claims { &["qv4", "qv8", "qv16", "qv4-alpha16", "qv16-alpha16"] } else { &[] };
        for &key in adapted {
            let other = if key == "qv8" { None } else { Some(changes(&mut base, key)?) };
            let changes = other.as_ref().unwrap_or(&lora);
            if !changes.is_empty() {
                norms.push((key.to_string(), changes.iter().map(Change::norm).sum::<f64>() / changes.len() as f64));
            }
        }
        let spectra = |changes: &[Change]| -> Vec<(String, Vec<f64>)> {
            let of_qv = changes.iter().filter(|c| c.name.ends_with("q_lin") || c.name.ends_with("v_lin"));
            of_qv.map(|c| (short(&c.name), c.singular_values())).collect()
        };
        let heat = |change: &Change| {
            let (rows, cols, values) = change.pooled(CELLS);
            Heat { name: short(&change.name), rows, cols, values }
        };
        let maps = full.iter().map(heat).collect();
        let spectra = [spectra(&full), spectra(&lora)];
        let (counts, start) = if claims { (counts()?, Some(self.start(&base)?)) } else { (Vec::new(), None) };
        let (labels, latency) = (&self.test.labels[..], self.latency(&base)?);
        Ok((Evidence { rows, results, labels, counts, start, spectra, norms, latency }, maps))
    }

    /// Largest difference of a logit between the base and a newly adapted model, for both kinds of A.
    fn start(&self, base: &DistilBert) -> Result<f64> {
        let texts: Vec<&[u32]> = (0..self.test.len().min(PROBES)).map(|i| self.test.sequence(i)).collect();
        let expected = logits(base, &texts, PROBES)?.concat();
        let mut differences = Vec::new();
        for init in [Init::Gaussian, Init::Kaiming] {
            let mut model = base.share(base.classifier.dims().0)?;
            adapt(&mut model, &LoraConfig { init, ..LoraConfig::new(8, &["all-linear"]) }, 0)?;
            let found = logits(&model, &texts, PROBES)?.concat();
            differences.extend(found.iter().zip(&expected).map(|(a, b)| (a - b).abs()));
        }
        Ok(largest(differences))
    }

    /// Times of one text alone.
    fn latency(&self, base: &DistilBert) -> Result<Vec<super::Latency>> {
        let lora = Method::Lora(LoraConfig::new(8, &["all-linear"]));
        let adapter = claim_rows(&base.config, 1.0).into_iter().find(|row| row.key == "adapter").map(|row| row.method);
        let mut methods = vec![("merged LoRA".to_string(), lora.clone(), true), ("LoRA, not merged".to_string(), lora, false)];
        methods.extend(adapter.map(|method| ("adapters".to_string(), method, false)));
        latency(base, &methods, &Timing { batch: 1, length: 128.min(base.longest_text()), rounds: 200 })
    }
}

/// `layer.0.attention.q_lin` as `layer 0 q_lin`.
fn short(name: &str) -> String {
    let rest = name.split_once(".layer.").map_or(name, |(_, rest)| rest);
    let layer = rest.split('.').next().unwrap_or_default();
    format!("layer {layer} {}", rest.rsplit('.').next().unwrap_or_default())
}

/// Trainable counts of the rows at the size of DistilBERT-base, beside those that the study states.
fn counts() -> Result<Vec<(String, usize, usize)>> {
    let base = DistilBert::random(&Config::distilbert_base(), 2, DType::F32, 0)?;
    let rows = rows(1.0);
    let of = |(key, stated): &(&str, usize)| {
        let Some(row) = rows.iter().find(|row| row.key == *key) else { return Ok(None) };
        let mut model = base.share(2)?;
        row.method.apply(&mut model, 0)?;
        Ok(Some((key.to_string(), Counts::of(&model).trainable, *stated)))
    };
    Ok(STATED.iter().map(of).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}
