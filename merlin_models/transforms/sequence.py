"""Next items of sequences as targets: by position, and by masking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.base import register
from merlin_models.blocks.positions import MASKED, SELECTED
from merlin_models.blocks.prediction import Prediction
from merlin_models.blocks.registry import BLOCKS
from merlin_models.ops import (
    check_equal_lengths,
    check_lengths,
    is_ragged,
    positions_in_rows,
    ragged_where,
    repeat_for_items,
    row_lengths,
    to_dense,
    to_ragged,
)
from merlin_models.schema import ColumnSchema, Schema, Tags
from merlin_models.transforms.lists import is_list_form
from merlin_models.transforms.targets import TargetTransform, merged_targets


class SequenceTransform(TargetTransform):
    """Makes targets of a sequence of ids, and changes it and the sequences beside it to fit.

    Subclasses write ``split``.

    Args:
        schema: the sequences: its list columns, which must have the same lengths. Columns that are no lists stay as they
            are.
        target: the column of ids to predict: its name, ``ColumnSchema``, or a tag that one list column has.

    Call arguments:
        inputs: dictionary with all sequences: ragged, sparse or pairs, which become ragged; or (batch, length), padded with
            zeros on the right, which stay so. Zeros at the end of the target's lists tell the length of all.
        targets: None, or a dictionary of further targets.
        sample_weight: a weight a row, or None. Repeated for each target of a row.

    Returns:
        A ``Prediction`` of features, targets and weights. Targets are a tensor, or a dictionary beside others.

    Raises:
        ValueError: for a target that is not one column of lists; if a sequence is missing.
        tf.errors.InvalidArgumentError: for sequences that are too short, or of different lengths.

    Example:
        >>> import tensorflow as tf, merlin_models.tf as ml
        >>> from merlin_models.transforms.sequence import SequenceTransform
        >>> class Halves(SequenceTransform):  # predicts the first item again
        ...     def split(self, sequences):
        ...         items = sequences[self.target_name]
        ...         return sequences, items[:, :1].to_tensor(), None, None
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical("item", 9, value_count=(0, 0))])
        >>> Halves(schema, "item")({"item": tf.ragged.constant([[1, 2, 3], [4, 5]])}).targets.numpy().tolist()
        [[1], [4]]
    """

    least_length = 2

    def __init__(self, schema: Schema, target: str | Tags | ColumnSchema = Tags.ITEM_ID, **kwargs: Any):
        super().__init__(**kwargs)
        if not isinstance(schema, Schema):
            raise TypeError(f"schema must be a Schema. Received: {type(schema).__name__}")
        self.columns = schema.filter_column_schemas(lambda column: column.is_list)
        self.target_name = _target_name(self.columns, target)

    def split(self, sequences: dict[str, Any]) -> tuple[dict[str, Any], Any, Any, Any]:
        """What the sequences become.

        Args:
            sequences: column -> ragged tensor, all with the same row splits.

        Returns:
            The sequences to go on with; the targets, ragged or (batch, 1), or None; which positions are masked, and which
            have a target: booleans for all items, or None for none and all.
        """
        raise NotImplementedError(f"{type(self).__name__} must define split(sequences).")

    def call(
        self, inputs: Any, targets: Any = None, sample_weight: Any = None, training: bool | None = None
    ) -> Prediction:
        sequences = self._sequences(inputs)
        outputs, found, masked, selected = self.split(sequences)
        first = outputs[self.target_name]
        outputs = {name: first.with_flat_values(value.flat_values) for name, value in outputs.items()}
        if selected is None and found is not None and not is_list_form(inputs[self.target_name]) and is_ragged(found):
            selected = ops.ones_like(first.flat_values, dtype="bool")  # all but the padding
        features = {name: outputs.get(name, value) for name, value in inputs.items()}
        for name, mask in ((MASKED, masked), (SELECTED, selected)):
            if mask is not None:
                features[name] = first.with_flat_values(mask)
        for name in features:
            # What came padded stays so. The length changes as that of the longest row could.
            source = inputs.get(name, inputs[self.target_name])
            if is_ragged(features[name]) and not is_list_form(source):
                features[name] = to_dense(features[name], self._width(source.shape[1]))
        if found is None:
            return Prediction(features, targets, sample_weight)
        if sample_weight is not None and is_ragged(found):
            sample_weight = repeat_for_items(ops.reshape(sample_weight, (-1,)), found)
        return Prediction(features, merged_targets(targets, {self.target_name: found}), sample_weight)

    def _width(self, width: int | None) -> int | None:
        """Length of padded outputs for that of padded inputs."""
        return width

    def _sequences(self, inputs: Any) -> dict[str, Any]:
        names = self.columns.column_names
        missing = sorted(set(names) - set(inputs if isinstance(inputs, Mapping) else ()))
        if missing:
            raise ValueError(f"Inputs must be a dictionary with the sequences {sorted(names)}. Missing: {missing}")
        target = to_ragged(inputs[self.target_name], name=self.target_name)
        least = self.least_length
        target = check_lengths(
            target,
            least,
            f"Sequences of '{self.target_name}' must have at least {least} items for {type(self).__name__}",
        )
        sequences = {self.target_name: target}
        for name in names:
            if name != self.target_name:
                value = inputs[name]
                lengths = None if is_list_form(value) else row_lengths(target)
                message = f"Sequences of '{name}' must have the lengths of '{self.target_name}'"
                sequences[name] = check_equal_lengths(to_ragged(value, lengths, name), target, message)
        return sequences

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "schema": self.columns.to_json(), "target": self.target_name}


@BLOCKS.register("seq_predict_next")
@register
class SequencePredictNext(SequenceTransform):
    """The targets of a sequence are its next items: the sequences lose their last item, the targets their first.

    For models that see only the past at each position: causal attention, or recurrent layers in one direction.

    Args:
        schema, target: as in :class:`SequenceTransform`, whose other arguments and errors are the same. Sequences must have
            at least 2 items.

    Returns:
        A ``Prediction``: targets are ragged (batch, None), the next item of each position of the features.

    Example:
        >>> import tensorflow as tf
        >>> from merlin_models.schema import ColumnSchema, Schema
        >>> from merlin_models.transforms import SequencePredictNext
        >>> schema = Schema([ColumnSchema.create_categorical("item", 9, value_count=(0, 0))])
        >>> outputs, targets, *_ = SequencePredictNext(schema, "item")({"item": tf.ragged.constant([[1, 2, 3], [4, 5]])})
        >>> outputs["item"].to_list(), targets.to_list()
        ([[1, 2], [4]], [[2, 3], [5]])
    """

    def split(self, sequences: dict[str, Any]) -> tuple[dict[str, Any], Any, Any, Any]:
        targets = sequences[self.target_name][:, 1:]
        return {name: value[:, :-1] for name, value in sequences.items()}, targets, None, None

    def _width(self, width: int | None) -> int | None:
        return None if width is None else width - 1


@BLOCKS.register("seq_predict_last")
@register
class SequencePredictLast(SequenceTransform):
    """The target of a sequence is its last item, and the features what comes before it.

    Args:
        schema, target: as in :class:`SequenceTransform`. Sequences must have at least 2 items.

    Returns:
        A ``Prediction``: targets are (batch, 1).

    Example:
        >>> import tensorflow as tf, merlin_models.tf as ml
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical("item", 9, value_count=(0, 0))])
        >>> rows = {"item": tf.ragged.constant([[1, 2, 3], [4, 5]])}
        >>> outputs, targets, *_ = ml.SequencePredictLast(schema, "item")(rows)
        >>> outputs["item"].to_list(), targets.numpy().tolist()
        ([[1, 2], [4]], [[3], [5]])
    """

    def split(self, sequences: dict[str, Any]) -> tuple[dict[str, Any], Any, Any, Any]:
        targets = to_dense(sequences[self.target_name][:, -1:], 1)
        return {name: value[:, :-1] for name, value in sequences.items()}, targets, None, None

    def _width(self, width: int | None) -> int | None:
        return None if width is None else width - 1


@BLOCKS.register("seq_predict_random")
@register
class SequencePredictRandom(SequenceTransform):
    """The target of a sequence is one of its items but the first, drawn with equal chances, and the features what comes
    before it.

    Args:
        schema, target: as in :class:`SequenceTransform`. Sequences must have at least 2 items.
        seed: of the random numbers, or a ``keras.random.SeedGenerator``.

    Returns:
        A ``Prediction``: targets are (batch, 1).

    Example:
        >>> import tensorflow as tf, merlin_models.tf as ml
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical("item", 9, value_count=(0, 0))])
        >>> rows = {"item": tf.ragged.constant([[1, 2, 3], [4, 5]])}
        >>> outputs, targets, *_ = ml.SequencePredictRandom(schema, "item", seed=1)(rows)
        >>> targets.shape
        TensorShape([2, 1])
    """

    def __init__(
        self, schema: Schema, target: str | Tags | ColumnSchema = Tags.ITEM_ID, seed: Any = None, **kwargs: Any
    ):
        super().__init__(schema, target, **kwargs)
        self.seed = seed
        self.seed_generator = generator_of(seed)

    def split(self, sequences: dict[str, Any]) -> tuple[dict[str, Any], Any, Any, Any]:
        items = sequences[self.target_name]
        drawn = 1 + draw(row_lengths(items) - 1, self.seed_generator)
        drawn = repeat_for_items(drawn, items).flat_values
        positions = positions_in_rows(items)
        targets = to_dense(ragged_where(items, ops.equal(positions, drawn)), 1)
        return {name: ragged_where(value, positions < drawn) for name, value in sequences.items()}, targets, None, None

    def _width(self, width: int | None) -> int | None:
        return None if width is None else width - 1

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": keras.saving.serialize_keras_object(self.seed)}


@BLOCKS.register("seq_target_as_input")
@register
class SequenceTargetAsInput(SequenceTransform):
    """The targets of a sequence are its own items; the features stay as they are.

    For models that shift or mask sequences themselves.

    Args:
        schema, target: as in :class:`SequenceTransform`. Sequences may have any length.

    Returns:
        A ``Prediction``: targets are ragged (batch, None).

    Example:
        >>> import tensorflow as tf, merlin_models.tf as ml
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical("item", 9, value_count=(0, 0))])
        >>> rows = {"item": tf.ragged.constant([[1, 2, 3], [4, 5]])}
        >>> outputs, targets, *_ = ml.SequenceTargetAsInput(schema, "item")(rows)
        >>> outputs["item"].to_list(), targets.to_list()
        ([[1, 2, 3], [4, 5]], [[1, 2, 3], [4, 5]])
    """

    least_length = 0

    def split(self, sequences: dict[str, Any]) -> tuple[dict[str, Any], Any, Any, Any]:
        return sequences, sequences[self.target_name], None, None


@register
class SequenceCausalLastInference(SequenceTransform):
    """Selects the last position of sequences, for the item that comes after it; there are no targets.

    For predictions of models that were trained with :class:`SequencePredictNext`.

    Args:
        schema, target: as in :class:`SequenceTransform`. Sequences must have at least 1 item.

    Call arguments:
        inputs: dictionary with the sequences, (batch, None) ragged or (batch, length) padded, as of
            :class:`SequenceTransform`.

    Returns:
        A ``Prediction`` of the features, the targets as they came, and the weights. A model predicts one row a sequence.

    Example:
        >>> import tensorflow as tf, merlin_models.tf as ml
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical("item", 9, value_count=(0, 0))])
        >>> rows = {"item": tf.ragged.constant([[1, 2, 3], [4, 5]])}
        >>> outputs, targets, *_ = ml.SequenceCausalLastInference(schema, "item")(rows)
        >>> outputs["item"].to_list(), targets
        ([[1, 2, 3], [4, 5]], None)
    """

    least_length = 1

    def split(self, sequences: dict[str, Any]) -> tuple[dict[str, Any], Any, Any, Any]:
        return sequences, None, None, last_positions(sequences[self.target_name])


def last_positions(items: Any) -> Any:
    """Boolean for each item of ragged lists: whether it is its list's last."""
    return ops.equal(positions_in_rows(items), repeat_for_items(row_lengths(items), items).flat_values - 1)


def draw(bound: Any, seed: keras.random.SeedGenerator) -> Any:
    """An integer in [0, bound) for each bound, with equal chances; 0 for a bound of 0."""
    drawn = ops.floor(keras.random.uniform(ops.shape(bound), seed=seed) * ops.cast(bound, "float32"))
    return ops.maximum(ops.minimum(ops.cast(drawn, bound.dtype), bound - 1), 0)


def generator_of(seed: Any) -> keras.random.SeedGenerator:
    return seed if isinstance(seed, keras.random.SeedGenerator) else keras.random.SeedGenerator(seed)


def _target_name(columns: Schema, target: Any) -> str:
    if isinstance(target, ColumnSchema):
        target = target.name
    found = columns.select_by_tag(target) if isinstance(target, Tags) else columns.select_by_name(target)
    names = found.column_names
    if len(names) != 1:
        raise ValueError(
            f"target must be one of the schema's list columns, {columns.column_names}, or the tag of one. "
            f"Received: {target!r}, which is {names}"
        )
    return names[0]
