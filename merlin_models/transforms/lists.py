"""Lists from one form to another: dense, ragged, sparse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from merlin_models.blocks.base import Block, register
from merlin_models.blocks.registry import BLOCKS
from merlin_models.blocks.symbolic import is_symbolic
from merlin_models.ops import batch_of, is_ragged, to_dense, to_ragged, to_sparse


def map_features(function: Callable[[str, Any], Any], inputs: Any, default_name: str = "inputs") -> Any:
    """The function of (name, value) on each entry of a dictionary, or on a bare tensor."""
    if isinstance(inputs, Mapping):
        return {name: function(name, value) for name, value in inputs.items()}
    return function(default_name, inputs)


def is_list_form(value: Any) -> bool:
    """Whether a value is ragged, sparse or a pair of tensors, rather than a dense tensor."""
    return isinstance(value, tuple | list) or is_ragged(value) or hasattr(value, "dense_shape")


@BLOCKS.register("to_dense", "as-dense")
@register
class ToDense(Block):
    """Lists as dense tensors (batch, length), padded with zeros on the right.

    Args:
        max_seq_length: length of the result; what longer lists have behind it is cut off. That of the longest list of the
            batch if None.

    Call arguments:
        inputs: a dictionary, or one value. Ragged and sparse tensors and pairs ``(values, row_splits)`` of rank 1, or
            ``(values, row_lengths)`` of shapes (n, 1) and (batch, 1), are converted; dense tensors stay as they are.

    Returns:
        The same, with dense tensors.

    Example:
        >>> import tensorflow as tf
        >>> from merlin_models.transforms import ToDense
        >>> ToDense(3)({"genres": tf.ragged.constant([[1, 2], [3]])})["genres"].numpy().tolist()
        [[1, 2, 0], [3, 0, 0]]
    """

    def __init__(self, max_seq_length: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if max_seq_length is not None and (not isinstance(max_seq_length, int) or max_seq_length < 1):
            raise ValueError(f"max_seq_length must be a positive integer or None. Received: {max_seq_length!r}")
        self.max_seq_length = max_seq_length

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return map_features(self._dense, inputs)

    def _dense(self, name: str, value: Any) -> Any:
        if not is_symbolic(value):
            return to_dense(value, self.max_seq_length, name) if is_list_form(value) else value
        if isinstance(value, tuple | list):
            return keras.KerasTensor((None, self.max_seq_length), value[0].dtype)
        if not value.sparse and not value.ragged:
            return value
        length = value.shape[1] if self.max_seq_length is None else self.max_seq_length
        return keras.KerasTensor((value.shape[0], length, *value.shape[2:]), value.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "max_seq_length": self.max_seq_length}


@BLOCKS.register("to_sparse", "as-sparse")
@register
class ToSparse(Block):
    """Lists as sparse tensors (batch, longest list).

    Call arguments:
        inputs: a dictionary, or one value, in any form that :class:`ToDense` takes. In dense tensors (batch, length) zeros
            at the end of a list are padding, which the result does not have; tensors (batch,) and (batch, 1) stay.

    Returns:
        The same, with sparse tensors.

    Example:
        >>> import numpy as np
        >>> from merlin_models.transforms import ToSparse
        >>> ToSparse()({"genres": np.array([[1, 2, 0], [3, 0, 0]])})["genres"].values.numpy().tolist()
        [1, 2, 3]
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return map_features(self._sparse, inputs)

    def _sparse(self, name: str, value: Any) -> Any:
        if not _is_list(value):
            return value
        if is_symbolic(value):
            return keras.KerasTensor((batch_of(value), None), _values_of(value).dtype, sparse=True)
        return to_sparse(value, name)


@BLOCKS.register("to_ragged", "as-ragged")
@register
class ToRagged(Block):
    """Lists as ragged tensors (batch, None), which every block of the library takes.

    Call arguments:
        inputs: as for :class:`ToSparse`.

    Returns:
        The same, with ragged tensors.

    Example:
        >>> import numpy as np
        >>> from merlin_models.transforms import ToRagged
        >>> ToRagged()({"genres": np.array([[1, 2, 0], [3, 0, 0]])})["genres"].to_list()
        [[1, 2], [3]]
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return map_features(self._ragged, inputs)

    def _ragged(self, name: str, value: Any) -> Any:
        if not _is_list(value):
            return value
        if is_symbolic(value):
            return keras.KerasTensor((batch_of(value), None), _values_of(value).dtype, ragged=True)
        return to_ragged(value, name=name)


AsDenseFeatures = ToDense
AsSparseFeatures = ToSparse
AsRaggedFeatures = ToRagged


def _is_list(value: Any) -> bool:
    """Whether a value holds lists, and not one number an example."""
    if is_list_form(value):
        return True
    return len(value.shape) == 2 and value.shape[1] != 1


def _values_of(value: Any) -> Any:
    return value[0] if isinstance(value, tuple | list) else value
