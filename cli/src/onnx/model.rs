//! DistilBERT and BERT as a graph of ONNX operators, in f32. It computes padded batches; the engine computes packed ones.

use super::graph::{Builder, Setting, Size};
use super::proto::FLOAT;
use lowrank::nn::{Architecture, Block, DistilBert, LayerNorm, Linear, Weight};
use lowrank::tensor::{DType, Tensor};
use lowrank::{Error, Result};
use prost::Message;

/// Added to the scores of padding. Softmax then gives them 0.
const PADDING: f64 = -1e9;

/// The bytes of an ONNX file that computes `logits` `[batch, C]` of `input_ids` and `attention_mask`, both `[batch, sequence]` of i64, where 0 in the
/// mask stands for padding. BERT's tokens are all of type 0; with `pairs`, their types are a third input, `token_type_ids`.
///
/// # Errors
/// If the model has parts that a plain checkpoint lacks (merge low-rank terms first), or is larger than 2 GB.
pub fn encode(model: &DistilBert, pairs: bool) -> Result<Vec<u8>> {
    let added = |block: &Block| block.prefix.is_some() || block.hooks.iter().any(Option::is_some);
    let linears =
        model.blocks.iter().flat_map(|b| b.qkv.iter().chain([&b.out, &b.lin1, &b.lin2])).chain([&model.pre_classifier, &model.classifier]);
    if model.prompt.is_some()
        || model.shared.is_some()
        || model.blocks.iter().any(added)
        || linears.into_iter().any(|l| !l.terms.is_empty() || l.variant.is_some())
    {
        return Err(Error::invalid(
            "export: only a plain model can be exported: merge low-rank terms; a prompt, a prefix, a subspace and bottlenecks cannot be",
        ));
    }
    let mut graph = Builder::default();
    let tokens = || [Size::Free("batch"), Size::Free("sequence")];
    graph.input("input_ids", &tokens());
    graph.input("attention_mask", &tokens());
    let types = model.token_type_embeddings.as_ref().filter(|_| pairs);
    types.iter().for_each(|_| graph.input("token_type_ids", &tokens()));
    let mut h = embeddings(&mut graph, model, types)?; // [batch, sequence, D]
    let mask = mask(&mut graph)?;
    for block in &model.blocks {
        h = layer(&mut graph, block, &h, &mask)?;
    }
    let first = graph.ints("index.first", &[0])?;
    let axes = graph.ints("axes.1", &[1])?;
    let cls = graph.node("Gather", "cls.row", &[&h, &first], &[Setting::Int("axis", 1)]); // [batch, 1, D]
    let cls = graph.node("Squeeze", "cls", &[&cls, &axes], &[]);
    let hidden = linear(&mut graph, &model.pre_classifier, &cls)?;
    let activation = if model.config.architecture == Architecture::Bert { "Tanh" } else { "Relu" };
    let hidden = graph.node(activation, "head.activation", &[&hidden], &[]);
    let logits = linear(&mut graph, &model.classifier, &hidden)?;
    let logits = graph.node("Identity", "logits", &[&logits], &[]);
    let file = graph.finish(&logits, &[Size::Free("batch"), Size::Fixed(model.classifier.dims().0)]);
    Ok(file.encode_to_vec())
}

/// h⁰ `[batch, sequence, D]`.
fn embeddings(graph: &mut Builder, model: &DistilBert, types: Option<&Weight>) -> Result<String> {
    let words = graph.weight(&model.word_embeddings)?;
    let mut words = graph.node("Gather", "embeddings.words", &[&words, "input_ids"], &[]);
    if let Some(table) = types {
        let table = graph.weight(table)?;
        let types = graph.node("Gather", "embeddings.types", &[&table, "token_type_ids"], &[]);
        words = graph.node("Add", "embeddings.words_and_types", &[&words, &types], &[]);
    }
    let positions = positions(model, types.is_none())?;
    let table = graph.floats("embeddings.position_table", positions.dims(), positions.host::<f32>()?)?;
    let (zero, axes) = (graph.ints("index.first", &[0])?, graph.ints("axes.0", &[0])?);
    let length = graph.node("Shape", "sequence", &["input_ids"], &[Setting::Int("start", 1), Setting::Int("end", 2)]);
    let positions = graph.node("Slice", "embeddings.positions", &[&table, &zero, &length, &axes], &[]);
    let sum = graph.node("Add", "embeddings.sum", &[&words, &positions], &[]);
    norm(graph, &model.layer_norm, &sum)
}

/// The table of positions `[M, D]`, to which BERT's token type 0 is added unless the types are an input.
fn positions(model: &DistilBert, of_type_0: bool) -> Result<Tensor> {
    let mut table = model.position_embeddings.value()?.to_f64()?;
    if let Some(types) = model.token_type_embeddings.as_ref().filter(|_| of_type_0) {
        let types = types.value()?.to_f64()?;
        let d = model.config.dim;
        table.chunks_exact_mut(d).for_each(|row| row.iter_mut().zip(&types[..d]).for_each(|(x, of_type)| *x += of_type));
    }
    Tensor::from_f64(table, DType::F32, model.position_embeddings.shape().dims())
}

/// What is added to the scores of attention: 0, or a very negative number for padding: `[batch, 1, 1, sequence]`.
fn mask(graph: &mut Builder) -> Result<String> {
    let float = graph.node("Cast", "mask.float", &["attention_mask"], &[Setting::Int("to", FLOAT.into())]);
    let (one, padding, axes) = (graph.scalar("one", 1.0)?, graph.scalar("mask.score", PADDING)?, graph.ints("axes.1.2", &[1, 2])?);
    let padded = graph.node("Sub", "mask.padded", &[&one, &float], &[]);
    let scores = graph.node("Mul", "mask.scores", &[&padded, &padding], &[]);
    Ok(graph.node("Unsqueeze", "mask", &[&scores, &axes], &[]))
}

/// y = LN(h) γ + β over the last axis.
fn norm(graph: &mut Builder, norm: &LayerNorm, h: &str) -> Result<String> {
    let (gamma, beta) = (graph.weight(&norm.gamma)?, graph.weight(&norm.beta)?);
    let name = norm.gamma.name().trim_end_matches(".weight").to_string();
    let settings = [Setting::Int("axis", -1), Setting::Float("epsilon", norm.eps as f32)];
    Ok(graph.node("LayerNormalization", &name, &[h, &gamma, &beta], &settings))
}

/// y = x Wᵀ + b.
fn linear(graph: &mut Builder, linear: &Linear, x: &str) -> Result<String> {
    let weight = graph.transposed(&linear.weight)?;
    let product = graph.node("MatMul", &format!("{}.product", linear.name), &[x, &weight], &[]);
    let Some(bias) = &linear.bias else { return Ok(product) };
    let bias = graph.weight(bias)?;
    Ok(graph.node("Add", &linear.name, &[&product, &bias], &[]))
}

/// A layer, as [`Block::forward`] has it.
fn layer(graph: &mut Builder, block: &Block, h: &str, mask: &str) -> Result<String> {
    let name = |part: &str| format!("{}.{part}", block.name);
    let context = attention(graph, block, h, mask)?;
    let attended = linear(graph, &block.out, &context)?;
    let sum = graph.node("Add", &name("attention.residual"), &[&attended, h], &[]);
    let a = norm(graph, &block.sa_layer_norm, &sum)?;
    let wide = linear(graph, &block.lin1, &a)?;
    let wide = gelu(graph, &name("gelu"), &wide)?;
    let narrow = linear(graph, &block.lin2, &wide)?;
    let sum = graph.node("Add", &name("ffn.residual"), &[&narrow, &a], &[]);
    norm(graph, &block.output_layer_norm, &sum)
}

/// softmax(q kᵀ / √K + mask) v of every head: `[batch, sequence, D]`.
fn attention(graph: &mut Builder, block: &Block, h: &str, mask: &str) -> Result<String> {
    let d = block.out.dims().1;
    let width = d / block.heads;
    // 0 stands for the size of the input.
    let split = graph.ints("shape.heads", &[0, 0, block.heads as i64, width as i64])?;
    let joined = graph.ints("shape.joined", &[0, 0, d as i64])?;
    let scale = graph.scalar("attention.scale", (width as f64).sqrt().recip())?;
    let mut heads = Vec::new();
    // [batch, H, sequence, K]; the last two axes of k are swapped.
    for (of, axes) in block.qkv.iter().zip([[0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]]) {
        let y = linear(graph, of, h)?;
        let y = graph.node("Reshape", &format!("{}.split", of.name), &[&y, &split], &[]);
        heads.push(graph.node("Transpose", &format!("{}.heads", of.name), &[&y], &[Setting::Ints("perm", &axes)]));
    }
    let name = |part: &str| format!("{}.attention.{part}", block.name);
    let products = graph.node("MatMul", &name("products"), &[&heads[0], &heads[1]], &[]);
    let scaled = graph.node("Mul", &name("scaled"), &[&products, &scale], &[]);
    let scores = graph.node("Add", &name("scores"), &[&scaled, mask], &[]);
    let probabilities = graph.node("Softmax", &name("probabilities"), &[&scores], &[Setting::Int("axis", -1)]);
    let context = graph.node("MatMul", &name("context"), &[&probabilities, &heads[2]], &[]);
    let context = graph.node("Transpose", &name("rows"), &[&context], &[Setting::Ints("perm", &[0, 2, 1, 3])]);
    Ok(graph.node("Reshape", &name("joined"), &[&context, &joined], &[]))
}

/// y = x (1 + erf(x / √2)) / 2.
fn gelu(graph: &mut Builder, name: &str, x: &str) -> Result<String> {
    let (root, one, half) = (graph.scalar("gelu.root", 0.5f64.sqrt())?, graph.scalar("one", 1.0)?, graph.scalar("half", 0.5)?);
    let scaled = graph.node("Mul", &format!("{name}.scaled"), &[x, &root], &[]);
    let erf = graph.node("Erf", &format!("{name}.erf"), &[&scaled], &[]);
    let shifted = graph.node("Add", &format!("{name}.shifted"), &[&erf, &one], &[]);
    let product = graph.node("Mul", &format!("{name}.product"), &[x, &shifted], &[]);
    Ok(graph.node("Mul", name, &[&product, &half], &[]))
}
