"""The tutorial's first model on MovieLens learns what it should, from the files to a saved model."""

from __future__ import annotations

import baselines
import keras
import movielens
import numpy as np
import pytest

import merlin_models.tf as ml
from merlin_models.loader.tensorflow import KerasSequenceLoader
from merlin_models.schema import Schema

FEATURES = ["userId", "movieId", "genres"]


def loader(data, part, batch_size, shuffle, dense_genres):
    dense = {"sparse_names": ["genres"], "sparse_max": {"genres": 10}, "sparse_as_dense": True} if dense_genres else {}
    return KerasSequenceLoader(
        data.files(part),
        batch_size,
        label_names=["rating_b"],
        cat_names=FEATURES,
        cont_names=[],
        shuffle=shuffle,
        seed=3 if shuffle else None,
        **dense,
    )


def train(data, epochs, batch_size, dim, learning_rate, dense_genres):
    """The model after `epochs`, and its predictions on test."""
    keras.utils.set_random_seed(11)
    schema = Schema().from_proto_text(str(data.schema_path))
    options = ml.EmbeddingOptions(embedding_dim_default=dim)
    model = ml.Model(
        ml.InputBlock(schema, embedding_options=options), ml.MLPBlock([64, 32]), ml.BinaryClassificationTask("rating_b")
    )
    model.compile(optimizer=keras.optimizers.Adam(learning_rate))
    model.fit(loader(data, "train", batch_size, True, dense_genres), epochs=epochs, verbose=0)
    return model, model.predict(loader(data, "test", 1024, False, dense_genres), verbose=0)[:, 0]


def bias_predictions(data):
    rows, test = data.frame("train"), data.frame("test")
    columns = [rows[name].to_numpy() for name in ("userId", "movieId", "rating_b")]
    model = baselines.fit_biases(*columns, rows["userId"].max() + 1, rows["movieId"].max() + 1, l2=1.0)
    return model.predict(test["userId"].to_numpy(), test["movieId"].to_numpy())


@pytest.mark.parametrize("dense_genres", [True, False], ids=["padded", "ragged"])
def test_twin(twin, dense_genres, tmp_path):
    model, chances = train(twin, epochs=12, batch_size=64, dim=16, learning_rate=2e-3, dense_genres=dense_genres)
    labels = twin.frame("test")["rating_b"].to_numpy()
    area, loss = baselines.auc(labels, chances), baselines.log_loss(labels, chances)
    # Tastes for genres decide here, which biases of users and movies cannot tell.
    assert area > baselines.auc(labels, bias_predictions(twin)) + 0.1
    assert area > 0.85
    assert loss < 0.5
    reported = model.evaluate(loader(twin, "test", 1024, False, dense_genres), return_dict=True, verbose=0)
    assert reported["loss"] == pytest.approx(loss, rel=1e-4)
    assert reported["rating_b/binary_classification_task/auc"] == pytest.approx(area, abs=0.02)

    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        again.predict(loader(twin, "test", 1024, False, dense_genres), verbose=0)[:, 0], chances
    )


def test_real_ratings(movielens_folder, tmp_path):
    pytest.importorskip("nvtabular", reason="needs nvtabular: the examples' data preparation")
    ratings = movielens.read_ratings(movielens_folder)
    data = movielens.prepare(movielens.split_by_user(ratings, seed=1), tmp_path)
    _, chances = train(data, epochs=2, batch_size=512, dim=64, learning_rate=1e-3, dense_genres=True)
    labels = data.frame("test")["rating_b"].to_numpy()
    area = baselines.auc(labels, chances)
    biases = baselines.auc(labels, bias_predictions(data))
    assert 0.76 < biases < 0.82
    assert biases - 0.01 < area < 0.85
    assert baselines.log_loss(labels, chances) < baselines.log_loss(labels, np.full(len(labels), labels.mean())) - 0.08
