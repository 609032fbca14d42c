"""Tokenising the IMDB training reviews: lowrank's benchmark and Hugging Face tokenizers in turn, on the same threads.

usage: python tokenize.py BENCH --data aclImdb_v1.tar.gz --model DIR [--rounds 5] [--threads 2]
BENCH is the program that `cargo bench --bench tokenize --no-run` names. DIR holds tokenizer.json. Needs `pip install tokenizers`.
Texts are in memory on both sides, caches are cold (lowrank starts each run without any; the reference's model is read anew), and the time of
the reference ends before its ids become Python lists. All ids must be equal.
"""
import argparse
import array
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tarfile
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("bench")
parser.add_argument("--data", required=True)
parser.add_argument("--model", required=True)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()
# Read when the library starts its threads.
os.environ.update(RAYON_NUM_THREADS=str(args.threads), TOKENIZERS_PARALLELISM="true")
import tokenizers

MAX_LENGTH = 512


def read_reviews():
    reviews = {}
    with tarfile.open(args.data) as tar:
        for member in tar:
            parts = member.name.split("/")
            if member.isfile() and parts[1] == "train" and parts[2] in ("neg", "pos"):
                reviews["/".join(parts[1:])] = tar.extractfile(member).read().decode("utf8")
    return [reviews[name] for name in sorted(reviews)]


def reference(texts, fast):
    """Seconds and encodings."""
    tokenizer = tokenizers.Tokenizer.from_file(os.path.join(args.model, "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_LENGTH)
    encode = tokenizer.encode_batch_fast if fast else tokenizer.encode_batch
    start = time.perf_counter()
    encodings = encode(texts)
    return time.perf_counter() - start, encodings


def sha256_of_ids(encodings):
    digest = hashlib.sha256()
    for encoding in encodings:
        ids = array.array("I", encoding.ids)
        if sys.byteorder == "big":
            ids.byteswap()
        digest.update(ids.tobytes())
    return digest.hexdigest()


def summary(name, values, unit):
    print(f"{name}: min {min(values):.3f}, median {statistics.median(values):.3f}, max {max(values):.3f}{unit}")


texts = read_reviews()
print(f"tokenizers {tokenizers.__version__}, {args.threads} threads, {len(texts)} reviews, at most {MAX_LENGTH} ids each", flush=True)
ours, theirs = [], []
for round in range(args.rounds):
    command = [args.bench, "--data", args.data, "--model", args.model, "--memory-only"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    # Of lowrank the median of its runs, of the reference the faster of its two calls: with and without offsets.
    ours.append(statistics.median(report["seconds"]))
    seconds, encodings = min((reference(texts, fast) for fast in (True, False)), key=lambda run: run[0])
    theirs.append(seconds)
    if report["threads"] != args.threads or report["sha256"] != sha256_of_ids(encodings):
        sys.exit("the ids or the threads are not the same")
    del encodings
    print(f"round {round + 1}: lowrank {ours[-1]:.3f} s, tokenizers {seconds:.3f} s, ratio {seconds / ours[-1]:.1f}", flush=True)
print(f"all ids are equal: {report['tokens']} ids, SHA-256 {report['sha256']}")
summary("lowrank", ours, " s")
summary("tokenizers", theirs, " s")
summary("ratio", [b / a for a, b in zip(ours, theirs)], "")
