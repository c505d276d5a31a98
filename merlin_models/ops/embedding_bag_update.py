"""embedding_bag_update: the backward pass of embedding_bag and the optimizer's step of its tables, in one op."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from merlin_models.ops.bags import Bags, op_inputs
from merlin_models.ops.embedding_bag import check_call, unwrap
from merlin_models.ops.portable import compiled_ops
from merlin_models.ops.update_rule import UpdateRule


def embedding_bag_update(
    tables: Sequence[Any],
    slots: Sequence[Sequence[Any]],
    features: Sequence[Bags],
    grads: Sequence[Any],
    table_of_feature: Sequence[int] | None = None,
    combiners: str | Sequence[str] = "mean",
    *,
    rule: UpdateRule,
    learning_rate: Any,
    step: Any = 0,
    grad_scale: Any = 1.0,
    grad_of_feature: Sequence[int] | None = None,
    column_of_feature: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
) -> Any:
    """Steps every table row that the features' ids name, in place; other rows do not move.

    The gradient of a row is summed over all its ids in all features, in float32, in an order that depends on the batch
    alone, and never written to memory. Nothing waits for the device.

    Args:
        tables: variables (rows, dim), all of one dtype: float32, float16 or bfloat16.
        slots: for each table its float32 state variables, as ``rule.slots()`` says.
        features: one :class:`Bags` a feature, as for :func:`embedding_bag`. The sparse gradient (ids, rows) of anything
            is a feature, too: ``Bags(ids[:, None])`` with the combiner "sum" and the rows as its gradient.
        grads: gradients of the features' outputs, (bags, dim) each; or fewer, wider tensors that hold several features'
            columns, see below. All of one dtype: float32, the tables' dtype, or for float32 tables any of the three.
        table_of_feature, combiners, names: as for :func:`embedding_bag`.
        rule: what to do to a row.
        learning_rate: float scalar or tensor.
        step: integer scalar or tensor: how many steps came before this one.
        grad_scale: multiplies the gradients; 0 leaves tables and slots unchanged.
        grad_of_feature: for each feature, which of ``grads`` has its columns; feature i's is ``grads[i]`` by default.
        column_of_feature: for each feature its first column there; 0 by default.

    Returns:
        The operation in a graph, None in eager execution.

    Raises:
        ValueError, TypeError: if arguments disagree with the above. Nothing has changed then.
        tf.errors.InvalidArgumentError: on a CPU, for bad ids or row_splits, before anything has changed. On a GPU these
            are skipped and noted; see :func:`embedding_bag`.

    Example:
        >>> import tensorflow as tf
        >>> from merlin_models.ops import UpdateRule, embedding_bag_update, to_bags
        >>> table, bags = tf.Variable(tf.ones((3, 2))), to_bags(tf.constant([[0, 2], [2, 2]]))
        >>> grad = tf.ones((2, 2))  # of the pooled vectors
        >>> embedding_bag_update([table], [[]], [bags], [grad], combiners="sum", rule=UpdateRule("sgd"), learning_rate=0.1)
        >>> table.numpy().round(1)
        array([[0.9, 0.9],
               [1. , 1. ],
               [0.7, 0.7]], dtype=float32)

    Reference:
        Duchi et al., Adaptive Subgradient Methods, 2011; Kingma and Ba, Adam, 2015; McMahan et al., Ad Click Prediction,
        2013 (FTRL); row-wise Adagrad as in Naumov et al., https://arxiv.org/abs/1906.00091.
    """
    if not features:
        raise ValueError("features must hold at least one Bags tuple. Received: none")
    count = len(features)
    table_of_feature = list(range(count)) if table_of_feature is None else list(table_of_feature)
    combiners = [combiners] * count if isinstance(combiners, str) else list(combiners)
    names = [f"feature_{i}" for i in range(count)] if names is None else list(names)
    grad_of_feature = list(range(count)) if grad_of_feature is None else list(grad_of_feature)
    column_of_feature = [0] * count if column_of_feature is None else list(column_of_feature)
    tables = [unwrap(table) for table in tables]
    grads = [tf.convert_to_tensor(grad) for grad in grads]
    slots = [[unwrap(slot) for slot in own] for own in slots]
    check_call(tables, features, table_of_feature, combiners, names)
    _check_update(tables, slots, grads, rule, grad_of_feature, column_of_feature, count)

    return compiled_ops().merlin_embedding_bag_update(
        tables=[table.handle for table in tables],
        slots=[slot.handle for own in slots for slot in own],
        **op_inputs(features),
        grad=grads,
        learning_rate=tf.cast(learning_rate, tf.float32),
        step=tf.cast(step, tf.int64),
        grad_scale=tf.cast(grad_scale, tf.float32),
        T=tables[0].dtype,
        table_of_feature=table_of_feature,
        grad_of_feature=grad_of_feature,
        column_of_feature=column_of_feature,
        combiners=combiners,
        names=names,
        rule=rule.name,
        **rule.numbers(),
    )


def _check_update(tables, slots, grads, rule, grad_of_feature, column_of_feature, num_features) -> None:
    if not all(isinstance(table, tf.Variable) for table in tables):
        raise TypeError("tables must be variables: they are changed in place. Received: tensors")
    wanted = rule.slots()
    if len(slots) != len(tables) or any(len(own) != len(wanted) for own in slots):
        raise ValueError(
            f"slots must hold {len(wanted)} variables ({', '.join(s.name for s in wanted) or 'none'}) for each of "
            f"{len(tables)} tables. Received: {[len(own) for own in slots]}"
        )
    for t, (table, own) in enumerate(zip(tables, slots, strict=True)):
        for slot, variable in zip(wanted, own, strict=True):
            shape = slot.shape(*table.shape)
            if variable.dtype != tf.float32 or tuple(variable.shape) != shape:
                raise ValueError(
                    f"Slot '{slot.name}' of table {t} must be float32 of shape {shape}. "
                    f"Received: {variable.dtype.name} {tuple(variable.shape)}"
                )
    for what, values in (("grad_of_feature", grad_of_feature), ("column_of_feature", column_of_feature)):
        if len(values) != num_features:
            raise ValueError(
                f"{what} must have one entry a feature. Received: {len(values)} for {num_features} features"
            )
    if not grads:
        raise ValueError("grads must hold at least one tensor. Received: none")
    table_dtype = tables[0].dtype
    allowed = {tf.float32, table_dtype} | ({tf.float16, tf.bfloat16} if table_dtype == tf.float32 else set())
    for i, grad in enumerate(grads):
        if grad.dtype not in allowed or grad.dtype != grads[0].dtype:
            raise TypeError(
                f"grads must have one dtype, {' or '.join(sorted(d.name for d in allowed))}. "
                f"Received: {grads[0].dtype.name} at index 0 and {grad.dtype.name} at index {i}"
            )


def embedding_bag_update_reference(
    tables: Sequence[np.ndarray],
    slots: Sequence[Sequence[np.ndarray]],
    table_grads: Sequence[np.ndarray],
    touched: Sequence[np.ndarray],
    rule: UpdateRule,
    learning_rate: float,
    step: int = 0,
    grad_scale: float = 1.0,
) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """The same step in NumPy and float64, row by row, given the dense gradients of the tables.

    Args:
        tables, slots: as for :func:`embedding_bag_update`; not changed.
        table_grads: (rows, dim) each, as ``embedding_bag_reference`` gives them.
        touched: for each table the rows that the batch names.
        rule, learning_rate, step, grad_scale: as for :func:`embedding_bag_update`.

    Returns:
        (tables, slots) after the step, float64.

    Example:
        >>> import numpy as np
        >>> from merlin_models.ops import UpdateRule, embedding_bag_update_reference
        >>> grad = np.array([[1.0], [0.0], [3.0]])
        >>> tables, _ = embedding_bag_update_reference([np.ones((3, 1))], [[]], [grad], [[0, 2]], UpdateRule("sgd"), 0.1)
        >>> tables[0].round(1).tolist()
        [[0.9], [1.0], [0.7]]
    """
    tables = [np.array(table, np.float64) for table in tables]
    slots = [[np.array(slot, np.float64) for slot in own] for own in slots]
    for table, own, grad, rows in zip(tables, slots, table_grads, touched, strict=True):
        for r in rows:
            state = [slot[r : r + 1] if slot.ndim == 1 else slot[r] for slot in own]
            _step_row(rule, table[r], state, np.asarray(grad[r], np.float64) * grad_scale, learning_rate, step)
    return tables, slots


def _step_row(rule: UpdateRule, w: np.ndarray, state: list[np.ndarray], g: np.ndarray, lr: float, step: int) -> None:
    if rule.name != "ftrl":
        g = g + 2.0 * rule.l2 * w
    norm = np.linalg.norm(g)
    if 0.0 < rule.clip_norm < norm:
        g = g * (rule.clip_norm / norm)
    w -= lr * rule.weight_decay * w
    if rule.name == "sgd":
        w -= lr * g
    elif rule.name == "momentum":
        (m,) = state
        m[:] = rule.momentum * m - lr * g
        w += rule.momentum * m - lr * g if rule.nesterov else m
    elif rule.name == "adagrad":
        state[0] += g * g
        w -= lr * g / np.sqrt(state[0] + rule.epsilon)
    elif rule.name == "rowwise_adagrad":
        state[0] += np.mean(g * g)
        w -= lr * g / np.sqrt(state[0] + rule.epsilon)
    elif rule.name == "adam":
        m, v = state
        m += (1.0 - rule.beta_1) * (g - m)
        v += (1.0 - rule.beta_2) * (g * g - v)
        alpha = lr * np.sqrt(1.0 - rule.beta_2 ** (step + 1)) / (1.0 - rule.beta_1 ** (step + 1))
        w -= alpha * m / (np.sqrt(v) + rule.epsilon)
    elif rule.name == "rmsprop":
        state[0][:] = rule.beta_2 * state[0] + (1.0 - rule.beta_2) * g * g
        w -= lr * g / np.sqrt(state[0] + rule.epsilon)
    elif rule.name == "ftrl":
        n, z = state
        after = n + g * g
        z += g - (np.sqrt(after) - np.sqrt(n)) / lr * w
        w[:] = (np.clip(z, -rule.l1, rule.l1) - z) / (np.sqrt(after) / lr + 2.0 * rule.l2)
        n[:] = after
    else:
        w += g
        state[0][:] = 1.0
