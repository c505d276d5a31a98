"""PopularityLogitsCorrection: what popular items lose of their logits."""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np
from keras import ops

from merlin_models.blocks.base import register
from merlin_models.metrics.catalogue import as_probabilities
from merlin_models.samplers.base import as_int64


@register
class PopularityLogitsCorrection(keras.layers.Layer):
    """Subtracts ``reg_factor * ln p`` from the logits of items, p being their share of the training data.

    In-batch negatives are as frequent as they are popular; this is the correction where frequencies are known beforehand.
    :class:`StreamingItemFrequency` learns them.

    Args:
        item_freq_probs: (items,), how often the ids 0, 1, ... occur; or the number of items, for equal frequencies. Ids that
            never occur count as the rarest that do. Saved as a weight; a config has their number.
        is_prob_distribution: whether they sum to 1 already.
        reg_factor: how much of the correction is made.

    Call arguments:
        logits: (batch, candidates), float.
        ids: (candidates,) or (batch, candidates), integers: whose logits they are. Positives among them are corrected too.
        training: outside of training logits stay as they are.

    Returns:
        As ``logits``.

    Example:
        >>> import numpy as np
        >>> import merlin_models.tf as ml
        >>> correction = ml.PopularityLogitsCorrection([1, 1, 2])
        >>> correction(np.zeros((1, 2), "float32"), np.array([0, 2]), training=True).numpy().round(3).tolist()
        [[1.3860000371932983, 0.6930000185966492]]

    Reference:
        Yi et al., Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations, 2019,
        https://doi.org/10.1145/3298689.3346996
    """

    def __init__(
        self, item_freq_probs: Any, is_prob_distribution: bool = False, reg_factor: float = 1.0, **kwargs: Any
    ):
        super().__init__(**kwargs)
        if not reg_factor >= 0:
            raise ValueError(f"reg_factor must be at least 0. Received: {reg_factor}")
        if isinstance(item_freq_probs, int):
            item_freq_probs, is_prob_distribution = np.ones(item_freq_probs), False
        log_probabilities = _log_probabilities(item_freq_probs, is_prob_distribution)
        self.reg_factor = float(reg_factor)
        self.log_probabilities = self.add_weight(
            name="log_probabilities",
            shape=log_probabilities.shape,
            dtype="float32",
            initializer="zeros",
            trainable=False,
            autocast=False,
        )
        self.log_probabilities.assign(log_probabilities)
        self.built = True

    @classmethod
    def from_parquet(
        cls,
        path: str | os.PathLike,
        column: str,
        id_column: str | None = None,
        is_prob_distribution: bool = False,
        **kwargs: Any,
    ) -> PopularityLogitsCorrection:
        """Of a Parquet file with a row an item.

        Args:
            path: of the file.
            column: of frequencies or probabilities.
            id_column: of ids; rows are those of the ids 0, 1, ... if None. Ids without a row have the frequency 0.
            is_prob_distribution: as above.
            **kwargs: of the layer.

        Raises:
            ValueError: if ids are negative or occur twice.
        """
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path, columns=[column] if id_column is None else [column, id_column])
        values = table[column].to_numpy()
        if id_column is not None:
            ids = table[id_column].to_numpy()
            if len(np.unique(ids)) != len(ids) or (len(ids) and ids.min() < 0):
                raise ValueError(
                    f"'{id_column}' must have ids of at least 0, each once. Received: {ids[:10].tolist()}..."
                )
            values, given = np.zeros(int(ids.max(initial=-1)) + 1), values
            values[ids] = given
        return cls(values, is_prob_distribution, **kwargs)

    def update(self, item_freq_probs: Any, is_prob_distribution: bool = False) -> None:
        """Takes other frequencies, for the same number of items.

        Raises:
            ValueError: if their number is another one.
        """
        values = _log_probabilities(item_freq_probs, is_prob_distribution)
        if values.shape != tuple(self.log_probabilities.shape):
            raise ValueError(
                f"item_freq_probs must have {self.log_probabilities.shape[0]} items as before. Received: {len(values)}"
            )
        self.log_probabilities.assign(values)

    def log_q(self, ids: Any) -> Any:
        """What is subtracted: ``reg_factor * ln p``, float32 of the shape of ids."""
        return self.reg_factor * ops.take(self.log_probabilities, as_int64(ids), axis=0)

    def call(self, logits: Any, ids: Any, training: bool | None = None) -> Any:
        if not training:
            return logits
        return logits - ops.cast(self.log_q(ids), logits.dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "item_freq_probs": int(self.log_probabilities.shape[0]),
            "reg_factor": self.reg_factor,
        }


def _log_probabilities(item_freq_probs: Any, is_prob_distribution: bool) -> np.ndarray:
    probabilities = as_probabilities(item_freq_probs, is_prob_distribution)
    return np.log(np.maximum(probabilities, probabilities[probabilities > 0].min()))
