//! The tokens that the files next to a vocabulary add, in the order of transformers 5 (`PreTrainedTokenizerBase._from_pretrained` and
//! `TokenizersBackend.__init__`). The order determines the ids of new tokens.

use super::added::Added;
use super::ordered::{Ordered, parse};
use crate::files::is_there;
use crate::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

pub(super) const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";
const ADDED: &str = "added_tokens.json";

/// Keys of the special tokens, in the order in which they are added, and BERT's tokens, if it has them.
const NAMED: [(&str, &str); 7] = [
    ("bos_token", ""),
    ("eos_token", ""),
    ("unk_token", "[UNK]"),
    ("sep_token", "[SEP]"),
    ("pad_token", "[PAD]"),
    ("cls_token", "[CLS]"),
    ("mask_token", "[MASK]"),
];

/// BERT's special tokens.
pub(super) fn of_bert() -> Vec<Added> {
    NAMED.iter().filter(|(_, name)| !name.is_empty()).map(|(_, name)| Added::plain(name, true, "")).collect()
}

/// A value of `tokenizer_config.json` or `special_tokens_map.json`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Setting {
    // Before `Token`: serde would also read a list as a struct without its keys.
    Tokens(Vec<Token>),
    Token(Token),
    Map(Ordered<Token>),
    Other(Value),
}

/// A token: its text alone, or with all rules.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum Token {
    Text(String),
    Full(Added),
}

impl Token {
    fn content(&self) -> &str {
        match self {
            Token::Text(text) => text,
            Token::Full(added) => &added.content,
        }
    }

    /// A token given by its text alone is special.
    fn added(&self, from: &'static str) -> Added {
        match self {
            Token::Text(text) => Added::plain(text, true, from),
            Token::Full(added) => Added { from, ..added.clone() },
        }
    }
}

/// Whether a key names a special token that is not in [`NAMED`].
fn is_own(key: &str) -> bool {
    key.ends_with("_token") && NAMED.iter().all(|(named, _)| *named != key)
}

/// The settings of a tokenizer, each with the name of its file.
pub(super) struct Settings {
    folder: PathBuf,
    all: Ordered<(Setting, &'static str)>,
    /// Special tokens of `tokenizer_config.json` with keys that are not in [`NAMED`], such as `image_token`.
    own: Ordered<Added>,
}

impl Settings {
    /// Reads `tokenizer_config.json` in `folder`, if it exists. `special_tokens_map.json` is used, too, unless the former has
    /// `added_tokens_decoder`.
    pub fn open(folder: &Path) -> Result<Settings> {
        let mut settings = Settings { folder: folder.to_path_buf(), all: Ordered::default(), own: Ordered::default() };
        for (key, value) in settings.file::<Setting>(CONFIG)?.into_entries() {
            settings.all.set(key, (value, CONFIG));
        }
        // The key of `extra_special_tokens` before transformers 5.
        let earlier = "additional_special_tokens";
        if settings.empty("extra_special_tokens") {
            settings.rename(earlier);
        }
        settings.take_own();
        if settings.all.get("added_tokens_decoder").is_none() {
            for (key, value) in settings.file::<Setting>(MAP)?.into_entries() {
                settings.merge(key, value);
            }
            settings.take_extra();
        }
        if settings.all.get("extra_special_tokens").is_none() {
            settings.rename(earlier);
        }
        Ok(settings)
    }

    /// The object in a file of the folder. Empty if there is no such file.
    fn file<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Ordered<T>> {
        let path = self.folder.join(name);
        if is_there(&path) { parse(&path) } else { Ok(Ordered::default()) }
    }

    fn rename(&mut self, earlier: &str) {
        if let Some(value) = self.all.remove(earlier) {
            self.all.set("extra_special_tokens".to_string(), value);
        }
    }

    /// The value of a key, in the last file that has it.
    fn value(&self, key: &str) -> Option<&Setting> {
        self.all.get(key).map(|(value, _)| value)
    }

    /// Whether the value is missing, or false in Python.
    pub fn empty(&self, key: &str) -> bool {
        match self.value(key) {
            None | Some(Setting::Other(Value::Null | Value::Bool(false))) => true,
            Some(Setting::Tokens(list)) => list.is_empty(),
            Some(Setting::Map(map)) => map.entries().is_empty(),
            Some(_) => false,
        }
    }

    /// Adds an entry of `special_tokens_map.json`.
    fn merge(&mut self, key: String, value: Setting) {
        let special = |token| match token {
            Token::Full(added) => Token::Full(Added { special: true, ..added }),
            text => text,
        };
        let value = match value {
            Setting::Token(token) => Setting::Token(special(token)),
            Setting::Tokens(new) if key == "extra_special_tokens" => {
                let mut list = if let Some(Setting::Tokens(list)) = self.value(&key) { list.clone() } else { Vec::new() };
                let mut there: HashSet<String> = list.iter().map(|token| token.content().to_string()).collect();
                for token in new {
                    if there.insert(token.content().to_string()) {
                        list.push(special(token));
                    }
                }
                Setting::Tokens(list)
            }
            other => other,
        };
        self.all.set(key, (value, MAP));
    }

    pub fn error(&self, key: &str, problem: impl fmt::Display) -> Error {
        let file = self.all.get(key).map_or(CONFIG, |(_, file)| file);
        Error::file(self.folder.join(file), key, problem)
    }

    /// True or false. `None` if the key is missing, or null if that `may` be.
    pub fn flag(&self, key: &str, may: bool) -> Result<Option<bool>> {
        match self.value(key) {
            None => Ok(None),
            Some(Setting::Other(Value::Null)) if may => Ok(None),
            Some(Setting::Other(Value::Bool(flag))) => Ok(Some(*flag)),
            Some(_) => Err(self.error(key, "is not true or false")),
        }
    }

    /// A string. `None` if the key is missing or null.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.value(key) {
            None | Some(Setting::Other(Value::Null)) => Ok(None),
            Some(Setting::Token(Token::Text(text))) => Ok(Some(text)),
            Some(_) => Err(self.error(key, "is not a string")),
        }
    }

    /// The strings of a list. Empty if the value is not a list.
    pub fn list(&self, key: &str) -> Vec<&str> {
        match self.value(key) {
            Some(Setting::Tokens(list)) => list.iter().map(Token::content).collect(),
            _ => Vec::new(),
        }
    }

    /// The special token with this key. BERT's token if no file names another.
    pub fn special(&self, key: &str) -> Result<String> {
        match self.value(key) {
            None => Ok(NAMED.iter().find(|(k, _)| *k == key).map_or("", |(_, name)| name).to_string()),
            Some(Setting::Token(token)) => Ok(token.content().to_string()),
            Some(_) => Err(self.error(key, "is not a token; BERT needs one")),
        }
    }

    /// Moves the special tokens that are not in [`NAMED`] to `own`: those given by their text, then those of `extra_special_tokens`.
    fn take_own(&mut self) {
        for (key, (value, from)) in std::mem::take(&mut self.all).into_entries() {
            match value {
                Setting::Token(token @ Token::Text(_)) if is_own(&key) => self.own.set(key, token.added(from)),
                value => self.all.set(key, (value, from)),
            }
        }
        self.take_extra();
    }

    fn take_extra(&mut self) {
        let key = "extra_special_tokens";
        match self.all.remove(key) {
            Some((Setting::Map(map), from)) => map.into_entries().into_iter().for_each(|(key, token)| self.own.set(key, token.added(from))),
            Some(other) => self.all.set(key.to_string(), other),
            None => {}
        }
    }

    /// The special tokens that are not in [`NAMED`]. Those that are still in `all` come first.
    fn own_names(&self) -> Ordered<Added> {
        let mut all = Ordered::default();
        for (key, (value, from)) in self.all.entries() {
            if let Setting::Token(token) = value
                && is_own(key)
            {
                all.set(key.clone(), token.added(from));
            }
        }
        self.own.entries().iter().for_each(|(key, token)| all.set(key.clone(), token.clone()));
        all
    }

    /// The tokens to add to the vocabulary. `json`: the added tokens of `tokenizer.json` with their ids. `defaults`: use BERT's special tokens
    /// if no file names others. `there`: tokens that were added before.
    pub fn tokens(&self, json: &[(u64, Added)], defaults: bool, there: &[Added]) -> Result<Vec<Added>> {
        let (mut named, mut given) = (Vec::new(), Vec::new());
        for (key, default) in NAMED {
            match self.all.get(key) {
                Some((Setting::Token(token), from)) => {
                    given.push(token.content());
                    named.push(token.added(from));
                }
                Some((Setting::Other(Value::Null), _)) => {}
                Some(_) => return Err(self.error(key, "is not a token: a string, or an object with \"content\"")),
                None if defaults && !default.is_empty() => named.push(Added::plain(default, true, "")),
                None => {}
            }
        }
        given.extend(self.list("extra_special_tokens"));
        let listed = self.listed(json, &given)?;
        named.extend(self.own_names().into_entries().into_iter().map(|(_, token)| token));
        let names: HashSet<String> = named.iter().map(|t| t.content.clone()).collect();
        let extra: Vec<Added> = match self.all.get("extra_special_tokens") {
            Some((Setting::Tokens(list), from)) => list.iter().map(|token| token.added(from)).collect(),
            None | Some((Setting::Other(Value::Null), _)) => Vec::new(),
            Some(_) => return Err(self.error("extra_special_tokens", "is not a list of tokens")),
        };
        let mut all = listed;
        let fixed: HashSet<String> = there.iter().chain(&all).map(|t| t.content.clone()).collect();
        let mut rules: HashSet<_> = all.iter().map(Added::rules).collect();
        // A token with the same text but other rules is added again; the last one counts.
        for token in named.into_iter().chain(extra) {
            if !fixed.contains(&token.content) && rules.insert(token.rules()) {
                all.push(token);
            }
        }
        all.iter_mut().filter(|t| names.contains(&t.content)).for_each(|t| t.special = true);
        Ok(all)
    }

    /// The tokens that are listed with ids, sorted by id: those of `added_tokens_decoder`; without it, those of `added_tokens.json` and
    /// `tokenizer.json`. Tokens of `added_tokens.json` are special if they are also in `given`.
    fn listed(&self, json: &[(u64, Added)], given: &[&str]) -> Result<Vec<Added>> {
        let key = "added_tokens_decoder";
        let given: HashSet<&str> = given.iter().copied().collect();
        let mut by_id: BTreeMap<u64, Added> = BTreeMap::new();
        match self.all.get(key) {
            Some((Setting::Map(map), from)) => {
                for (id, token) in map.entries() {
                    let id = id.parse().map_err(|_| self.error(key, format_args!("{id:?} is not an id")))?;
                    by_id.insert(id, token.added(from));
                }
            }
            Some(_) => return Err(self.error(key, "is not an object of ids and tokens")),
            None => {
                for (content, id) in self.file::<u64>(ADDED)?.into_entries() {
                    let special = given.contains(content.as_str());
                    // Set, so that a later change of `special` does not change it.
                    let normalized = Some(!special);
                    by_id.insert(id, Added { normalized, ..Added::plain(&content, special, ADDED) });
                }
                by_id.extend(json.iter().cloned());
            }
        }
        Ok(by_id.into_values().collect())
    }
}
