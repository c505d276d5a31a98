"""RowSparse: a Keras optimizer that steps embedding tables by the rows that a batch touches."""

from __future__ import annotations

import copy
import dataclasses
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from merlin_models.ops.bags import Bags
from merlin_models.ops.lookups import LookupOutput
from merlin_models.ops.update_rule import UpdateRule
from merlin_models.optimizers.devices import check_one_device
from merlin_models.optimizers.rules import EmbeddingOptimizer, keras_like, rule_like, why_no_rule
from merlin_models.optimizers.table_steps import Contribution, Table, contribution_of, update_tables

_ACCUMULATE = UpdateRule("accumulate")


def is_table(variable: Any) -> bool:
    """Whether a variable is an embedding table that may be stepped by rows.

    Layers of this library mark their tables with ``variable.row_sparse = True``. A Keras regularizer or constraint is one
    of all rows, so a table that has one is trained as Keras does.

    Args:
        variable: a Keras variable.

    Example:
        >>> import keras, merlin_models.optimizers as optimizers
        >>> optimizers.is_table(keras.Variable([[1.0, 2.0]]))  # of no layer that marks it
        False
    """
    marked = getattr(variable, "row_sparse", False) and variable.trainable
    return bool(marked) and variable.regularizer is None and variable.constraint is None


class StepsRows:
    """Marks the optimizers that step tables by rows: ``takes`` says which, and ``apply`` takes ``LookupOutput`` objects."""

    steps_rows = False


@keras.saving.register_keras_serializable("merlin_models")
class RowSparse(StepsRows, keras.optimizers.Optimizer):
    """Wraps a Keras optimizer, and steps embedding tables by rows in one fused op.

    Keras' own optimizers touch every row of a table, and of its state, at each step. Here a step costs what the batch
    touches: the gradient is summed and the row stepped in the same pass, nothing of the size of the table is read or
    written. Rows outside of the batch do not move (lazy); so Adam's moments of a row decay only when it is touched, and
    weight decay acts on touched rows only. All other variables are the wrapped optimizer's.

    Our ``Model`` wraps its optimizer by itself. With ``keras.Model`` use it as the optimizer: tables then get their
    gradient as unique rows, which is written to memory and, on a GPU, waits for the device once a step. A model of
    ``class MyModel(RowSparseTraining, keras.Model)`` has neither.

    Args:
        optimizer: a Keras optimizer, its name or its config. Its learning rate (a schedule, too), iterations, loss scale
            and gradient accumulation are those of the tables as well.
        embeddings: an :class:`EmbeddingOptimizer` for the tables, or None for the row-sparse form of ``optimizer``. If that
            has none (see ``why_no_rule``), a UserWarning says so and the tables are trained as Keras does.
            ``clipnorm``, ``clipvalue``, ``global_clipnorm`` and ``use_ema`` of ``optimizer`` do not apply to tables.

    Raises:
        ValueError: if ``optimizer`` is a wrapper itself; as Keras', when applied without any gradient.
        TypeError: if ``embeddings`` is no EmbeddingOptimizer.
        NotImplementedError: when applied under a ``tf.distribute`` strategy other than ``OneDeviceStrategy``.

    Example:
        >>> import keras, numpy as np
        >>> from merlin_models.layers import EmbeddingBag
        >>> from merlin_models.optimizers import RowSparse, RowwiseAdagrad
        >>> ids = keras.Input((2,), dtype="int64")  # Sequential takes inputs for float32 otherwise
        >>> model = keras.Sequential([ids, EmbeddingBag(1000, 16), keras.layers.Dense(1)])
        >>> model.compile(RowSparse("adam", embeddings=RowwiseAdagrad(0.05)), loss="mse")
        >>> _ = model.fit(np.array([[1, 2], [3, 3]]), np.array([0.0, 1.0]), verbose=0)
        >>> [tuple(variable.shape) for variable in model.optimizer.table_state(model.layers[0].embeddings)]
        [(1000,)]

    Reference:
        TensorFlow Addons' LazyAdam and FBGEMM's fused optimizers have the same semantics.
    """

    def __init__(self, optimizer: Any = "adam", embeddings: Any = None, name: str | None = None, **kwargs: Any):
        if kwargs:
            raise ValueError(f"RowSparse takes optimizer, embeddings and name. Received: {sorted(kwargs)}")
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = keras.optimizers.get(optimizer)
        if isinstance(self.inner_optimizer, RowSparse | keras.optimizers.LossScaleOptimizer):
            raise ValueError(f"optimizer must not be a wrapper. Received: {type(self.inner_optimizer).__name__}")
        if isinstance(embeddings, dict):
            embeddings = keras.saving.deserialize_keras_object(embeddings)
        if embeddings is not None and not isinstance(embeddings, EmbeddingOptimizer):
            raise TypeError(f"embeddings must be an EmbeddingOptimizer or None. Received: {type(embeddings).__name__}")
        self._given_rule = embeddings
        self.embeddings = rule_like(self.inner_optimizer) if embeddings is None else embeddings
        self._embedding_rate: Any = None
        if self.embeddings is None:
            self._warn_of_dense_steps()

    def _warn_of_dense_steps(self) -> None:
        warnings.warn(
            f"{why_no_rule(self.inner_optimizer)}, so it has no row-sparse form: embedding tables are trained by Keras, "
            "which reads and writes all their rows at each step. Pass embeddings=... (embedding_optimizer=... to "
            "compile), e.g. LazyAdam(), to step only the rows that a batch touches.",
            stacklevel=_level_of_caller(),
        )

    @classmethod
    def of_rule(cls, rule: EmbeddingOptimizer) -> RowSparse:
        """One optimizer with one learning rate: a rule for the tables, and its Keras form for all else."""
        own = copy.copy(rule)
        own.learning_rate = None
        return cls(keras_like(rule), own)

    # ---- variables ----

    @property
    def steps_rows(self) -> bool:
        """Whether tables are stepped by rows at all."""
        return self.embeddings is not None

    def takes(self, variable: Any) -> bool:
        """Whether this optimizer steps a variable by rows."""
        return self.steps_rows and is_table(variable)

    def build(self, variables: Sequence[Any]) -> None:
        if self.built:
            return
        tables = [variable for variable in variables if self.takes(variable)]
        self.inner_optimizer.build([variable for variable in variables if not self.takes(variable)])
        if tables:
            rate = self.embeddings.learning_rate
            if isinstance(rate, float):
                rate = self.add_variable(
                    (), keras.initializers.Constant(rate), "float32", name="embedding_learning_rate"
                )
            self._embedding_rate = rate
        states = {}
        for variable in tables:
            states[self._var_key(variable)] = self._make_table(variable)
        self.__dict__["_tables"] = states  # no tracking: the variables are tracked one by one
        super().build(list(variables))

    def _make_table(self, variable: Any) -> Table:
        rule = self.embeddings.update_rule()
        if self._given_rule is None and not self._decays(variable):
            rule = dataclasses.replace(rule, weight_decay=0.0)
        rows, dim = variable.shape
        path = variable.path.replace("/", "_") if hasattr(variable, "path") else variable.name

        def add(name: str, shape: tuple[int, ...], value: float) -> keras.Variable:
            return self.add_variable(shape, keras.initializers.Constant(value), "float32", name=f"{path}_{name}")

        slots = [add(slot.name, slot.shape(rows, dim), slot.initial_value) for slot in rule.slots()]
        accumulator = touched = None
        if self.inner_optimizer.gradient_accumulation_steps:
            accumulator = add("gradient_accumulator", (rows, dim), 0.0)
            touched = add("touched", (rows,), 0.0)
        return Table(variable, rule, slots, accumulator, touched)

    def _decays(self, variable: Any) -> bool:
        inner = self.inner_optimizer
        return inner.weight_decay is None or bool(inner._use_weight_decay(variable))

    def table_state(self, table: Any) -> list[keras.Variable]:
        """The state variables of a table, in the order of its rule's slots.

        Raises:
            ValueError: if the optimizer does not step that table by rows.
        """
        return list(self._state_of(table).slots)

    def _has_state(self, table: Any) -> bool:
        """Whether a table of a lookup is stepped: not if it is frozen. Raises ValueError if it is unknown."""
        return bool(table.trainable and self._state_of(table))

    def _state_of(self, table: Any) -> Table:
        state = self.__dict__.get("_tables", {}).get(self._var_key(table))
        if state is None:
            raise ValueError(
                f"Table must be one that the optimizer was built with, trainable at that time. Received: {table.name}"
            )
        return state

    @property
    def variables(self) -> list[keras.Variable]:
        return self._variables + self.inner_optimizer.variables

    # ---- what is the wrapped optimizer's ----

    @property
    def iterations(self) -> Any:
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self) -> Any:
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def embedding_learning_rate(self) -> Any:
        """The learning rate of the tables: a variable or tensor; may be set if the rule has one of its own.

        It has if ``embeddings`` (``embedding_optimizer`` of compile) brought one; else this is ``learning_rate``.
        """
        rate = self._embedding_rate if self.built else getattr(self.embeddings, "learning_rate", None)
        if rate is None:
            return self.learning_rate
        return rate(self.iterations) if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule) else rate

    @embedding_learning_rate.setter
    def embedding_learning_rate(self, learning_rate: float) -> None:
        if not isinstance(self._embedding_rate, keras.Variable):
            raise ValueError(
                "embedding_learning_rate can be set if the rule has a learning rate of its own that is a number, such as "
                "embedding_optimizer=LazyAdam(0.01), once the optimizer is built; else learning_rate is that of the "
                f"tables, too. Received: {learning_rate!r}"
            )
        self._embedding_rate.assign(learning_rate)

    def scale_loss(self, loss: Any) -> Any:
        return self.inner_optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list: Any) -> None:
        self.inner_optimizer.finalize_variable_values([variable for variable in var_list if not self.takes(variable)])

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    # ---- steps ----

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """One step.

        Args:
            grads: a gradient, or None, for each of the variables: for tables a tensor or ``tf.IndexedSlices``, with ids
                that may repeat.
            trainable_variables: variables, and ``LookupOutput`` objects that stand for the outputs of recorded lookups
                (see ``merlin_models.ops.record_lookups``).
        """
        check_one_device("RowSparse")
        variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        if not self.built:
            with keras.name_scope(self.name, caller=self):
                self.build([variable for variable in variables if not isinstance(variable, LookupOutput)])
        dense, parts = [], {}
        for grad, variable in zip(grads, variables, strict=True):
            if isinstance(variable, LookupOutput):
                if grad is not None:
                    self._add_lookup(parts, variable, grad)
            elif self._var_key(variable) in self.__dict__["_tables"]:
                if grad is not None:
                    parts.setdefault(self._var_key(variable), []).append(contribution_of(variable, grad))
            else:
                dense.append((grad, variable))
        if not parts and all(grad is None for grad, _ in dense):
            raise ValueError("No gradients provided for any variable.")
        tables = self.__dict__["_tables"].items()
        still = [state.variable.path for key, state in tables if key not in parts and state.variable.trainable]
        if still:
            warnings.warn(f"Gradients do not exist for tables {still}.", stacklevel=_level_of_caller())
        self._step_tables(parts)
        if any(grad is not None for grad, _ in dense):
            self.inner_optimizer.apply(*zip(*dense, strict=True))
        else:
            self.inner_optimizer._iterations.assign_add(1)

    def _add_lookup(self, parts: dict[str, list[Contribution]], output: LookupOutput, grad: Any) -> None:
        lookup = output.lookup
        for f, (index, column) in enumerate(lookup.places):
            table = lookup.tables[lookup.table_of_feature[f]]
            if index != output.index or not self._has_state(table):
                continue
            part = Contribution(
                lookup.features[f], lookup.combiners[f], lookup.names[f], tf.convert_to_tensor(grad), column
            )
            parts.setdefault(self._var_key(table), []).append(part)

    def _step_tables(self, parts: dict[str, list[Contribution]]) -> None:
        if not parts:
            return
        inner, tables = self.inner_optimizer, self.__dict__["_tables"]
        factor = inner.loss_scale_factor
        scale = 1.0 if factor is None else 1.0 / factor
        numbers = {"learning_rate": ops.convert_to_tensor(self.embedding_learning_rate), "step": self._step()}
        steps = inner.gradient_accumulation_steps
        if not steps:
            update_tables([(tables[key], own) for key, own in parts.items()], grad_scale=scale, **numbers)
            return
        accumulators = [
            (Table(tables[key].accumulator, _ACCUMULATE, [tables[key].touched], None, None), own)
            for key, own in parts.items()
        ]
        update_tables(accumulators, grad_scale=scale, **numbers)

        def step_touched() -> None:
            held = []
            for state in tables.values():
                ids = tf.where(state.touched.value > 0)
                rows = tf.gather(state.accumulator.value, ids[:, 0])
                held.append((state, [Contribution(Bags(ids), "sum", state.variable.name, rows)]))
            update_tables(held, grad_scale=1.0 / steps, **numbers)
            for state, (part,) in held:
                ids = part.bags.values[:, 0]
                zeros = tf.IndexedSlices(tf.zeros_like(part.grad), ids)
                state.accumulator.value.scatter_update(zeros)
                state.touched.value.scatter_update(tf.IndexedSlices(tf.zeros_like(ids, tf.float32), ids))

        ops.cond(ops.equal((inner._iterations + 1) % steps, 0), step_touched, lambda: None)

    def _step(self) -> Any:
        return ops.convert_to_tensor(self.iterations)

    # ---- saving ----

    def get_config(self) -> dict[str, Any]:
        rule = self._given_rule
        return {
            "name": self.name,
            "optimizer": keras.optimizers.serialize(self.inner_optimizer),
            "embeddings": None if rule is None else keras.saving.serialize_keras_object(rule),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> RowSparse:
        config = dict(config)
        optimizer = keras.optimizers.deserialize(config.pop("optimizer"), custom_objects=custom_objects)
        return cls(optimizer, **config)


def row_sparse_of(optimizer: Any) -> RowSparse | None:
    """The RowSparse that an optimizer is, or that it wraps as ``keras.optimizers.LossScaleOptimizer`` does.

    Args:
        optimizer: any optimizer.

    Example:
        >>> import merlin_models.tf as ml
        >>> from merlin_models.optimizers import row_sparse_of
        >>> row_sparse_of(ml.RowSparse("adam")) is None
        False
    """
    optimizer = getattr(optimizer, "inner_optimizer", None) if not isinstance(optimizer, StepsRows) else optimizer
    return optimizer if isinstance(optimizer, StepsRows) and optimizer.steps_rows else None


def with_row_sparse(optimizer: Any, embeddings: EmbeddingOptimizer | None = None) -> Any:
    """The optimizer with its tables stepped by rows; what already is a RowSparse stays as it is.

    Args:
        optimizer: a Keras optimizer, its name or its config, or a LossScaleOptimizer around one; or an EmbeddingOptimizer,
            which brings its Keras form for what is no table, and one learning rate for both.
        embeddings: as for :class:`RowSparse`.

    Raises:
        ValueError: if ``optimizer`` steps tables by another rule than ``embeddings`` already.

    Example:
        >>> from merlin_models.optimizers import with_row_sparse
        >>> type(with_row_sparse("adam")).__name__
        'RowSparse'
    """
    if isinstance(optimizer, EmbeddingOptimizer):
        # Given twice, it has two learning rates.
        optimizer = RowSparse.of_rule(optimizer) if embeddings is None else RowSparse(keras_like(optimizer), optimizer)
    optimizer = keras.optimizers.get(optimizer)
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    inner = optimizer.inner_optimizer if scaled else optimizer
    if isinstance(inner, StepsRows):
        own = inner.embeddings if isinstance(inner, RowSparse) else type(inner).__name__
        if embeddings is not None and repr(embeddings) != repr(own):
            raise ValueError(
                "The tables' optimizer must be given once: by RowSparse(embeddings=...), a MultiOptimizer, or by "
                f"embedding_optimizer. Received: {own} and {embeddings}"
            )
        return optimizer
    if not scaled:
        return RowSparse(inner, embeddings)
    options = {"initial_scale": optimizer.initial_scale, "dynamic_growth_steps": optimizer.dynamic_growth_steps}
    return keras.optimizers.LossScaleOptimizer(RowSparse(inner, embeddings), **options)


def _level_of_caller() -> int:
    """The stacklevel with which a warning names the first line outside of this library and of Keras."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("merlin_models", "keras"):
        frame, level = frame.f_back, level + 1
    return level
