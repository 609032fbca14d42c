#!/usr/bin/env python3
"""Clients of others, and many at once, against `lowrank serve`.

    serve.py target/release/lowrank [--seconds 60] [--requests 100000] [--model DIR --adapter DIR]

huggingface_hub and schemathesis are used where they are installed. 64 clients send texts of the bundled reviews; every answer must be bit for bit that of
`predict`. Prints the throughput beside that of `eval` on the same texts, the time of one short text beside that of `predict`, and the memory.
"""

import argparse
import csv
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = 64


def reviews():
    with open(ROOT / "assets/test.tsv", encoding="utf-8") as file:
        return [row["text"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def memory(pid):
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:")) / 1024


class Client:
    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def predict(self, text):
        body = json.dumps({"inputs": text, "truncate": True})
        self.connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        reply = self.connection.getresponse()
        found = json.loads(reply.read())
        assert reply.status == 200, found
        return {one["label"]: one["score"] for one in found}


def single_answers(program, base, texts):
    """The probabilities of each text. `predict` computes a line as soon as it arrives, so each text is computed alone."""
    answers = []
    with subprocess.Popen([program, "predict", "--json", *base], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for text in texts:
            process.stdin.write(text + "\n")
            process.stdin.flush()
            answers.append(json.loads(process.stdout.readline())["probabilities"])
        process.stdin.close()
    return answers


def short_text(program, base, port, text="What a film!"):
    """Median milliseconds of one short text: over HTTP, and in a `predict` that runs already."""
    client, over_http, inside = Client(port), [], []
    with subprocess.Popen([program, "predict", "--json", *base], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for i in range(320):
            start = time.perf_counter()
            client.predict(text)
            middle = time.perf_counter()
            process.stdin.write(text + "\n")
            process.stdin.flush()
            process.stdout.readline()
            if i >= 20:
                over_http.append(middle - start)
                inside.append(time.perf_counter() - middle)
        process.stdin.close()
    return [1000 * statistics.median(times) for times in (over_http, inside)]


def many(port, texts, wanted, labels, seconds):
    """64 clients for some seconds. Returns texts a second; every answer must be the wanted one."""
    stop, counts, failures = time.monotonic() + seconds, [0] * CLIENTS, []

    def run(number):
        try:
            client, i = Client(port), number * 7
            while time.monotonic() < stop:
                found = client.predict(texts[i % len(texts)])
                assert [found[label] for label in labels] == wanted[i % len(texts)], texts[i % len(texts)]
                counts[number] += 1
                i += 1
        except Exception as error:  # noqa: BLE001: any failure of a client fails the check
            failures.append(repr(error))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(CLIENTS)]
    start = time.monotonic()
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failures, failures[:3]
    return sum(counts) / (time.monotonic() - start)


def eval_seconds(program, base, texts):
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "test.tsv")
        table.write_text("text\tlabel\n" + "".join(f"{text}\t{i % 2}\n" for i, text in enumerate(texts)), encoding="utf-8")
        start = time.monotonic()
        command = [program, "eval", *base, "--data", table, "--split", "all", "--no-cache", "--labels", "0,1"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return time.monotonic() - start


def constant_memory(port, pid, requests):
    """Memory in MB after a tenth of the requests, and after all."""

    def run(count):
        client = Client(port)
        for i in range(count):
            client.predict(f"short text {i % 10}")

    found = []
    for share in (requests // 10, requests - requests // 10):
        threads = [threading.Thread(target=run, args=(share // 8,)) for _ in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        found.append(memory(pid))
    return found


def hub(url, labels):
    try:
        from huggingface_hub import InferenceClient
    except ImportError:
        return "skipped: no huggingface_hub"
    found = InferenceClient(url).text_classification("What a film!")
    assert sorted(one.label for one in found) == sorted(labels) and abs(sum(one.score for one in found) - 1) < 1e-6
    assert len(InferenceClient(url).text_classification("What a film!", top_k=1)) == 1
    return "the client of huggingface_hub gets its answer"


def schemathesis(url):
    program = Path(sys.executable).with_name("schemathesis")
    if not program.exists():
        return "skipped: no schemathesis"
    # The file does not know the names of the adapters, nor how many layers, heads, classes and words there are: other values are valid there, and 422 here.
    more = ["--exclude-checks", "positive_data_acceptance", "--max-examples", "30", "--phases", "examples,fuzzing", "--seed", "1"]
    with tempfile.TemporaryDirectory() as folder:  # it keeps a cache in the current one
        subprocess.run([program, "run", f"{url}openapi.json", *more], check=True, cwd=folder)
    return "schemathesis finds nothing"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--model", default=str(ROOT / "assets/encoder"))
    parser.add_argument("--adapter", default=str(ROOT / "tests/interop/recorded/lora"))
    arguments = parser.parse_args()
    program, texts = os.path.abspath(arguments.program), reviews()
    base = ["--device", "cpu", "--any-base", "--model", arguments.model, "--adapter", arguments.adapter]
    server = subprocess.Popen([program, "serve", "--port", "0", *base], stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().strip()
        port = int(url.rstrip("/").rsplit(":", 1)[1])
        labels = sorted(Client(port).predict("a"))
        print(hub(url.rstrip("/"), labels))
        over_http, inside = short_text(program, base, port)
        print(f"one short text: {over_http:.2f} ms over HTTP, {inside:.2f} ms in predict: {over_http / inside:.2f} times")
        wanted = single_answers(program, base, texts)
        rate = many(port, texts, wanted, labels, arguments.seconds)
        # Without its start, which reads and checks the model.
        of_eval = len(texts) / (eval_seconds(program, base, texts) - eval_seconds(program, base, texts[:2]))
        print(f"{CLIENTS} clients for {arguments.seconds:.0f} s: {rate:.0f} texts/s, every answer bit for bit that of predict; eval: {of_eval:.0f} texts/s: {rate / of_eval:.2f} times")
        early, late = constant_memory(port, server.pid, arguments.requests)
        print(f"memory after {arguments.requests // 10} requests {early:.1f} MB, after {arguments.requests}: {late:.1f} MB")
        assert late < early * 1.05 + 2, "the memory grows"
        print(schemathesis(url))
    finally:
        server.terminate()
        assert server.wait(20) == 0


if __name__ == "__main__":
    main()
