//! Writes a tokenizer as `tokenizer.json`, the file of Hugging Face tokenizers.

use super::WordPiece;
use super::pieces::CONTINUED;
use crate::{Error, Result};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

#[derive(Serialize)]
struct File {
    version: &'static str,
    truncation: Value,
    padding: Value,
    added_tokens: Vec<Value>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: Model,
}

#[derive(Serialize)]
struct Model {
    r#type: &'static str,
    unk_token: String,
    continuing_subword_prefix: &'static str,
    max_input_chars_per_word: usize,
    /// In the order of the ids, as in Hugging Face's files.
    #[serde(serialize_with = "in_order")]
    vocab: Vec<(String, u32)>,
}

fn in_order<S: Serializer>(vocabulary: &[(String, u32)], to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_map(vocabulary.iter().map(|(token, id)| (token, id)))
}

impl WordPiece {
    /// The text of a `tokenizer.json` that gives the same ids. Equal tokenizers have equal texts.
    ///
    /// # Errors
    /// Never for a tokenizer that was read or made here.
    pub fn to_json(&self) -> Result<String> {
        let added = self.added.by_id.iter().map(|(id, t)| {
            let (normalized, special) = (t.is_normalized(), t.special);
            json!({
                "id": id, "content": t.content, "single_word": t.single_word, "lstrip": t.lstrip, "rstrip": t.rstrip,
                "normalized": normalized, "special": special,
            })
        });
        let n = self.normalizer;
        let marker = |token: &str| json!({ "SpecialToken": { "id": token, "type_id": 0 } });
        let sequence = |name: &str, type_id: u32| json!({ "Sequence": { "id": name, "type_id": type_id } });
        let (cls, sep) = (&self.classify, &self.separate);
        let special_tokens: serde_json::Map<String, Value> =
            [cls, sep].into_iter().map(|m| (m.token.clone(), json!({ "id": m.token, "ids": [m.id], "tokens": [m.token] }))).collect();
        let last = json!({ "SpecialToken": { "id": sep.token, "type_id": 1 } });
        let single = json!([marker(&cls.token), sequence("A", 0), marker(&sep.token)]);
        let pair = json!([marker(&cls.token), sequence("A", 0), marker(&sep.token), sequence("B", 1), last]);
        let file = File {
            version: "1.0",
            truncation: Value::Null,
            padding: Value::Null,
            added_tokens: added.collect(),
            normalizer: json!({
                "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": n.split_ideographs,
                "strip_accents": n.strip_accents, "lowercase": n.lowercase,
            }),
            pre_tokenizer: json!({ "type": "BertPreTokenizer" }),
            post_processor: json!({ "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special_tokens }),
            decoder: json!({ "type": "WordPiece", "prefix": CONTINUED, "cleanup": true }),
            model: Model {
                r#type: "WordPiece",
                unk_token: self.unknown.token.clone(),
                continuing_subword_prefix: CONTINUED,
                max_input_chars_per_word: self.max_chars,
                vocab: self.vocabulary(),
            },
        };
        serde_json::to_string_pretty(&file).map_err(|e| Error::invalid(format!("tokenizer.json: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_as_the_same_tokenizer() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nzebra\nGood\n##s\n\u{e9}\n\n");
        write("added_tokens.json", r#"{"New word": 20, "Good": 6}"#);
        write("special_tokens_map.json", r#"{"mask_token": {"content": "[MASK]", "lstrip": true, "normalized": false}}"#);
        write("tokenizer_config.json", r#"{"do_lower_case": false}"#);
        let first = WordPiece::open(dir.path()).unwrap();
        let text = first.to_json().unwrap();
        let zebra = text.find("\"zebra\"").unwrap();
        assert!(text.find("\"[MASK]\": 4").unwrap() < zebra && zebra < text.find("\"##s\"").unwrap(), "{text}");
        write("tokenizer.json", &text);
        let beside = WordPiece::open(dir.path()).unwrap();
        for name in ["vocab.txt", "added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"] {
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
        let alone = WordPiece::open(dir.path()).unwrap();
        for again in [beside, alone] {
            assert_eq!((again.rules(), again.vocabulary()), (first.rules(), first.vocabulary()));
            assert_eq!(again.to_json().unwrap(), text);
            assert_eq!(again.encode("Goods  [MASK] New word \u{e9}", 99), [2, 6, 1, 4, 10, 8, 3]);
        }
    }
}
