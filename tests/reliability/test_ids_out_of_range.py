"""Ids out of range, at every entrance: an error that names the feature, the rule and the id, and nothing has changed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import tensorflow as tf
from reliability_data import ITEMS, assert_same_state, loader, rows, small_model, table

from merlin_models import _native
from merlin_models.ops import (
    Bags,
    UpdateRule,
    embedding_bag,
    embedding_bag_update,
    encode_bags,
    lookup_interaction,
    sampled_softmax,
    to_bags,
)

# The table has ITEMS + 1 rows. The least of int64 is what NumPy makes of a NaN.
BAD = [ITEMS + 1, -1, 2**31, 2**40, -(2**63), 2**63 - 1]


def wrong(bad, feature="item"):
    features, targets = rows(64)
    place = (9,) if feature == "item" else (9, 4)
    features[feature][place] = bad
    return features, targets


@pytest.fixture(scope="module")
def trained():
    """One model for all of these tests, which must leave it as it is."""
    model = small_model()
    model.fit(*rows(64), batch_size=64, verbose=0)
    return model


@pytest.mark.parametrize("feature", ["item", "bag"])
@pytest.mark.parametrize("bad", BAD)
def test_in_a_model(trained, bad, feature):
    model, (features, targets) = trained, rows(64)
    before, expected = model.get_weights(), model.predict(features, verbose=0)
    bad_features, _ = wrong(bad, feature)
    size = ITEMS + 1 if feature == "item" else 9
    message = rf"Ids of feature '{feature}' must be in \[0, {size}\), the rows of its table. Received: {bad} at"
    calls = (
        lambda: model.fit(bad_features, targets, batch_size=64, verbose=0),
        lambda: model.evaluate(bad_features, targets, verbose=0),
        lambda: model.predict(bad_features, verbose=0),
        lambda: model(bad_features),
    )
    for call in calls:
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            call()
        for now, then in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(now, then)
    np.testing.assert_array_equal(model.predict(features, verbose=0), expected)
    model.fit(features, targets, batch_size=64, verbose=0)


def test_from_a_file(tmp_path):
    """The batches before the wrong one count; training goes on with what is right."""
    data = table(64)
    values = data["item"].to_pylist()
    values[40] = 77
    data = data.set_column(0, "item", [values])
    model, same = small_model(), small_model()
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"Ids of feature 'item'.* Received: 77"):
        model.fit(loader(data, shuffle=False), shuffle=False, verbose=0)
    same.fit(loader(data.slice(0, 32), shuffle=False), shuffle=False, verbose=0)
    for one, other in zip(model.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.uint64, np.bool_, np.int16])
def test_other_types(dtype):
    features, _ = rows(64)
    model = small_model()
    with pytest.raises(TypeError, match=r"Ids of feature 'item' must have dtype int32 or int64. Received"):
        model.predict({**features, "item": features["item"].astype(dtype)}, verbose=0)


def test_a_nan_that_became_an_id():
    features, targets = rows(64)
    missing = np.where(np.arange(64) == 3, np.nan, features["item"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, of the cast
        features["item"] = missing.astype(np.int64)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"Ids of feature 'item'.* Received: -9223372036854775808"):
        small_model().fit(features, targets, verbose=0)


@pytest.mark.parametrize("form", ["dense", "ragged", "sparse", "pair"])
@pytest.mark.parametrize("bad", [-1, 5, -(2**63)])
def test_in_the_ops(form, bad):
    dense = tf.constant([[0, 1], [2, bad]], tf.int64)
    ids = {
        "dense": dense,
        "ragged": tf.RaggedTensor.from_tensor(dense),
        "sparse": tf.sparse.from_dense(dense + 10),
        "pair": (tf.reshape(dense, [-1]), tf.constant([0, 2, 4], tf.int64)),
    }[form]
    if form == "sparse":
        ids = ids.with_values(ids.values - 10)
    bags, message = (
        to_bags(ids),
        rf"Ids of feature 'genre' must be in \[0, 5\).* Received: {bad} at position 3 \(bag 1\)",
    )
    numbers = tf.Variable(tf.ones((5, 4)))
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        embedding_bag([numbers], [bags], names=["genre"])
    rule = UpdateRule("adagrad")
    slot = tf.Variable(tf.fill((5, 4), 0.1))
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        embedding_bag_update(
            [numbers], [[slot]], [bags], [tf.ones((2, 4))], names=["genre"], rule=rule, learning_rate=0.1
        )
    np.testing.assert_array_equal(numbers, np.ones((5, 4)))
    np.testing.assert_array_equal(slot, np.full((5, 4), 0.1, np.float32))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"Ids of 'genre' must be in \[0, 5\)"):
        encode_bags(bags, 5, name="genre")


def test_padding_that_is_the_least_integer():
    """It is the mark of "no padding" between Python and the kernels, and so an id out of range as any other."""
    ids = tf.constant([[0, -(2**63)]], tf.int64)
    with pytest.raises(ValueError, match="padding_id of feature 'f' must be greater than -9223372036854775808"):
        to_bags(ids, padding_id=-(2**63), name="f")
    padded = embedding_bag([tf.ones((5, 4))], [to_bags(tf.constant([[0, -5]]), padding_id=-5)], combiners="sum")[0]
    np.testing.assert_array_equal(padded, np.ones((1, 4)))


def test_in_other_ops():
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"indices\[1\] = 9 is not in \[0, 5\)"):
        sampled_softmax(tf.ones((2, 4)), tf.Variable(tf.ones((5, 4))), tf.constant([0, 9]), tf.constant([1, 2]))
    with pytest.raises(ValueError, match=r"Ids of feature .* must be in \[0, 5\).* Received: -9223372036854775808"):
        _native.module().embedding_bag_forward(
            [np.ones((5, 4), np.float32)],
            [np.array([[-(2**63)]])],
            [None],
            [None],
            [0],
            ["sum"],
            [None],
            [np.zeros((1, 4), np.float32)],
        )


def test_states_after_errors_are_those_without():
    """A model that met errors between its steps learns what another one does, but for Keras' count of steps."""
    one, other = small_model("sgd"), small_model("sgd")
    features, targets = rows(64)
    for bad in BAD[:3]:
        for model in (one, other):
            model.fit(features, targets, batch_size=64, verbose=0)
        with pytest.raises(tf.errors.InvalidArgumentError):
            one.fit(wrong(bad)[0], targets, batch_size=64, verbose=0)
    one.optimizer.inner_optimizer.iterations.assign(other.optimizer.inner_optimizer.iterations)
    assert_same_state(one, other)


# A GPU's note has 48 bits for the value.
TOLD = dict.fromkeys([2**63 - 1, 2**47], "140737488355327 or more")
TOLD |= dict.fromkeys([-(2**63), -(2**47) - 1], "-140737488355328 or less")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
@pytest.mark.parametrize("op", ["embedding_bag", "lookup_interaction"])
@pytest.mark.parametrize("bad", [*BAD, 2**31 - 1, -(2**31), 2**47, -(2**47) + 1, -(2**47) - 1])
def test_on_a_gpu_they_are_noted(op, bad, dtype):
    """Skipped by the kernels, and raised by the next call, with the value."""
    if not dtype.min <= bad <= dtype.max:
        pytest.skip("no number of that type")
    with tf.device("GPU:0"):
        numbers = tf.Variable(tf.ones((5, 4)))
        bags = Bags(tf.constant([[0, bad]], dtype))
        if op == "embedding_bag":
            output, expected = embedding_bag([numbers], [bags], combiners="sum")[0], np.ones((1, 4))
        else:
            output, expected = lookup_interaction([numbers], [bags], [0], ["sum"], tf.ones((1, 4))), [[4.0]]
        np.testing.assert_array_equal(output, expected)
    noted = r"Ids of feature number 0 of an earlier call on GPU 0 must be in \[0, rows of its table\). "
    with pytest.raises(ValueError, match=rf"{noted}Received: {TOLD.get(bad, bad)}\. The id was skipped$"):
        _native.raise_device_errors()
    _native.raise_device_errors()
