"""Which strategies of ``tf.distribute`` training may be under: those that do not copy variables."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def check_one_device(subject: str, strategy: Any = None) -> None:
    """Raises NotImplementedError under a strategy that has copies of variables, as tables are changed in place.

    Args:
        subject: what does not run there, for the message.
        strategy: a ``tf.distribute.Strategy``, or None for the one that the call is within.
    """
    strategy = tf.distribute.get_strategy() if strategy is None else strategy
    none = not tf.distribute.has_strategy() and strategy is tf.distribute.get_strategy()
    if not (none or isinstance(strategy, tf.distribute.OneDeviceStrategy)):
        raise NotImplementedError(
            f"{subject} must run on one device, without a tf.distribute strategy or under OneDeviceStrategy. "
            f"Received: {type(strategy).__name__}"
        )
