"""dot_interaction: the dot products of all pairs of feature vectors, as DLRM has them, in one pass over its input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from merlin_models import _native
from merlin_models.ops.portable import compiled_ops, is_portable

ORDERS = ("lower", "upper")
PRECISIONS = ("float32", "tf32")
MAX_FEATURES, MAX_DIM, MAX_PADDING = 128, 1024, 1024


def dot_interaction(
    features: Any,
    *,
    order: str = "lower",
    self_interaction: bool = False,
    concat_first: bool = False,
    pad_to: int = 1,
    precision: str | None = None,
) -> tf.Tensor:
    """Dot products x_i . x_j of all pairs of a sample's feature vectors, packed.

    Each vector is read once, no (features, features) matrix and no concatenation of the inputs is made. Products are
    summed in float32 and rounded once. The gradient is (dP + dP^T) X, by a kernel of its own; it has no gradient itself.

    Args:
        features: a tensor (batch, features, dim), or a list of tensors (batch, dim) and (batch, features, dim) whose
            features follow one another. float32, float16 or bfloat16, all alike; up to 128 features and dim 1024. On a
            GPU fastest where dim is a multiple of 16 bytes.
        order: which triangle of the matrix of products is read row by row. "lower": (1, 0), (2, 0), (2, 1), (3, 0), ...
            as DLRM and keras-rs have it; "upper": (0, 1), (0, 2), ..., (1, 2), ... as Merlin Models has it.
        self_interaction: with the products x_i . x_i as well.
        concat_first: put the first feature, which in DLRM is the bottom MLP's output, before the products.
        pad_to: pad the width with zeros to a multiple of this (the next layer's matrix product likes 8).
        precision: of float32 on a GPU. "float32": the accuracy of float32 (three TF32 products); "tf32": operands
            rounded to 10 bits, as TensorFlow's own products; None: "tf32" if
            ``tf.config.experimental.tensor_float_32_execution_enabled()``. Has no effect on a CPU.

    Returns:
        (batch, width) of the dtype of the features; width is features * (features - 1) / 2, or with
        ``self_interaction`` features * (features + 1) / 2, plus dim with ``concat_first``, padded.

    Raises:
        ValueError, TypeError: if arguments disagree with the above.
        tf.errors.InvalidArgumentError: for shapes that are known only when the op runs.

    Example:
        >>> import tensorflow as tf
        >>> from merlin_models.ops import dot_interaction
        >>> x = tf.constant([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
        >>> dot_interaction(x).numpy().tolist()
        [[11.0, 17.0, 39.0]]

    Reference:
        Naumov et al., `Deep Learning Recommendation Model for Personalization and Recommendation Systems
        <https://arxiv.org/abs/1906.00091>`_, 2019.
    """
    parts = list(features) if isinstance(features, list | tuple) else [features]
    parts = [tf.convert_to_tensor(part) for part in parts]
    check_options(order, pad_to, precision)
    _check(parts)
    if precision is None:
        precision = "tf32" if tf.config.experimental.tensor_float_32_execution_enabled() else "float32"
    if is_portable():
        return _stock_interaction(parts, order, self_interaction, concat_first, pad_to)
    return compiled_ops().merlin_dot_interaction(
        features=parts,
        order=order,
        self_interaction=self_interaction,
        concat_first=concat_first,
        pad_to=pad_to,
        tf32=precision == "tf32",
    )


def _stock_interaction(
    parts: list[tf.Tensor], order: str, self_interaction: bool, concat_first: bool, pad_to: int
) -> tf.Tensor:
    """The same in stock TensorFlow ops, of as many features as is known when it is traced."""
    x = tf.concat([part[:, tf.newaxis] if part.shape.rank == 2 else part for part in parts], axis=1)
    count, wide = x.shape[1], tf.cast(x, tf.float32)
    if count is None:
        raise ValueError(f"features must be of a known number in a portable graph. Received shape: {x.shape}")
    places = np.arange(count * count).reshape(count, count)[_pairs(count, order, self_interaction)]
    products = tf.reshape(tf.matmul(wide, wide, transpose_b=True), [-1, count * count])
    outputs = [tf.gather(products, places, axis=1)]
    if concat_first:
        outputs.insert(0, wide[:, 0])
    width = sum(output.shape[1] for output in outputs)
    output = tf.pad(tf.concat(outputs, axis=1), [[0, 0], [0, -width % pad_to]])
    return tf.cast(output, x.dtype)


def _pairs(count: int, order: str, self_interaction: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the matrix of products, in the order of the output."""
    if order == "lower":
        return np.tril_indices(count, 0 if self_interaction else -1)
    return np.triu_indices(count, 0 if self_interaction else 1)


def check_options(order: str, pad_to: int, precision: str | None) -> None:
    """Raises ValueError for what :func:`dot_interaction` does not take."""
    if order not in ORDERS:
        raise ValueError(f"order must be one of {ORDERS}. Received: {order!r}")
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS} or None. Received: {precision!r}")
    if not isinstance(pad_to, int) or not 1 <= pad_to <= MAX_PADDING:
        raise ValueError(f"pad_to must be an integer in [1, {MAX_PADDING}]. Received: {pad_to!r}")


def _check(parts: list[tf.Tensor]) -> None:
    if not parts:
        raise ValueError("features must hold at least one tensor. Received: none")
    for i, part in enumerate(parts):
        if part.dtype not in (tf.float32, tf.float16, tf.bfloat16):
            raise TypeError(f"features must be float32, float16 or bfloat16. Received: {part.dtype.name} at index {i}")
        if part.dtype != parts[0].dtype:
            raise TypeError(
                f"features must have one dtype. Received: {parts[0].dtype.name} at index 0 and {part.dtype.name} "
                f"at index {i}"
            )
        if part.shape.rank not in (2, 3, None):
            raise ValueError(f"features must have rank 2 or 3. Received shape: {part.shape} at index {i}")
        dim, first = part.shape[-1:].as_list(), parts[0].shape[-1:].as_list()
        if dim and first and None not in (dim[0], first[0]) and dim != first:
            raise ValueError(
                f"features must have one last dimension. Received: {first[0]} at index 0 and {dim[0]} at index {i}"
            )
        if dim and dim[0] is not None and not 1 <= dim[0] <= MAX_DIM:
            raise ValueError(f"The last dimension of features must be in [1, {MAX_DIM}]. Received: {dim[0]}")
    counts = [1 if part.shape.rank == 2 else (part.shape[1] if part.shape.rank == 3 else None) for part in parts]
    if None not in counts and not 1 <= sum(counts) <= MAX_FEATURES:
        raise ValueError(f"features must be 1 to {MAX_FEATURES} together. Received: {sum(counts)}")


@tf.RegisterGradient("MerlinDotInteraction")
def _gradient(op, grad):
    attrs = ("self_interaction", "concat_first", "pad_to", "tf32")
    kwargs = {attr: op.get_attr(attr) for attr in attrs}
    order = op.get_attr("order")
    return _native.tf_ops().merlin_dot_interaction_grad(
        features=list(op.inputs), grad=grad, order=order.decode() if isinstance(order, bytes) else order, **kwargs
    )


def dot_interaction_reference(
    features: Sequence[np.ndarray],
    grad: np.ndarray | None = None,
    *,
    order: str = "lower",
    self_interaction: bool = False,
    concat_first: bool = False,
    pad_to: int = 1,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The same maths in NumPy and float64: what tests and benchmarks compare with.

    Args:
        features: arrays (batch, dim) or (batch, features, dim).
        grad: gradient of the output, (batch, width); ones if None.
        order, self_interaction, concat_first, pad_to: as of :func:`dot_interaction`.

    Returns:
        (output, gradients of each of features), all float64.

    Example:
        >>> import numpy as np
        >>> from merlin_models.ops import dot_interaction_reference
        >>> output, (grad,) = dot_interaction_reference([np.array([[[1.0, 2.0], [3.0, 4.0]]])])
        >>> output.tolist(), grad.tolist()
        ([[11.0]], [[[3.0, 4.0], [1.0, 2.0]]])
    """
    arrays = [np.asarray(part, np.float64) for part in features]
    x = np.concatenate([part[:, np.newaxis] if part.ndim == 2 else part for part in arrays], axis=1)
    count, first = x.shape[1], x.shape[2] if concat_first else 0
    pairs = _pairs(count, order, self_interaction)
    products = (x @ x.transpose(0, 2, 1))[:, *pairs]
    output = np.concatenate([x[:, 0, :first], products], axis=1)
    output = np.pad(output, [(0, 0), (0, -output.shape[1] % pad_to)])
    grad = np.ones_like(output) if grad is None else np.asarray(grad, np.float64)
    square_grad = np.zeros((len(x), count, count))
    square_grad[:, *pairs] = grad[:, first : first + len(pairs[0])]
    x_grad = (square_grad + square_grad.transpose(0, 2, 1)) @ x
    x_grad[:, 0, :first] += grad[:, :first]
    grads, begin = [], 0
    for part in arrays:
        end = begin + (1 if part.ndim == 2 else part.shape[1])
        grads.append(x_grad[:, begin:end].reshape(part.shape))
        begin = end
    return output, grads
