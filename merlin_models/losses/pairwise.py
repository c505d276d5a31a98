"""Pairwise losses: the score of the positive item beside that of each negative one."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from merlin_models.blocks.base import register
from merlin_models.losses.registry import loss_registry


class PairwiseLoss(keras.losses.Loss):
    """A loss of each pair of the positive item and a negative one.

    Subclasses write ``of_pairs``.

    Args:
        reduction: "sum_over_batch_size", the mean over all pairs; "sum"; or None, for one value a pair,
            (batch, candidates - 1) in the order of the candidates without the positive.

    Call arguments:
        y_true: (batch, candidates): 1 for the positive item of the row, 0 for others. The pairs of a row without a positive
            have the loss 0.
        y_pred: (batch, candidates), logits.
        sample_weight: (batch,) or (batch, 1).
        valid_negatives_mask: (batch, candidates - 1) in the order of the result, or (batch, candidates); false where a
            negative is none, because it is the positive item again. Its pair has the loss 0, and no share of a softmax.

    Raises:
        ValueError: if shapes differ from these, or a row has several positives. In a compiled function, where that cannot be
            raised, such a row has the loss NaN.

    Example:
        >>> import merlin_models.tf as ml
        >>> loss = ml.losses.HingeLoss(reduction=None)
        >>> loss([[0.0, 1.0, 0.0]], [[1.5, 2.0, 0.5]]).numpy().tolist()
        [[0.5, 0.0]]
    """

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str | None = None, dtype: Any = None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None, valid_negatives_mask: Any = None) -> Any:
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        if valid_negatives_mask is not None:
            y_true = (y_true, ops.convert_to_tensor(valid_negatives_mask))
        if sample_weight is not None:
            sample_weight = ops.reshape(ops.convert_to_tensor(sample_weight), (-1, 1))
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        targets, mask = y_true if isinstance(y_true, tuple) else (y_true, None)
        shapes = tuple(targets.shape), tuple(y_pred.shape)
        if len(shapes[1]) != 2 or len(shapes[0]) != 2 or _differ(*shapes):
            raise ValueError(
                f"y_true and y_pred must have one shape (batch, candidates). Received: {shapes[0]} and {shapes[1]}"
            )
        if mask is not None and len(mask.shape) != 2:
            raise ValueError(
                f"valid_negatives_mask must have the shape (batch, candidates - 1). Received: {tuple(mask.shape)}"
            )
        number = ops.sum(ops.cast(targets > 0, "int32"), axis=1, keepdims=True)
        _check_one_positive(number)
        place = ops.expand_dims(ops.argmax(targets, axis=1), 1)
        columns = ops.expand_dims(ops.arange(ops.shape(y_pred)[1], dtype=place.dtype), 0)
        positive = ops.sum(ops.where(columns == place, y_pred, 0.0), axis=1, keepdims=True)
        negatives = _without_column(y_pred, columns, place)
        valid = ops.broadcast_to(number > 0, ops.shape(negatives))
        if mask is not None:
            mask = mask if _has_negatives_only(mask, y_pred) else _without_column(mask, columns, place)
            valid = valid & (mask > 0)
        # Values of what is left out must not reach the gradient of what is not.
        losses = self.of_pairs(positive, ops.where(valid, negatives, 0.0), valid)
        losses = ops.where(valid, losses, 0.0)
        return ops.where(number > 1, float("nan"), losses)

    def of_pairs(self, positive: Any, negatives: Any, valid: Any) -> Any:
        """The loss of each pair, (batch, candidates - 1).

        Args:
            positive: (batch, 1).
            negatives: (batch, candidates - 1), 0 where not valid.
            valid: (batch, candidates - 1) bool.
        """
        raise NotImplementedError(f"{type(self).__name__} must define of_pairs().")


def _check_one_positive(number: Any) -> None:
    # Tensors of a compiled function have no values yet.
    if hasattr(number, "numpy") and (number.numpy() > 1).any():
        raise ValueError(
            "The batch contains more examples with more than one positive item; pairwise losses take one a row. "
            f"Received: {int(number.numpy().max())} in a row"
        )


def _differ(first: tuple, second: tuple) -> bool:
    return any(a != b and None not in (a, b) for a, b in zip(first, second, strict=True))


def _without_column(values: Any, columns: Any, place: Any) -> Any:
    """Rows (batch, candidates - 1) without the column of each row's place (batch, 1)."""
    return ops.where(columns[:, :-1] >= place, values[:, 1:], values[:, :-1])


def _has_negatives_only(mask: Any, y_pred: Any) -> bool:
    widths = mask.shape[1], y_pred.shape[1]
    if None in widths or widths[0] not in (widths[1] - 1, widths[1]):
        raise ValueError(
            "valid_negatives_mask must have the shape (batch, candidates - 1) or (batch, candidates), known beforehand. "
            f"Received: {tuple(mask.shape)} with {widths[1]} candidates"
        )
    return widths[0] == widths[1] - 1


def _log_weights(negatives: Any, valid: Any) -> Any:
    """The logarithm of the softmax over each row's valid negatives."""
    return ops.log_softmax(ops.where(valid, negatives, -1e30), axis=1)


@loss_registry.register("bpr")
@register
class BPRLoss(PairwiseLoss):
    """Bayesian personalized ranking: -ln sigmoid(s+ - s-). See :class:`PairwiseLoss`.

    Example:
        >>> import merlin_models.tf as ml
        >>> loss = ml.losses.BPRLoss(reduction=None)
        >>> loss([[0.0, 1.0, 0.0]], [[1.5, 2.0, 0.5]]).numpy().round(4)  # a number a negative
        array([[0.4741, 0.2014]], dtype=float32)

    Reference:
        Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, 2009, https://arxiv.org/abs/1205.2618
    """

    def of_pairs(self, positive: Any, negatives: Any, valid: Any) -> Any:
        return ops.softplus(negatives - positive)


@loss_registry.register("bpr-max")
@register
class BPRmaxLoss(PairwiseLoss):
    """BPR-max: -ln(sigmoid(s+ - s-) w) + reg_lambda (s-)^2 w, w the softmax over the row's negatives.

    Args:
        reg_lambda: weight of the regularization of negative scores.
        **kwargs: of :class:`PairwiseLoss`.

    Example:
        >>> import merlin_models.tf as ml
        >>> loss = ml.losses.BPRmaxLoss(reduction=None)
        >>> loss([[0.0, 1.0, 0.0]], [[1.5, 2.0, 0.5]]).numpy().round(4)  # a number a negative
        array([[2.4322, 1.5819]], dtype=float32)

    Reference:
        Hidasi and Karatzoglou, Recurrent Neural Networks with Top-k Gains for Session-based Recommendations, 2018,
        https://arxiv.org/abs/1706.03847
    """

    def __init__(self, reg_lambda: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.reg_lambda = float(reg_lambda)

    def of_pairs(self, positive: Any, negatives: Any, valid: Any) -> Any:
        log_weights = _log_weights(negatives, valid)
        # Those left out have weights of -1e30, which 0 would not undo.
        log_weights = ops.where(valid, log_weights, 0.0)
        regularization = self.reg_lambda * ops.square(negatives) * ops.exp(log_weights)
        return ops.softplus(negatives - positive) - log_weights + regularization

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "reg_lambda": self.reg_lambda}


def _top1(positive: Any, negatives: Any) -> Any:
    return ops.sigmoid(negatives - positive) + ops.sigmoid(ops.square(negatives))


@loss_registry.register("top1")
@register
class TOP1Loss(PairwiseLoss):
    """TOP1: sigmoid(s- - s+) + sigmoid((s-)^2). See :class:`PairwiseLoss`.

    Example:
        >>> import merlin_models.tf as ml
        >>> loss = ml.losses.TOP1Loss(reduction=None)
        >>> loss([[0.0, 1.0, 0.0]], [[1.5, 2.0, 0.5]]).numpy().round(4)  # a number a negative
        array([[1.2822, 0.7446]], dtype=float32)

    Reference:
        Hidasi et al., Session-based Recommendations with Recurrent Neural Networks, 2016, https://arxiv.org/abs/1511.06939
    """

    def of_pairs(self, positive: Any, negatives: Any, valid: Any) -> Any:
        return _top1(positive, negatives)


@loss_registry.register("top1_v2")
@register
class TOP1v2Loss(PairwiseLoss):
    """TOP1 without the part of the positive itself: TOP1 - sigmoid((s+)^2) / negatives. See :class:`PairwiseLoss`.

    That is how later versions of GRU4Rec have it, where a row's positive is among its negatives. Negatives that are left out
    are not counted.

    Example:
        >>> import merlin_models.tf as ml
        >>> loss = ml.losses.TOP1v2Loss(reduction=None)
        >>> loss([[0.0, 1.0, 0.0]], [[1.5, 2.0, 0.5]]).numpy().round(4)  # a number a negative
        array([[0.7912, 0.2536]], dtype=float32)

    Reference:
        Hidasi et al., Session-based Recommendations with Recurrent Neural Networks, 2016, https://arxiv.org/abs/1511.06939
    """

    def of_pairs(self, positive: Any, negatives: Any, valid: Any) -> Any:
        number = ops.maximum(ops.sum(ops.cast(valid, negatives.dtype), axis=1, keepdims=True), 1)
        return _top1(positive, negatives) - ops.sigmoid(ops.square(positive)) / number


@loss_registry.register("top1-max")
@register
class TOP1maxLoss(PairwiseLoss):
    """TOP1-max: TOP1 times w, the softmax over the row's negatives. See :class:`PairwiseLoss`.

    Example:
        >>> import merlin_models.tf as ml
        >>> loss = ml.losses.TOP1maxLoss(reduction=None)
        >>> loss([[0.0, 1.0, 0.0]], [[1.5, 2.0, 0.5]]).numpy().round(4)  # a number a negative
        array([[0.9374, 0.2003]], dtype=float32)

    Reference:
        Hidasi and Karatzoglou, Recurrent Neural Networks with Top-k Gains for Session-based Recommendations, 2018,
        https://arxiv.org/abs/1706.03847
    """

    def of_pairs(self, positive: Any, negatives: Any, valid: Any) -> Any:
        return _top1(positive, negatives) * ops.exp(_log_weights(negatives, valid))


@loss_registry.register("logistic")
@register
class LogisticLoss(PairwiseLoss):
    """Pairwise logistic loss: ln(1 + exp(s- - s+)), which is the same function as BPR. See :class:`PairwiseLoss`.

    Example:
        >>> import merlin_models.tf as ml
        >>> loss = ml.losses.LogisticLoss(reduction=None)
        >>> loss([[0.0, 1.0, 0.0]], [[1.5, 2.0, 0.5]]).numpy().round(4)  # a number a negative
        array([[0.4741, 0.2014]], dtype=float32)

    Reference:
        Burges et al., Learning to Rank using Gradient Descent, 2005, https://doi.org/10.1145/1102351.1102363
    """

    def of_pairs(self, positive: Any, negatives: Any, valid: Any) -> Any:
        return ops.softplus(negatives - positive)


@loss_registry.register("hinge")
@register
class HingeLoss(PairwiseLoss):
    """Pairwise hinge loss: max(0, 1 + s- - s+). See :class:`PairwiseLoss`.

    Example:
        >>> import merlin_models.tf as ml
        >>> loss = ml.losses.HingeLoss(reduction=None)
        >>> loss([[0.0, 1.0, 0.0]], [[1.5, 2.0, 0.5]]).numpy().round(4)  # a number a negative
        array([[0.5, 0. ]], dtype=float32)

    Reference:
        Herbrich et al., Large Margin Rank Boundaries for Ordinal Regression, 2000.
    """

    def of_pairs(self, positive: Any, negatives: Any, valid: Any) -> Any:
        return ops.relu(1.0 + negatives - positive)
