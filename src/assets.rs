//! The encoder and the reviews that come with the package, for a first try without a download: `assets/README.md` says what they are.

/// Names and contents of files.
pub type Files = [(&'static str, &'static [u8])];

/// A DistilBERT encoder of 1.8 million parameters, in the layout of a Hugging Face checkpoint.
pub const ENCODER: &Files = &[
    ("config.json", include_bytes!("../assets/encoder/config.json")),
    ("model.safetensors", include_bytes!("../assets/encoder/model.safetensors")),
    ("vocab.txt", include_bytes!("../assets/encoder/vocab.txt")),
];

/// Reviews of films, positive or negative: a training and a test table.
pub const REVIEWS: &Files = &[("train.tsv", include_bytes!("../assets/train.tsv")), ("test.tsv", include_bytes!("../assets/test.tsv"))];
