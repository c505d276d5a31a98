"""Walks the code of the notebook that this project started from, up to its first models, on the data of our own ETL.

Its lines are kept in their order: the schema, the loader, three ways to build a model, fit, reset_metrics, evaluate. Only the
folders are others, the loader comes from this project, and TensorFlow is imported before it is used.
"""

from __future__ import annotations

import glob
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

import merlin_models.tf as ml
from merlin_models.loader.tensorflow import KerasSequenceLoader
from merlin_standard_lib import Schema, Tag

TASK = "rating_b/binary_classification_task"


@pytest.fixture(scope="module")
def folder(twin) -> str:
    return str(twin.folder)


@pytest.fixture(scope="module")
def schema(folder) -> Schema:
    schema = Schema().from_proto_text(os.path.join(folder, "train/schema.pbtxt"))
    return schema.remove_by_name(["rating", "title", "TE_movieId_rating", "userId_count"])


x_cat_names, x_cont_names = ["userId", "movieId", "genres"], []
sparse_features_max = {"genres": 10}


def get_dataloader(paths_or_dataset, batch_size=4096):
    dataloader = KerasSequenceLoader(
        paths_or_dataset,
        batch_size=batch_size,
        label_names=["rating_b"],
        cat_names=x_cat_names,
        cont_names=x_cont_names,
        sparse_names=list(sparse_features_max.keys()),
        sparse_max=sparse_features_max,
        sparse_as_dense=True,
    )
    return dataloader.map(lambda X, y: (X, tf.reshape(y, (-1,))))


def blocks_in_model(schema):
    return ml.Model(ml.InputBlock(schema), ml.MLPBlock([64, 32]), ml.BinaryClassificationTask("rating_b"))


def connected(schema):
    return ml.InputBlock(schema).connect(ml.MLPBlock([64, 32]), ml.BinaryClassificationTask("rating_b"))


def branched(schema):
    block1 = ml.MLPBlock([256, 64])
    block2 = ml.MLPBlock([128, 64])
    body = ml.InputBlock(schema).connect_branch(block1, block2, aggregation="concat")
    return body.connect(ml.BinaryClassificationTask("rating_b"))


def test_schema_without_the_target(schema):
    assert schema.remove_by_name(["rating_b"]).column_names == ["movieId", "userId", "genres"]
    assert schema.select_by_tag(Tag.CATEGORICAL).column_names == ["movieId", "userId", "genres"]


def test_loader_pads_genres(folder):
    features, labels = get_dataloader(glob.glob(os.path.join(folder, "train/*.parquet")), batch_size=64).peek()
    assert sorted(features) == ["genres", "movieId", "userId"]
    assert features["genres"].shape == (64, 10)
    assert features["movieId"].shape == features["userId"].shape == (64, 1)
    assert labels.shape == (64,)
    present = features["genres"].numpy() > 0
    assert (np.diff(present.astype(int), axis=1) <= 0).all()  # padding is on the right
    assert present[:, 0].all()


@pytest.mark.parametrize("build", [blocks_in_model, connected, branched])
def test_fit_and_evaluate(build, folder, schema):
    keras.utils.set_random_seed(5)
    model = build(schema)
    assert isinstance(model, ml.Model)
    model.compile(optimizer="adam", run_eagerly=False)

    train_paths = glob.glob(os.path.join(folder, "train/*.parquet"))
    eval_paths = glob.glob(os.path.join(folder, "valid/*.parquet"))
    train_loader = get_dataloader(train_paths, batch_size=128)
    losses = model.fit(train_loader, epochs=1, verbose=0)
    model.reset_metrics()
    eval_loader = get_dataloader(eval_paths, batch_size=128)
    eval_metrics = model.evaluate(eval_loader, return_dict=True, verbose=0)

    names = {f"{TASK}/{metric}" for metric in ("precision", "recall", "binary_accuracy", "auc")}
    names |= {"loss", "regularization_loss", "total_loss"}
    assert set(eval_metrics) == names
    assert set(losses.history) == names
    assert losses.epoch == [0]
    assert eval_metrics["total_loss"] == pytest.approx(eval_metrics["loss"] + eval_metrics["regularization_loss"])
    # An epoch is a few steps: better than chance is all that it can be.
    assert eval_metrics[f"{TASK}/auc"] > 0.55
    assert eval_metrics["loss"] < 0.7


def test_default_shapes(schema):
    features = {
        "movieId": tf.constant([[3], [4]]),
        "userId": tf.constant([[3], [5]]),
        "genres": tf.constant([[3, 4, 0], [5, 0, 0]]),
    }
    inputs = ml.InputBlock(schema)(features)
    assert {name: tuple(value.shape) for name, value in inputs.items()} == dict.fromkeys(x_cat_names, (2, 64))
    body = ml.InputBlock(schema).connect_branch(ml.MLPBlock([256, 64]), ml.MLPBlock([128, 64]), aggregation="concat")
    assert body(features).shape == (2, 128)
    assert blocks_in_model(schema)(features).shape == (2, 1)


def test_genres_are_the_mean_of_the_ids_that_are_there(schema):
    block = ml.InputBlock(schema)

    def embedded(genres):
        ids = np.array([[3]])
        return block({"movieId": ids, "userId": ids, "genres": np.array([genres])})["genres"]

    expected = (embedded([3]) + embedded([5])) / 2
    np.testing.assert_allclose(embedded([3, 5, 0, 0]), expected, rtol=1e-6, atol=1e-7)


def test_two_towers(folder):
    schema = Schema().from_proto_text(os.path.join(folder, "train/schema.pbtxt"))
    schema = schema.remove_by_name(["rating", "title"])
    train_loader = get_dataloader(glob.glob(os.path.join(folder, "train/*.parquet")), batch_size=512)

    keras.utils.set_random_seed(5)
    two_tower = ml.TwoTowerBlock(schema, query_tower=ml.MLPBlock([512, 256]))
    model = two_tower.connect(ml.ItemRetrievalTask(softmax_temperature=2))
    output = model(train_loader.peek()[0])
    assert output.shape == (512, 1)

    model.compile(optimizer="adam", run_eagerly=False)
    num_epochs = 8
    losses = model.fit(train_loader, epochs=num_epochs, verbose=0)
    assert len(losses.epoch) == num_epochs
    assert all(measure >= 0 for metric in losses.history for measure in losses.history[metric])
    assert losses.history["loss"][-1] < losses.history["loss"][0]
    recall = losses.history["item_retrieval_task/recall_at_10"]
    assert recall[-1] > 1.5 * recall[0]

    assert model[0] is two_tower
    user_model = model[0]["query"]
    user_id = tf.constant([[3], [5]])
    assert user_model(user_id).shape == (2, 256)
    np.testing.assert_array_equal(user_model(user_id), user_model({"userId": user_id}))
