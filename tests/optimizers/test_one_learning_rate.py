"""One optimizer has one learning rate, for tables and all else, however it is set; a rule given apart has its own."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import merlin_models.tf as ml

SCHEMA = ml.Schema([ml.ColumnSchema.create_categorical("item", 20), ml.ColumnSchema.create_categorical("user", 9)])
RNG = np.random.default_rng(0)
X = {"item": RNG.integers(1, 21, 64), "user": RNG.integers(1, 10, 64)}
Y = RNG.integers(0, 2, 64).astype("float32")
SCHEDULE = keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.05, 0.0])


def compiled(optimizer, run_eagerly=True, **options):
    keras.utils.set_random_seed(1)
    inputs = ml.InputBlock(SCHEMA, embedding_options=ml.EmbeddingOptions(embedding_dim_default=4))
    model = ml.Model(inputs, ml.MLPBlock([4]), ml.BinaryClassificationTask("click"))
    optimizer = optimizer(model) if callable(optimizer) else optimizer
    model.compile(optimizer, run_eagerly=run_eagerly, **options)
    return model


def fit(model, epochs=1, **options):
    return model.fit(X, Y, batch_size=32, epochs=epochs, shuffle=False, verbose=0, **options)


def moved(model, **options):
    """Whether an epoch moves (tables, all else)."""
    tables = [model[0]["categorical"].table(name) for name in X]
    dense = [weight for block in model.blocks[1:] for weight in block.trainable_weights]
    before = [[weight.numpy() for weight in group] for group in (tables, dense)]
    fit(model, **options)
    return tuple(
        any((a != b.numpy()).any() for a, b in zip(old, group, strict=True))
        for old, group in zip(before, (tables, dense), strict=True)
    )


def multi(model):
    return ml.MultiOptimizer([ml.OptimizerBlocks(ml.RowwiseAdagrad(0.05), model[0])], ml.LazyAdam(0.01))


ONE_RATE = {
    "rule": (ml.LazyAdam(0.01), {}),
    "rule without a rate": (ml.RowwiseAdagrad(), {}),
    "keras": ("adam", {}),
    "shared": (keras.optimizers.SGD(0.1), {"embedding_optimizer": ml.RowwiseAdagrad()}),
    "row-sparse": (lambda _: ml.RowSparse(keras.optimizers.SGD(0.1)), {}),
}


@pytest.mark.parametrize("name", ONE_RATE)
def test_setting_the_learning_rate_sets_that_of_tables(name):
    optimizer, options = ONE_RATE[name]
    model = compiled(optimizer, run_eagerly=name != "rule", **options)
    assert moved(model) == (True, True)
    model.optimizer.learning_rate = 0.0  # the graph of "rule" is compiled
    assert moved(model) == (False, False)
    assert float(model.optimizer.embedding_learning_rate) == 0.0
    model.optimizer.learning_rate = 0.02
    assert moved(model) == (True, True)
    with pytest.raises(
        ValueError, match=r"embedding_learning_rate can be set if.*embedding_optimizer=LazyAdam\(0.01\)"
    ):
        model.optimizer.embedding_learning_rate = 0.1


def test_callbacks():
    model = compiled(ml.LazyAdam(0.01))
    stop = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.0 if epoch else rate)
    assert moved(model, callbacks=[stop]) == (True, True)
    assert moved(model, epochs=3, initial_epoch=1, callbacks=[stop]) == (False, False)

    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.1, patience=0, min_delta=9.0)
    model = compiled(ml.LazyAdam(0.01))
    fit(model, epochs=3, callbacks=[plateau])
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-4)
    assert float(model.optimizer.embedding_learning_rate) == pytest.approx(1e-4)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_same_steps_as_keras_form(policy):
    keras.config.set_dtype_policy(policy)
    try:
        models = [compiled(ml.LazyAdam(0.01)), compiled(keras.optimizers.Adam(0.01))]
        for model in models:
            model.optimizer.learning_rate = 0.03
            fit(model, epochs=2)
    finally:
        keras.config.set_dtype_policy("float32")
    for one, other in zip(*(model.weights for model in models), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_schedules():
    model = compiled(ml.LazyAdam(SCHEDULE))
    assert moved(model) == (True, True)
    assert moved(model) == (True, True)  # the step at the boundary
    assert moved(model) == (False, False)
    with pytest.raises(TypeError, match="LearningRateSchedule"):
        model.optimizer.learning_rate = 0.1


@pytest.mark.parametrize("rate", [0.01, SCHEDULE])
def test_a_loaded_model_has_one_rate(tmp_path, rate):
    model = compiled(ml.LazyAdam(rate))
    fit(model)
    if isinstance(rate, float):
        model.optimizer.learning_rate = 0.03
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    again.run_eagerly = True
    for each in (model, again):
        fit(each)
    for one, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    if isinstance(rate, float):
        assert float(again.optimizer.embedding_learning_rate) == pytest.approx(0.03)
        again.optimizer.learning_rate = 0.0
    assert moved(again) == (False, False)


def test_a_rule_given_apart_has_a_rate_of_its_own(tmp_path):
    for optimizer, options in (
        (keras.optimizers.SGD(0.1), {"embedding_optimizer": ml.RowwiseAdagrad(0.05)}),
        (ml.LazyAdam(0.05), {"embedding_optimizer": ml.LazyAdam(0.05)}),
        (lambda _: ml.RowSparse("sgd", ml.RowwiseAdagrad(0.05)), {}),
    ):
        model = compiled(optimizer, **options)
        fit(model)
        model.optimizer.learning_rate = 0.0
        assert moved(model) == (True, False)
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras")
        model.run_eagerly = True
        assert float(model.optimizer.embedding_learning_rate) == pytest.approx(0.05)
        assert moved(model) == (True, False)
        model.optimizer.embedding_learning_rate = 0.0
        assert moved(model) == (False, False)


def test_each_part_of_a_multi_optimizer_has_one_rate():
    model = compiled(multi)
    assert moved(model) == (True, True)
    model.optimizer.learning_rate = 0.0  # of the default part
    assert moved(model) == (True, False)
    model.optimizer.parts[1].learning_rate = 0.0
    assert moved(model) == (False, False)
