"""RowSparse: against Keras' own optimizers, with every kind of gradient."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from row_sparse_data import DIM, ROWS, Dense, Plain, Recorded, assert_same_weights, build, data, fit, on_gpu

from merlin_models import optimizers
from merlin_models.layers import EmbeddingBag, EmbeddingBagCollection, FeatureConfig, TableConfig
from merlin_models.optimizers import RowSparseTraining

pytestmark = pytest.mark.usefixtures("on_device")


@pytest.mark.parametrize("cls", [Recorded, Plain])
@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.SGD(0.1),
        lambda: keras.optimizers.Adagrad(0.1),
        lambda: keras.optimizers.SGD(0.1, weight_decay=0.0),
    ],
)
def test_equals_keras(cls, make):
    """SGD and Adagrad move only rows with a gradient: the same as Keras' over several steps."""
    ours, theirs = build(cls, optimizers.RowSparse(make())), build(Dense, make())
    fit(ours, epochs=2)
    fit(theirs, epochs=2)
    assert_same_weights(ours, theirs)
    assert int(ours.optimizer.iterations) == int(theirs.optimizer.iterations) == 8


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.Adam(0.01),
        lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
        lambda: keras.optimizers.RMSprop(0.01),
        lambda: keras.optimizers.SGD(0.01, momentum=0.9),
        lambda: keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True, weight_decay=0.1),
        lambda: keras.optimizers.Ftrl(0.05, l1_regularization_strength=0.01, l2_regularization_strength=0.1),
    ],
)
def test_equals_keras_where_every_step_touches_every_row(make):
    x, y = data(64)
    x["a"][:, :] = np.arange(64 * 3).reshape(64, 3) % ROWS
    x["c"][:, 0] = np.arange(64) % 5
    models = [build(Recorded, optimizers.RowSparse(make())), build(Dense, make())]
    for model in models:
        model.fit(x, y, batch_size=64, epochs=5, shuffle=False, verbose=0)
    assert_same_weights(*models, tolerance=3e-5)


@pytest.mark.parametrize("cls", [Recorded, Plain])
def test_tables_are_stepped_where_they_are(device, cls):
    model = build(cls, optimizers.RowSparse(keras.optimizers.Adam(0.01, gradient_accumulation_steps=2)))
    fit(model)
    table = model.bag.embeddings
    held = [v for v in model.optimizer.variables if v.shape[:1] == (ROWS,)]  # two moments, gradients, what is touched
    assert len(held) == 4
    assert [on_gpu(variable) for variable in (table, *held)] == [device == "gpu"] * 5


def test_lazy_rows_do_not_move():
    model = build(Recorded, optimizers.RowSparse("adam"))
    before = model.bag.embeddings.numpy()
    x, y = data(64, rows=10)
    model.fit(x, y, batch_size=16, epochs=2, verbose=0)
    after = model.bag.embeddings.numpy()
    assert np.array_equal(before[10:], after[10:])
    assert (before[:10] != after[:10]).any(axis=1).all()
    first, second = model.optimizer.table_state(model.bag.embeddings)
    assert not first.numpy()[10:].any()
    assert second.numpy()[:10].any()


def test_recorded_and_plain_are_equal():
    """The fused step and the one from unique rows, with a rule of its own learning rate."""
    rule = optimizers.RowwiseAdagrad(0.3, clipnorm=0.5, l2=0.01, weight_decay=0.1)
    models = [build(cls, optimizers.RowSparse("adam", rule)) for cls in (Recorded, Plain)]
    for model in models:
        fit(model, epochs=2)
    assert_same_weights(*models, tolerance=2e-6)
    assert float(models[0].optimizer.embedding_learning_rate) == pytest.approx(0.3)


def test_no_gradient_is_computed_for_recorded_tables(monkeypatch):
    model = build(Recorded, optimizers.RowSparse("adam"))
    seen = []
    apply = optimizers.RowSparse.apply

    def spy(self, grads, variables):
        seen.extend(g for g, v in zip(grads, variables, strict=True) if getattr(v, "row_sparse", False))
        apply(self, grads, variables)

    monkeypatch.setattr(optimizers.RowSparse, "apply", spy)
    fit(model, batches=1)
    assert seen
    assert all(grad is None for grad in seen)


def test_tied_weights():
    """A table that is also a matrix of the model gets both gradients in one step."""

    class Tied(RowSparseTraining, keras.Model):
        def __init__(self):
            super().__init__()
            self.bag = EmbeddingBag(ROWS, DIM, combiner="sum")

        def call(self, ids):
            return self.bag(ids) @ keras.ops.transpose(self.bag.embeddings)

    x, _ = data(32)
    models = []
    for optimizer in (optimizers.RowSparse(keras.optimizers.Adagrad(0.1)), keras.optimizers.Adagrad(0.1)):
        keras.utils.set_random_seed(1)
        model = Tied()
        model.compile(optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(x["a"], x["b"][:, 0], batch_size=16, epochs=3, shuffle=False, verbose=0)
        models.append(model)
    assert_same_weights(*models, tolerance=2e-6)


def test_keras_embedding_with_repeated_ids():
    """A marked variable of any layer: the gradient's ids may repeat."""
    models = []
    for wrap in (lambda o: optimizers.RowSparse(o), lambda o: o):
        keras.utils.set_random_seed(1)
        layer = keras.layers.Embedding(ROWS, DIM)
        model = keras.Sequential([layer, keras.layers.Flatten(), keras.layers.Dense(1)])
        model.build((None, 3))
        layer.embeddings.row_sparse = True
        model.compile(wrap(keras.optimizers.SGD(0.1)), loss="mse", jit_compile=False)
        x, y = data(32)
        model.fit(x["a"], y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        models.append(model)
    assert_same_weights(*models)


def test_regularized_and_constrained_tables_are_keras_own():
    """A regularizer is one of all rows, so these tables are trained as Keras does, beside one that is not."""

    class Mixed(RowSparseTraining, keras.Model):
        def __init__(self):
            super().__init__()
            self.free = EmbeddingBag(ROWS, DIM)
            self.held = EmbeddingBag(ROWS, DIM, embeddings_regularizer=keras.regularizers.L2(0.1))
            self.bound = EmbeddingBag(ROWS, DIM, embeddings_constraint=keras.constraints.UnitNorm(axis=1))

        def call(self, ids):
            return keras.ops.sum(self.free(ids) + self.held(ids) + self.bound(ids), axis=-1, keepdims=True)

    models = []
    for optimizer in (optimizers.RowSparse(keras.optimizers.SGD(0.1)), keras.optimizers.SGD(0.1)):
        keras.utils.set_random_seed(1)
        model = Mixed()
        model.compile(optimizer, loss="mse")
        x, y = data(32, rows=10)
        model.fit(x["a"], y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        models.append(model)
    assert_same_weights(*models)
    optimizer = models[0].optimizer
    assert [optimizer.takes(layer.embeddings) for layer in models[0].layers] == [True, False, False]
    with pytest.raises(ValueError, match=r"Table must be one that the optimizer was built with"):
        optimizer.table_state(models[0].held.embeddings)


def test_frozen_table():
    model = build(Recorded, optimizers.RowSparse("sgd"), trainable=False)
    before = model.bag.embeddings.numpy()
    fit(model)
    assert np.array_equal(before, model.bag.embeddings.numpy())


def test_frozen_table_beside_a_trained_one_in_a_collection():
    tables = TableConfig("held", ROWS, DIM, trainable=False), TableConfig("free", ROWS, DIM)
    collection = EmbeddingBagCollection([FeatureConfig("a", tables[0]), FeatureConfig("b", tables[1])], output="concat")

    class Model(RowSparseTraining, keras.Model):
        def __init__(self):
            super().__init__()
            self.collection, self.head = collection, keras.layers.Dense(1)

        def call(self, x):
            return self.head(self.collection(x))

    model = Model()
    model.compile(optimizers.RowSparse("sgd"), loss="mse")
    x, y = data(32)
    held, free = (t.numpy() for t in collection.tables.values())
    model.fit(x, y, batch_size=16, verbose=0)
    assert np.array_equal(held, collection.tables["held"].numpy())
    assert not np.array_equal(free, collection.tables["free"].numpy())


def test_trained_weights_of_ids():
    """Weights of ids that are trained get their gradient while the table is stepped from the lookup."""

    class Weighted(RowSparseTraining, keras.Model):
        def __init__(self):
            super().__init__()
            self.bag = EmbeddingBag(ROWS, DIM, combiner="sum")
            self.weigh = keras.layers.Embedding(ROWS, 1)

        def call(self, ids):
            return keras.ops.sum(self.bag(ids, self.weigh(ids)[..., 0]), axis=-1, keepdims=True)

    models = []
    for optimizer in (optimizers.RowSparse(keras.optimizers.SGD(0.1)), keras.optimizers.SGD(0.1)):
        keras.utils.set_random_seed(1)
        model = Weighted()
        model.compile(optimizer, loss="mse", jit_compile=False)
        x, y = data(32)
        model.fit(x["a"], y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        models.append(model)
    assert_same_weights(*models)
