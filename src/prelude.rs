//! What fine-tuning on your own texts needs: `use lowrank::prelude::*`.
//!
//! In the example, `encoder` is the path of a checkpoint folder with `config.json`, `model.safetensors` and the tokenizer's `vocab.txt` (or
//! `tokenizer.json`), and `out` is the path of a folder to create. A [`Dataset`] is a list of texts with their labels;
//! `lowrank::data::load(path, Split::Train, &TableOptions::default())` reads one from a CSV, TSV or JSON file. [`TextClassifier::open`]
//! computes in f32 and draws new weights with seed 0; `open_with` changes this, with `lowrank::nn::LoadOptions`. Texts are cut to 512
//! tokens; the field `max_length` changes that.
//!
//! ```
//! use lowrank::prelude::*;
//!
//! # let encoder = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/encoder");
//! # let folder = tempfile::tempdir().unwrap();
//! # let out = folder.path().join("adapter");
//! let good = ["A warm, funny film.", "I loved every minute.", "Superb acting.", "What a joy!", "Touching and clever."];
//! let bad = ["Dull and far too long.", "I left after an hour.", "Wooden acting.", "What a bore!", "Loud and silly."];
//! let pairs = good.map(|text| (text, "positive")).into_iter().chain(bad.map(|text| (text, "negative")));
//! let data = Dataset::from_pairs(pairs)?.split(0.2, 0)?;              // a fifth is data.test, drawn with seed 0; equal texts stay together
//! let mut model = TextClassifier::open(encoder, &data.train)?;        // a class for each label
//! model.adapt(LoraConfig::new(8, &["q_lin", "v_lin"]).alpha(16.0).dropout(0.1))?;     // alpha and dropout: the defaults
//! println!("{}", model.trainable());                                  // as PEFT prints it: trained and all
//! model.fit(&data.train, &Recipe::default())?;
//! println!("{:.2} %", 100.0 * model.evaluate(&data.test)?.accuracy);
//! model.save(&out)?;                                                  // PEFT's two files, and the labels in lowrank.json
//! # for file in ["adapter_config.json", "adapter_model.safetensors", "lowrank.json"] {
//! #     assert!(out.join(file).is_file());
//! # }
//! # let again = TextClassifier::load(encoder, &out)?;
//! # assert_eq!(again.labels, ["negative", "positive"]);
//! # assert_eq!(again.predict(&good)?, model.predict(&good)?);
//! # Ok::<(), lowrank::Error>(())
//! ```

pub use crate::classifier::TextClassifier;
pub use crate::data::Dataset;
pub use crate::lora::{LoraConfig, Method};
pub use crate::train::{Evaluation, Recipe, StepReport};
pub use crate::{Error, Result};
