"""Features from the form in which data come to the form that blocks take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.base import Block, register
from merlin_models.blocks.prediction import Prediction
from merlin_models.blocks.registry import BLOCKS
from merlin_models.blocks.symbolic import is_symbolic, rank_of
from merlin_models.ops import to_dense, to_ragged
from merlin_models.schema import ColumnSchema, Schema, Tags
from merlin_models.transforms.lists import is_list_form, map_features

_VALUES, _OFFSETS = "__values", "__offsets"


class _SchemaTransform(Block):
    """A transform of the columns of a schema, which need not all be there."""

    def __init__(self, schema: Schema, **kwargs: Any):
        super().__init__(**kwargs)
        if not isinstance(schema, Schema) or not len(schema):
            raise ValueError(f"schema must be a Schema with at least one column. Received: {schema!r}")
        self.columns = schema

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "schema": self.columns.to_json()}


@BLOCKS.register("prepare_lists")
@register
class PrepareListFeatures(_SchemaTransform):
    """Makes one ragged tensor of the two entries ``<name>__values`` and ``<name>__offsets`` of a list column.

    Args:
        schema: whose list columns are meant.
        list_as_dense: whether lists become dense, padded with zeros on the right; as long as the column's ``value_count``
            allows, or as the longest list where it sets no limit.

    Call arguments:
        inputs: dictionary. A list column may come as its two entries, or under its name in any form that ``ToDense`` takes.
            Other entries are passed on.

    Returns:
        Dictionary with ragged (batch, None), or dense (batch, length), tensors under the columns' names.

    Example:
        >>> import numpy as np
        >>> from merlin_models.schema import ColumnSchema, Schema
        >>> from merlin_models.transforms import PrepareListFeatures
        >>> schema = Schema([ColumnSchema.create_categorical("genres", 9, value_count=(0, 3))])
        >>> prepare = PrepareListFeatures(schema, list_as_dense=True)
        >>> batch = {"genres__values": np.array([7, 8, 9]), "genres__offsets": np.array([0, 2, 3])}
        >>> prepare(batch)["genres"].numpy().tolist()
        [[7, 8, 0], [9, 0, 0]]
    """

    def __init__(self, schema: Schema, list_as_dense: bool = False, **kwargs: Any):
        super().__init__(schema, **kwargs)
        self.list_as_dense = bool(list_as_dense)

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        return self._lists(inputs)

    def _lists(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        outputs = dict(inputs)
        for column in self.columns:
            if column.is_list:
                pair = [outputs.pop(column.name + part, None) for part in (_VALUES, _OFFSETS)]
                if (pair[0] is None) != (pair[1] is None):
                    raise ValueError(
                        f"Inputs must have both '{column.name}{_VALUES}' and '{column.name}{_OFFSETS}'. "
                        f"Received: {sorted(inputs)}"
                    )
                if pair[0] is not None:
                    outputs[column.name] = tuple(_flat(part) for part in pair)
                if column.name in outputs:
                    outputs[column.name] = self._list(column, outputs[column.name])
        return outputs

    def _list(self, column: ColumnSchema, value: Any) -> Any:
        if not is_list_form(value):
            return value
        length = column.value_count[1] or None if column.value_count is not None else None
        if is_symbolic(value):
            dtype = (value[0] if isinstance(value, tuple | list) else value).dtype
            shape = (None, length if self.list_as_dense else None)
            return keras.KerasTensor(shape, dtype, ragged=not self.list_as_dense)
        return to_dense(value, length, column.name) if self.list_as_dense else to_ragged(value, name=column.name)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "list_as_dense": self.list_as_dense}


@BLOCKS.register("prepare_features")
@register
class PrepareFeatures(PrepareListFeatures):
    """:class:`PrepareListFeatures`, and for the other columns (batch,) to (batch, 1).

    Args:
        schema, list_as_dense: as for the lists.

    Call arguments:
        inputs: dictionary.
        targets: None, a tensor, or a dictionary. In a dictionary, columns of the schema get the schema's dtype; (batch,)
            becomes (batch, 1).
        sample_weight: passed on.

    Returns:
        The dictionary; with targets, a ``Prediction`` of dictionary, targets and weights.

    Example:
        >>> import numpy as np
        >>> from merlin_models.schema import ColumnSchema, Schema
        >>> from merlin_models.transforms import PrepareFeatures
        >>> PrepareFeatures(Schema([ColumnSchema("age")]))({"age": np.array([20, 30])})["age"].shape
        TensorShape([2, 1])
    """

    def call(
        self, inputs: Mapping[str, Any], targets: Any = None, sample_weight: Any = None, training: bool | None = None
    ) -> Any:
        outputs = self._lists(inputs)
        for column in self.columns:
            if not column.is_list and column.name in outputs:
                outputs[column.name] = _column(outputs[column.name])
        if targets is None:
            return outputs
        return Prediction(outputs, map_features(self._target, targets, ""), sample_weight)

    def _target(self, name: str, target: Any) -> Any:
        dtype = self.columns[name].dtype if name in self.columns else None
        target = target if dtype is None else ops.cast(target, dtype.name)
        return target if is_list_form(target) else _column(target)


@register
class Rename(Block):
    """Gives features other names.

    Args:
        renames: old name -> new name. A key may also be a tag, for the only column of ``schema`` that has it.
        schema: where the columns of tags are looked up.

    Call arguments:
        inputs: dictionary with all the old names. Others are passed on.

    Raises:
        ValueError: if a tag belongs to no or several columns, an old name is missing, or a new name is taken.

    Example:
        >>> import numpy as np
        >>> from merlin_models.transforms import Rename
        >>> sorted(Rename({"movieId": "item_id"})({"movieId": np.ones(2), "age": np.ones(2)}))
        ['age', 'item_id']
    """

    def __init__(self, renames: Mapping[Any, str], schema: Schema | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.renames = {_old_name(old, schema): str(new) for old, new in renames.items()}
        if not self.renames or len(set(self.renames.values())) < len(self.renames):
            raise ValueError(f"renames must be one or several, to names of their own. Received: {self.renames}")

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        missing = sorted(set(self.renames) - set(inputs))
        if missing:
            raise ValueError(f"Inputs must have {sorted(self.renames)}. Received: {sorted(inputs)}; missing: {missing}")
        taken = sorted(set(self.renames.values()) & (set(inputs) - set(self.renames)))
        if taken:
            raise ValueError(f"New names must not be names of other inputs. Received: {taken}")
        return {self.renames.get(name, name): value for name, value in inputs.items()}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "renames": dict(self.renames)}


@BLOCKS.register("expand_dims", "expand-dims")
@register
class ExpandDims(Block):
    """A new axis of length 1.

    Args:
        expand_dims: where, for all features; or a dictionary feature -> where, and the others stay as they are.

    Call arguments:
        inputs: a dictionary, or with one number also a tensor.

    Example:
        >>> import numpy as np
        >>> from merlin_models.transforms import ExpandDims
        >>> ExpandDims()(np.ones((2, 3))).shape
        TensorShape([2, 3, 1])
    """

    def __init__(self, expand_dims: int | Mapping[str, int] = -1, **kwargs: Any):
        super().__init__(**kwargs)
        axes = expand_dims.values() if isinstance(expand_dims, Mapping) else [expand_dims]
        if not axes or not all(isinstance(axis, int) for axis in axes):
            raise ValueError(f"expand_dims must be an integer or a dictionary of integers. Received: {expand_dims!r}")
        self.expand_dims = dict(expand_dims) if isinstance(expand_dims, Mapping) else expand_dims

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if isinstance(self.expand_dims, int):
            return map_features(lambda name, value: ops.expand_dims(value, self.expand_dims), inputs)
        missing = sorted(set(self.expand_dims) - set(inputs if isinstance(inputs, Mapping) else ()))
        if missing:
            raise ValueError(f"Inputs must be a dictionary with {sorted(self.expand_dims)}. Missing: {missing}")
        return {
            name: ops.expand_dims(value, self.expand_dims[name]) if name in self.expand_dims else value
            for name, value in inputs.items()
        }

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "expand_dims": self.expand_dims}


@BLOCKS.register("continuous-powers")
@register
class ContinuousPowers(Block):
    """Adds the square root and the square of each floating-point feature, as ``<name>_sqrt`` and ``<name>_pow``.

    Numbers below zero have the square root 0. Other features are passed on.

    Call arguments:
        inputs: dictionary feature -> tensor of any shape, or ragged.

    Returns:
        The dictionary, with two more entries of the same shape and dtype for each floating-point feature.

    Example:
        >>> import numpy as np
        >>> from merlin_models.transforms import ContinuousPowers
        >>> out = ContinuousPowers()({"age": np.array([4.0])})
        >>> {name: float(value[0]) for name, value in out.items()}
        {'age': 4.0, 'age_sqrt': 2.0, 'age_pow': 16.0}

    Reference:
        Covington et al., Deep Neural Networks for YouTube Recommendations, 2016, https://doi.org/10.1145/2959100.2959190
    """

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        outputs: dict[str, Any] = {}
        for name, value in inputs.items():
            outputs[name] = value
            if not isinstance(value, tuple | list) and keras.backend.is_float_dtype(
                keras.backend.standardize_dtype(value.dtype)
            ):
                outputs[f"{name}_sqrt"] = ops.sqrt(ops.relu(value))
                outputs[f"{name}_pow"] = ops.square(value)
        return outputs


def _flat(x: Any) -> Any:
    return ops.reshape(x, (-1,))


def _column(x: Any) -> Any:
    return ops.reshape(x, (-1, 1)) if rank_of(x) in (None, 1) else x


def _old_name(old: Any, schema: Schema | None) -> str:
    if not isinstance(old, Tags):
        return str(old)
    if schema is None:
        raise ValueError(f"schema must be given where a key of renames is a tag. Received: {old!r} and no schema")
    names = schema.select_by_tag(old).column_names
    if len(names) != 1:
        raise ValueError(f"A tag in renames must belong to one column. Received: '{old}', which {names} have")
    return names[0]
