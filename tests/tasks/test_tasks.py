"""Prediction tasks: names, targets, losses, metrics and configs."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import merlin_models.tf as ml
from merlin_models.blocks import MLPBlock
from merlin_models.schema import ColumnSchema, Schema, Tags
from merlin_models.tasks import (
    BinaryClassificationTask,
    ParallelPredictionBlock,
    PredictionTask,
    RegressionTask,
)
from merlin_models.tasks.base import FunctionLoss, as_loss, snake_case

SCHEMA = Schema(
    [
        ColumnSchema.create_categorical("movieId", 10),
        ColumnSchema("click", np.int64, tags=(Tags.TARGET, Tags.BINARY_CLASSIFICATION)),
        ColumnSchema("rating", np.float32, tags=(Tags.TARGET, Tags.REGRESSION)),
    ]
)


@keras.saving.register_keras_serializable(package="tests")
def absolute(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_true - y_pred), axis=-1)


def metric_names(task):
    return [metric.name for metric in task.create_metrics()]


def test_names():
    task = BinaryClassificationTask("rating_b")
    assert task.target_name == "rating_b"
    assert task.task_name == "rating_b/binary_classification_task"
    assert metric_names(task) == [
        f"rating_b/binary_classification_task/{name}" for name in ("precision", "recall", "binary_accuracy", "auc")
    ]
    assert metric_names(RegressionTask("rating")) == ["rating/regression_task/root_mean_squared_error"]
    assert RegressionTask().task_name == "regression_task"
    assert metric_names(RegressionTask("y", task_name="mine", metrics=["mae"])) == ["mine/mean_absolute_error"]


@pytest.mark.parametrize("target", ["click", SCHEMA["click"], SCHEMA])
def test_target_from_name_column_or_schema(target):
    assert BinaryClassificationTask(target).target_name == "click"


def test_wrong_target():
    with pytest.raises(ValueError, match=r"one column tagged regression. Received: \[\]"):
        RegressionTask(SCHEMA.select_by_name("click"))
    with pytest.raises(TypeError, match="target_name must be a name, a ColumnSchema or a Schema"):
        RegressionTask(3)


def test_predictions_by_hand():
    inputs = {"b": np.array([[2.0]]), "a": np.array([[1.0]])}
    binary, regression = (
        BinaryClassificationTask(),
        RegressionTask(task_block=MLPBlock([1], kernel_initializer="ones")),
    )
    binary(inputs)
    binary.head.set_weights([np.array([[1.0], [-1.0]]), np.array([0.5])])
    np.testing.assert_allclose(binary(inputs), [[1 / (1 + np.exp(0.5))]], rtol=1e-6)
    regression(inputs)
    regression.head.set_weights([np.array([[2.0]]), np.array([1.0])])
    np.testing.assert_allclose(regression(inputs), [[7.0]])


def test_match():
    task, predictions = BinaryClassificationTask("y"), keras.ops.ones((3, 1))
    for shape in [(3,), (3, 1)]:
        targets, _ = task.match(keras.ops.ones(shape), predictions)
        assert targets.shape == (3, 1)
    with pytest.raises(ValueError, match=r"Targets of task 'y/binary.* \(3, 1\).* Received: \(3, 2\)"):
        task.match(keras.ops.ones((3, 2)), predictions)
    with pytest.raises(ValueError, match=r"Received: \(4, 1\)"):
        task.match(keras.ops.ones(4), predictions)
    with pytest.raises(ValueError, match=r"must get targets. Received: none"):
        task.match(None, predictions)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("mse", keras.losses.MeanSquaredError),
        ("binary_crossentropy", keras.losses.BinaryCrossentropy),
        ("Huber", keras.losses.Huber),
        (keras.losses.LogCosh, keras.losses.LogCosh),
        (keras.losses.Huber(delta=2.0), keras.losses.Huber),
        (absolute, FunctionLoss),
    ],
)
def test_loss_from_anything(loss, expected):
    found = as_loss(loss)
    assert isinstance(found, expected)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(found))
    y_true, y_pred = np.array([[1.0], [0.0]]), np.array([[0.2], [0.5]])
    assert float(again(y_true, y_pred)) == pytest.approx(float(found(y_true, y_pred)))


def test_functions_without_a_registration_are_losses_and_metrics(tmp_path):
    def off(targets, predictions):
        return keras.ops.mean(keras.ops.abs(keras.ops.cast(targets, predictions.dtype) - predictions), axis=-1)

    schema = ml.Schema([ml.ColumnSchema.create_categorical("u", 9)])
    features, targets = {"u": np.arange(8)}, np.arange(8) % 2
    for loss in (off, lambda targets, predictions: off(targets, predictions)):
        model = ml.Model(
            ml.InputBlock(schema), BinaryClassificationTask("y", loss=loss, metrics=[off, lambda y, p: off(y, p)])
        )
        model.compile("sgd")
        model.fit(features, targets, verbose=0)
        results = model.evaluate(features, targets, verbose=0, return_dict=True)
        expected = np.abs(targets[:, None] - model.predict(features, verbose=0)).mean()
        names = ["loss", *(f"y/binary_classification_task/{name}" for name in ("off", "lambda"))]
        assert [results[name] for name in names] == pytest.approx([expected] * 3)
        model.compile("sgd", loss=loss, metrics=[off])
        assert model.evaluate(features, targets, verbose=0)[:2] == pytest.approx([expected] * 2)
    model = ml.Model(ml.InputBlock(schema), BinaryClassificationTask("y", loss=off, metrics=[off]))
    model.compile("sgd")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", custom_objects={"off": off})
    assert loaded.evaluate(features, targets, verbose=0) == pytest.approx(model.evaluate(features, targets, verbose=0))


def test_function_loss_takes_sample_weights():
    loss = as_loss(absolute)(np.array([[1.0], [0.0]]), np.array([[0.2], [0.5]]), sample_weight=np.array([1.0, 0.0]))
    assert float(loss) == pytest.approx(0.4)  # 0.8 / 2


def test_metrics_are_copies_with_stable_names():
    given = keras.metrics.AUC(num_thresholds=7)  # Keras may call it auc_12
    task = BinaryClassificationTask("y", metrics=[given])
    first, second = task.create_metrics(), task.create_metrics()
    assert first[0] is not second[0]
    assert first[0].name == "y/binary_classification_task/auc"
    assert first[0].num_thresholds == 7
    with pytest.raises(ValueError, match="no such metric"):
        BinaryClassificationTask("y", metrics=["no such metric"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: BinaryClassificationTask(),
        lambda: BinaryClassificationTask("y", task_name="mine", metrics=[], loss=absolute),
        lambda: RegressionTask("y", task_block=MLPBlock([2]), loss="mae", metrics=[keras.metrics.MeanSquaredError()]),
        lambda: ParallelPredictionBlock(BinaryClassificationTask("a"), RegressionTask("b")),
    ],
)
def test_config_round_trip(make):
    task, inputs = make(), np.ones((2, 3))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(task))
    assert again.get_config() == task.get_config()
    out = task(inputs)
    again(inputs)
    again.set_weights(task.get_weights())
    keras.tree.map_structure(np.testing.assert_array_equal, again(inputs), out)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_predictions_are_float32_under_mixed_precision(policy):
    for task in (BinaryClassificationTask("y", dtype=policy), RegressionTask("y", dtype=policy)):
        assert keras.backend.standardize_dtype(task(np.ones((2, 3), np.float32)).dtype) == "float32"


def test_parallel_prediction_block():
    tasks = ParallelPredictionBlock.from_schema(SCHEMA)
    assert sorted(tasks(np.ones((2, 3)))) == ["click/binary_classification_task", "rating/regression_task"]
    with pytest.raises(ValueError, match="must have a column tagged binary_classification, regression or multi_class"):
        ParallelPredictionBlock.from_schema(SCHEMA.select_by_name("movieId"))
    with pytest.raises(ValueError, match="with unique names"):
        ParallelPredictionBlock(RegressionTask("y"), RegressionTask("y"))
    with pytest.raises(TypeError, match="must be prediction tasks"):
        ParallelPredictionBlock(MLPBlock([1]))


def test_base_class_has_no_head():
    with pytest.raises(NotImplementedError, match="must define make_head"):
        PredictionTask("y", loss="mse")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AUC", "auc"),
        ("BinaryAccuracy", "binary_accuracy"),
        ("KLDivergence", "kl_divergence"),
        ("F1Score", "f1_score"),
    ],
)
def test_snake_case(name, expected):
    assert snake_case(name) == expected
