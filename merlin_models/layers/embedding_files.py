"""Embedding tables outside of models: data frames, Parquet files, and initializers made of them."""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np

from merlin_models._files import replacing

ID, EMBEDDING = "id", "embedding"


def matrix_of(data: Any, name: str = "data") -> np.ndarray:
    """The rows of a table, float32 (rows, dim), row i that of id i.

    Args:
        data: an array or tensor (rows, dim); a pandas DataFrame, or the path of a Parquet file, with a column "id" (or the
            index: 0, 1, ...) and either a column "embedding" of lists or only numeric columns.
        name: what error messages call it.

    Raises:
        ValueError: if ids are not 0, 1, ..., each once, or rows differ in length or are not of numbers.
    """
    if isinstance(data, str | os.PathLike):
        import pyarrow.parquet

        data = pyarrow.parquet.read_table(data).to_pandas()
    if not hasattr(data, "columns"):
        matrix = np.asarray(data, np.float32)
        if matrix.ndim != 2:
            raise ValueError(f"{name} must have rank 2 (rows, dim). Received shape: {matrix.shape}")
        return matrix
    ids = np.asarray(data[ID] if ID in data.columns else data.index)
    if not np.array_equal(np.sort(ids), np.arange(len(ids))):
        raise ValueError(f"{name} must have the ids 0 to {len(ids) - 1}, each once. Received: {ids[:10].tolist()}...")
    columns = [column for column in data.columns if column != ID]
    if EMBEDDING in columns:
        lengths = {len(row) for row in data[EMBEDDING]}
        if len(lengths) != 1:
            raise ValueError(f"{name} must have rows of one length. Received lengths: {sorted(lengths)}")
        rows = np.stack([np.asarray(row, np.float32) for row in data[EMBEDDING]])
    else:
        try:
            rows = data[columns].to_numpy(np.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} must have a column '{EMBEDDING}' or only numbers. Received: {columns}") from error
    matrix = np.empty_like(rows)
    matrix[ids] = rows
    return matrix


def frame_of(matrix: np.ndarray, l2_normalization: bool = False) -> Any:
    """A pandas DataFrame with a row an id and a column a dimension ("0", "1", ...)."""
    import pandas

    matrix = np.asarray(matrix, np.float32)
    if l2_normalization:
        matrix = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)
    columns = [str(d) for d in range(matrix.shape[1])]
    return pandas.DataFrame(matrix, index=pandas.RangeIndex(len(matrix), name=ID), columns=columns)


def write_parquet(matrix: np.ndarray, path: str | os.PathLike) -> None:
    """A Parquet file with the columns "id" (int64) and "embedding" (lists of float32, all of one length)."""
    import pyarrow
    import pyarrow.parquet

    matrix = np.ascontiguousarray(matrix, np.float32)
    rows = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(matrix.reshape(-1)), matrix.shape[1])
    table = pyarrow.table({ID: np.arange(len(matrix)), EMBEDDING: rows})
    with replacing(path) as part:
        pyarrow.parquet.write_table(table, part)


@keras.saving.register_keras_serializable(package="merlin_models")
class TensorInitializer(keras.initializers.Initializer):
    """Initializes a variable with given numbers.

    They are not part of the config, which may be a thousand times smaller: a saved table has them among its weights. An
    initializer made from a config gives zeros of the same shape.

    Args:
        weights: array (rows, dim), or with ``shape`` None.
        shape: of the zeros, where there are no weights.

    Example:
        >>> import numpy as np
        >>> from merlin_models.blocks import TensorInitializer
        >>> TensorInitializer.from_matrix(np.eye(3))((3, 3)).shape
        TensorShape([3, 3])
    """

    def __init__(self, weights: Any = None, shape: Any = None):
        self.weights = None if weights is None else matrix_of(weights, "weights")
        self.shape = tuple(shape or ()) if self.weights is None else self.weights.shape

    @classmethod
    def from_matrix(cls, matrix: Any) -> TensorInitializer:
        """Of an array (rows, dim)."""
        return cls(matrix)

    @classmethod
    def from_dataset(cls, data: Any) -> TensorInitializer:
        """Of a DataFrame, or of a Parquet file with the columns "id" and "embedding"."""
        return cls(matrix_of(data))

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        if tuple(shape) != self.shape:
            raise ValueError(f"shape must be that of the weights, {self.shape}. Received: {tuple(shape)}")
        values = np.zeros(self.shape, np.float32) if self.weights is None else self.weights
        return keras.ops.convert_to_tensor(values, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        return {"shape": [int(n) for n in self.shape]}
