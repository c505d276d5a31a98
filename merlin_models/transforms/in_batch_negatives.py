"""InBatchNegatives: rows of clicks become rows of clicks and of items that were not clicked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.base import register
from merlin_models.blocks.inputs import TARGET_TAGS
from merlin_models.blocks.prediction import Prediction
from merlin_models.blocks.symbolic import rank_of
from merlin_models.ops import take_rows
from merlin_models.schema import Schema, Tags
from merlin_models.transforms.targets import TargetTransform


@register
class InBatchNegatives(TargetTransform):
    """Adds to each positive row of a batch n rows of the same user with items of other rows, whose targets are 0.

    For ranking models on data that has positives only; as ``fit(pre=InBatchNegatives(schema, 4))``. An item is drawn, with
    replacement, from the rows of the batch that have another item id, with equal chances; so a frequent item is drawn
    more often. A user's positives that are in other rows may be among them. In a batch of one item there are none.

    Args:
        schema: of the data set. What has the tag ``item`` comes with the drawn item; one column has the tag ``item_id``.
            All else stays with its row.
        n_per_positive: how many for each positive row.
        seed: of the random numbers, or None.
        run_when_testing: whether also in evaluation; else batches stay as they are there.

    Call arguments:
        inputs: dictionary feature -> tensor, dense of any rank, ragged, sparse, or (values, row_splits).
        targets: a tensor, a dictionary, a sequence, or None. Rows are positive where any target is above 0; the others get no
            negatives. If None, the features that the schema tags as targets are the targets, and if there are none all rows
            are positive and the target is a tensor (batch, 1).
        sample_weight: weights of rows, or None.
        training, testing: whether it is a step of training, or of evaluation. In neither nothing is added.

    Returns:
        A ``Prediction``: each row is followed by its negatives, with the row's weight.

    Raises:
        ValueError: if the schema has no item id, or several, or a list; if a column is tagged ``user`` and ``item``; if
            n_per_positive is not positive; if the inputs lack the item id.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> user = ml.ColumnSchema.create_categorical("userId", 9, tags=[ml.Tags.USER_ID])
        >>> item = ml.ColumnSchema.create_categorical("movieId", 9, tags=[ml.Tags.ITEM_ID])
        >>> negatives = ml.InBatchNegatives(ml.Schema([user, item]), n_per_positive=1)
        >>> batch = {"userId": np.array([1, 2]), "movieId": np.array([7, 8])}
        >>> outputs, targets, *_ = negatives(batch, training=True)
        >>> outputs["userId"].numpy().tolist(), outputs["movieId"].numpy().tolist(), targets.numpy()[:, 0].tolist()
        ([1, 1, 2, 2], [7, 8, 8, 7], [1.0, 0.0, 1.0, 0.0])
    """

    def __init__(
        self,
        schema: Schema,
        n_per_positive: int,
        seed: int | None = None,
        run_when_testing: bool = True,
        **kwargs: Any,
    ):
        # Features and targets are passed on as they are, whatever the policy of the model.
        super().__init__(autocast=False, **kwargs)
        if not isinstance(schema, Schema):
            raise TypeError(f"schema must be a Schema. Received: {type(schema).__name__}")
        if not isinstance(n_per_positive, int) or n_per_positive < 1:
            raise ValueError(f"n_per_positive must be a positive integer. Received: {n_per_positive!r}")
        ids = schema.select_by_tag(Tags.ITEM_ID)
        if len(ids) != 1 or ids.first.is_list:
            raise ValueError(f"schema must have one column tagged item_id, and no list. Received: {ids.column_names}")
        items = schema.select_by_tag(Tags.ITEM).remove_by_tag(TARGET_TAGS)
        both = items.select_by_tag(Tags.USER).column_names
        if both:
            raise ValueError(
                f"No column must be tagged user and item: a drawn item has no value of it. Received: {both}"
            )
        self.columns, self.n_per_positive = schema, n_per_positive
        self.seed, self.run_when_testing = seed, run_when_testing
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._item_id, self._of_item = ids.first.name, set(items.column_names)

    def call(
        self,
        inputs: dict[str, Any],
        targets: Any = None,
        sample_weight: Any = None,
        training: bool | None = None,
        testing: bool = False,
    ) -> Prediction:
        if not training and not (testing and self.run_when_testing):
            return Prediction(inputs, targets, sample_weight)
        if not isinstance(inputs, Mapping) or self._item_id not in inputs:
            came = sorted(inputs) if isinstance(inputs, Mapping) else type(inputs).__name__
            raise ValueError(f"Inputs must be a dictionary with the item id '{self._item_id}'. Received: {came}")
        ids = ops.reshape(inputs[self._item_id], (-1,))
        if targets is None:
            inputs, targets = self._split(inputs, ids)
        targets = keras.tree.map_structure(_column, targets)
        rows, items = self._draw(ids, _positive(targets))
        is_own = ops.equal(rows, items)  # a drawn item is of another row
        outputs = {name: take_rows(value, items if name in self._of_item else rows) for name, value in inputs.items()}

        def of_rows(target: Any) -> Any:
            target = ops.take(target, rows, axis=0)
            return target * ops.cast(ops.reshape(is_own, (-1,) + (1,) * (len(target.shape) - 1)), target.dtype)

        if sample_weight is not None:
            sample_weight = keras.tree.map_structure(lambda weight: ops.take(weight, rows, axis=0), sample_weight)
        return Prediction(outputs, keras.tree.map_structure(of_rows, targets), sample_weight)

    def _split(self, inputs: dict[str, Any], ids: Any) -> tuple[dict[str, Any], Any]:
        """Features and targets, where the targets come as features or not at all."""
        names = [name for name in self.columns.select_by_tag(TARGET_TAGS).column_names if name in inputs]
        if not names:
            return inputs, ops.ones((ops.shape(ids)[0], 1), "float32")
        features = {name: value for name, value in inputs.items() if name not in names}
        return features, {name: inputs[name] for name in names}

    def _draw(self, ids: Any, positive: Any) -> tuple[Any, Any]:
        """For each row of the result, the row that it comes from and the row that has its item."""
        size = ops.shape(ids)[0]
        order = ops.cast(ops.argsort(ids), "int32")
        in_order = ops.take(ids, order)
        # The rows of an item stand side by side in the order, so the others are all but that stretch.
        start = ops.cast(ops.searchsorted(in_order, ids, side="left"), "int32")
        same = ops.cast(ops.searchsorted(in_order, ids, side="right"), "int32") - start
        others = size - same
        repeats = 1 + ops.where(ops.logical_and(positive, others > 0), self.n_per_positive, 0)
        rows = ops.repeat(ops.arange(size), repeats)
        begins = ops.cumsum(repeats) - repeats
        is_own = ops.equal(ops.arange(ops.shape(rows)[0]), ops.take(begins, rows))
        draw = keras.random.randint(ops.shape(rows), 0, 2**31 - 1, dtype="int32", seed=self.seed_generator)
        place = draw % ops.take(ops.maximum(others, 1), rows)
        place = place + ops.where(place >= ops.take(start, rows), ops.take(same, rows), 0)
        drawn = ops.take(order, ops.minimum(place, size - 1))
        return rows, ops.where(is_own, rows, drawn)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "schema": self.columns.to_json(),
            "n_per_positive": self.n_per_positive,
            "seed": self.seed,
            "run_when_testing": self.run_when_testing,
        }


def _column(target: Any) -> Any:
    """A target of known rank: TensorFlow forgets that of what came once as (batch,) and once as (batch, 1)."""
    target = ops.convert_to_tensor(target)
    return ops.reshape(target, (-1, 1)) if rank_of(target) is None else target


def _positive(targets: Any) -> Any:
    """Whether any target of a row is above 0, (batch,)."""
    above = [
        ops.any(ops.reshape(target > 0, (ops.shape(target)[0], -1)), axis=1) if len(target.shape) > 1 else target > 0
        for target in keras.tree.flatten(targets)
    ]
    total = above[0]
    for each in above[1:]:
        total = ops.logical_or(total, each)
    return total
