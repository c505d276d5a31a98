"""Keras 3 as a user writes it: ``keras.layers.Embedding`` with a reduction, or keras-rs' layer; Keras' own optimizers."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.ops.embedding_bag_problem import (
    ADAGRAD_START,
    BETA1,
    BETA2,
    EPSILON,
    LEARNING_RATE,
)
from benchmarks.ops.peers_tensorflow import TensorFlowProvider
from benchmarks.ops.peers_torch import optimizer_state_factor


class KerasEmbedding(TensorFlowProvider):
    """The step of ``keras.Model.train_step`` without a loss: tape, gradient, ``optimizer.apply``."""

    name = "keras"
    requires = ("tensorflow", "keras")
    squares_ids_apart = True
    notes = "visits every row; adds the squared gradients of each id instead of squaring their sum"

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        if case.ragged or case.ids == "movielens":
            return "keras.layers.Embedding takes dense ids only"
        if optimizer == "rowwise_adagrad":
            return "Keras has no row-wise Adagrad"
        if optimizer == "adam" and case.dtype == "bfloat16":
            return "its beta_2 of 0.999 becomes 1 in bfloat16: nothing would be learned"
        largest = max((rows * dim for rows, dim in zip(case.rows, case.dims, strict=True)), default=0)
        if device == "cuda" and optimizer == "adagrad" and largest > 2**31:
            return "its scatter, TensorFlow's, counts elements in 32 bits on a GPU, and ends the process"
        return ""

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        # Its Adagrad and Adam make dense temporaries of the tables' size (1.5 times that was seen).
        dense = 0 if optimizer in ("", "sgd") else 3
        return problem.table_bytes * (1 + optimizer_state_factor(optimizer) + dense)

    def make_tables(self, problem: Any) -> list[Any]:
        import keras

        self._keras = keras
        self._layers = []
        for rows, dim in zip(problem.rows, problem.dims, strict=True):
            layer = self.make_layer(rows, dim, embeddings_initializer=self.random_table, dtype=problem.dtype)
            self._layers.append(layer)
        return [layer.embeddings.value for layer in self._layers]

    def make_layer(self, rows: int, dim: int, **options: Any) -> Any:
        layer = self._keras.layers.Embedding(rows, dim, **options)
        layer.build()
        return layer

    def setup(self, problem: Any, device: str, mode: str, optimizer: str) -> None:
        super().setup(problem, device, mode, optimizer)
        self._sets = [
            [
                self._tf.identity(self._tf.reshape(values, [problem.batch, hot]))
                for (values, _), hot in zip(bags, problem.hots, strict=True)
            ]
            for bags in self._sets
        ]

    def make_optimizer(self, optimizer: str) -> None:
        optimizers = self._keras.optimizers
        if optimizer == "sgd":
            self._optimizer = optimizers.SGD(LEARNING_RATE)
        elif optimizer == "adagrad":
            self._optimizer = optimizers.Adagrad(
                LEARNING_RATE, initial_accumulator_value=ADAGRAD_START, epsilon=EPSILON
            )
        else:
            self._optimizer = optimizers.Adam(LEARNING_RATE, beta_1=BETA1, beta_2=BETA2, epsilon=EPSILON)
        self._optimizer.build([layer.embeddings for layer in self._layers])

    def pool(self, bags):
        ops = self._keras.ops
        reduce = {"sum": ops.sum, "mean": ops.mean}[self._problem.combiner]
        return [reduce(layer(ids), axis=1) for layer, ids in zip(self._layers, bags, strict=True)]

    def read_rows(self, t: int, ids: np.ndarray) -> np.ndarray:
        # A gather from the variable would put it into copy-on-read: Keras' forward reads the variable first,
        # and would copy the whole table from then on.
        tf, table = self._tf, self._tables[t]
        rows = tf.gather(tf.raw_ops.ReadVariableOp(resource=table.handle, dtype=table.dtype), ids)
        return tf.cast(rows, "float32").numpy()

    def train_step(self, bags, grads):
        outputs, gradients = self.pool_and_gradients(bags, grads)
        self._optimizer.apply(gradients, [layer.embeddings for layer in self._layers])
        return outputs


class KerasRsEmbedReduce(KerasEmbedding):
    """``keras_rs.layers.EmbedReduce``."""

    name = "keras_rs"
    requires = ("tensorflow", "keras", "keras_rs")

    def make_layer(self, rows: int, dim: int, **options: Any) -> Any:
        import keras_rs

        layer = keras_rs.layers.EmbedReduce(rows, dim, combiner=self._problem.combiner, **options)
        layer.build((self._problem.batch, 1))
        return layer

    def pool(self, bags):
        return [layer(ids) for layer, ids in zip(self._layers, bags, strict=True)]
