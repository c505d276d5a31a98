"""TwoTowerBlock and DualEncoderBlock: which columns go where, towers by themselves, configs, errors."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from block_data import SCHEMA, batch

import merlin_models.tf as ml


def towers(**kwargs):
    return ml.TwoTowerBlock(SCHEMA, query_tower=ml.MLPBlock([16, 8]), **kwargs)


def test_columns_and_shapes():
    block = towers()
    outputs = block(batch())
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {"query": (3, 8), "item": (3, 8)}
    assert block["query"].schema.column_names == ["age", "userId"]
    assert sorted(block["item"].schema.column_names) == ["genres", "movieId"]
    assert block.is_input
    assert block["query"].inputs["categorical"].table("userId").shape == (5, 64)  # 64 is the default length


def test_towers_share_no_weights():
    block = towers()
    block(batch())
    left, right = ({id(v) for v in tower.weights} for tower in block.layers)
    assert not left & right
    kernels = [tower.layers[-1].layers[-1].kernel for tower in block.layers]
    assert kernels[0].shape == kernels[1].shape == (16, 8)
    assert not np.array_equal(*kernels)  # nor their random numbers


def test_a_tower_by_itself():
    schema = SCHEMA.remove_by_name(["age"])
    block = ml.TwoTowerBlock(schema, query_tower=ml.MLPBlock([8]))
    users = batch()["userId"]
    expected = block(batch())["query"]
    for inputs in (users, users[:, None], users.astype(np.int32), {"userId": users}, {**batch()}):
        np.testing.assert_array_equal(block["query"](inputs), expected)
    with pytest.raises(
        TypeError, match=r"Inputs must be a dictionary from feature to tensor with \['movieId', 'genres'\]"
    ):
        block["item"](users)


def test_its_own_item_tower_and_tags():
    columns = [column.with_tags("context") if column.name == "age" else column for column in SCHEMA]
    block = ml.TwoTowerBlock(
        ml.Schema(columns),
        ml.MLPBlock([8]),
        ml.MLPBlock([4, 8]),
        query_tower_tag="context",
        item_tower_tag=ml.Tags.ITEM_ID,
    )
    assert block.schema.column_names == ["age", "movieId"]
    assert block["item"].layers[-1].dimensions == [4, 8]


def test_towers_with_inputs_of_their_own():
    query = ml.InputBlock(SCHEMA.select_by_name("userId")).connect(ml.MLPBlock([8]))
    item = ml.InputBlock(SCHEMA.select_by_name("movieId")).connect(ml.MLPBlock([8]))
    block = ml.TwoTowerBlock(SCHEMA, query, item)
    assert block["query"] is query
    assert block.schema.column_names == ["userId", "movieId"]
    with pytest.raises(ValueError, match=r"item_tower must be given where query_tower begins with an input block"):
        ml.TwoTowerBlock(SCHEMA, query)


def test_keras_layers_as_towers():
    block = ml.TwoTowerBlock(SCHEMA, keras.Sequential([keras.layers.Dense(8), keras.layers.Dense(4)]))
    assert block(batch())["item"].shape == (3, 4)


def test_embedding_options():
    assert towers(embedding_dim_default=5)["item"].inputs["categorical"].table("movieId").shape == (6, 5)
    options = ml.EmbeddingOptions(embedding_dims={"movieId": 3})
    block = towers(embedding_options=options)
    assert block["item"].inputs["categorical"].table("movieId").shape == (6, 3)
    with pytest.raises(ValueError, match=r"embedding_dim_default and embedding_options must not be given together"):
        towers(embedding_options=options, embedding_dim_default=5)


def test_post():
    outputs = towers(post=ml.L2Norm())(batch())
    lengths = np.linalg.norm(outputs["query"], axis=1)
    np.testing.assert_allclose(lengths[lengths > 0], 1.0, rtol=1e-5)


def test_targets_are_no_inputs():
    liked = ml.ColumnSchema.create_categorical("liked", 1, tags=[ml.Tags.ITEM, ml.Tags.TARGET])
    block = ml.TwoTowerBlock(SCHEMA.add(liked), ml.MLPBlock([8]))
    assert "liked" not in block.schema


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    try:
        outputs = towers(post=ml.L2Norm())(batch())
    finally:
        keras.config.set_dtype_policy("float32")
    assert {str(value.dtype) for value in outputs.values()} == {f"<dtype: '{policy[6:]}'>"}


def test_empty_batch():
    empty = {name: value[:0] for name, value in batch().items()}
    assert towers()(empty)["query"].shape == (0, 8)


def test_config_keeps_all():
    block = towers(post=ml.L2Norm(), embedding_dim_default=4, block_name="towers")
    block(batch())
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(block))
    assert isinstance(again, ml.TwoTowerBlock)
    again(batch())
    again.set_weights(block.get_weights())
    for name, value in block(batch()).items():
        np.testing.assert_array_equal(again(batch())[name], value)
    assert again.get_config() == block.get_config()
    assert isinstance(block.copy(), ml.TwoTowerBlock)


def test_errors():
    with pytest.raises(ValueError, match=r"The schema is required by TwoTower"):
        ml.TwoTowerBlock(None, ml.MLPBlock([8]))
    with pytest.raises(ValueError, match=r"The query_tower is required by TwoTower"):
        ml.TwoTowerBlock(SCHEMA, None)
    with pytest.raises(
        ValueError, match=r"The schema should contain features with the tag `item`. Received: \['userId'"
    ):
        ml.TwoTowerBlock(SCHEMA.select_by_tag(ml.Tags.USER), ml.MLPBlock([8]))
    with pytest.raises(ValueError, match=r"The schema should contain features with the tag `user`"):
        ml.TwoTowerBlock(SCHEMA.select_by_tag(ml.Tags.ITEM), ml.MLPBlock([8]))
    with pytest.raises(ValueError, match=r"missing: \['genres', 'movieId'\]"):
        towers()({"userId": batch()["userId"], "age": batch()["age"]})


class TestDualEncoder:
    def make(self, **kwargs):
        left, right = (
            ml.InputBlock(SCHEMA.select_by_name(name)).connect(ml.MLPBlock([4])) for name in ("userId", "movieId")
        )
        return ml.DualEncoderBlock(left, right, left_name="query", right_name="candidate", **kwargs)

    def test_outputs_and_config(self):
        block = self.make()
        assert block.is_input
        assert sorted(block(batch())) == ["candidate", "query"]
        assert block["candidate"] is block.right
        again = ml.DualEncoderBlock.from_config(block.get_config())
        assert list(again) == ["query", "candidate"]

    def test_aggregation(self):
        assert self.make(aggregation="cosine")(batch()).shape == (3, 1)

    def test_names_must_differ(self):
        with pytest.raises(ValueError, match=r"left_name and right_name must differ. Received: 'a' twice"):
            ml.DualEncoderBlock(ml.MLPBlock([4]), ml.MLPBlock([4]), "a", "a")
