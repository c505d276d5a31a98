"""The loaders that are timed: ours, and merlin-dataloader's, each through its own defaults."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from benchmarks.harness import Provider
from benchmarks.loader.loader_problem import IDS, LABEL, NUMBERS, Case, LoaderProblem

Rows = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]  # columns, the lists' values and where each begins


class _Loader(Provider):
    """A loader that can be looped over once an epoch."""

    runtime = "tensorflow"
    _loader: Any

    def memory_bytes(self, problem: LoaderProblem, device: str, mode: str, optimizer: str) -> int:
        return 4 * problem.nbytes

    def forward(self, i: int) -> None:
        for _ in self._loader:
            pass

    def batches(self) -> Iterator[Rows]:
        """The rows of an epoch as arrays, for the check."""
        for features, label in self._loader:
            columns = {name: features[name].numpy() for name in (*IDS, *NUMBERS)}
            columns[LABEL] = label.numpy()
            yield columns, *self.lists(features)

    def lists(self, features: Any) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError


class Merlin(_Loader):
    """Our KerasSequenceLoader."""

    name = "merlin_tf"
    requires = ("tensorflow",)

    def setup(self, problem: LoaderProblem, device: str, mode: str, optimizer: str) -> None:
        from merlin_models.loader.tensorflow import KerasSequenceLoader

        self._loader = KerasSequenceLoader(
            problem.files,
            problem.case.batch,
            label_names=[LABEL],
            cat_names=[*IDS, "genres"],
            cont_names=list(NUMBERS),
            device="cpu" if device == "cpu" else "gpu",
        )

    def lists(self, features: Any) -> tuple[np.ndarray, np.ndarray]:
        return features["genres"].values.numpy(), features["genres"].row_splits.numpy()


class MerlinDataloader(_Loader):
    """The loader of the older library, release 23.8, on a CPU."""

    name = "merlin_dataloader"
    requires: ClassVar[tuple[str, ...]] = ("tensorflow", "merlin.dataloader")
    notes = "a partition of 512 MB, the fastest of 16, 64 and 512 MB"

    def unsupported(self, case: Case, device: str, mode: str, optimizer: str) -> str:
        return "" if device == "cpu" else "its way to a GPU needs cuDF, which its packages do not bring"

    def setup(self, problem: LoaderProblem, device: str, mode: str, optimizer: str) -> None:
        from merlin_models.datasets.workflows import configure_dask

        configure_dask()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries for GPUs that are not there
            from merlin.dataloader.tensorflow import Loader
            from merlin.io import Dataset
            from merlin.schema import Tags

            dataset = Dataset(problem.files, engine="parquet", part_size="512MB", cpu=True)
            schema = dataset.schema
            schema[LABEL] = schema[LABEL].with_tags(Tags.TARGET)
            dataset.schema = schema
            self._loader = Loader(dataset, problem.case.batch, shuffle=True)

    def lists(self, features: Any) -> tuple[np.ndarray, np.ndarray]:
        return features["genres__values"].numpy(), features["genres__offsets"].numpy()
