"""Model: blocks one after the other, the last of which predicts."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import keras
from keras import ops

from merlin_models.blocks.base import register, with_own_arguments
from merlin_models.blocks.combinators import SequentialBlock, features_of, run_in_sequence
from merlin_models.blocks.inputs import InputBlock
from merlin_models.blocks.positions import rows_of, split_positions, target_rows
from merlin_models.blocks.sharing import marking_shared_layers, reading_marks
from merlin_models.blocks.symbolic import SymbolicBuild, shapes_of_schema
from merlin_models.layers import EmbeddingBag, EmbeddingBagCollection
from merlin_models.models.batch_prediction import batch_predict
from merlin_models.models.exporting import Exportable
from merlin_models.models.freezing import Freezing
from merlin_models.models.objective import Objective
from merlin_models.models.optimizer_state import build_for_state, places_of_state
from merlin_models.models.saving import SavedWithSchemas
from merlin_models.models.steps import PreparedSteps
from merlin_models.ops.clustering import clustering
from merlin_models.optimizers import (
    EmbeddingOptimizer,
    MultiOptimizer,
    RowSparseTraining,
    row_sparse_of,
    with_row_sparse,
)
from merlin_models.optimizers.devices import check_one_device
from merlin_models.schema import Schema
from merlin_models.tasks import ParallelPredictionBlock, PredictionTask, computing_loss, tasks_of, with_weights_of


@register
class Model(SavedWithSchemas, Exportable, Freezing, PreparedSteps, RowSparseTraining, SymbolicBuild, keras.Model):
    """A recommender: blocks one after the other, the last of which is a prediction task or several.

    A model whose first block has a schema is built at once; others are built by their first batch.

    Args:
        *blocks: Keras layers and blocks. Several tasks at the end become one ``ParallelPredictionBlock``.

    Call arguments:
        inputs: dictionary feature -> tensor; others than the model's features are ignored.

    Returns:
        Predictions (batch, 1) of the only task, or a dictionary task name -> predictions. Where the blocks before the tasks
        return ragged sequences (batch, None, dim), predictions are ragged, too; where a transform of sequences selects
        positions, they have one row for each.

    Raises:
        ValueError: if the last block is no task; when called without all features.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> from merlin_models.schema import ColumnSchema, Schema
        >>> schema = Schema([ColumnSchema.create_categorical("movieId", 1000)])
        >>> task = ml.BinaryClassificationTask("rating_b")
        >>> model = ml.Model(ml.InputBlock(schema), ml.MLPBlock([64, 32]), task)
        >>> model.compile(optimizer="adam")
        >>> _ = model.fit({"movieId": np.array([1, 2])}, np.array([0, 1]), verbose=0)
        >>> model.predict({"movieId": np.array([1, 2])}, verbose=0).shape
        (2, 1)
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__new__(cls, *args, **kwargs)
        made.__dict__["_constructed_with"] = args, kwargs  # for the configs of subclasses; not tracked
        return made

    def __init__(self, *blocks: keras.layers.Layer, name: str | None = None, **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self._objective: Objective | None = None
        self._dense_tables = False
        self._clustered = False
        self._prepare_steps()
        self._prepare_freezing()
        self.blocks = _with_tasks(blocks)
        shapes = None if self.schema is None else shapes_of_schema(self.schema)
        if shapes is not None:
            self.build(shapes)

    @classmethod
    def from_block(
        cls, block: keras.layers.Layer, schema: Schema, prediction_tasks: Any = None, **kwargs: Any
    ) -> Model:
        """A model of an input block for the schema, a body, and tasks.

        Args:
            block: the body. Gets the ``InputBlock`` of the schema before it, unless it is an input block
                itself.
            schema: of the data set.
            prediction_tasks: a task, several or a ``ParallelPredictionBlock``; one a target of the schema if
                None.
        """
        if prediction_tasks is None:
            prediction_tasks = ParallelPredictionBlock.from_schema(schema).tasks
        tasks = list(prediction_tasks) if isinstance(prediction_tasks, list | tuple) else [prediction_tasks]
        body = [block] if getattr(block, "is_input", False) else [InputBlock(schema), block]
        return cls(*body, *tasks, **kwargs)

    # ---- its parts ----

    @property
    def schema(self) -> Schema | None:
        """The features that the model reads, or None if its first block has no schema."""
        return getattr(self.blocks[0], "schema", None)

    @property
    def prediction_tasks(self) -> list[PredictionTask]:
        """The tasks at the end, in their order."""
        return tasks_of(self.blocks[-1])

    def __getitem__(self, key: int | slice) -> Any:
        """A block, or for a slice a SequentialBlock on the same blocks."""
        picked = list(self.blocks)[key]
        return SequentialBlock(picked) if isinstance(key, slice) else picked

    def __len__(self) -> int:
        return len(self.blocks)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[keras.layers.Layer]:
        return iter(list(self.blocks))

    def select_by_name(self, name: str) -> keras.layers.Layer | None:
        """The first block or layer of that name, or None."""
        for layer in self._flatten_layers(include_self=False):
            if name in (layer.name, getattr(layer, "block_name", None)):
                return layer
        return None

    # ---- running ----

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        # Keras hands `training` to the sublayers.
        inputs, positions = split_positions(inputs)
        schema = self.schema
        if schema is not None:
            inputs = features_of(inputs, schema, "model")
        *body, tasks = self.blocks
        with positions.active():
            outputs = run_in_sequence(body, inputs, self.compute_dtype)
        predictions = run_in_sequence([tasks], positions.rows(outputs), self.compute_dtype)
        return positions.sequences(predictions, outputs)

    # ---- training ----

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Mapping[str, float] | Sequence[float] | None = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | Literal["auto", "autoclustering"] = "auto",
        auto_scale_loss: bool = True,
        embedding_optimizer: str | EmbeddingOptimizer = "auto",
    ) -> None:
        """Prepares for training, with the losses and metrics of the tasks unless others are given.

        Args:
            optimizer: a Keras optimizer or its name; a :class:`MultiOptimizer`; or an ``EmbeddingOptimizer`` such as
                ``LazyAdam(0.01)``, with its Keras form for what is no table: setting its learning rate sets both.
            run_eagerly, steps_per_execution, auto_scale_loss: as in ``keras.Model.compile``.
            jit_compile: as there. With "auto", a model with embedding tables of this library is not compiled by XLA, which
                does not know its ops. With "autoclustering" XLA compiles what lies around them, such as dense layers and
                their optimizer, in training, evaluation and prediction: on a GPU steps take fewer launches. Shapes that
                change often are left to TensorFlow.
            loss: a Keras loss for all tasks, a list in the order of the tasks, or a dictionary by target or task name.
            loss_weights: dictionary by target or task name, or a list in the order of the tasks. These come before the
                ``task_weights`` of a ``ParallelPredictionBlock``; the loss is the weighted sum over the tasks.
            metrics, weighted_metrics: a list for all tasks, a list of lists in the order of the tasks, or a dictionary of
                lists by target or task name.
                Sample weights apply to the weighted ones only.
            embedding_optimizer: how embedding tables are trained. "auto": by the row-sparse form of ``optimizer``,
                which moves the rows that a batch touches and no others, see
                :class:`merlin_models.optimizers.RowSparse`. An ``EmbeddingOptimizer``, such as
                ``RowwiseAdagrad(0.01)``: by that one, at that learning rate of its own. "dense": by ``optimizer`` itself,
                all rows at each step.

        Raises:
            ValueError: for another embedding_optimizer, or one that contradicts an ``optimizer`` that is a RowSparse; for
                "autoclustering" with ``run_eagerly``, or on another backend than TensorFlow.
            NotImplementedError: under a ``tf.distribute`` strategy other than ``OneDeviceStrategy``.
        """
        check_one_device("A Model", self.distribute_strategy)
        clustered = jit_compile == "autoclustering"
        if clustered and (run_eagerly or keras.backend.backend() != "tensorflow"):
            raise ValueError(
                "jit_compile must not be 'autoclustering' with run_eagerly=True, and needs Keras' TensorFlow backend. "
                f"Received: run_eagerly={run_eagerly}, backend {keras.backend.backend()}"
            )
        rule = embedding_optimizer if isinstance(embedding_optimizer, EmbeddingOptimizer) else None
        if rule is None and embedding_optimizer not in ("auto", "dense"):
            raise ValueError(
                "embedding_optimizer must be 'auto', 'dense' or an EmbeddingOptimizer. "
                f"Received: {embedding_optimizer!r}"
            )
        if embedding_optimizer == "dense":
            optimizer = keras.optimizers.get(optimizer)
            if row_sparse_of(optimizer) is not None:
                raise ValueError(
                    "embedding_optimizer must not be 'dense' where the optimizer is a RowSparse or a MultiOptimizer."
                )
        elif self._has_tables() or isinstance(optimizer, EmbeddingOptimizer):
            optimizer = with_row_sparse(optimizer, rule)
        loss_weights = with_weights_of(self.blocks[-1], loss_weights)
        objective = Objective(self.prediction_tasks, loss, loss_weights, metrics, weighted_metrics, self.schema)
        super().compile(
            optimizer=optimizer,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=False if clustered else jit_compile,
            auto_scale_loss=auto_scale_loss,
        )
        self._objective = objective
        self._clustered = clustered
        self._dense_tables = embedding_optimizer == "dense"

    def _has_tables(self) -> bool:
        layers = self._flatten_layers(include_self=False)
        return any(isinstance(layer, EmbeddingBag | EmbeddingBagCollection) for layer in layers)

    def train_step(self, data: Any) -> dict[str, Any]:
        with computing_loss(), clustering(self._clustered):
            return super().train_step(data)

    def test_step(self, data: Any) -> dict[str, Any]:
        with computing_loss(), clustering(self._clustered):
            return super().test_step(data)

    def predict_step(self, data: Any) -> Any:
        with clustering(self._clustered):
            return super().predict_step(data)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The weighted sum of the tasks' losses, and the regularization losses."""
        y = target_rows(y, x, y_pred)
        y_pred, sample_weight = rows_of((y_pred, sample_weight))
        regularization = ops.zeros((), dtype=keras.config.floatx())
        for loss in self.losses:
            loss = ops.sum(ops.cast(loss, keras.config.floatx()))
            regularization = regularization + self._aggregate_additional_loss(loss)
        sample_weight = self._objective.sample_weights(x, y, sample_weight)
        return self._objective.compute_loss(x, y, y_pred, sample_weight, regularization, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        y = target_rows(y, x, y_pred)
        y_pred, sample_weight = rows_of((y_pred, sample_weight))
        sample_weight = self._objective.sample_weights(x, y, sample_weight)
        self._now_and_then(lambda: self._objective.update_metrics(y, y_pred, sample_weight))
        return self.get_metrics_result()

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Those of the tasks, with the means of the losses; then those of layers."""
        others = [metric for metric in super().metrics if metric is not self._loss_tracker]
        return others if self._objective is None else [*self._objective.metrics, *others]

    # ---- predicting ----

    def batch_predict(self, dataset: Any, batch_size: int) -> Any:
        """Predictions beside the rows that they are for.

        Args:
            dataset: a pandas data frame, the path of a Parquet file or of a folder of them, which is read into memory, or a
                dictionary feature -> array. Columns that are no feature of the model stay as they are.
            batch_size: rows at a time.

        Returns:
            A new data frame, or dictionary: what came, and a column for each task, of its name. A row's prediction is a
            number, or a list where there are several.

        Raises:
            ValueError: if a feature is missing, or a column has a task's name; for a data frame if the model has no schema.

        Example:
            >>> import numpy as np, pandas as pd, merlin_models.tf as ml
            >>> schema = ml.Schema([ml.ColumnSchema.create_categorical("movieId", 9)])
            >>> model = ml.Model(ml.InputBlock(schema), ml.BinaryClassificationTask("rating_b"))
            >>> frame = pd.DataFrame({"movieId": [1, 2, 3], "title": ["a", "b", "c"]})
            >>> list(model.batch_predict(frame, batch_size=2).columns)
            ['movieId', 'title', 'rating_b/binary_classification_task']
        """
        return batch_predict(self, dataset, batch_size)

    # ---- saving ----

    def _output_name(self) -> str:
        return self.prediction_tasks[0].task_name

    def get_config(self) -> dict[str, Any]:
        config = {"name": self.name, "trainable": self.trainable, "dtype": self.dtype_policy.name}
        kinds = [parameter.kind for parameter in inspect.signature(type(self).__init__).parameters.values()]
        if inspect.Parameter.VAR_POSITIONAL not in kinds and type(self).get_config is Model.get_config:
            return with_own_arguments(self, Model, config)  # a subclass that makes its blocks itself
        with marking_shared_layers(self):
            blocks = [keras.saving.serialize_keras_object(block) for block in self.blocks]
        return {**config, "blocks": blocks}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Model:
        with reading_marks():
            config = keras.saving.deserialize_keras_object(dict(config), custom_objects=custom_objects)
        return cls(*config.pop("blocks", ()), **config)

    def get_compile_config(self) -> dict[str, Any] | None:
        optimizer = self.optimizer if self.compiled else None
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        if self.built and isinstance(inner, MultiOptimizer) and not inner.built:
            optimizer.build(self.trainable_variables)  # its config says which variable is whose
        config = super().get_compile_config()
        if not config:
            return config
        # A rule is part of the optimizer's config.
        own: dict[str, Any] = {"embedding_optimizer": "dense"} if self._dense_tables else {}
        if self._clustered:
            own["jit_compile"] = "autoclustering"
        places = places_of_state(self)
        if places is not None:
            own["optimizer_state_of"] = places
        return {**config, **keras.saving.serialize_keras_object(self._objective.arguments), **own}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        config = dict(config)
        places = config.pop("optimizer_state_of", None)
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            build_for_state(self, places)


def _with_tasks(blocks: Sequence[keras.layers.Layer]) -> list[keras.layers.Layer]:
    """The blocks, with tasks at the end as one block."""
    for block in blocks:
        if not isinstance(block, keras.layers.Layer):
            raise TypeError(f"Blocks of a model must be Keras layers. Received: {block!r}")
    count = 0
    while count < len(blocks) and isinstance(blocks[-1 - count], PredictionTask):
        count += 1
    if count > 1:
        blocks = [*blocks[:-count], ParallelPredictionBlock(*blocks[-count:])]
    tasks = tasks_of(blocks[-1]) if blocks else []
    outputs = getattr(blocks[-2], "output_names", None) if len(blocks) > 1 else None
    if outputs and len(tasks) > 1 and any(not {task.task_name, task.target_name} & set(outputs) for task in tasks):
        raise ValueError(
            f"Outputs of {blocks[-2].name} must be those of the tasks, {[task.task_name for task in tasks]}, or their "
            f"targets. Received: {list(outputs)}"
        )
    if not tasks:
        raise ValueError(
            "Last block must be able to calculate loss & metrics. "
            f"Received: {[type(block).__name__ for block in blocks]}, of which the last is no prediction task"
        )
    return list(blocks)
