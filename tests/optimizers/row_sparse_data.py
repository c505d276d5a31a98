"""Models with embedding tables that tests of RowSparse train, by rows and as Keras does."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from merlin_models.layers import EmbeddingBag
from merlin_models.optimizers import RowSparseTraining

ROWS, DIM = 30, 8


class Recorded(RowSparseTraining, keras.Model):
    """Two lookups of one layer, and another layer, into a dense head."""

    def __init__(self, dtype: str | None = None, trainable: bool = True):
        super().__init__()
        self.bag = EmbeddingBag(ROWS, DIM, combiner="sum", dtype=dtype, trainable=trainable)
        self.other = EmbeddingBag(5, 3, combiner="mean", dtype=dtype)
        self.head = keras.layers.Dense(1, dtype=dtype)

    def call(self, x):
        parts = [self.bag(x["a"]), self.bag(x["b"]), self.other(x["c"])]
        return keras.ops.cast(self.head(keras.ops.concatenate(parts, axis=-1)), "float32")


class Plain(keras.Model):
    """The same model, trained by Keras."""

    def __init__(self, **kwargs):
        super().__init__()
        self.bag = EmbeddingBag(ROWS, DIM, combiner="sum", **kwargs)
        self.other = EmbeddingBag(5, 3, combiner="mean")
        self.head = keras.layers.Dense(1)

    call = Recorded.call


class Dense(Plain):
    """The same with dense gradients: of several ids of a row Keras' Adagrad and Adam square each part by itself."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        grads = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply([tf.convert_to_tensor(g) for g in grads], self.trainable_variables)
        return {"loss": loss}


def data(examples: int = 32, rows: int = ROWS, seed: int = 0):
    rng = np.random.default_rng(seed)
    x = {"a": rng.integers(0, rows, (examples, 3)), "b": rng.integers(0, rows, (examples, 1))}
    x["c"] = rng.integers(0, 5, (examples, 2))
    return x, rng.normal(size=(examples, 1)).astype(np.float32)


def build(cls, optimizer, seed: int = 3, **kwargs):
    keras.utils.set_random_seed(seed)
    model = cls(**kwargs)
    x, _ = data(2)
    model(x)
    model.compile(optimizer, loss="mse", **({"jit_compile": False}))
    return model


def fit(model, batches: int = 4, epochs: int = 1, **kwargs):
    x, y = data(16 * batches)
    return model.fit(x, y, batch_size=16, epochs=epochs, shuffle=False, verbose=0, **kwargs)


def on_gpu(variable) -> bool:
    return "GPU" in variable.value.device


def assert_same_weights(a, b, tolerance=1e-6):
    """On a GPU ten times the tolerance: the order of Keras' sums changes from run to run there."""
    tolerance *= 10 if on_gpu(a.weights[0]) else 1
    for one, other in zip(a.weights, b.weights, strict=True):
        difference = np.abs(one.numpy().astype(np.float64) - other.numpy().astype(np.float64)).max()
        assert difference <= tolerance, f"{one.path}: {difference}"
