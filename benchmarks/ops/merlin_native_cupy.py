"""Ours without any framework: the bare kernels on CuPy's arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.ops.embedding_bag_problem import TABLE_SCALE
from benchmarks.ops.merlin_native import MerlinNative


class MerlinNativeCupy(MerlinNative):
    """The kernels on CuPy's arrays, passed by DLPack, on CuPy's stream; PyTorch only takes the time."""

    name = "merlin_native_cupy"
    requires = ("merlin_models._C", "torch", "cupy")

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        if device != "cuda":
            return "CuPy needs a GPU"
        return (
            "CuPy has no bfloat16" if case.dtype == "bfloat16" else super().unsupported(case, device, mode, optimizer)
        )

    def make_arrays(self, problem: Any, device: str) -> Any:
        return _CupyArrays(problem)


class _CupyArrays:
    """Arrays on a GPU, made by CuPy. Its default stream is the legacy one, which is PyTorch's default too."""

    def __init__(self, problem: Any) -> None:
        import cupy

        cupy.random.seed(5)
        self._cupy, self._problem = cupy, problem

    def table(self, t: int) -> Any:
        shape = (self._problem.rows[t], self._problem.dims[t])
        table = self._cupy.random.uniform(-TABLE_SCALE, TABLE_SCALE, shape, dtype=np.float32)
        return table.astype(self._problem.dtype, copy=False)

    def array(self, array: np.ndarray) -> Any:
        return self._cupy.asarray(np.ascontiguousarray(array))

    def floats(self, array: np.ndarray) -> Any:
        return self.array(array).astype(self._problem.dtype, copy=False)

    def poisoned(self, rows: int, dim: int) -> Any:
        return self._cupy.full((rows, dim), np.nan, self._problem.dtype)

    def filled(self, shape: tuple[int, ...], value: float) -> Any:
        return self._cupy.full(shape, value, np.float32)

    def to_numpy(self, array: Any, dtype: Any = np.float32) -> np.ndarray:
        return self._cupy.asnumpy(array).astype(dtype) if array.dtype.kind == "f" else self._cupy.asnumpy(array)

    def keywords(self) -> dict[str, int]:
        return {"stream": self._cupy.cuda.get_current_stream().ptr}
