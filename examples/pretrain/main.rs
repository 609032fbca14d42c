//! Makes the encoder that ships with the program, in `assets/encoder`: learns a vocabulary on IMDB's training and unlabelled reviews, then trains a
//! small DistilBERT on passages of them, to guess masked tokens and to have the hidden states of a larger encoder. No label is used, and no text
//! that equals a test review.
//!
//! ```sh
//! cargo run --release --example pretrain -- aclImdb_v1.tar.gz TEACHER OUT
//! ```
//!
//! Masked tokens: Devlin et al. 2018, <https://arxiv.org/abs/1810.04805>, section 3.1. Hidden states of a teacher, layer by layer through a learned
//! linear: Jiao et al. 2019 (TinyBERT), <https://arxiv.org/abs/1909.10351>, equation 8; here of each word's first token, as the two models have
//! vocabularies of their own.

mod vocabulary;

use flate2::read::MultiGzDecoder;
use lowrank::autograd::{Parameter, Tape, Var};
use lowrank::data::{Encoder, Split, TableOptions, WordPiece, load, order};
use lowrank::nn::{Config, DistilBert, LayerNorm, Linear, Pass, Weight};
use lowrank::tensor::{DType, Sequences, Tensor, philox::Stream, safetensors};
use lowrank::train::{AdamW, Schedule};
use lowrank::{Error, Result};
use serde_json::json;
use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use vocabulary::{count_words, learn_vocabulary};

/// Sizes of the encoder: 1.8 million numbers.
const VOCABULARY: usize = 8000;
const WIDTH: usize = 128;
const LAYERS: usize = 4;
const POSITIONS: usize = 128;
/// Passages, each of so many words of a text of its own.
const PASSAGES: usize = 40_000;
const WORDS: std::ops::Range<usize> = 24..72;
const EPOCHS: usize = 6;
const BATCH: usize = 32;
const LR: f64 = 2e-3;
/// Weight of the masked tokens' loss beside the hidden states'.
const MASKED: f64 = 0.2;
const SEED: u64 = 0;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [archive, teacher, out] = &arguments[..] else {
        return Err(Error::invalid("usage: pretrain aclImdb_v1.tar.gz TEACHER OUT"));
    };
    let texts = texts(Path::new(archive))?;
    let vocabulary = learn_vocabulary(&count_words(texts.iter().map(String::as_str)), VOCABULARY, 100);
    println!(
        "{} texts, {} tokens: {} … {}",
        texts.len(),
        vocabulary.len(),
        vocabulary[200..210].join(" "),
        vocabulary[5000..5010].join(" ")
    );
    let wordpiece = WordPiece::from_vocab(vocabulary.clone())?;
    let batches = Batch::all(&texts, &wordpiece, Path::new(teacher))?;
    let mut student = Student::new(vocabulary.len())?;
    student.train(&batches, &wordpiece)?;
    student.save(&vocabulary, Path::new(out))
}

/// Training and unlabelled reviews that are no test review.
fn texts(archive: &Path) -> Result<Vec<String>> {
    let options = TableOptions::default();
    let test: HashSet<String> = load(archive, Split::Test, &options)?.texts.into_iter().collect();
    let mut texts = load(archive, Split::Train, &options)?.texts;
    let io = |e| Error::io(archive, e);
    let mut tar = tar::Archive::new(MultiGzDecoder::new(std::fs::File::open(archive).map_err(io)?));
    for entry in tar.entries().map_err(io)? {
        let mut entry = entry.map_err(io)?;
        if entry.path_bytes().windows(13).any(|w| w == b"/train/unsup/") {
            let mut text = Vec::new();
            entry.read_to_end(&mut text).map_err(io)?;
            texts.push(String::from_utf8_lossy(&text).into_owned());
        }
    }
    let all = texts.len();
    texts.retain(|text| !test.contains(text));
    eprintln!("{} texts, without {} that are a test review too", texts.len(), all - texts.len());
    // The archive's order is by class.
    Stream::new(SEED, "texts").shuffle(&mut texts);
    Ok(texts.into_iter().map(|text| text.replace("<br />", " ")).collect())
}

/// Some passages, and what the teacher sees in them.
struct Batch {
    ids: Vec<u32>,
    sequences: Arc<Sequences>,
    /// Where each word begins.
    words: Tensor,
    /// Hidden states `[words, D]` of the teacher's middle and last layer, and the sums of their squares.
    teacher: [Tensor; 2],
    square: [f64; 2],
}

/// The rows of tokens that begin a word.
fn beginnings(ids: &[u32], wordpiece: &WordPiece) -> Vec<u32> {
    let begins = |id: u32| wordpiece.token(id).is_some_and(|token| !token.starts_with("##"));
    (0..ids.len()).filter(|&i| begins(ids[i])).map(|i| i as u32).collect()
}

/// Hidden states `[T, D]` at `rows`.
fn gather(tape: &mut Tape, states: &Var, rows: &Tensor) -> Result<Var> {
    tape.embedding(states, rows, states.value().dtype())
}

impl Batch {
    fn all(texts: &[String], wordpiece: &WordPiece, teacher: &Path) -> Result<Vec<Batch>> {
        let (theirs, started) = (WordPiece::open(teacher)?, Instant::now());
        let teacher = DistilBert::open(teacher)?;
        let (mut own, mut other) = (Encoder::new(wordpiece), Encoder::new(&theirs));
        let mut random = Stream::new(SEED, "passages");
        let mut passages = Vec::new();
        for text in &texts[..PASSAGES.min(texts.len())] {
            let words: Vec<&str> = text.split_whitespace().collect();
            let length = (WORDS.start + random.below(WORDS.len())).min(words.len());
            let start = random.below(words.len() - length + 1);
            let passage = words[start..start + length].join(" ");
            let (a, b) = (own.encode(&passage, usize::MAX), other.encode(&passage, usize::MAX));
            // The same normalizer gives both the same words.
            let same = beginnings(&a, wordpiece).len() == beginnings(&b, &theirs).len();
            if same && a.len() <= POSITIONS && b.len() <= teacher.config.max_position_embeddings {
                passages.push((a, b));
            }
        }
        let mut batches = Vec::new();
        for chunk in passages.chunks(BATCH) {
            let whole = |ids: Vec<&Vec<u32>>| -> Result<(Vec<u32>, Arc<Sequences>)> {
                let lengths: Vec<usize> = ids.iter().map(|ids| ids.len()).collect();
                Ok((ids.into_iter().flatten().copied().collect(), Arc::new(Sequences::new(&lengths, vec![0; lengths.len()])?)))
            };
            let (ids, sequences) = whole(chunk.iter().map(|(a, _)| a).collect())?;
            let (seen, lies) = whole(chunk.iter().map(|(_, b)| b).collect())?;
            let rows = |ids: &[u32], wordpiece: &WordPiece| {
                let rows = beginnings(ids, wordpiece);
                Tensor::new(rows.clone(), [rows.len()])
            };
            let mut tape = Tape::new();
            let states = teacher.hidden_states(&mut tape, &seen, &Pass::evaluation(lies))?;
            let at = rows(&seen, &theirs)?;
            let layer = |tape: &mut Tape, i: usize| gather(tape, &states[i], &at)?.value().to_dtype(DType::BF16);
            let layers = [layer(&mut tape, teacher.blocks.len() / 2)?, layer(&mut tape, teacher.blocks.len())?];
            let square = |layer: &Tensor| Ok::<_, Error>(layer.to_f64()?.iter().map(|x| x * x).sum());
            let square = [square(&layers[0])?, square(&layers[1])?];
            batches.push(Batch { words: rows(&ids, wordpiece)?, ids, sequences, teacher: layers, square });
            if batches.len() % 100 == 0 {
                println!("the teacher has read {} batches, {:.0} s", batches.len(), started.elapsed().as_secs_f64());
            }
        }
        Ok(batches)
    }

    /// Ids with 15 % of the tokens masked, and which: 80 % of these become `[MASK]`, 10 % another token, 10 % stay.
    fn masked(&self, mask: u32, tokens: usize, random: &mut Stream) -> (Vec<u32>, Vec<u32>) {
        let (mut ids, mut at) = (self.ids.clone(), Vec::new());
        for (i, id) in ids.iter_mut().enumerate().filter(|(_, id)| **id > mask) {
            if random.uniform() < 0.15 {
                at.push(i as u32);
                *id = match random.below(10) {
                    0 => mask + 1 + random.below(tokens - mask as usize - 1) as u32,
                    1 => *id,
                    _ => mask,
                };
            }
        }
        (ids, at)
    }
}

/// The encoder, and what it needs only here.
struct Student {
    encoder: DistilBert,
    /// From its hidden states to the teacher's.
    images: Vec<Linear>,
    /// From hidden states to the token at a masked place; the last matrix is that of the embeddings.
    transform: Linear,
    norm: LayerNorm,
    bias: Weight,
}

impl Student {
    fn new(tokens: usize) -> Result<Student> {
        let mut config = Config::distilbert_base();
        (config.vocab_size, config.dim, config.hidden_dim, config.n_layers) = (tokens, WIDTH, 4 * WIDTH, LAYERS);
        (config.n_heads, config.max_position_embeddings) = (WIDTH / 32, POSITIONS);
        let mut encoder = DistilBert::random(&config, 2, DType::F32, SEED)?;
        encoder.parts_mut().into_iter().try_for_each(|part| part.weight().train())?;
        let fixed = |dims: &[usize], value: f64| Tensor::from_f64(vec![value; dims.iter().product()], DType::F32, dims);
        let linear = |name: &str, out: usize| {
            let mut random = Stream::new(SEED, name);
            let w = (0..out * WIDTH).map(|_| 0.02 * random.normal()).collect();
            let weight = Weight::trained(format!("{name}.weight"), Tensor::from_f64(w, DType::F32, [out, WIDTH])?);
            let bias = Weight::trained(format!("{name}.bias"), fixed(&[out], 0.0)?);
            Ok::<_, Error>(Linear::new(name, weight, Some(bias), 0))
        };
        Ok(Student {
            encoder,
            images: vec![linear("middle", 384)?, linear("last", 384)?],
            transform: linear("transform", WIDTH)?,
            norm: LayerNorm {
                gamma: Weight::trained("norm.weight", fixed(&[WIDTH], 1.0)?),
                beta: Weight::trained("norm.bias", fixed(&[WIDTH], 0.0)?),
                eps: 1e-12,
            },
            bias: Weight::trained("bias", fixed(&[tokens], 0.0)?),
        })
    }

    /// Everything that trains, the classifier aside, which is not used here.
    fn parameters_mut(&mut self) -> Vec<&mut Parameter> {
        let mut all = self.encoder.parameters_mut();
        all.retain(|p| p.name().starts_with("distilbert."));
        let linears = self.images.iter_mut().chain([&mut self.transform]);
        let weights = linears.flat_map(|l| [&mut l.weight].into_iter().chain(l.bias.as_mut()));
        let rest = weights.chain([&mut self.norm.gamma, &mut self.norm.beta, &mut self.bias]);
        all.extend(rest.flat_map(Weight::parameter_mut));
        all
    }

    /// Losses of a batch: of the hidden states, as a share of the teacher's mean square, and of the masked tokens, in nats.
    fn losses<'m>(&'m self, tape: &mut Tape<'m>, batch: &Batch, masked: (Vec<u32>, Vec<u32>)) -> Result<[Var; 2]> {
        let (ids, at) = masked;
        let pass = Pass::evaluation(batch.sequences.clone());
        let states = self.encoder.hidden_states(tape, &ids, &pass)?;
        let mut distance: Option<Var> = None;
        for ((image, target), layer) in self.images.iter().zip(&batch.teacher).zip([LAYERS / 2, LAYERS]) {
            let h = gather(tape, &states[layer], &batch.words)?;
            let y = image.forward(tape, &pass, &h)?;
            let target = tape.constant(&target.to_dtype(DType::F32)?);
            let minus = tape.scale(&target, -1.0)?;
            let error = tape.add(&y, &minus)?;
            let error = tape.mul(&error, &error)?;
            let error = tape.sum(&error)?;
            let error = tape.scale(&error, 0.5 / batch.square[layer * 2 / LAYERS - 1])?;
            distance = Some(distance.map_or(Ok(error.clone()), |sum| tape.add(&sum, &error))?);
        }
        let labels: Vec<u32> = at.iter().map(|&i| batch.ids[i as usize]).collect();
        let last = states.last().ok_or_else(|| Error::invalid("no layers"))?;
        let h = gather(tape, last, &Tensor::new(at.clone(), [at.len()])?)?;
        let h = self.transform.forward(tape, &pass, &h)?;
        let h = tape.gelu(&h)?;
        let h = self.norm.forward(tape, &pass, &h)?;
        let (table, bias) = (self.encoder.word_embeddings.var(tape, &pass)?, self.bias.var(tape, &pass)?);
        let logits = tape.linear(&h, &table, Some(&bias))?;
        let tokens = tape.cross_entropy(&logits, &labels, labels.len())?;
        Ok([distance.ok_or_else(|| Error::invalid("no teacher"))?, tokens])
    }

    fn train(&mut self, batches: &[Batch], wordpiece: &WordPiece) -> Result<()> {
        let mask = wordpiece.id("[MASK]").ok_or_else(|| Error::invalid("the vocabulary has no [MASK]"))?;
        let steps = EPOCHS * batches.len();
        let (mut optimizer, started, mut sums) = (AdamW::new(0.01), Instant::now(), [0.0; 2]);
        for epoch in 0..EPOCHS {
            for index in order(batches.len(), epoch, SEED) {
                let (batch, t) = (&batches[index], optimizer.steps());
                let masked = batch.masked(mask, wordpiece.vocab_size(), &mut Stream::new(SEED, &format!("mask {epoch} {index}")));
                let mut tape = Tape::new();
                let [states, tokens] = self.losses(&mut tape, batch, masked)?;
                sums[0] += states.value().item()?;
                sums[1] += tokens.value().item()?;
                let tokens = tape.scale(&tokens, MASKED)?;
                let loss = tape.add(&states, &tokens)?;
                let grads = tape.backward(&loss)?;
                let norm =
                    optimizer.update(&mut self.parameters_mut(), grads, LR * Schedule::Linear.factor(t, steps / 20, steps), 1.0)?.item()?;
                if !norm.is_finite() {
                    return Err(lowrank::Error::Training { step: t + 1, problem: format!("the gradient norm is {norm}") });
                }
                if (t + 1) % 100 == 0 {
                    let [states, tokens] = sums.map(|sum| sum / 100.0);
                    sums = [0.0; 2];
                    let seconds = started.elapsed().as_secs_f64();
                    println!("step {} of {steps}: states {states:.4}, masked tokens {tokens:.4}, {seconds:.0} s", t + 1);
                }
            }
        }
        Ok(())
    }

    /// Writes the encoder in f16, without a head.
    fn save(&self, vocabulary: &[String], out: &Path) -> Result<()> {
        let weights = self.encoder.weights().into_iter().filter(|w| w.name().starts_with("distilbert."));
        let tensors = weights.map(|w| Ok((w.name().to_string(), w.value()?.to_dtype(DType::F16)?)));
        let mut config = serde_json::to_value(&self.encoder.config).map_err(|e| Error::file(out, "config", e))?;
        config["architectures"] = json!(["DistilBertModel"]);
        config["dtype"] = json!("float16");
        std::fs::create_dir_all(out).map_err(|e| Error::io(out, e))?;
        let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
        safetensors::write(&out.join("model.safetensors"), &tensors.collect::<Result<Vec<_>>>()?, &metadata)?;
        let text = serde_json::to_string_pretty(&config).map_err(|e| Error::file(out, "config", e))?;
        lowrank::files::write_file(&out.join("config.json"), text.as_bytes())?;
        lowrank::files::write_file(&out.join("vocab.txt"), (vocabulary.join("\n") + "\n").as_bytes())?;
        let tokenizer = WordPiece::open(&out.join("vocab.txt"))?.to_json()?;
        lowrank::files::write_file(&out.join("tokenizer.json"), tokenizer.as_bytes())
    }
}
