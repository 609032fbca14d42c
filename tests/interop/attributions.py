#!/usr/bin/env python3
"""Records integrated gradients of captum, for tests/attributions.rs.

    attributions.py target/release/lowrank MODEL ADAPTER OUT.json

It needs torch, transformers and captum. The adapter is merged into the base by the program; transformers loads the result. captum attributes to the
output of the embeddings with its default, 50 points of Gauss-Legendre quadrature, in f64. The baseline keeps [CLS] and [SEP], and has [PAD] for all else.
"""

import json
import subprocess
import sys
import tempfile

import torch
from captum.attr import LayerIntegratedGradients
from transformers import DistilBertForSequenceClassification

TEXTS = [
    "A film that I did not expect to like, and then could not stop thinking about.",
    "The plot is thin, the jokes are old; still, nobody left early!",
    "Unwatchable.",
]
STEPS = 50


def main(program, model, adapter, out):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program, "merge", "--model", model, "--adapter", adapter, "--out", f"{folder}/merged", "--quiet"], check=True)
        net = DistilBertForSequenceClassification.from_pretrained(f"{folder}/merged", attn_implementation="eager").double().eval()
    ids = subprocess.run([program, "tokenize", "--model", model, *TEXTS], check=True, capture_output=True, text=True).stdout
    records = []
    for line in ids.splitlines():
        tokens = [int(id) for id in line.split()]
        x = torch.tensor([tokens])
        pads = torch.tensor([[tokens[0]] + [0] * (len(tokens) - 2) + [tokens[-1]]])
        forward = lambda x: net(input_ids=x).logits  # noqa: E731
        with torch.no_grad():
            logits, baseline = forward(x)[0], forward(pads)[0]
        for target in range(len(logits)):
            method = LayerIntegratedGradients(forward, net.distilbert.embeddings)
            values = method.attribute(x, baselines=pads, target=target, n_steps=STEPS, internal_batch_size=8)
            records.append({
                "ids": tokens,
                "class": target,
                "output": logits[target].item(),
                "baseline": baseline[target].item(),
                "tokens": values[0].sum(-1).tolist(),
            })
    import captum

    with open(out, "w") as file:
        versions = f"captum {captum.__version__}, torch {torch.__version__}"
        rows = ",\n".join(json.dumps(record) for record in records)
        file.write(f'{{"by": {json.dumps(versions)}, "steps": {STEPS}, "records": [\n{rows}\n]}}\n')


if __name__ == "__main__":
    main(*sys.argv[1:])
