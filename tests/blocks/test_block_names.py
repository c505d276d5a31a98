"""Blocks by their names."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import merlin_models.tf as ml
from merlin_models.blocks import BLOCKS, get_block

GENRES = ml.Schema([ml.ColumnSchema.create_categorical("genres", 9, value_count=(0, 3))])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("as-dense", ml.ToDense),
        ("to_dense", ml.ToDense),
        ("as-sparse", ml.ToSparse),
        ("to_sparse", ml.ToSparse),
        ("as-ragged", ml.ToRagged),
        ("l2-norm", ml.L2Norm),
        ("continuous-powers", ml.ContinuousPowers),
        ("ssn", ml.StochasticSwapNoise),
        ("stochastic-swap-noise", ml.StochasticSwapNoise),
        ("expand_dims", ml.ExpandDims),
    ],
)
def test_names(name, kind):
    assert type(get_block(name)) is kind
    assert get_block(name) is not get_block(name)


def test_names_of_blocks_that_need_arguments():
    for name in ("prepare_lists", "prepare_features", "category_encoding", "hashed_cross", "to_target"):
        with pytest.raises(ValueError, match=rf"must need no arguments. Received: '{name}', which needs \['schema'"):
            get_block(name)
    assert BLOCKS.get("category_encoding") is ml.CategoryEncoding


def test_unknown_and_taken_names():
    with pytest.raises(KeyError, match=r"A block must be one of .*'as-dense'.* Received: 'as-dence'"):
        get_block("as-dence")
    with pytest.raises(KeyError, match=r"Names of a block must be unique. Received again: \['ssn'\]"):
        BLOCKS.register("ssn")


def test_names_where_blocks_are_taken():
    ragged = tf.ragged.constant([[1, 2, 3], [4]])
    body = ml.TabularBlock(pre="as-dense", post="to_sparse")
    assert type(body.pre) is ml.ToDense
    assert isinstance(body({"genres": ragged})["genres"], tf.SparseTensor)
    again = ml.TabularBlock.from_config(body.get_config())
    assert type(again.post) is ml.ToSparse
    np.testing.assert_array_equal(ml.NoOp().connect("as-dense")(ragged), [[1, 2, 3], [4, 0, 0]])
    block = ml.InputBlock(GENRES, post="continuous-powers")
    assert sorted(block({"genres": ragged})) == ["genres", "genres_pow", "genres_sqrt"]
    filtered = ml.MLPBlock([2], filter="genres")
    assert filtered({"genres": np.ones((2, 3)), "x": np.ones((2, 9))}).shape == (2, 2)
    with pytest.raises(KeyError, match=r"Received: 'nothing'"):
        ml.NoOp().connect("nothing")
