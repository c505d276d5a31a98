"""ToTarget, LabelToOneHot, ToOneHot."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

import merlin_models.tf as ml

SCHEMA = ml.Schema(
    [
        ml.ColumnSchema.create_categorical("genre", 3, tags=[ml.Tags.ITEM]),
        ml.ColumnSchema.create_categorical("seen", 2, value_count=(0, 0)),
        ml.ColumnSchema("click", np.int64, (ml.Tags.TARGET,)),
    ]
)


def batch():
    return {"genre": np.array([[3], [1]]), "seen": np.array([[1, 2], [2, 0]]), "click": np.array([0, 1], np.int32)}


@pytest.mark.parametrize("column", ["click", SCHEMA["click"], ml.Tags.TARGET])
def test_to_target(column):
    block = ml.ToTarget(SCHEMA, column)
    for transform in (block, ml.ToTarget.from_config(block.get_config())):
        outputs, targets, weight, _ = transform(batch(), sample_weight=np.array([1.0, 2.0]))
        assert sorted(outputs) == ["genre", "seen"]
        np.testing.assert_array_equal(targets, [0, 1])
        np.testing.assert_array_equal(weight, [1.0, 2.0])


def test_several_targets_and_one_hot():
    assert sorted(ml.ToTarget(SCHEMA, "click", "genre")(batch()).targets) == ["click", "genre"]
    together = ml.ToTarget(SCHEMA, "click")(batch(), targets={"buy": np.array([1, 1])}).targets
    assert sorted(together) == ["buy", "click"]
    one_hot = ml.ToTarget(SCHEMA, "genre", one_hot=True)(batch()).targets
    np.testing.assert_array_equal(one_hot, [[0, 0, 0, 1], [0, 1, 0, 0]])


def test_wrong_targets():
    with pytest.raises(
        ValueError, match=r"columns must be names or tags of the schema. Received: 'buy', not in \['genre'"
    ):
        ml.ToTarget(SCHEMA, "buy")
    with pytest.raises(ValueError, match=r"Column 'click' must have an int_domain"):
        ml.ToTarget(SCHEMA, "click", one_hot=True)
    with pytest.raises(ValueError, match=r"Inputs must have \['click'\]. Received: \['genre'\]; missing: \['click'\]"):
        ml.ToTarget(SCHEMA, "click")({"genre": np.ones(1)})
    with pytest.raises(
        ValueError, match=r"targets must be None or a dictionary beside \['click'\]. Received: .*Tensor"
    ):
        ml.ToTarget(SCHEMA, "click")(batch(), targets=np.ones(2))


def test_label_to_one_hot():
    expected = [[0, 0, 1], [1, 0, 0]]
    for ids in (np.array([2, 0]), np.array([[2], [0]], np.int32)):
        np.testing.assert_array_equal(ml.LabelToOneHot(3)({}, targets=ids).targets, expected)
    targets = {"genre": np.array([2, 0]), "click": np.array([0, 1])}
    block = ml.LabelToOneHot({"genre": 3})
    for transform in (block, ml.LabelToOneHot.from_config(block.get_config())):
        out = transform({}, targets=targets).targets
        np.testing.assert_array_equal(out["genre"], expected)
        np.testing.assert_array_equal(out["click"], [0, 1])
    with pytest.raises(ValueError, match=r"targets must be a dictionary. Received: NoneType"):
        block({})
    with pytest.raises(ValueError, match=r"must have the shape \(batch,\) or \(batch, 1\). Received: \(2, 2\)"):
        ml.LabelToOneHot(3)({}, targets=np.ones((2, 2), np.int64))
    with pytest.raises(ValueError, match=r"depth must be a positive integer"):
        ml.LabelToOneHot(0)


def test_to_one_hot():
    block = ml.ToOneHot(SCHEMA.select_by_name(["genre", "seen"]))
    for transform in (block, ml.ToOneHot.from_config(block.get_config())):
        out = transform({**batch(), "seen": tf.ragged.constant([[1, 2], [2]])})
        np.testing.assert_array_equal(out["genre"], [[0, 0, 0, 1], [0, 1, 0, 0]])
        assert out["seen"].to_list() == [[[0, 1, 0], [0, 0, 1]], [[0, 0, 1]]]
        np.testing.assert_array_equal(out["click"], [0, 1])
    assert block(batch())["seen"].shape == (2, 2, 3)
    assert ml.CategoricalOneHot is ml.ToOneHot
    half = ml.ToOneHot(SCHEMA.select_by_name("genre"), dtype="mixed_float16")
    assert half(batch())["genre"].dtype == tf.float16
    with pytest.raises(ValueError, match=r"Column 'click' must have an int_domain"):
        ml.ToOneHot(SCHEMA)


def test_one_hot_vectors_reach_an_mlp():
    schema = SCHEMA.select_by_name("genre")
    body = ml.ToOneHot(schema).connect(ml.MLPBlock([2]))
    assert body({"genre": np.array([1, 2, 3])}).shape == (3, 2)
