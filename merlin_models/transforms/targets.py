"""Transforms of targets, for ``Model.fit(pre=...)``, and one-hot vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops

from merlin_models.blocks.base import Block, register
from merlin_models.blocks.prediction import Prediction
from merlin_models.blocks.registry import BLOCKS
from merlin_models.blocks.symbolic import is_symbolic, rank_of
from merlin_models.ops import is_ragged
from merlin_models.schema import ColumnSchema, Schema, Tags
from merlin_models.transforms.lists import map_features


class TargetTransform(Block):
    """A transform of features and targets together, for ``Model.fit(pre=...)``.

    Subclasses write ``call(inputs, targets, sample_weight, training)``, which returns a ``Prediction``.
    """

    def build(self, input_shape: Any) -> None:
        # The shapes that a run on symbolic tensors would tell are not needed, and there would be no targets.
        self.built = True

    def call(
        self, inputs: Any, targets: Any = None, sample_weight: Any = None, training: bool | None = None
    ) -> Prediction:
        raise NotImplementedError(f"{type(self).__name__} must define call(inputs, targets, sample_weight, training).")


@BLOCKS.register("to_target")
@register
class ToTarget(TargetTransform):
    """Makes targets of features.

    Args:
        schema: of the data set.
        *columns: names, ``ColumnSchema`` objects or tags of the features to move.
        one_hot: whether the ids of categorical ones become one-hot vectors, as long as their cardinality.

    Call arguments:
        inputs: dictionary with these features.
        targets: None, or a dictionary of further targets.
        sample_weight: passed on.

    Returns:
        A ``Prediction`` of the other features; the targets, as a dictionary by name, or the only one; and the weights.

    Raises:
        ValueError: if a column is not in the schema or the inputs, or targets are no dictionary.

    Example:
        >>> import numpy as np
        >>> from merlin_models.schema import ColumnSchema, Schema
        >>> from merlin_models.transforms import ToTarget
        >>> to_target = ToTarget(Schema([ColumnSchema("click"), ColumnSchema("age")]), "click")
        >>> outputs, targets, *_ = to_target({"click": np.array([0, 1]), "age": np.array([20, 30])})
        >>> sorted(outputs), targets.numpy().tolist()
        (['age'], [0, 1])
    """

    def __init__(self, schema: Schema, *columns: str | ColumnSchema | Tags, one_hot: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.columns = _selected(schema, columns)
        self.one_hot = bool(one_hot)
        if one_hot:
            for column in self.columns:
                _ = column.cardinality  # raises for a column that has none

    def call(
        self, inputs: Any, targets: Any = None, sample_weight: Any = None, training: bool | None = None
    ) -> Prediction:
        _require(inputs, self.columns)
        outputs = {name: value for name, value in inputs.items() if name not in self.columns}
        moved = {column.name: inputs[column.name] for column in self.columns}
        if self.one_hot:
            moved = {name: one_hot(value, self.columns[name].cardinality, name) for name, value in moved.items()}
        return Prediction(outputs, merged_targets(targets, moved), sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "schema": self.columns.to_json(), "one_hot": self.one_hot}


@BLOCKS.register("label_to_onehot")
@register
class LabelToOneHot(TargetTransform):
    """Makes one-hot vectors of the ids that are targets.

    Args:
        depth: length of the vectors; or dictionary target -> length, and other targets stay as they are.

    Call arguments:
        inputs, sample_weight: passed on.
        targets: ids (batch,) or (batch, 1); a tensor, or a dictionary.

    Returns:
        A ``Prediction`` with targets (batch, depth), float32.

    Example:
        >>> import numpy as np
        >>> from merlin_models.transforms import LabelToOneHot
        >>> LabelToOneHot(3)({}, targets=np.array([2, 0])).targets.numpy().tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """

    def __init__(self, depth: int | Mapping[str, int], **kwargs: Any):
        super().__init__(**kwargs)
        depths = list(depth.values()) if isinstance(depth, Mapping) else [depth]
        if not depths or not all(isinstance(each, int) and each > 0 for each in depths):
            raise ValueError(f"depth must be a positive integer or a dictionary of them. Received: {depth!r}")
        self.depth = dict(depth) if isinstance(depth, Mapping) else depth

    def call(
        self, inputs: Any, targets: Any = None, sample_weight: Any = None, training: bool | None = None
    ) -> Prediction:
        by_name = isinstance(self.depth, Mapping)
        if targets is None or isinstance(targets, tuple | list) or (by_name and not isinstance(targets, Mapping)):
            raise ValueError(
                f"targets must be {'a dictionary' if by_name else 'a tensor or a dictionary'}. "
                f"Received: {type(targets).__name__}"
            )
        if by_name:
            _require(targets, self.depth)
            changed = {name: one_hot(targets[name], depth, name) for name, depth in self.depth.items()}
            return Prediction(inputs, {**targets, **changed}, sample_weight)
        changed = map_features(lambda name, target: one_hot(target, self.depth, name), targets, "targets")
        return Prediction(inputs, changed, sample_weight)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "depth": self.depth}


@BLOCKS.register("to_one_hot", "to-one-hot")
@register
class ToOneHot(Block):
    """Makes one-hot vectors of the ids of categorical features, as long as their cardinality.

    Args:
        schema: the categorical columns.

    Call arguments:
        inputs: dictionary with these features: (batch,), (batch, 1), or for lists (batch, length) or ragged. Others are
            passed on.

    Returns:
        Dictionary with (batch, cardinality), or for lists (batch, length, cardinality), of the compute dtype. An id
        that is not below the cardinality gives zeros.

    Example:
        >>> import numpy as np
        >>> from merlin_models.schema import ColumnSchema, Schema
        >>> from merlin_models.transforms import ToOneHot
        >>> schema = Schema([ColumnSchema.create_categorical("genre", 2)])
        >>> ToOneHot(schema)({"genre": np.array([2])})["genre"].numpy().tolist()
        [[0.0, 0.0, 1.0]]
    """

    def __init__(self, schema: Schema, **kwargs: Any):
        super().__init__(**kwargs)
        if not isinstance(schema, Schema) or not len(schema):
            raise ValueError(f"schema must be a Schema with at least one column. Received: {schema!r}")
        for column in schema:
            _ = column.cardinality  # raises for a column that has none
        self.columns = schema

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        _require(inputs, self.columns)
        return {
            name: one_hot(value, self.columns[name].cardinality, name, self.columns[name].is_list, self.compute_dtype)
            if name in self.columns
            else value
            for name, value in inputs.items()
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "schema": self.columns.to_json()}


CategoricalOneHot = ToOneHot


def one_hot(ids: Any, depth: int, name: str, is_list: bool = False, dtype: str = "float32") -> Any:
    """(batch, depth) of ids (batch,) or (batch, 1); of lists (batch, length, depth)."""
    if isinstance(ids, tuple | list) or hasattr(ids, "dense_shape"):
        raise ValueError(f"Ids of '{name}' must be a dense or ragged tensor. Received: {type(ids).__name__}")
    if is_ragged(ids):
        return ids.with_flat_values(ops.one_hot(ids.flat_values, depth, dtype=dtype))
    ids = ids if is_symbolic(ids) else ops.convert_to_tensor(ids)
    if not is_list and rank_of(ids) != 1:
        if rank_of(ids) not in (None, 2) or (rank_of(ids) == 2 and ids.shape[1] not in (1, None)):
            raise ValueError(
                f"Ids of '{name}' must have the shape (batch,) or (batch, 1). Received: {tuple(ids.shape)}"
            )
        ids = ops.reshape(ids, (-1,))
    return ops.one_hot(ids, depth, dtype=dtype)


def merged_targets(targets: Any, new: Mapping[str, Any]) -> Any:
    """The new targets with those that are there already: a dictionary, or where there is only one the tensor."""
    if targets is not None and not isinstance(targets, Mapping):
        raise ValueError(
            f"targets must be None or a dictionary beside {sorted(new)}. Received: {type(targets).__name__}"
        )
    together = {**(targets or {}), **new}
    return together if len(together) > 1 else next(iter(together.values()))


def _selected(schema: Schema, columns: Sequence[str | ColumnSchema | Tags]) -> Schema:
    """The columns of the schema that are named, or have a tag; all of it if nothing is."""
    if not isinstance(schema, Schema) or not len(schema):
        raise ValueError(f"schema must be a Schema with at least one column. Received: {schema!r}")
    names: list[str] = []
    for column in columns:
        if isinstance(column, Tags):
            found = schema.select_by_tag(column).column_names
        else:
            name = column.name if isinstance(column, ColumnSchema) else column
            found = [name] if name in schema else []
        if not found:
            raise ValueError(
                f"columns must be names or tags of the schema. Received: {column!r}, not in {schema.column_names}"
            )
        names += found
    return schema.select_by_name(names) if columns else schema


def _require(values: Mapping[str, Any], names: Any) -> None:
    wanted = names.column_names if isinstance(names, Schema) else list(names)
    missing = sorted(set(wanted) - set(values))
    if missing:
        raise ValueError(f"Inputs must have {sorted(wanted)}. Received: {sorted(values)}; missing: {missing}")
