"""Encodings of bags of ids as wide vectors: one-hot, multi-hot and counts."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from merlin_models.ops.bags import Bags, check_ids

MODES = ("one_hot", "multi_hot", "count")


def encode_bags(bags: Bags, depth: int, mode: str = "multi_hot", *, sparse: bool = False, name: str = "ids") -> Any:
    """A vector of length ``depth`` for each bag: 1 at its ids ("one_hot", "multi_hot"), or how often each occurs
    ("count"; the sum of its weights, if there are any).

    Args:
        bags: the ids, see :func:`merlin_models.ops.to_bags`. Its padding id is left out.
        depth: ids must be in [0, depth).
        mode: "one_hot" is for bags of one id.
        sparse: for a ``tf.SparseTensor``, which ``keras.layers.Dense`` takes.
        name: for error messages.

    Returns:
        (bags, depth), float32.

    Raises:
        ValueError, TypeError: if arguments disagree with the above.
        tf.errors.InvalidArgumentError: for an id out of range.

    Example:
        >>> import tensorflow as tf
        >>> from merlin_models.ops import encode_bags, to_bags
        >>> encode_bags(to_bags(tf.ragged.constant([[0, 2, 2], []])), 3, "count").numpy().tolist()
        [[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]
    """
    check_ids(bags.values, name)
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}. Received: {mode!r}")
    if bags.weights is not None and mode != "count":
        raise ValueError(f"mode must be 'count' where ids have weights. Received: {mode!r}")
    values, weights = bags.values, bags.weights
    if bags.row_splits is None:
        shape = tf.shape(values, out_type=tf.int64)
        row = tf.repeat(tf.range(shape[0]), shape[1])
        count, values = shape[0], tf.reshape(values, [-1])
        weights = None if weights is None else tf.reshape(weights, [-1])
    else:
        splits = tf.cast(bags.row_splits, tf.int64)
        count = tf.shape(splits, out_type=tf.int64)[0] - 1
        row = tf.repeat(tf.range(count), splits[1:] - splits[:-1])
    ids = tf.cast(values, tf.int64)
    weights = tf.ones_like(ids, tf.float32) if weights is None else weights
    if bags.padding_id is not None:
        keep = tf.not_equal(ids, bags.padding_id)
        ids, row, weights = ids[keep], row[keep], weights[keep]
    message = f"Ids of '{name}' must be in [0, {depth})"
    checks = [
        tf.debugging.assert_non_negative(ids, message),
        tf.debugging.assert_less(ids, tf.constant(depth, tf.int64), message),
    ]
    with tf.control_dependencies([check for check in checks if check is not None]):
        place = row * depth + ids
    places, which = tf.unique(place)
    sums = tf.math.unsorted_segment_sum(weights, which, tf.size(places))
    if mode != "count":
        sums = tf.ones_like(sums)
    order = tf.argsort(places)
    places, sums = tf.gather(places, order), tf.gather(sums, order)
    if sparse:
        indices = tf.stack([places // depth, places % depth], axis=1)
        return tf.SparseTensor(indices, sums, tf.stack([count, tf.constant(depth, tf.int64)]))
    flat = tf.scatter_nd(places[:, tf.newaxis], sums, tf.reshape(count * depth, [1]))
    return tf.ensure_shape(tf.reshape(flat, tf.stack([count, depth])), [None, depth])
