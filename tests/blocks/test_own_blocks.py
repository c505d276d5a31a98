"""Blocks and tasks of a user's own without a get_config: their arguments are in files, or saving says what is missing."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import merlin_models.tf as ml

SCHEMA = ml.Schema([ml.ColumnSchema.create_categorical("u", 20), ml.ColumnSchema.create_continuous("x")])
FEATURES = {"u": np.arange(8), "x": np.linspace(-1, 1, 8, dtype=np.float32)}


@keras.saving.register_keras_serializable("tests")
class Scale(ml.Block):
    def __init__(self, by=1.0, powers=(1,), **kwargs):
        super().__init__(**kwargs)
        self.by, self.powers = by, powers

    def call(self, inputs, training=None):
        return sum(self.by * inputs**power for power in self.powers)


@keras.saving.register_keras_serializable("tests")
class Plain(ml.Block):
    def __init__(self, by):
        super().__init__()
        self.by = by

    def call(self, inputs, training=None):
        return inputs * self.by


@keras.saving.register_keras_serializable("tests")
class Times(ml.PredictionTask):
    default_loss, default_metrics = "huber", ("mae",)

    def __init__(self, target_name=None, factor=1.0, **kwargs):
        super().__init__(target_name, **kwargs)
        self.factor = factor

    def make_head(self):
        return keras.layers.Dense(1, dtype=self.output_dtype)

    def finish(self, outputs):
        return outputs * self.factor


@keras.saving.register_keras_serializable("tests")
class Wrapping(ml.Block):
    def __init__(self, layer, **kwargs):
        super().__init__(**kwargs)
        self.layer = layer

    def call(self, inputs, training=None):
        return self.layer(inputs)


@keras.saving.register_keras_serializable("tests")
class WithConfig(Wrapping):
    def get_config(self):
        return {**super().get_config(), "layer": keras.saving.serialize_keras_object(self.layer)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("layer")), **config)


@keras.saving.register_keras_serializable("tests")
class Squares(ml.Filter):
    def call(self, inputs, training=None):
        return keras.tree.map_structure(keras.ops.square, super().call(inputs))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Scale(3.0, powers=[1, 2], name="scale"),
        lambda: Scale(),
        lambda: Plain(4.0),
        lambda: WithConfig(keras.layers.Dense(3)),
    ],
)
def test_arguments_of_a_block_are_in_files(make, tmp_path):
    block = make()
    model = ml.Model(ml.InputBlock(SCHEMA, aggregation="concat"), block, ml.BinaryClassificationTask("t"))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again[1].name == block.name or isinstance(block, Plain)  # whose __init__ takes no name
    np.testing.assert_array_equal(again.predict(FEATURES, verbose=0), model.predict(FEATURES, verbose=0))
    x = np.ones((2, 4), np.float32)
    if not isinstance(block, WithConfig):
        np.testing.assert_array_equal(block.copy()(x), block(x))


def test_arguments_of_a_task_are_in_files(tmp_path):
    model = ml.Model(ml.InputBlock(SCHEMA), Times("t", factor=5.0, metrics=["mse"]))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    task = again.prediction_tasks[0]
    assert (task.factor, task.target_name) == (5.0, "t")
    np.testing.assert_array_equal(again.predict(FEATURES, verbose=0), model.predict(FEATURES, verbose=0))


def test_what_inherits_a_whole_config_is_as_before():
    block = Squares("x")
    assert Squares.from_config(block.get_config()).names == block.names


class Unregistered(Plain):
    pass


@pytest.mark.parametrize("deep", [False, True])
def test_custom_objects_of_load_model(deep, tmp_path):
    block = ml.SequentialBlock([ml.MLPBlock([3]), Unregistered(4.0)]) if deep else Unregistered(4.0)
    model = ml.Model(ml.InputBlock(SCHEMA, aggregation="concat"), block, ml.BinaryClassificationTask("t"))
    encoder = ml.Encoder(ml.InputBlock(SCHEMA, aggregation="concat"), block)
    for each in (model, encoder):
        expected = each.predict(FEATURES, verbose=0)
        each.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras", custom_objects={"Unregistered": Unregistered})
        np.testing.assert_array_equal(loaded.predict(FEATURES, verbose=0), expected)
        with keras.saving.custom_object_scope({"Unregistered": Unregistered}):
            loaded = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(loaded.predict(FEATURES, verbose=0), expected)
        with pytest.raises(TypeError, match="Could not locate class 'Unregistered'"):
            keras.models.load_model(tmp_path / "model.keras")


def test_arguments_that_would_be_lost_are_an_error(tmp_path):
    model = ml.Model(
        ml.InputBlock(SCHEMA, aggregation="concat"), Wrapping(keras.layers.Dense(2)), ml.BinaryClassificationTask("t")
    )
    model.compile("sgd")
    model.fit(FEATURES, np.arange(8) % 2, verbose=0)
    with pytest.raises(
        NotImplementedError, match=r"Wrapping must have a get_config\(\) that returns .* the arguments \['layer'\]"
    ):
        model.save(tmp_path / "model.keras")
    assert not list(tmp_path.iterdir())
