"""Tasks over classes, and ModelOutput and its kin."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from merlin_models.blocks import EmbeddingTable, EmbeddingTablePrediction, MLPBlock
from merlin_models.metrics import RecallAt
from merlin_models.schema import ColumnSchema, Schema, Tags
from merlin_models.tasks import (
    BinaryOutput,
    CategoricalOutput,
    ColumnBasedSampleWeight,
    ModelOutput,
    MultiClassClassificationTask,
    OutputBlock,
    ParallelPredictionBlock,
    RegressionOutput,
)

MOVIE = ColumnSchema.create_categorical("movieId", 29, tags=[Tags.ITEM_ID])
TARGETS = (Tags.TARGET, Tags.BINARY_CLASSIFICATION)
SCHEMA = Schema(
    [
        MOVIE,
        ColumnSchema("click", np.int64, tags=TARGETS),
        ColumnSchema("seconds", np.float32, tags=(Tags.TARGET, Tags.REGRESSION)),
        ColumnSchema.create_categorical("action", 4, tags=[Tags.TARGET, Tags.MULTI_CLASS_CLASSIFICATION]),
    ]
)
X = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)


def names(task):
    return [metric.name.rpartition("/")[2] for metric in task.create_metrics()]


def log_softmax(scores):
    return scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))


def test_classes_of_a_column():
    for task in (
        MultiClassClassificationTask.from_schema(SCHEMA),
        MultiClassClassificationTask.from_schema(SCHEMA, "movieId"),
        MultiClassClassificationTask(MOVIE),
        MultiClassClassificationTask("movieId", num_classes=30),
    ):
        assert (task.num_classes, task.target_name) == (30, "movieId")
        assert task(X).shape == (2, 30)
    assert MultiClassClassificationTask(SCHEMA).num_classes == 5


def test_loss_against_numpy():
    task = MultiClassClassificationTask("action", num_classes=3)
    scores, classes = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]]), np.array([1, 0])
    expected = -np.mean(log_softmax(scores)[[0, 1], classes])
    for targets in (classes, classes[:, None], classes.astype(np.int32)):
        matched, predictions = task.match(targets, scores)
        assert float(task.loss(matched, predictions)) == pytest.approx(expected, rel=1e-5)
    for loss in ("categorical_crossentropy", "CategoricalCrossentropy", keras.losses.CategoricalCrossentropy):
        one_hot = MultiClassClassificationTask("action", 3, loss=loss, metrics=["categorical_accuracy"])
        value = one_hot.loss(*one_hot.match(np.eye(3)[classes], scores))
        assert float(value) == pytest.approx(expected, rel=1e-5)
    given = keras.losses.SparseCategoricalCrossentropy()
    assert MultiClassClassificationTask("action", 3, loss=given).loss is given


def test_ranking_metrics_of_classes(rng):
    task = MultiClassClassificationTask(MOVIE)
    assert names(task) == ["ndcg_at", "recall_at", "map_at"]
    scores, classes = rng.normal(size=(6, 30)).astype(np.float32), rng.integers(0, 30, 6)
    recall = task.create_metrics()[1]
    recall.update_state(*task.match(classes[:, None], scores))
    ranks = (scores > scores[np.arange(6), classes][:, None]).sum(axis=1)
    prefix = "movieId/multi_class_classification_task/recall_at"
    expected = {f"{prefix}_{k}": np.mean(ranks < k) for k in (10, 20)}
    assert {name: float(value) for name, value in recall.result().items()} == pytest.approx(expected)
    assert names(MultiClassClassificationTask("a", 3)) == ["sparse_categorical_accuracy"]
    assert names(MultiClassClassificationTask("a", 40, metrics=[RecallAt(5)])) == ["recall_at_5"]


def test_wrong_classes():
    with pytest.raises(ValueError, match=r"num_classes must be an integer of at least 2.* Received: None"):
        MultiClassClassificationTask("action")
    with pytest.raises(ValueError, match="Received: 1"):
        MultiClassClassificationTask("action", 1)
    with pytest.raises(ValueError, match=r"one column 'user_id', by name or tag. Received: \[\]"):
        MultiClassClassificationTask.from_schema(SCHEMA, Tags.USER_ID)
    task = MultiClassClassificationTask("action", 3)
    with pytest.raises(ValueError, match="must get targets"):
        task.match(None, np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"classes \(batch,\) or \(batch, 1\).* \(2, 3\). Received: \(2, 2\)"):
        task.match(np.ones((2, 2)), np.ones((2, 3)))


def test_temperature_by_hand():
    binary = BinaryOutput("click", logits_temperature=2.0)
    binary(X)
    binary.head.set_weights([np.array([[1.0], [1.0]]), np.zeros(1)])
    np.testing.assert_allclose(binary(X), 1 / (1 + np.exp([[-1.5], [-3.5]])), rtol=1e-6)
    with pytest.raises(ValueError, match="logits_temperature must be positive"):
        RegressionOutput("seconds", logits_temperature=0)


def test_pre_and_post():
    output = RegressionOutput("seconds", pre=MLPBlock([3]), post=keras.layers.Rescaling(2.0, offset=1.0))
    output(X)
    output.head.set_weights([np.zeros((3, 1)), np.ones(1)])
    np.testing.assert_array_equal(output(X), [[3], [3]])
    weight = ColumnBasedSampleWeight("click")
    assert BinaryOutput("conversion", post=weight).sample_weight is weight
    with pytest.raises(ValueError, match="post and sample_weight must not both"):
        BinaryOutput("conversion", post=weight, sample_weight=weight)
    with pytest.raises(TypeError, match="post must be a Keras layer or a ColumnBasedSampleWeight"):
        BinaryOutput("conversion", post=3)
    with pytest.raises(TypeError, match="to_call must be a Keras layer"):
        ModelOutput(3)
    with pytest.raises(ValueError, match="to_call must be given to ModelOutput"):
        ModelOutput()


def test_weight_tying(rng):
    table = EmbeddingTable(2, MOVIE)
    output = CategoricalOutput(table, logits_temperature=0.5)
    assert output.target_name == "movieId"
    assert names(output) == ["top_k_metrics"]
    scores = output(X)
    bias = rng.normal(size=30).astype(np.float32)
    output.head.bias.assign(bias)
    rows = table.table.numpy()
    np.testing.assert_allclose(output(X), 2 * (X @ rows.T + bias), rtol=1e-5)
    assert scores.shape == (2, 30)
    assert EmbeddingTablePrediction(table, use_bias=False)(X).shape == (2, 30)
    with pytest.raises(ValueError, match=r"the table's dim, 2, as last axis. Received: \(2, 3\)"):
        EmbeddingTablePrediction(table)(np.ones((2, 3)))
    with pytest.raises(TypeError, match="table must be an EmbeddingTable"):
        EmbeddingTablePrediction(MLPBlock([2]))


def test_what_categorical_output_calls():
    for to_call in (MOVIE, Schema([MOVIE]), SCHEMA):
        output = CategoricalOutput(to_call)
        assert (output.target_name, output.head.units) == ("movieId", 30)
    assert names(CategoricalOutput(keras.layers.Dense(4), "action")) == ["sparse_categorical_accuracy"]
    with pytest.raises(ValueError, match="one column, or one item id"):
        CategoricalOutput(SCHEMA.select_by_name(["click", "seconds"]))


def test_output_block():
    block = OutputBlock(SCHEMA, task_blocks=MLPBlock([3]), task_weight_dict={"click": 2.0})
    kinds = {task.target_name: type(task) for task in block.tasks}
    assert kinds == {"click": BinaryOutput, "seconds": RegressionOutput, "action": CategoricalOutput}
    assert block.task_weights == {"click/binary_output": 2.0}
    mine = BinaryOutput("click", post=ColumnBasedSampleWeight("seconds"))
    for given in ([mine], {"click": mine}):
        assert OutputBlock(SCHEMA, given).tasks[0] is mine
    only = SCHEMA.select_by_name("click")
    assert isinstance(OutputBlock(only), BinaryOutput)
    assert isinstance(OutputBlock(only, task_blocks=MLPBlock([3])), ParallelPredictionBlock)
    with pytest.raises(
        ValueError, match=r"must have targets of the schema, \['click'\], each once. Received: \['like'\]"
    ):
        OutputBlock(only, [BinaryOutput("like")])
    with pytest.raises(ValueError, match="schema must have a column tagged"):
        OutputBlock(Schema([MOVIE]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: MultiClassClassificationTask(MOVIE, task_block=MLPBlock([2])),
        lambda: BinaryOutput("click", logits_temperature=2.0, post=ColumnBasedSampleWeight("like", (1, 5))),
        lambda: RegressionOutput("seconds", MLPBlock([1]), post=keras.layers.Rescaling(2.0), pre=MLPBlock([3])),
        lambda: CategoricalOutput(EmbeddingTable(2, MOVIE)),
        lambda: CategoricalOutput(MOVIE, metrics=[RecallAt(5, labels_onehot=True)]),
        lambda: ModelOutput(keras.layers.Dense(3), "y", loss="mae", task_name="mine"),
    ],
)
def test_config_round_trip(make):
    task = make()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(task))
    assert again.get_config() == task.get_config()
    assert [metric.get_config() for metric in again.create_metrics()] == [
        metric.get_config() for metric in task.create_metrics()
    ]
    task(X), again(X)
    again.set_weights(task.get_weights())
    np.testing.assert_array_equal(again(X), task(X))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_predictions_are_float32_under_mixed_precision(policy):
    for task in (
        MultiClassClassificationTask(MOVIE, dtype=policy),
        BinaryOutput("click", keras.layers.Dense(1, dtype=policy), dtype=policy),
        CategoricalOutput(EmbeddingTable(2, MOVIE, dtype=policy), dtype=policy),
    ):
        assert keras.backend.standardize_dtype(task(X).dtype) == "float32"
