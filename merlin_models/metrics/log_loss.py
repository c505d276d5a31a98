"""LogLossMetric: binary cross-entropy under the name that click prediction knows."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="merlin_models")
class LogLossMetric(keras.metrics.BinaryCrossentropy):
    """Binary cross-entropy, named "logloss".

    Args:
        from_logits, label_smoothing: as in ``keras.metrics.BinaryCrossentropy``.

    Example:
        >>> import merlin_models.tf as ml
        >>> metric = ml.LogLossMetric()
        >>> metric.update_state([[1], [0]], [[0.5], [0.5]])
        >>> round(float(metric.result()), 4)
        0.6931
    """

    def __init__(self, name: str = "logloss", **kwargs: Any):
        super().__init__(name=name, **kwargs)
