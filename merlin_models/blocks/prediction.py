"""Prediction: what a block that changes features and targets together returns."""

from __future__ import annotations

from typing import Any, NamedTuple


class Prediction(NamedTuple):
    """Features or predictions, with the targets and sample weights that belong to them.

    Attributes:
        outputs: features, or predictions.
        targets: a tensor, a dictionary target -> tensor, or None.
        sample_weight: the same, for weights.
        negative_candidate_ids: ids of the candidates that a task scores as negatives, or None.

    Example:
        >>> import merlin_models.tf as ml
        >>> def liked(features, targets):  # for fit(pre=...)
        ...     return ml.Prediction(features, targets > 3)
        >>> liked({"movieId": 1}, 5).targets
        True
    """

    outputs: Any
    targets: Any = None
    sample_weight: Any = None
    negative_candidate_ids: Any = None
