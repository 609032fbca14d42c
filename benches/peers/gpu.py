"""lowrank beside transformers + PEFT on one GPU: training and evaluation on the same reviews, ids, checkpoint and batch, bf16, alternating.

    python gpu.py --ours gpu/lowrank --model DIR --data DATA --reviews 4000 --batch 32 --rounds 3 --out gpu/beside-peer.json

DATA is what `study.py draw` writes. In each round lowrank (`lowrank bench epoch`) and every setting of the peer train LoRA on Q and V (r = 8) for two
epochs and classify the test reviews, each in a process of its own, in an order that turns round. Both sides are timed in the same way: the clock starts
when the ids are in memory and the device is idle, and stops when it is idle again; building batches is in it, reading and tokenising are not. The second epoch
counts, when all is loaded, chosen, compiled and cached. Every batch size evaluates twice, longest reviews first, and the second counts; the fastest size is a
side's figure. Rates count real tokens, never padding. The peer has its fastest known form: SDPA, frozen weights held in bf16 under autocast, the
fused AdamW; tried with and without torch.compile, and with random batches padded to their longest or batches grouped by length. Memory is what each side
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
EVAL_BATCHES = [32, 64, 128, 256]


def ours(a, folder):
    command = [a.ours, "bench", "epoch", "--model", a.model, "--data", folder, "--epochs", str(EPOCHS), "--json", "--no-cache"]
    command += ["--batch", str(a.batch), "--max-length", str(a.max_length), "--dtype", "bf16", "--device", a.device]
    command += ["--eval-batches", ",".join(map(str, EVAL_BATCHES))]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


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


def evaluate(model, rows, size, device, wait):
    """Seconds of the second of two runs over the rows, longest first, in batches of `size`."""
    import torch
    from peft_worker import pad

    order = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]))
    for _ in range(2):
        wait()
        started, answers = time.perf_counter(), [0] * len(rows)
        with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16):
            for k in range(0, len(order), size):
                chosen = order[k : k + size]
                batch = {name: column.to(device, non_blocking=True) for name, column in pad([rows[i][0] for i in chosen]).items()}
                for i, answer in zip(chosen, model(**batch).logits.argmax(-1).tolist()):
                    answers[i] = answer
        wait()
        seconds = time.perf_counter() - started
    return seconds


def worker(a):
    import torch
    from peft_worker import load, pad, round_weights
    from tokenizers import BertWordPieceTokenizer

    compiled, grouped = SETTINGS[a.worker]
    tokenizer = BertWordPieceTokenizer(str(a.model / "vocab.txt"), lowercase=True)
    tokenizer.enable_truncation(a.max_length)

    def read(split):
        lines = [json.loads(line) for line in (a.data / f"{split}.jsonl").read_text().splitlines()]
        return [(e.ids, line["label"]) for e, line in zip(tokenizer.encode_batch([line["text"] for line in lines]), lines)]

    rows, test = read("train"), read("test")
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
    model.eval()
    by_batch = [[size, evaluate(run, test, size, a.device, wait)] for size in EVAL_BATCHES]
    batch, fastest = min(by_batch, key=lambda pair: pair[1])
    reserved = torch.cuda.max_memory_reserved() if a.device == "cuda" else None
    found = {"epoch_seconds": seconds, "tokens_per_second": tokens / seconds, "tokens": tokens, "loss": loss.item(), "device_bytes": reserved}
    print(json.dumps(found | {"eval_seconds": fastest, "eval_batch": batch, "eval_seconds_by_batch": by_batch}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--ours", help="the program `lowrank`; needed")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--reviews", type=int, default=4000)
    parser.add_argument("--test-reviews", type=int, default=4000)
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
    work = {"model": str(a.model), "data": str(a.data), "reviews": a.reviews, "test_reviews": a.test_reviews, "batch": a.batch, "max_length": a.max_length, "device": a.device}
    results = json.loads(a.out.read_text()) if a.out.exists() else []
    if any(r["work"] != work for r in results):
        sys.exit(f"gpu: {a.out} holds results of other work than {work}: give another file")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        a.model = with_head(a.model, folder / "model")
        for split, count in (("train", a.reviews), ("test", a.test_reviews)):
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
                trained, tested = (f"{measured[what]:.2f} s" for what in ("epoch_seconds", "eval_seconds"))
                print(f"round {round}, {name}: epoch {trained}, evaluation {tested} in batches of {measured['eval_batch']}", flush=True)
    if len({r["tokens"] for r in results}) != 1:
        sys.exit("gpu: the two sides did not train on the same tokens")
    of = lambda name, what: [r[what] for r in results if r["side"] == name]
    held = {name: max((bytes or 0) for bytes in of(name, "device_bytes")) for name in sides}
    print("\n| | epoch, s: median (range) | lowrank over it, per round | evaluation, s: median (range) | lowrank over it | device memory, MiB |")
    print("|---|---|---|---|---|---|")
    for name in sides:
        cells = []
        for what in ("epoch_seconds", "eval_seconds"):
            seconds, ratios = of(name, what), [y / x for x, y in zip(of("ours", what), of(name, what))]
            for numbers in (seconds, ratios):
                cells.append(f"{statistics.median(numbers):.2f} ({min(numbers):.2f}–{max(numbers):.2f})")
        print(f"| {name} | {' | '.join(cells)} | {held[name] / 2**20:.0f} |")


main()
