"""NaN and infinity among features, labels and gradients: where they show, and where they do not get."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from reliability_data import rows, small_model

import merlin_models.tf as ml
from merlin_models.ops import Bags, UpdateRule, embedding_bag_update

RULES = ["sgd", "momentum", "adagrad", "rowwise_adagrad", "adam", "rmsprop", "ftrl", "accumulate"]
SLOW = pytest.mark.slow
UNTOUCHED = slice(10, None)  # rows of the items that the batches here do not have


def batch(what, value):
    """Items below 10, one of whose features or labels is not finite."""
    features, targets = rows(64, items=10)
    targets = targets.astype(np.float32)
    (targets if what == "label" else features["age"])[5] = value
    return features, targets


def table(model):
    return next(variable for variable in model.trainable_variables if variable.path.endswith("item"))


def states_of_rows(model):
    return [np.array(state)[UNTOUCHED] for state in model.optimizer.variables if "_item_" in state.path]


@pytest.mark.parametrize(
    ("optimizer", "value"),
    [
        ("adam", np.nan),
        *(pytest.param(*case, marks=SLOW) for case in itertools.product(["adam", "adagrad", "sgd"], [np.inf, -np.inf])),
        *(pytest.param(optimizer, np.nan, marks=SLOW) for optimizer in ("adagrad", "sgd")),
    ],
)
def test_labels_show_in_the_loss(optimizer, value):
    model = small_model(optimizer)
    before = np.array(table(model))
    history = model.fit(*batch("label", value), epochs=5, verbose=0, callbacks=[keras.callbacks.TerminateOnNaN()])
    assert len(history.epoch) == 1
    assert not np.isfinite(history.history["loss"][0])
    np.testing.assert_array_equal(np.array(table(model))[UNTOUCHED], before[UNTOUCHED])
    fresh = small_model(optimizer)
    fresh.optimizer.build(fresh.trainable_variables)
    for now, then in zip(states_of_rows(model), states_of_rows(fresh), strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("what", ["label", "feature"])
@pytest.mark.parametrize("value", [np.nan, *(pytest.param(value, marks=SLOW) for value in (np.inf, -np.inf))])
def test_stop_on_non_finite(tmp_path, what, value):
    """Also where the loss stays finite, because a fused ReLU makes 0 of NaN."""
    model, good = small_model(), rows(64, items=10)
    path = tmp_path / "model.keras"
    callbacks = [ml.StopOnNonFinite(every_n_steps=1), keras.callbacks.ModelCheckpoint(path)]
    model.fit(*good, verbose=0, callbacks=callbacks)
    before = np.array(table(model))
    with pytest.raises(FloatingPointError, match=r"must be finite. Received: NaN or infinity after batch 0 in .*dense"):
        model.fit(*batch(what, value), batch_size=64, verbose=0, callbacks=callbacks)
    np.testing.assert_array_equal(np.array(table(model))[UNTOUCHED], before[UNTOUCHED])
    np.testing.assert_array_equal(np.array(table(keras.models.load_model(path))), before)


def test_stop_on_non_finite_looks_now_and_then():
    callback = ml.StopOnNonFinite(every_n_steps=3)
    looked = []
    callback._check = lambda when, logs: looked.append(when)
    for epoch in range(2):
        callback.on_epoch_begin(epoch)
        for number in range(7):
            callback.on_train_batch_end(number, {"loss": 1.0})
        callback.on_epoch_end(epoch)
    once = ["batch 2", "batch 5"]
    assert looked == [*once, "the last batch of epoch 1", *once, "the last batch of epoch 2"]
    for wrong in (0, -1, 2.5, None):
        with pytest.raises(ValueError, match="every_n_steps must be an integer of at least 1"):
            ml.StopOnNonFinite(wrong)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_does_not_change_another_ones_prediction(value):
    model = small_model()
    features, _ = rows(64)
    expected = model.predict(features, verbose=0)
    features["age"][5] = value
    others = np.arange(64) != 5
    np.testing.assert_array_equal(model.predict(features, verbose=0)[others], expected[others])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("rule", RULES)
def test_a_gradient_reaches_the_rows_of_its_bag_alone(rule, value, device):
    """Rows 0 to 3 get a good gradient, 4 and 5 the bad one, and the others none."""
    rng = np.random.default_rng(5)
    rule = UpdateRule(rule, momentum=0.9 if rule == "momentum" else 0.0)
    start = rng.normal(size=(8, 6)).astype(np.float32)
    grad = rng.normal(size=(3, 6)).astype(np.float32)

    def step(grad):
        with tf.device(f"{device}:0"):
            table = tf.Variable(start)
            slots = [tf.Variable(tf.fill(slot.shape(8, 6), slot.initial_value)) for slot in rule.slots()]
            ids = tf.constant([[0, 1], [2, 3], [4, 5]], tf.int64)
            embedding_bag_update([table], [slots], [Bags(ids)], [grad], combiners="sum", rule=rule, learning_rate=0.1)
        return [np.array(variable) for variable in (table, *slots)]

    good, bad = step(grad), step(np.where(np.arange(3)[:, None] == 2, np.float32(value), grad))
    for expected, now in zip(good, bad, strict=True):
        np.testing.assert_array_equal(now[[0, 1, 2, 3, 6, 7]], expected[[0, 1, 2, 3, 6, 7]])
    if np.isnan(value):
        assert np.isnan(bad[0][4:6]).all()
