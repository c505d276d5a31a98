"""Several tasks: heads from a schema, blocks before them, weights, routes and biases."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from merlin_models.blocks import MLPBlock, MMOEBlock
from merlin_models.schema import ColumnSchema, Schema, Tags
from merlin_models.tasks import (
    BinaryClassificationTask,
    ColumnBasedSampleWeight,
    MultiClassClassificationTask,
    ParallelPredictionBlock,
    PredictionTasks,
    RegressionTask,
    with_weights_of,
)

SCHEMA = Schema(
    [
        ColumnSchema.create_categorical("movieId", 10, tags=[Tags.ITEM_ID]),
        ColumnSchema("click", np.int64, tags=(Tags.TARGET, Tags.BINARY_CLASSIFICATION)),
        ColumnSchema("seconds", np.float32, tags=(Tags.TARGET, Tags.REGRESSION)),
        ColumnSchema.create_categorical("action", 4, tags=[Tags.TARGET, Tags.MULTI_CLASS_CLASSIFICATION]),
    ]
)
CLICK, SECONDS = "click/binary_classification_task", "seconds/regression_task"
ACTION = "action/multi_class_classification_task"
X = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)


def linear(task, kernel, bias=0.0):
    """Gives a built task's head these weights."""
    task.head.set_weights([np.reshape(kernel, (-1, 1)), np.array([bias])])


def test_a_task_for_each_target():
    block = PredictionTasks(SCHEMA)
    assert [task.task_name for task in block.tasks] == [CLICK, SECONDS, ACTION]
    assert {name: value.shape for name, value in block(X).items()} == {CLICK: (2, 1), SECONDS: (2, 1), ACTION: (2, 5)}


def test_a_single_block_is_copied_for_each_task():
    template = MLPBlock([3])
    block = PredictionTasks(SCHEMA, task_blocks=template)
    block(X)
    first, second, _ = block.task_blocks.values()
    assert first is not second
    assert first is not template
    assert np.abs(first.get_weights()[0] - second.get_weights()[0]).max() > 0


def test_blocks_by_target_or_task():
    block = PredictionTasks(SCHEMA.select_by_name(["click", "seconds"]), task_blocks={"click": keras.layers.Dense(1)})
    block(X)
    block.task_blocks[CLICK].set_weights([np.array([[1.0], [1.0]]), np.zeros(1)])
    linear(block.tasks[0], [1.0], -7.0)
    linear(block.tasks[1], [1.0, 10.0])
    out = block(X)
    np.testing.assert_allclose(out[CLICK], [[1 / (1 + np.exp(4))], [0.5]], rtol=1e-5)
    np.testing.assert_array_equal(out[SECONDS], [[21], [43]])
    assert list(PredictionTasks(SCHEMA, {ACTION: MLPBlock([2])}).task_blocks) == [ACTION]


def test_inputs_by_task():
    block = ParallelPredictionBlock(RegressionTask("a"), RegressionTask("b"))
    own = {"a/regression_task": X[:, :1], "b/regression_task": X[:, 1:]}
    block(own)
    for task in block.tasks:
        linear(task, [1.0])
    for inputs in (own, {"b": X[:, 1:], "a": X[:, :1]}):
        out = block(inputs)
        np.testing.assert_array_equal(out["a/regression_task"], [[1], [3]])
        np.testing.assert_array_equal(out["b/regression_task"], [[2], [4]])
    for wrong in ({"a/regression_task": X}, {**own, "more": X}):
        with pytest.raises(ValueError, match=r"must have an entry for each of \['a/reg.*, and nothing beside"):
            block(wrong)


def test_features_with_a_targets_name_are_no_route():
    block = ParallelPredictionBlock(
        MultiClassClassificationTask.from_schema(SCHEMA), BinaryClassificationTask("click"), RegressionTask("seconds")
    )
    block({"movieId": X, "userId": X})
    assert block.tasks[1].head.kernel.shape == (4, 1)


def test_bias():
    block = ParallelPredictionBlock(
        BinaryClassificationTask("click"), RegressionTask("seconds"), bias_block=keras.layers.Dense(2)
    )
    block(X)
    block.bias_block.set_weights([np.eye(2), np.zeros(2)])
    block.bias_logit.set_weights([np.array([[10.0], [100.0]]), np.array([5.0])])
    linear(block.tasks[0], [-10.0, -100.0], -5.0)
    linear(block.tasks[1], [1.0, 1.0])
    out = block(X)
    np.testing.assert_allclose(out[CLICK], [[0.5], [0.5]])  # before the sigmoid, where it cancels
    np.testing.assert_array_equal(out[SECONDS], [[215 + 3], [435 + 7]])


def test_bias_beside_inputs_by_task():
    block = ParallelPredictionBlock(RegressionTask("a"), RegressionTask("b"), bias_block=MLPBlock([1], activation=None))
    inputs = {"a": X[:, :1], "b": X[:, 1:], "position": X[:, :1]}
    block(inputs)
    block.bias_block.set_weights([np.array([[2.0]]), np.zeros(1)])
    block.bias_logit.set_weights([np.array([[1.0]]), np.zeros(1)])
    for task in block.tasks:
        linear(task, [1.0])
    out = block(inputs)
    np.testing.assert_array_equal(out["a/regression_task"], [[3], [9]])
    np.testing.assert_array_equal(out["b/regression_task"], [[4], [10]])


def test_weights_are_defaults_of_loss_weights():
    block = PredictionTasks(SCHEMA, task_weight_dict={"click": 2.0, SECONDS: 0.5})
    assert block.task_weights == {CLICK: 2.0, SECONDS: 0.5}
    assert with_weights_of(block, None) == {CLICK: 2.0, SECONDS: 0.5}
    assert with_weights_of(block, {"click": 3.0, "action": 4.0}) == {"click": 3.0, SECONDS: 0.5, "action": 4.0}
    assert with_weights_of(MLPBlock([2]).connect(MLPBlock([2])), None) is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"task_blocks": {"clicks": MLPBlock([2])}}, ValueError, r"Keys of task_blocks .* Received: \['clicks'\]"),
        ({"task_blocks": 3}, TypeError, r"task_blocks must be a layer or a dictionary of layers. Received: 3"),
        ({"task_weight_dict": {"clicks": 1.0}}, ValueError, "Keys of task_weights must be targets or tasks"),
        ({"task_weight_dict": {"click": -1.0}}, ValueError, "task_weights must not be negative"),
        ({"bias_block": MLPBlock([2])}, ValueError, r"cannot take a bias. Received: \['action/multi"),
    ],
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        PredictionTasks(SCHEMA, **options)


def test_config_round_trip():
    for block in (
        PredictionTasks(SCHEMA, task_blocks=MLPBlock([3]), task_weight_dict={"click": 2.0}),
        PredictionTasks(SCHEMA.select_by_name("click"), {"click": MLPBlock([3])}, bias_block=MLPBlock([2])),
        MMOEBlock(PredictionTasks(SCHEMA), MLPBlock([4]), 2).connect(MLPBlock([2], filter=CLICK)),
    ):
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(block))
        assert again.get_config() == block.get_config()
        out = block(X)
        again(X)
        again.set_weights(block.get_weights())
        keras.tree.map_structure(np.testing.assert_array_equal, again(X), out)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_sample_weights_of_a_column(dtype, shape):
    column = np.reshape(np.array([1, 0, 1], dtype), shape)
    np.testing.assert_array_equal(ColumnBasedSampleWeight("click").compute({"click": column}), [1, 0, 1])
    by_class = ColumnBasedSampleWeight(binary_class_weights=(0.5, 4))
    np.testing.assert_array_equal(by_class.compute({"like": column}, "like"), [4, 0.5, 4])
    both = ColumnBasedSampleWeight(SCHEMA["click"], binary_class_weights=(0, 2))
    np.testing.assert_array_equal(both.compute({"click": column, "like": 1 - column}, "like"), [2, 0, 2])


def test_wrong_sample_weights():
    with pytest.raises(ValueError, match="weight_column_name or binary_class_weights must be given"):
        ColumnBasedSampleWeight()
    for wrong in ((1,), (1, -2), (1, 2, 3)):
        with pytest.raises(ValueError, match="two numbers that are not negative"):
            ColumnBasedSampleWeight(binary_class_weights=wrong)
    with pytest.raises(ValueError, match=r"must have the column 'click'.* Received: \['like'\]"):
        ColumnBasedSampleWeight("click").compute({"like": np.ones(3)})
    with pytest.raises(ValueError, match="must have one value a row"):
        ColumnBasedSampleWeight("click").compute({"click": np.ones((3, 2))})
    with pytest.raises(TypeError, match="sample_weight must be a ColumnBasedSampleWeight"):
        BinaryClassificationTask("click", sample_weight=np.ones(3))
