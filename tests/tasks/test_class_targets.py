"""Targets of classes as numbers and as rows, with losses and metrics of either."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import merlin_models.tf as ml

ITEMS = ml.ColumnSchema.create_categorical("y", 29)
X = {"u": np.arange(32) % 7 + 1}
NUMBERS = np.arange(32) * 7 % 30
ROWS = np.eye(30)[NUMBERS]
KINDS = {"task": ml.MultiClassClassificationTask, "output": ml.CategoricalOutput}


def task_of(kind, **options):
    keras.utils.set_random_seed(3)
    return KINDS[kind](ITEMS, **options)


def model_of(task, **compiled):
    schema = ml.Schema([ml.ColumnSchema.create_categorical("u", 8)])
    model = ml.Model(ml.InputBlock(schema), ml.MLPBlock([8]), task)
    model.compile("adam", **compiled)
    return model


def logs_of(model, targets):
    return model.evaluate(X, targets, verbose=0, return_dict=True)


@pytest.mark.parametrize("where", ["task", "compile"])
@pytest.mark.parametrize("kind", ["task", "output"])
def test_numbers_and_rows_are_the_same(kind, where, tmp_path):
    expected = logs_of(model_of(task_of(kind)), NUMBERS)
    loss = {"loss": "categorical_crossentropy"}
    options, compiled = (loss, {}) if where == "task" else ({}, loss)
    for targets in (NUMBERS, NUMBERS[:, None].astype(np.float32), ROWS, ROWS.astype(np.int32)):
        model = model_of(task_of(kind, **options), **compiled)
        assert logs_of(model, targets) == pytest.approx(expected, rel=1e-4)
    model.fit(X, ROWS, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert logs_of(again, NUMBERS) == pytest.approx(logs_of(model, ROWS), rel=1e-4)


def test_few_classes():
    task = ml.MultiClassClassificationTask("y", 4, loss="categorical_crossentropy")
    model = model_of(task)
    logs = logs_of(model, np.eye(4)[NUMBERS % 4])
    hits = np.mean(model.predict(X, verbose=0).argmax(1) == NUMBERS % 4)
    assert logs["y/multi_class_classification_task/sparse_categorical_accuracy"] == pytest.approx(hits)
    assert logs_of(model, NUMBERS % 4) == pytest.approx(logs, rel=1e-5)


def test_several_relevant_classes():
    rows = np.maximum(ROWS, np.roll(ROWS, 1, axis=1))
    model = model_of(task_of("task", loss="categorical_crossentropy"))
    best = np.argsort(-model.predict(X, verbose=0), axis=1)[:, :10]
    recall = np.mean(np.take_along_axis(rows, best, 1).sum(1) / 2)
    assert logs_of(model, rows)[f"{model.prediction_tasks[0].task_name}/recall_at_10"] == pytest.approx(
        recall, rel=1e-5
    )


@pytest.mark.parametrize("kind", ["task", "output"])
@pytest.mark.parametrize("run", ["fit", "evaluate"])
def test_rows_need_a_loss_of_rows(kind, run):
    message = r"must be numbers of classes, .* for sparse_categorical_crossentropy; rows .* Received: \((None|32), 30\)"
    with pytest.raises(ValueError, match=message):
        getattr(model_of(task_of(kind)), run)(X, ROWS, verbose=0)


def test_metrics_of_both_forms():
    names = ["categorical_accuracy", "sparse_categorical_accuracy", "categorical_crossentropy"]
    metrics = [*names, ml.RecallAt(5), ml.RecallAt(5, labels_onehot=True, name="counted")]
    expected = None
    for loss, targets in [(None, NUMBERS), ("categorical_crossentropy", ROWS), ("categorical_crossentropy", NUMBERS)]:
        logs = logs_of(model_of(task_of("task"), loss=loss, metrics=metrics), targets)
        prefix = model_of(task_of("task")).prediction_tasks[0].task_name
        assert logs[f"{prefix}/recall_at_5"] == pytest.approx(logs[f"{prefix}/counted"], rel=1e-5)
        assert logs[f"{prefix}/categorical_accuracy"] == logs[f"{prefix}/sparse_categorical_accuracy"]
        assert logs[f"{prefix}/categorical_crossentropy"] == pytest.approx(logs["loss"], rel=1e-5)
        expected = expected or logs
        assert logs == pytest.approx(expected, rel=1e-4)


def test_other_losses_of_rows():
    for loss in (keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1), ml.losses.BPRLoss()):
        model = model_of(task_of("task", loss=loss))
        assert logs_of(model, NUMBERS)["loss"] == pytest.approx(logs_of(model, ROWS)["loss"], rel=1e-5)


def test_a_number_that_is_no_class_is_not_lost():
    model = model_of(task_of("task", loss="categorical_crossentropy", metrics=[]))
    assert np.isnan(logs_of(model, np.full(32, 30))["loss"])
