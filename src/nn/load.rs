//! A DistilBERT or BERT from a checkpoint, from another model, or from a random generator.

use super::{Architecture, Block, Config, DistilBert, LayerNorm, Linear, Weight, in_head, site};
use crate::outputs::check_classes;
use crate::tensor::philox::Stream;
use crate::tensor::safetensors::SafeTensors;
use crate::tensor::{DType, Tensor};
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::path::Path;

/// Differences between a model and the checkpoint that it was loaded from.
#[derive(Debug)]
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

/// Where weights come from. What a source lacks is random.
#[derive(Clone, Copy)]
enum Source<'a> {
    File(&'a SafeTensors),
    /// Another model, whose values are shared.
    Model(&'a DistilBert),
    Nothing,
}

/// Builds a model, weight by weight.
struct Builder<'a> {
    source: Source<'a>,
    config: &'a Config,
    options: &'a LoadOptions<'a>,
    initialised: Vec<String>,
    /// Names of the file's tensors that were read.
    used: BTreeSet<String>,
}

/// The name of the weight `name` in the file. Old checkpoints call a layer norm's weights gamma and beta, and files of an encoder alone have
/// no prefix `distilbert.` or `bert.`.
pub(super) fn find(file: &SafeTensors, name: &str) -> Option<String> {
    let old = |name: &str| match name.contains("LayerNorm") || name.contains("layer_norm") {
        true => name.replace(".weight", ".gamma").replace(".bias", ".beta"),
        false => name.to_string(),
    };
    let bare = name.strip_prefix("distilbert.").or(name.strip_prefix("bert.")).unwrap_or(name);
    [name.to_string(), old(name), bare.to_string(), old(bare)].into_iter().find(|n| file.contains(n))
}

impl<'a> Builder<'a> {
    fn new(source: Source<'a>, config: &'a Config, options: &'a LoadOptions<'a>) -> Builder<'a> {
        Builder { source, config, options, initialised: Vec::new(), used: BTreeSet::new() }
    }

    fn weight(&mut self, name: String, role: Role, dims: &[usize]) -> Result<Weight> {
        let found = match self.source {
            Source::File(file) => self.read(file, &name, role, dims)?,
            Source::Model(model) => {
                let weight = model.weights().into_iter().find(|w| w.name() == name && w.shape().dims() == dims);
                weight.map(Weight::value).transpose()?
            }
            Source::Nothing => None,
        };
        let value = match found {
            Some(value) => value,
            None => {
                self.initialised.push(name.clone());
                self.random(&name, role, dims)?
            }
        };
        Ok(Weight::frozen(name, value))
    }

    /// The file's value of weight `name`; `None` if it is a weight of the head that is to be new.
    fn read(&mut self, file: &SafeTensors, name: &str, role: Role, dims: &[usize]) -> Result<Option<Tensor>> {
        let error = |tensor: &str, problem: String| Err(Error::file(file.path(), format!("tensor {tensor:?}"), problem));
        let Some(found) = find(file, name) else {
            if in_head(name) {
                return Ok(None);
            }
            let near = crate::error::nearest(name, file.names(), 2).join(", ");
            return error(name, format!("is missing; the nearest names are {near}"));
        };
        let classes = file.info(&found).and_then(|info| info.shape.first());
        let renewed = match self.options.head {
            Head::Kept => false,
            Head::Fitting => classes != dims.first(),
            Head::New => true,
        };
        if name.starts_with("classifier.") && renewed {
            return Ok(None);
        }
        let tensor = file.tensor(&found)?;
        if let (&[own, _], &[wanted, _], "classifier.weight") = (tensor.dims(), dims, name)
            && own != wanted
        {
            let problem = format!(
                "the checkpoint's head has {own} classes, and {wanted} are wanted: correct num_labels or id2label in config.json (without either, it is 2), or train with --new-head"
            );
            return error(&found, problem);
        }
        if tensor.dims() != dims {
            return error(&found, format!("expected {dims:?} by config.json, got {}", tensor.shape()));
        }
        let dtype = self.stored_as(name, role, tensor.dtype());
        let value = tensor.to_dtype(dtype)?;
        if dtype != tensor.dtype() {
            file.release(&found);
        }
        self.used.insert(found);
        Ok(Some(value))
    }

    /// N(0, `initializer_range`²) for matrices, 1 for a layer norm's γ, 0 for biases. Each weight is drawn from the random stream of its name.
    fn random(&self, name: &str, role: Role, dims: &[usize]) -> Result<Tensor> {
        let n = dims.iter().product();
        let mut stream = Stream::new(self.options.seed, name);
        let values = match dims.len() {
            1 if name.ends_with("weight") => vec![1.0; n],
            1 => vec![0.0; n],
            _ => (0..n).map(|_| self.config.initializer_range * stream.normal()).collect(),
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

    fn layer_norm(&mut self, name: String) -> Result<LayerNorm> {
        let d = self.config.dim;
        let gamma = self.weight(format!("{name}.weight"), Role::Small, &[d])?;
        Ok(LayerNorm { gamma, beta: self.weight(format!("{name}.bias"), Role::Small, &[d])?, eps: self.config.layer_norm_eps })
    }

    fn block(&mut self, layer: usize) -> Result<Block> {
        let (c, d, f) = (self.config, self.config.dim, self.config.hidden_dim);
        let name = c.architecture.layer(layer);
        let [q, k, v, out, sa_layer_norm, lin1, lin2, output_layer_norm] = c.architecture.modules().map(|part| format!("{name}.{part}"));
        Ok(Block {
            name,
            layer,
            heads: c.n_heads,
            attention_dropout: c.attention_dropout,
            attention_output_dropout: if c.architecture == Architecture::Bert { c.dropout } else { 0.0 },
            dropout: c.dropout,
            qkv: [
                self.linear(q, Role::Matrix, [d, d], site::term(layer, 0))?,
                self.linear(k, Role::Matrix, [d, d], site::term(layer, 1))?,
                self.linear(v, Role::Matrix, [d, d], site::term(layer, 2))?,
            ],
            out: self.linear(out, Role::Matrix, [d, d], site::term(layer, 3))?,
            sa_layer_norm: self.layer_norm(sa_layer_norm)?,
            lin1: self.linear(lin1, Role::Matrix, [f, d], site::term(layer, 4))?,
            lin2: self.linear(lin2, Role::Matrix, [d, f], site::term(layer, 5))?,
            output_layer_norm: self.layer_norm(output_layer_norm)?,
            prefix: None,
            hooks: [None, None],
        })
    }

    fn model(&mut self, classes: usize) -> Result<DistilBert> {
        check_classes(classes).map_err(|problem| Error::invalid(format!("classifier: {problem}")))?;
        let (c, d, kind) = (self.config, self.config.dim, self.config.architecture);
        let name = |part: &str| format!("{}.embeddings.{part}", kind.encoder());
        let types = (c.type_vocab_size > 0).then_some(c.type_vocab_size);
        let pre_classifier = self.linear(kind.pre_classifier().into(), Role::Small, [d, d], site::PRE_CLASSIFIER_TERM)?;
        let pre_classifier_in_head = match self.source {
            Source::Model(model) => model.pre_classifier_in_head,
            _ => kind == Architecture::DistilBert || self.initialised.contains(&format!("{}.weight", pre_classifier.name)),
        };
        Ok(DistilBert {
            config: c.clone(),
            dtype: self.options.dtype,
            word_embeddings: self.weight(name("word_embeddings.weight"), Role::Table, &[c.vocab_size, d])?,
            position_embeddings: self.weight(name("position_embeddings.weight"), Role::Table, &[c.max_position_embeddings, d])?,
            token_type_embeddings: types.map(|n| self.weight(name("token_type_embeddings.weight"), Role::Table, &[n, d])).transpose()?,
            layer_norm: self.layer_norm(name("LayerNorm"))?,
            blocks: (0..c.n_layers).map(|layer| self.block(layer)).collect::<Result<_>>()?,
            pre_classifier,
            pre_classifier_in_head,
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
        let mut builder = Builder::new(Source::File(&file), &config, options);
        let model = builder.model(classes)?;
        // Weights that were converted are copies.
        file.check_unchanged()?;
        let unused = file.names().filter(|n| !builder.used.contains(*n)).map(String::from).collect();
        Ok((model, LoadReport { initialised: builder.initialised, unused }))
    }

    /// A randomly initialised model.
    ///
    /// # Errors
    /// If `classes` is 0 or more than [`super::MOST_CLASSES`].
    pub fn random(config: &Config, classes: usize, dtype: DType, seed: u64) -> Result<DistilBert> {
        let options = LoadOptions { dtype, seed, head: Head::New, ..LoadOptions::default() };
        Builder::new(Source::Nothing, config, &options).model(classes)
    }

    /// Another model with the same weights, all frozen, and without low-rank terms or other additions. The weights are in memory once; a method
    /// that is applied to one model does not change the other. If `classes` is not this model's number of classes, the classifier is random.
    ///
    /// # Errors
    /// If a weight is computed, or `classes` is 0 or more than [`super::MOST_CLASSES`].
    pub fn share(&self, classes: usize) -> Result<DistilBert> {
        let options = LoadOptions { dtype: self.dtype, ..LoadOptions::default() };
        Builder::new(Source::Model(self), &self.config, &options).model(classes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_no_class_or_of_too_many_are_refused() {
        let mut config = Config::distilbert_base();
        (config.dim, config.n_heads, config.hidden_dim, config.n_layers, config.vocab_size) = (4, 1, 4, 1, 4);
        assert_eq!(DistilBert::random(&config, 4096, DType::F32, 1).unwrap().classifier.dims(), (4096, 4));
        for classes in [0, 4097, 1 << 40] {
            let message = DistilBert::random(&config, classes, DType::F32, 1).map(drop).unwrap_err().to_string();
            assert_eq!(message, format!("classifier: {classes} classes: there must be 1 to 4096"));
        }
    }

    #[test]
    fn weights_are_in_memory_once_and_models_apart() {
        let mut config = Config::distilbert_base();
        (config.dim, config.n_heads, config.hidden_dim, config.n_layers, config.vocab_size) = (8, 2, 16, 2, 40);
        let base = DistilBert::random(&config, 2, DType::F32, 1).unwrap();
        let mut one = base.share(2).unwrap();
        let other = base.share(3).unwrap();
        let ids = |model: &DistilBert| model.weights().iter().map(|w| w.value().unwrap().storage_id()).collect::<Vec<_>>();
        assert_eq!(ids(&base), ids(&one));
        let differ = ids(&base).iter().zip(ids(&other)).filter(|(a, b)| **a != *b).count();
        assert_eq!((differ, other.classifier.dims()), (2, (3, 8)), "the classifier alone is another");
        let lin1 = &mut one.blocks[0].lin1.weight;
        lin1.set(Tensor::zeros(DType::F32, [16, 8])).unwrap();
        assert!(base.blocks[0].lin1.weight.value().unwrap().to_f64().unwrap().iter().any(|&x| x != 0.0));
    }
}
