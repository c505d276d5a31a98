"""DLRM's training step: MLPerf's tables and layers, ours beside the same model in plain Keras and in PyTorch.

Tables are MLPerf's 26, with at most as many rows as a case's name says behind "cap".
"""

from __future__ import annotations

from benchmarks.models.dlrm_problem import Case, DLRMProblem, check

__all__ = ["ABLE", "CASES", "DEFAULT_CASES", "NAME", "OPTIMIZERS", "PROVIDERS", "check", "traffic"]

NAME = "dlrm"
OPTIMIZERS = ("adagrad",)
ABLE = ("update",)  # modes


def _cases(batch: int, max_rows: int, group: str, hots: tuple[str, ...] = ("one",)) -> list[Case]:
    return [
        Case(f"dlrm_cap{_short(max_rows)}_b{batch}_{hot}hot_{short}", batch, max_rows, hot, dtype, (group,))
        for hot in hots
        for dtype, short in (("float32", "fp32"), ("bfloat16", "bf16"))
    ]


def _short(rows: int) -> str:
    return f"{rows // 1_000_000}m" if rows >= 1_000_000 else f"{rows // 1_000}k"


_ALL = [
    *_cases(8_192, 1_000_000, "cuda"),
    *_cases(65_536, 1_000_000, "cuda"),
    *_cases(8_192, 1_000_000, "multi", ("multi",)),
    *_cases(65_536, 1_000_000, "multi", ("multi",)),
    *_cases(2_048, 400_000, "cpu"),
    *_cases(512, 400_000, "cpu"),
    *_cases(64, 1_000, "smoke", ("one", "multi")),
]
CASES = {case.name: case for case in _ALL}
DEFAULT_CASES = {"cpu": ("cpu",), "cuda": ("cuda",)}

PROVIDERS = {
    "merlin_tf": "benchmarks.models.dlrm_keras:Merlin",
    "merlin_tf_clustered": "benchmarks.models.dlrm_keras:MerlinClustered",
    "merlin_tf_two_ops": "benchmarks.models.dlrm_keras:MerlinTwoOps",
    "keras": "benchmarks.models.dlrm_keras:PlainKeras",
    "merlin_models_23.12": "benchmarks.peers.merlin_models_23:DLRM",
    "torch": "benchmarks.models.dlrm_torch:TorchSparse",
    "torch_dense": "benchmarks.models.dlrm_torch:TorchDense",
}


def traffic(problem: DLRMProblem, mode: str, optimizer: str) -> tuple[int, int]:
    """Bytes that the tables' part of a step must move: by the ids as they are, and by each id once.

    A row of D float32 is read for the forward pass; for the update each distinct row and its Adagrad state are read and
    written. The layers' part is arithmetic: see ``flops`` in a row's config.
    """
    row = 4 * problem.case.dim
    ids = sum(x.size for x in problem.ids)
    distinct = problem.distinct_ids
    update = 0 if mode == "forward" else 4 * distinct * row
    return ids * row + update, distinct * row + update
