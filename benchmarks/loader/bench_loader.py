"""Loaders: one shuffled epoch over MovieLens-shaped Parquet with a list column, to tensors of TensorFlow on the device."""

from __future__ import annotations

from benchmarks.loader.loader_problem import Case, LoaderProblem, check

__all__ = ["ABLE", "CASES", "DEFAULT_CASES", "NAME", "OPTIMIZERS", "PROVIDERS", "check", "traffic"]

NAME = "loader"
OPTIMIZERS = ()
ABLE = ("forward",)  # a call is an epoch

_ALL = [
    Case("loader_5m_b4096", 5_000_000, 4_096, ("cpu", "cuda")),
    Case("loader_5m_b65536", 5_000_000, 65_536, ("cpu", "cuda")),
    Case("loader_20k_b256", 20_000, 256, ("smoke",)),
]
CASES = {case.name: case for case in _ALL}
DEFAULT_CASES = {"cpu": ("cpu",), "cuda": ("cuda",)}

PROVIDERS = {
    "merlin_tf": "benchmarks.loader.loaders:Merlin",
    "merlin_dataloader": "benchmarks.loader.loaders:MerlinDataloader",
}


def traffic(problem: LoaderProblem, mode: str, optimizer: str) -> tuple[int, int]:
    """Bytes of the tensors of an epoch. Rows a second are ``rows`` in a row's config over the time of a call."""
    return problem.nbytes, problem.nbytes
