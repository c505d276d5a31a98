"""Requests over HTTP to examples/serve_movielens.py: raw ids and genres through NVTabular's workflow and a model."""

from __future__ import annotations

from benchmarks.harness import check_probabilities
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
    """The largest difference of a probability from that of the Keras model on rows that were encoded when it was trained."""
    rows, expected = problem.examples()
    return check_probabilities(provider.ask(rows), expected, TOLERANCE)


def traffic(problem: HttpProblem, mode: str, optimizer: str) -> tuple[int, int]:
    """None that counts: a request's time is that of HTTP, JSON and the workflow."""
    return 0, 0
