"""DLRM in Keras: our model, and one of ``keras.layers.Embedding`` and ``keras_rs.layers.DotInteraction``."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from benchmarks.models.dlrm_problem import ADAGRAD_START, EPSILON, LEARNING_RATE, DLRMProblem, Layers, upper_rows
from benchmarks.models.keras_step import KerasStep


class KerasProvider(KerasStep):
    """A step of DLRM with Keras' Adagrad."""

    compile_options: ClassVar[dict[str, Any]] = {}

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        return 3 * 4 * problem.case.dim * sum(problem.rows)

    def compile(self, model: Any) -> None:
        keras = self._keras
        model.compile(
            optimizer=keras.optimizers.Adagrad(LEARNING_RATE, initial_accumulator_value=ADAGRAD_START, epsilon=EPSILON),
            loss=keras.losses.BinaryCrossentropy(),
            metrics=[],
            **self.compile_options,
        )

    def data(self, problem: DLRMProblem) -> tuple[Any, ...]:
        import tensorflow as tf

        x = {f"C{i:02}": tf.identity(tf.constant(ids)) for i, ids in enumerate(problem.ids)}
        x |= {f"I{i:02}": tf.identity(tf.constant(problem.dense[:, i : i + 1])) for i in range(13)}
        return x, tf.constant(problem.labels)


def _fill(tables: list[Any], problem: DLRMProblem) -> None:
    import tensorflow as tf

    block = tf.constant(problem.block)
    for table in tables:
        rows = int(table.shape[0])
        table.assign(tf.tile(block, [-(-rows // len(problem.block)), 1])[:rows])


def _assign(dense_layers: list[Any], layers: Layers) -> None:
    for layer, (kernel, bias) in zip(dense_layers, layers, strict=True):
        layer.kernel.assign(kernel)
        layer.bias.assign(bias)


class Merlin(KerasProvider):
    """``ml.DLRMModel``, compiled with Adagrad: its tables take the row-sparse form of it."""

    name = "merlin_tf"
    requires = ("tensorflow", "merlin_models._C")

    def make_model(self, problem: DLRMProblem) -> Any:
        import merlin_models.tf as ml
        from merlin_models.blocks import EmbeddingOptions

        ids = [
            ml.ColumnSchema.create_categorical(f"C{i:02}", rows - 1, shape=[hot] if hot > 1 else None)
            for i, (rows, hot) in enumerate(zip(problem.rows, problem.hots, strict=True))
        ]
        schema = ml.Schema(ids + [ml.ColumnSchema.create_continuous(f"I{i:02}") for i in range(13)])
        case = problem.case
        model = ml.DLRMModel(
            schema,
            bottom_block=ml.MLPBlock(list(case.bottom)),
            top_block=ml.MLPBlock(list(case.top)),
            embedding_options=EmbeddingOptions(embedding_dim_default=case.dim, combiner="sum"),
            prediction_tasks=ml.BinaryClassificationTask("label"),
        )
        block, task = model.blocks
        _fill(list(block.embeddings.collection.tables.values()), problem)
        _assign(_dense_layers(self._keras, block.bottom_block), problem.bottom)
        kernel, bias = problem.top[0]
        padded = np.zeros(
            (480 if not case.small else -(-(case.dim + problem.pairs) // 8) * 8, kernel.shape[1]), np.float32
        )
        padded[: len(kernel)] = kernel[upper_rows(case.dim)]
        top = [*_dense_layers(self._keras, block.top_block), *_dense_layers(self._keras, task)]
        _assign(top, [(padded, bias), *problem.top[1:]])
        return model


class MerlinClustered(Merlin):
    """The same, with XLA around our ops."""

    name = "merlin_tf_clustered"
    compile_options: ClassVar[dict[str, Any]] = {"jit_compile": "autoclustering"}


class MerlinTwoOps(Merlin):
    """The same with the lookups and their interaction as two ops."""

    name = "merlin_tf_two_ops"

    def make_model(self, problem: DLRMProblem) -> Any:
        model = super().make_model(problem)
        model.blocks[0].interaction.of_lookups = lambda *inputs: None
        return model


def _dense_layers(keras: Any, block: Any) -> list[Any]:
    return [layer for layer in block._flatten_layers() if isinstance(layer, keras.layers.Dense)]


class PlainKeras(KerasProvider):
    """``keras.layers.Embedding``, a sum, ``keras_rs.layers.DotInteraction``, Keras' Adagrad, compiled by XLA."""

    name = "keras"
    requires = ("tensorflow", "keras_rs")
    jit = True
    notes = "visits every row at each step"

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        return 5 * 4 * problem.case.dim * sum(problem.rows)

    def make_model(self, problem: DLRMProblem) -> Any:
        import keras_rs

        layers, ops = self._keras.layers, self._keras.ops
        numbers = {f"I{i:02}": layers.Input((1,), name=f"I{i:02}") for i in range(13)}
        ids = {f"C{i:02}": layers.Input((hot,), name=f"C{i:02}", dtype="int64") for i, hot in enumerate(problem.hots)}
        bottom = [layers.Dense(units, activation="relu") for units in problem.case.bottom]
        top = [layers.Dense(units, activation="relu") for units in problem.case.top]
        top.append(layers.Dense(1, activation="sigmoid"))
        tables = [layers.Embedding(rows, problem.case.dim) for rows in problem.rows]
        x = layers.Concatenate()(list(numbers.values()))
        for layer in bottom:
            x = layer(x)
        vectors = [ops.sum(table(each), axis=1) for table, each in zip(tables, ids.values(), strict=True)]
        y = layers.Concatenate()([x, keras_rs.layers.DotInteraction()([x, *vectors])])
        for layer in top:
            y = layer(y)
        _fill([table.embeddings for table in tables], problem)
        _assign(bottom, problem.bottom)
        _assign(top, problem.top)
        return self._keras.Model({**ids, **numbers}, y)
