"""Two baselines that a recommender has to beat, and the two measures of the comparison, in NumPy."""

from __future__ import annotations

import dataclasses

import numpy as np


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve, exact: the share of (positive, negative) pairs in the right order, ties counting half.

    Args:
        labels: (n,) of 0 and 1, both present.
        scores: (n,) of any real numbers.
    """
    labels = np.asarray(labels)
    _, rank, count = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count - 1) / 2  # mean rank of each tied group, from 1
    positives = int(np.count_nonzero(labels))
    negatives = len(labels) - positives
    if not positives or not negatives:
        raise ValueError(f"labels must have both 0 and 1. Received: {positives} positive of {len(labels)}.")
    return float((middle[rank][labels == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of -log P(label), with probabilities kept within [1e-7, 1 - 1e-7] as Keras does."""
    probabilities = np.clip(probabilities, 1e-7, 1 - 1e-7)
    return float(-np.mean(np.where(np.asarray(labels) == 1, np.log(probabilities), np.log1p(-probabilities))))


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


@dataclasses.dataclass(frozen=True)
class Biases:
    """P(like) = sigmoid(intercept + user bias + item bias); an id that was never seen has the bias 0."""

    intercept: float
    user: np.ndarray
    item: np.ndarray

    def predict(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        return _sigmoid(self.intercept + self.user[users] + self.item[items])


def fit_biases(
    users: np.ndarray, items: np.ndarray, labels: np.ndarray, num_users: int, num_items: int, l2: float
) -> Biases:
    """Fits the bias model to the log-loss with a penalty of l2 / 2 on each squared bias.

    Newton steps on one block after the other: within a block the Hessian is diagonal. Stops when a
    round lowers the mean penalised log-loss by less than 1e-7.

    Args:
        users, items: (n,) ids below `num_users` and `num_items`.
        labels: (n,) of 0 and 1.
        l2: strength of the penalty, positive.

    Example:
        >>> model = fit_biases(np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([1, 0, 0]), 2, 2, l2=1.0)
        >>> bool(model.item[0] > model.item[1])
        True
    """
    if l2 <= 0:
        raise ValueError(f"l2 must be positive. Received: {l2}.")
    intercept, user, item = 0.0, np.zeros(num_users), np.zeros(num_items)
    objective = np.inf
    for _ in range(200):
        chance = _sigmoid(intercept + user[users] + item[items])
        intercept -= (chance - labels).sum() / (chance * (1 - chance)).sum()
        for bias, ids in ((user, users), (item, items)):
            chance = _sigmoid(intercept + user[users] + item[items])
            slope = np.bincount(ids, chance - labels, len(bias)) + l2 * bias
            bias -= slope / (np.bincount(ids, chance * (1 - chance), len(bias)) + l2)
        chance = _sigmoid(intercept + user[users] + item[items])
        penalty = l2 / 2 * (np.square(user).sum() + np.square(item).sum()) / len(labels)
        previous, objective = objective, log_loss(labels, chance) + penalty
        if abs(previous - objective) < 1e-7:
            return Biases(float(intercept), user, item)
    raise RuntimeError(f"fit_biases must converge within 200 rounds. Received: {len(labels)} ratings, l2={l2}.")
