//! Reads a tokenizer from the files of a Hugging Face checkpoint.

use super::added::Added;
use super::normalize::Normalizer;
use super::ordered::{parse, read};
use super::pieces::CONTINUED;
use super::special::{CONFIG, Settings};
use super::wordpiece::{MAX_CHARS, Parts, WordPiece};
use crate::files::is_there;
use crate::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::path::Path;

/// Tokenizer classes of transformers, without `Tokenizer` or `TokenizerFast`, that have BERT's rules. Vocabulary and settings determine them.
const BERT_CLASSES: [&str; 8] = ["Bert", "DistilBert", "Electra", "ConvBert", "LayoutLM", "Lxmert", "MobileBert", "SqueezeBert"];
/// Tokenizer classes whose rules are in `tokenizer.json`.
const PLAIN_CLASSES: [&str; 4] = ["PreTrainedTokenizerFast", "PreTrainedTokenizer", "TokenizersBackend", "PythonBackend"];
/// Largest number of characters of a word that is cut into pieces. The time grows with its square or faster.
const LONGEST_WORD: usize = 1000;
/// Model types whose default tokenizer class has BERT's rules.
const BERT_MODELS: [&str; 9] =
    ["distilbert", "bert", "electra", "convbert", "layoutlm", "lxmert", "mobilebert", "squeezebert", "megatron-bert"];

impl WordPiece {
    /// Reads a tokenizer: a folder with `tokenizer.json` or `vocab.txt`, or one of those files. `tokenizer_config.json`, `special_tokens_map.json`
    /// and `added_tokens.json` in the same folder have the meaning that they have for `AutoTokenizer` of transformers 5.
    ///
    /// # Errors
    /// If there is no such file, a file is malformed, or the tokenizer is not BERT's.
    pub fn open(path: &Path) -> Result<WordPiece> {
        if path.is_dir() {
            let found = ["tokenizer.json", "vocab.txt"].map(|name| path.join(name)).into_iter().find(|file| is_there(file));
            let missing = || Error::file(path, "tokenizer", "holds neither tokenizer.json nor vocab.txt; copy one from the base model");
            return WordPiece::open(&found.ok_or_else(missing)?);
        }
        let json = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"));
        // This file is read first, because the caller named it.
        if json { from_json(parse(path)?, path) } else { from_text(&read(path)?, path) }
    }
}

/// Whether the rules are BERT's with the settings of `tokenizer_config.json`. Otherwise they are in `tokenizer.json`.
fn is_bert(folder: &Path, settings: &Settings) -> Result<bool> {
    #[derive(Deserialize, Default)]
    struct Model {
        model_type: Option<String>,
        tokenizer_class: Option<String>,
    }
    let path = folder.join("config.json");
    let model: Model = if is_there(&path) { parse(&path)? } else { Model::default() };
    let of_config = settings.text("tokenizer_class")?.map(|class| (folder.join(CONFIG), class));
    if let Some((file, class)) = of_config.or(model.tokenizer_class.as_deref().map(|class| (path.clone(), class))) {
        let name = class.strip_suffix("Fast").unwrap_or(class).strip_suffix("Tokenizer").unwrap_or_default();
        return match (BERT_CLASSES.contains(&name), PLAIN_CLASSES.contains(&class)) {
            (false, false) => Err(Error::file(file, "tokenizer_class", format_args!("{class:?}; only BERT's WordPiece is supported"))),
            (bert, _) => Ok(bert),
        };
    }
    match model.model_type.as_deref() {
        Some(kind) if BERT_MODELS.contains(&kind) => Ok(true),
        Some("") | None => Ok(false),
        Some(kind) => {
            Err(Error::file(path, "model_type", format_args!("{kind:?} has a tokenizer of its own; only BERT's WordPiece is supported")))
        }
    }
}

/// BERT's rules with the settings of the folder's files.
fn of_settings(settings: &Settings, pieces: Vec<(String, u32)>, json: &[(u64, Added)], truncation: &Value) -> Result<Parts> {
    let lowercase = settings.flag("do_lower_case", false)?.unwrap_or(true);
    let normalizer = Normalizer {
        lowercase,
        strip_accents: settings.flag("strip_accents", true)?.unwrap_or(lowercase),
        split_ideographs: settings.flag("tokenize_chinese_chars", false)?.unwrap_or(true),
    };
    Ok(Parts {
        pieces,
        added: vec![settings.tokens(json, true, &[])?],
        normalizer,
        max_chars: MAX_CHARS,
        unknown: settings.special("unk_token")?,
        classify: settings.special("cls_token")?,
        separate: settings.special("sep_token")?,
        keep_end: keep_end(settings, truncation)?,
        split_special: settings.flag("split_special_tokens", false)?.unwrap_or(false),
    })
}

/// Whether a text that is too long is cut at its start. `truncation` is the entry of `tokenizer.json`.
fn keep_end(settings: &Settings, truncation: &Value) -> Result<bool> {
    match settings.text("truncation_side")? {
        Some("left") => Ok(true),
        Some("right") => Ok(false),
        Some(side) => Err(settings.error("truncation_side", format_args!("{side:?} is neither \"left\" nor \"right\""))),
        None => Ok(truncation["direction"].as_str().is_some_and(|side| side.eq_ignore_ascii_case("left"))),
    }
}

/// The settings in `folder`. Unsupported ones are errors.
fn settings(folder: &Path) -> Result<Settings> {
    let settings = Settings::open(folder)?;
    if settings.list("fast_tokenizer_files").iter().any(|file| *file != "tokenizer.json") {
        return Err(settings.error("fast_tokenizer_files", "names other files than tokenizer.json, which is not supported"));
    }
    if !settings.empty("auto_map") {
        return Err(settings.error("auto_map", "names a tokenizer in Python code; only BERT's WordPiece is supported"));
    }
    Ok(settings)
}

fn from_text(text: &str, path: &Path) -> Result<WordPiece> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let settings = settings(folder)?;
    // Without a class and a model type, a vocab.txt can only be BERT's.
    if !is_bert(folder, &settings)? && settings.text("tokenizer_class")?.is_some() {
        return Err(settings.error("tokenizer_class", "needs a tokenizer.json; only BERT's WordPiece reads a vocab.txt"));
    }
    // As in the reference: only `\n` ends a line, white space before it is not part of the token, and an empty line has an id, too.
    let tokens = text.split_terminator('\n').map(|line| line.trim_end().to_string()).zip(0..).collect();
    WordPiece::new(of_settings(&settings, tokens, &[], &Value::Null)?, path)
}

/// `tokenizer.json`. Padding and decoder are ignored, and of truncation all but the side: batches are packed, and the caller gives the length.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<WithId>,
    #[serde(default)]
    truncation: Value,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    model: Model,
}

#[derive(Deserialize)]
struct WithId {
    id: u64,
    #[serde(flatten)]
    token: Added,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    max_input_chars_per_word: Option<usize>,
    /// Parsed later, because it is most of the file.
    vocab: Box<RawValue>,
}

fn from_json(file: File, path: &Path) -> Result<WordPiece> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let settings = settings(folder)?;
    let bert = is_bert(folder, &settings)?;
    let refuse = |place: &str, problem: String| Error::file(path, place, format_args!("{problem}; only BERT's WordPiece is supported"));
    let Model { kind, unk_token, continuing_subword_prefix, max_input_chars_per_word: max_chars, vocab } = file.model;
    if let Some(kind) = kind.filter(|kind| kind != "WordPiece") {
        return Err(refuse("model.type", format!("{kind:?} instead of \"WordPiece\"")));
    }
    let vocab: BTreeMap<String, u32> =
        serde_json::from_str(vocab.get()).map_err(|e| refuse("model.vocab", format!("not a map of tokens to ids ({e})")))?;
    let pieces = vocab.into_iter().collect();
    let name = "tokenizer.json";
    let json: Vec<(u64, Added)> = file.added_tokens.into_iter().map(|t| (t.id, Added { from: name, ..t.token })).collect();
    if bert {
        return WordPiece::new(of_settings(&settings, pieces, &json, &file.truncation)?, path);
    }
    if let Some(prefix) = continuing_subword_prefix.filter(|prefix| prefix != CONTINUED) {
        return Err(refuse("model.continuing_subword_prefix", format!("{prefix:?} instead of {CONTINUED:?}")));
    }
    if file.pre_tokenizer["type"] != "BertPreTokenizer" {
        return Err(refuse("pre_tokenizer", format!("{} instead of BertPreTokenizer", file.pre_tokenizer["type"])));
    }
    let Some((classify, separate)) = around(&file.post_processor) else {
        return Err(refuse("post_processor", "not [CLS] text [SEP]".into()));
    };
    if let Some(most) = max_chars.filter(|most| *most > LONGEST_WORD) {
        return Err(refuse("model.max_input_chars_per_word", format!("{most}, and words are cut up to {LONGEST_WORD} characters")));
    }
    let first: Vec<Added> = json.iter().map(|(_, token)| token.clone()).collect();
    let second = settings.tokens(&json, false, &first)?;
    let parts = Parts {
        pieces,
        added: vec![first, second],
        normalizer: normalizer(&file.normalizer).map_err(|problem| refuse("normalizer", problem))?,
        max_chars: max_chars.unwrap_or(MAX_CHARS),
        unknown: unk_token.unwrap_or_else(|| "[UNK]".to_string()),
        classify: classify.0.clone(),
        separate: separate.0.clone(),
        keep_end: keep_end(&settings, &file.truncation)?,
        split_special: settings.flag("split_special_tokens", false)?.unwrap_or(false),
    };
    let wordpiece = WordPiece::new(parts, path)?;
    for (marker, (token, id)) in [(&wordpiece.classify, classify), (&wordpiece.separate, separate)] {
        if u64::from(marker.id) != id {
            return Err(refuse("post_processor", format!("{token:?} has the id {id} there, and {} in the vocabulary", marker.id)));
        }
    }
    Ok(wordpiece)
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

/// The tokens before and after a single text, with their ids: those of `BertProcessing`, or of an equivalent template. `None` if this is not
/// BERT's form.
fn around(value: &Value) -> Option<((String, u64), (String, u64))> {
    let pair = |name: &Value, id: &Value| Some((name.as_str()?.to_string(), id.as_u64()?));
    match value["type"].as_str()? {
        "BertProcessing" => Some((pair(&value["cls"][0], &value["cls"][1])?, pair(&value["sep"][0], &value["sep"][1])?)),
        "TemplateProcessing" => {
            let steps = value["single"].as_array().filter(|steps| steps.len() == 3 && steps[1]["Sequence"]["id"] == "A")?;
            let special = |step: &Value| {
                let name = &step["SpecialToken"]["id"];
                let ids = value["special_tokens"][name.as_str()?]["ids"].as_array().filter(|ids| ids.len() == 1)?;
                pair(name, &ids[0])
            };
            Some((special(&steps[0])?, special(&steps[2])?))
        }
        _ => None,
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
            ("/model/unk_token", json!("<unk>"), "vocabulary: <unk> is missing"),
            ("/model/vocab", json!([1]), "model.vocab: not a map"),
            ("/normalizer/type", json!("Lowercase"), "normalizer"),
            ("/normalizer/clean_text", json!(false), "clean_text is false"),
            ("/normalizer/lowercase", json!(1), "lowercase is 1"),
            ("/pre_tokenizer/type", json!("Whitespace"), "pre_tokenizer"),
            ("/post_processor/type", json!("RobertaProcessing"), "post_processor: not [CLS] text [SEP]"),
            ("/post_processor/cls/0", json!("<s>"), "vocabulary: <s> is missing"),
            ("/post_processor/cls/1", json!(9), "post_processor: \"[CLS]\" has the id 9 there, and 1 in the vocabulary"),
            ("/added_tokens/1/content", json!("\u{0}"), "\"\\0\": normalization leaves nothing"),
        ] {
            let mut broken = tokenizer();
            *broken.pointer_mut(pointer).unwrap() = value;
            broken["added_tokens"][1]["normalized"] = json!(true);
            let path = write(dir.path(), "tokenizer.json", broken.to_string());
            let message = WordPiece::open(&path).unwrap_err().to_string();
            assert!(message.contains("tokenizer.json: ") && message.contains(wanted), "{pointer}: {message}");
        }
        let path = write(dir.path(), "tokenizer.json", "{\n");
        assert!(WordPiece::open(&path).unwrap_err().to_string().contains("line 2"));
    }

    #[test]
    fn refuses_files_beside_the_vocabulary_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let base = BASE.join("\n");
        for (file, text, wanted) in [
            ("tokenizer_config.json", r#"{"tokenizer_class": "RobertaTokenizer"}"#, "tokenizer_class: \"RobertaTokenizer\""),
            ("tokenizer_config.json", r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#, "tokenizer_class: needs a tokenizer.json"),
            ("tokenizer_config.json", r#"{"do_lower_case": "no"}"#, "do_lower_case: is not true or false"),
            ("tokenizer_config.json", r#"{"do_lower_case": null}"#, "do_lower_case: is not true or false"),
            ("tokenizer_config.json", r#"{"cls_token": null}"#, "cls_token: is not a token"),
            ("tokenizer_config.json", r#"{"unk_token": "<unk>"}"#, "vocab.txt: vocabulary: <unk> is missing"),
            ("tokenizer_config.json", r#"{"mask_token": 3}"#, "mask_token: is not a token"),
            ("tokenizer_config.json", r#"{"truncation_side": "up"}"#, "truncation_side: \"up\" is neither"),
            ("tokenizer_config.json", r#"{"extra_special_tokens": "x"}"#, "extra_special_tokens: is not a list"),
            ("tokenizer_config.json", r#"{"added_tokens_decoder": {"x": {"content": "y"}}}"#, "added_tokens_decoder: \"x\" is not an id"),
            ("tokenizer_config.json", r#"{"added_tokens_decoder": 1}"#, "added_tokens_decoder: is not an object"),
            ("tokenizer_config.json", r#"{"auto_map": {"AutoTokenizer": ["t.T", null]}}"#, "auto_map: names a tokenizer in Python"),
            ("tokenizer_config.json", r#"{"fast_tokenizer_files": ["tokenizer.4.0.json"]}"#, "fast_tokenizer_files"),
            ("tokenizer_config.json", "{\n]", "tokenizer_config.json: line 2"),
            ("special_tokens_map.json", r#"{"sep_token": ["a", 1]}"#, "special_tokens_map.json: sep_token"),
            ("special_tokens_map.json", "[]", "special_tokens_map.json: line 1"),
            ("added_tokens.json", r#"{"a": "b"}"#, "added_tokens.json: line 1"),
            ("added_tokens.json", "{\"\u{301}\": 20}", "added_tokens.json: \"\\u{301}\": normalization leaves nothing"),
            ("config.json", r#"{"model_type": "roberta"}"#, "config.json: model_type: \"roberta\""),
        ] {
            write(dir.path(), "vocab.txt", &base);
            let path = write(dir.path(), file, text);
            let message = WordPiece::open(dir.path()).unwrap_err().to_string();
            assert!(message.contains(wanted), "{text}: {message}");
            std::fs::remove_file(path).unwrap();
        }
    }

    /// Token i has the id i.
    const BASE: [&str; 17] =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "film", "##s", "\u{e9}", "e", "[", "]", "E", "1", "Good", "\u{4e2d}"];

    #[test]
    fn gives_the_ids_of_the_reference() {
        type Ids = &'static [u32];
        type Files = Vec<(&'static str, String)>;
        let lines = |tokens: &[&str]| tokens.join("\n") + "\n";
        let (base, with) = (lines(&BASE), |line: &str| lines(&[&BASE[..6], &[line], &BASE[6..]].concat()));
        let without = |gone: &[&str]| lines(&BASE.into_iter().filter(|t| !gone.contains(t)).collect::<Vec<_>>());
        let renamed = lines(&[&["<pad>", "<unk>", "<s>", "</s>"], &BASE[5..]].concat());
        let names = r#"{"unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}"#;
        // Files, then texts and their ids as transformers 5.24's AutoTokenizer gives them, with a config.json of a DistilBERT.
        let cases: Vec<(Files, Vec<(&str, Ids)>)> = vec![
            (vec![], vec![("Good \u{c9} [MASK]", &[2, 6, 10, 4, 3]), ("", &[2, 3])]),
            (vec![("tokenizer_config.json", r#"{"do_lower_case": false}"#.into())], vec![("Good \u{c9} \u{e9}", &[2, 15, 1, 9, 3])]),
            (vec![("vocab.txt", with(""))], vec![("a good", &[2, 5, 7, 3])]),
            (vec![("vocab.txt", base.clone() + "\n\n")], vec![("a good", &[2, 5, 6, 3])]),
            (
                vec![("vocab.txt", base.clone() + "a\n"), ("added_tokens.json", r#"{"rw": 99}"#.into())],
                vec![("a good rw", &[2, 17, 6, 17, 3])],
            ),
            (
                vec![("vocab.txt", lines(&[&BASE[..6], &["bad ", "w\t", "x\u{a0}", "y\u{3000}", "z\u{2028}", "v\u{85}", " l"]].concat()))],
                vec![("bad w x y z v l", &[2, 6, 7, 8, 9, 10, 11, 1, 3])],
            ),
            (vec![("vocab.txt", lines(&BASE).replace('\n', "\r\n"))], vec![("a good", &[2, 5, 6, 3])]),
            (vec![("vocab.txt", "\u{feff}".to_string() + &base)], vec![("a good [PAD] zzz", &[2, 5, 6, 17, 1, 3])]),
            (vec![("vocab.txt", without(&["[CLS]", "[MASK]"]))], vec![("zzz [MASK]", &[15, 1, 16, 2])]),
            (
                vec![("added_tokens.json", r#"{"netflix": 40, "Rw": 30}"#.into())],
                vec![("netflix rw Rw RWgood", &[2, 18, 17, 17, 17, 6, 3])],
            ),
            (vec![("added_tokens.json", r#"{"good": 6}"#.into())], vec![("goods Goods", &[2, 6, 1, 6, 1, 3])]),
            (vec![("added_tokens.json", r#"{"": 17, " ": 18}"#.into())], vec![("a good  a", &[2, 5, 17, 6, 17, 17, 5, 3])]),
            (
                vec![("special_tokens_map.json", r#"{"additional_special_tokens": ["[E1]", "Rw"]}"#.into())],
                vec![("[E1] rw Rwa", &[2, 17, 1, 18, 5, 3])],
            ),
            (
                vec![
                    ("special_tokens_map.json", r#"{"additional_special_tokens": ["[E1]"]}"#.into()),
                    ("tokenizer_config.json", r#"{"additional_special_tokens": ["[E2]"]}"#.into()),
                ],
                vec![("[E1] [E2]", &[2, 11, 1, 12, 17, 3])],
            ),
            (
                vec![
                    (
                        "tokenizer_config.json",
                        r#"{"added_tokens_decoder": {"17": {"content": "[E1]", "special": true}, "18": {"content": "Yes"}}}"#.into(),
                    ),
                    ("added_tokens.json", r#"{"rw": 19}"#.into()),
                ],
                vec![("[E1] YES rw [e1]", &[2, 17, 18, 1, 11, 1, 12, 3])],
            ),
            (
                vec![("vocab.txt", renamed.clone()), ("tokenizer_config.json", names.into())],
                vec![("a zzz <s> [MASK]", &[2, 4, 1, 2, 16, 3])],
            ),
            (
                vec![("vocab.txt", renamed), ("special_tokens_map.json", names.replace("\"<unk>\"", r#"{"content": "<unk>"}"#))],
                vec![("a good zzz <s> [MASK]", &[2, 4, 5, 1, 2, 16, 3])],
            ),
            (
                vec![("tokenizer_config.json", r#"{"split_special_tokens": true, "additional_special_tokens": ["[E1]"]}"#.into())],
                vec![("a [SEP] [E1]", &[2, 5, 11, 1, 12, 11, 1, 12, 3])],
            ),
            (
                vec![("tokenizer_config.json", r#"{"extra_special_tokens": {"z_token": "zz", "b_token": "bb"}, "i_token": "ii"}"#.into())],
                vec![("zz bb ii", &[2, 18, 19, 17, 3])],
            ),
            (
                vec![
                    ("tokenizer_config.json", r#"{"extra_special_tokens": ["zz"]}"#.into()),
                    ("special_tokens_map.json", r#"{"extra_special_tokens": ["yy"], "additional_special_tokens": ["bb"]}"#.into()),
                ],
                vec![("zz bb yy", &[2, 17, 1, 18, 3])],
            ),
        ];
        for (files, texts) in cases {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), "config.json", r#"{"model_type": "distilbert"}"#);
            write(dir.path(), "vocab.txt", &base);
            files.iter().for_each(|(name, text)| drop(write(dir.path(), name, text)));
            let w = WordPiece::open(dir.path()).unwrap();
            for (text, ids) in texts {
                assert_eq!(w.encode(text, 99), ids, "{text:?} with {files:?}");
                assert_eq!(crate::data::Encoder::new(&w).encode(text, 99), ids, "{text:?} with {files:?}");
            }
        }
    }

    #[test]
    fn a_tokenizer_json_beside_a_distilbert_takes_its_rules_from_the_settings() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = tokenizer();
        file["model"]["vocab"]["good"] = json!(9);
        write(dir.path(), "tokenizer.json", file.to_string());
        write(dir.path(), "vocab.txt", "not\nread");
        let encode = |text: &str, max: usize| WordPiece::open(dir.path()).unwrap().encode(text, max);
        assert_eq!(encode("Good good<new>", 99), [1, 3, 9, 6, 2], "no model type: the rules of tokenizer.json");
        write(dir.path(), "config.json", r#"{"model_type": "distilbert"}"#);
        assert_eq!(encode("Good good<new>", 99), [1, 9, 9, 6, 2], "lower case is the default");
        write(dir.path(), "tokenizer_config.json", r#"{"do_lower_case": false, "truncation_side": "left"}"#);
        assert_eq!(encode("Good good<new>", 99), [1, 3, 9, 6, 2]);
        assert_eq!(encode("Good good<new>", 4), [1, 9, 6, 2]);
        write(dir.path(), "tokenizer_config.json", r#"{"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": true}"#);
        assert_eq!(encode("Good good<new>", 4), [1, 3, 9, 2]);
        write(dir.path(), "added_tokens.json", r#"{"more": 3}"#);
        assert_eq!(encode("more", 4), [1, 7, 2], "added after those of tokenizer.json");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_whose_link_leads_nowhere_is_not_taken_for_absent() {
        for name in ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json", "config.json"] {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), "vocab.txt", "[UNK]\n[CLS]\n[SEP]\n[PAD]\n[MASK]\na\n");
            assert!(WordPiece::open(dir.path()).is_ok());
            std::os::unix::fs::symlink("gone", dir.path().join(name)).unwrap();
            let said = WordPiece::open(dir.path()).unwrap_err().to_string();
            assert!(said.contains(name), "{said}");
        }
    }

    #[test]
    fn words_are_cut_up_to_a_length() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = tokenizer();
        file["model"]["max_input_chars_per_word"] = json!(1_000_000_000);
        let path = write(dir.path(), "tokenizer.json", file.to_string());
        let said = WordPiece::open(&path).unwrap_err().to_string();
        assert!(said.contains("max_input_chars_per_word: 1000000000, and words are cut up to 1000 characters"), "{said}");
    }

    #[test]
    fn each_token_needs_an_embedding() {
        let dir = tempfile::tempdir().unwrap();
        let fits = |embeddings| WordPiece::open(dir.path()).unwrap().check_fits(embeddings).map_err(|e| e.to_string());
        write(dir.path(), "vocab.txt", "[UNK]\n[CLS]\n[SEP]\na\n\n");
        assert_eq!(fits(4), Ok(()), "[PAD], [MASK] and the empty line need none");
        assert!(fits(3).unwrap_err().contains("vocab.txt: vocabulary: 7 tokens, but the model has embeddings for 3"));
        let path = write(dir.path(), "added_tokens.json", r#"{"rw": 5}"#);
        assert!(
            fits(5).unwrap_err().contains("added_tokens.json: \"rw\": has the id 5, but the model has embeddings for 5 tokens, 0 to 4")
        );
        assert_eq!(fits(6), Ok(()));
        std::fs::remove_file(path).unwrap();
        write(dir.path(), "vocab.txt", "[UNK]\n[CLS]\na\n");
        assert!(fits(3).unwrap_err().contains("vocab.txt: \"[SEP]\": has the id 3"));
    }

    #[test]
    fn a_vocabulary_names_its_trouble() {
        let dir = tempfile::tempdir().unwrap();
        let error = |path: &Path| WordPiece::open(path).unwrap_err().to_string();
        assert!(error(dir.path()).contains("holds neither tokenizer.json nor vocab.txt"));
        let path = write(dir.path(), "vocab.txt", "\u{feff}[UNK]\n[CLS]\n[SEP]\n");
        assert!(
            error(&path).contains("vocabulary: [UNK] is missing, which stands for unknown words; the file starts with a byte order mark")
        );
        write(dir.path(), "vocab.txt", b"[UNK]\n\xff\n");
        assert!(error(&path).contains("line 2: not UTF-8"));
        assert!(error(&dir.path().join("none.txt")).contains("none.txt"));
    }
}
