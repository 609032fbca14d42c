//! Reads a tokenizer from the files that Hugging Face keeps beside a checkpoint.

use super::normalize::Normalizer;
use super::wordpiece::{CONTINUED, Parts, SPECIAL, WordPiece};
use crate::tensor::safetensors::read_bytes;
use crate::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Longest word of BERT, in characters.
const MAX_CHARS: usize = 100;

pub(super) fn open(path: &Path) -> Result<WordPiece> {
    if path.is_dir() {
        let found = ["tokenizer.json", "vocab.txt"].map(|name| path.join(name)).into_iter().find(|file| file.is_file());
        let missing = || Error::file(path, "tokenizer", "holds neither tokenizer.json nor vocab.txt; copy one from the base model");
        return open(&found.ok_or_else(missing)?);
    }
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) { from_json(path) } else { from_text(path) }
}

/// The parts of a plain vocabulary: BERT's special tokens are matched literally where the vocabulary has them.
pub(super) fn of_vocab(tokens: Vec<String>, normalizer: Normalizer) -> Parts {
    let special = (0u32..).zip(&tokens).filter(|(_, token)| SPECIAL.contains(&token.as_str())).map(|(id, _)| id).collect();
    Parts { pieces: tokens.len(), tokens, special, normalizer, max_chars: MAX_CHARS }
}

fn read(path: &Path) -> Result<String> {
    let bytes = read_bytes(path)?;
    String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count() + 1;
        Error::file(path, format_args!("line {line}"), "not UTF-8; is this a tokenizer file?")
    })
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_str(&read(path)?).map_err(|e| Error::file(path, format_args!("line {}", e.line()), e))
}

/// What of `tokenizer_config.json` matters to a `vocab.txt`.
#[derive(Deserialize, Default)]
struct Config {
    do_lower_case: Option<bool>,
    strip_accents: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
}

fn from_text(path: &Path) -> Result<WordPiece> {
    let config = path.with_file_name("tokenizer_config.json");
    let config: Config = if config.is_file() { parse(&config)? } else { Config::default() };
    let text = read(path)?;
    // Only `\n` and `\r\n` end a line: other separators may be tokens.
    let lines = text.strip_prefix('\u{feff}').unwrap_or(&text).split_terminator('\n');
    let tokens = lines.map(|line| line.strip_suffix('\r').unwrap_or(line).to_string()).collect();
    let lowercase = config.do_lower_case.unwrap_or(true);
    let normalizer = Normalizer {
        lowercase,
        strip_accents: config.strip_accents.unwrap_or(lowercase),
        split_ideographs: config.tokenize_chinese_chars.unwrap_or(true),
    };
    WordPiece::new(of_vocab(tokens, normalizer), path, "line", 1)
}

/// `tokenizer.json`. Its truncation, padding and decoder are not read: batches are packed and texts cut by the caller.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    max_input_chars_per_word: Option<usize>,
    vocab: Value,
}

fn from_json(path: &Path) -> Result<WordPiece> {
    let file: File = parse(path)?;
    let refuse = |place: &str, problem: String| Error::file(path, place, format_args!("{problem}; only BERT's WordPiece is supported"));
    let Model { kind, unk_token, continuing_subword_prefix, max_input_chars_per_word, vocab } = file.model;
    for (place, value, wanted) in [
        ("model.type", kind, "WordPiece"),
        ("model.unk_token", unk_token, "[UNK]"),
        ("model.continuing_subword_prefix", continuing_subword_prefix, CONTINUED),
    ] {
        if let Some(value) = value.filter(|value| value != wanted) {
            return Err(refuse(place, format!("{value:?} instead of {wanted:?}")));
        }
    }
    if file.pre_tokenizer["type"] != "BertPreTokenizer" {
        return Err(refuse("pre_tokenizer", format!("{} instead of BertPreTokenizer", file.pre_tokenizer["type"])));
    }
    if !wraps_in_cls_sep(&file.post_processor) {
        return Err(refuse("post_processor", "not [CLS] text [SEP]".into()));
    }
    let normalizer = normalizer(&file.normalizer).map_err(|problem| refuse("normalizer", problem))?;
    let vocab: BTreeMap<String, u32> =
        serde_json::from_value(vocab).map_err(|e| refuse("model.vocab", format!("not a map of tokens to ids ({e})")))?;
    let pieces = vocab.len();
    let mut tokens = vec![None; pieces];
    for (token, id) in vocab {
        match tokens.get_mut(id as usize) {
            Some(slot @ None) => *slot = Some(token),
            _ => return Err(refuse("model.vocab", format!("id {id} of {token:?} is out of the range 0..{pieces} or given twice"))),
        }
    }
    let mut tokens: Vec<String> = tokens.into_iter().flatten().collect();
    let special = added(file.added_tokens, &mut tokens).map_err(|problem| refuse("added_tokens", problem))?;
    let parts = Parts { tokens, pieces, special, normalizer, max_chars: max_input_chars_per_word.unwrap_or(MAX_CHARS) };
    WordPiece::new(parts, path, "model.vocab id", 0)
}

/// Checks the added tokens against `tokens`, appends those that are new, and returns their ids.
fn added(mut added: Vec<Added>, tokens: &mut Vec<String>) -> std::result::Result<Vec<u32>, String> {
    added.sort_by_key(|token| token.id);
    for token in &added {
        let content = &token.content;
        if token.single_word || token.lstrip || token.rstrip || token.normalized {
            return Err(format!("{content:?} sets single_word, lstrip, rstrip or normalized"));
        }
        if token.id as usize == tokens.len() {
            tokens.push(content.clone());
        } else if tokens.get(token.id as usize) != Some(content) {
            return Err(format!("{content:?} has the id {}, which is another token's or leaves a gap", token.id));
        }
    }
    Ok(added.into_iter().map(|token| token.id).collect())
}

fn normalizer(value: &Value) -> std::result::Result<Normalizer, String> {
    let flag = |key: &str| match &value[key] {
        Value::Null => Ok(None),
        Value::Bool(b) => Ok(Some(*b)),
        other => Err(format!("{key} is {other}, not true or false")),
    };
    if value["type"] != "BertNormalizer" {
        return Err(format!("{} instead of BertNormalizer", value["type"]));
    }
    if flag("clean_text")? == Some(false) {
        return Err("clean_text is false".into());
    }
    let lowercase = flag("lowercase")?.unwrap_or(true);
    let split_ideographs = flag("handle_chinese_chars")?.unwrap_or(true);
    Ok(Normalizer { lowercase, strip_accents: flag("strip_accents")?.unwrap_or(lowercase), split_ideographs })
}

/// `BertProcessing`, or a template with the same effect on a single text. Without any, Hugging Face adds no [CLS]: not BERT.
fn wraps_in_cls_sep(value: &Value) -> bool {
    let single = &value["single"];
    match value["type"].as_str() {
        Some("BertProcessing") => value["cls"][0] == "[CLS]" && value["sep"][0] == "[SEP]",
        Some("TemplateProcessing") => {
            single.as_array().is_some_and(|steps| steps.len() == 3)
                && single[0]["SpecialToken"]["id"] == "[CLS]"
                && single[1]["Sequence"]["id"] == "A"
                && single[2]["SpecialToken"]["id"] == "[SEP]"
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tokenizer() -> Value {
        json!({
            "added_tokens": [{"id": 0, "content": "[UNK]"}, {"id": 5, "content": "<new>", "special": true, "normalized": false}],
            "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": false},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "Good": 3, "##\u{e9}": 4}},
        })
    }

    fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> std::path::PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn respects_tokenizer_json() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "tokenizer.json", tokenizer().to_string());
        let w = WordPiece::open(dir.path()).unwrap();
        assert_eq!(w.encode("Good\u{e9} good<new>Good", 99), [1, 3, 4, 0, 5, 3, 2]);
        assert_eq!((w.vocab_size(), w.id("<new>"), w.token(5)), (6, Some(5), Some("<new>")));
    }

    #[test]
    fn refuses_what_it_cannot_do() {
        let dir = tempfile::tempdir().unwrap();
        for (pointer, value, wanted) in [
            ("/model/type", json!("BPE"), "model.type: \"BPE\" instead of"),
            ("/model/unk_token", json!("<unk>"), "model.unk_token"),
            ("/model/vocab/Good", json!(9), "model.vocab: id 9"),
            ("/model/vocab/Good", json!(2), "given twice"),
            ("/model/vocab", json!([1]), "model.vocab: not a map"),
            ("/normalizer/type", json!("Lowercase"), "normalizer"),
            ("/normalizer/clean_text", json!(false), "clean_text is false"),
            ("/normalizer/lowercase", json!(1), "lowercase is 1"),
            ("/pre_tokenizer/type", json!("Whitespace"), "pre_tokenizer"),
            ("/post_processor/cls/0", json!("<s>"), "post_processor"),
            ("/added_tokens/0/lstrip", json!(true), "added_tokens"),
            ("/added_tokens/1/id", json!(7), "leaves a gap"),
        ] {
            let mut broken = tokenizer();
            match broken.pointer_mut(pointer) {
                Some(slot) => *slot = value,
                None => broken["added_tokens"][0]["lstrip"] = value,
            }
            let path = write(dir.path(), "tokenizer.json", broken.to_string());
            let message = WordPiece::open(&path).unwrap_err().to_string();
            assert!(message.contains("tokenizer.json: ") && message.contains(wanted), "{pointer}: {message}");
        }
        let path = write(dir.path(), "tokenizer.json", "{\n");
        assert!(WordPiece::open(&path).unwrap_err().to_string().contains("line 2"));
    }

    #[test]
    fn reads_a_vocabulary_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = |path: &Path| WordPiece::open(path).unwrap_err().to_string();
        assert!(error(dir.path()).contains("holds neither"));
        let path = write(dir.path(), "vocab.txt", "[UNK]\r\n[CLS]\r\n[SEP]\r\ncaf\u{e9}\r\n\u{2028}\r\n");
        assert_eq!(WordPiece::open(dir.path()).unwrap().vocab_size(), 5);
        assert_eq!(WordPiece::open(&path).unwrap().encode("caf\u{e9}", 9), [1, 0, 2]);
        let config = write(dir.path(), "tokenizer_config.json", r#"{"do_lower_case": false, "never_split": null}"#);
        assert_eq!(WordPiece::open(&path).unwrap().encode("caf\u{e9}", 9), [1, 3, 2]);
        std::fs::remove_file(config).unwrap();
        write(dir.path(), "vocab.txt", "[UNK]\n[CLS]\n[SEP]\n\na\n");
        assert!(error(&path).contains("vocab.txt: line 4: the token is empty"), "{}", error(&path));
        write(dir.path(), "vocab.txt", b"[UNK]\n\xff\n");
        assert!(error(&path).contains("line 2: not UTF-8"));
        assert!(error(&dir.path().join("none.txt")).contains("none.txt"));
    }
}
