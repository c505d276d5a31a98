"""Bags: the one layout of multi-hot ids that ops take, and the one place that knows all the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

_NO_PADDING = np.iinfo(np.int64).min


class Bags(NamedTuple):
    """The ids of one feature, a bag for each example.

    Attributes:
        values: int32 or int64 ids: shape (num_ids,) with row_splits, or (num_bags, ids_per_bag) without.
        row_splits: int64, shape (num_bags + 1,): bag ``b`` has ``values[row_splits[b]:row_splits[b + 1]]``. None if every
            bag has the same number of ids.
        weights: float32 of the shape of ``values``, or None for ones.
        padding_id: an id in ``values`` that stands for nothing and is skipped, or None.

    Example:
        >>> import tensorflow as tf
        >>> from merlin_models.ops import to_bags
        >>> bags = to_bags(tf.ragged.constant([[5, 9], [], [7]]))
        >>> bags.values.numpy().tolist(), bags.row_splits.numpy().tolist()
        ([5, 9, 7], [0, 2, 2, 3])
    """

    values: tf.Tensor
    row_splits: tf.Tensor | None = None
    weights: tf.Tensor | None = None
    padding_id: int | None = None


def to_bags(ids: Any, weights: Any = None, padding_id: int | None = None, name: str = "ids") -> Bags:
    """Turns any form of multi-hot ids into :class:`Bags`, without a copy of dense, ragged or CSR ids.

    Args:
        ids: one of
            a dense integer tensor, (num_bags,) for one id a bag or (num_bags, ids_per_bag);
            a ``tf.RaggedTensor`` of shape (num_bags, None);
            a ``tf.SparseTensor`` of shape (num_bags, width) in row-major order (as ``tf.sparse.reorder`` gives);
            a pair ``(values, row_splits)``;
            a :class:`Bags` tuple, to which ``weights`` and ``padding_id`` are added.
        weights: one weight an id: of the same form as ``ids`` (for a pair, only the values), or None.
        padding_id: an id that stands for nothing, e.g. 0 in a right-padded dense tensor.
        name: what error messages call the feature.

    Returns:
        A :class:`Bags` tuple.

    Raises:
        TypeError: if ids are not integers of 32 or 64 bits.
        ValueError: if a rank or the form of the weights does not fit.

    Example:
        >>> import tensorflow as tf
        >>> from merlin_models.ops import to_bags
        >>> to_bags(tf.constant([3, 7])).values.shape  # one id a bag
        TensorShape([2, 1])
        >>> to_bags(tf.constant([[5, 9], [7, 0]]), padding_id=0).row_splits is None  # dense ids stay as they are
        True
    """
    if isinstance(ids, Bags):
        row_splits = ids.row_splits
        values, weights = ids.values, ids.weights if weights is None else weights
        padding_id = ids.padding_id if padding_id is None else padding_id
    elif isinstance(ids, tf.RaggedTensor):
        if ids.ragged_rank != 1 or ids.values.shape.rank != 1:
            raise ValueError(f"Ragged ids of feature '{name}' must have rank 2. Received shape: {ids.shape}")
        values, row_splits = ids.values, ids.row_splits
        if isinstance(weights, tf.RaggedTensor):
            weights = weights.values
    elif isinstance(ids, tf.SparseTensor):
        if ids.shape.rank not in (2, None):
            raise ValueError(f"Sparse ids of feature '{name}' must have rank 2. Received shape: {ids.shape}")
        values, row_splits = ids.values, splits_of_sparse(ids)
        if isinstance(weights, tf.SparseTensor):
            weights = weights.values
    elif isinstance(ids, tuple | list) and len(ids) == 2 and _is_array(ids[0]):
        values, row_splits = tf.convert_to_tensor(ids[0]), tf.convert_to_tensor(ids[1])
        if isinstance(weights, tuple | list):
            weights = weights[0]
        if values.shape.rank != 1 or row_splits.shape.rank != 1:
            raise ValueError(
                f"Feature '{name}' as (values, row_splits) must have two tensors of rank 1. Received shapes: "
                f"{values.shape} and {row_splits.shape}"
            )
    else:
        values, row_splits = tf.convert_to_tensor(ids), None
        if values.shape.rank == 1:
            values = tf.expand_dims(values, 1)  # one node in a graph, and no copy
        if values.shape.rank != 2:
            raise ValueError(f"Dense ids of feature '{name}' must have rank 1 or 2. Received shape: {values.shape}")

    if padding_id == _NO_PADDING:
        raise ValueError(f"padding_id of feature '{name}' must be greater than {_NO_PADDING}. Received: {padding_id}")
    if values.dtype.is_floating and _for_shapes_only():
        values = tf.cast(values, tf.int64)
    check_ids(values, name)
    if row_splits is not None and row_splits.dtype != tf.int64:
        row_splits = tf.cast(row_splits, tf.int64)
    if weights is not None:
        weights = _weights_like(weights, values, name)
    return Bags(values, row_splits, weights, padding_id)


def check_ids(values: Any, name: str) -> None:
    """Raises TypeError for ids of another dtype than int32 and int64."""
    if tf.as_dtype(values.dtype) not in (tf.int32, tf.int64):
        raise TypeError(
            f"Ids of feature '{name}' must have dtype int32 or int64. Received: {tf.as_dtype(values.dtype).name}"
        )


def _for_shapes_only() -> bool:
    """Whether Keras runs a model to learn shapes. It has no data then, and takes all inputs for floats, ids too.

    So it builds a subclassed ``keras.Model`` that it loads, before the weights of the layers within can be.
    """
    return not tf.executing_eagerly() and tf.compat.v1.get_default_graph().name.startswith("scratch_graph")


def batch_of(ids: Any) -> int | None:
    """The number of bags of ids in any form that :func:`to_bags` takes, symbolic ones too; None if it is not known.

    Args:
        ids: as of :func:`to_bags`, or a :class:`Bags`.

    Returns:
        An int, or None.

    Example:
        >>> import tensorflow as tf
        >>> from merlin_models.ops import batch_of
        >>> batch_of(tf.ragged.constant([[5, 9], [], [7]]))
        3
    """
    if not isinstance(ids, tuple | list):
        return ids.shape[0]
    if ids[1] is None:  # Bags of one length
        return ids[0].shape[0]
    splits = ids[1].shape[0]
    return None if splits is None else splits - 1


def op_inputs(features: Sequence[Bags]) -> dict[str, Any]:
    """The arguments of the compiled ops that say what the features' bags are.

    Ids that are int32 in some features and int64 in others become int64.
    """
    splits, weights, splits_of, weights_of = [], [], [], []
    ids_dtype = tf.int32 if all(bags.values.dtype == tf.int32 for bags in features) else tf.int64
    for bags in features:
        splits_of.append(-1 if bags.row_splits is None else len(splits))
        weights_of.append(-1 if bags.weights is None else len(weights))
        splits += [] if bags.row_splits is None else [bags.row_splits]
        weights += [] if bags.weights is None else [bags.weights]
    return {
        "ids": [tf.cast(bags.values, ids_dtype) for bags in features],
        "row_splits": splits,
        "weights": weights,
        "splits_of_feature": splits_of,
        "weights_of_feature": weights_of,
        "padding_ids": [_NO_PADDING if bags.padding_id is None else bags.padding_id for bags in features],
    }


def _is_array(value: Any) -> bool:
    return (hasattr(value, "shape") and len(value.shape) > 0) or isinstance(value, list | tuple)


def splits_of_sparse(ids: tf.SparseTensor) -> tf.Tensor:
    """Bag b begins at the first entry whose row index is at least b."""
    rows = tf.range(ids.dense_shape[0] + 1, dtype=tf.int64)
    return tf.searchsorted(ids.indices[:, 0], rows, out_type=tf.int64)


def _weights_like(weights: Any, values: tf.Tensor, name: str) -> tf.Tensor:
    if isinstance(weights, tf.RaggedTensor | tf.SparseTensor):
        raise ValueError(
            f"Weights of feature '{name}' must have the form of its ids. Received: {type(weights).__name__}"
        )
    weights = tf.convert_to_tensor(weights)
    if not weights.dtype.is_floating:
        raise TypeError(f"Weights of feature '{name}' must be floats. Received: {weights.dtype.name}")
    weights = tf.cast(weights, tf.float32)
    if weights.shape.rank == 1 and values.shape.rank == 2:
        weights = tf.expand_dims(weights, 1)
    if not weights.shape.is_compatible_with(values.shape):
        raise ValueError(
            f"Weights of feature '{name}' must have the shape of its ids, {values.shape}. Received: {weights.shape}"
        )
    return weights
