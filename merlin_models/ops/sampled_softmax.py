"""sampled_softmax: inbatch_softmax with rows of a table as positives and negatives."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from merlin_models.ops.embedding_bag import unwrap
from merlin_models.ops.inbatch_softmax import InbatchSoftmax, float_row, inbatch_softmax, integer_ids, one_each


def sampled_softmax(
    queries: Any,
    table: Any,
    positive_ids: Any,
    sampled_ids: Any,
    *,
    temperature: Any = 1.0,
    positive_log_q: Any = None,
    sampled_log_q: Any = None,
    loss_weights: Any = None,
    training: bool = True,
    precision: str | None = None,
) -> InbatchSoftmax:
    """:func:`inbatch_softmax` with rows of a table: each query's positive among sampled rows.

    A sampled row of the positive's id is no negative.

    Args:
        queries: (batch, dim), float32, float16 or bfloat16.
        table: (rows, dim), a tensor, or a TensorFlow or Keras variable, which gets a sparse gradient. Rows are cast to the
            dtype of the queries.
        positive_ids: (batch,), int32 or int64, in [0, rows).
        sampled_ids: (samples,), int32 or int64, in [0, rows), shared by all queries.
        positive_log_q, sampled_log_q: (batch,) and (samples,), logarithms of the expected number of times that each row is
            sampled; both or none.
        temperature, loss_weights, training, precision: as in :func:`inbatch_softmax`.

    Returns:
        An :class:`InbatchSoftmax`.

    Raises:
        ValueError, TypeError: if arguments disagree with the above.
        tf.errors.InvalidArgumentError: on a CPU for an id out of range; on a GPU TensorFlow reads zeros there.

    Example:
        >>> import tensorflow as tf
        >>> from merlin_models.ops import sampled_softmax
        >>> table = tf.Variable(tf.eye(4))
        >>> output = sampled_softmax(tf.eye(4)[:2], table, tf.constant([0, 1]), tf.constant([1, 3]))
        >>> output.rank.numpy().tolist()
        [0, 0]

    Reference:
        Jean et al., `On Using Very Large Target Vocabulary for Neural Machine Translation
        <https://arxiv.org/abs/1412.2007>`_, 2015.
    """
    queries, table = tf.convert_to_tensor(queries), unwrap(table)
    if table.shape.rank not in (2, None):
        raise ValueError(f"table must have rank 2. Received shape: {table.shape}")
    positive_ids = one_each("positive_ids", integer_ids("positive_ids", positive_ids), queries, "queries")
    sampled_ids = integer_ids("sampled_ids", sampled_ids)
    one_each("sampled_ids", sampled_ids, sampled_ids, "sampled_ids")
    if (positive_log_q is None) != (sampled_log_q is None):
        raise ValueError("positive_log_q and sampled_log_q must be given together. Received: one")
    return inbatch_softmax(
        queries,
        tf.cast(tf.gather(table, sampled_ids), queries.dtype),
        positives=tf.cast(tf.gather(table, positive_ids), queries.dtype),
        temperature=temperature,
        positive_ids=positive_ids,
        candidate_ids=sampled_ids,
        positive_log_q=positive_log_q,
        candidate_log_q=float_row("sampled_log_q", sampled_log_q, sampled_ids, "sampled_ids"),
        loss_weights=loss_weights,
        training=training,
        precision=precision,
    )
