"""XLA around ops that it does not know."""

from __future__ import annotations

import contextlib

import tensorflow as tf


def clustering(wanted: bool) -> contextlib.AbstractContextManager[None]:
    """Marks the ops that a graph gets meanwhile for XLA, which compiles neighbours that it knows together.

    Args:
        wanted: else nothing is marked. Eager calls, which have no graph, are left as they are, too.
    """
    if not wanted or tf.executing_eagerly():
        return contextlib.nullcontext()
    return tf.xla.experimental.jit_scope()
