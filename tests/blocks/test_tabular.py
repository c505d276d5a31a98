"""Filter, AsTabular and NoOp."""

from __future__ import annotations

import numpy as np
import pytest

from merlin_models.blocks import AsTabular, Filter, NoOp, TabularBlock
from merlin_models.schema import ColumnSchema, Schema, Tags

INPUTS = {name: np.array([1.0]) for name in ("age", "movieId", "userId")}
SCHEMA = Schema([ColumnSchema.create_categorical("movieId", 5), ColumnSchema.create_continuous("age")])


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ({"feature": "age"}, ["age"]),
        ({"feature": ["age", "userId", "unknown"]}, ["age", "userId"]),
        ({"feature": SCHEMA}, ["age", "movieId"]),
        ({"feature": Tags.CATEGORICAL, "schema": SCHEMA}, ["movieId"]),
        ({"feature": "age", "exclude": True}, ["movieId", "userId"]),
    ],
)
def test_filter(arguments, kept):
    block = Filter(**arguments)
    assert sorted(block(INPUTS)) == kept
    assert sorted(Filter.from_config(block.get_config())(INPUTS)) == kept


def test_filter_refuses_what_matches_nothing():
    with pytest.raises(
        ValueError, match=r"must have one of \['continuous'\]. Received: \['age', 'movieId', 'userId'\]"
    ):
        Filter("continuous")(INPUTS)
    with pytest.raises(ValueError, match="must have something beside"):
        Filter(list(INPUTS), exclude=True)(INPUTS)
    with pytest.raises(TypeError, match="must be a dictionary"):
        Filter("age")(np.ones(2))
    with pytest.raises(ValueError, match="schema must be given where feature is a tag"):
        Filter(Tags.USER)
    with pytest.raises(ValueError, match="schema must be None unless"):
        Filter("age", schema=SCHEMA)


def test_as_tabular_and_no_op():
    assert list(AsTabular("x")(np.ones(2))) == ["x"]
    with pytest.raises(TypeError, match="must be one tensor"):
        AsTabular("x")(INPUTS)
    assert sorted(NoOp()(INPUTS)) == sorted(INPUTS)


def test_schema_must_be_a_schema():
    with pytest.raises(TypeError, match=r"schema must be a Schema or None. Received: list"):
        TabularBlock(schema=["age"])
