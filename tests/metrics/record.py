"""Records figures of scikit-learn, losses of PyTorch and schedules of transformers, which tests/metrics.rs compares with the engine's.

    python -m venv venv && venv/bin/pip install scikit-learn==1.9.1 -r tests/interop/requirements.txt
    venv/bin/python tests/metrics/record.py > tests/metrics/recorded.json

The default tests read the file and need no Python.
"""

import json
import math
import warnings

import numpy as np
import torch
from scipy.optimize import brentq
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    matthews_corrcoef,
    precision_recall_fscore_support,
    roc_auc_score,
)
from sklearn.utils.class_weight import compute_class_weight
from transformers import get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

BINS = 15
random = np.random.default_rng(26)
# Where a figure is not defined, scikit-learn warns and gives 0 or NaN.
warnings.simplefilter("ignore")


def number(x):
    return None if x is None or math.isnan(x) else float(x)


def texts(n, shares, sharpness, parts=97):
    """Labels, and probabilities that are multiples of 1 / parts, so that some are equal."""
    labels = random.choice(len(shares), n, p=shares)
    rows = []
    for label in labels:
        p = random.dirichlet(np.ones(len(shares)) + sharpness * np.eye(len(shares))[label])
        rows.append(random.multinomial(parts, p) / parts)
    return labels, np.array(rows)


def rest(of, labels, scores):
    """`of` of one class against the rest; not defined if there is only one of them."""
    return number(of(labels, scores)) if 0 < labels.sum() < len(labels) else None


def figures(name, labels, rows):
    labels, rows = np.array(labels), np.array(rows)
    classes = rows.shape[1]
    # The last of equally probable classes.
    answers = classes - 1 - rows[:, ::-1].argmax(1)
    precision, recall, f1, support = precision_recall_fscore_support(labels, answers, labels=range(classes), zero_division=0)
    per_class = [
        {
            "support": int(support[c]),
            "precision": precision[c],
            "recall": recall[c],
            "f1": f1[c],
            "roc_auc": rest(roc_auc_score, labels == c, rows[:, c]),
            "average_precision": number(average_precision_score(labels == c, rows[:, c])),
        }
        for c in range(classes)
    ]
    if classes == 2:
        area, average = per_class[1]["roc_auc"], per_class[1]["average_precision"]
    else:
        all_there = len(set(labels)) == classes
        area = number(roc_auc_score(labels, rows, multi_class="ovr", average="macro")) if all_there else None
        average = number(average_precision_score(np.eye(classes)[labels], rows, average="macro"))
    confidence, right = rows.max(1), answers == labels
    accuracy_of_bins, confidence_of_bins = calibration_curve(right, confidence, n_bins=BINS, strategy="uniform")
    bins = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence)
    counts = np.bincount(bins, minlength=BINS)
    counts = counts[counts > 0]
    return {
        "name": name,
        "labels": labels.tolist(),
        "probabilities": rows.tolist(),
        "accuracy": accuracy_score(labels, answers),
        "balanced_accuracy": balanced_accuracy_score(labels, answers),
        "macro_f1": f1_score(labels, answers, average="macro", zero_division=0),
        "weighted_f1": f1_score(labels, answers, average="weighted", zero_division=0),
        "matthews": number(matthews_corrcoef(labels, answers)),
        "roc_auc": area,
        "average_precision": average,
        "calibration_error": float((counts / counts.sum() * abs(accuracy_of_bins - confidence_of_bins)).sum()),
        "classes": per_class,
        "reliability": [
            {"texts": int(n), "confidence": c, "accuracy": a} for n, c, a in zip(counts, confidence_of_bins, accuracy_of_bins)
        ],
    }


def metrics():
    yield figures("two classes", *texts(60, [0.6, 0.4], 1.5))
    yield figures("two unequal classes", *texts(80, [0.95, 0.05], 1.0))
    yield figures("three classes", *texts(60, [0.3, 0.3, 0.4], 2.0))
    yield figures("five unequal classes", *texts(80, [0.5, 0.25, 0.15, 0.06, 0.04], 2.0))
    yield figures("many equal scores", *texts(60, [0.5, 0.5], 1.0, parts=4))
    labels, rows = texts(30, [0.5, 0.5], 1.0)
    yield figures("a class without a label", labels, np.hstack([rows[:, :1], np.zeros((30, 1)), rows[:, 1:]]) * 0.8 + [0, 0.2, 0])
    labels, rows = texts(30, [0.4, 0.3, 0.3], 1.0)
    yield figures("a class without an answer", labels, np.stack([rows[:, 0] + rows[:, 1], 0 * rows[:, 1], rows[:, 2]], 1))
    yield figures("a class without both", [0, 2, 0, 2, 2], [[0.5, 0.1, 0.4], [0.2, 0.1, 0.7], [0.3, 0.2, 0.5], [0.6, 0.1, 0.3], [0.1, 0.1, 0.8]])
    labels, rows = texts(20, [1.0, 0.0], 0.5)
    yield figures("labels of one class", labels, rows)
    yield figures("labels of the second class", 1 - labels, rows)
    yield figures("answers of one class", [0, 1, 1, 0, 1], [[0.4, 0.6], [0.3, 0.7], [0.1, 0.9], [0.45, 0.55], [0.2, 0.8]])
    yield figures("one score", [0, 1, 1, 0, 1], [[0.5, 0.5]] * 5)
    yield figures("all right", [0, 1, 1, 0], [[0.9, 0.1], [0.2, 0.8], [0.0, 1.0], [1.0, 0.0]])
    yield figures("one text", [1], [[0.7, 0.3]])


def losses():
    for classes, weights, smoothing in [
        (2, None, 0.0), (3, None, 0.1), (3, [0.5, 2.0, 7.25], 0.0), (4, [0.25, 1.0, 3.0, 1.5], 0.3), (2, [9.5, 0.525], 0.05)
    ]:
        logits = torch.tensor(random.normal(0, 3, (7, classes)), requires_grad=True)
        labels = torch.tensor(random.integers(0, classes, 7))
        weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
        loss = torch.nn.CrossEntropyLoss(weight=weight, label_smoothing=smoothing)(logits, labels)
        loss.backward()
        yield {
            "logits": logits.tolist(), "labels": labels.tolist(), "weights": weights or [], "smoothing": smoothing,
            "loss": loss.item(), "gradient": logits.grad.tolist(),
        }


def temperatures():
    for classes, scale in [(2, 4.0), (3, 0.4), (5, 2.0)]:
        labels = random.integers(0, classes, 50)
        logits = scale * (random.normal(0, 1, (50, classes)) + 1.2 * np.eye(classes)[labels])

        def slope(log_t):
            t = torch.tensor(log_t, dtype=torch.float64, requires_grad=True)
            torch.nn.functional.cross_entropy(torch.tensor(logits) / t.exp(), torch.tensor(labels)).backward()
            return t.grad.item()

        yield {"logits": logits.tolist(), "labels": labels.tolist(), "temperature": math.exp(brentq(slope, -5, 5, xtol=1e-15))}


def schedules():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    warmup, total = 5, 23
    for name, made in [
        ("linear", get_linear_schedule_with_warmup(optimizer, warmup, total)),
        ("cosine", get_cosine_schedule_with_warmup(optimizer, warmup, total)),
        ("constant", get_constant_schedule_with_warmup(optimizer, warmup)),
    ]:
        yield {"name": name, "warmup": warmup, "total": total, "factors": [made.lr_lambdas[0](t) for t in range(total)]}


def balanced():
    labels = np.repeat([0, 1, 2], [17, 2, 31])
    return {"counts": [17, 2, 31], "weights": compute_class_weight("balanced", classes=np.arange(3), y=labels).tolist()}


def lines(values):
    return "[\n" + ",\n".join(json.dumps(value) for value in values) + "\n]"


parts = {"metrics": lines(metrics()), "losses": lines(losses()), "temperatures": lines(temperatures()), "schedules": lines(schedules())}
print("{\n" + ",\n".join(f'"{name}": {text}' for name, text in parts.items()) + f',\n"balanced": {json.dumps(balanced())}\n}}')
