"""lowrank beside transformers + PEFT on torch: same ids, same checkpoint, same precision, same threads, alternated in one run.

    python compare.py step --ours EXE --model DIR --shape 16x128 --dtype f32 --method lora --rounds 5
    python compare.py imdb --ours EXE --model DIR --data aclImdb_v1.tar.gz --batches 20 --dtype f32
    python compare.py make-base --tokenizer DIR OUT      # DistilBERT-base's sizes, random weights

Each side runs in children of its own, one that trains and one that infers, so that each peak of memory is of one job. Only one child
computes at a time, and which side goes first changes every round. Ratios are peer over ours: above 1, ours is faster or smaller.
The peer runs with its fastest settings, found on the same shape in a child that is thrown away. See README.md beside this file.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

WORKER = Path(__file__).parent / "peft_worker.py"
JOBS = ("train", "infer")
QUIET = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
# glibc gives large blocks back to the system and faults them in anew at each step; with these it keeps them.
KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**36)}
Batch = tuple[list[list[int]], list[int]]  # ids and labels


class Side:
    """A child that answers one line of JSON per line of JSON; counts the processor time it takes while it should sleep."""

    def __init__(self, name: str, program: Path, a: argparse.Namespace, *more: str):
        command = [sys.executable, program] if program.suffix == ".py" else [program]
        command += ["serve", "--model", a.model, "--dtype", a.dtype, "--method", a.method, "--threads", str(a.threads), *more]
        # Threads that wait for work sleep and do not spin into the other side's turn; whoever sets these in the environment is heeded.
        env = QUIET | os.environ | {f"{x}_NUM_THREADS": str(a.threads) for x in ("OMP", "MKL", "RAYON")}
        env |= KEEP if a.peer_keeps and program == WORKER else {}
        self.name, self.idle_s, self.asleep_at = name, 0.0, None
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, text=True, bufsize=1)

    def ask(self, **request) -> dict:
        if self.asleep_at is not None:
            self.idle_s += self.cpu_seconds() - self.asleep_at
        try:
            self.child.stdin.write(json.dumps(request) + "\n")
            line = self.child.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            sys.exit(f"compare: {self.name} ended during {request['do']!r}, status {self.child.wait()}")
        self.asleep_at = self.cpu_seconds()
        return json.loads(line)

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_bytes(self) -> int:
        """The most memory that the child ever held, as Linux counts it."""
        status = Path(f"/proc/{self.child.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))

    def quit(self) -> None:
        self.child.communicate('{"do": "quit"}\n')


class Sides:
    """A child for each side and job; transformers' with the settings that are fastest for `batch`."""

    def __init__(self, a: argparse.Namespace, batch: Batch):
        self.jobs = JOBS if a.peer == WORKER else ("infer",)
        tuned = a.peer == WORKER and a.peer_settings is None
        self.settings = {job: tune(a, job, batch) if tuned else a.peer_settings or {} for job in self.jobs}
        if a.peer_settings is not None:
            print(f"peer's settings, given: {a.peer_settings}")
        self.of = {("ours", job): Side(f"ours ({job})", a.ours, a) for job in self.jobs}
        self.of |= {("peer", j): Side(f"peer ({j})", a.peer, a, "--settings", json.dumps(s)) for j, s in self.settings.items()}
        self.logits_apart = 0.0

    def both(self, job: str, batch: Batch, round: int, repeat: int = 1) -> dict[str, float]:
        """Median seconds of each side for the same work; the round says who goes first."""
        request = {"do": job, "ids": batch[0], "repeat": repeat} | ({"labels": batch[1]} if job == "train" else {})
        got = {who: self.of[who, job].ask(**request) for who in (("ours", "peer"), ("peer", "ours"))[round % 2]}
        if job == "infer":
            pairs = zip(got["ours"]["logits"], got["peer"]["logits"], strict=True)
            self.logits_apart = max([self.logits_apart, *(abs(x - y) for p, q in pairs for x, y in zip(p, q, strict=True))])
        return {who: statistics.median(reply["seconds"]) for who, reply in got.items()}

    def finish(self) -> dict:
        """Prints and returns each side's peak memory, the processor time it took out of turn, and how far apart the logits were."""
        peak = {who_job: side.peak_bytes() for who_job, side in self.of.items()}
        idle = {who: sum(self.of[who, job].idle_s for job in self.jobs) for who in ("ours", "peer")}
        for side in self.of.values():
            side.quit()
        print(f"\n{'peak memory':>13} {'ours MiB':>9} {'peer MiB':>9} {'peer / ours':>12}")
        for job in self.jobs:
            ours, peer = peak["ours", job], peak["peer", job]
            print(f"{job:>13} {ours / 2**20:>9.0f} {peer / 2**20:>9.0f} {peer / ours:>12.2f}")
        print(f"largest difference of logits {self.logits_apart:.2e}")
        print("processor time out of turn: " + ", ".join(f"{who} {s:.2f} s" for who, s in idle.items()))
        return {
            "peer_settings": self.settings,
            "peak_bytes": {" ".join(k): v for k, v in peak.items()},
            "out_of_turn_s": idle,
            "logits_apart": self.logits_apart,
        }


def tune(a: argparse.Namespace, job: str, batch: Batch) -> dict[str, str]:
    trial = Side("peer (trial)", WORKER, a)
    found = trial.ask(do="tune", job=job, ids=batch[0], labels=batch[1])
    trial.quit()
    print(f"peer's settings, {job}: " + ", ".join(f"{k} {v}" for k, v in found["settings"].items()))
    print("    tried: " + ", ".join(f"{name} {s * 1e3:.0f} ms" for name, s in found["seconds"].items()), flush=True)
    return found["settings"]


def step(a: argparse.Namespace) -> dict:
    sequences, length = map(int, a.shape.split("x"))
    vocab = json.loads((a.model / "config.json").read_text())["vocab_size"]
    draw = random.Random(0)
    ids = [[draw.randrange(1000, vocab) for _ in range(length)] for _ in range(sequences)]
    batch = ids, [draw.randrange(2) for _ in ids]
    sides = Sides(a, batch)
    rounds = {job: [] for job in sides.jobs}
    print(f"\n{'':>13} {'ours s':>9} {'peer s':>9} {'peer / ours':>12}")
    for i in range(a.rounds + 1):
        for job in sides.jobs:
            s = sides.both(job, batch, i, a.repeat)
            if i > 0:  # Round 0 warms up.
                rounds[job].append(s)
                print(f"{job + ' ' + str(i):>13} {s['ours']:>9.4f} {s['peer']:>9.4f} {s['peer'] / s['ours']:>12.3f}", flush=True)
    summaries = {job: summary(job, rounds[job], statistics.median, sequences * length) for job in sides.jobs}
    return {"rounds": rounds, "summary": summaries, **sides.finish()}


def imdb(a: argparse.Namespace) -> dict:
    jobs = {"train": reviews(a, "train", a.batches * 16), "infer": reviews(a, "test", a.infer)}
    longest = unzip(sorted(jobs["train"], key=lambda r: len(r[0]))[-16:])
    sides, rounds, summaries = Sides(a, unzip(jobs["train"][:16])), {}, {}
    for job, rows in jobs.items():
        sides.both(job, longest, 0)  # Warms up, at the largest size.
        rounds[job] = [sides.both(job, batch, i) for i, batch in enumerate(batches(rows))]
        summaries[job] = summary(job, rounds[job], sum, tokens(rows))
        padded = sum(len(ids) * max(map(len, ids)) for ids, _ in batches(rows)) / tokens(rows)
        print(f"{'':>6} {len(rows)} reviews in batches of 16 in random order; the peer pads its {tokens(rows)} tokens by {padded - 1:.0%}")
    by_length = batches(sorted(jobs["infer"], key=lambda r: len(r[0])))
    seconds = sum(sides.of["peer", "infer"].ask(do="infer", ids=ids, repeat=1)["seconds"][0] for ids, _ in by_length)
    ours = sum(r["ours"] for r in rounds["infer"])
    rate = tokens(jobs["infer"]) / seconds
    print(f"{'':>6} the peer with the same reviews sorted by length: {rate:.0f} tokens/s, over ours in random order {seconds / ours:.3f}")
    return {"batches": rounds, "summary": summaries, "peer_sorted_s": seconds, **sides.finish()}


def reviews(a: argparse.Namespace, split: str, count: int) -> list[tuple[list[int], int]]:
    """`count` reviews as (ids, label), drawn in an order that the seed fixes, cut at 512 tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(a.model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(512)
    rows = []
    with tarfile.open(a.data) as tar:
        for member in tar:
            kind = member.name.split("/")[1:-1]
            if kind in ([split, "pos"], [split, "neg"]) and member.isfile():
                rows.append((member.name, tar.extractfile(member).read().decode("utf8"), int(kind[1] == "pos")))
    rows = random.Random(0).sample(sorted(rows), count)
    return [(e.ids, label) for e, (_, _, label) in zip(tokenizer.encode_batch([text for _, text, _ in rows]), rows)]


def batches(rows: list[tuple[list[int], int]]) -> list[Batch]:
    return [unzip(rows[i : i + 16]) for i in range(0, len(rows), 16)]


def unzip(rows: list[tuple[list[int], int]]) -> Batch:
    return [ids for ids, _ in rows], [label for _, label in rows]


def tokens(rows: list[tuple[list[int], int]]) -> int:
    return sum(len(ids) for ids, _ in rows)


def summary(job: str, rounds: list[dict[str, float]], over, count: int) -> dict:
    """`over` makes of the rounds' seconds (median of equal ones, sum of different ones) the time that `count` tokens took."""
    ours, peer = (over([r[who] for r in rounds]) for who in ("ours", "peer"))
    ratios = sorted(r["peer"] / r["ours"] for r in rounds)
    low, mid, high = ratios[0], statistics.median(ratios), ratios[-1]
    what = f"{over.__name__} of seconds, peer / ours {peer / ours:.3f}"
    print(f"\n{job}: ours {count / ours:.0f} tokens/s, peer {count / peer:.0f} tokens/s; {what}")
    print(f"{'':>6} ratio per round: min {low:.3f}, median {mid:.3f}, max {high:.3f} of {len(ratios)}")
    return {"ours_s": ours, "peer_s": peer, "tokens": count, "ratio": peer / ours, "min": low, "median": mid, "max": high}


def with_head(model: Path, into: Path) -> Path:
    """`model`, or a copy of it in `into` that has a random head, so that both sides load the same one."""
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(model / "model.safetensors")
    if "classifier.weight" in weights:
        return model
    d, random_ = json.loads((model / "config.json").read_text())["dim"], torch.Generator().manual_seed(0)
    for name, width in (("pre_classifier", d), ("classifier", 2)):
        weights[f"{name}.weight"] = 0.02 * torch.randn(width, d, generator=random_)
        weights[f"{name}.bias"] = torch.zeros(width)
    shutil.copytree(model, into, ignore=shutil.ignore_patterns("model.safetensors"), copy_function=shutil.copyfile)
    save_file(weights, into / "model.safetensors", {"format": "pt"})
    return into


def make_base(a: argparse.Namespace) -> None:
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    torch.manual_seed(0)
    DistilBertForSequenceClassification(DistilBertConfig(num_labels=2)).save_pretrained(a.out)
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        if (a.tokenizer / name).exists():
            shutil.copyfile(a.tokenizer / name, a.out / name)


def circumstances(a: argparse.Namespace) -> dict:
    cpu = next((x.partition(":")[2].strip() for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("model name")), "?")
    git = ["git", "-C", str(WORKER.parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or "?"
    versions = {x: importlib.metadata.version(x) for x in ("torch", "transformers", "peft", "tokenizers")}
    cores = len(os.sched_getaffinity(0))
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes")
    print(f"{date}, {cpu}, {cores} cores, load {os.getloadavg()[0]:.1f}; commit {commit}")
    print(", ".join(f"{k} {v}" for k, v in versions.items()))
    print(f"{a.command}: {a.dtype}, {a.method}, {a.threads} threads, checkpoint {a.model.name}, ours {a.ours.name}, peer {a.peer.name}")
    quiet = {k: os.environ.get(k, v) for k, v in QUIET.items()}
    print("waiting threads: " + ", ".join(f"{k}={v}" for k, v in quiet.items()) + "\n", flush=True)
    arguments = {k: str(v) for k, v in vars(a).items() if k not in ("run", "json")}
    return {"date": date, "cpu": cpu, "cores": cores, "commit": commit, "versions": versions, "waiting": quiet, "arguments": arguments}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for run in (step, imdb):
        p = commands.add_parser(run.__name__)
        p.set_defaults(run=run, peer=WORKER)
        p.add_argument("--ours", type=lambda p: Path(p).resolve(), default=WORKER, help="the executable; left out: the peer against itself, whose ratio must be 1")
        p.add_argument("--model", type=Path, required=True)
        p.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
        p.add_argument("--method", choices=["lora", "full", "head"], default="lora")
        p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
        p.add_argument("--peer-settings", type=json.loads, help='e.g. {"attn": "sdpa", "adamw": "fused"}, instead of trying them')
        p.add_argument("--peer-keeps", action="store_true", help="the peer's heap keeps what it got: fewer page faults")
        p.add_argument("--json", type=Path, help="also write everything here")
        if run is step:
            p.add_argument("--shape", default="16x128", help="sequences x tokens")
            p.add_argument("--rounds", type=int, default=5)
            p.add_argument("--repeat", type=int, default=1, help="steps a round, of which the median counts")
            p.add_argument("--peer", type=lambda p: Path(p).resolve(), help="another executable that infers, as candle/ does")
        else:
            p.add_argument("--data", type=Path, required=True)
            p.add_argument("--batches", type=int, default=20, help="training batches of 16")
            p.add_argument("--infer", type=int, default=320, help="reviews of the test half to infer")
    p = commands.add_parser("make-base")
    p.add_argument("--tokenizer", type=Path, required=True, help="folder whose vocabulary to copy")
    p.add_argument("out", type=Path)
    a = parser.parse_args()
    if a.command == "make-base":
        return make_base(a)
    about = circumstances(a)
    with tempfile.TemporaryDirectory() as scratch:
        a.model = with_head(a.model, Path(scratch, a.model.name))
        result = a.run(a)
    if a.json:
        a.json.write_text(json.dumps(about | result, indent=1) + "\n")


if __name__ == "__main__":
    main()
