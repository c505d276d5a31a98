"""Losses of Keras as the registry has them: on logits, not on probabilities."""

from __future__ import annotations

from typing import Any

import keras

from merlin_models.blocks.base import register
from merlin_models.losses.registry import loss_registry


@loss_registry.register("categorical_crossentropy", "ce")
@register
class CategoricalCrossEntropy(keras.losses.CategoricalCrossentropy):
    """Softmax cross-entropy, of logits and one-hot targets (batch, candidates).

    Args:
        from_logits, **kwargs: of ``keras.losses.CategoricalCrossentropy``.

    Example:
        >>> import merlin_models.tf as ml
        >>> loss = ml.losses.CategoricalCrossEntropy()
        >>> round(float(loss([[0.0, 1.0]], [[0.0, 0.0]])), 4)  # ln 2
        0.6931
    """

    def __init__(self, from_logits: bool = True, **kwargs: Any):
        super().__init__(from_logits=from_logits, **kwargs)


@loss_registry.register("sparse_categorical_crossentropy", "sce")
@register
class SparseCategoricalCrossEntropy(keras.losses.SparseCategoricalCrossentropy):
    """Softmax cross-entropy, of logits (batch, candidates) and places (batch,).

    Args:
        from_logits, **kwargs: of ``keras.losses.SparseCategoricalCrossentropy``.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> loss = ml.losses.SparseCategoricalCrossEntropy()
        >>> round(float(loss(np.array([1]), np.zeros((1, 2)))), 4)  # ln 2
        0.6931
    """

    def __init__(self, from_logits: bool = True, **kwargs: Any):
        super().__init__(from_logits=from_logits, **kwargs)


@loss_registry.register("binary_crossentropy", "bce")
@register
class BinaryCrossEntropy(keras.losses.BinaryCrossentropy):
    """Sigmoid cross-entropy of each logit.

    Args:
        from_logits, **kwargs: of ``keras.losses.BinaryCrossentropy``.

    Example:
        >>> import merlin_models.tf as ml
        >>> loss = ml.losses.BinaryCrossEntropy()
        >>> round(float(loss([[1.0], [0.0]], [[0.0], [0.0]])), 4)  # ln 2
        0.6931
    """

    def __init__(self, from_logits: bool = True, **kwargs: Any):
        super().__init__(from_logits=from_logits, **kwargs)


loss_registry.register("mean_squared_error", "mse")(keras.losses.MeanSquaredError)
