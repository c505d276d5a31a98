"""Portable tracing: graphs of stock TensorFlow ops alone, which TensorFlow Serving runs without this library."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from merlin_models import _native

_current = threading.local()


@contextlib.contextmanager
def portable_ops() -> Iterator[None]:
    """While active in this thread, ops compute by stock TensorFlow ops and not by the compiled ones.

    Results are the same but for the rounding of sums in another order. It is meant for inference: what is traced into a
    ``tf.function`` meanwhile needs no library of ours to run.

    Yields:
        None.

    Raises:
        NotImplementedError: inside, by an op that has no form in stock ops: those that only training needs.

    Example:
        >>> import tensorflow as tf
        >>> from merlin_models.ops import dot_interaction, portable_ops
        >>> function = tf.function(dot_interaction)
        >>> with portable_ops():
        ...     graph = function.get_concrete_function(tf.TensorSpec([None, 3, 8])).graph
        >>> [op.type for op in graph.get_operations() if op.type.startswith("Merlin")]
        []
    """
    before = is_portable()
    _current.active = True
    try:
        yield
    finally:
        _current.active = before


def is_portable() -> bool:
    """Whether ops must compute by stock ops now.

    Returns:
        A bool, of this thread.

    Example:
        >>> from merlin_models.ops import is_portable, portable_ops
        >>> with portable_ops():
        ...     print(is_portable())
        True
        >>> is_portable()
        False
    """
    return getattr(_current, "active", False)


def compiled_ops() -> Any:
    """The compiled TensorFlow ops; while :func:`portable_ops` is active, what raises when one of them is called."""
    return _NoCompiledOps() if is_portable() else _native.tf_ops()


class _NoCompiledOps:
    def __getattr__(self, name: str) -> Any:
        op = name.removeprefix("merlin_").removeprefix("resource_")
        raise NotImplementedError(
            f"A portable graph must consist of stock TensorFlow ops. Received: a call of '{op}', which has no form in these"
        )
