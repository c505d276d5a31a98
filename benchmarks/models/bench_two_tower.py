"""Two towers' training step on data shaped like MovieLens 1M, ours beside the same model in plain Keras.

Embeddings of 64, towers [128, 64], Adam, the loss over the items of the batch and three ranking metrics. Examples a second
are the batch over the time.
"""

from __future__ import annotations

from benchmarks.models.two_tower_problem import ITEM, LONGEST, QUERY, Case, TwoTowerProblem, check

__all__ = ["ABLE", "CASES", "DEFAULT_CASES", "NAME", "OPTIMIZERS", "PROVIDERS", "check", "traffic"]

NAME = "two_tower"
OPTIMIZERS = ("adam",)
ABLE = ("update",)  # modes

_ALL = [
    Case("two_tower_ml1m_b4096", 4_096, ("cpu",)),
    Case("two_tower_ml1m_b1024", 1_024, ("more",)),
    Case("two_tower_ml1m_b16384", 16_384, ("more", "cuda")),
    Case("two_tower_ml1m_b32768", 32_768, ("cuda",)),
    Case("two_tower_ml1m_b16384_bf16", 16_384, ("cuda",), dtype="bfloat16"),
    Case("two_tower_ml1m_b256", 256, ("smoke",), dim=8, layers=(16, 8)),
]
CASES = {case.name: case for case in _ALL}
DEFAULT_CASES = {"cpu": ("cpu",), "cuda": ("cuda",)}

PROVIDERS = {
    "merlin_tf": "benchmarks.models.two_tower_keras:Merlin",
    "merlin_tf_clustered": "benchmarks.models.two_tower_keras:MerlinClustered",
    "keras": "benchmarks.models.two_tower_keras:PlainKeras",
    "merlin_models_23.12": "benchmarks.peers.merlin_models_23:TwoTower",
    "keras_xla": "benchmarks.models.two_tower_keras:PlainKerasXLA",
}


def traffic(problem: TwoTowerProblem, mode: str, optimizer: str) -> tuple[int, int]:
    """Bytes that the tables' part of a step must move: by the ids as they are, and by each id once.

    A row is read for the forward pass; for Adam's step each distinct row and its two moments are read and written.
    """
    row = 4 * problem.case.dim
    ids = problem.batch * (len(QUERY) + len(ITEM) - 1 + LONGEST)
    distinct = sum(len(set(ids.ravel().tolist())) for ids in problem.features.values())
    update = 0 if mode == "forward" else 6 * distinct * row
    return ids * row + update, distinct * row + update
