"""Rows whose ranking metrics can be checked by hand, and a plain reference."""

from __future__ import annotations

import math

import numpy as np

# With k = 4: row 0 has its two relevant items at places 2 and 4; row 1 one of two at place 4; row 2 its only one at place 5.
RELEVANCE = np.array([[0, 1, 0, 1, 0], [1, 0, 0, 1, 0], [0, 0, 0, 0, 1]], np.float32)
SCORES = np.array([[10, 9, 8, 7, 6], [1, 4, 3, 2, 5], [10, 9, 8, 7, 6]], np.float32)
SORTED = np.array([[0, 1, 0, 1, 0], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1]], np.float32)
COUNTS = np.array([2, 2, 1])
# As Merlin Models 23.12 has them.
GOLDEN = {"recall": 0.5, "precision": 0.25, "map": 0.20833333, "mrr": 0.25, "ndcg": 0.30499637}


def reference(kind: str, relevance: np.ndarray, scores: np.ndarray, k: int) -> float:
    """One row, in float64, by the textbook."""
    ranked = relevance[np.argsort(-scores, kind="stable")]
    hits = [place for place in range(1, k + 1) if ranked[place - 1] > 0]
    possible = min(max(int((relevance > 0).sum()), 1), k)

    def dcg(order: np.ndarray) -> float:
        return sum(float(gain) / math.log2(place + 2) for place, gain in enumerate(order[:k]))

    if kind == "recall":
        return len(hits) / possible
    if kind == "precision":
        return len(hits) / k
    if kind == "map":
        return sum((found + 1) / place for found, place in enumerate(hits)) / possible
    if kind == "mrr":
        return 1 / hits[0] if hits else 0.0
    best = dcg(np.sort(relevance)[::-1])
    return dcg(ranked) / best if best else 0.0
