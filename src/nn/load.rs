//! A DistilBERT from a checkpoint, or from a random generator.

use super::{Block, Config, DistilBert, LayerNorm, Linear, Weight, site};
use crate::tensor::philox::Stream;
use crate::tensor::safetensors::SafeTensors;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::path::Path;

/// Differences between a model and the checkpoint that it was loaded from.
#[derive(Debug, Default)]
pub struct LoadReport {
    /// Weights of the model that the checkpoint lacks. They were initialised at random.
    pub initialised: Vec<String>,
    /// Tensors of the checkpoint that the model does not use.
    pub unused: Vec<String>,
}

/// Where the classifier comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Head {
    /// From the checkpoint. If its head has another number of classes, that is an error; if it has none, the head is new.
    Kept,
    /// From the checkpoint if its head has the wanted number of classes; else it is new.
    Fitting,
    /// New, drawn from the seed.
    New,
}

/// The role of a weight in the model decides the data type that it is kept in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A matrix of a block, read whole in every step. It has the data type of the run.
    Matrix,
    /// An embedding table, of which a step reads few rows. If its type in the file can be used, it stays in the memory-mapped file.
    Table,
    /// A vector, or a matrix of the head: small, and kept in the accumulator's precision.
    Small,
}

/// Source of weights: a checkpoint's file, or without a file the random generator.
struct Checkpoint<'a> {
    file: Option<&'a SafeTensors>,
    options: &'a LoadOptions<'a>,
    /// Standard deviation of random matrices.
    range: f64,
    report: LoadReport,
    used: BTreeSet<String>,
}

/// The name of the weight `name` in the file. Old checkpoints call a layer norm's weights gamma and beta, and files of an encoder alone have
/// no prefix `distilbert.`.
pub(super) fn find(file: &SafeTensors, name: &str) -> Option<String> {
    let old = |name: &str| match name.contains("LayerNorm") || name.contains("layer_norm") {
        true => name.replace(".weight", ".gamma").replace(".bias", ".beta"),
        false => name.to_string(),
    };
    let bare = name.strip_prefix("distilbert.").unwrap_or(name);
    [name.to_string(), old(name), bare.to_string(), old(bare)].into_iter().find(|n| file.contains(n))
}

impl<'a> Checkpoint<'a> {
    fn new(file: Option<&'a SafeTensors>, options: &'a LoadOptions<'a>, config: &Config) -> Checkpoint<'a> {
        Checkpoint { file, options, range: config.initializer_range, report: LoadReport::default(), used: BTreeSet::new() }
    }

    fn find(&self, name: &str) -> Option<String> {
        find(self.file?, name)
    }

    fn weight(&mut self, name: String, role: Role, dims: &[usize]) -> Result<Weight> {
        if let (Some(file), Some(found)) = (self.file, self.find(&name).filter(|found| !self.renews(&name, found, dims))) {
            let tensor = file.tensor(&found)?;
            if let (&[own, _], &[wanted, _], "classifier.weight") = (tensor.dims(), dims, &*name)
                && own != wanted
            {
                let problem = format!(
                    "the checkpoint's head has {own} classes, and {wanted} are wanted: correct num_labels or id2label in config.json (without either, it is 2), or train with --new-head"
                );
                return Err(Error::file(file.path(), format!("tensor {found:?}"), problem));
            }
            if tensor.dims() != dims {
                let problem = format!("expected {dims:?} by config.json, got {}", tensor.shape());
                return Err(Error::file(file.path(), format!("tensor {found:?}"), problem));
            }
            let dtype = self.stored_as(&name, role, tensor.dtype());
            let value = tensor.to_dtype(dtype)?;
            if dtype != tensor.dtype() {
                file.release(&found);
            }
            self.used.insert(found);
            return Ok(Weight::frozen(name, value));
        }
        if let Some(file) = self.file
            && name.starts_with("distilbert.")
        {
            let near = crate::error::nearest(&name, file.names(), 2).join(", ");
            return Err(Error::file(file.path(), format!("tensor {name:?}"), format!("is missing; the nearest names are {near}")));
        }
        let value = self.random(&name, role, dims)?;
        self.report.initialised.push(name.clone());
        Ok(Weight::frozen(name, value))
    }

    /// Whether a new random weight replaces the file's tensor `found`.
    fn renews(&self, name: &str, found: &str, dims: &[usize]) -> bool {
        let other_size = || self.file.and_then(|file| file.info(found)).is_some_and(|info| info.shape.first() != dims.first());
        name.starts_with("classifier.") && (self.options.head == Head::New || (self.options.head == Head::Fitting && other_size()))
    }

    /// N(0, range²) for matrices, 1 for a layer norm's γ, 0 for biases. Each weight is drawn from the random stream of its name.
    fn random(&self, name: &str, role: Role, dims: &[usize]) -> Result<Tensor> {
        let n = dims.iter().product();
        let mut stream = Stream::new(self.options.seed, name);
        let values = match dims.len() {
            1 if name.ends_with("weight") => vec![1.0; n],
            1 => vec![0.0; n],
            _ => (0..n).map(|_| self.range * stream.normal()).collect(),
        };
        Tensor::from_f64(values, self.stored_as(name, role, self.options.dtype.accum()), dims)
    }

    fn stored_as(&self, name: &str, role: Role, in_file: DType) -> DType {
        let sum = self.options.dtype.accum();
        match role {
            _ if (self.options.exact)(name) => sum,
            Role::Matrix => self.options.dtype,
            Role::Table if sum == DType::F32 && in_file == DType::BF16 => in_file,
            Role::Table | Role::Small => sum,
        }
    }

    fn linear(&mut self, name: String, role: Role, [output, input]: [usize; 2], site: u32) -> Result<Linear> {
        let weight = self.weight(format!("{name}.weight"), role, &[output, input])?;
        let bias = Some(self.weight(format!("{name}.bias"), Role::Small, &[output])?);
        Ok(Linear::new(name, weight, bias, site))
    }

    fn layer_norm(&mut self, name: &str, dim: usize) -> Result<LayerNorm> {
        Ok(LayerNorm {
            gamma: self.weight(format!("{name}.weight"), Role::Small, &[dim])?,
            beta: self.weight(format!("{name}.bias"), Role::Small, &[dim])?,
        })
    }

    fn block(&mut self, layer: usize, c: &Config) -> Result<Block> {
        let name = |part: &str| format!("distilbert.transformer.layer.{layer}.{part}");
        let (d, f) = (c.dim, c.hidden_dim);
        Ok(Block {
            layer,
            heads: c.n_heads,
            attention_dropout: c.attention_dropout,
            dropout: c.dropout,
            qkv: [
                self.linear(name("attention.q_lin"), Role::Matrix, [d, d], site::term(layer, 0))?,
                self.linear(name("attention.k_lin"), Role::Matrix, [d, d], site::term(layer, 1))?,
                self.linear(name("attention.v_lin"), Role::Matrix, [d, d], site::term(layer, 2))?,
            ],
            out: self.linear(name("attention.out_lin"), Role::Matrix, [d, d], site::term(layer, 3))?,
            sa_layer_norm: self.layer_norm(&name("sa_layer_norm"), d)?,
            lin1: self.linear(name("ffn.lin1"), Role::Matrix, [f, d], site::term(layer, 4))?,
            lin2: self.linear(name("ffn.lin2"), Role::Matrix, [d, f], site::term(layer, 5))?,
            output_layer_norm: self.layer_norm(&name("output_layer_norm"), d)?,
            prefix: None,
            hooks: [None, None],
        })
    }

    fn model(&mut self, config: &Config, classes: usize) -> Result<DistilBert> {
        let (c, d) = (config, config.dim);
        Ok(DistilBert {
            config: config.clone(),
            dtype: self.options.dtype,
            word_embeddings: self.weight("distilbert.embeddings.word_embeddings.weight".into(), Role::Table, &[c.vocab_size, d])?,
            position_embeddings: self.weight(
                "distilbert.embeddings.position_embeddings.weight".into(),
                Role::Table,
                &[c.max_position_embeddings, d],
            )?,
            layer_norm: self.layer_norm("distilbert.embeddings.LayerNorm", d)?,
            blocks: (0..c.n_layers).map(|layer| self.block(layer, c)).collect::<Result<_>>()?,
            pre_classifier: self.linear("pre_classifier".into(), Role::Small, [d, d], site::PRE_CLASSIFIER_TERM)?,
            classifier: self.linear("classifier".into(), Role::Small, [classes, d], site::CLASSIFIER_TERM)?,
            prompt: None,
            shared: None,
        })
    }
}

/// How [`DistilBert::open_with`] loads a checkpoint.
pub struct LoadOptions<'a> {
    /// Number of classes C; without it, that of the checkpoint's own head.
    pub classes: Option<usize>,
    /// Data type of the hidden states and of the frozen matrices.
    pub dtype: DType,
    /// Seed of the weights that the checkpoint lacks.
    pub seed: u64,
    /// Where the classifier comes from.
    pub head: Head,
    /// The weights to keep in the accumulator's precision, by name. A weight that trains in full starts from the checkpoint's own numbers.
    pub exact: &'a dyn Fn(&str) -> bool,
}

impl Default for LoadOptions<'_> {
    /// The checkpoint's own classes and head, f32, seed 0.
    fn default() -> Self {
        LoadOptions { classes: None, dtype: DType::F32, seed: 0, head: Head::Kept, exact: &|_| false }
    }
}

impl DistilBert {
    /// Loads the checkpoint in the directory `model`, all frozen, in f32, with the head that it has. A head that it lacks is random.
    ///
    /// # Errors
    /// If a file is missing or malformed, or a weight of the encoder is missing or has another shape.
    pub fn open(model: impl AsRef<Path>) -> Result<DistilBert> {
        Ok(DistilBert::open_with(model.as_ref(), &LoadOptions::default())?.0)
    }

    /// [`DistilBert::open`] with options, and a report on what was new or not used.
    ///
    /// # Errors
    /// As [`DistilBert::open`].
    pub fn open_with(model: &Path, options: &LoadOptions) -> Result<(DistilBert, LoadReport)> {
        let mut config = Config::open(model)?;
        if options.head == Head::New {
            // The new head is for another task.
            config.problem_type = None;
        }
        let classes = options.classes.unwrap_or_else(|| config.labels().len());
        let file = SafeTensors::open(model)?;
        let mut source = Checkpoint::new(Some(&file), options, &config);
        let model = source.model(&config, classes)?;
        let unused = file.names().filter(|n| !source.used.contains(*n)).map(String::from).collect();
        Ok((model, LoadReport { unused, ..source.report }))
    }

    /// A randomly initialised model.
    ///
    /// # Errors
    /// Never for sizes that fit memory.
    pub fn random(config: &Config, classes: usize, dtype: DType, seed: u64) -> Result<DistilBert> {
        let options = LoadOptions { dtype, seed, head: Head::New, ..LoadOptions::default() };
        Checkpoint::new(None, &options, config).model(config, classes)
    }
}
