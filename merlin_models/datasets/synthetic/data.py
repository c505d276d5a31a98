"""Generated data in the form that notebooks of the older library use."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from merlin_models.datasets.synthetic.generate import draw_table, find_schema, with_lengths
from merlin_models.loader.dataset import Dataset
from merlin_models.loader.sizes import require_integer
from merlin_models.schema import Schema, Tags


class SyntheticData:
    """Random rows for a schema, as tensors, a loader or a table.

    Args:
        data, num_rows, min_session_length, max_session_length, device, seed: as in :func:`generate_data`.

    Attributes:
        schema: of the rows. A part of it, set as ``data._schema = data.schema.remove_by_tag(...)``, takes its columns
            alone from then on.

    Raises:
        FileNotFoundError, ValueError: as :func:`generate_data` does.

    Example:
        >>> from merlin_models.datasets.synthetic import SyntheticData
        >>> music = SyntheticData("music_streaming", num_rows=100)
        >>> features, targets = music.tf_features_and_targets
        >>> sorted(targets), features["item_genres"].shape
        (['click', 'like', 'play_percentage'], TensorShape([100, 4]))
    """

    def __init__(
        self,
        data: str | os.PathLike | Schema,
        num_rows: int = 100,
        min_session_length: int | None = None,
        max_session_length: int | None = None,
        device: str = "cpu",
        seed: int = 0,
    ):
        if device != "cpu":
            raise ValueError(f"device must be 'cpu': rows are drawn by NumPy. Received: {device!r}.")
        self._schema = with_lengths(find_schema(data), min_session_length, max_session_length)
        self._num_rows = require_integer("num_rows", num_rows, 1)
        self._rng = np.random.default_rng(require_integer("seed", seed, 0))
        self._table = draw_table(self._schema, self._num_rows, self._rng)

    @property
    def schema(self) -> Schema:
        """The columns of the rows."""
        return self._schema

    @property
    def dataset(self) -> Dataset:
        """The rows, as a loader takes them."""
        return Dataset(self._table.select(self._schema.column_names), self._schema)

    def generate_interactions(self, num_rows: int | None = None, save: bool = True) -> Any:
        """Draws new rows.

        Args:
            num_rows: how many; as many as at first if None.
            save: whether they take the place of the rows that are there.

        Returns:
            A ``pandas.DataFrame``.
        """
        num_rows = self._num_rows if num_rows is None else require_integer("num_rows", num_rows, 1)
        table = draw_table(self._schema, num_rows, self._rng)
        if save:
            self._table = table
        return table.to_pandas()

    @property
    def tf_tensor_dict(self) -> dict[str, Any]:
        """All columns as tensors: (rows, 1), lists of one length (rows, length), others ragged (rows, None)."""
        from merlin_models.loader.tensorflow import KerasSequenceLoader

        names = [column.name for column in self._schema if column.dtype is None or column.dtype.kind in "iufb"]
        table = self._table.select(names)
        fixed = {
            column.name: column.value_count[0] if column.value_count else column.shape[0]
            for column in self._schema
            if column.name in names and column.is_list and not column.is_ragged
        }
        padded = {"sparse_names": list(fixed), "sparse_max": fixed, "sparse_as_dense": True} if fixed else {}
        return KerasSequenceLoader(table, table.num_rows, shuffle=False, **padded).peek()

    @property
    def tf_features_and_targets(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The tensors, those of columns tagged TARGET apart."""
        tensors = self.tf_tensor_dict
        targets = set(self._schema.select_by_tag(Tags.TARGET).column_names)
        return (
            {name: tensor for name, tensor in tensors.items() if name not in targets},
            {name: tensor for name, tensor in tensors.items() if name in targets},
        )

    def tf_dataloader(self, batch_size: int = 50, **arguments: Any) -> Any:
        """A loader of the features, and of the targets by name if there are several.

        Args:
            batch_size: rows of a batch.
            **arguments: of ``KerasSequenceLoader``.
        """
        from merlin_models.loader.tensorflow import KerasSequenceLoader

        return KerasSequenceLoader(self.dataset, batch_size, **arguments)
