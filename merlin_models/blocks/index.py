"""IndexBlock and TopKIndexBlock: the outputs of a block, one for each id of a catalogue."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from merlin_models._files import replacing
from merlin_models.blocks.base import Block, register
from merlin_models.layers.catalogue import Catalogue, pad_lists
from merlin_models.layers.embedding_files import EMBEDDING, ID
from merlin_models.layers.top_k import BruteForceTopK, TopKPrediction
from merlin_models.schema import Tags


@register
class IndexBlock(Block):
    """A vector for each id.

    Args:
        values: (items, dim), float, and
        ids: (items,), integers, each once; 0, 1, ... if None. Without values the block is empty until :meth:`update`.
        capacity: the largest number of items; that of ``values`` if None.

    Call arguments:
        inputs: ids (...), integers.

    Returns:
        (..., dim); zeros for ids that are not there.

    Raises:
        ValueError: if ids occur twice ("Please make sure that `data` contains unique indices"), or shapes do not fit.

    Example:
        >>> import numpy as np
        >>> import merlin_models.tf as ml
        >>> movie = ml.ColumnSchema.create_categorical("movieId", 9, tags=[ml.Tags.ITEM_ID])
        >>> tower = ml.Embeddings(ml.Schema([movie]), dim=4)
        >>> index = ml.IndexBlock.from_block(tower, {"movieId": np.array([3, 7])})
        >>> tuple(index(np.array([7, 7, 3])).shape), index.to_df().index.tolist()
        ((3, 4), [3, 7])
    """

    def __init__(self, values: Any = None, ids: Any = None, capacity: int | None = None, **kwargs: Any):
        self._start(Catalogue(capacity, dtype=kwargs.get("dtype")), values, ids, **kwargs)

    def _start(self, catalogue: Catalogue, values: Any, ids: Any, **kwargs: Any) -> None:
        Block.__init__(self, **kwargs)
        self.catalogue = catalogue
        if values is not None:
            self.update(values, ids)

    @classmethod
    def from_block(
        cls, block: Any, data: Any, id_column: str | None = None, batch_size: int = 1024, **kwargs: Any
    ) -> Any:
        """Of what a block makes of items.

        Args:
            block: an item tower; gets the features and gives (batch, dim), or a dictionary of one such tensor.
            data: dictionary feature -> array, a DataFrame or the path of a Parquet file, with a row an item. Lists of a
                DataFrame are padded with 0.
            id_column: of ids; the column of the block's schema with the tag ``item_id`` if None.
            batch_size: items that the block gets at once.
            **kwargs: of the index.
        """
        ids, values = _outputs(block, data, _id_column(block, id_column), batch_size)
        return cls(values, ids, **kwargs)

    @classmethod
    def from_dataset(cls, data: Any, **kwargs: Any) -> Any:
        """Of vectors that exist already.

        Args:
            data: a DataFrame or the path of a Parquet file, with a row an item: a column "id", or the index; and a column
                "embedding" of lists, or only numeric columns. As :meth:`to_df` and :meth:`to_dataset` have them.
            **kwargs: of the index.
        """
        return cls(*_vectors(data), **kwargs)

    def update(self, values: Any, ids: Any = None) -> None:
        """Takes vectors (items, dim) and ids (items,) in the place of those before."""
        self.catalogue.index(values, ids)
        self.built = True

    def update_from_block(self, block: Any, data: Any, id_column: str | None = None, batch_size: int = 1024) -> None:
        """Takes what a block makes of items; arguments as of :meth:`from_block`."""
        ids, values = _outputs(block, data, _id_column(block, id_column), batch_size)
        self.update(values, ids)

    def to_df(self) -> Any:
        """A pandas DataFrame indexed by id, with a column a dimension ("0", "1", ...)."""
        import pandas

        ids, values = self.catalogue.items()
        columns = [str(dim) for dim in range(values.shape[1])]
        return pandas.DataFrame(values, index=pandas.Index(ids, name=ID), columns=columns)

    def to_dataset(self, path: str | os.PathLike) -> None:
        """Writes a Parquet file with the columns "id" (int64) and "embedding" (lists of float32)."""
        import pyarrow
        import pyarrow.parquet

        ids, values = self.catalogue.items()
        rows = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.reshape(-1)), values.shape[1])
        with replacing(path) as part:
            pyarrow.parquet.write_table(pyarrow.table({ID: ids, EMBEDDING: rows}), part)

    def build(self, input_shape: Any) -> None:
        raise ValueError("update() must be called before the block is used.")

    def get_build_config(self) -> dict[str, Any] | None:
        return self.catalogue.get_build_config()

    def build_from_config(self, config: dict[str, Any]) -> None:
        self.catalogue.build_from_config(config)
        self.built = self.catalogue.built

    def call(self, inputs: Any) -> Any:
        return self.catalogue(inputs)

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        return keras.KerasTensor((*inputs.shape, self.catalogue.embeddings.shape[1]), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "capacity": self.catalogue.capacity}


@register
class TopKIndexBlock(IndexBlock):
    """The best items of a catalogue for each query, by dot product; see :class:`BruteForceTopK`.

    Args:
        k: how many items a query gets.
        values, ids, capacity: as of :class:`IndexBlock`.

    Call arguments:
        inputs: queries (batch, dim), float.
        exclude: identifiers that a query must not get; see :class:`BruteForceTopK`.

    Returns:
        :class:`TopKPrediction`, scores (batch, k) and identifiers (batch, k) int64.

    Example:
        >>> import numpy as np
        >>> import merlin_models.tf as ml
        >>> index = ml.TopKIndexBlock(k=2, values=np.eye(3), ids=[5, 6, 7])
        >>> index(np.array([[0.1, 0.3, 0.2]], "float32")).identifiers.numpy().tolist()
        [[6, 7]]
    """

    def __init__(self, k: int = 20, values: Any = None, ids: Any = None, capacity: int | None = None, **kwargs: Any):
        self._start(BruteForceTopK(k, capacity, dtype=kwargs.get("dtype")), values, ids, **kwargs)

    @classmethod
    def from_block(
        cls, block: Any, data: Any, k: int = 20, id_column: str | None = None, batch_size: int = 1024, **kwargs: Any
    ) -> Any:
        """Of what a block makes of items; arguments as of :meth:`IndexBlock.from_block`."""
        ids, values = _outputs(block, data, _id_column(block, id_column), batch_size)
        return cls(k, values, ids, **kwargs)

    @classmethod
    def from_dataset(cls, data: Any, k: int = 20, **kwargs: Any) -> Any:
        """Of vectors that exist already; arguments as of :meth:`IndexBlock.from_dataset`."""
        return cls(k, *_vectors(data), **kwargs)

    @property
    def k(self) -> int:
        """How many candidates a query gets."""
        return self.catalogue.k

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k}

    def call(self, inputs: Any, exclude: Any = None) -> TopKPrediction:
        return self.catalogue(inputs, exclude=exclude)

    def compute_output_spec(self, inputs: Any, exclude: Any = None, training: bool | None = None) -> Any:
        return self.catalogue.compute_output_spec(inputs, exclude)


def _id_column(block: Any, id_column: str | None) -> str:
    if id_column is not None:
        return id_column
    schema = getattr(block, "schema", None)
    names = [] if schema is None else schema.select_by_tag(Tags.ITEM_ID).column_names
    if len(names) != 1:
        raise ValueError(f"id_column must be given unless one column of the block is tagged item_id. Received: {names}")
    return names[0]


def _outputs(block: Any, data: Any, id_column: str, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids (items,) and the block's outputs (items, dim) for the rows of a data set."""
    data = _read(data)
    known = sorted(data) if isinstance(data, Mapping) else list(data.columns)
    if id_column not in known:
        raise ValueError(f"data must have the column '{id_column}'. Received: {sorted(known)}")
    schema = getattr(block, "schema", None)
    names = known if schema is None else [name for name in schema.column_names if name in known]
    columns = {name: _array(data[name]) for name in {*names, id_column}}
    ids = np.asarray(columns[id_column]).reshape(-1)
    parts = []
    for start in range(0, len(ids), batch_size):
        output = block({name: columns[name][start : start + batch_size] for name in names})
        if isinstance(output, Mapping):
            if len(output) != 1:
                raise ValueError(f"block must give one tensor. Received: {sorted(output)}")
            output = next(iter(output.values()))
        parts.append(ops.convert_to_numpy(ops.cast(output, "float32")))
    if not parts:
        raise ValueError("data must have at least one row. Received: none")
    return ids, np.concatenate(parts)


def _array(column: Any) -> Any:
    column = column.to_numpy() if hasattr(column, "to_numpy") else column
    return pad_lists(column, 0) if getattr(column, "dtype", None) == np.dtype(object) else column


def _vectors(data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (items, dim) and ids (items,) of a DataFrame or a Parquet file."""
    frame = _read(data)
    ids = frame[ID].to_numpy() if ID in frame.columns else frame.index.to_numpy()
    columns = [name for name in frame.columns if name != ID]
    values = np.stack(frame[EMBEDDING].to_list()) if EMBEDDING in columns else frame[columns].to_numpy(np.float32)
    return values, ids


def _read(data: Any) -> Any:
    if isinstance(data, str | os.PathLike):
        import pyarrow.parquet

        return pyarrow.parquet.read_table(data).to_pandas()
    if not isinstance(data, Mapping) and not hasattr(data, "columns"):
        raise TypeError(f"data must be a dictionary, a DataFrame or a path. Received: {type(data).__name__}")
    return data
