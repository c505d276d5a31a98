"""Lists of different lengths in one form or another: ragged, padded, sparse, pairs of tensors."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from merlin_models.ops.bags import splits_of_sparse


def is_ragged(x: Any) -> bool:
    """Whether this is a ``tf.RaggedTensor``.

    Args:
        x: anything.

    Example:
        >>> import tensorflow as tf, merlin_models.ops as ops
        >>> x = tf.ragged.constant([[1, 2], [3]])
        >>> ops.is_ragged(x), ops.is_ragged(x.to_tensor())
        (True, False)
    """
    return isinstance(x, tf.RaggedTensor)


def to_ragged(x: Any, lengths: Any = None, name: str = "input") -> tf.RaggedTensor:
    """Lists in any form as a ``tf.RaggedTensor`` (batch, None, ...) with int64 row splits.

    Args:
        x: one of
            a ragged tensor;
            a ``tf.SparseTensor`` (batch, width) in row-major order, each of whose entries is an item;
            a pair ``(values, row_splits)`` of rank 1, or ``(values, row_lengths)`` of shapes (n, 1) and (batch, 1), which is
            how NVTabular's loader gave lists;
            a tensor (batch, length, ...), padded on the right.
        lengths: of the lists of a padded tensor, (batch,). Zeros at the end of a list are its padding if None.
        name: for error messages.

    Returns:
        A ``tf.RaggedTensor`` of the dtype that came.

    Raises:
        ValueError: for a tensor of rank 1, or a pair of other shapes.

    Example:
        >>> import tensorflow as tf
        >>> from merlin_models.ops import to_ragged
        >>> to_ragged(tf.constant([[1, 2, 0], [0, 3, 0]])).to_list()
        [[1, 2], [0, 3]]
    """
    if isinstance(x, tf.RaggedTensor):
        return x.with_row_splits_dtype(tf.int64)
    if isinstance(x, tf.SparseTensor):
        return tf.RaggedTensor.from_row_splits(x.values, splits_of_sparse(x), validate=False)
    if isinstance(x, tuple | list) and len(x) == 2:
        return _ragged_of_pair(tf.convert_to_tensor(x[0]), tf.convert_to_tensor(x[1]), name)
    x = tf.convert_to_tensor(x)
    if x.shape.rank is not None and x.shape.rank < 2:
        raise ValueError(f"Lists of '{name}' must have the shape (batch, length, ...). Received shape: {x.shape}")
    if lengths is None:
        if x.shape.rank == 2:
            return tf.RaggedTensor.from_tensor(x, padding=tf.zeros((), x.dtype), row_splits_dtype=tf.int64)
        raise ValueError(f"lengths must be given for '{name}', whose items are vectors. Received shape: {x.shape}")
    return tf.RaggedTensor.from_tensor(x, lengths=tf.cast(lengths, tf.int64), row_splits_dtype=tf.int64)


def _ragged_of_pair(values: tf.Tensor, rows: tf.Tensor, name: str) -> tf.RaggedTensor:
    if values.shape.rank == 1 and rows.shape.rank == 1:
        return tf.RaggedTensor.from_row_splits(values, tf.cast(rows, tf.int64), validate=False)
    if values.shape.rank == 2 and rows.shape.rank == 2 and values.shape[1] in (1, None) and rows.shape[1] in (1, None):
        lengths = tf.cast(tf.reshape(rows, [-1]), tf.int64)
        return tf.RaggedTensor.from_row_lengths(tf.reshape(values, [-1]), lengths, validate=False)
    raise ValueError(
        f"'{name}' as a pair must be (values, row_splits) of rank 1, or (values, row_lengths) of shapes (n, 1) and "
        f"(batch, 1). Received shapes: {values.shape} and {rows.shape}"
    )


def to_dense(x: Any, max_length: int | None = None, name: str = "input") -> tf.Tensor:
    """Lists in any form that :func:`to_ragged` takes, padded with zeros on the right: (batch, length, ...).

    Args:
        x: the lists; a dense tensor is returned as it is.
        max_length: length of the result: longer lists lose what is behind it. That of the longest list if None.
        name: for error messages.

    Returns:
        A tensor of the dtype that came.

    Raises:
        ValueError: as of :func:`to_ragged`.

    Example:
        >>> import tensorflow as tf, merlin_models.ops as ops
        >>> x = tf.ragged.constant([[1, 2], [3]])
        >>> ops.to_dense(x).numpy().tolist(), ops.to_dense(x, max_length=1).numpy().tolist()
        ([[1, 2], [3, 0]], [[1], [3]])
    """
    if not isinstance(x, tf.RaggedTensor | tf.SparseTensor | tuple | list):
        return tf.convert_to_tensor(x)
    ragged = to_ragged(x, name=name)
    shape = None if max_length is None else [None, max_length, *ragged.shape[2:]]
    return ragged.to_tensor(shape=shape)


def to_padded(x: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Ragged sequences padded with zeros, (batch, length, ...), and the mask (batch, length) of their items.

    The length is at least 1, also for sequences that are all empty: not every layer knows what to do with none.

    Args:
        x: ragged (batch, None, ...).

    Returns:
        The padded tensor, and the mask, which is boolean.

    Example:
        >>> import tensorflow as tf, merlin_models.ops as ops
        >>> padded, mask = ops.to_padded(tf.ragged.constant([[1, 2], [3]]))
        >>> padded.numpy().tolist(), mask.numpy().tolist()
        ([[1, 2], [3, 0]], [[True, True], [True, False]])
    """
    length = tf.maximum(x.bounding_shape(axis=1), 1)
    shape = tf.concat([[-1, length], tf.shape(x.flat_values, out_type=length.dtype)[1:]], 0)
    padded = tf.ensure_shape(x.to_tensor(shape=shape), [x.shape[0], None, *x.flat_values.shape[1:]])
    return padded, tf.sequence_mask(x.row_lengths(), length)


def to_sparse(x: Any, name: str = "input") -> tf.SparseTensor:
    """Lists in any form that :func:`to_ragged` takes as a ``tf.SparseTensor`` (batch, longest list).

    Args:
        x: as of :func:`to_ragged`; a sparse tensor is returned as it is.
        name: for error messages.

    Returns:
        A ``tf.SparseTensor`` of the dtype that came.

    Raises:
        ValueError: as of :func:`to_ragged`.

    Example:
        >>> import tensorflow as tf, merlin_models.ops as ops
        >>> x = tf.ragged.constant([[1, 2], [3]])
        >>> ops.to_sparse(x).values.numpy().tolist(), ops.to_sparse(x).dense_shape.numpy().tolist()
        ([1, 2, 3], [2, 2])
    """
    return x if isinstance(x, tf.SparseTensor) else to_ragged(x, name=name).to_sparse()


def row_lengths(x: tf.RaggedTensor) -> tf.Tensor:
    """Number of items of each list, int64 (batch,).

    Args:
        x: ragged (batch, None, ...).

    Returns:
        A tensor.

    Example:
        >>> import tensorflow as tf, merlin_models.ops as ops
        >>> ops.row_lengths(tf.ragged.constant([[1, 2], [3]])).numpy().tolist()
        [2, 1]
    """
    return x.row_lengths()


def items_of_padded(x: Any, like: tf.RaggedTensor) -> tf.RaggedTensor:
    """What a padded tensor (batch, length, ...) has at the items of the lists ``like``, as ragged as these.

    Args:
        x: (batch, length, ...), at least as long as the longest list.
        like: ragged (batch, None, ...).

    Returns:
        Ragged (batch, None, ...), with the row splits of ``like``.

    Example:
        >>> import tensorflow as tf, merlin_models.ops as ops
        >>> ops.items_of_padded(tf.constant([[10, 20], [30, 40]]), like=tf.ragged.constant([[1, 2], [3]])).to_list()
        [[10, 20], [30]]
    """
    return like.with_flat_values(tf.boolean_mask(x, tf.sequence_mask(like.row_lengths(), tf.shape(x)[1])))


def repeat_for_items(x: Any, like: tf.RaggedTensor) -> tf.RaggedTensor:
    """One tensor a row, (batch, ...), repeated for each item of the row's list: ragged (batch, None, ...).

    Args:
        x: (batch, ...).
        like: ragged (batch, None, ...).

    Returns:
        Ragged, with the row splits of ``like``.

    Example:
        >>> import tensorflow as tf, merlin_models.ops as ops
        >>> ops.repeat_for_items(tf.constant([10, 20]), like=tf.ragged.constant([[1, 2], [3]])).to_list()
        [[10, 10], [20]]
    """
    return like.with_flat_values(tf.gather(x, like.value_rowids()))


def ragged_where(x: tf.RaggedTensor, keep: tf.Tensor) -> tf.RaggedTensor:
    """The items of lists for which the boolean ``keep``, (number of items,), is true.

    Args:
        x: ragged (batch, None, ...).
        keep: boolean, in the order of the items.

    Returns:
        Ragged (batch, None, ...) of the dtype that came.

    Example:
        >>> import tensorflow as tf, merlin_models.ops as ops
        >>> ops.ragged_where(tf.ragged.constant([[1, 2], [3]]), tf.constant([False, True, True])).to_list()
        [[2], [3]]
    """
    return tf.ragged.boolean_mask(x, x.with_flat_values(keep))


def mask_like(mask: Any, x: Any) -> tf.Tensor:
    """A mask of positions, ragged or (batch, length), for sequences ``x`` in either form.

    Args:
        mask: boolean, ragged or (batch, length).
        x: sequences, ragged (batch, None, ...) or (batch, length, ...).

    Returns:
        (number of items,) for ragged sequences, (batch, length) for dense ones, whose positions beyond the mask are False.

    Example:
        >>> import tensorflow as tf, merlin_models.ops as ops
        >>> ops.mask_like(tf.constant([[True, False], [True, False]]), tf.ragged.constant([[1, 2], [3]])).numpy().tolist()
        [True, False, True]
    """
    if isinstance(x, tf.RaggedTensor):
        return mask.flat_values if isinstance(mask, tf.RaggedTensor) else items_of_padded(mask, x).flat_values
    if isinstance(mask, tf.RaggedTensor):
        return mask.to_tensor(shape=tf.stack([-1, tf.shape(x)[1]]))
    return mask


def select_positions(x: Any, mask: Any) -> tf.Tensor:
    """What sequences (batch, length, ...), ragged or dense, have where a mask is true: (number of positions, ...).

    Args:
        x: sequences, ragged or dense.
        mask: as of :func:`mask_like`.

    Returns:
        A tensor of the dtype that came, row after row.

    Example:
        >>> import tensorflow as tf, merlin_models.ops as ops
        >>> ops.select_positions(tf.constant([[1, 2], [3, 0]]), tf.constant([[False, True], [True, False]])).numpy()
        array([2, 3], dtype=int32)
    """
    return tf.boolean_mask(x.flat_values if isinstance(x, tf.RaggedTensor) else x, mask_like(mask, x))


def positions_in_rows(x: tf.RaggedTensor) -> tf.Tensor:
    """0, 1, ... in each list, int64 (number of items,).

    Args:
        x: ragged (batch, None, ...).

    Returns:
        A tensor, in the order of the items.

    Example:
        >>> import tensorflow as tf, merlin_models.ops as ops
        >>> ops.positions_in_rows(tf.ragged.constant([[1, 2], [3]])).numpy().tolist()
        [0, 1, 0]
    """
    starts = tf.gather(x.row_starts(), x.value_rowids())
    return tf.range(tf.shape(starts, out_type=tf.int64)[0]) - starts


def check_lengths(x: tf.RaggedTensor, at_least: int, message: str) -> tf.RaggedTensor:
    """The lists, after a check that each has at least so many items.

    Args:
        x: ragged (batch, None, ...).
        at_least: the least number of items.
        message: of the error.

    Returns:
        Ragged, the same lists.

    Raises:
        tf.errors.InvalidArgumentError: if one has not.

    Example:
        >>> import tensorflow as tf, merlin_models.ops as ops
        >>> ops.check_lengths(tf.ragged.constant([[1, 2], [3]]), 1, "Lists must have items.").to_list()
        [[1, 2], [3]]
    """
    check = tf.debugging.assert_greater_equal(x.row_lengths(), tf.constant(at_least, tf.int64), message)
    with tf.control_dependencies([] if check is None else [check]):
        return x.with_flat_values(tf.identity(x.flat_values))


def check_at_most(count: Any, limit: int, message: str) -> Any:
    """The count, after a check that it is not above a limit.

    Args:
        count: integer tensor.
        limit: the greatest value that is allowed.
        message: of the error.

    Returns:
        The count as a tensor.

    Raises:
        tf.errors.InvalidArgumentError: if it is.

    Example:
        >>> from merlin_models.ops import check_at_most
        >>> int(check_at_most(3, 5, "There must not be more than five."))
        3
    """
    check = tf.debugging.assert_less_equal(count, limit, message)
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(count)


def check_equal_lengths(x: tf.RaggedTensor, like: tf.RaggedTensor, message: str) -> tf.RaggedTensor:
    """The lists, with the row splits of ``like``, after a check that they are as long.

    Args:
        x, like: ragged (batch, None, ...).
        message: of the error.

    Returns:
        Ragged, the items of ``x`` with the row splits of ``like``.

    Raises:
        tf.errors.InvalidArgumentError: if a list has another length.

    Example:
        >>> import tensorflow as tf, merlin_models.ops as ops
        >>> ops.check_equal_lengths(tf.ragged.constant([[1]]), tf.ragged.constant([[5]]), "must be as long").to_list()
        [[1]]
    """
    if x.row_splits is like.row_splits:
        return x
    # Different batches fail before the comparison, whose shapes would not fit.
    same_batch = tf.debugging.assert_equal(x.nrows(), like.nrows(), message)
    with tf.control_dependencies([] if same_batch is None else [same_batch]):
        check = tf.debugging.assert_equal(x.row_lengths(), like.row_lengths(), message)
    with tf.control_dependencies([] if check is None else [check]):
        return like.with_flat_values(tf.identity(x.flat_values))


def take_rows(x: Any, rows: Any) -> Any:
    """Rows of a batch, in any order and any number of times, in the form in which the batch came.

    Args:
        x: a tensor (batch, ...), ragged, sparse (batch, width), or a pair ``(values, row_splits)`` of rank 1.
        rows: integers (n,), in [0, batch).

    Returns:
        The rows, in the form and dtype that came; of a pair its two tensors.

    Example:
        >>> import tensorflow as tf
        >>> from merlin_models.ops import take_rows
        >>> take_rows(tf.ragged.constant([[1, 2], [3]]), [1, 0, 1]).to_list()
        [[3], [1, 2], [3]]
    """
    if isinstance(x, tf.SparseTensor):
        sparse = tf.gather(to_ragged(x), rows).to_sparse()
        return tf.SparseTensor(sparse.indices, sparse.values, [sparse.dense_shape[0], x.dense_shape[1]])
    if isinstance(x, tuple | list):
        taken = tf.gather(to_ragged(x), rows)
        return taken.values, taken.row_splits
    return tf.gather(x, rows)


def append_to_rows(x: tf.RaggedTensor, value: Any) -> tf.RaggedTensor:
    """The lists with one more item each, of this value.

    Args:
        x: ragged (batch, None, ...).
        value: a number; is cast to the dtype of ``x``.

    Returns:
        Ragged (batch, None, ...) of the dtype that came.

    Example:
        >>> import tensorflow as tf, merlin_models.ops as ops
        >>> ops.append_to_rows(tf.ragged.constant([[1, 2], [3]]), 9).to_list()
        [[1, 2, 9], [3, 9]]
    """
    last = tf.fill(tf.concat([[x.nrows(tf.int32), 1], tf.shape(x.flat_values)[1:]], 0), tf.cast(value, x.dtype))
    return tf.concat([x, tf.RaggedTensor.from_tensor(last, row_splits_dtype=x.row_splits.dtype)], axis=1)
