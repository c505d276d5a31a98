"""IndexBlock and TopKIndexBlock: from blocks, from files, updated, saved."""

from __future__ import annotations

import keras
import numpy as np
import pandas
import pytest

import merlin_models.tf as ml

BIG = 2**33 + 1
SCHEMA = ml.Schema(
    [
        ml.ColumnSchema.create_categorical("movieId", 9, tags=[ml.Tags.ITEM_ID]),
        ml.ColumnSchema.create_categorical("genres", 4, value_count=(0, 3), tags=[ml.Tags.ITEM]),
    ]
)
MOVIES = pandas.DataFrame({"movieId": [5, 0, 9], "genres": [[1, 2], [], [4]], "title": ["a", "b", "c"]})


def tower():
    return ml.InputBlock(SCHEMA, aggregation="concat").connect(ml.MLPBlock([6], activation="linear"))


def outputs(block):
    return np.asarray(block({"movieId": np.array([5, 0, 9]), "genres": np.array([[1, 2], [0, 0], [4, 0]])}))


@pytest.mark.parametrize("source", ["frame", "file", "arrays"])
def test_from_block(rng, tmp_path, source):
    data = MOVIES
    if source == "file":
        MOVIES.to_parquet(tmp_path / "movies.parquet")
        data = tmp_path / "movies.parquet"
    if source == "arrays":
        data = {"movieId": np.array([5, 0, 9]), "genres": np.array([[1, 2], [0, 0], [4, 0]])}
    block = tower()
    expected = outputs(block)
    index = ml.IndexBlock.from_block(block, data, id_column="movieId", batch_size=2)
    np.testing.assert_allclose(
        index(np.array([[0, 9], [7, 5]])), [expected[1:], [0 * expected[0], expected[0]]], rtol=1e-5, atol=1e-7
    )
    queries = rng.normal(size=(6, 6)).astype(np.float32)
    top = ml.TopKIndexBlock.from_block(block, data, k=2, id_column="movieId")
    scores, ids = top(queries)
    order = np.argsort(-(queries @ expected.T), axis=1)[:, :2]
    np.testing.assert_array_equal(ids, np.array([5, 0, 9])[order])
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ expected.T, order, axis=1), rtol=1e-4, atol=1e-6)
    assert not (np.asarray(top(queries, exclude=[[9]] * 6).identifiers) == 9).any()


def test_id_column_of_the_schema():
    block = ml.Embeddings(ml.Schema([SCHEMA["movieId"]]), dim=4)
    index = ml.IndexBlock.from_block(block, {"movieId": np.array([[3], [7]])})
    np.testing.assert_array_equal(index(np.array([7])), block({"movieId": np.array([7])})["movieId"])
    index.update_from_block(block, {"movieId": np.array([8])})
    np.testing.assert_array_equal(index(np.array([7])), np.zeros((1, 4)))
    with pytest.raises(
        ValueError, match=r"id_column must be given unless one column .* is tagged item_id. Received: \[\]"
    ):
        ml.IndexBlock.from_block(ml.MLPBlock([2]), {"x": np.ones((2, 2))})


def test_round_trips_through_frames_and_files(rng, tmp_path):
    values, ids = rng.normal(size=(5, 3)).astype(np.float32), np.array([4, BIG, 0, 7, 2])
    index = ml.IndexBlock(values, ids)
    frame = index.to_df()
    assert frame.index.tolist() == sorted(ids.tolist())
    index.to_dataset(tmp_path / "items.parquet")
    frame.to_parquet(tmp_path / "frame.parquet")
    frame.reset_index().to_parquet(tmp_path / "columns.parquet")
    for data in (frame, tmp_path / "items.parquet", tmp_path / "frame.parquet", tmp_path / "columns.parquet"):
        np.testing.assert_array_equal(ml.IndexBlock.from_dataset(data)(ids), values)
    top = ml.TopKIndexBlock.from_dataset(tmp_path / "items.parquet", k=5)
    assert set(np.asarray(top(values).identifiers)[0].tolist()) == set(ids.tolist())


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_update_and_file(rng, policy, tmp_path):
    values, ids = rng.integers(-3, 4, (6, 4)).astype(np.float32), np.array([4, BIG, 0, 7, 2, 1])
    index = ml.IndexBlock(values, ids, dtype=policy)
    top = ml.TopKIndexBlock(3, values, ids, capacity=8, dtype=policy)
    inputs, queries = keras.Input((2,), dtype="int64"), keras.Input((4,))
    model = keras.Model([inputs, queries], [index(inputs), *top(queries)])
    batch = [np.array([[7, BIG], [4, 3]]), values[:2]]
    model.predict(batch, verbose=0)
    for block in (index, top):
        block.update(values[:4] + 1, ids[:4])
    found = model.predict(batch, verbose=0)
    np.testing.assert_array_equal(found[0], [values[[3, 1]] + 1, [values[0] + 1, 0 * values[0]]])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for one, other in zip(again.predict(batch, verbose=0), found, strict=True):
        np.testing.assert_array_equal(one, other)
    loaded = next(layer for layer in again.layers if isinstance(layer, ml.TopKIndexBlock))
    assert (loaded.k, loaded.catalogue.capacity) == (3, 8)
    loaded.update(np.ones((8, 4)), np.arange(8))


def test_wrong_arguments(rng):
    values = rng.normal(size=(3, 2))
    for kind in (ml.IndexBlock, lambda *given: ml.TopKIndexBlock(1, *given)):
        with pytest.raises(ValueError, match="Please make sure that `data` contains unique indices"):
            kind(values, [1, 2, 1])
    with pytest.raises(ValueError, match="Please make sure that `data` contains unique indices"):
        ml.TopKIndexBlock.from_block(tower(), pandas.concat([MOVIES, MOVIES]), k=1, id_column="movieId")
    with pytest.raises(ValueError, match=r"k must be at most the number of candidates, 3. Received: 20"):
        ml.TopKIndexBlock(values=values)
    with pytest.raises(ValueError, match=r"data must have the column 'id'. Received: \['genres', 'movieId', 'title'\]"):
        ml.IndexBlock.from_block(tower(), MOVIES, id_column="id")
    with pytest.raises(ValueError, match="data must have at least one row"):
        ml.IndexBlock.from_block(tower(), MOVIES[:0], id_column="movieId")
    with pytest.raises(TypeError, match=r"data must be a dictionary, a DataFrame or a path. Received: list"):
        ml.IndexBlock.from_dataset([1])
    with pytest.raises(ValueError, match=r"update\(\) must be called before the block is used"):
        ml.IndexBlock()(np.array([1]))
