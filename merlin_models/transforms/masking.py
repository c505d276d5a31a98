"""Masked items of sequences as targets."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from merlin_models.blocks.base import register
from merlin_models.blocks.prediction import Prediction
from merlin_models.blocks.registry import BLOCKS
from merlin_models.ops import append_to_rows, positions_in_rows, ragged_where, repeat_for_items, row_lengths, to_dense
from merlin_models.schema import ColumnSchema, Schema, Tags
from merlin_models.transforms.sequence import (
    SequencePredictNext,
    SequenceTransform,
    draw,
    generator_of,
    last_positions,
)
from merlin_models.transforms.targets import TargetTransform


@BLOCKS.register("seq_mask_random")
@register
class SequenceMaskRandom(SequenceTransform):
    """Masks items of sequences at random; they are the targets.

    Each item is masked with a probability. Where none of a sequence is, one is drawn to be; where all are, one is drawn not
    to be. The features stay as they are: the model's ``ReplaceMaskedEmbeddings`` block hides what is masked, and the tasks
    get the masked positions only, one row each.

    Args:
        schema, target: as in :class:`SequenceTransform`. Sequences must have at least 2 items.
        masking_prob: in (0, 1).
        seed: of the random numbers, or a ``keras.random.SeedGenerator``.

    Returns:
        A ``Prediction``: targets are ragged (batch, None), the masked items.

    Example:
        >>> import tensorflow as tf
        >>> from merlin_models.schema import ColumnSchema, Schema
        >>> from merlin_models.transforms import SequenceMaskRandom
        >>> schema = Schema([ColumnSchema.create_categorical("item", 9, value_count=(0, 0))])
        >>> prediction = SequenceMaskRandom(schema, "item", masking_prob=0.1)({"item": tf.ragged.constant([[1, 2], [4, 5]])})
        >>> prediction.targets.row_lengths().numpy().tolist()
        [1, 1]

    Reference:
        Sun et al., BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from Transformer, 2019,
        https://arxiv.org/abs/1904.06690
    """

    def __init__(
        self,
        schema: Schema,
        target: str | Tags | ColumnSchema = Tags.ITEM_ID,
        masking_prob: float = 0.2,
        seed: Any = None,
        **kwargs: Any,
    ):
        super().__init__(schema, target, **kwargs)
        if not 0 < masking_prob < 1:
            raise ValueError(f"masking_prob must be in (0, 1). Received: {masking_prob}")
        self.masking_prob, self.seed = masking_prob, seed
        self.seed_generator = generator_of(seed)

    def split(self, sequences: dict[str, Any]) -> tuple[dict[str, Any], Any, Any, Any]:
        items = sequences[self.target_name]
        shape = ops.shape(items.flat_values)
        masked = keras.random.uniform(shape, seed=self.seed_generator) < self.masking_prob
        lengths = row_lengths(items)
        counts = ops.sum(items.with_flat_values(ops.cast(masked, lengths.dtype)), axis=1)

        def for_items(of_row: Any) -> Any:
            return repeat_for_items(of_row, items).flat_values

        drawn = ops.equal(positions_in_rows(items), for_items(draw(lengths, self.seed_generator)))
        masked = ops.where(ops.logical_and(drawn, for_items(ops.equal(counts, 0))), True, masked)
        masked = ops.where(ops.logical_and(drawn, for_items(ops.equal(counts, lengths))), False, masked)
        return sequences, ragged_where(items, masked), masked, masked

    def get_config(self) -> dict[str, Any]:
        seed = keras.saving.serialize_keras_object(self.seed)
        return {**super().get_config(), "masking_prob": self.masking_prob, "seed": seed}


@BLOCKS.register("seq_mask_last")
@register
class SequenceMaskLast(SequenceTransform):
    """Masks the last item of each sequence, which is the target: for the evaluation of models of masked sequences.

    Args:
        schema, target: as in :class:`SequenceTransform`. Sequences must have at least 2 items.

    Returns:
        A ``Prediction``: targets are (batch, 1).

    Example:
        >>> import tensorflow as tf, merlin_models.tf as ml
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical("item", 9, value_count=(0, 0))])
        >>> rows = {"item": tf.ragged.constant([[1, 2, 3], [4, 5]])}
        >>> outputs, targets, *_ = ml.SequenceMaskLast(schema, "item")(rows)
        >>> outputs["item"].to_list(), targets.numpy().tolist()
        ([[1, 2, 3], [4, 5]], [[3], [5]])
    """

    def split(self, sequences: dict[str, Any]) -> tuple[dict[str, Any], Any, Any, Any]:
        items = sequences[self.target_name]
        last = last_positions(items)
        return sequences, to_dense(items[:, -1:], 1), last, last


@register
class SequenceMaskLastInference(SequenceTransform):
    """Appends a masked position to sequences, for the item that comes next; there are no targets.

    For predictions of models of masked sequences.

    Args:
        schema, target: as in :class:`SequenceTransform`. Sequences may have any length.

    Call arguments:
        inputs: dictionary with the sequences, (batch, None) ragged or (batch, length) padded, as of
            :class:`SequenceTransform`.

    Returns:
        A ``Prediction`` of the features, the targets as they came, and the weights. A model predicts one row a sequence. At
        the new position features are 1, which is no padding; what they are has no influence, as the position is masked.

    Example:
        >>> import tensorflow as tf, merlin_models.tf as ml
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical("item", 9, value_count=(0, 0))])
        >>> rows = {"item": tf.ragged.constant([[1, 2, 3], [4, 5]])}
        >>> outputs, targets, *_ = ml.SequenceMaskLastInference(schema, "item")(rows)
        >>> outputs["item"].to_list(), targets
        ([[1, 2, 3, 1], [4, 5, 1]], None)
    """

    least_length = 0

    def split(self, sequences: dict[str, Any]) -> tuple[dict[str, Any], Any, Any, Any]:
        longer = {name: append_to_rows(value, 1) for name, value in sequences.items()}
        last = last_positions(longer[self.target_name])
        return longer, None, last, last

    def _width(self, width: int | None) -> int | None:
        return None if width is None else width + 1


@BLOCKS.register("mlm", "masked")
@register
class MaskedLanguageModeling(TargetTransform):
    """:class:`SequenceMaskRandom` in training, :class:`SequenceMaskLast` otherwise.

    Args:
        schema, target, seed: as in :class:`SequenceMaskRandom`.
        mlm_probability: its ``masking_prob``.

    Call arguments:
        As of :class:`SequenceMaskRandom`; ``training`` chooses.

    Returns:
        A ``Prediction``.

    Example:
        >>> import tensorflow as tf, merlin_models.tf as ml
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical("item", 9, value_count=(0, 0))])
        >>> rows = {"item": tf.ragged.constant([[1, 2, 3], [4, 5]])}
        >>> outputs, targets, *_ = ml.MaskedLanguageModeling(schema, "item")(rows, training=False)
        >>> targets.numpy().tolist()
        [[3], [5]]
    """

    def __init__(
        self,
        schema: Schema,
        target: str | Tags | ColumnSchema = Tags.ITEM_ID,
        mlm_probability: float = 0.15,
        seed: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.random = SequenceMaskRandom(schema, target, mlm_probability, seed)
        self.last = SequenceMaskLast(schema, target)

    def call(
        self, inputs: Any, targets: Any = None, sample_weight: Any = None, training: bool | None = None
    ) -> Prediction:
        transform = self.random if training else self.last
        return transform(inputs, targets=targets, sample_weight=sample_weight)

    def get_config(self) -> dict[str, Any]:
        config = self.random.get_config()
        own = {name: config[name] for name in ("schema", "target", "seed")}
        return {**super().get_config(), **own, "mlm_probability": config["masking_prob"]}


@BLOCKS.register("clm", "causal")
@register
class CausalLanguageModeling(TargetTransform):
    """:class:`SequencePredictNext` in training; otherwise only the last item of each sequence is a target.

    Args:
        schema, target: as in :class:`SequencePredictNext`.
        train_on_last_item_seq_only: whether only the last item is a target in training, too.
        eval_on_last_item_seq_only: False for all next items in evaluation.

    Call arguments:
        As of :class:`SequencePredictNext`; ``training`` chooses.

    Returns:
        A ``Prediction``.

    Example:
        >>> import tensorflow as tf, merlin_models.tf as ml
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical("item", 9, value_count=(0, 0))])
        >>> rows = {"item": tf.ragged.constant([[1, 2, 3], [4, 5]])}
        >>> outputs, targets, *_ = ml.CausalLanguageModeling(schema, "item")(rows, training=True)
        >>> targets.to_list()
        [[2, 3], [5]]
    """

    def __init__(
        self,
        schema: Schema,
        target: str | Tags | ColumnSchema = Tags.ITEM_ID,
        train_on_last_item_seq_only: bool = False,
        eval_on_last_item_seq_only: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.next = SequencePredictNext(schema, target)
        self.last = _CausalLast(schema, target)
        self.train_on_last_item_seq_only = bool(train_on_last_item_seq_only)
        self.eval_on_last_item_seq_only = bool(eval_on_last_item_seq_only)

    def call(
        self, inputs: Any, targets: Any = None, sample_weight: Any = None, training: bool | None = None
    ) -> Prediction:
        only_last = self.train_on_last_item_seq_only if training else self.eval_on_last_item_seq_only
        transform = self.last if only_last else self.next
        return transform(inputs, targets=targets, sample_weight=sample_weight)

    def get_config(self) -> dict[str, Any]:
        config = self.next.get_config()
        return {
            **super().get_config(),
            "schema": config["schema"],
            "target": config["target"],
            "train_on_last_item_seq_only": self.train_on_last_item_seq_only,
            "eval_on_last_item_seq_only": self.eval_on_last_item_seq_only,
        }


class _CausalLast(SequencePredictNext):
    """The sequences without their last item, whose last position has that item as target."""

    def split(self, sequences: dict[str, Any]) -> tuple[dict[str, Any], Any, Any, Any]:
        shorter, targets, _, _ = super().split(sequences)
        return shorter, to_dense(targets[:, -1:], 1), None, last_positions(shorter[self.target_name])
