"""MultiOptimizer: one optimizer for some blocks, another for others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras

from merlin_models.layers import EmbeddingBag, EmbeddingBagCollection
from merlin_models.ops.lookups import LookupOutput
from merlin_models.optimizers.row_sparse import RowSparse, StepsRows, is_table
from merlin_models.optimizers.rules import EmbeddingOptimizer


@dataclasses.dataclass(frozen=True)
class TablesOf:
    """Some tables of a collection, where a block is expected; see :func:`split_embeddings_on_size`."""

    collection: EmbeddingBagCollection
    names: tuple[str, ...]

    @property
    def variables(self) -> list[Any]:
        tables = self.collection.tables if self.collection.built else {}
        return [tables[name] for name in self.names if name in tables]


@dataclasses.dataclass(frozen=True)
class OptimizerBlocks:
    """An optimizer and the blocks that it trains.

    Attributes:
        optimizer: a Keras optimizer, its name or its config; a ``RowSparse``; or an :class:`EmbeddingOptimizer` such as
            ``LazyAdam(0.01)``, whose Keras form trains what is no table, at the same learning rate.
        blocks: a layer, tables of :func:`split_embeddings_on_size`, or several of these.

    Raises:
        TypeError: if a block is neither.

    Example:
        >>> import merlin_models.tf as ml
        >>> tower = ml.MLPBlock([8])
        >>> parts = ml.OptimizerBlocks("sgd", tower), ml.OptimizerBlocks(ml.RowwiseAdagrad(0.05), ml.EmbeddingBag(10, 4))
        >>> optimizer = ml.MultiOptimizer(list(parts), default_optimizer="adam")
    """

    optimizer: Any
    blocks: Any

    def __post_init__(self) -> None:
        blocks = self.blocks if isinstance(self.blocks, list | tuple) else [self.blocks]
        for block in blocks:
            if not isinstance(block, keras.layers.Layer | TablesOf):
                raise TypeError(f"blocks must be layers, or tables of split_embeddings_on_size. Received: {block!r}")
        object.__setattr__(self, "blocks", tuple(blocks))


class PartOptimizer(RowSparse):
    """The optimizer of some of the variables: of a lookup of several tables it steps its own."""

    def _warn_of_dense_steps(self) -> None:
        pass  # not before it is known whether there are tables

    def build(self, variables: Sequence[Any]) -> None:
        if not self.built and not self.steps_rows and any(is_table(variable) for variable in variables):
            super()._warn_of_dense_steps()
        super().build(variables)

    def _has_state(self, table: Any) -> bool:
        return table.trainable and self._var_key(table) in self.__dict__["_tables"]


@keras.saving.register_keras_serializable("merlin_models")
class MultiOptimizer(StepsRows, keras.optimizers.Optimizer):
    """Trains blocks by optimizers of their own, and the rest by another.

    Each optimizer steps the embedding tables among its variables by rows, by its own row-sparse form, see
    :class:`RowSparse`. Its learning rate, clipping (by a global norm, too), moving averages and gradient accumulation are
    those of its variables. ``learning_rate`` and ``iterations`` of the whole are those of the default optimizer, which is
    ``optimizer.parts[0]``, so callbacks that set the learning rate set that one; the others follow in ``parts``.

    Args:
        optimizer_blocks: :class:`OptimizerBlocks`. Blocks of two of them must not share weights.
        default_optimizer: for all other variables; as ``optimizer`` of :class:`OptimizerBlocks`.

    Raises:
        ValueError: if there are no blocks; if an optimizer is a wrapper such as ``LossScaleOptimizer``; when built, if two
            optimizers get one variable, or a block is not of the model.

    Example:
        >>> import merlin_models.tf as ml
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical(name, rows) for name, rows in [("a", 9), ("b", 9999)]])
        >>> inputs = ml.InputBlock(schema)
        >>> large, small = ml.split_embeddings_on_size(inputs, threshold=1000)
        >>> optimizer = ml.MultiOptimizer(
        ...     [ml.OptimizerBlocks(ml.RowwiseAdagrad(0.05), large), ml.OptimizerBlocks("sgd", small)], "adam"
        ... )
        >>> model = ml.Model(inputs, ml.MLPBlock([8]), ml.BinaryClassificationTask("click"))
        >>> model.compile(optimizer)
    """

    def __init__(
        self,
        optimizer_blocks: Sequence[OptimizerBlocks],
        default_optimizer: Any = "rmsprop",
        name: str | None = None,
        **kwargs: Any,
    ):
        if kwargs:
            raise ValueError(
                f"MultiOptimizer takes optimizer_blocks, default_optimizer and name. Received: {sorted(kwargs)}"
            )
        groups = list(optimizer_blocks)
        if not groups or not all(isinstance(group, OptimizerBlocks) for group in groups):
            raise ValueError(f"optimizer_blocks must hold one or several OptimizerBlocks. Received: {groups}")
        super().__init__(learning_rate=0.0, name=name)
        self._set_parts([default_optimizer, *(group.optimizer for group in groups)])
        self.__dict__["_blocks"] = [(), *(group.blocks for group in groups)]  # no tracking: they are the model's
        self._assignment: tuple[int, ...] | None = None

    def _set_parts(self, optimizers: Sequence[Any]) -> None:
        self.parts = [_part(optimizer) for optimizer in optimizers]  # the default one first
        factors = {part.inner_optimizer.loss_scale_factor for part in self.parts}
        if len(factors) > 1:
            raise ValueError(f"Optimizers must have the same loss_scale_factor. Received: {sorted(map(str, factors))}")

    @property
    def steps_rows(self) -> bool:
        return any(part.steps_rows for part in self.parts)

    # ---- who trains what ----

    def _part_of_variable(self, variable: Any) -> int:
        """The index of a variable's optimizer, by the blocks; 0 for the default."""
        found = [
            i
            for i, blocks in enumerate(self.__dict__["_blocks"])
            if any(variable is own for block in blocks for own in block.variables)
        ]
        if len(found) > 1:
            raise ValueError(
                f"Blocks of different optimizers must not share weights. Received: '{_path(variable)}' in "
                f"optimizer_blocks {[i - 1 for i in found]}"
            )
        return found[0] if found else 0

    def _part_of(self, variable: Any) -> PartOptimizer:
        if self.built:
            return self.parts[self.__dict__["_index"][self._var_key(variable)]]
        return self.parts[self._part_of_variable(variable)]

    def takes(self, variable: Any) -> bool:
        """Whether a variable is a table that its optimizer steps by rows."""
        if not self.built and self._assignment is not None:
            return False  # loaded, and not known before the model is built
        if self.built and self._var_key(variable) not in self.__dict__["_index"]:
            return False
        return self._part_of(variable).takes(variable)

    def build(self, variables: Sequence[Any]) -> None:
        if self.built:
            return
        variables = list(variables)
        if self._assignment is None:
            self._check_blocks(variables)
            self._assignment = tuple(self._part_of_variable(variable) for variable in variables)
        elif len(self._assignment) != len(variables):
            raise ValueError(
                f"The model must have the {len(self._assignment)} trained variables that the optimizer was saved with. "
                f"Received: {len(variables)}"
            )
        pairs = list(zip(variables, self._assignment, strict=True))
        for i, part in enumerate(self.parts):
            part.build([variable for variable, own in pairs if own == i])
        self.__dict__["_index"] = {self._var_key(variable): own for variable, own in pairs}
        super().build(variables)

    def _check_blocks(self, variables: list[Any]) -> None:
        for group in self.__dict__["_blocks"]:
            for block in group:
                own = [variable for variable in block.variables if variable.trainable]
                foreign = own and not any(variable is known for variable in own for known in variables)
                if foreign or not block.variables:
                    raise ValueError(
                        f"Blocks of a MultiOptimizer must be of the model, and have weights. Received: {block}"
                    )

    # ---- what is the parts' ----

    @property
    def iterations(self) -> Any:
        return self.parts[0].iterations

    @property
    def learning_rate(self) -> Any:
        return self.parts[0].learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.parts[0].learning_rate = learning_rate

    @property
    def variables(self) -> list[keras.Variable]:
        return [*self._variables, *(variable for part in self.parts for variable in part.variables)]

    def scale_loss(self, loss: Any) -> Any:
        return self.parts[0].scale_loss(loss)

    def finalize_variable_values(self, var_list: Any) -> None:
        for part, own in zip(self.parts, self._by_part(var_list, lambda variable: variable), strict=True):
            part.finalize_variable_values(own)

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        for part in self.parts:
            part.exclude_from_weight_decay(var_list, var_names)

    # ---- steps ----

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """One step of all parts; arguments as in :meth:`RowSparse.apply`."""
        variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        if not self.built:
            with keras.name_scope(self.name, caller=self):
                self.build([variable for variable in variables if not isinstance(variable, LookupOutput)])
        pairs = list(zip(grads, variables, strict=True))
        if all(grad is None for grad, _ in pairs):
            raise ValueError("No gradients provided for any variable.")
        for part, own in zip(self.parts, self._by_part(pairs, lambda pair: pair[1]), strict=True):
            if any(grad is not None for grad, _ in own):
                part.apply(*zip(*own, strict=True))
            else:
                part.inner_optimizer._iterations.assign_add(1)

    def _by_part(self, items: Sequence[Any], variable_of: Callable[[Any], Any]) -> list[list[Any]]:
        """Items for each part; those of a lookup's output for all parts that train a table of it."""
        own: list[list[Any]] = [[] for _ in self.parts]
        index = self.__dict__["_index"]
        for item in items:
            variable = variable_of(item)
            if isinstance(variable, LookupOutput):
                lookup = variable.lookup
                tables = [
                    lookup.tables[t]
                    for t, place in zip(lookup.table_of_feature, lookup.places, strict=True)
                    if place[0] == variable.index
                ]
                for i in sorted({index[self._var_key(table)] for table in tables if table.trainable}):
                    own[i].append(item)
            elif self._var_key(variable) in index:
                own[index[self._var_key(variable)]].append(item)
            else:
                raise ValueError(
                    f"Variables must be those that the optimizer was built with. Received: '{_path(variable)}'"
                )
        return own

    # ---- saving ----

    def save_own_variables(self, store: Any) -> None:
        pass  # Keras saves the parts, which hold all of it, for themselves

    def load_own_variables(self, store: Any) -> None:
        pass

    def get_config(self) -> dict[str, Any]:
        if self._assignment is None:
            raise ValueError(
                "A MultiOptimizer must be built to be saved: blocks become places in the list of variables."
            )
        given = [part._given_rule for part in self.parts]
        return {
            "name": self.name,
            "optimizers": [keras.optimizers.serialize(part.inner_optimizer) for part in self.parts],
            "embeddings": [None if rule is None else keras.saving.serialize_keras_object(rule) for rule in given],
            "assignment": list(self._assignment),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> MultiOptimizer:
        optimizers = [
            PartOptimizer(keras.optimizers.deserialize(dict(optimizer), custom_objects=custom_objects), rule)
            for optimizer, rule in zip(config["optimizers"], config["embeddings"], strict=True)
        ]
        made = cls.__new__(cls)
        keras.optimizers.Optimizer.__init__(made, learning_rate=0.0, name=config["name"])
        made._set_parts(optimizers)
        made.__dict__["_blocks"] = [() for _ in optimizers]
        made._assignment = tuple(config["assignment"])
        return made


def _part(optimizer: Any) -> PartOptimizer:
    if isinstance(optimizer, EmbeddingOptimizer):
        return PartOptimizer.of_rule(optimizer)
    if isinstance(optimizer, RowSparse):
        return PartOptimizer(optimizer.inner_optimizer, optimizer._given_rule)
    if isinstance(optimizer, MultiOptimizer):
        raise ValueError("optimizer must not be a MultiOptimizer within another.")
    return PartOptimizer(optimizer)


def _path(variable: Any) -> str:
    return getattr(variable, "path", variable.name)


def split_embeddings_on_size(embeddings: keras.layers.Layer, threshold: int) -> tuple[list[Any], list[Any]]:
    """The tables of a block in two lists for :class:`OptimizerBlocks`: (large, small).

    Args:
        embeddings: a block with tables, such as ``Embeddings(schema)`` or an ``InputBlock``.
        threshold: tables of at least so many rows are large.

    Returns:
        Two lists, either of which may be empty.

    Raises:
        ValueError: if there is no table.

    Example:
        >>> import merlin_models.tf as ml
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical(name, rows) for name, rows in [("a", 9), ("b", 9999)]])
        >>> large, small = ml.split_embeddings_on_size(ml.Embeddings(schema), threshold=1000)
        >>> large[0].names, small[0].names
        (('b',), ('a',))
    """
    large: list[Any] = []
    small: list[Any] = []
    for layer in embeddings._flatten_layers():
        if isinstance(layer, EmbeddingBagCollection):
            rows = {name: table.input_dim for name, table in layer.table_configs.items()}
            for found, chosen in ((large, True), (small, False)):
                names = tuple(name for name, number in rows.items() if (number >= threshold) == chosen)
                found.extend([TablesOf(layer, names)] if names else [])
        elif isinstance(layer, EmbeddingBag | keras.layers.Embedding):
            (large if layer.input_dim >= threshold else small).append(layer)
    if not large and not small:
        raise ValueError(f"embeddings must be a block with embedding tables. Received: {embeddings}")
    return large, small
