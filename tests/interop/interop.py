"""What lowrank trains works in PEFT, transformers and onnxruntime, and the other way round: same logits to 1e-5, without a warning.

    python -m venv venv && venv/bin/pip install -r tests/interop/requirements.txt
    cargo build --release
    venv/bin/python tests/interop/interop.py target/release/lowrank

Runs on the bundled encoder and reviews, as DistilBERT and in BERT's layout, in about four minutes. With --record FOLDER in place of the program it writes the small adapters of
PEFT's, and the logits that PEFT computes with them, that the default tests read without Python.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import onnxruntime
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

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


# The same for BERT. Its `dense` means four linears, one of them the pooler's.
LOADED_BERT = {
    "query-value": ({}, None),
    "key-dense": ({"target_modules": ["key", "dense"]}, None),
    "rslora": ({"use_rslora": True, "bias": "lora_only", "rank_pattern": {"query": 1}}, None),
    "dora": ({"use_dora": True, "target_modules": ["query", "output.dense"]}, None),
    "pissa": ({"init_lora_weights": "pissa"}, None),
    "pooler": ({"modules_to_save": ["pooler"], "bias": "all"}, None),
    "all-linear": ({"target_modules": "all-linear"}, None),
    "layers": ({"layers_to_transform": [1], "layers_pattern": "layer", "target_modules": ["dense", "value"]}, None),
    "expression": ({"target_modules": r".*layer\.1\..*(query|intermediate\.dense)"}, None),
    "types": ({"trainable_token_indices": {"token_type_embeddings": [0], "word_embeddings": [5]}}, None),
    "embeddings": ({}, "word_embeddings"),
    "prompt": ({}, None),
}
LITTLE = {"vocab_size": 24, "max_position_embeddings": 12}
BASES = {
    "loaded": (
        LOADED,
        DistilBertForSequenceClassification,
        DistilBertConfig(**LITTLE, dim=8, n_heads=2, n_layers=2, hidden_dim=12, initializer_range=0.3),
        ["q_lin", "lin1"],
    ),
    "bert": (
        LOADED_BERT,
        BertForSequenceClassification,
        BertConfig(**LITTLE, hidden_size=8, num_attention_heads=2, num_hidden_layers=2, intermediate_size=12, initializer_range=0.3),
        ["query", "value"],
    ),
}


def record_loaded(folder, adapters, kind, sizes, targets):
    """Adapters of a random base, far from it, each with the logits that PEFT computes after it loaded the files."""
    torch.manual_seed(7)
    model = kind(sizes)
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    model.base_model.save_pretrained(folder / "base")

    def base():
        torch.manual_seed(0)
        return kind.from_pretrained(folder / "base", num_labels=2, dtype=torch.float32).eval()

    for name, (config, changed) in adapters.items():
        settings = {"r": 2, "lora_alpha": 6, "target_modules": targets, "task_type": "SEQ_CLS", **config}
        prompt = PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3, token_dim=8, num_layers=2, num_attention_heads=2)
        model = get_peft_model(base(), prompt if name == "prompt" else LoraConfig(**settings)).eval()
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


# BERT's names for DistilBERT's.
NAMES = {
    "attention.q_lin": "attention.self.query",
    "q_lin": "query",
    "attention.k_lin": "attention.self.key",
    "k_lin": "key",
    "attention.v_lin": "attention.self.value",
    "v_lin": "value",
    "attention.out_lin": "attention.output.dense",
    "out_lin": "attention.output.dense",
    "sa_layer_norm": "attention.output.LayerNorm",
    "output_layer_norm": "output.LayerNorm",
    "ffn.lin1": "intermediate.dense",
    "lin1": "intermediate.dense",
    "ffn.lin2": "output.dense",
    "lin2": "output.dense",
    '"ffn"': '"intermediate"',
    "distilbert.transformer": "bert.encoder",
    "distilbert": "bert",
}
# The adapters that are tried on BERT too.
IN_BERT = [
    "lora",
    "bias of adapted linears",
    "ranks and alphas by name",
    "dora",
    "targets by expression",
    "modules to save",
    "modules that hold others",
    "all linears",
]


def in_bert(text):
    for ours, theirs in NAMES.items():
        text = text.replace(ours, theirs)
    return text


def copy_tokenizer(source, out):
    for name in ["vocab.txt", "tokenizer.json", "tokenizer_config.json"]:
        if (source / name).exists():
            shutil.copy(source / name, out)


def as_bert(out):
    """The bundled encoder in BERT's layout, with random token types and a random pooler."""
    c = json.loads((BASE / "config.json").read_text())
    sizes = {"hidden_size": c["dim"], "num_attention_heads": c["n_heads"], "num_hidden_layers": c["n_layers"], "intermediate_size": c["hidden_dim"]}
    torch.manual_seed(2)
    bert = BertForSequenceClassification(BertConfig(**sizes, vocab_size=c["vocab_size"], max_position_embeddings=c["max_position_embeddings"]))
    found = {in_bert(name): t.float() for name, t in load_file(BASE / "model.safetensors").items()}
    missing, unexpected = bert.load_state_dict(found, strict=False)
    if unexpected or len(missing) != 5:
        sys.exit(f"{missing} {unexpected}")
    # Large enough that the classifier sees a difference between texts.
    bert.bert.pooler.dense.weight.data *= 5
    bert.bert.save_pretrained(out)
    copy_tokenizer(BASE, out)
    return out


def both_ways(folder, adapters, targets):
    """Trains, merges and exchanges adapters and checkpoints on BASE."""
    folder.mkdir()
    for name, arguments, config in adapters:
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

        config = {"r": 4, "lora_alpha": 8, "target_modules": targets, "task_type": "SEQ_CLS", **config}
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


def score(model, row):
    """The logits of an answer of `predict --json`, of which classes forget their common part."""
    x = torch.tensor(row["probabilities"], dtype=torch.float64)
    if model.config.problem_type == "regression":
        return x
    if model.config.problem_type == "multi_label_classification":
        return (x / (1 - x)).log()
    return x.log() - x.log().mean()


def tasks(folder):
    """Several labels, numbers and pairs, trained by lowrank and by transformers: the same logits both ways."""
    folder.mkdir()
    rows = [line.split("\t", 1) for line in (HOME / "train.tsv").read_text().splitlines()[1:97]]
    pairs = [{"text": text[:90], "text_pair": other[-70:], "label": label} for (label, text), (_, other) in zip(rows, rows[1:])]
    tables = {
        "classes": pairs,
        "labels": [{**p, "label": ["good"] * (p["label"] == "positive") + ["first"] * (i % 3 == 0) + ["x"] * (i % 5 == 0)} for i, p in enumerate(pairs)],
        "numbers": [{**p, "label": i % 7 / 3 + (p["label"] == "positive")} for i, p in enumerate(pairs)],
    }
    kinds = {"classes": None, "labels": "multi_label_classification", "numbers": "regression"}
    for task, table in tables.items():
        data = folder / f"{task}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in table))
        few = folder / f"{task}-few.jsonl"
        few.write_text("".join(json.dumps(row) + "\n" for row in table[:4]))
        for name, of_pair in [("single", []), ("pairs", ["--text-pair-column", "text_pair"])]:
            texts = [[row["text"], row["text_pair"]] if of_pair else [row["text"]] for row in table[:4]]

            def compare(how, model, *arguments):
                lines = lowrank("predict", "--json", *arguments, "--file", few, *of_pair, "--max-length", 40).splitlines()
                tokenizer = AutoTokenizer.from_pretrained(BASE)
                found, wanted = [], []
                for text, line in zip(texts, lines):
                    inputs = tokenizer(*text, truncation="longest_first", max_length=40, return_tensors="pt", return_token_type_ids=model.config.model_type == "bert")
                    with torch.no_grad():
                        z = model(**inputs).logits[0].double()
                    wanted.append(z - z.mean() if task == "classes" else z)
                    found.append(score(model, json.loads(line)))
                check(f"{folder.name}, {task}, {name}: {how}", torch.stack(found), torch.stack(wanted))

            def read_back(out):
                model, report = AutoModelForSequenceClassification.from_pretrained(out, output_loading_info=True)
                if any(report.values()) or model.config.problem_type != kinds[task]:
                    sys.exit(f"{task}: {report} {model.config.problem_type}")
                return model.eval()

            how = ["--model", BASE, "--data", data, *of_pair, "--task", task, "--no-cache", "--no-report", "--max-length", 40, "--epochs", 1]
            out = folder / f"{task}-{name}"
            lowrank("train", *how, *LORA, "--lr", 0.02, "--out", out)
            lowrank("merge", "--model", BASE, "--adapter", out, "--out", folder / f"{out.name}-merged")
            compare("LoRA, merged, read by transformers", read_back(folder / f"{out.name}-merged"), "--model", BASE, "--adapter", out)
            lowrank("train", *how, "--method", "full", "--lr", 1e-3, "--out", folder / f"{out.name}-full")
            compare("full, read by transformers", read_back(folder / f"{out.name}-full"), "--model", folder / f"{out.name}-full")
            labels = read_back(folder / f"{out.name}-full").config.num_labels
            torch.manual_seed(3)
            theirs = AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=labels, problem_type=kinds[task], dtype=torch.float32).eval()
            for p in theirs.parameters():
                p.data += 0.02 * torch.randn_like(p)
            theirs.save_pretrained(folder / f"{out.name}-theirs")
            copy_tokenizer(BASE, folder / f"{out.name}-theirs")
            compare("made by transformers, read by lowrank", theirs, "--model", folder / f"{out.name}-theirs")
    # What onnxruntime computes of pairs.
    onnx = folder / "pairs-onnx"
    lowrank("export", "--onnx", "--model", BASE, "--adapter", folder / "classes-pairs", "--out", onnx)
    session = onnxruntime.InferenceSession(onnx / "model.onnx", providers=["CPUExecutionProvider"])
    model = AutoModelForSequenceClassification.from_pretrained(folder / "classes-pairs-merged").eval()
    names = [i.name for i in session.get_inputs()]
    rows = []
    for p in pairs[:3]:
        inputs = AutoTokenizer.from_pretrained(BASE)(p["text"], p["text_pair"], return_tensors="pt", return_token_type_ids=True)
        with torch.no_grad():
            given = inputs if "token_type_ids" in names else {key: inputs[key] for key in names}
            wanted = model(**given).logits[0]
        rows.append((torch.tensor(session.run(None, {key: inputs[key].numpy() for key in names})[0][0]), wanted))
    check(f"{folder.name}, pairs: ONNX", torch.stack([a for a, _ in rows]), torch.stack([b for _, b in rows]))


def with_positions(source, out, positions=512):
    """The encoder in `source` with more positions, the further ones random."""
    encoder = AutoModel.from_pretrained(source, dtype=torch.float32)
    old = encoder.embeddings.position_embeddings.weight.data
    torch.manual_seed(4)
    new = torch.nn.Embedding(positions, old.shape[1])
    new.weight.data.mul_(0.02)[: len(old)] = old
    encoder.embeddings.position_embeddings = new
    encoder.config.max_position_embeddings = positions
    encoder.save_pretrained(out)
    copy_tokenizer(source, out)
    return out


def check_onnx(name, folder, whole):
    """The exported model in onnxruntime against the checkpoint `whole` in transformers: alone and padded, of 1 to 512 tokens."""
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    if [i.name for i in session.get_inputs()] != ["input_ids", "attention_mask"] or [o.name for o in session.get_outputs()] != ["logits"]:
        sys.exit(f"{name}: {session.get_inputs()} {session.get_outputs()}")
    model = AutoModelForSequenceClassification.from_pretrained(whole, dtype=torch.float32).eval()
    torch.manual_seed(6)
    lengths = [1, 2, 3, 17, 128, 300, 512]
    texts = [torch.randint(0, model.config.vocab_size, (n,)) for n in lengths]
    with torch.no_grad():
        wanted = torch.cat([model(text[None]).logits for text in texts])
    alone = [session.run(None, {"input_ids": t[None].numpy(), "attention_mask": torch.ones(1, len(t), dtype=torch.int64).numpy()})[0] for t in texts]
    padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    mask = (torch.arange(padded.shape[1])[None] < torch.tensor(lengths)[:, None]).long()
    together = session.run(None, {"input_ids": padded.numpy(), "attention_mask": mask.numpy()})[0]
    for how, found in [("alone", torch.cat([torch.tensor(a) for a in alone])), ("a batch of 7", torch.tensor(together))]:
        far = (found - wanted).abs().max().item()
        print(f"{'ok ' if far <= 1e-5 else 'BAD'} {name}: ONNX, {how}: logits {far:.1e} apart")
        moved = (wanted - wanted[0]).abs().max().item()
        if not far <= 1e-5 or moved < 1e-3 or not (folder / "tokenizer.json").exists():
            sys.exit(f"{name}: {found} {wanted}")


def to_onnx(folder):
    """Exports a merged adapter and a whole checkpoint of BASE."""
    folder.mkdir()
    train(folder / "lora", [*LORA, "--targets", "all-linear"])
    lowrank("merge", "--model", BASE, "--adapter", folder / "lora", "--out", folder / "merged")
    lowrank("export", "--onnx", "--model", BASE, "--adapter", folder / "lora", "--out", folder / "lora-onnx")
    check_onnx(f"{folder.name}, LoRA", folder / "lora-onnx", folder / "merged")
    train(folder / "full", ["--method", "full"], lr=1e-3)
    lowrank("export", "--onnx", "--model", folder / "full", "--out", folder / "full-onnx")
    check_onnx(f"{folder.name}, full", folder / "full-onnx", folder / "full")


if __name__ == "__main__":
    if sys.argv[1] == "--record":
        record(Path(sys.argv[2]))
        for name, how in BASES.items():
            record_loaded(Path(sys.argv[2]) / name, *how)
        sys.exit()
    EXE = sys.argv[1]
    lines = lowrank("tokenize", "--model", BASE, "--jsonl", stdin="".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
    IDS = [json.loads(line)["ids"] for line in lines.splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        tasks(folder / "distilbert-tasks")
        both_ways(folder / "distilbert", ADAPTERS, ["q_lin", "v_lin"])
        BASE = as_bert(folder / "bert-base")
        of_bert = [json.loads(in_bert(json.dumps(adapter))) for adapter in ADAPTERS if adapter[0] in IN_BERT]
        tasks(folder / "bert-tasks")
        both_ways(folder / "bert", of_bert, ["query", "value"])
        for name, source in [("distilbert", HOME / "encoder"), ("bert", folder / "bert-base")]:
            BASE = with_positions(source, folder / f"{name}-512")
            to_onnx(folder / f"{name}-onnx")
