"""Combinators: blocks one after the other, side by side, and with a residual."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from merlin_models.blocks.aggregation import Aggregation, concat
from merlin_models.blocks.base import Block, copy_of, register
from merlin_models.blocks.masking import mask_of, with_mask
from merlin_models.blocks.ragged_layers import run_layer
from merlin_models.blocks.symbolic import parts_from_config
from merlin_models.blocks.tabular import Filter, TabularBlock
from merlin_models.schema import Schema, Tags


def takes_one_tensor(layer: keras.layers.Layer) -> bool:
    """Whether a dictionary must be concatenated for this layer."""
    return isinstance(layer, keras.layers.Dense | keras.layers.RNN | keras.layers.Bidirectional)


def run_in_sequence(layers: Sequence[keras.layers.Layer], inputs: Any, dtype: str) -> Any:
    """The output of layers in sequence; before Dense and recurrent layers, dictionaries are concatenated in ``dtype``."""
    outputs = inputs
    for layer in layers:
        if takes_one_tensor(layer) and isinstance(outputs, Mapping):
            outputs = concat(outputs, dtype)
        outputs = run_layer(layer, outputs)
    return outputs


@register
class SequentialBlock(Block):
    """Layers one after the other. A dictionary is concatenated, in the order of names, where a Dense or
    recurrent layer follows.

    Args:
        layers: Keras layers and blocks.
        filter: what the first layer sees of a dictionary: a ``Filter`` or its first argument. Becomes the
            first layer.
        pre_aggregation: a name or an ``Aggregation`` for the input. Becomes the next layer.
        block_name: see :class:`Block`.
        copy_layers: whether to copy the layers, so that their weights are not shared.

    Example:
        >>> import keras, numpy as np
        >>> from merlin_models.blocks import SequentialBlock
        >>> block = SequentialBlock([keras.layers.Dense(4), keras.layers.Dense(2)])
        >>> block({"a": np.ones((3, 1)), "b": np.ones((3, 5))}).shape, len(block), len(block[1:])
        (TensorShape([3, 2]), 2, 1)
    """

    def __init__(
        self,
        layers: Sequence[keras.layers.Layer],
        filter: Any = None,
        pre_aggregation: str | Aggregation | None = None,
        block_name: str | None = None,
        copy_layers: bool = False,
        **kwargs: Any,
    ):
        super().__init__(block_name=block_name, **kwargs)
        layers = list(layers)
        if not layers or not all(isinstance(layer, keras.layers.Layer) for layer in layers):
            raise ValueError(f"layers must be one or several Keras layers. Received: {layers}")
        if copy_layers:
            layers = [copy_of(layer) for layer in layers]
        first = []
        if filter is not None:
            first.append(filter if isinstance(filter, Filter) else Filter(filter))
        if pre_aggregation is not None:
            first.append(TabularBlock(aggregation=pre_aggregation))
        self._steps = [*first, *layers]

    @property
    def layers(self) -> list[keras.layers.Layer]:
        return list(self._steps)

    @property
    def schema(self) -> Schema | None:
        return getattr(self._steps[0], "schema", None)

    @property
    def is_input(self) -> bool:
        return getattr(self._steps[0], "is_input", False)

    @property
    def inputs(self) -> keras.layers.Layer:
        """The first layer. Raises ValueError if it is not an input block."""
        if not self.is_input:
            raise ValueError(f"The first layer must be an input block. Received: {self._steps[0]}")
        return self._steps[0]

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        # Keras hands `training` to the sublayers.
        return run_in_sequence(self._steps, inputs, self.compute_dtype)

    def __len__(self) -> int:
        return len(self._steps)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[keras.layers.Layer]:
        return iter(self.layers)

    def __getitem__(self, key: int | slice) -> Any:
        """A layer, or for a slice a SequentialBlock on the same layers."""
        picked = self.layers[key]
        return SequentialBlock(picked) if isinstance(key, slice) else picked

    def __add__(self, other: Any) -> SequentialBlock:
        """The layers of both."""
        if not isinstance(other, SequentialBlock):
            return NotImplemented
        return SequentialBlock([*self.layers, *other.layers])

    def get_config(self) -> dict[str, Any]:
        layers = [keras.saving.serialize_keras_object(layer) for layer in self._steps]
        return {**super().get_config(), "layers": layers}


@register
class ParallelBlock(TabularBlock):
    """Layers side by side, on the same input.

    A branch that has a schema sees only its columns of a dictionary. The output is a dictionary: what a
    branch returns stands under the branch's name, and where it returns a dictionary itself, its entries are
    merged.

    Args:
        *branches: one dictionary of layers; or layers, which are named "0", "1", ...
        pre, post, aggregation: as in :class:`TabularBlock`.
        schema: the columns that all branches together read; from the branches if None and all of them have
            one.
        is_input: whether the inputs are raw features. Then a single feature may come as a bare tensor.
        strict: whether the input must be a dictionary.
        automatic_pruning: whether a branch is left out, and its name missing in the output, where its schema selects
            nothing of the input. True by default, but for raw features (``is_input``): there the branch says what it
            misses.
        use_layer_name: whether branches that are not given as a dictionary are named after their layers instead, whose
            names must differ then. Keras numbers the names that it makes, anew in each process.

    Raises:
        TypeError: if a strict block is called on something else than a dictionary.
        ValueError: if two branches return the same key, or all are left out.

    Example:
        >>> import keras, numpy as np
        >>> from merlin_models.blocks import ParallelBlock
        >>> block = ParallelBlock({"deep": keras.layers.Dense(4), "wide": keras.layers.Dense(1)})
        >>> {name: tuple(out.shape) for name, out in block(np.ones((2, 3))).items()}
        {'deep': (2, 4), 'wide': (2, 1)}
        >>> block["wide"].units
        1
    """

    def __init__(
        self,
        *branches: Any,
        pre: keras.layers.Layer | None = None,
        post: keras.layers.Layer | None = None,
        aggregation: str | Aggregation | None = None,
        schema: Schema | None = None,
        is_input: bool = False,
        strict: bool = False,
        automatic_pruning: bool | None = None,
        use_layer_name: bool = False,
        **kwargs: Any,
    ):
        super().__init__(pre=pre, post=post, aggregation=aggregation, schema=schema, **kwargs)
        self.branches = _named(branches, use_layer_name)
        self.is_input = is_input
        self.strict = strict
        self.automatic_pruning = not is_input if automatic_pruning is None else automatic_pruning
        self._tell_aggregation(self.schema)

    @property
    def schema(self) -> Schema | None:
        if self._schema is not None:
            return self._schema
        schemas = [getattr(branch, "schema", None) for branch in self.branches.values()]
        return None if None in schemas else sum(schemas, start=Schema())

    def add_branch(self, name: str, branch: keras.layers.Layer) -> None:
        """Adds a branch to a block that was not built yet.

        Raises:
            ValueError: if the block is built, or has a branch of that name.
        """
        if self.built:
            raise ValueError(f"Branches must be added before the block is built. Received: {name!r}")
        if name in self.branches:
            raise ValueError(f"Names of branches must be unique. Received again: {name!r}")
        if not isinstance(branch, keras.layers.Layer):
            raise TypeError(f"A branch must be a Keras layer. Received: {branch!r}")
        self.branches[name] = branch

    def transform(self, inputs: Any) -> dict[str, Any]:
        if self.strict and not isinstance(inputs, Mapping):
            raise TypeError(f"Inputs of a strict ParallelBlock must be a dictionary. Received: {type(inputs).__name__}")
        if self.is_input:
            inputs = as_features(inputs, self.schema)
        outputs: dict[str, Any] = {}
        for name, branch in self._fed_by(inputs).items():
            output = run_layer(branch, self._inputs_of(branch, inputs))
            for key, value in output.items() if isinstance(output, Mapping) else [(name, output)]:
                if key in outputs:
                    raise ValueError(
                        f"Branches must return different keys. Received: {key!r} from '{name}' and from another branch"
                    )
                outputs[key] = value
        return outputs

    def _fed_by(self, inputs: Any) -> dict[str, keras.layers.Layer]:
        """The branches that find something in the inputs."""
        if not self.automatic_pruning or not isinstance(inputs, Mapping):
            return dict(self.branches)
        schemas = {name: getattr(branch, "schema", None) for name, branch in self.branches.items()}
        fed = {
            name: self.branches[name]
            for name, schema in schemas.items()
            if not schema or any(column in inputs for column in schema.column_names)
        }
        if not fed:
            needed = sorted({column for schema in schemas.values() for column in schema.column_names})
            raise ValueError(f"Inputs must have a column of a branch, {needed}. Received: {sorted(inputs)}")
        return fed

    def _inputs_of(self, branch: keras.layers.Layer, inputs: Any) -> Any:
        if not isinstance(inputs, Mapping):
            return inputs
        if takes_one_tensor(branch):
            return concat(inputs, self.compute_dtype)
        schema = getattr(branch, "schema", None)
        return inputs if schema is None else schema.filter_columns_from_dict(inputs)

    def __getitem__(self, name: str) -> keras.layers.Layer:
        if name not in self.branches:
            raise KeyError(f"The block has no branch {name!r}; it has {list(self.branches)}")
        return self.branches[name]

    def __contains__(self, name: str) -> bool:
        return name in self.branches

    def __len__(self) -> int:
        return len(self.branches)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self.branches)

    @property
    def layers(self) -> list[keras.layers.Layer]:
        return list(self.branches.values())

    def select_by_name(self, name: str) -> keras.layers.Layer | None:
        """The branch of that name, else the first block or layer of that name below, or None."""
        return self.branches[name] if name in self.branches else super().select_by_name(name)

    def select_by_names(self, names: Sequence[str]) -> ParallelBlock:
        """A block of some branches, which are shared with this one. Raises KeyError for an unknown name."""
        options = {"is_input": self.is_input, "strict": self.strict, "automatic_pruning": self.automatic_pruning}
        return ParallelBlock({name: self[name] for name in names}, **options)

    def select_by_tag(self, tags: Tags | str | Sequence[str]) -> ParallelBlock | None:
        """A block of the branches that read a column with any of the tags, or None if there is none."""
        schemas = {name: getattr(branch, "schema", None) for name, branch in self.branches.items()}
        names = [name for name, schema in schemas.items() if schema is not None and len(schema.select_by_tag(tags))]
        return self.select_by_names(names) if names else None

    def get_config(self) -> dict[str, Any]:
        branches = {name: keras.saving.serialize_keras_object(layer) for name, layer in self.branches.items()}
        options = {name: getattr(self, name) for name in ("is_input", "strict", "automatic_pruning")}
        return {**super().get_config(), "branches": branches, **options}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        parts = parts_from_config(config)
        return cls(parts.pop("branches"), **parts)


@register
class ResidualBlock(Block):
    """``activation(x + block(x))``; a dictionary is concatenated first, in the order of names.

    Args:
        block: a layer whose output has the shape of its input.
        activation: a Keras activation, or None.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> ml.ResidualBlock(ml.MLPBlock([3]), activation="relu")(np.ones((2, 3))).shape
        TensorShape([2, 3])

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2015, https://arxiv.org/abs/1512.03385
    """

    def __init__(self, block: keras.layers.Layer, activation: Any = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.block = block
        self.activation = keras.activations.get(activation)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if isinstance(inputs, Mapping):
            inputs = concat(inputs, self.compute_dtype)
        outputs = run_layer(self.block, inputs)
        if tuple(outputs.shape)[1:] != tuple(inputs.shape)[1:]:
            raise ValueError(
                f"The block of a residual must keep the shape {tuple(inputs.shape)}. Received: {tuple(outputs.shape)}"
            )
        return with_mask(self.activation(inputs + outputs), mask_of(inputs))

    def get_config(self) -> dict[str, Any]:
        block = keras.saving.serialize_keras_object(self.block)
        return {**super().get_config(), "block": block, "activation": keras.activations.serialize(self.activation)}


def as_features(inputs: Any, schema: Schema | None) -> dict[str, Any]:
    """Raw inputs as a dictionary: a bare tensor is the value of the only feature.

    Raises:
        TypeError: if a bare tensor comes for another number of features than one.
    """
    if isinstance(inputs, Mapping):
        return inputs
    names = None if schema is None else schema.column_names
    if names is None or len(names) != 1:
        raise TypeError(
            f"Inputs must be a dictionary from feature to tensor with {names or 'all features'}. "
            f"Received: {type(inputs).__name__}"
        )
    return {names[0]: inputs}


def features_of(inputs: Any, schema: Schema, owner: str) -> dict[str, Any]:
    """The features that a schema names out of what came, as a dictionary; ``owner`` is what an error calls their taker.

    Raises:
        TypeError: as of :func:`as_features`.
        ValueError: if a feature is missing.
    """
    inputs = as_features(inputs, schema)
    missing = sorted(set(schema.column_names) - set(inputs))
    if missing:
        raise ValueError(
            f"Inputs must have all features of the {owner}, {sorted(schema.column_names)}. "
            f"Received: {sorted(inputs)}; missing: {missing}"
        )
    return schema.filter_columns_from_dict(inputs)


def rest_of(branches: Mapping[str, keras.layers.Layer]) -> Filter:
    """What none of the branches takes of a dictionary.

    Raises:
        ValueError: if a branch does not say what it takes.
    """
    taken: set[str] = set()
    for name, branch in branches.items():
        selected = _selected_by(branch)
        if selected is None:
            raise ValueError(
                "With add_rest each branch must have a schema or begin with a Filter of what it takes. "
                f"Received: {name!r}, which has neither"
            )
        taken.update(selected)
    return Filter(sorted(taken), exclude=True)


def _selected_by(layer: keras.layers.Layer) -> list[str] | None:
    """The entries of a dictionary that a layer selects by its schema or by a Filter, or None."""
    if isinstance(layer, SequentialBlock):
        return _selected_by(layer[0])
    if isinstance(layer, Filter):
        return None if layer.exclude else list(layer.names)
    schema = getattr(layer, "schema", None)
    return None if schema is None else schema.column_names


def _named(branches: tuple[Any, ...], use_layer_name: bool) -> dict[str, keras.layers.Layer]:
    if len(branches) == 1 and isinstance(branches[0], Mapping):
        layers, names = list(branches[0].values()), [str(name) for name in branches[0]]
    else:
        one_list = len(branches) == 1 and isinstance(branches[0], list | tuple)
        layers = list(branches[0] if one_list else branches)
        names = [getattr(layer, "name", "") if use_layer_name else str(i) for i, layer in enumerate(layers)]
    if not layers or not all(isinstance(layer, keras.layers.Layer) for layer in layers):
        raise ValueError(f"branches must be one or several Keras layers. Received: {branches}")
    if len(set(names)) != len(names):
        raise ValueError(f"Names of branches must be unique. Received: {names}")
    return dict(zip(names, layers, strict=True))
