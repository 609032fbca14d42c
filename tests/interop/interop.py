"""What lowrank trains works in PEFT and transformers, and the other way round: same logits to 1e-5, without a warning.

    python -m venv venv && venv/bin/pip install -r tests/interop/requirements.txt
    cargo build --release
    venv/bin/python tests/interop/interop.py target/release/lowrank

Runs on the bundled encoder and reviews, in about two minutes. With --record FOLDER in place of the program it writes the small adapters of
PEFT's, and the logits that PEFT computes with them, that the default tests read without Python.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, DistilBertConfig, DistilBertForSequenceClassification

HOME = Path(__file__).resolve().parents[2] / "assets"
BASE = HOME / "encoder"
TEXTS = ["What a film, and what a cast!", "Dull.", "I wanted to like it, but after an hour of it I had given up on plot, people and popcorn alike."]
LORA = ["--rank", "4"]
# Name, arguments of `lowrank train`, the same as arguments of PEFT's LoraConfig.
ADAPTERS = [
    ("lora", [], {}),
    ("rslora", ["--rslora"], {"use_rslora": True}),
    ("layers", ["--layers", "1"], {"layers_to_transform": [1]}),
    ("bias of adapted linears", ["--bias", "lora-only"], {"bias": "lora_only"}),
    ("all biases", ["--bias", "all"], {"bias": "all"}),
    (
        "ranks and alphas by name",
        ["--targets", "q_lin,lin1", "--rank-pattern", "lin1=2,layer.1.attention.q_lin=6", "--alpha-pattern", "lin1=3"],
        {"target_modules": ["q_lin", "lin1"], "rank_pattern": {"lin1": 2, "layer.1.attention.q_lin": 6}, "alpha_pattern": {"lin1": 3}},
    ),
    ("dora", ["--method", "dora"], {"use_dora": True}),
    ("frozen A", ["--method", "lora-fa"], {}),
    ("nested ranks", ["--method", "dylora"], {}),
    ("targets by expression", ["--target-pattern", r".*layer\.[12]\..*(q_lin|lin1)"], {"target_modules": r".*layer\.[12]\..*(q_lin|lin1)"}),
    ("modules to save", ["--modules-to-save", "sa_layer_norm"], {"modules_to_save": ["sa_layer_norm"]}),
    ("modules that hold others", ["--modules-to-save", "ffn"], {"modules_to_save": ["ffn"]}),
    ("look-ahead", ["--target-pattern", r".*layer\.(?!0)\d.*q_lin"], {"target_modules": r".*layer\.(?!0)\d.*q_lin"}),
    (
        "order of patterns",
        ["--alpha-pattern", "q_lin=3,layer.1.attention.q_lin=40"],
        {"alpha_pattern": {"layer.1.attention.q_lin": 40, "q_lin": 3}},
    ),
    (
        "all linears",
        ["--targets", "all-linear"],
        {"target_modules": ["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"]},
    ),
]
CHECKPOINTS = [("full", ["--method", "full"]), ("selective", ["--method", "selective", "--frozen-layers", "1"])]


def base():
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=2, dtype=torch.float32).eval()


def lowrank(*arguments, stdin=None):
    done = subprocess.run([EXE, *map(str, arguments)], input=stdin, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"lowrank {' '.join(map(str, arguments))}: {done.stderr}")
    return done.stdout


def logits(model):
    """Differences of log-probabilities: softmax forgets their common part."""
    with torch.no_grad():
        rows = [model(torch.tensor([ids])).logits[0].double() for ids in IDS]
    return torch.stack([row - row.mean() for row in rows])


def ours(*model):
    found = json.loads(lowrank("predict", "--json", *model, *TEXTS))["predictions"]
    rows = [torch.tensor(p["probabilities"], dtype=torch.float64).log() for p in found]
    return torch.stack([row - row.mean() for row in rows])


def check(name, a, b):
    far = (a - b).abs().max().item()
    moved = (a - a[0]).abs().max().item()
    print(f"{'ok ' if far <= 1e-5 else 'BAD'} {name}: logits {far:.1e} apart")
    if far > 1e-5 or moved < 1e-3:
        sys.exit(f"{name}: {a} {b}")


def train(out, arguments, lr=0.01):
    lowrank("train", "--model", BASE, "--data", HOME, "--no-cache", "--out", out, "--epochs", 1, "--train-limit", 64, "--test-limit", 2, "--lr", lr, *arguments)


def perturb(model):
    """B starts at zero: an adapter that does something is needed."""
    torch.manual_seed(1)
    for name, p in model.named_parameters():
        if p.requires_grad:
            p.data += 0.1 * torch.randn_like(p)


def record(folder):
    """Adapters of one layer and rank 1, each with the logits of two texts."""
    small = {"r": 1, "lora_alpha": 3, "target_modules": ["q_lin", "lin1"], "layers_to_transform": [2], "task_type": "SEQ_CLS"}
    sizes = {"num_virtual_tokens": 3, "token_dim": 128, "num_layers": 4, "num_attention_heads": 4}
    configs = {
        "lora": LoraConfig(**small),
        "rslora": LoraConfig(**{**small, "r": 2}, use_rslora=True, bias="lora_only", rank_pattern={"lin1": 1}, alpha_pattern={"lin1": 5}),
        "dora": LoraConfig(**small, use_dora=True, modules_to_save=["sa_layer_norm"]),
        "prompt": PromptTuningConfig(task_type="SEQ_CLS", **sizes),
    }
    for name, config in configs.items():
        model = get_peft_model(base(), config).eval()
        perturb(model)
        out = folder / name
        model.save_pretrained(out)
        (out / "README.md").unlink()
        text = (out / "adapter_config.json").read_text().replace(str(BASE), "encoder")
        (out / "adapter_config.json").write_text(text)
        ids = [[2, 50, 900, 77, 3], [2, 7, 3]]
        with torch.no_grad():
            rows = [model(torch.tensor([row])).logits[0].tolist() for row in ids]
        (out / "logits.json").write_text(json.dumps({"ids": ids, "logits": rows}) + "\n")


# What PEFT does with an adapter's files beyond plain terms: arguments of LoraConfig, and words in the names of what is changed beside that.
LOADED = {
    "pissa": ({"init_lora_weights": "pissa", "rank_pattern": {"lin1": 3}, "alpha_pattern": {"layer.1.attention.q_lin": 5}}, None),
    "pissa-rslora": ({"init_lora_weights": "pissa", "use_rslora": True}, None),
    "pissa-dora": ({"init_lora_weights": "pissa", "use_dora": True}, None),
    "olora": ({"init_lora_weights": "olora", "rank_pattern": {"q_lin": 3}}, None),
    "orthogonal": ({"init_lora_weights": "orthogonal"}, None),
    "mica": ({"init_lora_weights": "mica"}, None),
    "exclude-names": ({"exclude_modules": ["layer.0.attention.q_lin", "layer.1.ffn.lin1"]}, None),
    "exclude-pattern": ({"exclude_modules": r".*layer\.0\.(?!ffn).*"}, None),
    "tokens": ({"trainable_token_indices": [3, 7]}, None),
    "tokens-of-both": ({"trainable_token_indices": {"position_embeddings": [1, 2], "word_embeddings": [5]}}, None),
    "tokens-saved": ({"trainable_token_indices": [3, 7]}, "word_embeddings"),
    "embeddings": ({}, "word_embeddings"),
    "embeddings-to-save": ({"modules_to_save": ["word_embeddings"]}, "word_embeddings"),
    "container": ({"modules_to_save": ["ffn"]}, None),
    "container-layer": ({"modules_to_save": ["layer.1"], "bias": "all"}, None),
    "order": (
        {
            "rank_pattern": {"q_lin": 1, "layer.1.attention.q_lin": 3},
            "alpha_pattern": {"layer.0.ffn.lin1": 2, r".*layer\.1.*": 9, "layer.1.ffn.lin1": 30},
        },
        None,
    ),
    "look-around": (
        {"target_modules": r".*layer\.(?!0)\d+\.(attention\.q_lin|ffn\.lin(?<!2)1)", "rank_pattern": {r"(?=q).*_lin": 3}},
        None,
    ),
    "several-models": (
        {"target_modules": ["q_lin", "query", "classifier"], "rank_pattern": {"query": 3}, "modules_to_save": ["pooler"]},
        None,
    ),
    "lora-bias": ({"lora_bias": True}, None),
    "layers": ({"layers_to_transform": 1, "layers_pattern": "layer", "target_modules": ["q_lin", "distilbert.transformer.layer.0.ffn.lin1"]}, None),
    "alora": ({"alora_invocation_tokens": [5]}, None),
}


def record_loaded(folder):
    """Adapters of a random base, far from it, each with the logits that PEFT computes after it loaded the files."""
    torch.manual_seed(7)
    sizes = {"vocab_size": 24, "max_position_embeddings": 12, "dim": 8, "n_heads": 2, "n_layers": 2, "hidden_dim": 12}
    model = DistilBertForSequenceClassification(DistilBertConfig(**sizes, initializer_range=0.3))
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    model.distilbert.save_pretrained(folder / "base")

    def base():
        torch.manual_seed(0)
        return DistilBertForSequenceClassification.from_pretrained(folder / "base", num_labels=2, dtype=torch.float32).eval()

    for name, (config, changed) in LOADED.items():
        settings = {"r": 2, "lora_alpha": 6, "target_modules": ["q_lin", "lin1"], "task_type": "SEQ_CLS", **config}
        model = get_peft_model(base(), LoraConfig(**settings)).eval()
        torch.manual_seed(1)
        for key, p in model.named_parameters():
            if p.requires_grad or (changed and changed in key):
                p.data += 0.3 * torch.randn_like(p)
        out = folder / name
        model.save_pretrained(out, save_embedding_layers=bool(changed))
        (out / "README.md").unlink()
        # PEFT sorts the keys of patterns when it writes, and takes the first that matches when it reads.
        fields = json.loads((out / "adapter_config.json").read_text())
        fields.update({key: value for key, value in config.items() if key.endswith("_pattern")})
        fields["base_model_name_or_path"] = "base"
        (out / "adapter_config.json").write_text(json.dumps(fields, indent=2))
        model, ids = PeftModel.from_pretrained(base(), out).eval(), [[2, 5, 7, 3, 11], [2, 20, 3]]
        with torch.no_grad():
            rows = [model(torch.tensor([row])).logits[0].tolist() for row in ids]
        (out / "logits.json").write_text(json.dumps({"ids": ids, "logits": rows}) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "--record":
        record(Path(sys.argv[2]))
        sys.exit(record_loaded(Path(sys.argv[2]) / "loaded"))
    EXE = sys.argv[1]
    lines = lowrank("tokenize", "--model", BASE, "--jsonl", stdin="".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
    IDS = [json.loads(line)["ids"] for line in lines.splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name, arguments, config in ADAPTERS:
            out = folder / name.replace(" ", "-")
            train(out, [*LORA, *arguments])
            theirs = PeftModel.from_pretrained(base(), out).eval()
            whole = folder / f"{out.name}-merged"
            lowrank("merge", "--model", BASE, "--adapter", out, "--out", whole)
            merged, report = AutoModelForSequenceClassification.from_pretrained(whole, output_loading_info=True)
            if any(report.values()):
                sys.exit(f"{name}, merged: {report}")
            check(f"{name}: merged by lowrank, read by transformers", logits(theirs), logits(merged.eval()))
            check(f"{name}: trained by lowrank, read by PEFT", ours("--model", BASE, "--adapter", out), logits(theirs))

            config = {"r": 4, "lora_alpha": 8, "target_modules": ["q_lin", "v_lin"], "task_type": "SEQ_CLS", **config}
            model = get_peft_model(base(), LoraConfig(**config)).eval()
            perturb(model)
            model.save_pretrained(out / "theirs")
            check(f"{name}: made by PEFT, read by lowrank", ours("--model", BASE, "--adapter", out / "theirs"), logits(model))
        out = folder / "prompt"
        train(out, ["--method", "prompt", "--virtual-tokens", 5])
        check("prompt: trained by lowrank, read by PEFT", ours("--model", BASE, "--adapter", out), logits(PeftModel.from_pretrained(base(), out).eval()))
        sizes = {"num_virtual_tokens": 5, "token_dim": 128, "num_layers": 4, "num_attention_heads": 4}
        model = get_peft_model(base(), PromptTuningConfig(task_type="SEQ_CLS", **sizes)).eval()
        perturb(model)
        model.save_pretrained(out / "theirs")
        check("prompt: made by PEFT, read by lowrank", ours("--model", BASE, "--adapter", out / "theirs"), logits(model))
        for name, arguments in CHECKPOINTS:
            out = folder / name
            # At a higher rate the whole model comes to answer all texts alike.
            train(out, arguments, lr=1e-3)
            model, report = AutoModelForSequenceClassification.from_pretrained(out, output_loading_info=True)
            if any(report.values()):
                sys.exit(f"{name}: {report}")
            check(f"{name}: trained by lowrank, read by transformers", ours("--model", out), logits(model.eval()))
