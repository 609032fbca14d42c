"""The peer: transformers + PEFT on torch, as a child process that answers one JSON request per line.

usage: peft_worker.py serve --model DIR --dtype f32|bf16 --method lora|full|head --threads N [--settings JSON]

    {"do": "train", "ids": [[..], ..], "labels": [..], "repeat": R}  ->  {"seconds": [..R], "loss": [..R]}
    {"do": "infer", "ids": [[..], ..], "repeat": R}                  ->  {"seconds": [..R], "logits": [[..], ..]}
    {"do": "tune", "job": "train"|"infer", "ids": .., "labels": ..}  ->  {"settings": {..}, "seconds": {name: s, ..}}
    {"do": "quit"}

A training step is forward, backward, clip to norm 1 and AdamW. Building the padded tensors is not timed. `tune` is the peer's own
(compare.py sends it to a worker that is thrown away afterwards); the rest is what `cargo bench --bench step -- serve` speaks too.
"""

import argparse
import copy
import json
import os
import sys
import time
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import DistilBertForSequenceClassification
from transformers.utils import logging

logging.disable_progress_bar()
warnings.simplefilter("ignore", FutureWarning)

HEAD = ("pre_classifier", "classifier")
LR = {"lora": 3e-4, "full": 2e-5, "head": 1e-3}
# attn: how transformers computes attention. adamw: torch's three loops, which compute the same.
# weights, in bf16 only: "autocast" rounds the f32 weights of the linears at each forward; "held" keeps the frozen ones rounded, which
# gives the same numbers; "pure" makes the whole model bf16 (inference only).
DEFAULTS = {"attn": "sdpa", "adamw": "fused", "weights": "autocast"}


class Peer:
    def __init__(self, model: str, dtype: str, method: str, settings: dict[str, str]):
        self.settings, self.bf16, self.method = DEFAULTS | settings, dtype == "bf16", method
        self.model = load(model, method)
        if self.bf16:
            self.model = round_weights(self.model, self.settings["weights"])
        self.optimizer = None

    def set_attn(self, name: str) -> None:
        base = self.model.get_base_model() if self.method == "lora" else self.model
        base.set_attn_implementation(name)

    def autocast(self):
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16 and self.settings["weights"] != "pure")

    def train(self, ids: list[list[int]], labels: list[int], repeat: int) -> dict:
        batch = pad(ids) | {"labels": torch.tensor(labels)}
        self.model.train()
        self.set_attn(self.settings["attn"])
        trained = [p for p in self.model.parameters() if p.requires_grad]
        if self.optimizer is None:
            how = {} if self.settings["adamw"] == "loop" else {self.settings["adamw"]: True}
            how = how or {"foreach": False, "fused": False}
            self.optimizer = torch.optim.AdamW(trained, lr=LR[self.method], weight_decay=0.01, **how)

        def step():
            with self.autocast():
                loss = self.model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            return loss.detach()

        seconds, losses = timed(step, repeat)
        return {"seconds": seconds, "loss": [x.item() for x in losses]}

    def infer(self, ids: list[list[int]], repeat: int) -> dict:
        batch = pad(ids)
        self.model.eval()
        self.set_attn(self.settings["attn"])

        def step():
            with torch.inference_mode(), self.autocast():
                return self.model(**batch).logits

        seconds, logits = timed(step, repeat)
        return {"seconds": seconds, "logits": logits[-1].float().tolist()}

    def tune(self, job: str, ids: list[list[int]], labels: list[int]) -> dict:
        """The fastest settings for this batch: attention (and AdamW's loop) at the default of the others, then the weights of bf16."""
        seen, plain = {}, self.model

        def best(key: str, values: list[str]) -> None:
            times = dict.fromkeys(values, float("inf"))
            for value in values * 2:  # In turns, so that a disturbance does not hit one of them alone; each time the first step warms up.
                self.settings[key], self.optimizer = value, None
                self.model = round_weights(copy.deepcopy(plain), self.settings["weights"]) if self.bf16 else plain
                reply = self.train(ids, labels, 3) if job == "train" else self.infer(ids, 3)
                times[value] = min(times[value], *reply["seconds"][1:])
            seen.update({f"{key}={v}": s for v, s in times.items()})
            self.settings[key] = min(times, key=times.get)

        best("attn", ["sdpa", "eager"])
        if job == "train":
            best("adamw", ["fused", "foreach", "loop"])
        if self.bf16:
            pure = ["pure"] if job == "infer" else []
            best("weights", ["autocast", *([] if self.method == "full" else ["held"]), *pure])
        return {"settings": self.settings, "seconds": seen}


def load(path: str, method: str) -> torch.nn.Module:
    model, report = DistilBertForSequenceClassification.from_pretrained(
        path, num_labels=2, dtype=torch.float32, output_loading_info=True
    )
    if report["missing_keys"]:
        sys.exit(f"peft_worker: the checkpoint lacks {sorted(report['missing_keys'])}")
    if method == "head":
        for name, p in model.named_parameters():
            p.requires_grad = name.startswith(HEAD)
    elif method == "lora":
        target = ["q_lin", "v_lin"]
        lora = LoraConfig(task_type=TaskType.SEQ_CLS, r=8, lora_alpha=16, lora_dropout=0.1, target_modules=target)
        model = get_peft_model(model, lora)
    return model


def round_weights(model: torch.nn.Module, weights: str) -> torch.nn.Module:
    if weights == "pure":
        return model.to(torch.bfloat16)
    if weights == "held":
        for layer in model.modules():
            if isinstance(layer, torch.nn.Linear) and not layer.weight.requires_grad:
                layer.to(torch.bfloat16)
    return model


def pad(ids: list[list[int]]) -> dict[str, torch.Tensor]:
    """Zeros up to the longest of the batch, as transformers' `DataCollatorWithPadding` does."""
    longest = max(map(len, ids))
    rows = torch.tensor([x + [0] * (longest - len(x)) for x in ids])
    mask = torch.tensor([[1] * len(x) + [0] * (longest - len(x)) for x in ids])
    return {"input_ids": rows, "attention_mask": mask}


def timed(step, repeat: int) -> tuple[list[float], list]:
    seconds, out = [], []
    for _ in range(repeat):
        start = time.perf_counter()
        out.append(step())
        seconds.append(time.perf_counter() - start)
    return seconds, out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", choices=["f32", "bf16"], required=True)
    parser.add_argument("--method", choices=["lora", "full", "head"], required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--settings", type=json.loads, default={})
    a = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(a.threads)
    # The replies keep the real stdout; whatever a library prints goes to stderr.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    peer = Peer(a.model, a.dtype, a.method, a.settings)
    for line in sys.stdin:
        r = json.loads(line)
        match r["do"]:
            case "train":
                reply = peer.train(r["ids"], r["labels"], r["repeat"])
            case "infer":
                reply = peer.infer(r["ids"], r["repeat"])
            case "tune":
                reply = peer.tune(r["job"], r["ids"], r["labels"])
            case "quit":
                return
            case other:
                sys.exit(f"peft_worker: unknown request {other!r}")
        print(json.dumps(reply), file=replies)


if __name__ == "__main__":
    main()
