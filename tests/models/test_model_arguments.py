"""What fit and evaluate are called with: labels of loaders by name."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import merlin_models.tf as ml

BINARY, REGRESSION = "b/binary_classification_task", "r/regression_task"
TAGS = {"b": ("int32", ml.Tags.BINARY_CLASSIFICATION), "r": ("float32", ml.Tags.REGRESSION)}


def schema_of(*targets):
    columns = [ml.ColumnSchema(name, TAGS[name][0], (ml.Tags.TARGET, TAGS[name][1])) for name in targets]
    return ml.Schema([ml.ColumnSchema.create_categorical("u", 20), *columns])


def frame(rows=64):
    users = np.arange(rows) % 20 + 1
    return pd.DataFrame(
        {"u": users, "b": (users % 2).astype(np.int32), "r": np.linspace(10, 20, rows, dtype=np.float32)}
    )


def model_of(*tasks, **compiled):
    keras.utils.set_random_seed(0)
    model = ml.Model(ml.InputBlock(schema_of("b")), ml.MLPBlock([8]), *tasks)
    model.compile("adam", **compiled)
    return model


def both(order="br", **compiled):
    tasks = {"b": ml.BinaryClassificationTask("b"), "r": ml.RegressionTask("r")}
    return model_of(*(tasks[name] for name in order), **compiled)


def loader_of(targets="br", **options):
    return ml.Loader(frame(), 16, schema=schema_of(*targets), shuffle=False, **options)


@pytest.mark.parametrize("labels", ["br", "rb"])
@pytest.mark.parametrize("tasks", ["br", "rb"])
def test_labels_go_to_tasks_by_name(tasks, labels):
    model, data = both(tasks), frame()
    logs = model.evaluate(loader_of(labels), verbose=0, return_dict=True)
    predicted = model.predict({"u": data["u"].to_numpy()}, verbose=0)
    assert logs[f"{REGRESSION}/loss"] == pytest.approx(np.mean((predicted[REGRESSION][:, 0] - data.r) ** 2), rel=1e-4)
    assert logs[f"{BINARY}/loss"] < 2
    history = model.fit(loader_of(labels), validation_data=loader_of(labels), verbose=0).history
    assert history[f"{REGRESSION}/loss"][0] > 50 > history[f"val_{BINARY}/loss"][0]


def test_more_labels_than_tasks():
    model = model_of(ml.RegressionTask("r"))
    one = model.evaluate(loader_of("r"), verbose=0, return_dict=True)
    assert model.evaluate(loader_of("br"), verbose=0, return_dict=True) == pytest.approx(one)
    with pytest.raises(ValueError, match=r"Task 'regression_task' must have a target_name.*Received: \['b', 'r'\]"):
        model_of(ml.RegressionTask()).fit(loader_of("br"), verbose=0)


@pytest.mark.parametrize("labels", ["b", "br"])
@pytest.mark.parametrize("run", ["fit", "evaluate", "validation"])
def test_a_label_of_another_name_is_refused(run, labels):
    model = model_of(ml.BinaryClassificationTask("clicked"))
    features, targets = {"u": frame()["u"].to_numpy()}, frame()["b"].to_numpy()
    calls = {
        "fit": lambda: model.fit(loader_of(labels), verbose=0),
        "evaluate": lambda: model.evaluate(loader_of(labels), verbose=0),
        "validation": lambda: model.fit(features, targets, validation_data=loader_of(labels), verbose=0),
    }
    with pytest.raises(ValueError, match=r"must have the target 'clicked' of task 'clicked/binary.* Received: \['b'"):
        calls[run]()


def test_what_may_have_another_name():
    model = model_of(ml.BinaryClassificationTask("high"))
    mapped = loader_of("r").map(lambda x, y: (x, tf.cast(y > 15, tf.int32)))
    assert model.fit(mapped, verbose=0).history["loss"][0] < 2
    model.fit(loader_of("r"), pre=lambda inputs, targets: (inputs, targets > 15), verbose=0)
    unnamed = model_of(ml.BinaryClassificationTask())
    unnamed.fit(loader_of("b"), verbose=0)
    by_task = model_of(ml.BinaryClassificationTask("high", task_name="b"))
    by_task.fit(loader_of("b"), verbose=0)


def test_weights_of_rows_beside_several_labels():
    model = both()
    plain = model.evaluate(loader_of(), verbose=0, return_dict=True)
    for weights in (
        lambda y: tf.ones_like(y["r"]) * 0.5,
        lambda y: {name: tf.ones(tf.shape(y[name])[0]) / 2 for name in y},
    ):
        loader = loader_of().map(lambda x, y, weights=weights: (x, y, weights(y)))
        logs = model.evaluate(loader, verbose=0, return_dict=True)
        assert logs["loss"] == pytest.approx(plain["loss"] / 2, rel=1e-5)
    given = {"b": np.zeros(64, np.float32), "r": np.ones(64, np.float32)}
    data = frame()
    targets = {name: data[name].to_numpy() for name in "br"}
    logs = model.evaluate({"u": data["u"].to_numpy()}, targets, sample_weight=given, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(plain[f"{REGRESSION}/loss"], rel=1e-5)


def test_rules_of_weights_read_labels():
    rule = ml.ColumnBasedSampleWeight("b")
    model = model_of(ml.RegressionTask("r", sample_weight=rule))
    data = frame()
    predicted = model.predict({"u": data["u"].to_numpy()}, verbose=0)[:, 0]
    logs = model.evaluate(loader_of(), verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(np.mean((predicted - data.r) ** 2 * data.b), rel=1e-4)


def test_lists_in_the_order_of_tasks(tmp_path):
    data = frame()
    arrays = {"u": data["u"].to_numpy()}, {name: data[name].to_numpy() for name in "br"}
    by_name = {
        "loss": {"r": "mae"},
        "loss_weights": {"b": 2.0, "r": 0.5},
        "metrics": {"b": ["auc"], "r": ["mse"]},
    }
    by_place = {"loss": [None, "mae"], "loss_weights": [2.0, 0.5], "metrics": [["auc"], ["mse"]]}
    one, two = both(**by_name), both(**by_place)
    two.fit(*arrays, verbose=0)
    one.set_weights(two.get_weights())
    expected = one.evaluate(*arrays, verbose=0, return_dict=True)
    assert two.evaluate(*arrays, verbose=0, return_dict=True) == pytest.approx(expected)
    two.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.evaluate(*arrays, verbose=0, return_dict=True) == pytest.approx(expected)
    assert both(metrics=["mse"]).evaluate(*arrays, verbose=0, return_dict=True).keys() >= {
        f"{BINARY}/mean_squared_error"
    }


@pytest.mark.parametrize(
    ("compiled", "error", "message"),
    [
        ({"loss": ["mse"]}, ValueError, r"loss must have an entry for each task, \['b/.* Received: 1"),
        ({"loss_weights": [1, 2, 3]}, ValueError, r"loss_weights must have an entry for each task.* Received: 3"),
        ({"metrics": [["auc"]]}, ValueError, r"metrics must have an entry for each task.* Received: 1"),
        ({"loss_weights": 2.0}, TypeError, r"loss_weights must be a dictionary .* Received: 2.0"),
        (
            {"loss_weights": {"b": "heavy"}},
            TypeError,
            r"loss_weights must be a dictionary .* Received: \{'b': 'heavy'\}",
        ),
    ],
)
def test_wrong_lists(compiled, error, message):
    with pytest.raises(error, match=message):
        both(**compiled)


def test_class_weight_is_for_one_task_and_label():
    weights = {0: 1.0, 1: 3.0}
    for model in (both(), model_of(ml.BinaryClassificationTask("b"))):
        with pytest.raises(ValueError, match=r"class_weight must be None where .* Received: \{0: 1.0, 1: 3.0\}"):
            model.fit(loader_of(), class_weight=weights, verbose=0)
    model = model_of(ml.BinaryClassificationTask("b"))
    plain = model.evaluate(loader_of("b"), verbose=0, return_dict=True)["loss"]
    model.optimizer.learning_rate = 0.0
    loss = model.fit(loader_of("b"), class_weight={0: 2.0, 1: 2.0}, verbose=0).history["loss"][0]
    assert loss == pytest.approx(2 * plain, rel=1e-3)


@pytest.mark.parametrize("block", [ml.InputBlock, ml.EmbeddingFeatures.from_schema, ml.DLRMBlock])
def test_embedding_options_of_another_kind(block):
    message = r"embedding_options must be an EmbeddingOptions, .* Received: \{'embedding_dim_default': 8\}"
    with pytest.raises(TypeError, match=message):
        block(schema_of("b").select_by_name("u"), embedding_options={"embedding_dim_default": 8})


def test_a_retrieval_task_takes_its_weights_by_name():
    items = ml.Schema(
        [
            ml.ColumnSchema.create_categorical("u", 20, tags=[ml.Tags.USER_ID]),
            ml.ColumnSchema.create_categorical("i", 9, tags=[ml.Tags.ITEM_ID]),
        ]
    )
    data = frame().assign(i=np.arange(64) % 9 + 1)
    keras.utils.set_random_seed(0)
    model = ml.MatrixFactorizationModel(items, 8, task_options={"target_name": "b"})
    model.compile("adam", metrics=[ml.RecallAt(3)])

    def loader(*labels):
        return ml.Loader(data, 16, label_names=labels, cat_names=["u", "i"], shuffle=False)

    for options in ({}, {"item_corpus": {"i": np.arange(1, 10)}}):
        expected = model.evaluate(loader("b"), return_dict=True, verbose=0, **options)
        assert model.evaluate(loader("r", "b"), return_dict=True, verbose=0, **options) == pytest.approx(expected)
        with pytest.raises(ValueError, match=r"must have the target 'b' of task 'b/item_retrieval_task'"):
            model.evaluate(loader("r", "u"), verbose=0, **options)
    model.fit(loader("r", "b"), shuffle=False, verbose=0)


@pytest.mark.parametrize("targets", [[], ["b"], ["b", "r"]], ids=["no target", "one", "two"])
def test_sample_weights_without_y(targets):
    """Keras drops them: of what is no tuple it takes features alone."""
    data, weights = frame(), np.linspace(0, 2, 64, dtype=np.float32)
    x = {name: data[name].to_numpy() for name in ("u", *targets)}
    if targets == ["b", "r"]:
        model, y = both(), {name: x[name] for name in targets}
    elif targets:
        model, y = model_of(ml.BinaryClassificationTask("b")), x["b"]
    else:
        columns = [ml.ColumnSchema.create_categorical("u", 20, tags=[ml.Tags.USER_ID])]
        columns += [ml.ColumnSchema.create_categorical("i", 20, tags=[ml.Tags.ITEM_ID])]
        model, y = ml.MatrixFactorizationModel(ml.Schema(columns), dim=4), np.ones(64)
        model.compile("adam")
        x["i"] = (x["u"] * 7) % 20 + 1
    options = {"verbose": 0, "sample_weight": weights}
    weighted = model.evaluate(x, y, **options)
    assert weighted != model.evaluate(x, y, verbose=0)
    if targets == ["b"]:
        with pytest.raises(ValueError, match="y must be given where sample_weight is"):
            model.evaluate({"u": x["u"]}, **options)
        with pytest.raises(ValueError, match="y must be given where class_weight is"):
            model.fit({"u": x["u"]}, class_weight={0: 1.0, 1: 2.0}, verbose=0)
        with pytest.raises(ValueError, match="y must be given where sample_weight is"):
            model.fit(x, y, validation_data=({"u": x["u"]}, None, weights), verbose=0)
        assert model.fit(x, class_weight={0: 0.0, 1: 0.0}, verbose=0).history["loss"] == [0.0]
        weighted = model.evaluate(x, y, **options)
    assert model.evaluate(x, **options) == pytest.approx(weighted)
    assert np.isfinite(model.fit(x, validation_data=(x, None, weights), **options).history["val_loss"]).all()
    nothing = {**options, "sample_weight": 0 * weights}
    assert model.evaluate(x, **nothing)[0] == model.fit(x, **nothing).history["loss"][0] == 0
