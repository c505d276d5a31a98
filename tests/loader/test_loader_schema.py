"""Roles of columns from a schema's tags."""

from __future__ import annotations

import pytest
from loader_data import small_table

from merlin_models.loader.tensorflow import KerasSequenceLoader

schema_module = pytest.importorskip("merlin_models.schema")
ColumnSchema, Schema, Tags = schema_module.ColumnSchema, schema_module.Schema, schema_module.Tags


def make_schema():
    return Schema(
        [
            ColumnSchema("item", tags=[Tags.CATEGORICAL, Tags.ITEM_ID]),
            ColumnSchema("genres", tags=[Tags.CATEGORICAL]),
            ColumnSchema("age", tags=[Tags.CONTINUOUS]),
            ColumnSchema("clicked", tags=[Tags.CATEGORICAL, Tags.TARGET]),
            ColumnSchema("watched", tags=["title"]),
        ]
    )


def names(**kwargs):
    loader = KerasSequenceLoader(small_table(), 2, schema=make_schema(), **kwargs)
    return loader.cat_names, loader.cont_names, loader.label_names


def test_tags_decide():
    assert names() == (["item", "genres"], ["age"], ["clicked"])


def test_names_go_before_tags():
    assert names(cat_names=["user"]) == (["user"], ["age"], ["clicked"])
    assert names(cont_names=[]) == (["item", "genres"], [], ["clicked"])
    assert names(label_names=["watched"]) == (["item", "genres", "clicked"], ["age"], ["watched"])
    assert names(label_names=[]) == (["item", "genres", "clicked"], ["age"], [])


def test_schema_column_that_the_data_lack():
    schema = Schema([ColumnSchema("movie", tags=[Tags.CATEGORICAL])])
    with pytest.raises(ValueError, match=r"must be among the columns \['user'.*Received: \['movie'\]"):
        KerasSequenceLoader(small_table(), 2, schema=schema)
