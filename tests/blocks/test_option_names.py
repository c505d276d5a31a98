"""Options by name: what is no feature or table is an error, also where a schema is split over blocks."""

from __future__ import annotations

import numpy as np
import pytest

import merlin_models.tf as ml
from merlin_models.schema import Domain

SCHEMA = ml.Schema(
    [
        ml.ColumnSchema.create_categorical("userId", 4, tags=[ml.Tags.USER_ID]),
        ml.ColumnSchema.create_categorical("movieId", 9, tags=[ml.Tags.ITEM_ID]),
        ml.ColumnSchema.create_categorical("genres", 5, value_count=(0, 3), tags=[ml.Tags.ITEM]),
        ml.ColumnSchema.create_continuous("age", tags=[ml.Tags.USER]),
        ml.ColumnSchema("rating", np.float32, (ml.Tags.TARGET, ml.Tags.REGRESSION)),
    ]
)
SHARED = ml.Schema(
    [
        ml.ColumnSchema("movie", np.int64, ("categorical",), Domain(0, 9, "movies", True)),
        ml.ColumnSchema("seen", np.int64, ("categorical",), Domain(0, 9, "movies", True), value_count=(0, 5)),
        ml.ColumnSchema.create_categorical("user", 4),
    ]
)
BY_NAME = ["embedding_dims", "embeddings_initializers", "embeddings_rows_l2_reg"]
OF_EMBEDDINGS = {
    "dim": 3,
    "sequence_combiner": "sum",
    "embeddings_initializer": "zeros",
    "embeddings_regularizer": "l2",
    "trainable": False,
    "rows_l2_reg": 0.1,
}
VALUES = {"embedding_dims": 3, "embeddings_initializers": "zeros", "embeddings_rows_l2_reg": 0.1}


def options_of(option, *names):
    return ml.EmbeddingOptions(**{option: dict.fromkeys(names, VALUES[option])})


@pytest.mark.parametrize("option", BY_NAME)
@pytest.mark.parametrize("wrong", ["usrId", "age", "rating"])
def test_unknown_names_in_embedding_options(option, wrong):
    options = options_of(option, "userId", wrong)
    blocks = [
        lambda: ml.InputBlock(SCHEMA, embedding_options=options),
        lambda: ml.EmbeddingFeatures.from_schema(SCHEMA, options, tags=ml.Tags.ITEM),
        lambda: ml.EmbeddingBagCollection.from_schema(SCHEMA, options, ml.Tags.CATEGORICAL),
        lambda: ml.TwoTowerModel(SCHEMA, ml.MLPBlock([4]), embedding_options=options),
        lambda: ml.MatrixFactorizationModel(SCHEMA, embedding_options=options),
        lambda: ml.DeepFMModel(SCHEMA, embedding_options=options),
        lambda: ml.InputBlock(SCHEMA, split_sparse=True, embedding_options=options),
    ]
    known = r"\['genres', 'movieId', 'userId'\]"
    for make in blocks:
        with pytest.raises(
            ValueError, match=rf"{option} must name features or tables.*{known}. Received: \['{wrong}'\]"
        ):
            make()


@pytest.mark.parametrize("option", OF_EMBEDDINGS)
def test_unknown_names_in_embeddings(option):
    categorical = SCHEMA.select_by_tag(ml.Tags.CATEGORICAL)
    with pytest.raises(ValueError, match=rf"{option} must name features or tables of the schema.*'userId'.*\['usr'\]"):
        ml.Embeddings(categorical, **{option: {"usr": OF_EMBEDDINGS[option]}})
    ml.Embeddings(categorical, **{option: {"genres": OF_EMBEDDINGS[option]}})


@pytest.mark.parametrize("option", BY_NAME)
def test_one_options_object_for_parts_of_a_schema(option):
    options = options_of(option, "userId", "movieId")
    ml.TwoTowerModel(SCHEMA, ml.MLPBlock([4]), embedding_options=options)
    parts = {
        "tag": (SCHEMA.select_by_tag(ml.Tags.USER), SCHEMA.select_by_tag(ml.Tags.ITEM)),
        "split": SCHEMA.split_by_name(["userId", "age"]),
        "minus": (SCHEMA - SCHEMA.select_by_tag(ml.Tags.ITEM), SCHEMA.remove_by_name("userId")),
        "copy": (SCHEMA.select_by_name("userId").copy(), SCHEMA.select_by_name("movieId") + SHARED),
        "filter": (SCHEMA.filter_column_schemas(lambda column: column.name == "userId"), SCHEMA),
    }
    for each in parts.values():
        for part in each:
            ml.InputBlock(part, embedding_options=options)
    with pytest.raises(ValueError, match=f"{option} must name"):
        ml.InputBlock(ml.Schema([SCHEMA["userId"]]), embedding_options=options)


def test_tables_by_name():
    block = ml.InputBlock(SHARED, embedding_options=ml.EmbeddingOptions(embedding_dims={"movies": 3, "user": 2}))
    tables = block["categorical"].collection.tables
    assert {name: table.shape[1] for name, table in tables.items()} == {"movies": 3, "user": 2}
    options = ml.EmbeddingOptions(embedding_dims={"movies": 3, "seen": 5}, embeddings_initializers={"movies": "ones"})
    table = ml.EmbeddingFeatures.from_schema(SHARED, options).table("movies")
    assert table.shape == (10, 5)
    assert (table.numpy() == 1).all()


def test_table_keys():
    assert SHARED.table_keys == {"movie", "seen", "movies", "user"}
    assert SHARED.select_by_name("user").table_keys == SHARED.table_keys
    renamed = SHARED.select_by_name("user").map_column_schemas(lambda column: column.with_name("u"))
    assert "u" in renamed.table_keys
    assert SCHEMA.table_keys == {"userId", "movieId", "genres"}
    assert ml.Schema(SHARED.select_by_name("user")).table_keys == {"user"}
    assert SHARED.select_by_name("user") == ml.Schema([SHARED["user"]])
