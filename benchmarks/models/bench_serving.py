"""Latency of DLRM's answers to one row and to batches: exports of our model, and of the same in plain Keras."""

from __future__ import annotations

from benchmarks.harness import Provider, check_probabilities
from benchmarks.models.dlrm_problem import Case, DLRMProblem, predictions

__all__ = ["ABLE", "CASES", "DEFAULT_CASES", "NAME", "OPTIMIZERS", "PROVIDERS", "check", "traffic"]

NAME = "serving"
OPTIMIZERS = ()
ABLE = ("forward",)  # modes
TOLERANCE = 5e-3  # of a probability: on a GPU products are of TF32


def _case(batch: int, hot: str, max_rows: int, *groups: str) -> Case:
    cap = f"cap{max_rows // 1000}k"
    return Case(f"serving_{cap}_b{batch}_{hot}hot", batch, max_rows, hot, "float32", groups)


_ALL = [
    *(_case(batch, "one", 100_000, "cpu", "cuda") for batch in (1, 64, 1024, 8192)),
    *(_case(batch, "multi", 100_000, "cpu", "cuda") for batch in (1, 1024)),
    *(_case(batch, hot, 1_000, "smoke") for batch, hot in ((1, "one"), (64, "multi"))),
]
CASES = {case.name: case for case in _ALL}
DEFAULT_CASES = {"cpu": ("cpu",), "cuda": ("cuda",)}

PROVIDERS = {
    "merlin_tf": "benchmarks.models.serving_keras:MerlinExported",
    "merlin_tf_portable": "benchmarks.models.serving_keras:MerlinPortable",
    "merlin_tf_call": "benchmarks.models.serving_keras:MerlinCall",
    "keras": "benchmarks.models.serving_keras:KerasExported",
    "keras_call": "benchmarks.models.serving_keras:KerasCall",
}


def check(provider: Provider, problem: DLRMProblem, mode: str, optimizer: str) -> float:
    """The largest difference of a probability from NumPy's."""
    return check_probabilities(provider.predictions(), predictions(problem), TOLERANCE)


def traffic(problem: DLRMProblem, mode: str, optimizer: str) -> tuple[int, int]:
    """Bytes of the table rows that an answer reads: of all ids, and of each id once. The layers' part is arithmetic."""
    row = 4 * problem.case.dim
    return sum(ids.size for ids in problem.ids) * row, problem.distinct_ids * row
