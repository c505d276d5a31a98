"""Aggregations, against values that can be checked by hand."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from merlin_models.blocks import (
    AGGREGATIONS,
    AddLeft,
    Aggregation,
    ConcatFeatures,
    ElementwiseSumItemMulti,
    NoOp,
    ParallelBlock,
    Registry,
    TabularBlock,
)
from merlin_models.blocks.aggregation import get_aggregation
from merlin_models.schema import ColumnSchema, Schema, Tags

ITEM = Schema([ColumnSchema("b", tags=(Tags.ITEM_ID,)), ColumnSchema("a", tags=(Tags.ITEM,))])
INPUTS = {"b": np.array([[3.0, 4.0], [0.0, -2.0]]), "a": np.array([[1.0, 2.0], [5.0, 1.0]])}
BY_HAND = {
    "concat": [[1, 2, 3, 4], [5, 1, 0, -2]],  # a before b
    "stack": [[[1, 3], [2, 4]], [[5, 0], [1, -2]]],
    "sum": [[4, 6], [5, -1]],
    "element-wise-sum": [[4, 6], [5, -1]],
    "sum-residual": [[4, 6], [5, 0]],  # relu
    "elementwise-multiply": [[3, 8], [0, -2]],
    "cosine": [[11 / (np.sqrt(5) * 5)], [-1 / np.sqrt(26)]],
    "cosine-similarity": [[11 / (np.sqrt(5) * 5)], [-1 / np.sqrt(26)]],
}


def test_every_name_has_a_row_in_the_table():
    assert sorted([*BY_HAND, "add-left", "element-wise-sum-item-multi"]) == AGGREGATIONS.names  # these two: see below


@pytest.mark.parametrize("name", BY_HAND)
def test_values(name):
    np.testing.assert_allclose(get_aggregation(name)(INPUTS), BY_HAND[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", BY_HAND)
def test_config_round_trip(name):
    aggregation = get_aggregation(name)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(aggregation))
    assert type(again) is type(aggregation)
    assert again.get_config() == aggregation.get_config()
    np.testing.assert_array_equal(again(INPUTS), aggregation(INPUTS))


def test_integers_and_halves_are_cast_to_the_compute_dtype():
    out = ConcatFeatures()({"a": np.array([[1], [2]]), "b": np.array([[0.5], [1.5]], np.float16)})
    assert keras.backend.standardize_dtype(out.dtype) == "float32"
    np.testing.assert_array_equal(out, [[1, 0.5], [2, 1.5]])


def test_axis():
    stacked = get_aggregation("stack").__class__(axis=1)(INPUTS)
    np.testing.assert_array_equal(stacked[0], [[1, 2], [3, 4]])


def test_as_a_blocks_aggregation():
    np.testing.assert_array_equal(TabularBlock(aggregation="sum")(INPUTS), BY_HAND["sum"])


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(KeyError, match=r"must be one of \['add-left', 'concat', 'cosine'.*Received: 'average'"):
        TabularBlock(aggregation="average")
    with pytest.raises(TypeError, match="must be a name, an Aggregation or None"):
        TabularBlock(aggregation=NoOp())


@pytest.mark.parametrize("name", ["stack", "element-wise-sum", "elementwise-multiply", "cosine"])
def test_unequal_shapes(name):
    with pytest.raises(ValueError, match="must have equal shapes"):
        get_aggregation(name)({"a": np.ones((2, 3)), "b": np.ones((2, 1))})


def test_sum_broadcasts():
    out = get_aggregation("sum")({"a": np.ones((2, 3)), "b": np.ones((2, 1))})
    np.testing.assert_array_equal(out, np.full((2, 3), 2.0))


def test_wrong_inputs():
    with pytest.raises(ValueError, match="must have equal ranks"):
        ConcatFeatures()({"a": np.ones((2, 3)), "b": np.ones((2, 3, 1))})
    with pytest.raises(TypeError, match="must be a dictionary of tensors"):
        ConcatFeatures()(np.ones((2, 3)))
    with pytest.raises(ValueError, match="an empty dictionary"):
        ConcatFeatures()({})
    with pytest.raises(ValueError, match="must be two tensors"):
        get_aggregation("cosine")({"a": np.ones((2, 3))})
    with pytest.raises(NotImplementedError, match="must define combine"):
        Aggregation()(INPUTS)


def test_add_left():
    bias = {"bias": np.array([[10.0], [20.0]])}
    np.testing.assert_array_equal(get_aggregation("add-left")({**INPUTS, **bias})["b"], [[13, 14], [20, 18]])
    np.testing.assert_array_equal(AddLeft("a")(INPUTS), BY_HAND["sum"])  # one other input: a tensor
    with pytest.raises(ValueError, match=r"must have 'bias' and something to add it to. Received: \['a', 'b'\]"):
        AddLeft()(INPUTS)
    with pytest.raises(ValueError, match=r"Received: \['bias'\]"):
        AddLeft()(bias)


def test_add_left_projects_another_width():
    aggregation = AddLeft("a")
    wide = {"a": np.array([[1.0, 2.0, 3.0]]), "b": np.array([[5.0, 6.0]])}
    aggregation(wide)
    aggregation.set_weights([np.array([[1.0], [10.0], [100.0]]), np.array([1000.0])])
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(aggregation))
    again.build({name: value.shape for name, value in wide.items()})
    again.set_weights(aggregation.get_weights())
    for each in (aggregation, again):
        np.testing.assert_array_equal(each(wide), [[1326, 1327]])


def test_item_id_times_the_sum_of_the_rest():
    inputs = {**INPUTS, "c": np.array([[1.0, 1.0], [1.0, 2.0]])}
    expected = [[3 * (1 + 1), 4 * (2 + 1)], [0, -2 * (1 + 2)]]
    aggregation = ElementwiseSumItemMulti(ITEM)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(aggregation))
    in_block = TabularBlock(schema=ITEM, aggregation="element-wise-sum-item-multi")
    branches = {name: TabularBlock(schema=Schema([ITEM[name]])) for name in "ab"}
    of_branches = ParallelBlock(branches, aggregation="element-wise-sum-item-multi")
    for block in (aggregation, again, in_block):
        np.testing.assert_array_equal(block(inputs), expected)
    np.testing.assert_array_equal(of_branches(INPUTS), BY_HAND["elementwise-multiply"])


def test_item_id_must_be_known_and_there():
    with pytest.raises(ValueError, match="schema must be given to ElementwiseSumItemMulti"):
        get_aggregation("element-wise-sum-item-multi")(INPUTS)
    with pytest.raises(ValueError, match=r"must have one column tagged item_id .* Received: \[\]"):
        ElementwiseSumItemMulti(ITEM.select_by_name("a"))
    for inputs in ({"a": INPUTS["a"]}, {"b": INPUTS["b"]}):
        with pytest.raises(ValueError, match="must have the item id 'b' and something else"):
            ElementwiseSumItemMulti(ITEM)(inputs)
    with pytest.raises(ValueError, match="must have equal shapes"):
        ElementwiseSumItemMulti(ITEM)({"a": np.ones((2, 3)), "b": np.ones((2, 1))})


def test_registry_refuses_a_taken_name():
    registry = Registry("shape")
    registry.register("square", "box")(int)
    assert registry.get("box") is int
    with pytest.raises(KeyError, match="must be unique"):
        registry.register("box")(float)
    assert registry.names == ["box", "square"]
