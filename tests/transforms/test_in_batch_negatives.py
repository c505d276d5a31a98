"""InBatchNegatives: rows stay together in every form, chances are equal, and models train with it."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import merlin_models.tf as ml
from merlin_models.ops import take_rows

BINARY = (ml.Tags.TARGET, ml.Tags.BINARY_CLASSIFICATION)
SCHEMA = ml.Schema(
    [
        ml.ColumnSchema.create_categorical("userId", 99, tags=[ml.Tags.USER_ID]),
        ml.ColumnSchema.create_categorical("history", 99, value_count=(0, 5), tags=[ml.Tags.USER]),
        ml.ColumnSchema.create_categorical("movieId", 99, tags=[ml.Tags.ITEM_ID]),
        ml.ColumnSchema.create_categorical("genres", 99, value_count=(0, 5), tags=[ml.Tags.ITEM]),
        ml.ColumnSchema.create_continuous("price", tags=[ml.Tags.ITEM]),
        ml.ColumnSchema.create_continuous("hour"),
        ml.ColumnSchema("click", np.int64, tags=BINARY),
    ]
)


def batch(rng, rows=20, items=8, dtype=np.int64):
    """Everything of a user is a function of the user's id, and everything of a movie one of the movie's."""
    users, movies = np.arange(1, rows + 1), rng.integers(1, items + 1, rows)
    lists = np.arange(5) < (users % 6)[:, None]
    genres = np.arange(5) < (movies % 6)[:, None]
    return {
        "userId": users[:, None].astype(dtype),
        "history": ((users[:, None] + np.arange(5)) * lists).astype(dtype),
        "movieId": movies[:, None].astype(dtype),
        "genres": ((movies[:, None] + np.arange(5)) * genres).astype(dtype),
        "price": movies[:, None].astype(np.float32) / 4,
        "hour": users.astype(np.float32) / 8,
    }


def check(outputs, rng_rows=20):
    """That users' and movies' features still belong together; returns users and movies."""
    users, movies = (np.asarray(outputs[name])[:, 0] for name in ("userId", "movieId"))
    expected = {
        "history": [[user + i for i in range(user % 6)] for user in users],
        "genres": [[movie + i for i in range(movie % 6)] for movie in movies],
    }
    for name, lists in expected.items():
        value = outputs[name]
        if isinstance(value, tuple):
            value = tf.RaggedTensor.from_row_splits(*value)
        if isinstance(value, tf.SparseTensor):
            value = tf.sparse.to_dense(value)
        if not isinstance(value, tf.RaggedTensor):
            value = tf.RaggedTensor.from_tensor(value, padding=0)
        assert value.to_list() == lists
    np.testing.assert_array_equal(np.asarray(outputs["price"])[:, 0] * 4, movies)
    np.testing.assert_array_equal(np.asarray(outputs["hour"]) * 8, users)
    return users, movies


def as_form(features, form):
    changed = dict(features)
    for name in ("history", "genres"):
        ragged = tf.RaggedTensor.from_tensor(tf.constant(features[name]), padding=0, row_splits_dtype=tf.int64)
        forms = {"dense": features[name], "ragged": ragged, "sparse": ragged.to_sparse()}
        changed[name] = {**forms, "pair": (ragged.values, ragged.row_splits)}[form]
    return changed


@pytest.mark.parametrize("form", ["dense", "ragged", "sparse", "pair"])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_rows_stay_together(rng, form, dtype):
    features = batch(rng, dtype=dtype)
    outputs, targets, weight, _ = ml.InBatchNegatives(SCHEMA, 3)(as_form(features, form), training=True)
    users, movies = check(outputs)
    np.testing.assert_array_equal(users, np.repeat(features["userId"][:, 0], 4))
    own = np.repeat(features["movieId"][:, 0], 4)
    np.testing.assert_array_equal(movies == own, np.arange(80) % 4 == 0)
    np.testing.assert_array_equal(np.asarray(targets)[:, 0], movies == own)
    assert weight is None
    assert keras.backend.standardize_dtype(outputs["movieId"].dtype) == np.dtype(dtype).name
    assert set(movies) <= set(features["movieId"][:, 0])


@pytest.mark.parametrize("shape", [(20,), (20, 1)])
def test_only_positives_get_negatives(rng, shape):
    features, click = batch(rng), rng.integers(0, 2, 20)
    block = ml.InBatchNegatives(SCHEMA, 2)
    weights = np.linspace(0, 1, 20, dtype=np.float32)
    outputs, targets, weight, _ = block(features, click.reshape(shape), weights, training=True)
    users, _ = check(outputs)
    repeats = np.where(click, 3, 1)
    np.testing.assert_array_equal(users, np.repeat(np.arange(1, 21), repeats))
    np.testing.assert_array_equal(weight, np.repeat(weights, repeats))
    first = np.concatenate([[1] + [0] * (n - 1) for n in repeats])
    np.testing.assert_array_equal(np.reshape(targets, -1), np.repeat(click, repeats) * first)
    assert targets.shape[1:] == shape[1:]
    assert targets.dtype.name == "int64"


def test_several_targets(rng):
    features, click = batch(rng), rng.integers(0, 2, 20)
    given = {"click": click, "rating": np.where(click, 0.0, 4.5)[:, None].astype(np.float32)}
    for targets in (given, tuple(given.values())):
        _, out, _, _ = ml.InBatchNegatives(SCHEMA, 1)(features, targets, training=True)
        clicks, ratings = keras.tree.flatten(out)
        assert clicks.shape == (40,)
        np.testing.assert_array_equal(clicks[::2], click)
        np.testing.assert_array_equal(ratings[::2, 0], given["rating"][:, 0])
        assert np.count_nonzero(clicks[1::2]) == np.count_nonzero(ratings[1::2]) == 0


def test_targets_among_the_features(rng):
    features, click = batch(rng), rng.integers(0, 2, (20, 1))
    outputs, targets, _, _ = ml.InBatchNegatives(SCHEMA, 1)({**features, "click": click}, training=True)
    assert "click" not in outputs
    assert targets["click"].shape == (20 + click.sum(), 1)


def test_items_are_drawn_with_equal_chances_from_the_rows_of_others():
    ids = np.array([5, 9, 5, 7])  # two rows have 5
    features = {"movieId": ids, "userId": np.arange(4)}
    schema = SCHEMA.select_by_name(["movieId", "userId"])
    outputs, *_ = ml.InBatchNegatives(schema, 6000, seed=1)(features, training=True)
    drawn = np.reshape(outputs["movieId"], (4, 6001))[:, 1:]
    for row, chances in [(0, {7: 1 / 2, 9: 1 / 2}), (1, {5: 2 / 3, 7: 1 / 3}), (3, {5: 2 / 3, 9: 1 / 3})]:
        found = {int(item): np.mean(drawn[row] == item) for item in np.unique(drawn[row])}
        assert found == pytest.approx(chances, abs=0.03)


def test_a_batch_of_one_item_and_an_empty_one(rng):
    block = ml.InBatchNegatives(SCHEMA, 3)
    features = batch(rng, items=1)
    outputs, targets, *_ = block(features, training=True)
    np.testing.assert_array_equal(outputs["userId"], features["userId"])
    np.testing.assert_array_equal(targets, np.ones((20, 1)))
    for form in ("dense", "ragged"):
        outputs, targets, *_ = block(as_form(batch(rng, rows=0), form), np.zeros((0, 1)), training=True)
        assert outputs["movieId"].shape == targets.shape == (0, 1)


def test_when_it_runs(rng):
    features = batch(rng)
    for block, arguments, runs in [
        (ml.InBatchNegatives(SCHEMA, 1), {"testing": True}, True),
        (ml.InBatchNegatives(SCHEMA, 1, run_when_testing=False), {"testing": True}, False),
        (ml.InBatchNegatives(SCHEMA, 1, run_when_testing=False), {"training": True}, True),
        (ml.InBatchNegatives(SCHEMA, 1), {}, False),
    ]:
        outputs, targets, *_ = block(features, **arguments)
        assert len(outputs["userId"]) == (40 if runs else 20)
        assert (targets is None) != runs


def test_seeds_and_config(rng):
    features, block = batch(rng), ml.InBatchNegatives(SCHEMA, 2, seed=4, run_when_testing=False)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(block))
    assert again.get_config() == block.get_config()
    first, second = (np.asarray(block(features, training=True).outputs["movieId"]) for _ in range(2))
    np.testing.assert_array_equal(again(features, training=True).outputs["movieId"], first)
    assert (first != second).any()


def test_policy_of_the_model_does_not_matter(rng):
    features = {**batch(rng), "hour": np.full(20, 1e6, np.float32)}  # no number of float16
    outputs, targets, *_ = ml.InBatchNegatives(SCHEMA, 1, dtype="mixed_float16")(features, training=True)
    assert outputs["hour"].dtype.name == targets.dtype.name == "float32"
    assert np.unique(outputs["hour"]) == 1e6


def test_wrong_arguments(rng):
    user = ml.ColumnSchema.create_categorical("both", 9, tags=[ml.Tags.USER, ml.Tags.ITEM])
    for schema, message in [
        (SCHEMA.remove_by_name("movieId"), r"one column tagged item_id, and no list. Received: \[\]"),
        (SCHEMA + ml.Schema([user]), r"No column must be tagged user and item.* Received: \['both'\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            ml.InBatchNegatives(schema, 1)
    with pytest.raises(TypeError, match="schema must be a Schema"):
        ml.InBatchNegatives(["movieId"], 1)
    with pytest.raises(ValueError, match="n_per_positive must be a positive integer"):
        ml.InBatchNegatives(SCHEMA, 0)
    block = ml.InBatchNegatives(SCHEMA, 1)
    with pytest.raises(ValueError, match=r"a dictionary with the item id 'movieId'. Received: \['userId'\]"):
        block({"userId": np.ones(3)}, training=True)


def test_rows_of_a_batch():
    sparse = tf.sparse.from_dense([[1, 2, 0, 0], [3, 0, 0, 0]])
    taken = take_rows(sparse, [1, 0, 1])
    np.testing.assert_array_equal(tf.sparse.to_dense(taken), [[3, 0, 0, 0], [1, 2, 0, 0], [3, 0, 0, 0]])


@pytest.mark.parametrize("form", ["ragged", "dense"])
def test_training_and_evaluation(rng, form):
    schema = SCHEMA.remove_by_name("click")
    features = as_form(batch(rng, rows=60), form)
    embeddings = ml.EmbeddingOptions(embedding_dim_default=4)
    model = ml.Model(
        ml.InputBlock(schema, embedding_options=embeddings), ml.MLPBlock([8]), ml.BinaryClassificationTask("click")
    )
    model.compile("adam", metrics=[keras.metrics.BinaryAccuracy(threshold=-1.0, name="positives")])
    negatives = ml.InBatchNegatives(SCHEMA, 3, seed=1)
    logs = model.fit(features, np.ones(60), batch_size=20, pre=negatives, verbose=0).history
    name = "click/binary_classification_task/positives"
    assert logs[name] == [0.25]  # all are called positive, and one in four is
    assert model.evaluate(features, np.ones(60), pre=negatives, verbose=0, return_dict=True)[name] == 0.25
    assert model.evaluate(features, np.ones(60), verbose=0, return_dict=True)[name] == 1
    assert len(model.layers) == 3
