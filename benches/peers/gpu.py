"""lowrank's training beside transformers + PEFT's on one GPU: same reviews, ids, checkpoint and batch, bf16, alternating.

    python gpu.py --ours gpu/lowrank --model DIR --data DATA --reviews 4000 --batch 32 --rounds 3 --out gpu/beside-peer.json

DATA is what `study.py draw` writes. In each round lowrank and every setting of the peer train LoRA on Q and V (r = 8) for two epochs, each in a
process of its own, in an order that turns round. Rates count real tokens, never padding. The peer is timed in its second epoch, when all is
compiled and cached; lowrank over both. The peer has its fastest known form: SDPA, frozen weights held in bf16 under autocast, the fused AdamW; tried
with and without torch.compile, and with random batches padded to their longest or batches grouped by length. Memory is what each side
holds: lowrank's pool with cuBLAS's workspace, which does not shrink, and torch's max_memory_reserved. A result that is in OUT is not measured again.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare import with_head

# Whether the peer is compiled, and its batches grouped by length.
SETTINGS = {
    "eager, dynamic padding": (False, False),
    "eager, grouped by length": (False, True),
    "compiled, dynamic padding": (True, False),
    "compiled, grouped by length": (True, True),
}
EPOCHS = 2


def ours(a, folder):
    with tempfile.TemporaryDirectory() as out:
        command = [a.ours, "train", "--model", a.model, "--data", folder, "--out", f"{out}/adapter", "--epochs", str(EPOCHS), "--json"]
        command += ["--batch", str(a.batch), "--max-length", str(a.max_length), "--dtype", "bf16", "--device", a.device, "--no-cache"]
        done = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return {"tokens_per_second": done["tokens_per_second"], "device_bytes": done.get("device_memory_bytes"), "tokens": done["tokens_per_epoch"]}


def peer(a, folder, name):
    command = [sys.executable, __file__, "--worker", name, "--model", a.model, "--data", folder, "--device", a.device]
    command += ["--batch", str(a.batch), "--max-length", str(a.max_length)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def batches(rows, size, grouped, seed):
    """Random batches; or, within random blocks of 50 batches, batches of like lengths: transformers' `group_by_length`, but batches in random order."""
    order = random.Random(seed).sample(range(len(rows)), len(rows))
    if not grouped:
        return [order[i : i + size] for i in range(0, len(order), size)]
    blocks = [sorted(order[i : i + 50 * size], key=lambda j: -len(rows[j][0])) for i in range(0, len(order), 50 * size)]
    parts = [block[i : i + size] for block in blocks for i in range(0, len(block), size)]
    return random.Random(seed).sample(parts, len(parts))


def worker(a):
    import torch
    from peft_worker import load, pad, round_weights
    from tokenizers import BertWordPieceTokenizer

    compiled, grouped = SETTINGS[a.worker]
    tokenizer = BertWordPieceTokenizer(str(a.model / "vocab.txt"), lowercase=True)
    tokenizer.enable_truncation(a.max_length)
    lines = [json.loads(line) for line in (a.data / "train.jsonl").read_text().splitlines()]
    rows = [(e.ids, line["label"]) for e, line in zip(tokenizer.encode_batch([line["text"] for line in lines]), lines)]
    torch.manual_seed(0)
    model = round_weights(load(a.model, "lora"), "held").to(a.device).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-4, weight_decay=0.01, fused=True)
    run = torch.compile(model, dynamic=True) if compiled else model
    wait = torch.cuda.synchronize if a.device == "cuda" else lambda: None
    for epoch in range(EPOCHS):
        wait()
        started = time.perf_counter()
        for chosen in batches(rows, a.batch, grouped, epoch):
            batch = pad([rows[i][0] for i in chosen]) | {"labels": torch.tensor([rows[i][1] for i in chosen])}
            batch = {name: column.to(a.device, non_blocking=True) for name, column in batch.items()}
            with torch.autocast(a.device, dtype=torch.bfloat16):
                loss = run(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        wait()
        seconds = time.perf_counter() - started
    tokens = sum(len(ids) for ids, _ in rows)
    reserved = torch.cuda.max_memory_reserved() if a.device == "cuda" else None
    print(json.dumps({"tokens_per_second": tokens / seconds, "device_bytes": reserved, "tokens": tokens, "loss": loss.item()}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--ours", help="the program `lowrank`; needed")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--reviews", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, help="where results are kept; needed")
    a = parser.parse_args()
    if a.worker:
        return worker(a)
    if not a.ours or not a.out:
        parser.error("--ours and --out are needed")
    work = {"model": str(a.model), "data": str(a.data), "reviews": a.reviews, "batch": a.batch, "max_length": a.max_length, "device": a.device}
    results = json.loads(a.out.read_text()) if a.out.exists() else []
    if any(r["work"] != work for r in results):
        sys.exit(f"gpu: {a.out} holds results of other work than {work}: give another file")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        a.model = with_head(a.model, folder / "model")
        for split, count in (("train", a.reviews), ("test", a.batch)):
            lines = (a.data / f"{split}.jsonl").read_text().splitlines(keepends=True)[:count]
            (folder / f"{split}.jsonl").write_text("".join(lines))
        sides = ["ours", *SETTINGS]
        for round in range(a.rounds):
            for name in sides[round % len(sides) :] + sides[: round % len(sides)]:
                if any(r["round"] == round and r["side"] == name for r in results):
                    continue
                measured = ours(a, folder) if name == "ours" else peer(a, folder, name)
                results.append({"round": round, "side": name, "work": work} | measured)
                a.out.write_text(json.dumps(results))
                print(f"round {round}, {name}: {measured['tokens_per_second']:.0f} tokens/s", flush=True)
    if len({r["tokens"] for r in results}) != 1:
        sys.exit("gpu: the two sides did not train on the same tokens")
    rate = {name: [r["tokens_per_second"] for r in results if r["side"] == name] for name in sides}
    held = {name: max((r["device_bytes"] or 0) for r in results if r["side"] == name) for name in sides}
    print("\n| | training tokens/s, median (range) | lowrank over it, per round | device memory, MiB |\n|---|---|---|---|")
    for name in sides:
        ratios = [x / y for x, y in zip(rate["ours"], rate[name])]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        rates = f"{statistics.median(rate[name]):.0f} ({min(rate[name]):.0f}–{max(rate[name]):.0f})"
        print(f"| {name} | {rates} | {spread} | {held[name] / 2**20:.0f} |")


main()
