"""RowSparse in every way that Keras trains: accumulation, precision, rates, schedules, loops, recomputation."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from row_sparse_data import DIM, ROWS, Dense, Plain, Recorded, assert_same_weights, build, data, fit

from merlin_models import optimizers
from merlin_models.layers import EmbeddingBag
from merlin_models.optimizers import RowSparseTraining

on_device = pytest.mark.usefixtures("on_device")


@on_device
@pytest.mark.parametrize("cls", [Recorded, Plain])
@pytest.mark.parametrize(
    "make", [lambda **k: keras.optimizers.SGD(0.1, **k), lambda **k: keras.optimizers.Adagrad(0.1, **k)]
)
def test_gradient_accumulation(device, cls, make):
    """N small batches are one large one; and the same as Keras' own accumulation."""
    ours = build(cls, optimizers.RowSparse(make(gradient_accumulation_steps=4)))
    theirs = build(Dense, make(gradient_accumulation_steps=4))
    large = build(Dense, make())
    x, y = data(128)
    for model, size in ((ours, 16), (theirs, 16), (large, 64)):
        model.fit(x, y, batch_size=size, shuffle=False, verbose=0)
    assert_same_weights(ours, theirs, tolerance=2e-6)
    assert_same_weights(ours, large, tolerance=2e-6)
    assert int(ours.optimizer.iterations) == 2
    fit(ours, batches=3)  # not a whole number of steps: nothing moves after the last whole one
    assert_weights = [w.numpy() for w in large.weights]
    tolerance = 2e-6 if device == "cpu" else 2e-5
    assert all(np.abs(a.numpy() - b).max() < tolerance for a, b in zip(ours.weights, assert_weights, strict=True))


@on_device
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    """Under mixed_float16 Keras wraps the optimizer in one that scales the loss, and skips steps that overflow."""
    model = build(Recorded, optimizers.RowSparse(keras.optimizers.SGD(0.05)), dtype=policy)
    if policy == "mixed_float16":
        model.compile(keras.optimizers.LossScaleOptimizer(optimizers.RowSparse(keras.optimizers.SGD(0.05))), loss="mse")
    plain = build(Plain, keras.optimizers.SGD(0.05))
    fit(model, epochs=2)
    fit(plain, epochs=2)
    assert_same_weights(model, plain, tolerance=0.02 if policy == "mixed_float16" else 0.1)
    if policy == "mixed_float16":
        before = [w.numpy() for w in model.weights]
        x, _ = data(16)
        model.fit(x, np.full((16, 1), np.inf, np.float32), verbose=0)
        assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, model.weights, strict=True))


@on_device
def test_loss_scale_factor():
    models = [
        build(Recorded, optimizers.RowSparse(keras.optimizers.Adagrad(0.1, loss_scale_factor=f))) for f in (None, 64.0)
    ]
    for model in models:
        fit(model)
    assert_same_weights(*models)


@on_device
def test_learning_rates():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.1, 0.0])
    model = build(Recorded, optimizers.RowSparse(keras.optimizers.SGD(schedule)))
    fit(model, batches=2)
    before = [w.numpy() for w in model.weights]
    fit(model, batches=2)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, model.weights, strict=True))

    model = build(Recorded, optimizers.RowSparse(keras.optimizers.SGD(0.1)))
    stop = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.0 if epoch else rate)
    fit(model, epochs=1, callbacks=[stop])
    before = [w.numpy() for w in model.weights]
    fit(model, epochs=2, initial_epoch=1, callbacks=[stop])
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, model.weights, strict=True))
    assert float(model.optimizer.learning_rate) == 0.0

    model = build(Recorded, optimizers.RowSparse(keras.optimizers.SGD(0.1), optimizers.SGD(0.1)))
    fit(model)
    model.optimizer.embedding_learning_rate = 0.0
    table, kernel = model.bag.embeddings.numpy(), model.head.kernel.numpy()
    fit(model)
    assert np.array_equal(table, model.bag.embeddings.numpy())
    assert not np.array_equal(kernel, model.head.kernel.numpy())
    own = build(Recorded, optimizers.RowSparse("sgd", optimizers.SGD(schedule)))
    fit(own, batches=2)
    table = own.bag.embeddings.numpy()
    fit(own, batches=2)
    assert np.array_equal(table, own.bag.embeddings.numpy())
    with pytest.raises(ValueError, match=r"embedding_learning_rate can be set if"):
        own.optimizer.embedding_learning_rate = 1.0


@on_device
@pytest.mark.parametrize("how", [{"run_eagerly": True}, {"steps_per_execution": 2}])
def test_ways_to_run(how):
    models = [build(Recorded, optimizers.RowSparse("adam")) for _ in range(2)]
    models[1].compile(optimizers.RowSparse("adam"), loss="mse", **how)
    for model in models:
        fit(model)
    assert_same_weights(*models)


@on_device
def test_only_tables():
    """A model of nothing but a table: the step counts all the same."""

    class Only(RowSparseTraining, keras.Model):
        def __init__(self):
            super().__init__()
            self.bag = EmbeddingBag(ROWS, 1)

        def call(self, ids):
            return self.bag(ids)

    model = Only()
    model.compile(optimizers.RowSparse("adam"), loss="mse")
    x, y = data(32)
    model.fit(x["a"], y, batch_size=16, verbose=0)
    assert int(model.optimizer.iterations) == 2


@on_device
def test_custom_loop_in_eager_execution():
    bag = EmbeddingBag(ROWS, DIM, combiner="sum")
    bag.build()
    optimizer = optimizers.RowSparse(keras.optimizers.SGD(1.0))
    before = bag.embeddings.numpy()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(bag(np.array([[1, 1, 2]])))
    grads = tape.gradient(loss, bag.trainable_variables)
    optimizer.apply_gradients(zip(grads, bag.trainable_variables, strict=True))
    change = before - bag.embeddings.numpy()
    assert np.allclose(change[1], 2.0)
    assert np.allclose(change[2], 1.0)
    assert not change[3:].any()


@on_device
@pytest.mark.parametrize("noisy", [False, True])
def test_stochastic_rounding_of_half_tables(noisy):
    """Steps of a quarter of a unit in the last place are lost in rounding to nearest."""
    bag = EmbeddingBag(ROWS, DIM, combiner="sum", embeddings_initializer="ones", embeddings_dtype="bfloat16")
    bag.build()
    optimizer = optimizers.RowSparse("sgd", optimizers.SGD(2.0**-10, stochastic_rounding=noisy))
    ids = np.arange(ROWS)[:, None]
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(bag(ids))
        optimizer.apply(tape.gradient(loss, bag.trainable_variables), bag.trainable_variables)
    moved = (keras.ops.convert_to_numpy(bag.embeddings).astype(np.float32) < 1.0).mean()
    assert 0.4 < moved < 0.75 if noisy else moved == 0  # 1 - (3 / 4) ** 3 = 0.58; below 1 the units are half as large


def test_distribution_is_refused():
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        optimizer, variable = optimizers.RowSparse("sgd"), keras.Variable(np.zeros(3, np.float32))
        with pytest.raises(NotImplementedError, match=r"RowSparse must run on one device.*Received: MirroredStrategy"):
            optimizer.apply([tf.zeros(3)], [variable])


def test_config_round_trip():
    optimizer = optimizers.RowSparse(keras.optimizers.Adam(0.02), optimizers.RowwiseAdagrad(0.3), name="mine")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert again.get_config() == optimizer.get_config()
    assert isinstance(again.embeddings, optimizers.RowwiseAdagrad)
    derived = optimizers.RowSparse.from_config(optimizers.RowSparse("adagrad").get_config())
    assert isinstance(derived.embeddings, optimizers.Adagrad)


@on_device
@pytest.mark.parametrize("way", ["keras.RematScope", "tf.recompute_grad"])
@pytest.mark.parametrize("eager", [False, True])
def test_recomputed_lookups_train_as_others(way, eager):
    class Recomputed(RowSparseTraining, keras.Model):
        def __init__(self, recompute):
            super().__init__()
            self.bag, self.head = EmbeddingBag(ROWS, DIM, combiner="sum"), keras.layers.Dense(1)
            self.recompute = recompute

        def call(self, ids):
            look_up = tf.recompute_grad(self.bag) if self.recompute else self.bag
            return self.head(look_up(ids))

    def trained(recompute):
        keras.utils.set_random_seed(3)
        model = Recomputed(recompute and way == "tf.recompute_grad")
        x, y = data()
        model(x["a"])
        model.compile(optimizers.RowSparse("adagrad"), loss="mse", run_eagerly=eager)
        before = model.bag.embeddings.numpy()
        model.fit(x["a"], y, batch_size=8, shuffle=False, verbose=0)
        return model.bag.embeddings.numpy(), before

    expected, _ = trained(False)
    with keras.RematScope(mode="full" if way == "keras.RematScope" else None):
        after, before = trained(True)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)


def test_moving_averages_are_of_what_keras_trains():
    x, y = data()
    model = Recorded()
    inner = keras.optimizers.Adam(use_ema=True, ema_momentum=0.5)
    model.compile(optimizers.RowSparse(inner, embeddings=optimizers.Adagrad(0.1)), loss="mse")
    model.fit(x, y, batch_size=8, epochs=2, verbose=0)  # Keras puts the averages in place at its end
    averages = [v for v in inner.variables if "average" in v.path]
    assert len(averages) == 2  # the head's
    for variable, average in zip(model.head.trainable_variables, averages, strict=True):
        np.testing.assert_array_equal(variable.numpy(), average.numpy())


@on_device
def test_what_gets_no_gradient():
    class Partly(Recorded):
        used = "table"

        def call(self, x):
            table, other = self.bag(x["a"]), self.other(x["c"])
            outputs = {"table": keras.ops.mean(table, axis=-1, keepdims=True), "head": self.head(other), "none": x["a"]}
            return keras.ops.cast(outputs[self.used], "float32")[:, :1]

    x, y = data()

    def fit(used, **kwargs):
        model = Partly()
        model.used = used
        model.other(x["c"]), model.head.build((None, 3))
        model.compile(optimizers.RowSparse("sgd"), loss="mse")
        model.fit(x, y, batch_size=len(y), verbose=0)
        return model

    with pytest.warns(UserWarning, match=r"Gradients do not exist for tables \['.*embedding_bag.*'\]"):
        model = fit("table")
    assert int(model.optimizer.iterations) == 1
    with pytest.warns(UserWarning, match="Gradients do not exist for tables"):
        fit("head")
    with pytest.raises(ValueError, match="No gradients provided for any variable"):
        fit("none")


def test_warnings_name_the_callers_line():
    with pytest.warns(UserWarning, match="Lion is none of") as caught:
        optimizers.RowSparse("lion")
    with pytest.warns(UserWarning, match="Lion is none of") as caught_inside:
        optimizers.with_row_sparse("lion")
    assert {warning.filename for warning in [*caught, *caught_inside]} == {__file__}
