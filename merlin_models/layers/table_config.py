"""TableConfig and FeatureConfig: what an embedding table is, and which feature reads it."""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any

import keras

from merlin_models.ops.embedding_bag import COMBINERS

TABLE_DTYPES = ("float32", "float16", "bfloat16")


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """An embedding table.

    Attributes:
        name: of the variable; unique in a collection.
        input_dim: number of rows; ids are in [0, input_dim).
        output_dim: length of a row.
        combiner: how a bag's rows become one: "sum", "mean", "sqrtn" or "max".
        initializer, regularizer: a Keras identifier, config or object.
        dtype: "float32", "float16" or "bfloat16"; None for the layer's variable dtype.
        trainable: False freezes the table.
        rows_l2_reg: l adds ``l * sum(row ** 2)`` over the rows that a batch looks up to the loss: a row as often as its id is
            there, whatever the combiner and the weights; not that of padding. Its gradient has those rows only, so the
            table is trained by rows.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> import merlin_models.tf as ml
        >>> ml.TableConfig("movies", input_dim=1000, output_dim=16, combiner="sum").get_config()["input_dim"]
        1000
    """

    name: str
    input_dim: int
    output_dim: int
    combiner: str = "mean"
    initializer: Any = "uniform"
    regularizer: Any = None
    dtype: str | None = None
    trainable: bool = True
    rows_l2_reg: float = 0.0

    def __post_init__(self) -> None:
        for argument in ("input_dim", "output_dim"):
            value = getattr(self, argument)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{argument} of table '{self.name}' must be a positive integer. Received: {value!r}")
        if self.combiner not in COMBINERS:
            raise ValueError(f"combiner of table '{self.name}' must be one of {COMBINERS}. Received: {self.combiner!r}")
        if self.dtype is not None and self.dtype not in TABLE_DTYPES:
            raise ValueError(f"dtype of table '{self.name}' must be one of {TABLE_DTYPES}. Received: {self.dtype!r}")
        factor = factor_of(f"rows_l2_reg of table '{self.name}'", self.rows_l2_reg)
        object.__setattr__(self, "rows_l2_reg", factor)

    def get_config(self) -> dict[str, Any]:
        config = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        # Names and configs stay as they are. Keras tells shared objects by their id(): a temporary object here would seem
        # shared with whatever gets its address next.
        for argument, serialize in (
            ("initializer", keras.initializers.serialize),
            ("regularizer", keras.regularizers.serialize),
        ):
            value = config[argument]
            config[argument] = value if value is None or isinstance(value, str | dict) else serialize(value)
        return config


@dataclasses.dataclass(frozen=True)
class FeatureConfig:
    """A feature that reads an embedding table.

    Attributes:
        name: its key in the layer's inputs and outputs.
        table: the table it reads; features with one table (the same object, or an equal one) share its rows.
        padding_id: an id that stands for nothing and is skipped (0 in right-padded dense lists), or None.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> movies = ml.TableConfig("movies", input_dim=1000, output_dim=16)
        >>> features = [ml.FeatureConfig("movie", movies), ml.FeatureConfig("seen", movies, padding_id=0)]
        >>> layer = ml.EmbeddingBagCollection(features)
        >>> layer({"movie": np.array([1, 2]), "seen": np.array([[5, 6, 0], [7, 0, 0]])})["seen"].shape
        TensorShape([2, 16])
    """

    name: str
    table: TableConfig
    padding_id: int | None = None


def factor_of(argument: str, value: Any) -> float:
    """The factor of a penalty; ValueError if it is no finite number, or is negative."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value < math.inf:
        raise ValueError(f"{argument} must not be negative, and be a finite number. Received: {value!r}")
    return float(value)
