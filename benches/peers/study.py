"""The study's seven rows on transformers + PEFT, on the same reviews as `lowrank study`, and the two side by side.

    python study.py draw aclImdb_v1.tar.gz DUMP --train 2000 --test 2000 --seed 0
    python study.py peer --model DIR --data DUMP --max-length 128 --out peer.json
    lowrank study --model DIR --data DUMP --max-length 128 --out OURS
    python study.py compare OURS/results.json peer.json --data DUMP

`peer` goes on where it was stopped: a row that is in peer.json is not run again. `compare` pairs the two on the test reviews.
"""

import argparse
import json
import math
import random
import tarfile
import time
from pathlib import Path

QV, ATTENTION = ["q_lin", "v_lin"], ["q_lin", "k_lin", "v_lin", "out_lin"]
# Rank, targets and learning rate of each row, as `lowrank study` has them.
ROWS = {
    "head": (None, None, 1e-3),
    "qv4": (4, QV, 3e-4),
    "qv8": (8, QV, 3e-4),
    "qv16": (16, QV, 3e-4),
    "attention": (8, ATTENTION, 3e-4),
    "all": (8, [*ATTENTION, "lin1", "lin2"], 3e-4),
    "full": (None, None, 2e-5),
}


def draw(a):
    reviews = {"train": [], "test": []}
    with tarfile.open(a.archive) as tar:
        for member in tar:
            split, kind = [*member.name.split("/"), "", ""][1:3]
            if kind in ("pos", "neg") and member.isfile():
                text = tar.extractfile(member).read().decode("utf8")
                reviews[split].append((member.name, text, int(kind == "pos")))
    a.out.mkdir(parents=True, exist_ok=True)
    # The same test reviews whatever the seed.
    for split, n, seed in (("train", a.train, a.seed), ("test", a.test, 12345)):
        rows = sorted(reviews[split])
        random.Random(seed).shuffle(rows)
        lines = [json.dumps({"text": text, "label": label}) + "\n" for _, text, label in rows[:n]]
        (a.out / f"{split}.jsonl").write_text("".join(lines))


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(a, key, train, test):
    import torch
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import DistilBertForSequenceClassification, get_linear_schedule_with_warmup

    rank, targets, lr = ROWS[key]
    torch.manual_seed(a.seed)
    model = DistilBertForSequenceClassification.from_pretrained(a.model, num_labels=2)
    if key == "head":
        for name, p in model.named_parameters():
            p.requires_grad = name.startswith("classifier")
    elif rank:
        config = LoraConfig(task_type=TaskType.SEQ_CLS, r=rank, lora_alpha=2 * rank, lora_dropout=0.1, target_modules=targets, bias="none")
        model = get_peft_model(model, config)
    model.to(a.device)
    trained = [p for p in model.parameters() if p.requires_grad]
    amp = lambda: torch.autocast(a.device, dtype=torch.bfloat16, enabled=a.bf16)

    def batch(rows):
        longest = max(len(ids) for ids, _ in rows)
        ids, mask = (torch.zeros(len(rows), longest, dtype=torch.long) for _ in range(2))
        for j, (row, _) in enumerate(rows):
            ids[j, : len(row)], mask[j, : len(row)] = torch.tensor(row), 1
        columns = {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([label for _, label in rows])}
        return {name: column.to(a.device) for name, column in columns.items()}

    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=0.01)
    steps = a.epochs * math.ceil(len(train) / a.batch)
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    started = time.time()
    for epoch in range(a.epochs):
        model.train()
        order = list(range(len(train)))
        random.Random(a.seed * 1000 + epoch).shuffle(order)
        for k in range(0, len(order), a.batch):
            with amp():
                loss = model(**batch([train[i] for i in order[k : k + a.batch]])).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
    if a.device == "cuda":
        torch.cuda.synchronize()
    seconds = time.time() - started
    model.eval()
    order, answers = sorted(range(len(test)), key=lambda i: len(test[i][0])), [0] * len(test)
    with torch.inference_mode(), amp():
        for k in range(0, len(order), 32):
            chosen = order[k : k + 32]
            for i, answer in zip(chosen, model(**batch([test[i] for i in chosen])).logits.argmax(-1).tolist()):
                answers[i] = answer
    trainable = sum(p.numel() for p in trained)
    return {"row": key, "seed": a.seed, "trainable": trainable, "seconds": seconds, "answers": answers}


def peer(a):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(a.model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(a.max_length)
    sets = []
    for split in ("train", "test"):
        rows = read(a.data / f"{split}.jsonl")
        sets.append([(e.ids, row["label"]) for e, row in zip(tokenizer.encode_batch([row["text"] for row in rows]), rows)])
    done = json.loads(a.out.read_text()) if a.out.exists() else []
    for key in a.rows.split(","):
        if not any(r["row"] == key and r["seed"] == a.seed for r in done):
            done.append(run(a, key, *sets))
            a.out.write_text(json.dumps(done))
            right = sum(x == label for x, (_, label) in zip(done[-1]["answers"], sets[1]))
            print(f"{key}, seed {a.seed}: {100 * right / len(sets[1]):.2f} %, {done[-1]['seconds']:.0f} s", flush=True)


def compare(a):
    labels = [row["label"] for row in read(a.data / "test.jsonl")]
    ours, theirs = json.loads(a.ours.read_text())["rows"], json.loads(a.peer.read_text())
    print("| row | trainable | lowrank | PEFT | difference (95 % interval) |\n|---|---|---|---|---|")
    for key in ROWS:
        sides = [[r for r in side if r["row"] == key] for side in (ours, theirs)]
        if not all(sides):
            continue
        # Share of the seeds that have each review right.
        shares = [[sum(r["answers"][i] == label for r in side) / len(side) for i, label in enumerate(labels)] for side in sides]
        n, paired = len(labels), [100 * (x - y) for x, y in zip(*shares)]
        mean = sum(paired) / n
        half = 1.96 * math.sqrt(sum((d - mean) ** 2 for d in paired) / (n - 1) / n)
        accuracies = [f"{100 * sum(share) / n:.2f} %" for share in shares]
        counts = " ".join(f"{c:,}" for c in sorted({r["trainable"] for side in sides for r in side}))
        outside = "" if mean - half <= 0 <= mean + half else " outside"
        print(f"| {key} | {counts} | {accuracies[0]} | {accuracies[1]} | {mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f}){outside} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    p = commands.add_parser("draw")
    p.add_argument("archive", type=Path)
    p.add_argument("out", type=Path)
    p.add_argument("--train", type=int, default=2000)
    p.add_argument("--test", type=int, default=2000)
    p.add_argument("--seed", type=int, default=0)
    p.set_defaults(do=draw)
    p = commands.add_parser("peer")
    p.add_argument("--model", type=Path, required=True)
    p.add_argument("--data", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--rows", default=",".join(ROWS))
    p.add_argument("--epochs", type=int, default=3)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--max-length", type=int, default=512)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="cpu")
    p.add_argument("--bf16", action="store_true")
    p.set_defaults(do=peer)
    p = commands.add_parser("compare")
    p.add_argument("ours", type=Path)
    p.add_argument("peer", type=Path)
    p.add_argument("--data", type=Path, required=True)
    p.set_defaults(do=compare)
    a = parser.parse_args()
    a.do(a)


main()
