"""Blocks on dictionaries of features: TabularBlock and the small ones that select, name and pass on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from merlin_models.blocks.aggregation import Aggregation, ElementwiseSumItemMulti, get_aggregation
from merlin_models.blocks.base import Block, register, with_own_arguments
from merlin_models.blocks.registry import get_block
from merlin_models.schema import Schema, Tags


@register
class TabularBlock(Block):
    """A block on a dictionary of features: ``pre``, then its own ``transform``, then ``post``, then
    ``aggregation``.

    Args:
        pre, post: layers for the dictionaries before and after, names of blocks in ``BLOCKS`` such as "as-dense", or None.
        aggregation: a name such as "concat", an ``Aggregation``, or None to keep the dictionary.
        schema: the columns that the block reads, or None.

    Call arguments:
        inputs: dictionary feature -> tensor.

    Returns:
        What the last of these steps makes.

    Raises:
        TypeError: if ``schema`` is no schema, or a layer is neither a layer nor a name.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> class Doubled(ml.TabularBlock):
        ...     def transform(self, inputs):
        ...         return {name: 2 * value for name, value in inputs.items()}
        >>> Doubled(aggregation="concat")({"a": np.ones((2, 1)), "b": np.ones((2, 2))}).shape
        TensorShape([2, 3])
    """

    def __init__(
        self,
        pre: keras.layers.Layer | str | None = None,
        post: keras.layers.Layer | str | None = None,
        aggregation: str | Aggregation | None = None,
        schema: Schema | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if schema is not None and not isinstance(schema, Schema):
            raise TypeError(f"schema must be a Schema or None. Received: {type(schema).__name__}")
        self.pre, self.post = get_block(pre), get_block(post)
        self.aggregation = get_aggregation(aggregation)
        self._schema = schema
        self._tell_aggregation(schema)

    def _tell_aggregation(self, schema: Schema | None) -> None:
        """Gives the block's schema to an aggregation that needs one and has none."""
        if isinstance(self.aggregation, ElementwiseSumItemMulti) and schema is not None:
            self.aggregation.take_schema(schema)

    @property
    def schema(self) -> Schema | None:
        return self._schema

    def transform(self, inputs: Any) -> Any:
        """What the block does between ``pre`` and ``post``."""
        return inputs

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        # Keras hands `training` to the sublayers.
        if self.pre is not None:
            inputs = self.pre(inputs)
        outputs = self.transform(inputs)
        if self.post is not None:
            outputs = self.post(outputs)
        return outputs if self.aggregation is None else self.aggregation(outputs)

    def get_config(self) -> dict[str, Any]:
        parts = {"pre": self.pre, "post": self.post, "aggregation": self.aggregation}
        config = {
            **super().get_config(),
            **{name: keras.saving.serialize_keras_object(part) for name, part in parts.items()},
            "schema": None if self._schema is None else self._schema.to_json(),
        }
        return with_own_arguments(self, TabularBlock, config)


@register
class NoOp(Block):
    """Returns its input.

    Example:
        >>> import merlin_models.tf as ml
        >>> block = ml.ParallelBlock({"deep": ml.MLPBlock([8]), "as it is": ml.NoOp()}, aggregation="concat")
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return inputs


@register
class AsTabular(Block):
    """A tensor under a name: ``{name: tensor}``.

    Args:
        output_name: the key.

    Call arguments:
        inputs: a tensor of any shape.

    Raises:
        TypeError: if it is called on a dictionary.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> sorted(ml.AsTabular("scores")(np.ones((2, 1))))
        ['scores']
    """

    def __init__(self, output_name: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.output_name = output_name

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        if isinstance(inputs, Mapping):
            raise TypeError(f"Inputs of AsTabular must be one tensor. Received: a dictionary with {sorted(inputs)}")
        return {self.output_name: inputs}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "output_name": self.output_name}


@register
class Filter(Block):
    """Keeps (or, with ``exclude``, drops) some entries of a dictionary.

    Args:
        feature: a name, several names, a ``Schema``, or a ``Tags`` member together with ``schema``.
        exclude: whether to drop these and keep the rest.
        schema: where the columns of a tag are looked up.

    Call arguments:
        inputs: dictionary name -> tensor of any shape.

    Returns:
        The entries that are kept, as they came.

    Raises:
        ValueError: when called on a dictionary of which nothing remains.

    Example:
        >>> import numpy as np
        >>> from merlin_models.blocks import Filter
        >>> sorted(Filter("a", exclude=True)({"a": np.ones(2), "b": np.ones(2), "c": np.ones(2)}))
        ['b', 'c']
    """

    def __init__(
        self,
        feature: str | Sequence[str] | Schema | Tags,
        exclude: bool = False,
        schema: Schema | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if isinstance(feature, Tags):
            if schema is None:
                raise ValueError(f"schema must be given where feature is a tag. Received: {feature!r} and no schema")
            feature = schema.select_by_tag(feature)
        elif schema is not None:
            raise ValueError("schema must be None unless feature is a tag, whose columns it tells.")
        names = feature.column_names if isinstance(feature, Schema) else feature
        self.names = [names] if isinstance(names, str) else [str(name) for name in names]
        self.exclude = exclude

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        if not isinstance(inputs, Mapping):
            raise TypeError(f"Inputs of Filter must be a dictionary. Received: {type(inputs).__name__}")
        kept = {name: value for name, value in inputs.items() if (name in self.names) != self.exclude}
        if not kept:
            rule = "something beside" if self.exclude else "one of"
            raise ValueError(f"Inputs of Filter must have {rule} {self.names}. Received: {sorted(inputs)}")
        return kept

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "feature": list(self.names), "exclude": self.exclude}


@register
class DebugBlock(Block):
    """Returns its input, and prints its structure when Python runs through it (in a graph once a trace).

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> _ = ml.DebugBlock(block_name="here")({"age": np.ones((2, 1), "float32")})
        here: {'age': '(None, 1) float32'}
        here: {'age': '(2, 1) float32'}
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        print(f"{self.block_name}: {keras.tree.map_structure(_describe, inputs)}")
        return inputs


def _describe(tensor: Any) -> str:
    return f"{tuple(tensor.shape)} {keras.backend.standardize_dtype(tensor.dtype)}"
