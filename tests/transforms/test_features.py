"""PrepareFeatures, Rename, ExpandDims, ContinuousPowers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import merlin_models.tf as ml

SCHEMA = ml.Schema(
    [
        ml.ColumnSchema.create_categorical("movieId", 9, tags=[ml.Tags.ITEM_ID]),
        ml.ColumnSchema.create_categorical("genres", 9, value_count=(0, 4)),
        ml.ColumnSchema.create_categorical("seen", 9, value_count=(0, 0)),
        ml.ColumnSchema("rating", np.float32, (ml.Tags.TARGET, ml.Tags.REGRESSION)),
    ]
)


def raw():
    return {
        "movieId": np.array([1, 2]),
        "genres__values": np.array([[7], [8], [9]], np.int32),
        "genres__offsets": np.array([[0], [2], [3]]),
        "seen": tf.ragged.constant([[5], []], tf.int64),
        "other": np.array([0.5, 1.5]),
    }


def test_prepare_features():
    out = ml.PrepareFeatures(SCHEMA)(raw())
    assert sorted(out) == ["genres", "movieId", "other", "seen"]
    assert out["genres"].to_list() == [[7, 8], [9]]
    assert out["genres"].dtype == tf.int32
    assert out["seen"].to_list() == [[5], []]
    assert out["movieId"].shape == (2, 1)
    assert out["other"].shape == (2,)
    again = ml.PrepareFeatures(SCHEMA)(out)
    assert again["genres"].to_list() == [[7, 8], [9]]
    assert again["movieId"].shape == (2, 1)


def test_lists_as_dense():
    out = ml.PrepareListFeatures(SCHEMA, list_as_dense=True)(raw())
    np.testing.assert_array_equal(out["genres"], [[7, 8, 0, 0], [9, 0, 0, 0]])  # the schema allows four
    np.testing.assert_array_equal(out["seen"], [[5], [0]])
    assert out["movieId"].shape == (2,)


def test_targets_get_the_dtype_of_the_schema():
    outputs, targets, weight, _ = ml.PrepareFeatures(SCHEMA)(
        raw(), targets={"rating": np.array([3, 4]), "click": np.array([0, 1])}, sample_weight=np.array([1.0, 2.0])
    )
    assert outputs["movieId"].shape == (2, 1)
    assert targets["rating"].dtype == tf.float32
    assert targets["rating"].shape == targets["click"].shape == (2, 1)
    assert targets["click"].dtype == tf.int64
    np.testing.assert_array_equal(weight, [1.0, 2.0])


def test_prepared_features_reach_a_model(rng):
    schema = SCHEMA.select_by_name(["movieId", "genres"])
    model = ml.Model(ml.PrepareFeatures(schema), ml.InputBlock(schema), ml.RegressionTask("rating"))
    features = {name: raw()[name] for name in ("movieId", "genres__values", "genres__offsets")}
    np.testing.assert_array_equal(
        model(features), model({"movieId": np.array([[1], [2]]), "genres": np.array([[7, 8], [9, 0]])})
    )


def test_wrong_inputs_of_prepare():
    with pytest.raises(
        ValueError, match=r"both 'genres__values' and 'genres__offsets'. Received: \['genres__values'\]"
    ):
        ml.PrepareFeatures(SCHEMA)({"genres__values": np.array([1])})
    with pytest.raises(ValueError, match=r"schema must be a Schema with at least one column"):
        ml.PrepareFeatures(ml.Schema())


def test_rename():
    rename = ml.Rename({ml.Tags.ITEM_ID: "item", "genres": "tags"}, schema=SCHEMA)
    out = rename({"movieId": np.ones(1), "genres": np.zeros(1), "age": np.ones(1)})
    assert sorted(out) == ["age", "item", "tags"]
    swapped = ml.Rename({"a": "b", "b": "a"})({"a": np.zeros(1), "b": np.ones(1)})
    assert (float(swapped["a"][0]), float(swapped["b"][0])) == (1.0, 0.0)
    assert ml.Rename.from_config(rename.get_config()).renames == {"movieId": "item", "genres": "tags"}


def test_wrong_renames():
    with pytest.raises(ValueError, match=r"Inputs must have \['a'\]. Received: \['b'\]; missing: \['a'\]"):
        ml.Rename({"a": "c"})({"b": np.ones(1)})
    with pytest.raises(ValueError, match=r"New names must not be names of other inputs. Received: \['b'\]"):
        ml.Rename({"a": "b"})({"a": np.ones(1), "b": np.ones(1)})
    with pytest.raises(ValueError, match=r"to names of their own. Received: {'a': 'c', 'b': 'c'}"):
        ml.Rename({"a": "c", "b": "c"})
    with pytest.raises(ValueError, match=r"schema must be given where a key of renames is a tag"):
        ml.Rename({ml.Tags.ITEM_ID: "item"})
    with pytest.raises(
        ValueError, match=r"A tag in renames must belong to one column. Received: 'user_id', which \[\]"
    ):
        ml.Rename({ml.Tags.USER_ID: "user"}, schema=SCHEMA)


def test_expand_dims():
    inputs = {"a": np.ones((2, 3)), "b": tf.ragged.constant([[1.0, 2.0], [3.0]])}
    out = ml.ExpandDims()(inputs)
    assert out["a"].shape == (2, 3, 1)
    assert out["b"].to_list() == [[[1.0], [2.0]], [[3.0]]]
    some = ml.ExpandDims({"a": 1})
    assert some(inputs)["a"].shape == (2, 1, 3)
    assert some(inputs)["b"].to_list() == [[1.0, 2.0], [3.0]]
    assert ml.ExpandDims(0)(np.ones(3)).shape == (1, 3)
    assert ml.ExpandDims.from_config(some.get_config()).expand_dims == {"a": 1}
    with pytest.raises(ValueError, match=r"Inputs must be a dictionary with \['a'\]. Missing: \['a'\]"):
        some({"b": np.ones(1)})
    with pytest.raises(ValueError, match=r"expand_dims must be an integer or a dictionary of integers"):
        ml.ExpandDims({})


def test_continuous_powers():
    inputs = {
        "age": np.array([[0.25], [-4.0]], np.float32),
        "id": np.array([1, 2]),
        "x": tf.ragged.constant([[9.0], []]),
    }
    out = ml.ContinuousPowers()(inputs)
    assert sorted(out) == ["age", "age_pow", "age_sqrt", "id", "x", "x_pow", "x_sqrt"]
    np.testing.assert_array_equal(out["age_sqrt"], [[0.5], [0.0]])
    np.testing.assert_array_equal(out["age_pow"], [[0.0625], [16.0]])
    assert out["x_sqrt"].to_list() == [[3.0], []]
    spec = ml.ContinuousPowers().compute_output_spec(
        {"age": keras.KerasTensor((None, 1)), "id": keras.KerasTensor((None,), "int64")}
    )
    assert sorted(spec) == ["age", "age_pow", "age_sqrt", "id"]
