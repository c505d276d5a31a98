"""What is one layer stays one in configs and files; copies of a layer have weights of their own there, too."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import merlin_models.tf as ml

COLUMNS = [ml.ColumnSchema.create_categorical("u", 20), ml.ColumnSchema.create_continuous("x")]
TARGETS = [ml.ColumnSchema(name, np.int32, (ml.Tags.TARGET, ml.Tags.BINARY_CLASSIFICATION)) for name in "abc"]
SCHEMA = ml.Schema([*COLUMNS, *TARGETS])
FEATURES = {"u": np.arange(16) % 20, "x": np.linspace(-1, 1, 16, dtype=np.float32)}


def nested():
    return ml.SequentialBlock([keras.layers.Dense(4, activation="relu"), ml.SequentialBlock([keras.layers.Dense(3)])])


def body(block):
    return ml.Model(ml.InputBlock(SCHEMA, aggregation="concat"), block, ml.BinaryClassificationTask("a"))


def experts(make):
    tasks = ml.PredictionTasks(SCHEMA, task_blocks=nested())
    return ml.Model(ml.InputBlock(SCHEMA), make(tasks), tasks)


def tied():
    items = ml.EmbeddingTable(8, ml.ColumnSchema.create_categorical("u", 20), aggregation="concat")
    return ml.Model(items, ml.MLPBlock([8]), ml.CategoricalOutput(items))


COPIES = {
    "mmoe": lambda: experts(lambda tasks: ml.MMOEBlock(tasks, nested(), num_experts=4, gate_block=nested())),
    "cgc": lambda: experts(lambda tasks: ml.CGCBlock(tasks, nested(), num_task_experts=3, num_shared_experts=2)),
    "ple": lambda: experts(lambda tasks: ml.PLEBlock(2, tasks, nested(), num_task_experts=2, num_shared_experts=2)),
    "repeat": lambda: body(nested().repeat_in_parallel(4, aggregation="concat")),
    "norm": lambda: body(ml.MLPBlock([4, 4, 4], normalization=keras.Sequential([keras.layers.BatchNormalization()]))),
}


def same(one, other):
    keras.tree.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
        one.predict(FEATURES, verbose=0),
        other.predict(FEATURES, verbose=0),
    )


@pytest.mark.parametrize("name", COPIES)
def test_copies_are_apart_in_a_loaded_model(name, tmp_path):
    model = COPIES[name]()
    for weight in model.trainable_weights:
        weight.assign(keras.random.normal(weight.shape, seed=len(weight.path)))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [weight.shape for weight in loaded.weights] == [weight.shape for weight in model.weights]
    same(loaded, model)


@pytest.mark.parametrize(
    "again",
    [
        lambda model: type(model).from_config(model.get_config()),
        keras.models.clone_model,
        lambda model: keras.models.model_from_json(model.to_json()),
    ],
)
def test_tied_weights_stay_tied_without_a_file(again):
    model = tied()
    copied = again(model)
    assert copied[0] is not model[0]
    assert len(copied.weights) == len(model.weights)
    copied.set_weights(model.get_weights())
    same(copied, model)


def test_an_encoder_keeps_what_is_shared():
    items = ml.EmbeddingTable(8, COLUMNS[0], aggregation="concat")
    encoder = ml.Encoder(ml.ParallelBlock({"a": items, "b": ml.SequentialBlock([items])}, aggregation="concat"))
    encoder(FEATURES)
    copied = ml.Encoder.from_config(encoder.get_config())
    copied(FEATURES)
    assert len(copied.weights) == len(encoder.weights) == 1


def test_a_copy_of_a_block_keeps_what_is_shared_below():
    shared, x = keras.layers.Dense(4), np.ones((2, 3), np.float32)
    branches = {name: ml.SequentialBlock([shared]) for name in "ab"}
    block = ml.SequentialBlock([ml.ParallelBlock(branches, aggregation="concat"), keras.layers.Dense(2)])
    copies = [block, block.copy(), block.copy()]
    for each in copies:
        each(x)
        assert len(each.weights) == 4
    assert len({id(weight) for each in copies for weight in each.weights}) == 12
