//! The seven configurations.

use crate::lora::{LoraConfig, Method};

/// A row of the study's table.
#[derive(Clone, Debug)]
pub struct Row {
    /// Short name, for `--rows` and folders.
    pub key: &'static str,
    /// Name in the table.
    pub name: &'static str,
    /// What trains.
    pub method: Method,
    /// Highest learning rate. The head's is ours: the study does not state it.
    pub lr: f64,
    /// Test accuracy that the study states, in per cent, with `distilbert-base-uncased` on the whole of IMDB.
    pub stated: f64,
}

/// All rows, in the order of the study: alpha = 2r, dropout 0.1, lr 3e-4; full fine-tuning 2e-5.
pub fn rows() -> Vec<Row> {
    let attention = ["q_lin", "k_lin", "v_lin", "out_lin"];
    let lora = |key, name, rank, targets: &[&str], stated| Row {
        key,
        name,
        method: Method::Lora(LoraConfig::new(rank, targets)),
        lr: 3e-4,
        stated,
    };
    vec![
        Row { key: "head", name: "classification head only", method: Method::Head { pre_classifier: false }, lr: 1e-3, stated: 82.18 },
        lora("qv4", "Q+V r=4", 4, &["q_lin", "v_lin"], 92.28),
        lora("qv8", "Q+V r=8", 8, &["q_lin", "v_lin"], 92.48),
        lora("qv16", "Q+V r=16", 16, &["q_lin", "v_lin"], 92.67),
        lora("attention", "all attention r=8", 8, &attention, 93.00),
        lora("all", "all attention + FFN r=8", 8, &["all-linear"], 93.32),
        Row { key: "full", name: "full fine-tuning", method: Method::Full, lr: 2e-5, stated: 93.26 },
    ]
}
