"""Lists of a signature's values and offsets, checked all together: what is read of offsets that are wrong lies elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from merlin_models.ops.embedding_bag_stock import HOST, assert_each


def checked_lists(
    names: Sequence[str], values: Sequence[tf.Tensor], offsets: Sequence[tf.Tensor]
) -> list[tf.RaggedTensor]:
    """Ragged tensors of stock ops that cost little: TensorFlow's own checks are conditionals, a dozen ops for each list.

    Args:
        names: of the offsets, for errors.
        values: numbers (num_values,) of each list column.
        offsets: int64 (batch + 1,) of each.

    Returns:
        (batch, length) of each. In a graph :class:`tf.errors.InvalidArgumentError` names the first offsets that are wrong.
    """
    rules = tf.constant(
        [
            f"{name} must begin with 0, not decrease, end with the number of values, and have one number more than there "
            "are rows. Received"
            for name in names
        ]
    )
    lengths, counts = tf.stack([tf.size(x) for x in offsets]), tf.stack([tf.size(x) for x in values])
    with tf.device(HOST):
        lengths = tf.identity(lengths)
        fits = tf.equal(lengths, tf.reduce_max(lengths)) & (lengths > 0)
        check = assert_each(fits, rules, "lengths:", lengths)
    with tf.control_dependencies([check]):
        table = tf.stack(offsets)  # (lists, batch + 1)
    smallest_step = tf.reduce_min(table[:, 1:] - table[:, :-1], axis=1)  # the largest number, without rows
    seen = tf.stack([table[:, 0], smallest_step, table[:, -1], tf.cast(counts, tf.int64)], axis=1)
    with tf.device(HOST):
        seen = tf.identity(seen)
        fits = tf.equal(seen[:, 0], 0) & (seen[:, 1] >= 0) & tf.equal(seen[:, 2], seen[:, 3])
        check = assert_each(fits, rules, "first, smallest step, last, number of values:", seen)
    with tf.control_dependencies([check]):
        rows = [tf.identity(x) for x in offsets]
    return [tf.RaggedTensor.from_row_splits(x, y, validate=False) for x, y in zip(values, rows, strict=True)]
