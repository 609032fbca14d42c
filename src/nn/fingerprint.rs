//! A hash of an encoder's weights. It tells apart two bases of the same shapes. The same pass over the file looks for numbers that are not finite.

use super::load::find;
use super::{Config, in_head, in_pooler};
use crate::tensor::rows;
use crate::tensor::safetensors::SafeTensors;
use crate::text::hex;
use crate::{Error, Result};
use sha2::{Digest, Sha256};

/// Hash of the encoder in `file`, a checkpoint with the sizes of `config`.
///
/// It is the SHA-256 of a text with one line for each of the encoder's tensors: `name dtype [sizes] hash`, where the last is the SHA-256 of the
/// tensor's bytes, sorted by the names of [`super::DistilBert`]'s weights. So the hash does not depend on the head, on the names in the file,
/// on shards or on metadata. BERT's pooler counts, if the file has one. The same numbers in another data type have another hash.
///
/// # Errors
/// If a tensor that the model uses, the head included, holds a number that is not finite or is of a type that cannot be computed with.
pub fn fingerprint(file: &SafeTensors, config: &Config) -> Result<String> {
    let found = |name: String| Some((find(file, &name)?, name));
    let mut lines = rows::map(names(config).into_iter().filter_map(found).collect(), |(found, name)| line(file, &found, name))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    file.check_unchanged()?;
    lines.retain(|line| !in_head(line) || in_pooler(line));
    lines.sort();
    Ok(hex(&Sha256::digest(lines.concat())))
}

/// The line of the weight `name`. `found` is its name in the file.
fn line(file: &SafeTensors, found: &str, name: String) -> Result<String> {
    let tensor = file.tensor(found)?;
    let (bytes, path) = file.bytes(found).ok_or_else(|| Error::file(file.path(), format!("tensor {found:?}"), "is not there"))?;
    let problem = |what| Error::file(path, format!("tensor {found:?}"), format!("{what}: the file is damaged, or its training went wrong"));
    tensor.check_finite(problem)?;
    let line = format!("{name} {} {:?} {}\n", tensor.dtype(), tensor.dims(), hex(&Sha256::digest(bytes)));
    // Afterwards few rows of a large table are needed: give its memory back.
    file.release(found);
    Ok(line)
}

/// The names of all weights of a model.
fn names(config: &Config) -> Vec<String> {
    let kind = config.architecture;
    let embeddings = |part: &str| format!("{}.embeddings.{part}", kind.encoder());
    let types = (config.type_vocab_size > 0).then_some("token_type_embeddings.weight");
    let tables = ["word_embeddings.weight", "position_embeddings.weight"].into_iter().chain(types);
    let layers = (0..config.n_layers).flat_map(|layer| kind.modules().map(|module| format!("{}.{module}", kind.layer(layer))));
    let modules = [embeddings("LayerNorm"), kind.pre_classifier().to_string(), "classifier".to_string()].into_iter().chain(layers);
    let pairs = modules.flat_map(|module| ["weight", "bias"].map(|end| format!("{module}.{end}")));
    tables.map(embeddings).chain(pairs).collect()
}

#[cfg(test)]
mod tests {
    use super::super::DistilBert;
    use super::*;
    use crate::tensor::safetensors::write;
    use crate::tensor::{DType, Tensor};
    use std::collections::BTreeMap;
    use std::path::Path;

    fn config() -> Config {
        let mut config = Config::distilbert_base();
        (config.dim, config.n_heads, config.hidden_dim, config.n_layers, config.vocab_size) = (8, 2, 16, 2, 40);
        config
    }

    fn tensors(seed: u64) -> Vec<(String, Tensor)> {
        let model = DistilBert::random(&config(), 2, DType::F32, seed).unwrap();
        model.weights().into_iter().map(|w| (w.name().to_string(), w.value().unwrap())).collect()
    }

    fn hash_in(directory: &Path) -> Result<String> {
        fingerprint(&SafeTensors::open(directory)?, &config())
    }

    fn hash(tensors: &[(String, Tensor)], metadata: &[(&str, &str)]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let metadata: BTreeMap<_, _> = metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        write(&dir.path().join("model.safetensors"), tensors, &metadata).unwrap();
        hash_in(dir.path()).unwrap()
    }

    #[test]
    fn all_weights_of_a_model_are_named() {
        let model = DistilBert::random(&config(), 2, DType::F32, 0).unwrap();
        let mut own: Vec<_> = model.weights().iter().map(|w| w.name().to_string()).collect();
        let mut named = names(&config());
        own.sort();
        named.sort();
        assert_eq!(own, named);
    }

    #[test]
    fn the_encoder_alone_counts_whatever_it_is_called() {
        let all = tensors(1);
        let plain = hash(&all, &[("format", "pt")]);
        assert_eq!(plain.len(), 64);
        let encoder: Vec<_> = all.iter().filter(|(name, _)| name.starts_with("distilbert.")).cloned().collect();
        assert_eq!(hash(&encoder, &[]), plain, "without the head");
        let old = |(name, t): &(String, Tensor)| {
            let bare = name.strip_prefix("distilbert.").unwrap().to_string();
            let norm = bare.to_lowercase().contains("layernorm") || bare.contains("layer_norm");
            (if norm { bare.replace(".weight", ".gamma").replace(".bias", ".beta") } else { bare }, t.clone())
        };
        assert_eq!(hash(&encoder.iter().map(old).collect::<Vec<_>>(), &[("a", "b")]), plain, "old names without a prefix");
        let extra = ("distilbert.embeddings.position_ids".to_string(), Tensor::new(vec![0u32, 1], [2]).unwrap());
        assert_eq!(hash(&[encoder.clone(), vec![extra]].concat(), &[]), plain, "a tensor that no model uses");

        let dir = tempfile::tempdir().unwrap();
        let map: BTreeMap<&str, &str> = all
            .iter()
            .enumerate()
            .map(|(i, (name, _))| (name.as_str(), if i % 3 == 0 { "a.safetensors" } else { "b.safetensors" }))
            .collect();
        for shard in ["a.safetensors", "b.safetensors"] {
            let own: Vec<_> = all.iter().filter(|(name, _)| map[name.as_str()] == shard).cloned().collect();
            write(&dir.path().join(shard), &own, &BTreeMap::new()).unwrap();
        }
        let index = serde_json::json!({ "weight_map": map }).to_string();
        std::fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
        assert_eq!(hash_in(dir.path()).unwrap(), plain, "in shards");

        assert_ne!(hash(&tensors(2), &[]), plain, "other numbers");
        let mut other = encoder.clone();
        let last = other.last_mut().unwrap();
        last.1 = last.1.to_dtype(DType::F64).unwrap();
        assert_ne!(hash(&other, &[]), plain, "another type");
        let mut swapped = encoder;
        let q = swapped.iter().position(|(name, _)| name.ends_with("layer.0.attention.q_lin.weight")).unwrap();
        let k = swapped.iter().position(|(name, _)| name.ends_with("layer.0.attention.k_lin.weight")).unwrap();
        (swapped[q].1, swapped[k].1) = (swapped[k].1.clone(), swapped[q].1.clone());
        assert_ne!(hash(&swapped, &[]), plain, "two tensors in each other's place");
    }

    #[test]
    fn a_number_that_is_not_finite_is_named() {
        for (name, bad) in [("distilbert.transformer.layer.1.ffn.lin2.bias", f32::NAN), ("classifier.bias", f32::INFINITY)] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("model.safetensors");
            write(&path, &tensors(1), &BTreeMap::new()).unwrap();
            // The writer refuses such a number.
            let file = SafeTensors::open(&path).unwrap();
            let at = file.bytes(name).unwrap().0.as_ptr() as usize;
            let first = file.names().map(|n| file.bytes(n).unwrap().0.as_ptr() as usize).min().unwrap();
            let data: usize = file.names().map(|n| file.bytes(n).unwrap().0.len()).sum();
            let mut bytes = std::fs::read(&path).unwrap();
            let start = bytes.len() - data + (at - first);
            bytes[start + 4..start + 8].copy_from_slice(&bad.to_le_bytes());
            drop(file);
            std::fs::write(&path, bytes).unwrap();
            let said = hash_in(dir.path()).unwrap_err().to_string();
            assert!(said.contains("model.safetensors") && said.contains(&format!("{name:?}")) && said.contains("[1]"), "{said}");
        }
    }
}
