"""What a step of embedding tables is made of: the tables with their state, and the parts of their gradients."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from merlin_models.ops.bags import Bags
from merlin_models.ops.embedding_bag_update import embedding_bag_update
from merlin_models.ops.update_rule import UpdateRule


@dataclasses.dataclass
class Table:
    """A table with what its steps need."""

    variable: Any
    rule: UpdateRule
    slots: list[keras.Variable]
    accumulator: keras.Variable | None  # of gradients, where they are accumulated over several batches
    touched: keras.Variable | None


@dataclasses.dataclass
class Contribution:
    """A part of a table's gradient: that of a feature's bags."""

    bags: Bags
    combiner: str
    name: str
    grad: tf.Tensor
    column: int = 0


def contribution_of(table: Any, grad: Any) -> Contribution:
    """The gradient of the variable itself, from uses that were not recorded."""
    if isinstance(grad, tf.IndexedSlices):
        return Contribution(Bags(grad.indices[:, tf.newaxis]), "sum", table.name, tf.convert_to_tensor(grad.values))
    rows = tf.range(table.shape[0], dtype=tf.int64)
    return Contribution(Bags(rows[:, tf.newaxis]), "sum", table.name, tf.convert_to_tensor(grad))


def update_tables(tables: list[tuple[Table, list[Contribution]]], **numbers: Any) -> None:
    """Steps tables by what they got, with one op for all that have one dtype and one rule: nearly always all of them.

    Args:
        tables: each with the parts of its gradient.
        **numbers: of ``embedding_bag_update``: learning_rate, step, grad_scale.
    """
    groups: dict[Any, list[tuple[Table, list[Contribution]]]] = {}
    for table, own in tables:
        groups.setdefault((table.variable.dtype, table.rule), []).append((table, own))
    for (dtype, rule), group in groups.items():
        parts = [(t, part) for t, (_, own) in enumerate(group) for part in own]
        grads, places = [], {}
        for _, part in parts:
            if id(part.grad) not in places:
                places[id(part.grad)] = len(grads)
                grads.append(part.grad)
        embedding_bag_update(
            [table.variable for table, _ in group],
            [table.slots for table, _ in group],
            [part.bags for _, part in parts],
            _of_one_dtype(grads, dtype),
            [t for t, _ in parts],
            [part.combiner for _, part in parts],
            rule=rule,
            grad_of_feature=[places[id(part.grad)] for _, part in parts],
            column_of_feature=[part.column for _, part in parts],
            names=[part.name for _, part in parts],
            **numbers,
        )


def _of_one_dtype(grads: list[tf.Tensor], table_dtype: str) -> list[tf.Tensor]:
    """The gradients in a dtype that the op takes for tables of this one."""
    dtypes = {grad.dtype.name for grad in grads}
    allowed = {"float32", table_dtype} | ({"float16", "bfloat16"} if table_dtype == "float32" else set())
    if len(dtypes) == 1 and dtypes <= allowed:
        return grads
    return [tf.cast(grad, tf.float32) for grad in grads]
