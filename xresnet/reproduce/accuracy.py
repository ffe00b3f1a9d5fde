"""Evaluation of scores: ranks of the true class, accuracies with intervals, ANP confusions.

Ties are counted as in Caffe: an image is right within the top k if at most k scores are as high
as the true class's, which is one of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from data_prep.classes import MISSING, Classes
from data_prep.ontology import Anp
from xresnet.basics.cli import UserError
from xresnet.reproduce.stats import bootstrap

KS = (1, 5)
METRICS = tuple(f"top{k}" for k in KS)


def ranks(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The rank of the true class: how many scores are as high as its own, itself counted.

    For an image without a label, and for a class that the net does not have (DeepSentiBank), the
    rank is more than K and more than any k.

    Args:
        values: scores, N x K.
        truth: labels, N.

    Returns:
        N ranks.
    """
    own = values[np.arange(len(truth)), truth]
    found = (values >= own[:, None]).sum(axis=1)
    return np.where(np.isneginf(own) | (truth == MISSING), max(values.shape[1], *KS) + 1, found)


def summary(
    found: dict[str, np.ndarray], truth: dict[str, np.ndarray], names: Classes
) -> dict[str, Any]:
    """Accuracies with intervals, by task and class, and the confusion of ANPs.

    Args:
        found: task -> scores N x K.
        truth: task -> labels N.

    Raises:
        UserError: no image has a label of a task.
    """
    images = len(next(iter(truth.values())))
    tasks: dict[str, Any] = {}
    for task, values in found.items():
        rank, labelled = ranks(values, truth[task]), int((truth[task] != MISSING).sum())
        if not labelled:
            raise UserError(f"no test image has a label of the task {task}")
        tasks[task] = {} if labelled == images else {"labelled": labelled}
        for k in KS:
            correct = int((rank <= k).sum())
            low, high = bootstrap(correct, labelled)
            tasks[task][f"top{k}"] = {
                "correct": correct,
                "percent": 100 * correct / labelled,
                "interval": [100 * low, 100 * high],
            }
        tasks[task]["classes"] = [
            {
                "class": name,
                "images": int(own.sum()),
                **{f"top{k}": 100 * float((rank[own] <= k).mean()) for k in KS if own.any()},
            }
            for label, name in enumerate(names[task])
            for own in [truth[task] == label]
        ]
    result: dict[str, Any] = {"images": images, "tasks": tasks}
    if names.by_anp and "anp" in found:
        own = found["anp"][:, : len(names.anp)]  # DeepSentiBank may have more
        result["confusion"] = confusion(own.argmax(axis=1), truth["anp"], names)
    return result


def confusion(
    guess: np.ndarray, truth: np.ndarray, names: Classes, most: int = 20
) -> dict[str, Any]:
    """Wrong ANPs: how many have the true noun ("sad dog" for "happy dog"), or adjective.

    `by_chance` is the share of guesses spread evenly over the other ANPs. `pairs` are the `most`
    frequent confusions of ANPs that share their adjective or noun.
    """
    anps = [Anp(name) for name in names.anp]
    adjectives = np.array([names["adj"].index(anp.adjective) for anp in anps])
    nouns = np.array([names["noun"].index(anp.noun) for anp in anps])
    wrong = guess != truth
    t, g = truth[wrong], guess[wrong]
    kinds = {
        "same_noun": (nouns[t] == nouns[g], nouns),
        "same_adjective": (adjectives[t] == adjectives[g], adjectives),
    }
    result: dict[str, Any] = {"wrong": int(wrong.sum())}
    for kind, (mask, halves) in kinds.items():
        others = np.array([(halves == halves[label]).sum() - 1 for label in range(len(anps))])
        result[kind] = {
            "errors": int(mask.sum()),
            "share": float(mask.mean()) if len(t) else 0.0,
            "by_chance": float(others[t].mean() / max(1, len(anps) - 1)) if len(t) else 0.0,
        }
    shared = (nouns[t] == nouns[g]) | (adjectives[t] == adjectives[g])
    pairs, counts = np.unique(np.stack([t[shared], g[shared]]), axis=1, return_counts=True)
    totals = np.bincount(truth, minlength=len(anps))
    result["pairs"] = [
        {
            "truth": names.anp[pairs[0, i]],
            "guess": names.anp[pairs[1, i]],
            "images": int(counts[i]),
            "of": int(totals[pairs[0, i]]),
        }
        for i in np.argsort(-counts, kind="stable")[:most]
    ]
    return result
