"""Next items and masked items of sequences as targets."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import merlin_models.tf as ml
from merlin_models.blocks.positions import MASKED, SELECTED

SCHEMA = ml.Schema(
    [
        ml.ColumnSchema.create_categorical("item", 9, value_count=(0, 0), tags=[ml.Tags.ITEM_ID]),
        ml.ColumnSchema.create_categorical("genre", 9, value_count=(0, 0)),
        ml.ColumnSchema.create_continuous("price", value_count=(0, 0)),
        ml.ColumnSchema.create_categorical("user", 9, tags=[ml.Tags.USER_ID]),
    ]
)
ITEMS = [[1, 2, 3], [4, 5], [6, 7, 8, 9]]
GENRES = [[0, 2, 2], [1, 1], [2, 0, 1, 0]]  # 0 at the end of a list is no padding where the item is none
PRICES = [[0.5, 0.0, 0.0], [1.0, 2.0], [3.0, 4.0, 5.0, 6.0]]


def ragged(lists, dtype):
    return tf.ragged.constant(lists, dtype, row_splits_dtype=tf.int64)


def batch(form="ragged"):
    sequences = {
        "item": ragged(ITEMS, tf.int32 if form == "int32" else tf.int64),
        "genre": ragged(GENRES, tf.int64),
        "price": ragged(PRICES, tf.float32),
    }
    if form == "dense":
        sequences = {name: value.to_tensor() for name, value in sequences.items()}
    elif form == "mixed":
        sequences["genre"] = sequences["genre"].to_tensor()
        sequences["item"] = (sequences["item"].values, sequences["item"].row_splits)
    elif form == "int32":
        sequences["price"] = sequences["price"].with_row_splits_dtype(tf.int32)
    return {**sequences, "user": np.array([1, 2, 3])}


def lists(value, lengths):
    """A ragged or padded value as lists of these lengths; what is beyond must be zero."""
    if isinstance(value, tf.RaggedTensor):
        assert value.row_lengths().numpy().tolist() == lengths
        return value.to_list()
    rows = np.asarray(value)
    assert not any(row[length:].any() for row, length in zip(rows, lengths, strict=True))
    return [row[:length].tolist() for row, length in zip(rows, lengths, strict=True)]


FORMS = ["ragged", "dense", "mixed", "int32"]
SHORTER = {
    "item": [[1, 2], [4], [6, 7, 8]],
    "genre": [[0, 2], [1], [2, 0, 1]],
    "price": [[0.5, 0.0], [1.0], [3.0, 4.0, 5.0]],
}


@pytest.mark.parametrize("form", FORMS)
def test_predict_next(form):
    outputs, targets, weight, _ = ml.SequencePredictNext(SCHEMA)(batch(form), sample_weight=np.array([1.0, 2.0, 3.0]))
    for name, expected in SHORTER.items():
        assert lists(outputs[name], [2, 1, 3]) == expected
    assert targets.to_list() == [[2, 3], [5], [7, 8, 9]]
    assert weight.to_list() == [[1.0, 1.0], [2.0], [3.0, 3.0, 3.0]]
    np.testing.assert_array_equal(outputs["user"], [1, 2, 3])
    if form == "dense":
        assert outputs["item"].shape == outputs["price"].shape == (3, 3)
        np.testing.assert_array_equal(outputs[SELECTED], [[1, 1, 0], [1, 0, 0], [1, 1, 1]])
    assert (SELECTED in outputs) == (form == "dense")
    assert MASKED not in outputs


@pytest.mark.parametrize("form", FORMS)
def test_predict_last(form):
    outputs, targets, weight, _ = ml.SequencePredictLast(SCHEMA, "item")(
        batch(form), sample_weight=np.array([1.0, 2.0, 3.0])
    )
    for name, expected in SHORTER.items():
        assert lists(outputs[name], [2, 1, 3]) == expected
    np.testing.assert_array_equal(targets, [[3], [5], [9]])
    np.testing.assert_array_equal(weight, [1, 2, 3])
    assert SELECTED not in outputs


@pytest.mark.parametrize("form", ["ragged", "dense"])
def test_predict_random(form):
    rows = np.tile([0, 1, 2], 200)
    features = {name: tf.gather(value, rows) for name, value in batch(form).items()}
    outputs, targets, *_ = ml.SequencePredictRandom(SCHEMA, ml.Tags.ITEM_ID, seed=3)(features)
    assert targets.shape == (600, 1)
    drawn = [ITEMS[row].index(target) for row, target in zip(rows, targets.numpy()[:, 0], strict=True)]
    assert min(drawn) >= 1
    assert lists(outputs["item"], drawn) == [ITEMS[row][:place] for row, place in zip(rows, drawn, strict=True)]
    assert lists(outputs["genre"], drawn) == [GENRES[row][:place] for row, place in zip(rows, drawn, strict=True)]
    assert np.bincount(drawn[0::3])[1:] / 200 == pytest.approx([1 / 2, 1 / 2], abs=0.1)
    assert np.bincount(drawn[2::3])[1:] / 200 == pytest.approx([1 / 3, 1 / 3, 1 / 3], abs=0.1)


def test_target_as_input():
    outputs, targets, *_ = ml.SequenceTargetAsInput(SCHEMA)(batch())
    assert outputs["item"].to_list() == targets.to_list() == ITEMS


@pytest.mark.parametrize("form", FORMS)
def test_mask_last(form):
    outputs, targets, *_ = ml.SequenceMaskLast(SCHEMA)(batch(form))
    assert lists(outputs["item"], [3, 2, 4]) == ITEMS
    np.testing.assert_array_equal(targets, [[3], [5], [9]])
    expected = [[False, False, True], [False, True], [False, False, False, True]]
    assert lists(outputs[MASKED], [3, 2, 4]) == lists(outputs[SELECTED], [3, 2, 4]) == expected


@pytest.mark.parametrize("form", FORMS)
def test_mask_last_inference(form):
    outputs, targets, *_ = ml.SequenceMaskLastInference(SCHEMA)(batch(form))
    assert lists(outputs["item"], [4, 3, 5]) == [[*row, 1] for row in ITEMS]
    assert lists(outputs["price"], [4, 3, 5]) == [[*row, 1.0] for row in PRICES]
    assert lists(outputs[MASKED], [4, 3, 5]) == [[False] * len(row) + [True] for row in ITEMS]
    assert targets is None
    empty = {
        name: tf.RaggedTensor.from_row_lengths(value.values[:0], [0, 0])
        for name, value in batch().items()
        if name != "user"
    }
    assert ml.SequenceMaskLastInference(SCHEMA)(empty).outputs["item"].to_list() == [[1], [1]]


def test_last_of_a_causal_model():
    outputs, targets, *_ = ml.SequenceCausalLastInference(SCHEMA)(batch("dense"), targets=np.ones(3))
    np.testing.assert_array_equal(outputs["item"], batch("dense")["item"])
    np.testing.assert_array_equal(outputs[SELECTED], [[0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    np.testing.assert_array_equal(targets, np.ones(3))
    assert MASKED not in outputs


def sessions(rng, rows=400, form="ragged"):
    lengths = rng.integers(2, 12, rows)
    values = rng.integers(1, 9, lengths.sum())
    items = tf.RaggedTensor.from_row_lengths(values, lengths)
    return {"item": items if form == "ragged" else items.to_tensor()}, lengths


ITEM = SCHEMA.select_by_name("item")


@pytest.mark.parametrize("form", ["ragged", "dense"])
@pytest.mark.parametrize("probability", [0.001, 0.3, 0.999])
def test_mask_random(form, probability, rng):
    features, lengths = sessions(rng, form=form)
    outputs, targets, weight, _ = ml.SequenceMaskRandom(ITEM, "item", probability, seed=1)(
        features, sample_weight=lengths / 1.0
    )
    masks = [np.array(row) for row in lists(outputs[MASKED], lengths.tolist())]
    counts = np.array([mask.sum() for mask in masks])
    assert (counts >= 1).all()
    assert (counts < lengths).all()
    np.testing.assert_array_equal(np.asarray(targets.row_lengths()), counts)
    items = lists(features["item"], lengths.tolist())
    assert targets.to_list() == [np.array(row)[mask].tolist() for row, mask in zip(items, masks, strict=True)]
    assert lists(outputs["item"], lengths.tolist()) == items
    assert weight.to_list() == [[length] * count for length, count in zip(lengths / 1.0, counts, strict=True)]
    if probability == 0.3:
        assert counts[lengths > 7].sum() / lengths[lengths > 7].sum() == pytest.approx(0.3, abs=0.04)
    if probability == 0.001:
        places = np.concatenate(
            [np.flatnonzero(mask) for mask, length in zip(masks, lengths, strict=True) if length == 2]
        )
        assert 0.2 < places.mean() < 0.8


def test_new_masks_at_each_call_also_in_a_graph(rng):
    features, _ = sessions(rng)
    transform = ml.SequenceMaskRandom(ITEM, seed=2)
    again = ml.SequenceMaskRandom.from_config(transform.get_config())
    step = tf.function(lambda x: transform(x, training=True).outputs[MASKED].values)
    first = step(features).numpy()
    np.testing.assert_array_equal(first, again(features).outputs[MASKED].values)
    assert not np.array_equal(first, step(features))


@pytest.mark.parametrize("form", ["ragged", "dense"])
def test_models_of_language_by_their_names(form, rng):
    features, lengths = sessions(rng, form=form)
    masked = ml.MaskedLanguageModeling(ITEM, seed=1)
    trained = masked(features, training=True)
    expected = ml.SequenceMaskRandom(ITEM, masking_prob=0.15, seed=1)(features)
    assert trained.targets.to_list() == expected.targets.to_list()
    last = masked(features, training=False)
    np.testing.assert_array_equal(last.targets, ml.SequenceMaskLast(ITEM)(features).targets)
    causal = ml.CausalLanguageModeling(ITEM)
    assert causal(features, training=True).targets.to_list() == ml.SequencePredictNext(ITEM)(features).targets.to_list()
    evaluated = causal(features, training=False)
    np.testing.assert_array_equal(evaluated.targets, ml.SequencePredictLast(ITEM)(features).targets)
    assert lists(evaluated.outputs[SELECTED], (lengths - 1).tolist()) == [
        [False] * (length - 2) + [True] for length in lengths
    ]
    assert MASKED not in evaluated.outputs
    only_last = ml.CausalLanguageModeling(ITEM, train_on_last_item_seq_only=True, eval_on_last_item_seq_only=False)
    assert only_last(features, training=True).targets.shape == (400, 1)
    assert only_last(features).targets.shape[1] is None


TRANSFORMS = [
    ml.SequencePredictNext(SCHEMA),
    ml.SequencePredictLast(SCHEMA),
    ml.SequencePredictRandom(SCHEMA, seed=5),
    ml.SequenceTargetAsInput(SCHEMA),
    ml.SequenceMaskRandom(SCHEMA, masking_prob=0.4, seed=5),
    ml.SequenceMaskLast(SCHEMA),
    ml.SequenceMaskLastInference(SCHEMA),
    ml.SequenceCausalLastInference(SCHEMA),
    ml.MaskedLanguageModeling(SCHEMA, mlm_probability=0.4, seed=5),
    ml.CausalLanguageModeling(SCHEMA, eval_on_last_item_seq_only=False),
]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: type(transform).__name__)
def test_config_and_file(transform):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(transform))
    assert again.get_config() == transform.get_config()
    outputs, targets, *_ = again(batch())
    expected, expected_targets, *_ = transform(batch())
    assert outputs["item"].to_list() == expected["item"].to_list()
    assert np.array_equal(
        getattr(targets, "flat_values", targets), getattr(expected_targets, "flat_values", expected_targets)
    )


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: type(transform).__name__)
def test_sequences_that_are_too_short(transform):
    short = {name: value[:, :1] for name, value in batch().items() if name != "user"}
    takes_any = isinstance(
        transform, ml.SequenceTargetAsInput | ml.SequenceMaskLastInference | ml.SequenceCausalLastInference
    )
    if takes_any:
        transform(short)
        return
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"Sequences of 'item' must have at least 2 items for \w+"):
        transform(short, training=True)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: type(transform).__name__)
def test_empty_batch(transform):
    empty = {name: value[:0] for name, value in batch().items()}
    targets = transform(empty, training=True).targets
    assert targets is None or targets.shape[0] == 0


def test_other_targets_stay():
    targets = ml.SequencePredictNext(SCHEMA)(batch(), targets={"click": np.array([0, 1, 1])}).targets
    assert sorted(targets) == ["click", "item"]
    with pytest.raises(ValueError, match=r"targets must be None or a dictionary beside \['item'\]. Received: .*Tensor"):
        ml.SequencePredictNext(SCHEMA)(batch(), targets=np.ones(3))


def test_wrong_arguments_and_inputs():
    with pytest.raises(ValueError, match=r"target must be one of .*\['item', 'genre', 'price'\].* Received: 'user'"):
        ml.SequencePredictNext(SCHEMA, "user")
    with pytest.raises(ValueError, match=r"Received: <Tags.CATEGORICAL.*>, which is \['item', 'genre'\]"):
        ml.SequencePredictNext(SCHEMA, ml.Tags.CATEGORICAL)
    with pytest.raises(ValueError, match=r"masking_prob must be in \(0, 1\). Received: 1.0"):
        ml.SequenceMaskRandom(SCHEMA, masking_prob=1.0)
    with pytest.raises(ValueError, match=r"sequences \['genre', 'item', 'price'\]. Missing: \['genre', 'price'\]"):
        ml.SequencePredictNext(SCHEMA)({"item": batch()["item"]})
    unequal = {**batch(), "price": tf.ragged.constant([[1.0], [2.0], [3.0]])}
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"'price' must have the lengths of 'item'"):
        ml.SequencePredictNext(SCHEMA)(unequal)
    with pytest.raises(TypeError, match=r"schema must be a Schema. Received: list"):
        ml.SequencePredictNext(["item"])
