"""EmbeddingFeatures and EmbeddingOptions."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from block_data import GENRES, POOLED, SCHEMA, batch, count_rows

from merlin_models.blocks import EmbeddingFeatures, EmbeddingOptions
from merlin_models.schema import ColumnSchema, Domain, Schema, Tags

CATEGORICAL = SCHEMA.select_by_name(["userId", "movieId", "genres"])


def block_of(schema=CATEGORICAL, dim=2, **options):
    block = EmbeddingFeatures.from_schema(schema, EmbeddingOptions(embedding_dim_default=dim, **options))
    for variable in block.collection.tables.values():
        count_rows(variable)
    return block


def test_one_op_for_all_tables_and_default_sizes():
    block = EmbeddingFeatures.from_schema(CATEGORICAL)
    tables = block.collection.tables
    assert {name: tuple(table.shape) for name, table in tables.items()} == {
        "genres": (4, 64),
        "movieId": (6, 64),
        "userId": (5, 64),
    }
    assert block.feature_names == ["genres", "movieId", "userId"]
    assert len(block._flatten_layers(include_self=False)) == 1
    assert 0.02 < float(np.std(tables["movieId"])) < 0.06


@pytest.mark.parametrize("combiner", POOLED)
@pytest.mark.parametrize("form", ["dense", "int32", "ragged", "sparse", "pair"])
def test_values_by_hand(combiner, form):
    ragged = tf.RaggedTensor.from_row_lengths([1, 3, 2], [2, 1, 0])
    genres = {
        "dense": GENRES,
        "int32": GENRES.astype(np.int32),
        "ragged": ragged,
        "sparse": ragged.to_sparse(),
        "pair": (np.array([1, 3, 2]), np.array([0, 2, 3, 3])),
    }[form]
    out = block_of(combiner=combiner)({**batch(), "genres": genres})
    assert sorted(out) == ["genres", "movieId", "userId"]
    np.testing.assert_array_equal(out["genres"], POOLED[combiner])
    np.testing.assert_array_equal(out["userId"], [[1, 10], [2, 20], [4, 40]])
    np.testing.assert_array_equal(out["movieId"], [[5, 50], [0, 0], [3, 30]])


def test_id_zero_is_padding_in_lists_only():
    block = block_of()
    block.table("movieId").assign(np.ones((6, 2)))
    block.table("genres").assign(np.ones((4, 2)))
    out = block(batch())
    np.testing.assert_array_equal(out["movieId"], np.ones((3, 2)))  # has an id 0
    np.testing.assert_array_equal(out["genres"], [[1, 1], [1, 1], [0, 0]])


def shared_schema(other_max=9):
    return Schema(
        [
            ColumnSchema("seen", np.int64, ("categorical",), Domain(0, 9, "movie", True), value_count=(0, 5)),
            ColumnSchema("movieId", np.int64, ("categorical",), Domain(0, other_max, "movie", True)),
        ]
    )


def test_columns_of_one_domain_share_a_table():
    block = block_of(shared_schema(), embedding_dims={"seen": 3})
    assert list(block.collection.tables) == ["movie"]
    assert block.table("seen") is block.table("movieId") is block.table("movie")
    assert block.table("movie").shape == (10, 3)
    out = block({"seen": np.array([[2, 4, 0]]), "movieId": np.array([3])})
    np.testing.assert_array_equal(out["seen"], out["movieId"])


def test_shared_columns_must_agree():
    with pytest.raises(ValueError, match=r"domain 'movie' must have one largest id. .*'seen': 10, 'movieId': 8"):
        block_of(shared_schema(7))
    with pytest.raises(ValueError, match="embedding_dims must agree for features of one table, 'movie'"):
        block_of(shared_schema(), embedding_dims={"seen": 3, "movieId": 4})


@pytest.mark.parametrize(
    ("options", "dims"),
    [
        ({"embedding_dims": {"userId": 8}, "embedding_dim_default": 16}, {"userId": 8, "movieId": 16}),
        # ceil(5 ** 0.25 * 2) = 3, ceil(10001 ** 0.25 * 2) = 21
        ({"infer_embedding_sizes": True}, {"userId": 3, "movieId": 21}),
        ({"infer_embedding_sizes": True, "embedding_dims": {"userId": 5}}, {"userId": 5, "movieId": 21}),
        (
            {"infer_embedding_sizes": True, "infer_embedding_sizes_multiplier": 3.0},
            {"userId": 5, "movieId": 31},
        ),
        (
            {"infer_embedding_sizes": True, "infer_embeddings_ensure_dim_multiple_of_8": True},
            {"userId": 8, "movieId": 24},
        ),
    ],
)
def test_sizes(options, dims):
    schema = Schema([ColumnSchema.create_categorical("userId", 4), ColumnSchema.create_categorical("movieId", 10000)])
    tables = EmbeddingOptions(**options).table_configs(schema)
    assert {name: table.output_dim for name, table in tables.items()} == dims


def test_initializers():
    options = EmbeddingOptions(embedding_dim_default=2, embeddings_initializers={"userId": "ones"})
    tables = EmbeddingFeatures.from_schema(CATEGORICAL, options).collection.tables
    assert np.all(np.asarray(tables["userId"]) == 1)
    assert np.abs(tables["movieId"]).max() < 0.2
    options = EmbeddingOptions(embeddings_initializers=keras.initializers.RandomUniform(1, 2))
    schema = Schema([ColumnSchema.create_categorical(name, 9) for name in "ab"])
    tables = EmbeddingFeatures.from_schema(schema, options).collection.tables
    assert np.min(tables["a"]) >= 1
    assert not np.array_equal(tables["a"], tables["b"])


def test_l2_is_over_what_the_batch_reads():
    block = block_of(embeddings_l2_reg=0.1)
    out = block(batch())
    expected = 0.1 * sum(float(np.sum(np.square(value))) for value in out.values())
    assert float(sum(block.losses)) == pytest.approx(expected)
    with pytest.raises(ValueError, match="l2_reg must not be negative"):
        block_of(embeddings_l2_reg=-1)


def test_gradient_touches_only_the_rows_read():
    block = block_of(embeddings_l2_reg=0.5)
    with tf.GradientTape() as tape:
        block(batch())
        loss = sum(block.losses)
    gradient = tape.gradient(loss, block.table("userId").value)
    dense = tf.convert_to_tensor(gradient).numpy()
    np.testing.assert_allclose(dense, [[0, 0], [1, 10], [2, 20], [0, 0], [4, 40]])


def test_tags_aggregation_and_bare_tensor():
    block = EmbeddingFeatures.from_schema(SCHEMA, EmbeddingOptions(embedding_dim_default=2), tags=Tags.USER_ID)
    np.testing.assert_array_equal(block(np.array([1, 2]))["userId"], block({"userId": np.array([1, 2])})["userId"])
    concat = EmbeddingFeatures.from_schema(CATEGORICAL, EmbeddingOptions(embedding_dim_default=2), aggregation="concat")
    assert concat(batch()).shape == (3, 6)
    with pytest.raises(ValueError, match="schema must have a column for an embedding"):
        EmbeddingFeatures.from_schema(SCHEMA, tags=Tags.SESSION)


def test_wrong_inputs():
    block = block_of()
    with pytest.raises(ValueError, match=r"missing: \['movieId'\]"):
        block({"userId": np.array([1]), "genres": GENRES[:1]})
    with pytest.raises(TypeError, match="Inputs must be a dictionary"):
        block(np.array([1]))
    with pytest.raises(ValueError, match=r"'movieId' must be a list in the schema .* Received shape: \(None, 4\)"):
        block({**batch(), "movieId": GENRES})
    with pytest.raises(KeyError, match="no feature 'age'"):
        block.table("age")
    with pytest.raises(ValueError, match="must have an int_domain"):
        EmbeddingFeatures.from_schema(SCHEMA.select_by_name(["age"]))


@pytest.mark.parametrize("options", [{}, {"aggregation": "concat", "name": "tables"}])
def test_config_round_trip(options):
    chosen = EmbeddingOptions(embedding_dims={"userId": 3}, embeddings_l2_reg=0.1, combiner="sum")
    block = EmbeddingFeatures.from_schema(CATEGORICAL, chosen, **options)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(block))
    assert again.get_config() == block.get_config()
    assert again.schema == CATEGORICAL
    out = block(batch())
    again(batch())
    again.set_weights(block.get_weights())
    keras.tree.map_structure(np.testing.assert_array_equal, again(batch()), out)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    block = EmbeddingFeatures.from_schema(CATEGORICAL, dtype=policy)
    out = block(batch())
    assert {keras.backend.standardize_dtype(value.dtype) for value in out.values()} == {policy.removeprefix("mixed_")}
    assert keras.backend.standardize_dtype(block.table("userId").dtype) == "float32"
