"""Two towers in Keras: our model, and the same with ``keras.layers.Embedding`` and the matrix of scores."""

from __future__ import annotations

from typing import Any

from benchmarks.models.keras_step import KerasStep
from benchmarks.models.two_tower_problem import (
    ITEM,
    LEARNING_RATE,
    LONGEST,
    QUERY,
    TEMPERATURE,
    TwoTowerProblem,
)

K = 10


class KerasProvider(KerasStep):
    """A step of two towers, metrics included."""

    def memory_bytes(self, problem: TwoTowerProblem, device: str, mode: str, optimizer: str) -> int:
        return 8 * problem.batch**2 + 16 * sum(table.nbytes for table in problem.tables.values())

    def data(self, problem: TwoTowerProblem) -> tuple[Any, ...]:
        import tensorflow as tf

        return ({name: tf.identity(tf.constant(ids)) for name, ids in problem.features.items()},)


class Merlin(KerasProvider):
    """``ml.TwoTowerModel``, compiled with Adam: its tables take the row-sparse form of it."""

    name = "merlin_tf"
    requires = ("tensorflow", "merlin_models._C")
    jit_compile: bool | str = "auto"

    def make_model(self, problem: TwoTowerProblem) -> Any:
        import merlin_models.tf as ml

        def column(name: str, rows: int, tag: str) -> Any:
            tags = {"userId": [ml.Tags.USER_ID], "movieId": [ml.Tags.ITEM_ID]}.get(name, [tag])
            listed = {"value_count": (0, LONGEST)} if name == "genres" else {}
            return ml.ColumnSchema.create_categorical(name, rows - 1, tags=tags, **listed)

        columns = [column(*each, "user") for each in QUERY.items()] + [column(*each, "item") for each in ITEM.items()]
        case = problem.case
        model = ml.TwoTowerModel(
            ml.Schema(columns),
            query_tower=ml.MLPBlock(list(case.layers)),
            embedding_options=ml.EmbeddingOptions(embedding_dim_default=case.dim),
            metrics=[ml.RecallAt(K), ml.MRRAt(K), ml.NDCGAt(K)],
            logits_temperature=TEMPERATURE,
        )
        for tower, kernels in problem.towers.items():
            inputs, mlp = model.blocks[0][tower].layers
            for name, table in inputs["categorical"].collection.tables.items():
                table.assign(problem.tables[name])
            for layer, kernel in zip(mlp.layers, kernels, strict=True):
                layer.kernel.assign(kernel)
        model.compile(optimizer=self._keras.optimizers.Adam(LEARNING_RATE), jit_compile=self.jit_compile)
        return model


class MerlinClustered(Merlin):
    """The same, with XLA around our ops."""

    name = "merlin_tf_clustered"
    jit_compile = "autoclustering"


class PlainKeras(KerasProvider):
    """``keras.layers.Embedding`` and Dense, scores as a matrix with accidental hits masked, Keras' Adam."""

    name = "keras"
    requires = ("tensorflow",)
    notes = "visits every row at each step"

    def make_model(self, problem: TwoTowerProblem) -> Any:
        keras = self._keras
        layers, ops = keras.layers, keras.ops

        class TwoTowers(keras.Model):
            def compute_loss(
                self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None, training: bool = True
            ) -> Any:
                scores = ops.matmul(y_pred["query"], ops.transpose(y_pred["item"])) / TEMPERATURE
                ids = ops.reshape(x["movieId"], (-1,))
                rows = ops.arange(ops.shape(ids)[0])
                hits = (ops.expand_dims(ids, 1) == ids) & (ops.expand_dims(rows, 1) != rows)
                scores = ops.where(hits, -1e9, scores)
                own = ops.diagonal(scores)
                rank = ops.cast(ops.sum(ops.cast(scores > ops.expand_dims(own, 1), "int32"), axis=1), "float32")
                found = ops.cast(rank < K, "float32")
                for metric, value in zip(self.ranking, (1.0, 1 / (rank + 1), 1 / ops.log2(rank + 2)), strict=True):
                    metric.update_state(found * value)
                return ops.sum(ops.logsumexp(scores, axis=1) - own)

            def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
                return self.get_metrics_result()

        inputs = {name: layers.Input((1,), name=name, dtype="int64") for name in (*QUERY, *ITEM) if name != "genres"}
        inputs["genres"] = layers.Input((LONGEST,), name="genres", dtype="int64")
        outputs, dense = {}, []
        tables = {name: layers.Embedding(len(table), table.shape[1]) for name, table in problem.tables.items()}
        for tower, names in (("query", QUERY), ("item", ITEM)):
            pooled = []
            for name in sorted(names):
                rows = tables[name](inputs[name])
                if name == "genres":
                    present = ops.cast(ops.expand_dims(inputs[name] > 0, -1), "float32")
                    pooled.append(ops.sum(rows * present, axis=1) / ops.maximum(ops.sum(present, axis=1), 1.0))
                else:
                    pooled.append(ops.squeeze(rows, 1))
            x = layers.Concatenate()(pooled)
            for kernel in problem.towers[tower]:
                dense.append((layers.Dense(kernel.shape[1], activation="relu"), kernel))
                x = dense[-1][0](x)
            outputs[tower] = ops.normalize(x, axis=-1)
        model = TwoTowers(inputs, outputs)
        model.ranking = [keras.metrics.Mean(name=f"{name}_at_{K}") for name in ("recall", "mrr", "ndcg")]
        for name, table in tables.items():
            table.embeddings.assign(problem.tables[name])
        for layer, kernel in dense:
            layer.kernel.assign(kernel)
        model.compile(optimizer=keras.optimizers.Adam(LEARNING_RATE), jit_compile=False)
        return model


class PlainKerasXLA(PlainKeras):
    """The same, compiled by XLA."""

    name = "keras_xla"
    jit = True
