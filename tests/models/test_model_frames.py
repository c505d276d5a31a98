"""DataFrames and dictionaries with more than a model reads, in fit, evaluate and predict."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import merlin_models.tf as ml
from merlin_models.loader.dataset import Dataset

SCHEMA = ml.Schema(
    [
        ml.ColumnSchema.create_categorical("u", 20),
        ml.ColumnSchema.create_continuous("x"),
        ml.ColumnSchema("b", np.int32, (ml.Tags.TARGET, ml.Tags.BINARY_CLASSIFICATION)),
        ml.ColumnSchema("r", np.float32, (ml.Tags.TARGET, ml.Tags.REGRESSION)),
    ]
)


def frame(rows=64):
    users = np.arange(rows) % 20 + 1
    numbers = {"u": users, "x": np.linspace(0, 1, rows), "b": users % 2, "r": np.linspace(1, 2, rows)}
    return pd.DataFrame({**numbers, "title": [f"t{user}" for user in users], "other": users * 2.0})


def arrays(*names):
    return {name: frame()[name].to_numpy() for name in names}


def model_of(*tasks):
    keras.utils.set_random_seed(0)
    tasks = tasks or (ml.BinaryClassificationTask("b"),)
    model = ml.Model(ml.InputBlock(SCHEMA), ml.MLPBlock([8]), *tasks)
    model.compile("adam")
    return model


def same(one, two):
    keras.tree.map_structure(np.testing.assert_array_equal, one, two)


def test_a_frame_is_taken_by_names():
    model, data = model_of(), frame()
    features, targets = arrays("u", "x"), data["b"].to_numpy()
    expected = model.evaluate(features, targets, verbose=0, return_dict=True)
    typed = data.astype({"u": "Int64", "x": "Float64", "b": "boolean"})
    dated = data.assign(day=pd.Timestamp("2020-01-01"), kind=pd.Categorical(data["title"])).rename(columns={"other": 7})
    for given in (data, typed, dated, data.to_dict("series"), {**features, "title": data["title"].tolist()}):
        for y in (targets, data["b"], data[["b"]], data[["b", "r"]], None):
            if y is not None or "b" in given:
                logs = model.evaluate(given, y, verbose=0, return_dict=True)
                assert logs == pytest.approx(expected, rel=1e-5)
        same(model.predict(given, verbose=0), model.predict(features, verbose=0))
    assert model.evaluate(data, data["b"], sample_weight=np.zeros(64), verbose=0)[0] == 0


def test_fit_of_a_frame():
    data, histories = frame(), []
    for x, y in [(arrays("u", "x"), data["b"].to_numpy()), (data, data["b"]), (data, None)]:
        validation = (x, y) if y is not None else x
        history = model_of().fit(x, y, 16, 2, 0, validation_data=validation, shuffle=False).history
        assert "val_loss" in history
        histories.append(history)
    for history in histories[1:]:
        same(history, histories[0])
    split = model_of().fit(data, data["b"], validation_split=0.25, verbose=0).history
    assert "val_loss" in split


def test_targets_of_several_tasks_in_a_frame():
    rule = ml.ColumnBasedSampleWeight("other")
    model = model_of(ml.RegressionTask("r", sample_weight=rule), ml.BinaryClassificationTask("b"))
    data = frame()
    expected = model.evaluate(arrays("u", "x", "other"), arrays("b", "r"), verbose=0, return_dict=True)
    for y in (data[["b", "r"]], data, None):
        assert model.evaluate(data, y, verbose=0, return_dict=True) == pytest.approx(expected)


def binary_losses(model, data):
    scores, targets = model.predict(data, verbose=0)[:, 0], data["b"].to_numpy()
    return -(targets * np.log(scores) + (1 - targets) * np.log(1 - scores))


def test_weights_belong_to_the_targets_of_a_frame():
    model, data = model_of(), frame()
    weights = np.linspace(0, 3, 64)
    expected = np.mean(weights * binary_losses(model, data))
    for y in (data["b"], data[["b"]], None):
        for given in (weights, pd.Series(weights), {"b": weights}):
            assert model.evaluate(data, y, sample_weight=given, verbose=0)[0] == pytest.approx(expected, rel=1e-5)
    model.compile("sgd")
    model.optimizer.learning_rate = 0.0
    validation = data, None, weights
    logs = model.fit(data, sample_weight=weights, validation_data=validation, batch_size=64, verbose=0).history
    assert logs["loss"] == pytest.approx([expected], rel=1e-5)
    assert logs["val_loss"] == pytest.approx([expected], rel=1e-5)
    split = model.fit(data, sample_weight=weights, validation_split=0.25, batch_size=64, shuffle=False, verbose=0)
    parts = weights * binary_losses(model, data)
    assert split.history["loss"] == pytest.approx([parts[:48].mean()], rel=1e-5)
    assert split.history["val_loss"] == pytest.approx([parts[48:].mean()], rel=1e-5)


def test_weights_of_classes_belong_to_the_targets_of_a_frame():
    model, data = model_of(), frame()
    model.compile("sgd")
    model.optimizer.learning_rate = 0.0
    expected = np.mean(np.where(data["b"] == 1, 3.0, 1.0) * binary_losses(model, data))
    for y in (data["b"], data[["b"]], {"b": data["b"].to_numpy()}, data[["b", "r"]], None):
        logs = model.fit(data, y, class_weight={0: 1.0, 1: 3.0}, batch_size=64, verbose=0).history
        assert logs["loss"] == pytest.approx([expected], rel=1e-5)
    with pytest.raises(ValueError, match=r"y must be given where class_weight is, .* Received: y=None"):
        model.fit(arrays("u", "x"), class_weight={0: 1.0, 1: 3.0}, verbose=0)


def test_weights_without_targets():
    model, rows, weights = model_of(), arrays("u", "x"), np.arange(64.0)
    for run, options in (
        (model.fit, {"sample_weight": weights}),
        (model.evaluate, {"sample_weight": weights}),
        (model.fit, {"y": np.ones(64), "validation_data": (rows, None, weights)}),
    ):
        with pytest.raises(ValueError, match=r"y must be given where sample_weight is, .* Received: y=None"):
            run(rows, verbose=0, **options)


def test_weights_where_pre_makes_the_targets():
    model, data = model_of(), frame()
    weights = np.linspace(0, 3, 64)
    expected = np.mean(weights * binary_losses(model, data))

    def parity(inputs, targets, sample_weight):
        assert targets is None
        return inputs, inputs["u"] % 2, sample_weight

    features = arrays("u", "x")
    assert model.evaluate(features, sample_weight=weights, pre=parity, verbose=0)[0] == pytest.approx(
        expected, rel=1e-5
    )
    model.compile(keras.optimizers.SGD(0.0))
    validation = (features, None, weights)
    logs = model.fit(
        features, sample_weight=weights, pre=parity, validation_data=validation, batch_size=64, verbose=0
    ).history
    assert (logs["loss"], logs["val_loss"]) == (pytest.approx([expected]), pytest.approx([expected]))


def test_weights_of_a_retrieval_model_without_targets():
    schema = ml.Schema(
        [ml.ColumnSchema.create_categorical(name, 20, tags=[tag]) for name, tag in [("u", "user_id"), ("i", "item_id")]]
    )
    model = ml.MatrixFactorizationModel(schema, dim=4)
    model.compile(keras.optimizers.SGD(0.0), metrics=[ml.RecallAt(1)], weighted_metrics=[ml.MRRAt(2)])
    rows, weights = {"u": np.arange(1, 9), "i": np.arange(11, 19)}, np.arange(8.0)
    expected = model.evaluate(rows, np.ones(8), sample_weight=weights, return_dict=True, verbose=0)
    for given in (weights, pd.Series(weights)):
        assert model.evaluate(rows, sample_weight=given, return_dict=True, verbose=0) == pytest.approx(expected)
    logs = model.fit(rows, sample_weight=weights, validation_data=(rows, None, weights), verbose=0).history
    for name, value in expected.items():
        assert (logs[name], logs[f"val_{name}"]) == (pytest.approx([value]), pytest.approx([value]))


def test_rows_of_classes_in_a_frame():
    rows = pd.get_dummies(frame()["u"] % 3)
    model = model_of(ml.MultiClassClassificationTask("class", 3, loss="categorical_crossentropy"))
    expected = model.evaluate(frame(), rows.to_numpy(), verbose=0)
    assert model.evaluate(frame(), rows, verbose=0) == pytest.approx(expected)


@pytest.mark.parametrize("run", ["fit", "evaluate", "predict"])
@pytest.mark.parametrize(
    ("values", "received"),
    [
        ([f"user {row}" for row in range(64)], "(object|str|string), such as 'user 0'"),
        ([[1, 2]] * 64, r"object, such as \[1, 2\]"),
        (pd.array([None, *range(1, 64)], dtype="Int64"), "Int64, such as <NA>"),
    ],
)
def test_a_column_that_is_read_must_hold_numbers(run, values, received):
    data = frame().assign(u=values)
    targets = [] if run == "predict" else [data["b"]]
    message = rf"The column 'u' must hold numbers, none of them missing; a Loader .* Received: {received}"
    for given in (data, data.to_dict("series")):
        with pytest.raises(TypeError, match=message):
            getattr(model_of(), run)(given, *targets, verbose=0)


def test_targets_must_hold_numbers_where_they_are_read():
    data = frame().assign(b="yes")
    model = model_of()
    with pytest.raises(TypeError, match=r"The column 'b' must hold numbers"):
        model.fit(data, verbose=0)
    model.fit(data, frame()["b"], verbose=0)
    assert model.predict(data, verbose=0).shape == (64, 1)


@pytest.mark.parametrize("run", ["fit", "evaluate", "predict", "validation"])
def test_data_that_need_a_loader(run):
    table = pa.Table.from_pandas(frame()[["u", "x", "b", "r"]])
    model = model_of()
    for given in (Dataset(table, SCHEMA), table, "train"):
        call = getattr(model, "fit" if run == "validation" else run)
        options = {"validation_data": given} if run == "validation" else {}
        with pytest.raises(TypeError, match=rf"x must be a loader, .* Loader\(data.* Received: {type(given).__name__}"):
            call(frame() if options else given, verbose=0, **options)


def test_pre_may_read_strings():
    words = keras.layers.StringLookup(vocabulary=["t1", "t2"], output_mode="int")

    def encode(inputs):
        return {"u": words(inputs["title"]), "x": inputs["x"]}

    model, data = model_of(), frame()
    features = {"title": data["title"].to_numpy(object), **arrays("x")}
    expected = {"u": words(data["title"].tolist()).numpy(), **arrays("x")}
    model.fit(features, data["b"], validation_data=(features, data["b"]), pre=encode, verbose=0)
    same(model.predict(features, pre=encode, verbose=0), model.predict(expected, verbose=0))
    logs = model.evaluate(features, data["b"], pre=encode, verbose=0)
    assert logs == pytest.approx(model.evaluate(expected, data["b"], verbose=0))


def test_wrong_frames():
    data = frame()
    doubled = pd.concat([data, data[["u"]]], axis=1)
    with pytest.raises(ValueError, match=r"Columns of a DataFrame must have unique names. Received: \['u'"):
        model_of().predict(doubled)
    with pytest.raises(ValueError, match=r"missing: \['x'\]"):
        model_of().predict(data[["u", "title"]], verbose=0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'epoch'"):
        model_of().fit(data, data["b"], epoch=3)
