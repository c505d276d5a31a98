"""embedding_bag: rows of several tables pooled into one vector a bag, for all features in one op."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import tape as _tape

from merlin_models import _native
from merlin_models.ops.bags import Bags, check_ids, op_inputs
from merlin_models.ops.embedding_bag_stock import stock_embedding_bag
from merlin_models.ops.lookups import Lookup, current_recorder
from merlin_models.ops.portable import compiled_ops, is_portable

COMBINERS = ("sum", "mean", "sqrtn", "max")
TABLE_DTYPES = (tf.float32, tf.float16, tf.bfloat16)


def embedding_bag(
    tables: Sequence[Any],
    features: Sequence[Bags],
    table_of_feature: Sequence[int] | None = None,
    combiners: str | Sequence[str] = "mean",
    *,
    concat: bool = False,
    output_dtype: Any = None,
    names: Sequence[str] | None = None,
) -> list[tf.Tensor] | tf.Tensor:
    """Looks up and pools the rows of several features' ids, in one call for all tables and features.

    With weights w and rows x of a bag, over its ids that are not padding, a combiner gives
    ``sum``: S = sum w x, ``mean``: S / sum w, ``sqrtn``: S / sqrt(sum w^2), ``max``: the elementwise maximum, without
    weights. A bag without ids gives zeros. Sums are accumulated in float32.

    Gradients reach the tables as ``tf.IndexedSlices`` with each touched row once (rows ascending), and the weights. On a
    GPU computing them waits once for the device, because the number of touched rows sizes the result.

    Args:
        tables: variables (``tf.Variable`` or Keras variables; read in place, never copied) or tensors of shape
            (rows, dim), all of one dtype: float32, float16 or bfloat16. Rows and dims may differ.
        features: one :class:`Bags` a feature (see :func:`to_bags`).
        table_of_feature: index of the table that each feature reads; several may read one. By default feature i reads
            table i.
        combiners: one for all features, or one a feature.
        concat: False for a list with a (bags, dim) tensor a feature; True for one (bags, sum of dims) tensor, columns in
            the order of the features, which must then have the same number of bags.
        output_dtype: float32, or the tables' dtype (the default); for float32 tables any of the three.
        names: of the features, for error messages.

    Returns:
        A list of tensors, or one tensor if ``concat``.

    Raises:
        ValueError, TypeError: if arguments disagree with the above.
        tf.errors.InvalidArgumentError: on a CPU, if an id is not in [0, rows), or row_splits decrease, do not start at 0 or
            do not end at the number of ids: naming the feature, the rule and the value. On a GPU such an id or bag is
            skipped, and the next call raises the error (see :func:`merlin_models.ops.raise_device_errors`).

    Example:
        >>> import tensorflow as tf
        >>> from merlin_models.ops import embedding_bag, to_bags
        >>> table = tf.Variable([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        >>> genres = to_bags(tf.ragged.constant([[0, 2], [], [1]]))
        >>> embedding_bag([table], [genres], combiners="sum")[0].numpy().tolist()
        [[6.0, 8.0], [0.0, 0.0], [3.0, 4.0]]
    """
    if not features:
        raise ValueError("features must hold at least one Bags tuple. Received: none")
    if table_of_feature is None:
        table_of_feature = list(range(len(features)))
    if isinstance(combiners, str):
        combiners = [combiners] * len(features)
    names = [f"feature_{i}" for i in range(len(features))] if names is None else list(names)
    given, tables = list(tables), [unwrap(table) for table in tables]
    check_call(tables, features, table_of_feature, combiners, names)

    table_dtype = tf.as_dtype(tables[0].dtype)
    output_dtype = check_output_dtype(table_dtype if output_dtype is None else output_dtype, table_dtype)
    if is_portable():
        pooled = stock_embedding_bag(tables, features, table_of_feature, combiners, names)
        outputs = [tf.cast(each, output_dtype) for each in pooled]
        return tf.concat(outputs, axis=1) if concat else outputs
    resource = isinstance(tables[0], tf.Variable)
    recorder = current_recorder() if resource else None
    recorded = recorder is not None and recorder.takes(given)
    if resource and not recorded:
        for table in tables:
            _tape.variable_accessed(table)  # what reading a variable does: a gradient tape then watches it

    ops = compiled_ops()
    if resource:
        op, table_inputs = ops.merlin_resource_embedding_bag, {"tables": [t.handle for t in tables], "T": table_dtype}
    else:
        op, table_inputs = ops.merlin_embedding_bag, {"tables": tables}
    outputs = op(
        **table_inputs,
        **op_inputs(features),
        Tout=output_dtype,
        table_of_feature=list(table_of_feature),
        combiners=list(combiners),
        names=names,
        concat=concat,
        tables_trainable=not recorded,
        num_outputs=1 if concat else len(features),
    )
    if recorded:
        recorder.add(Lookup(given, list(features), list(table_of_feature), list(combiners), names, list(outputs)))
    return outputs[0] if concat else outputs


def unwrap(table: Any) -> Any:
    """The tf.Variable of a Keras variable, or the tensor."""
    table = getattr(table, "value", table) if not isinstance(table, tf.Variable) else table
    return table if isinstance(table, tf.Variable) else tf.convert_to_tensor(table)


def check_call(tables, features, table_of_feature, combiners, names) -> None:
    """Raises TypeError or ValueError for what :func:`embedding_bag` does not take."""
    if not tables:
        raise ValueError("tables must hold at least one variable or tensor. Received: none")
    for t, table in enumerate(tables):
        if table.dtype not in TABLE_DTYPES:
            raise TypeError(f"tables must be float32, float16 or bfloat16. Received: {table.dtype.name} at index {t}")
        if table.dtype != tables[0].dtype:
            raise TypeError(
                f"tables must have one dtype. Received: {tables[0].dtype.name} at index 0 and {table.dtype.name} "
                f"at index {t}"
            )
        if isinstance(table, tf.Variable) != isinstance(tables[0], tf.Variable):
            raise TypeError("tables must all be variables or all be tensors. Received: both")
        if table.shape.rank != 2:
            raise ValueError(f"tables must have rank 2. Received shape: {table.shape} at index {t}")
    for what, values in (("table_of_feature", table_of_feature), ("combiners", combiners), ("names", names)):
        if len(values) != len(features):
            raise ValueError(
                f"{what} must have one entry a feature. Received: {len(values)} for {len(features)} features"
            )
    for name, bags, table, combiner in zip(names, features, table_of_feature, combiners, strict=True):
        if not isinstance(bags, Bags):
            raise TypeError(f"Feature '{name}' must be a Bags tuple, see to_bags. Received: {type(bags).__name__}")
        check_ids(bags.values, name)
        if not 0 <= table < len(tables):
            raise ValueError(f"table_of_feature of '{name}' must be in [0, {len(tables)}). Received: {table}")
        if combiner not in COMBINERS:
            raise ValueError(f"The combiner of '{name}' must be one of {COMBINERS}. Received: {combiner!r}")
        if combiner == "max" and bags.weights is not None:
            raise ValueError(f"Feature '{name}': combiner 'max' takes no weights. Received: weights")


def check_output_dtype(output_dtype: Any, table_dtype: tf.DType) -> tf.DType:
    """The dtype that outputs shall have; ValueError if tables of the other have no kernel for it."""
    output_dtype = tf.as_dtype(output_dtype)
    fits = output_dtype in (tf.float32, table_dtype) or (table_dtype == tf.float32 and output_dtype in TABLE_DTYPES)
    if not fits:
        raise ValueError(
            f"output_dtype must be float32 or the tables' {table_dtype.name} (any of float32, float16, bfloat16 for "
            f"float32 tables). Received: {output_dtype.name}"
        )
    return output_dtype


def _gradient(resource: bool):
    def gradient(op, *grads):
        attrs = ("T", "Tids", "Tout", "table_of_feature", "splits_of_feature", "weights_of_feature")
        attrs += ("combiners", "padding_ids", "names", "concat", "tables_trainable")
        num_tables, num_features = op.get_attr("num_tables"), op.get_attr("num_features")
        num_splits, num_weights = op.get_attr("num_splits"), op.get_attr("num_weights")
        inputs = list(op.inputs)
        tables, ids = inputs[:num_tables], inputs[num_tables : num_tables + num_features]
        splits = inputs[num_tables + num_features :][:num_splits]
        weights = inputs[num_tables + num_features + num_splits :]
        ops = _native.tf_ops()
        grad_op = ops.merlin_resource_embedding_bag_grad if resource else ops.merlin_embedding_bag_grad
        kwargs = {attr: op.get_attr(attr) for attr in attrs}
        kwargs.pop("Tids"), kwargs.pop("Tout")  # inferred from the inputs
        if not resource:
            kwargs.pop("T")
        kwargs["combiners"] = [text_of(c) for c in kwargs["combiners"]]
        kwargs["names"] = [text_of(c) for c in kwargs["names"]]
        unique_ids, rows, weights_grad = grad_op(
            tables=tables, ids=ids, row_splits=splits, weights=weights, grad=list(grads), **kwargs
        )
        shapes = [_shape_of(table, resource) for table in tables]
        table_grads = [
            tf.IndexedSlices(values, indices, shape)
            for values, indices, shape in zip(rows, unique_ids, shapes, strict=True)
        ]
        if not kwargs["tables_trainable"]:
            table_grads = [None] * num_tables
        return [*table_grads, *[None] * (num_features + num_splits), *(weights_grad if num_weights else [])]

    return gradient


def text_of(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _shape_of(table: tf.Tensor, resource: bool) -> tf.Tensor:
    if resource:
        return tf.raw_ops.VariableShape(input=table, out_type=tf.int64)
    return tf.shape(table, out_type=tf.int64)


tf.RegisterGradient("MerlinEmbeddingBag")(_gradient(resource=False))
tf.RegisterGradient("MerlinResourceEmbeddingBag")(_gradient(resource=True))


def embedding_bag_reference(
    tables: Sequence[np.ndarray],
    features: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray | None, int | None]],
    table_of_feature: Sequence[int],
    combiners: Sequence[str],
    grads: Sequence[np.ndarray] | None = None,
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """The same maths in NumPy and float64, one bag after the other: what tests and benchmarks compare with.

    Args:
        tables: (rows, dim) arrays.
        features: for each a tuple (values, row_splits, weights or None, padding id or None).
        table_of_feature: as in :func:`embedding_bag`.
        combiners: one a feature.
        grads: gradient of each feature's output, (bags, dim); ones if None.

    Returns:
        (outputs, table gradients as dense arrays, weight gradients), all float64. Weight gradients have an entry for
        every feature, whether it has weights or not.

    Example:
        >>> import numpy as np
        >>> from merlin_models.ops import embedding_bag_reference
        >>> feature = (np.array([0, 2, 2]), np.array([0, 1, 3]), None, None)  # the bags [0] and [2, 2]
        >>> outputs, table_grads, _ = embedding_bag_reference([np.eye(3)], [feature], [0], ["sum"])
        >>> outputs[0].tolist(), table_grads[0].sum(axis=1).tolist()
        ([[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]], [3.0, 0.0, 6.0])
    """
    tables = [np.asarray(table, np.float64) for table in tables]
    outputs, table_grads = [], [np.zeros_like(table) for table in tables]
    weights_grads = []
    for f, (values, row_splits, weights, padding_id) in enumerate(features):
        table, table_grad = tables[table_of_feature[f]], table_grads[table_of_feature[f]]
        bags = len(row_splits) - 1
        output, weights_grad = np.zeros((bags, table.shape[1])), np.zeros(len(values))
        grad = np.ones_like(output) if grads is None else np.asarray(grads[f], np.float64)
        for b in range(bags):
            positions = np.arange(row_splits[b], row_splits[b + 1])
            positions = positions[values[positions] != padding_id] if padding_id is not None else positions
            if len(positions) == 0:
                continue
            ids, g = values[positions], grad[b]
            rows = table[ids]
            if combiners[f] == "max":
                output[b] = rows.max(axis=0)
                np.add.at(table_grad, (ids[rows.argmax(axis=0)], np.arange(table.shape[1])), g)
                continue
            w = np.ones(len(ids)) if weights is None else np.asarray(weights, np.float64)[positions]
            divisor = {"sum": 1.0, "mean": w.sum(), "sqrtn": np.sqrt((w * w).sum())}[combiners[f]]
            if divisor == 0.0:
                continue
            output[b] = (w[:, None] * rows).sum(axis=0) / divisor
            np.add.at(table_grad, ids, w[:, None] * g / divisor)
            d_divisor = {"sum": 0.0 * w, "mean": np.ones_like(w), "sqrtn": w / divisor}[combiners[f]]
            weights_grad[positions] = (rows @ g - (output[b] @ g) * d_divisor) / divisor
        outputs.append(output)
        weights_grads.append(weights_grad)
    return outputs, table_grads, weights_grads
