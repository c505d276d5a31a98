"""Model: its parts, inputs, training options, losses and metrics."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from model_data import LOGS, SCHEMA, TASK, ratings, small_model, with_genres_as

import merlin_models.tf as ml


def test_parts():
    model = small_model()
    assert isinstance(model[0], ml.ParallelBlock)
    assert isinstance(model[1], ml.MLPBlock)
    assert isinstance(model[-1], ml.BinaryClassificationTask)
    assert len(model) == 3
    assert list(model) == model.blocks
    assert model[0]["categorical"].table("movieId").shape == (41, 8)
    assert isinstance(model[:2], ml.SequentialBlock)
    assert model.select_by_name("MLPBlock") is model[1]
    assert model.select_by_name("nowhere") is None
    assert model.prediction_tasks == [model[-1]]
    assert model.schema.column_names == ["movieId", "userId", "genres"]


def test_last_block_must_be_a_task():
    with pytest.raises(ValueError, match=r"Last block must be able to calculate loss & metrics."):
        ml.Model(ml.InputBlock(SCHEMA), ml.MLPBlock([8]))
    with pytest.raises(ValueError, match="Last block must be able"):
        ml.Model()
    with pytest.raises(TypeError, match=r"must be Keras layers. Received: 'mlp'"):
        ml.Model("mlp", ml.RegressionTask())


def test_built_from_the_schema_alone():
    model = small_model()
    assert model.built
    assert model.count_params() == (41 + 31 + 9) * 8 + 25 * 16 + 17


def test_built_by_the_first_batch_without_a_schema():
    model = ml.Model(ml.MLPBlock([3]), ml.RegressionTask("y"))
    assert not model.built
    model.compile("sgd")
    model.fit(np.ones((4, 2)), np.ones(4), verbose=0)
    assert model.built
    assert model.predict(np.ones((4, 2)), verbose=0).shape == (4, 1)


@pytest.mark.parametrize("form", ["dense", "flat", "int32", "ragged", "pair"])
def test_forms_of_input_agree(form):
    model, (features, _) = small_model(), ratings(16)
    expected = model(features)
    np.testing.assert_allclose(model(with_genres_as(features, form)), expected, rtol=1e-5)


@pytest.mark.parametrize("form", ["dense", "flat", "int32", "ragged"])
@pytest.mark.parametrize("run_eagerly", [False, True])
def test_fit_on_dictionaries(form, run_eagerly):
    features, targets = ratings(64)
    model = small_model()
    model.compile("adam", run_eagerly=run_eagerly)
    data = tf.data.Dataset.from_tensor_slices((with_genres_as(features, form), targets)).batch(32)
    assert set(model.fit(data, verbose=0).history) == LOGS
    if form != "ragged":
        model.fit(with_genres_as(features, form), targets, batch_size=32, verbose=0)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
@pytest.mark.parametrize("wrap", [lambda y: y, lambda y: {"rating_b": y}, lambda y: {TASK: y}])
def test_targets(shape, wrap):
    features, targets = ratings(64)
    model = small_model()
    model.compile("adam")
    expected = model.evaluate(features, targets, verbose=0, return_dict=True)
    logs = model.evaluate(features, wrap(targets.reshape(shape)), verbose=0, return_dict=True)
    assert logs == pytest.approx(expected)


def test_flat_and_column_batches_in_turn():
    features, targets = ratings(64)
    flat = with_genres_as(features, "flat")
    model = small_model()
    model.compile("adam")
    expected = model.evaluate(features, targets, verbose=0, return_dict=True)
    assert model.evaluate(flat, targets[:, None], verbose=0, return_dict=True) == pytest.approx(expected)
    np.testing.assert_array_equal(model.predict(features, verbose=0), model.predict(flat, verbose=0))


def test_loss_and_metrics_against_numpy():
    features, targets = ratings(64)
    model = small_model()
    model.compile("adam")
    logs = model.evaluate(features, targets, batch_size=24, verbose=0, return_dict=True)  # batches of 24, 24, 16
    p = model.predict(features, verbose=0)[:, 0].astype(np.float64)
    assert logs["loss"] == pytest.approx(-np.mean(np.where(targets, np.log(p), np.log(1 - p))), rel=1e-4)
    assert logs[f"{TASK}/binary_accuracy"] == pytest.approx(np.mean((p > 0.5) == targets))


def test_values_as_a_list():
    features, targets = ratings(64)
    model = small_model()
    model.compile("adam")
    logs = model.evaluate(features, targets, verbose=0, return_dict=True)
    values = model.evaluate(features, targets, verbose=0)
    names = ["loss", *[f"{TASK}/{name}" for name in ("precision", "recall", "binary_accuracy", "auc")]]
    assert values == pytest.approx([logs[name] for name in [*names, "regularization_loss", "total_loss"]])


def test_metrics_can_be_reset():
    features, targets = ratings(64)
    model = small_model()
    model.compile("adam")
    model.fit(features, targets, verbose=0)
    assert float(model.get_metrics_result()["loss"]) > 0
    model.reset_metrics()
    assert all(float(value) == 0 for value in model.get_metrics_result().values())


def test_regularization_loss():
    features, targets = ratings(64)
    mlp = ml.MLPBlock([4], kernel_regularizer=keras.regularizers.L2(0.1))
    options = ml.EmbeddingOptions(embedding_dim_default=2, embeddings_l2_reg=0.01)
    model = ml.Model(ml.InputBlock(SCHEMA, embedding_options=options), mlp, ml.BinaryClassificationTask("rating_b"))
    model.compile("adam")
    logs = model.evaluate(features, targets, batch_size=64, verbose=0, return_dict=True)
    kernel = 0.1 * np.sum(np.square(mlp[0].kernel))
    tables = 0.01 * sum(np.sum(np.square(value)) for value in model[0](features).values())
    assert logs["regularization_loss"] == pytest.approx(kernel + tables, rel=1e-5)
    assert logs["total_loss"] == pytest.approx(logs["loss"] + logs["regularization_loss"], rel=1e-5)
    before = np.array(mlp[0].kernel)
    model.fit(features, targets, verbose=0)
    assert not np.array_equal(before, mlp[0].kernel)


def test_sample_weights():
    features, targets = ratings(8)
    half = np.arange(8) < 4
    model = small_model()
    model.compile("adam", metrics=["binary_accuracy"], weighted_metrics=[keras.metrics.BinaryAccuracy(name="weighted")])
    logs = model.evaluate(features, targets, sample_weight=half.astype("float32"), verbose=0, return_dict=True)
    p = model.predict(features, verbose=0)[:, 0]
    entropy = -np.where(targets, np.log(p), np.log(1 - p))
    assert logs["loss"] == pytest.approx(np.sum(entropy * half) / 8, rel=1e-5)
    assert logs[f"{TASK}/binary_accuracy"] == pytest.approx(np.mean((p > 0.5) == targets))
    assert logs[f"{TASK}/weighted"] == pytest.approx(np.mean(((p > 0.5) == targets)[half]))


def test_class_weight_is_taken():
    features, targets = ratings(64)
    model = small_model()
    model.compile(keras.optimizers.SGD(0.0))
    plain = model.fit(features, targets, batch_size=64, verbose=0).history["loss"][0]
    doubled = model.fit(features, targets, batch_size=64, class_weight={0: 2.0, 1: 2.0}, verbose=0).history["loss"][0]
    assert doubled == pytest.approx(2 * plain, rel=1e-5)


def test_given_loss_and_metrics_replace_the_tasks():
    features, targets = ratings(64)
    model = small_model()
    model.compile("adam", loss="mse", metrics={"rating_b": [keras.metrics.AUC(), "mae"]})
    logs = model.evaluate(features, targets, verbose=0, return_dict=True)
    p = model.predict(features, verbose=0)[:, 0]
    assert logs["loss"] == pytest.approx(np.mean((p - targets) ** 2), rel=1e-5)
    assert {name for name in logs if "/" in name} == {f"{TASK}/auc", f"{TASK}/mean_absolute_error"}
    model.compile()
    assert isinstance(model.optimizer.inner_optimizer, keras.optimizers.RMSprop)
    assert f"{TASK}/precision" in model.evaluate(features, targets, verbose=0, return_dict=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"metrics": {"rating": ["auc"]}},
            r"Keys of metrics must be targets or tasks, .*Received: \['rating'\]",
        ),
        ({"loss_weights": {"click": 1.0}}, "Keys of loss_weights must be targets or tasks"),
        ({"metrics": ["auc", keras.metrics.AUC(name="auc")]}, "Names of metrics must be unique"),
        ({"loss": "no such loss"}, "no such loss"),
        (
            {"jit_compile": "autoclustering", "run_eagerly": True},
            "jit_compile must not be 'autoclustering' with run_eagerly",
        ),
    ],
)
def test_wrong_compile(arguments, message):
    with pytest.raises(ValueError, match=message):
        small_model().compile("adam", **arguments)


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_wrong_features(method):
    model, (features, targets) = small_model(), ratings(8)
    model.compile("adam")
    del features["userId"]
    arguments = (features,) if method == "predict" else (features, targets)
    with pytest.raises(
        ValueError,
        match=r"\['genres', 'movieId', 'userId'\]. Received: \['genres', 'movieId'\]; missing: \['userId'\]",
    ):
        getattr(model, method)(*arguments, verbose=0)


def test_wrong_targets():
    model, (features, targets) = small_model(), ratings(8)
    model.compile("adam")
    with pytest.raises(ValueError, match=r"must have the target 'rating_b' .*Received: \['click'\]"):
        model.evaluate(features, {"click": targets}, verbose=0)
    with pytest.raises(ValueError, match=r"must get targets. Received: none"):
        model.evaluate(features, verbose=0)
    with pytest.raises(ValueError, match=r"Received: \(None, 2\)|Received: \(8, 2\)"):
        model.evaluate(features, np.ones((8, 2)), verbose=0)


def test_further_columns_are_ignored():
    model, (features, _) = small_model(), ratings(8)
    np.testing.assert_array_equal(model({**features, "title": np.zeros(8)}), model(features))


def test_single_feature_as_a_bare_tensor():
    model = ml.Model(ml.InputBlock(SCHEMA.select_by_name("userId")), ml.MLPBlock([4]), ml.RegressionTask("rating"))
    ids = np.array([1, 2, 3])
    np.testing.assert_array_equal(model.predict(ids, verbose=0), model.predict({"userId": ids}, verbose=0))


def test_from_block():
    model = ml.Model.from_block(ml.MLPBlock([4]), SCHEMA)
    assert [type(block) for block in model] == [ml.ParallelBlock, ml.MLPBlock, ml.BinaryClassificationTask]
    assert model[-1].target_name == "rating_b"
    given = ml.Model.from_block(ml.InputBlock(SCHEMA), SCHEMA, ml.RegressionTask("rating_b"))
    assert [type(block) for block in given] == [ml.ParallelBlock, ml.RegressionTask]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    keras.utils.set_random_seed(3)
    keras.config.set_dtype_policy(policy)
    try:
        model, (features, targets) = small_model(), ratings()
        model.compile(keras.optimizers.Adam(0.01))
        losses = model.fit(features, targets, batch_size=64, epochs=8, verbose=0).history["loss"]
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.predict(features, verbose=0).dtype == np.float32
    assert keras.backend.standardize_dtype(model[1](model[0](features)).dtype) == policy.removeprefix("mixed_")
    assert losses[-1] < 0.9 * losses[0]


def test_explicit_xla_is_refused_with_a_warning():
    model, (features, targets) = small_model(), ratings(8)
    with pytest.warns(UserWarning, match="Model doesn't support `jit_compile=True`"):
        model.compile("adam", jit_compile=True)
    assert model.jit_compile is False
    model.fit(features, targets, verbose=0)


def test_xla_around_our_ops():
    features, targets = ratings(48)
    models = [small_model(), small_model()]
    models[1].set_weights(models[0].get_weights())
    for model, jit_compile in zip(models, ("auto", "autoclustering"), strict=True):
        model.compile("adagrad", jit_compile=jit_compile)
    logs = [model.fit(features, targets, batch_size=16, shuffle=False, verbose=0).history for model in models]
    assert set(logs[0]) == set(logs[1]) == LOGS
    for name in LOGS:
        np.testing.assert_allclose(logs[1][name], logs[0][name], rtol=1e-5)
    for method in ("predict", "evaluate"):
        arguments = (features,) if method == "predict" else (features, targets)
        one, other = (getattr(model, method)(*arguments, verbose=0) for model in models)
        np.testing.assert_allclose(one, other, rtol=1e-5)
    for model, marked in zip(models, (False, True), strict=True):
        step = tf.function(lambda model=model: model.train_step((features, targets))).get_concrete_function()
        assert any("_XlaCompile" in node.attr for node in step.graph.as_graph_def().node) == marked
    assert models[1].get_compile_config()["jit_compile"] == "autoclustering"
    assert models[0].get_compile_config()["jit_compile"] != "autoclustering"


def test_steps_per_execution():
    features, targets = ratings(64)
    model = small_model()
    model.compile("adam", steps_per_execution=2)
    assert set(model.fit(features, targets, batch_size=16, verbose=0).history) == LOGS


def test_train_on_batch():
    features, targets = ratings(64)
    model = small_model()
    model.compile("adam")
    assert set(model.train_on_batch(features, targets, return_dict=True)) == LOGS
