"""Cond and MapValues."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from merlin_models.blocks import Block, Cond, Filter, MapValues, MLPBlock

X = np.array([[1.0, -2.0]], np.float32)


@keras.saving.register_keras_serializable(package="tests")
class IsPositive(Block):
    """Whether the sum over the batch is positive."""

    def call(self, inputs, training=None):
        return keras.ops.sum(inputs) > 0


@keras.saving.register_keras_serializable(package="tests")
class Plus(Block):
    """Adds a trained number."""

    def build(self, input_shape):
        self.number = self.add_weight(name="number", shape=(), initializer="ones")

    def call(self, inputs, training=None):
        return inputs + self.number


@pytest.mark.parametrize("jit", ["eager", "graph"])
def test_cond(jit):
    block = Cond(IsPositive(), Plus(), keras.layers.Rescaling(10.0))
    model = keras.Sequential([block])
    model.compile(run_eagerly=jit == "eager")
    np.testing.assert_array_equal(model.predict(X + 1, verbose=0), X + 2)
    np.testing.assert_array_equal(model.predict(X, verbose=0), 10 * X)
    np.testing.assert_array_equal(Cond(IsPositive(), Plus())(X), X)


def test_cond_trains_the_branch_that_ran():
    model = keras.Sequential([Cond(IsPositive(), Plus(name="yes"), Plus(name="no"))])
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    model.fit(X + 5, X, verbose=0)
    assert float(model.layers[0].true.number) != 1
    assert float(model.layers[0].false.number) == 1


def test_cond_in_a_file(tmp_path):
    model = keras.Sequential([Cond(IsPositive(), Plus(), MLPBlock([2]))])
    expected = [model(X), model(X + 1)]
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for inputs, value in zip((X, X + 1), expected, strict=True):
        np.testing.assert_array_equal(again(inputs), value)


def test_wrong_cond():
    with pytest.raises(TypeError, match=r"true must be a Keras layer\. Received: 3"):
        Cond(IsPositive(), 3)
    with pytest.raises(ValueError, match=r"condition must return one boolean. Received: shape \(None, 2\), float32"):
        Cond(Plus(), Plus())(X)


@pytest.mark.parametrize(("filter", "changed"), [(None, "abc"), ("a", "a"), (["a", "c"], "ac"), (Filter("b"), "b")])
def test_map_values(filter, changed):
    block = MapValues(Plus(), filter)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(block))
    assert again.get_config() == block.get_config()
    for each in (block, again):
        out = each(dict.fromkeys("abc", X))
        assert list(out) == ["a", "b", "c"]
        for name, value in out.items():
            np.testing.assert_array_equal(value, X + (name in changed))
        assert len(each.weights) == 1


def test_map_values_of_one_tensor():
    np.testing.assert_array_equal(MapValues(Plus())(X), X + 1)
    with pytest.raises(TypeError, match=r"layer must be a Keras layer\. Received: 'relu'"):
        MapValues("relu")
