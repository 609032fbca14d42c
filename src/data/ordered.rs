//! Reads text and JSON files with the line of an error, and JSON objects whose order matters.

use crate::files::read_bytes;
use crate::{Error, Result};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

/// Reads a text file.
pub(super) fn read(path: &Path) -> Result<String> {
    let bytes = read_bytes(path)?;
    String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count() + 1;
        Error::file(path, format_args!("line {line}"), "not UTF-8; is this a tokenizer file?")
    })
}

/// Reads a JSON file.
pub(super) fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_str(&read(path)?).map_err(|e| Error::file(path, format_args!("line {}", e.line()), e))
}

/// A JSON object in the order of the file.
pub(super) struct Ordered<T> {
    entries: Vec<(String, T)>,
    /// Where each key is in `entries`.
    index: HashMap<String, usize>,
}

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Ordered { entries: Vec::new(), index: HashMap::new() }
    }
}

impl<T> Ordered<T> {
    /// The keys and values, in their order.
    pub fn entries(&self) -> &[(String, T)] {
        &self.entries
    }

    /// [`Ordered::entries`], each taken out.
    pub fn into_entries(self) -> Vec<(String, T)> {
        self.entries
    }

    pub fn get(&self, key: &str) -> Option<&T> {
        self.index.get(key).map(|&at| &self.entries[at].1)
    }

    /// Takes a value out. This takes time for each key behind it.
    pub fn remove(&mut self, key: &str) -> Option<T> {
        let at = self.index.remove(key)?;
        let (_, value) = self.entries.remove(at);
        self.index.values_mut().filter(|i| **i > at).for_each(|i| *i -= 1);
        Some(value)
    }

    /// Sets a value. A key that exists keeps its position.
    pub fn set(&mut self, key: String, value: T) {
        match self.index.get(&key) {
            Some(&at) => self.entries[at].1 = value,
            None => {
                self.index.insert(key.clone(), self.entries.len());
                self.entries.push((key, value));
            }
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Ordered<T>, D::Error> {
        struct InOrder<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
            type Value = Ordered<T>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Ordered<T>, A::Error> {
                let mut all = Ordered::default();
                // If a key occurs twice, the last value counts.
                while let Some((key, value)) = map.next_entry()? {
                    all.set(key, value);
                }
                Ok(all)
            }
        }
        from.deserialize_map(InOrder(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_order_and_the_last_value_counts() {
        let mut all: Ordered<u32> = serde_json::from_str(r#"{"b": 1, "a": 2, "c": 3, "b": 4}"#).unwrap();
        assert_eq!(all.get("b"), Some(&4));
        assert_eq!([all.remove("b"), all.remove("b")], [Some(4), None]);
        all.set("a".into(), 5);
        all.set("b".into(), 6);
        assert_eq!([all.get("a"), all.get("c"), all.get("b"), all.get("d")], [Some(&5), Some(&3), Some(&6), None]);
        assert_eq!(all.into_entries(), [("a".to_string(), 5), ("c".to_string(), 3), ("b".to_string(), 6)]);
    }

    #[test]
    fn an_object_may_have_many_keys() {
        // With a search through all keys for each, these are 10^11 comparisons.
        let text: Vec<String> = (0..400_000).map(|i| format!("\"{i}\":{i}")).collect();
        let all: Ordered<u32> = serde_json::from_str(&format!("{{{}}}", text.join(","))).unwrap();
        assert_eq!((all.entries().len(), all.get("399999")), (400_000, Some(&399_999)));
    }
}
