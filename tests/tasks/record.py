"""Records what tests/tasks.rs compares with the engine: pairs of texts of transformers and PEFT, losses of PyTorch, figures of scikit-learn and SciPy.

    python -m venv venv && venv/bin/pip install scikit-learn==1.9.1 -r tests/interop/requirements.txt
    venv/bin/python tests/tasks/record.py > tests/tasks/recorded.json

The default tests read the file and need no Python.
"""

import json
import warnings
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    hamming_loss,
    mean_absolute_error,
    mean_squared_error,
    precision_recall_curve,
    precision_recall_fscore_support,
    r2_score,
    roc_auc_score,
)
from transformers import AutoTokenizer, BertForSequenceClassification, DistilBertForSequenceClassification
from transformers.utils import logging

logging.set_verbosity_error()
warnings.simplefilter("ignore")
ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "tests/interop/recorded"
random = np.random.default_rng(26)


def encodings():
    """Pairs of every length, cut by longest_first, at the end and at the start."""
    words = "the film was good and , it's unbelievable that nobody saw [SEP] ! caf\u00e9 \u4e2d zzyzx".split()
    text = lambda n: " ".join(random.choice(words, n))
    found = []
    for side in ["right", "left"]:
        tokenizer = AutoTokenizer.from_pretrained(ROOT / "assets/encoder", truncation_side=side)
        for lengths in [(0, 3), (3, 0), (2, 2), (5, 5), (5, 6), (6, 5), (1, 20), (20, 1), (20, 19), (19, 20), (30, 30)]:
            pair = [text(n) for n in lengths]
            for most in [5, 8, 9, 17, 18, 64]:
                # As lists: a second text of its own that is empty would be no text.
                out = tokenizer([pair[0]], [pair[1]], truncation="longest_first", max_length=most, return_token_type_ids=True)
                ids, types = out["input_ids"][0], out["token_type_ids"][0]
                found.append({"side": side, "pair": pair, "max_length": most, "ids": ids, "second": sum(types)})
    return found


def pair_logits():
    """Logits of pairs by PEFT's adapters of the little BERT and the little DistilBERT."""
    pairs = [([2, 5, 7, 3], [11, 9, 3]), ([2, 3], [4, 20, 3]), ([2, 8, 9, 10, 3], [3])]
    found = []
    for base, kind, names in [
        ("bert", BertForSequenceClassification, ["query-value", "prompt", "types", "pooler"]),
        ("loaded", DistilBertForSequenceClassification, ["pissa"]),
    ]:
        for name in names:
            torch.manual_seed(0)
            model = kind.from_pretrained(RECORDED / base / "base", num_labels=2, dtype=torch.float32)
            model = PeftModel.from_pretrained(model, RECORDED / base / name).eval()
            rows = []
            for first, second in pairs:
                types = {"token_type_ids": torch.tensor([[0] * len(first) + [1] * len(second)])} if base == "bert" else {}
                with torch.no_grad():
                    rows.append(model(torch.tensor([first + second]), **types).logits[0].tolist())
            found.append({"base": base, "adapter": name, "ids": [a + b for a, b in pairs], "seconds": [len(b) for _, b in pairs], "logits": rows})
    return found


def losses():
    """The losses that transformers chooses by problem_type, and their gradients."""
    found = []
    for n, c in [(1, 1), (4, 3), (7, 5)]:
        z = torch.tensor(random.normal(0, 4, (n, c)), dtype=torch.float64, requires_grad=True)
        y = torch.tensor(random.integers(0, 2, (n, c)), dtype=torch.float64)
        loss = torch.nn.BCEWithLogitsLoss()(z, y)
        loss.backward()
        found.append({"task": "labels", "logits": z.tolist(), "targets": y.tolist(), "loss": loss.item(), "gradient": z.grad.tolist()})
        z = torch.tensor(random.normal(0, 4, (n, 1)), dtype=torch.float64, requires_grad=True)
        y = torch.tensor(random.normal(0, 4, (n, 1)), dtype=torch.float64)
        loss = torch.nn.MSELoss()(z.squeeze(), y.squeeze())
        loss.backward()
        found.append({"task": "numbers", "logits": z.tolist(), "targets": y.tolist(), "loss": loss.item(), "gradient": z.grad.tolist()})
    return found


def labels():
    """Figures of several labels at thresholds of their own, and the thresholds with the best F1."""
    found = []
    for name, n, shares in [("three", 60, [0.5, 0.2, 0.05]), ("rare", 40, [0.9, 0.02]), ("one", 30, [0.4]), ("none", 20, [0.3, 0.0])]:
        truth = (random.random((n, len(shares))) < shares).astype(int)
        # Multiples of 1 / 97, so that some are equal.
        scores = np.clip(np.round(97 * (0.35 + 0.25 * truth + random.normal(0, 0.2, truth.shape))), 0, 97) / 97
        thresholds = [0.5, 0.3, 0.7][: len(shares)]
        answers = (scores >= thresholds).astype(int)
        # Of one label, scikit-learn gives the figures of two classes; the second is the label.
        p, r, f, s = (each[-len(shares) :] for each in precision_recall_fscore_support(truth, answers, average=None, zero_division=0))
        areas, best = [], []
        for c in range(len(shares)):
            y, x = truth[:, c], scores[:, c]
            areas.append(None if y.min() == y.max() else roc_auc_score(y, x))
            if y.max():
                p_at, r_at, _ = precision_recall_curve(y, x)
                best.append(float(np.max(2 * p_at * r_at / np.maximum(p_at + r_at, 1e-300))))
            else:
                best.append(None)
        found.append(
            {
                "name": name,
                "truth": truth.tolist(),
                "scores": scores.tolist(),
                "thresholds": thresholds,
                "accuracy": accuracy_score(truth, answers),
                "label_accuracy": 1 - (hamming_loss(truth, answers)),
                "micro_f1": f1_score(truth, answers, average="micro", zero_division=0) if len(shares) > 1 else f1_score(truth, answers, zero_division=0),
                "macro_f1": float(np.mean(f)),
                "precision": p.tolist(),
                "recall": r.tolist(),
                "f1": f.tolist(),
                "support": s.tolist(),
                "roc_auc": areas,
                "best_f1": best,
            }
        )
    return found


def numbers():
    """Figures of regressions, some with equal numbers."""
    found = []
    for n, ties in [(50, False), (40, True), (2, False)]:
        truth = random.normal(0, 3, n)
        scores = 0.7 * truth + random.normal(0, 1, n)
        if ties:
            truth, scores = np.round(truth), np.round(scores)
        found.append(
            {
                "truth": truth.tolist(),
                "scores": scores.tolist(),
                "mean_squared_error": mean_squared_error(truth, scores),
                "mean_absolute_error": mean_absolute_error(truth, scores),
                "r2": r2_score(truth, scores),
                "pearson": float(pearsonr(truth, scores).statistic),
                "spearman": float(spearmanr(truth, scores).statistic),
            }
        )
    return found


parts = {"encodings": encodings(), "pair_logits": pair_logits(), "losses": losses(), "labels": labels(), "numbers": numbers()}
print("{" + ",\n".join(f"{json.dumps(name)}: [\n" + ",\n".join(map(json.dumps, rows)) + "\n]" for name, rows in parts.items()) + "}")
