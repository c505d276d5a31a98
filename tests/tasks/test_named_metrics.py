"""Names of metrics that stand for different ones at different outputs."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import merlin_models.tf as ml
from merlin_models.tasks.named_metrics import accuracy, crossentropy

X = {"u": np.arange(32) % 7 + 1}
CLASSES = np.arange(32) % 4
TARGETS = {"binary": CLASSES % 2, "regression": CLASSES % 2, "sparse": CLASSES, "rows": np.eye(4)[CLASSES]}
LOSSES = {"sparse": "sparse_categorical_crossentropy", "rows": "categorical_crossentropy"}


def task_of(kind, **options):
    if kind in LOSSES:
        return ml.MultiClassClassificationTask("y", 4, loss=LOSSES[kind], **options)
    return (ml.BinaryClassificationTask if kind == "binary" else ml.RegressionTask)("y", **options)


def model_of(task, **compiled):
    schema = ml.Schema([ml.ColumnSchema.create_categorical("u", 8)])
    model = ml.Model(ml.InputBlock(schema), ml.MLPBlock([8]), task)
    model.compile("adam", **compiled)
    return model


def right(kind, predicted):
    if kind in LOSSES:
        return np.mean(predicted.argmax(1) == CLASSES)
    return np.mean((predicted[:, 0] > 0.5) == (CLASSES % 2))


@pytest.mark.parametrize("kind", ["binary", "regression", "sparse", "rows"])
def test_accuracy_in_compile_and_in_tasks(kind, tmp_path):
    named = "y/" + {"binary": "binary_classification_task", "regression": "regression_task"}.get(
        kind, "multi_class_classification_task"
    )
    model = model_of(task_of(kind), metrics=["accuracy", "acc"])
    model.fit(X, TARGETS[kind], epochs=2, verbose=0)
    logs = model.evaluate(X, TARGETS[kind], verbose=0, return_dict=True)
    expected = right(kind, model.predict(X, verbose=0))
    assert logs[f"{named}/accuracy"] == pytest.approx(expected, abs=1e-6)
    assert logs[f"{named}/acc"] == pytest.approx(expected, abs=1e-6)
    own = model_of(task_of(kind, metrics=["accuracy"]))
    own.set_weights(model.get_weights())
    assert own.evaluate(X, TARGETS[kind], verbose=0, return_dict=True)[f"{named}/accuracy"] == pytest.approx(expected)
    for each in (model, own):
        before = each.evaluate(X, TARGETS[kind], verbose=0, return_dict=True)
        each.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        assert again.evaluate(X, TARGETS[kind], verbose=0, return_dict=True) == pytest.approx(before)


@pytest.mark.parametrize("kind", ["binary", "sparse", "rows"])
@pytest.mark.parametrize("name", ["crossentropy", "ce"])
def test_crossentropy_is_the_loss(kind, name):
    model = model_of(task_of(kind), metrics=[name])
    logs = model.evaluate(X, TARGETS[kind], verbose=0, return_dict=True)
    (value,) = (value for key, value in logs.items() if key.endswith(f"/{name}"))
    assert value == pytest.approx(logs["loss"], rel=1e-5)


@pytest.mark.parametrize("metric", ["sparse_categorical_crossentropy", keras.metrics.SparseCategoricalCrossentropy])
def test_crossentropies_by_name_are_of_scores(metric):
    column = ml.ColumnSchema.create_categorical("y", 3)
    for task in (task_of("sparse", metrics=[metric]), ml.CategoricalOutput(column, metrics=[metric])):
        logs = model_of(task).evaluate(X, CLASSES, verbose=0, return_dict=True)
        assert logs[f"{task.task_name}/sparse_categorical_crossentropy"] == pytest.approx(logs["loss"], rel=1e-5)


@pytest.mark.parametrize("kind", ["binary", "sparse", "rows"])
def test_as_keras_does(kind, rng):
    scores = rng.random((32, 1 if kind == "binary" else 4)).astype(np.float32)
    scores = scores if kind == "binary" else scores / scores.sum(1, keepdims=True)
    model = keras.Sequential([keras.layers.Identity()])
    loss = "binary_crossentropy" if kind == "binary" else LOSSES[kind]
    model.compile(loss=loss, metrics=["accuracy"])
    targets = TARGETS[kind][:, None] if kind == "binary" else TARGETS[kind]
    expected = model.evaluate(scores, targets, verbose=0, return_dict=True)
    assert float(np.mean(accuracy(targets, scores))) == pytest.approx(expected["accuracy"])
    assert float(np.mean(crossentropy(targets, scores))) == pytest.approx(expected["loss"], rel=1e-4)


def test_by_task():
    model = model_of(
        ml.ParallelPredictionBlock(ml.BinaryClassificationTask("a"), ml.MultiClassClassificationTask("b", 4)),
        metrics=["accuracy"],
    )
    logs = model.evaluate(X, {"a": CLASSES % 2, "b": CLASSES}, verbose=0, return_dict=True)
    predicted = model.predict(X, verbose=0)
    a, b = "a/binary_classification_task", "b/multi_class_classification_task"
    assert logs[f"{a}/accuracy"] == pytest.approx(right("binary", predicted[a]))
    assert logs[f"{b}/accuracy"] == pytest.approx(right("sparse", predicted[b]))
