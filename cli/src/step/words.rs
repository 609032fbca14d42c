//! The operations of a step in words.

/// What an operation computes.
pub fn formula(op: &str) -> &'static str {
    match op {
        "embedding_layer_norm" => "h = LN(words[id] + positions[place]): a row of each table, their sum, and layer normalisation",
        "dropout" => "y = f ⊙ x, where f is 0 with probability p and else 1/(1 − p)",
        "linear" => "y = x Wᵀ + b + Σ s · drop(x) Aᵀ Bᵀ: the weight, its bias, and the low-rank terms if there are any",
        "attention" => "y = drop(softmax(q kᵀ / √K)) v, for each head of each text",
        "residual_layer_norm" => "y = LN(drop(x) + r): dropout, the sum with the residual, and layer normalisation",
        "gelu" => "y = x Φ(x), Φ the normal distribution function",
        "relu" => "y = max(x, 0)",
        "first_row" => "y = the row of [CLS] of each text",
        "cross_entropy" => "L = −mean log softmax(logits)[label]",
        "bce_with_logits" => "L = mean of ln(1 + exp(z)) − y z over the labels of all texts",
        "squared_error" => "L = mean of (z − y)² over the numbers of all texts",
        "cast" => "y = x in another data type",
        "layer_norm" => "y = x̂ ⊙ γ + β, x̂ the normalised row",
        "add" => "y = a + b",
        "mul" => "y = a ⊙ b",
        "scale" => "y = c x",
        "sum" => "y = Σ x",
        "tanh" => "y = tanh(x)",
        "embedding" => "y = table[index]",
        _ => "",
    }
}

/// What backward needs a saved tensor for.
pub fn why(op: &str, saved: &str) -> &'static str {
    match (op, saved) {
        ("linear", "x") => "the gradient of a trained W or A is a product with x",
        ("linear", "w") => "dx = dy W",
        ("linear", "a" | "b") => "dx of the low-rank term, and the gradient of the other factor",
        ("linear", "h") => "dB = s · dyᵀ h, with h = drop(x) Aᵀ",
        ("attention", "inputs") => "q, k and v: the probabilities are computed from them again",
        ("attention", "y") => "δ = the sum of dy ⊙ y over each row",
        ("attention", "lse") => "the log-sum-exp of each row of scores gives the probabilities back",
        ("cross_entropy", "logits") => "dlogits = (softmax(logits) − one-hot(label)) / N",
        ("cross_entropy", "labels") => "the one-hot of the label",
        ("bce_with_logits", _) => "dlogits = (σ(logits) − targets) / N",
        ("squared_error", _) => "dlogits = 2 (logits − targets) / N",
        ("gelu", _) => "dx = dy ⊙ (Φ(x) + x φ(x))",
        ("relu", _) => "dx = dy where the output is positive",
        (_, "x_hat") => "dx and dγ of the layer normalisation",
        (_, "rstd") => "1/σ of each row scales dx",
        (_, "gamma") => "dx̂ = dy ⊙ γ",
        (_, "ids" | "indices") => "which row of the table each gradient is added to",
        (_, "words" | "positions" | "prompt" | "table") => "the shape of the table's gradient",
        _ => "its rule reads it",
    }
}

/// The name of an input that another operation made.
pub fn input(op: &str) -> &'static str {
    match op {
        "attention" => "q, k and v",
        "residual_layer_norm" => "x or the residual r",
        "cross_entropy" | "bce_with_logits" | "squared_error" => "logits",
        "first_row" => "h",
        _ => "x",
    }
}

/// The name of an input that is data.
pub fn data(op: &str) -> &'static str {
    match op {
        "cross_entropy" => "labels",
        "bce_with_logits" | "squared_error" => "targets",
        "embedding_layer_norm" | "embedding" => "token ids",
        _ => "constant",
    }
}

/// Whether input number `place` of an operation is data by its nature.
pub fn is_data(op: &str, place: usize) -> bool {
    matches!((op, place), ("cross_entropy" | "bce_with_logits" | "squared_error", 1) | ("embedding_layer_norm", 0) | ("embedding", 1))
}
