//! The measurements that the claims are judged by: results of the rows, counts, starts, changes of the weights, times.

use super::figure::Heat;
use super::rows::{claim_rows, rows};
use super::statistics::{Difference, accuracy, difference};
use super::table::with_results;
use super::{Change, Latency, Row, RowResult, Study, Timing, latency};
use lowrank::Result;
use lowrank::lora::{Counts, Init, LoraConfig, Method, adapt, adapter};
use lowrank::nn::{Config, DistilBert, Head, LoadOptions};
use lowrank::tensor::DType;
use lowrank::tensor::math::largest;
use lowrank::train::logits;
use std::path::Path;

/// All measurements.
pub struct Evidence<'a> {
    /// All rows that were run.
    pub rows: &'a [Row],
    /// Their results.
    pub results: &'a [RowResult],
    /// Labels of the test reviews.
    pub labels: &'a [u32],
    /// Key of the row, its trainable count at the size of DistilBERT-base, and the count that the study states.
    pub counts: Vec<(String, usize, usize)>,
    /// Largest difference between a logit of the base and of a newly adapted model, over both kinds of A, if it was measured.
    pub start: Option<f64>,
    /// Singular values of ΔW by linear: of full fine-tuning, and of B A.
    pub spectra: [Vec<(String, Vec<f64>)>; 2],
    /// Mean ‖ΔW‖ of the adapted linears, by the row's key.
    pub norms: Vec<(String, f64)>,
    /// Times of inference.
    pub latency: Vec<Latency>,
}

impl Evidence<'_> {
    /// The results of a row, one a seed.
    pub fn of(&self, key: &str) -> Vec<&RowResult> {
        self.results.iter().filter(|r| r.row == key).collect()
    }

    /// The name of a row in the table.
    pub fn name<'a>(&'a self, key: &'a str) -> &'a str {
        self.rows.iter().find(|row| row.key == key).map_or(key, |row| &row.name)
    }

    /// Mean accuracy over the seeds, in per cent.
    pub fn accuracy(&self, key: &str) -> Option<f64> {
        let of = self.of(key);
        (!of.is_empty()).then(|| accuracy(&of).0)
    }

    /// Whether a row may be no better than guessing one of two classes.
    pub fn guesses(&self, key: &str) -> bool {
        self.of(key).iter().any(|r| r.test.interval.0 <= 0.5)
    }

    /// Accuracy of row `a` minus that of row `b`.
    pub fn difference(&self, a: &str, b: &str) -> Option<Difference> {
        difference(&self.of(a), &self.of(b), self.labels)
    }

    /// Names and accuracies: `Q+V r=4 80.00 %, Q+V r=8 81.00 %`.
    pub fn list(&self, keys: &[&str]) -> String {
        let one = |key: &&str| self.accuracy(key).map(|a| format!("{} {a:.2} %", self.name(key)));
        keys.iter().filter_map(one).collect::<Vec<_>>().join(", ")
    }
}

/// Trainable counts that the study states for the rows of its table.
const STATED: [usize; 7] = [1_538, 665_858, 739_586, 887_042, 887_042, 1_255_682, 66_955_010];
/// Cells along each side of a map of ΔW.
const CELLS: usize = 24;
/// Number of texts on which a newly adapted model is compared with the base.
const PROBES: usize = 16;

impl Study<'_> {
    /// Measures everything except accuracies, and returns maps of the changes by full fine-tuning. `claims`: measure also what only the verdicts
    /// need. Runs on the CPU.
    ///
    /// # Errors
    /// If the saved model of a row cannot be read.
    pub fn evidence<'a>(&self, rows: &'a [Row], results: &'a [RowResult], claims: bool) -> Result<(Evidence<'a>, Vec<Heat>)>
    where
        Self: 'a,
    {
        let classes = self.train.label_names.len();
        let open = |folder: &Path| {
            DistilBert::open_with(folder, &LoadOptions { classes: Some(classes), head: Head::Fitting, ..LoadOptions::default() })
        };
        let mut base = open(self.model)?.0;
        let changes = |base: &mut DistilBert, key: &str| -> Result<Vec<Change>> {
            let Some((row, of)) = with_results(rows, results).find(|(row, _)| row.key == key) else { return Ok(Vec::new()) };
            let folder = self.folder(row, of[0].seed);
            let mut tuned = if row.method.makes_checkpoint() { open(&folder)?.0 } else { base.share(classes)? };
            if !row.method.makes_checkpoint() {
                adapter::load(&mut tuned, &folder)?;
            }
            Change::of(base, &mut tuned)
        };
        let (full, lora) = (changes(&mut base, "full")?, changes(&mut base, "qv8")?);
        let mut norms = Vec::new();
        let adapted: &[&str] = if claims { &["qv4", "qv8", "qv16", "qv4-alpha16", "qv16-alpha16"] } else { &[] };
        for &key in adapted {
            let changes = if key == "qv8" { &lora } else { &changes(&mut base, key)? };
            if !changes.is_empty() {
                norms.push((key.to_string(), changes.iter().map(Change::norm).sum::<f64>() / changes.len() as f64));
            }
        }
        let qv = base.config.architecture.default_targets();
        let spectra = |changes: &[Change]| -> Vec<(String, Vec<f64>)> {
            let of_qv = changes.iter().filter(|c| qv.iter().any(|end| c.name.ends_with(end)));
            of_qv.map(|c| (c.short_name(), c.singular_values())).collect()
        };
        let spectra = [spectra(&full), spectra(&lora)];
        let (counts, start) = if claims { (counts()?, Some(self.start(&base)?)) } else { (Vec::new(), None) };
        let (labels, latency) = (&self.test.labels[..], self.latency(&base)?);
        Ok((Evidence { rows, results, labels, counts, start, spectra, norms, latency }, full.iter().map(|c| c.pooled(CELLS)).collect()))
    }

    /// Largest difference between a logit of the base and of a newly adapted model, over both kinds of A.
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

    /// Times of inference for one text.
    fn latency(&self, base: &DistilBert) -> Result<Vec<Latency>> {
        let lora = Method::Lora(LoraConfig::new(8, &["all-linear"]));
        let adapter = claim_rows(&base.config, 1.0).into_iter().find(|row| row.key == "adapter").map(|row| row.method);
        let mut methods = vec![("merged LoRA".to_string(), lora.clone(), true), ("LoRA, not merged".to_string(), lora, false)];
        methods.extend(adapter.map(|method| ("adapters".to_string(), method, false)));
        latency(base, &methods, &Timing { batch: 1, length: 128.min(base.longest_text()), rounds: 200 })
    }
}

/// Key, trainable count at the size of DistilBERT-base, and the count that the study states.
fn counts() -> Result<Vec<(String, usize, usize)>> {
    let config = Config::distilbert_base();
    let base = DistilBert::random(&config, 2, DType::F32, 0)?;
    let of = |(row, stated): (Row, usize)| {
        let mut model = base.share(2)?;
        row.method.apply(&mut model, 0)?;
        Ok((row.key, Counts::of(&model).trainable, stated))
    };
    rows(config.architecture, 1.0).into_iter().zip(STATED).map(of).collect()
}
