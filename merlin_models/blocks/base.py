"""Block: a Keras layer that connects with others."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import keras

from merlin_models.blocks.registry import get_block
from merlin_models.blocks.sharing import apart_from_files, marking_shared_layers, reading_marks
from merlin_models.blocks.symbolic import SymbolicBuild


def register(cls: type) -> type:
    """Registers a class for saving, under the package's name."""
    return keras.saving.register_keras_serializable(package="merlin_models")(cls)


class Block(SymbolicBuild, keras.layers.Layer):
    """A layer that takes a tensor or a dictionary of tensors and connects with other layers.

    Subclasses write ``call`` with ``keras.ops`` and sublayers. A block with variables of its own writes
    ``build`` as any Keras layer does.

    Args:
        block_name: what :meth:`select_by_name` finds, beside the Keras name.
        **kwargs: of ``keras.layers.Layer``.

    Example:
        >>> import merlin_models.tf as ml
        >>> body = ml.MLPBlock([64]).connect(ml.MLPBlock([32]))
        >>> body.compute_output_shape((None, 10))
        (None, 32)
    """

    is_input = False

    def __init__(self, block_name: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self._block_name = block_name
        self.supports_masking = True

    @property
    def block_name(self) -> str:
        """The name in shortcuts and debugging, by default the layer's."""
        return self._block_name or self.name

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        # Layers inside have put masks on what they return. Keras' own rule, to pass on the input's, would put that of a
        # sequence on a pooled vector.
        return None

    # ---- connecting ----

    def connect(self, *blocks: keras.layers.Layer | str, block_name: str | None = None) -> Any:
        """This block, then the others, each on the output of the one before.

        Args:
            blocks: layers, or names of blocks in ``BLOCKS`` that need no arguments, such as "as-dense".
            block_name: of the result.

        Returns:
            A ``SequentialBlock``, or a ``Model`` if the last block is a prediction task.
        """
        return _sequence([self, *blocks], block_name)

    def __rshift__(self, other: keras.layers.Layer) -> Any:
        if not isinstance(other, keras.layers.Layer):
            return NotImplemented
        return _sequence([self, other])

    def __rrshift__(self, other: keras.layers.Layer | Sequence[str]) -> Any:
        if not isinstance(other, keras.layers.Layer) and not _are_names(other):
            return NotImplemented
        return right_shift_layer(self, other)

    def connect_branch(
        self,
        *branches: keras.layers.Layer | dict,
        add_rest: bool = False,
        post: Any = None,
        aggregation: Any = None,
    ) -> Any:
        """This block, then several on its output, side by side.

        Args:
            branches: layers, or one dictionary of them. If all are prediction tasks, the result is a
                ``Model``.
            add_rest: whether one more branch, "rest", passes on what no other branch takes. Each of the others must
                then say what it takes: by a schema, or by a ``Filter`` in front.
            post: a layer for the dictionary of their outputs.
            aggregation: how the outputs become one tensor: a name such as "concat", or an ``Aggregation``.
                Without it, the output is a dictionary.
        """
        from merlin_models.blocks.combinators import ParallelBlock, rest_of
        from merlin_models.tasks import ParallelPredictionBlock, PredictionTask

        named = len(branches) == 1 and isinstance(branches[0], dict)
        layers = list(branches[0].values()) if named else list(branches)
        if layers and all(isinstance(layer, PredictionTask) for layer in layers):
            if post is not None or aggregation is not None or add_rest:
                raise ValueError("post, aggregation and add_rest must not be given where all branches are tasks.")
            return _sequence([self, ParallelPredictionBlock(*layers)])
        parallel = ParallelBlock(*branches, post=post, aggregation=aggregation)
        if add_rest:
            parallel.add_branch("rest", rest_of(parallel.branches))
        return _sequence([self, parallel])

    def connect_with_residual(self, block: keras.layers.Layer, activation: Any = None) -> Any:
        """This block, then ``activation(x + block(x))``."""
        from merlin_models.blocks.combinators import ResidualBlock

        return _sequence([self, ResidualBlock(block, activation=activation)])

    def connect_with_shortcut(
        self,
        block: keras.layers.Layer,
        shortcut_filter: Any = None,
        post: Any = None,
        aggregation: Any = None,
        block_outputs_name: str | None = None,
    ) -> Any:
        """This block, then ``block`` beside its own input.

        Args:
            block: runs on this block's output.
            shortcut_filter: a ``Filter`` for what the shortcut carries, or None for all.
            post, aggregation: as in :meth:`connect_branch`.
            block_outputs_name: key of the block's output; its name if None.

        Returns:
            A sequence whose output is ``{"shortcut": x, <name>: block(x)}``; where x or block(x) is itself a
            dictionary, its entries take the place of the key.
        """
        from merlin_models.blocks.combinators import ParallelBlock
        from merlin_models.blocks.tabular import NoOp

        name = block_outputs_name or getattr(block, "block_name", block.name)
        branches = {"shortcut": NoOp() if shortcut_filter is None else shortcut_filter, name: block}
        return _sequence([self, ParallelBlock(branches, post=post, aggregation=aggregation)])

    def connect_debug_block(self, append: bool = True) -> Any:
        """A ``DebugBlock`` after (or, with ``append=False``, before) this block."""
        from merlin_models.blocks.tabular import DebugBlock

        return _sequence([self, DebugBlock()] if append else [DebugBlock(), self])

    def prepare(self, block: keras.layers.Layer | None = None, post: Any = None, aggregation: Any = None) -> Any:
        """Something before this block: ``block``, or post-processing and an aggregation of its inputs."""
        from merlin_models.blocks.tabular import TabularBlock

        options = post is not None or aggregation is not None
        if (block is None) != options:
            raise ValueError(
                "prepare must get either block, or post and aggregation. "
                f"Received: block={block}, post={post}, aggregation={aggregation}"
            )
        return _sequence([block or TabularBlock(post=post, aggregation=aggregation), self])

    def as_tabular(self, name: str) -> Any:
        """The output under a name: ``{name: output}``."""
        from merlin_models.blocks.tabular import AsTabular

        return _sequence([self, AsTabular(name)])

    # ---- repeating ----

    def copy(self) -> Any:
        """A new block of the same configuration, with weights of its own."""
        return copy_of(self)

    def repeat(self, num: int = 1) -> Any:
        """``num`` copies in sequence."""
        if num < 1:
            raise ValueError(f"num must be at least 1. Received: {num}")
        return _sequence([self.copy() for _ in range(num)])

    def repeat_in_parallel(
        self,
        num: int = 1,
        prefix: str | None = None,
        names: Sequence[str] | None = None,
        post: Any = None,
        aggregation: Any = None,
        copies: bool = True,
        residual: bool = False,
    ) -> Any:
        """``num`` copies side by side, on the same input.

        Args:
            num: how many; ignored by ``names``, which has one name a copy.
            prefix: their keys are ``prefix`` followed by 0, 1, ...; without it just the number.
            names: the keys.
            post, aggregation: as in :meth:`connect_branch`.
            copies: False for this very block in every place.
            residual: whether the input itself is one more branch, "shortcut".
        """
        from merlin_models.blocks.combinators import ParallelBlock
        from merlin_models.blocks.tabular import NoOp

        if num < 1:
            raise ValueError(f"num must be at least 1. Received: {num}")
        if names is not None and prefix is not None:
            raise ValueError(f"names and prefix must not be given together. Received: {names} and {prefix!r}")
        keys = list(names) if names is not None else [f"{prefix or ''}{i}" for i in range(num)]
        branches: dict[str, keras.layers.Layer] = {key: self.copy() if copies else self for key in keys}
        if residual:
            branches["shortcut"] = NoOp()
        return ParallelBlock(branches, post=post, aggregation=aggregation)

    # ---- finding ----

    def select_by_name(self, name: str) -> keras.layers.Layer | None:
        """The first block or layer of that name, here or below, or None."""
        for layer in self._flatten_layers():
            if name in (layer.name, getattr(layer, "block_name", None)):
                return layer
        return None

    def get_config(self) -> dict[str, Any]:
        return with_own_arguments(self, Block, {**super().get_config(), "block_name": self._block_name})


def with_own_arguments(layer: keras.layers.Layer, base: type, config: dict[str, Any]) -> dict[str, Any]:
    """The config that a base class makes, with the arguments of a constructor that a user's class has.

    As Keras does for its layers: a class with an ``__init__`` and no ``get_config`` of its own keeps arguments that are
    numbers, strings and the like, or lists of these.

    Args:
        layer: whose config it is.
        base: the class that calls this, at the end of its ``get_config``.
        config: of that class.

    Raises:
        NotImplementedError: for arguments of other kinds, which would be lost in a file.
    """
    writes, made = (next(c for c in type(layer).__mro__ if name in vars(c)) for name in ("get_config", "__init__"))
    if writes is not base or issubclass(base, made):
        return config
    parameters = list(inspect.signature(made.__init__).parameters.values())[1:]
    if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
        taken = {parameter.name for parameter in parameters}
        config = {name: value for name, value in config.items() if name in taken}
    named = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    own = [name for name in named if name not in config]
    if not own:
        return config
    given = _plain_arguments(layer, own)
    if given is None:
        raise NotImplementedError(
            f"{type(layer).__name__} must have a get_config() that returns the arguments of its __init__, where they are not "
            f"all numbers, strings or lists of these. Received: no get_config(), and the arguments {own}"
        )
    return {**config, **{name: given[name] for name in own}}


def _plain_arguments(layer: keras.layers.Layer, names: Sequence[str]) -> dict[str, Any] | None:
    """What the constructor of a layer got for these arguments; None if it is not all numbers, strings and the like."""
    if not isinstance(layer, keras.Model):
        recorded = getattr(layer, "_auto_config", None)  # Keras' record, which models do not have
        return None if recorded is None else recorded.config
    args, kwargs = layer._constructed_with
    bound = inspect.signature(type(layer).__init__).bind(layer, *args, **kwargs)
    bound.apply_defaults()
    given = {name: bound.arguments[name] for name in names}
    plain = all(isinstance(leaf, str | int | float | bool | None) for leaf in keras.tree.flatten(given))
    return given if plain else None


def copy_of(layer: Any, name: str | None = None) -> Any:
    """A new layer of the same configuration, with weights of its own; also with another name."""
    with apart_from_files():
        with marking_shared_layers(layer):
            config = layer.get_config()
        with reading_marks():
            return type(layer).from_config(config if name is None else {**config, "name": name})


def right_shift_layer(right: keras.layers.Layer, left: keras.layers.Layer | Sequence[str]) -> Any:
    """``left >> right`` as a function, also where neither is a block of this library.

    Args:
        right: a layer.
        left: a layer, or the names of the entries of a dictionary that ``right`` shall see.

    Returns:
        As :meth:`Block.connect`.

    Raises:
        TypeError: for anything else.

    Example:
        >>> import keras, numpy as np, merlin_models.tf as ml
        >>> block = ml.right_shift_layer(keras.layers.Dense(4), ["age"])  # ["age"] >> a Keras layer
        >>> block({"age": np.ones((2, 1)), "price": np.ones((2, 1))}).shape
        TensorShape([2, 4])
    """
    from merlin_models.blocks.tabular import Filter

    return _sequence([Filter(left) if _are_names(left) else left, right])


def _are_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(name, str) for name in value)


def _sequence(blocks: Sequence[keras.layers.Layer | str], block_name: str | None = None) -> Any:
    """A Model if the last block predicts, else a SequentialBlock."""
    from merlin_models.blocks.combinators import SequentialBlock
    from merlin_models.models.retrieval import model_of
    from merlin_models.tasks import tasks_of

    blocks = [get_block(block) for block in blocks]
    for block in blocks:
        if not isinstance(block, keras.layers.Layer):
            raise TypeError(f"Blocks must be Keras layers. Received: {block!r}")
    if tasks_of(blocks[-1]):
        return model_of(*blocks, name=block_name)
    return SequentialBlock(blocks, block_name=block_name)
