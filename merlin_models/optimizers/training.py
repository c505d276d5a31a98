"""RowSparseTraining: a training step whose embedding tables never get a gradient in memory."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from merlin_models.ops.lookups import record_lookups
from merlin_models.optimizers.devices import check_one_device
from merlin_models.optimizers.row_sparse import row_sparse_of


class RowSparseTraining:
    """A mixin for ``keras.Model`` (before it in the bases): tables are stepped from the gradients of what was looked up.

    With a ``RowSparse`` optimizer, ``train_step`` differentiates the loss by the outputs of the embedding layers and hands
    these with the ids to the optimizer, whose fused op does the rest. With any other optimizer it is Keras' own.

    Example:
        >>> import keras, numpy as np
        >>> from merlin_models.layers import EmbeddingBag
        >>> from merlin_models.optimizers import RowSparse, RowSparseTraining
        >>> class MyModel(RowSparseTraining, keras.Model):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.items, self.head = EmbeddingBag(1000, 16), keras.layers.Dense(1)
        ...     def call(self, ids):
        ...         return self.head(self.items(ids))
        >>> model = MyModel()
        >>> model.compile(RowSparse("adagrad"), loss="mse")
        >>> history = model.fit(np.array([[1, 2], [3, 3]]), np.array([0.0, 1.0]), verbose=0)
    """

    def train_step(self, data: Any) -> dict[str, Any]:
        optimizer = row_sparse_of(self.optimizer)
        if optimizer is None:
            return super().train_step(data)
        check_one_device("RowSparse")
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            with record_lookups(tape, optimizer.takes) as recorder:
                y_pred = self(x, training=True) if self._call_has_training_arg else self(x)
                loss = self._compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True)
            first = next(leaf for leaf in keras.tree.flatten(x) if leaf is not None)
            self._loss_tracker.update_state(loss, sample_weight=keras.ops.shape(first)[0])
            loss = self.optimizer.scale_loss(loss)
        outputs, weights = recorder.outputs(), self.trainable_weights
        if not self.optimizer.built:
            self.optimizer.build(weights)  # LossScaleOptimizer would take the lookups for variables
        gradients = tape.gradient(loss, weights + [output.tensor for output in outputs])
        self.optimizer.apply(gradients, [*weights, *outputs])
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)
