"""EmbeddingTable and Embeddings: tables of a domain, in every form of ids, and to and from files."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pandas
import pytest
import tensorflow as tf

import merlin_models.tf as ml


def column(name, largest, domain=None, **options):
    made = ml.ColumnSchema.create_categorical(name, largest, **options)
    return dataclasses.replace(made, int_domain=dataclasses.replace(made.int_domain, name=domain or name))


MOVIE = column("movie", 9, "movies", tags=[ml.Tags.ITEM_ID])
SEEN = column("seen", 9, "movies", value_count=(0, 5), tags=[ml.Tags.USER])
LISTS = np.array([[3, 4, 0], [5, 0, 0], [9, 9, 1]])
RAGGED = tf.ragged.constant([[3, 4], [5], [9, 9, 1]], dtype=tf.int64)


def rows_of(table):
    return np.asarray(table.table.numpy())


def test_scalars_and_lists_of_one_domain_share_a_table():
    table = ml.EmbeddingTable(4, MOVIE, SEEN, sequence_combiner="mean")
    out = table({"movie": np.array([1, 2, 9]), "seen": LISTS, "other": np.zeros(3)})
    rows = rows_of(table)
    assert rows.shape == (10, 4)
    assert table.input_dim == 10
    np.testing.assert_allclose(out["movie"], rows[[1, 2, 9]])
    expected = [rows[[3, 4]].mean(0), rows[5], rows[[9, 9, 1]].mean(0)]
    np.testing.assert_allclose(out["seen"], expected, rtol=1e-6)
    ragged = table({"movie": np.array([[1], [2], [9]]), "seen": RAGGED})
    np.testing.assert_allclose(ragged["seen"], expected, rtol=1e-6)
    pair = table({"movie": np.array([1, 2, 9]), "seen": (RAGGED.values, RAGGED.row_splits)})
    np.testing.assert_allclose(pair["seen"], expected, rtol=1e-6)
    assert len(table.trainable_variables) == 1


def test_lists_without_a_combiner_keep_their_length():
    table = ml.EmbeddingTable(4, SEEN, mask_zero=True)
    rows = rows_of(table)
    np.testing.assert_allclose(table(LISTS), rows[LISTS])
    ragged = table({"seen": RAGGED})["seen"]
    assert isinstance(ragged, tf.RaggedTensor)
    np.testing.assert_allclose(ragged.values, rows[RAGGED.values.numpy()])
    np.testing.assert_array_equal(ragged.row_splits, RAGGED.row_splits)
    np.testing.assert_array_equal(table(LISTS)._keras_mask, LISTS != 0)
    assert not hasattr(ml.EmbeddingTable(4, SEEN)(LISTS), "_keras_mask")
    with pytest.raises(ValueError, match=r"The list 'seen' must be a dense or ragged tensor.*Received: tuple"):
        table({"seen": (RAGGED.values, RAGGED.row_splits)})


def test_a_layer_as_combiner():
    table = ml.EmbeddingTable(4, SEEN, sequence_combiner=keras.layers.GlobalMaxPooling1D())
    np.testing.assert_allclose(table(LISTS), rows_of(table)[LISTS].max(axis=1))
    masked = ml.EmbeddingTable(4, SEEN, sequence_combiner=ml.SequenceAggregator("mean"), mask_zero=True)
    rows, weights = rows_of(masked), (LISTS != 0)[..., None]
    expected = (rows[LISTS] * weights).sum(axis=1) / weights.sum(axis=1)
    np.testing.assert_allclose(masked(LISTS), expected, rtol=1e-6)
    np.testing.assert_allclose(masked(RAGGED), expected, rtol=1e-6)


@pytest.mark.usefixtures("on_device")
def test_l2_of_the_batch():
    table = ml.EmbeddingTable(4, MOVIE, l2_batch_regularization_factor=0.5)
    out = table(np.array([1, 1]))
    (loss,) = table.losses
    np.testing.assert_allclose(loss, 0.5 * np.square(out).sum(), rtol=1e-6)


def test_add_feature_and_tags():
    table = ml.EmbeddingTable(4, MOVIE, sequence_combiner="sum")
    table(np.array([1]))
    table.add_feature(SEEN)
    assert table.feature_names == ["movie", "seen"]
    out = table({"movie": np.array([1, 2, 9]), "seen": LISTS})
    np.testing.assert_allclose(out["seen"][1], rows_of(table)[5])
    assert table.select_by_tag(ml.Tags.ITEM_ID) is table
    assert table.select_by_tag(ml.Tags.SESSION_ID) is None
    other = column("user", 9)
    larger = column("film", 12, "movies")
    for wrong, came in ((other, "'user' with ids up to 9"), (larger, "'movies' with ids up to 12")):
        with pytest.raises(ValueError, match=f"must have one domain: 'movies' with ids up to 9.*{came}"):
            table.add_feature(wrong)
        with pytest.raises(ValueError, match=r"must have one domain"):
            ml.EmbeddingTable(4, MOVIE, wrong)
    with pytest.raises(ValueError, match=r"col_schema must have a new name. Received: 'seen'"):
        table.add_feature(SEEN)


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"schema must be None where col_schemas are given"):
        ml.EmbeddingTable(4, MOVIE, schema=ml.Schema([MOVIE]))
    with pytest.raises(ValueError, match=r"col_schemas must hold at least one ColumnSchema"):
        ml.EmbeddingTable(4)
    with pytest.raises(ValueError, match=r"sequence_combiner must be None, a layer or one of.*'median'"):
        ml.EmbeddingTable(4, SEEN, sequence_combiner="median")
    with pytest.raises(ValueError, match=r"l2_batch_regularization_factor must not be negative. Received: -1"):
        ml.EmbeddingTable(4, SEEN, l2_batch_regularization_factor=-1)
    with pytest.raises(ValueError, match=r"inputs must have the columns \['movie'\].*missing: \['movie'\]"):
        ml.EmbeddingTable(4, MOVIE)({"seen": LISTS})


def test_pretrained_rows(tmp_path):
    matrix = np.random.default_rng(0).normal(size=(10, 6)).astype(np.float32)
    table = ml.EmbeddingTable.from_pretrained(matrix, MOVIE, trainable=False)
    np.testing.assert_array_equal(table(np.array([3, 0])), matrix[[3, 0]])
    assert not table.trainable_variables
    table.to_dataset(tmp_path / "rows.parquet")
    again = ml.EmbeddingTable.from_dataset(tmp_path / "rows.parquet", MOVIE, SEEN, sequence_combiner="sum")
    np.testing.assert_array_equal(rows_of(again), matrix)
    assert again.trainable_variables
    frame = table.to_df()
    assert frame.shape == (10, 6)
    shuffled = frame.sample(frac=1.0, random_state=1).reset_index()
    np.testing.assert_array_equal(rows_of(ml.EmbeddingTable.from_dataset(shuffled)), matrix)
    np.testing.assert_allclose(np.linalg.norm(table.to_df(l2_normalization=True), axis=1), 1.0, rtol=1e-6)
    with pytest.raises(ValueError, match=r"data must have 10 rows, one for each id of 'movies'. Received: 4"):
        ml.EmbeddingTable.from_pretrained(matrix[:4], MOVIE)
    with pytest.raises(ValueError, match=r"must have the ids 0 to 2, each once"):
        ml.EmbeddingTable.from_dataset(pandas.DataFrame({"id": [0, 1, 1], "embedding": [[1.0]] * 3}))
    with pytest.raises(ValueError, match=r"must have rows of one length. Received lengths: \[1, 2\]"):
        ml.EmbeddingTable.from_dataset(pandas.DataFrame({"embedding": [[1.0], [1.0, 2.0]]}))
    with pytest.raises(ValueError, match=r"must have a column 'embedding' or only numbers. Received: \['title'\]"):
        ml.EmbeddingTable.from_dataset(pandas.DataFrame({"title": ["a", "b"]}))
    with pytest.raises(ValueError, match=r"must have rank 2 \(rows, dim\). Received shape: \(3,\)"):
        ml.EmbeddingTable.from_pretrained(np.zeros(3))


@pytest.mark.parametrize("combiner", ["mean", None, "layer"])
def test_saving(tmp_path, combiner):
    made = keras.layers.GlobalAveragePooling1D() if combiner == "layer" else combiner
    table = ml.EmbeddingTable.from_pretrained(np.eye(10, 4, dtype=np.float32), SEEN, sequence_combiner=made)
    inputs = keras.Input((3,), dtype="int64")
    model = keras.Model(inputs, table(inputs))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(LISTS, verbose=0), model.predict(LISTS, verbose=0))


@pytest.mark.usefixtures("on_device")
def test_a_table_trains_by_rows():
    class Model(ml.RowSparseTraining, keras.Model):
        def __init__(self):
            super().__init__()
            self.table, self.head = ml.EmbeddingTable(4, SEEN), keras.layers.Dense(1)

        def call(self, ids):
            return self.head(keras.ops.mean(self.table(ids), axis=1))

    model = Model()
    model.compile(ml.RowSparse("adam"), loss="mse")
    model(LISTS)
    before = rows_of(model.table).copy()
    model.fit(LISTS, np.ones(3), epochs=2, verbose=0)
    moved = (rows_of(model.table) != before).any(axis=1)
    assert list(np.flatnonzero(moved)) == [0, 1, 3, 4, 5, 9]


def test_embeddings_of_a_schema():
    user = column("user", 10_000)
    schema = ml.Schema([MOVIE, SEEN, user])
    block = ml.Embeddings(schema, dim={"movies": 16}, trainable={"user": False})
    out = block({"movie": np.array([1, 2, 3]), "seen": LISTS, "user": np.array([1, 2, 3])})
    assert {name: tuple(value.shape) for name, value in out.items()} == {
        "movie": (3, 16),
        "seen": (3, 16),
        "user": (3, 24),
    }
    assert len(block.collection.tables) == 2
    assert [variable.shape[1] for variable in block.trainable_variables] == [16]
    assert tuple(ml.Embeddings(schema, dim=8).table("user").shape) == (10_001, 8)
    matrix = np.ones((10, 5), np.float32)
    given = ml.Embeddings(
        ml.Schema([MOVIE]), dim=5, embeddings_initializer={"movie": ml.TensorInitializer.from_matrix(matrix)}
    )
    np.testing.assert_array_equal(given.table("movie").numpy(), matrix)
    with pytest.raises(ValueError, match=r"shape must be that of the weights, \(10, 5\). Received: \(10, 6\)"):
        ml.Embeddings(ml.Schema([MOVIE]), dim=6, embeddings_initializer=ml.TensorInitializer(matrix)).table("movie")


def test_penalties_of_embeddings_of_a_schema():
    schema = ml.Schema([MOVIE, SEEN, column("user", 9)])
    batch = {"movie": np.array([1, 2, 3]), "seen": LISTS, "user": np.array([1, 2, 3])}
    block = ml.Embeddings(schema, dim=4, rows_l2_reg={"seen": 0.5}, l2_batch_regularization_factor={"user": 0.25})
    out = block(batch)
    rows = block.table("movies").numpy()
    expected = 0.5 * (np.sum(rows[batch["movie"]] ** 2) + np.sum(rows[LISTS[LISTS > 0]] ** 2))
    expected += 0.25 * np.sum(np.square(out["user"]))
    assert float(sum(block.losses)) == pytest.approx(expected, rel=1e-5)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(block))
    assert again.get_config() == block.get_config()
    kept = ml.Embeddings(schema, dim=4, sequence_combiner=None, l2_batch_regularization_factor=0.5)
    assert float(sum(0.5 * np.sum(np.square(value)) for value in kept(batch).values())) == pytest.approx(
        float(sum(kept.losses)), rel=1e-5
    )
    with pytest.raises(ValueError, match=r"rows_l2_reg must agree for features of one table, 'movies'"):
        ml.Embeddings(schema, dim=4, rows_l2_reg={"seen": 0.5, "movie": 0.1})
    with pytest.raises(ValueError, match=r"l2_reg and l2_batch_regularization_factor are one thing"):
        ml.Embeddings(schema, dim=4, l2_reg=0.1, l2_batch_regularization_factor=0.1)


def test_options_of_a_table_by_any_of_its_columns():
    schema = ml.Schema([MOVIE, SEEN])
    assert ml.Embeddings(schema, dim={"seen": 5}).table("movie").shape == (10, 5)
    assert not ml.Embeddings(schema, dim=5, trainable={"seen": False}).trainable_variables


@pytest.mark.parametrize("combiner", ["mean", None])
def test_rows_of_a_table_are_penalized(combiner):
    table = ml.EmbeddingTable(4, SEEN, sequence_combiner=combiner, rows_l2_reg=0.5)
    table({"seen": LISTS})
    read = LISTS[LISTS > 0] if combiner else LISTS  # without a combiner id 0 is looked up like others
    assert float(sum(table.losses)) == pytest.approx(0.5 * np.sum(rows_of(table)[read] ** 2), rel=1e-5)
    again = ml.EmbeddingTable.from_config(table.get_config())
    assert again.get_config() == table.get_config()
    assert again.table_config.rows_l2_reg == 0.5


def test_tables_of_an_input_block_as_frames_and_files(tmp_path):
    schema = ml.Schema([MOVIE, SEEN])
    options = ml.EmbeddingOptions(embedding_dim_default=4, embeddings_regularizer=keras.regularizers.L2(0.1))
    block = ml.InputBlock(schema, embedding_options=options)["categorical"]
    values = block.table("movies").numpy()
    for name in ("movies", "movie", "seen", ml.Tags.ITEM_ID):
        np.testing.assert_array_equal(block.embedding_table_df(name).to_numpy(), values)
    block.export_embedding_table(ml.Tags.ITEM_ID, tmp_path / "movies.parquet")
    fresh = ml.InputBlock(schema, embedding_options=options)["categorical"]
    fresh.load_embedding_table("movie", tmp_path / "movies.parquet")
    np.testing.assert_array_equal(fresh.table("movies").numpy(), values)
    with pytest.raises(ValueError, match=r"data must have the shape of table 'movie', \(10, 4\). Received: \(3, 4\)"):
        fresh.load_embedding_table("movie", np.zeros((3, 4)))
    with pytest.raises(KeyError, match=r"nothing"):
        fresh.embedding_table_df("nothing")
    assert block.table("movies").regularizer is not None
