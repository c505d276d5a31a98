"""Requests over HTTP to examples/serve_movielens.py: raw ids and genres through NVTabular's workflow and a model."""

from __future__ import annotations

import numpy as np

from benchmarks.harness import NotEqual
from benchmarks.models.serving_http import Case, HttpProblem, HttpProvider

__all__ = ["ABLE", "CASES", "DEFAULT_CASES", "NAME", "OPTIMIZERS", "PROVIDERS", "check", "traffic"]

NAME = "serving_http"
OPTIMIZERS = ()
ABLE = ("forward",)  # a call is a request
TOLERANCE = 1e-5  # of a probability

_ALL = [
    *(Case(f"http_b{rows}_c{connections}", rows, connections, ("cpu",)) for rows in (1, 64) for connections in (1, 4)),
    Case("http_b2_c2_smoke", 2, 2, ("smoke",)),
]
CASES = {case.name: case for case in _ALL}
DEFAULT_CASES = {"cpu": ("cpu",), "cuda": ()}

PROVIDERS = {
    "merlin_tf": "benchmarks.models.serving_http:Native",
    "merlin_tf_portable": "benchmarks.models.serving_http:Portable",
}


def check(provider: HttpProvider, problem: HttpProblem, mode: str, optimizer: str) -> float:
    """The largest difference of a probability from that of the Keras model on rows that were encoded when it was trained.

    Raises:
        NotEqual: if it is too large, or there is another number of them.
    """
    rows, expected = problem.examples()
    answers = provider.ask(rows)
    if answers.shape != expected.shape:
        raise NotEqual(f"answers have the shape {answers.shape}, the reference's {expected.shape}")
    error = float(np.abs(answers - expected).max())
    if not error <= TOLERANCE:
        raise NotEqual(f"probabilities differ by {error:.3g} from the reference's")
    return error


def traffic(problem: HttpProblem, mode: str, optimizer: str) -> tuple[int, int]:
    """None that counts: a request's time is that of HTTP, JSON and the workflow."""
    return 0, 0
