"""InbatchSoftmax: the softmax loss of queries over candidates that they share, as a layer."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from merlin_models.ops import inbatch_softmax
from merlin_models.ops.inbatch_softmax import PRECISIONS
from merlin_models.ops.inbatch_softmax import InbatchSoftmax as Rows


@keras.saving.register_keras_serializable(package="merlin_models")
class InbatchSoftmax(keras.layers.Layer):
    """Softmax cross-entropy of each query's positive among candidates, without the matrix of their scores.

    See :func:`merlin_models.ops.inbatch_softmax` for the maths.

    Args:
        symmetric: the mean with the loss of the candidates among the queries.
        precision: of float32 on a GPU: "float32", "tf32", or None for TensorFlow's own setting.

    Call arguments:
        queries: (batch, dim). These, ``candidates`` and ``positives`` are cast to the layer's compute dtype.
        candidates: (candidates, dim); without ``positives`` the first rows are the queries' own.
        positives: (batch, dim), or None.
        temperature, positive_ids, candidate_ids, positive_log_q, candidate_log_q: of the op.
        training: False leaves out what only a gradient needs.
        loss_weights: (batch,), what losses will be multiplied with, see the op.

    Returns:
        The op's named tuple, (batch,) each: ``loss``, ``log_sum_exp`` and ``positive_score`` in float32, ``rank`` in int64.

    Example:
        >>> import numpy as np
        >>> from merlin_models.layers import InbatchSoftmax
        >>> vectors = np.eye(3, dtype="float32")
        >>> InbatchSoftmax()(vectors, vectors, temperature=0.1, training=False).rank.numpy().tolist()
        [0, 0, 0]
    """

    def __init__(self, symmetric: bool = False, precision: str | None = None, **kwargs: Any):
        # Temperature and log_q stay float32.
        super().__init__(autocast=False, **kwargs)
        if precision is not None and precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {PRECISIONS} or None. Received: {precision!r}")
        self.symmetric, self.precision = bool(symmetric), precision
        self.supports_jit = False  # the op has no XLA kernel

    def call(
        self,
        queries: Any,
        candidates: Any,
        positives: Any = None,
        temperature: Any = 1.0,
        positive_ids: Any = None,
        candidate_ids: Any = None,
        positive_log_q: Any = None,
        candidate_log_q: Any = None,
        training: bool | None = None,
        loss_weights: Any = None,
    ) -> Rows:
        return inbatch_softmax(
            ops.cast(queries, self.compute_dtype),
            ops.cast(candidates, self.compute_dtype),
            positives=None if positives is None else ops.cast(positives, self.compute_dtype),
            temperature=temperature,
            positive_ids=positive_ids,
            candidate_ids=candidate_ids,
            positive_log_q=positive_log_q,
            candidate_log_q=candidate_log_q,
            loss_weights=loss_weights,
            symmetric=self.symmetric,
            precision=self.precision,
            training=bool(training),
        )

    def compute_output_spec(self, queries: Any, *args: Any, **kwargs: Any) -> Rows:
        rows = (queries.shape[0],)
        losses = (keras.KerasTensor(rows, "float32") for _ in range(3))
        return Rows(*losses, keras.KerasTensor(rows, "int64"))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "symmetric": self.symmetric, "precision": self.precision}
