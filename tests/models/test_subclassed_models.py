"""Models of a user's own: a keras.Model with blocks in it, which Keras loads before it has seen a batch, and an ml.Model."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import merlin_models.tf as ml
from merlin_models.optimizers import RowSparse, RowSparseTraining

SCHEMA = ml.Schema(
    [
        ml.ColumnSchema.create_categorical("u", 20, tags=[ml.Tags.USER_ID]),
        ml.ColumnSchema.create_categorical("i", 30, tags=[ml.Tags.ITEM_ID]),
        ml.ColumnSchema.create_categorical("seen", 30, value_count=(0, 3), tags=[ml.Tags.USER]),
        ml.ColumnSchema.create_continuous("x", tags=[ml.Tags.ITEM]),
    ]
)
ONE_HOT = SCHEMA.select_by_name(["u", "i"])
SEEN = SCHEMA.select_by_name("seen")


BODIES = {
    "inputs": lambda: [ml.InputBlock(SCHEMA), ml.MLPBlock([8])],
    "dlrm": lambda: [ml.DLRMBlock(SCHEMA, embedding_dim=8, bottom_block=ml.MLPBlock([8]), top_block=ml.MLPBlock([8]))],
    "linear": lambda: [ml.LinearFeatures(SCHEMA)],
    "crosses": lambda: [ml.HashedCross(ONE_HOT, 50), ml.MLPBlock([8])],
    "towers": lambda: [ml.TwoTowerBlock(SCHEMA, query_tower=ml.MLPBlock([8])), ml.CosineSimilarity()],
    "sequence": lambda: [
        ml.Embeddings(SEEN, dim=8, sequence_combiner=None),
        ml.GPT2Block(8, 2, 1, dropout=0.0),
        ml.SequenceAggregator("mean"),
    ],
}


@keras.saving.register_keras_serializable("tests")
class Own(RowSparseTraining, keras.Model):
    def __init__(self, body, **kwargs):
        super().__init__(**kwargs)
        self.body, self.head = body, keras.layers.Dense(1)

    @classmethod
    def of(cls, name):
        return cls(ml.SequentialBlock(BODIES[name]()))

    def call(self, inputs):
        return self.head(self.body(inputs))

    def get_config(self):
        return {**super().get_config(), "body": keras.saving.serialize_keras_object(self.body)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("body")), **config)


@keras.saving.register_keras_serializable("tests")
class OwnBag(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.bag, self.head = ml.EmbeddingBag(31, 8, padding_id=0), keras.layers.Dense(1)

    def call(self, inputs):
        return self.head(self.bag(inputs["seen"]))


def rows(number=16):
    rng = np.random.default_rng(3)
    features = {name: rng.integers(1, 20, (number, 1)) for name in ("u", "i")}
    lists = rng.integers(1, 30, (number, 3)) * (np.arange(3) < rng.integers(1, 4, (number, 1)))
    return {**features, "seen": lists, "x": rng.normal(size=(number, 1)).astype(np.float32)}, rng.normal(size=number)


@pytest.mark.filterwarnings("error:Model .* had a build config", "error:Skipping variable loading")
@pytest.mark.parametrize("body", [*BODIES, "bag"])
def test_a_model_of_ones_own_is_loaded_with_its_state(body, tmp_path):
    model = OwnBag() if body == "bag" else Own.of(body)
    model.compile(RowSparse("adam"), loss="mse")
    features, targets = rows()
    model.fit(features, targets, verbose=0)
    model.save(tmp_path / "own.keras")
    loaded = keras.models.load_model(tmp_path / "own.keras")
    assert all(layer.built for layer in loaded._flatten_layers())
    np.testing.assert_array_equal(loaded.predict(features, verbose=0), model.predict(features, verbose=0))
    losses = [
        each.fit(features, targets, shuffle=False, epochs=2, verbose=0).history["loss"] for each in (model, loaded)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_data_must_have_integers_as_ids():
    model = OwnBag()
    model.compile("sgd", loss="mse")
    features, targets = rows()
    with pytest.raises(TypeError, match=r"must have dtype int32 or int64. Received: float32"):
        model.fit({"seen": features["seen"].astype(np.float32)}, targets, verbose=0)


TARGET = ml.ColumnSchema("t", np.int32, (ml.Tags.TARGET, ml.Tags.BINARY_CLASSIFICATION))


@keras.saving.register_keras_serializable("tests")
class Ranker(ml.Model):
    def __init__(self, units=(4,), scale=1.0, **kwargs):
        super().__init__(ml.InputBlock(SCHEMA), ml.MLPBlock(list(units)), ml.BinaryClassificationTask("t"), **kwargs)
        self.scale = scale

    def compute_loss(self, *args, **kwargs):
        return self.scale * super().compute_loss(*args, **kwargs)


@keras.saving.register_keras_serializable("tests")
class SchemaRanker(ml.Model):
    def __init__(self, schema):
        super().__init__(ml.InputBlock(schema), ml.MLPBlock([4]), ml.BinaryClassificationTask("t"))


@keras.saving.register_keras_serializable("tests")
class ConfiguredRanker(SchemaRanker):
    def get_config(self):
        return {"schema": self.schema.to_json()}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(ml.Schema.from_json(config["schema"]))


@pytest.mark.parametrize("make", [lambda: Ranker([6], 3.0, name="own"), Ranker, lambda: ConfiguredRanker(SCHEMA)])
def test_a_model_that_makes_its_blocks_is_loaded(make, tmp_path):
    model = make()
    model.compile("adam")
    features, targets = rows()[0], np.arange(16) % 2
    model.fit(features, targets, verbose=0)
    model.save(tmp_path / "own.keras")
    loaded = keras.models.load_model(tmp_path / "own.keras")
    assert type(loaded) is type(model)
    assert getattr(loaded, "scale", None) == getattr(model, "scale", None)
    np.testing.assert_array_equal(loaded.predict(features, verbose=0), model.predict(features, verbose=0))
    losses = [each.fit(features, targets, shuffle=False, verbose=0).history["loss"] for each in (model, loaded)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_model_whose_arguments_would_be_lost_is_not_saved(tmp_path):
    with pytest.raises(NotImplementedError, match=r"SchemaRanker must have a get_config\(\) .* arguments \['schema'\]"):
        SchemaRanker(SCHEMA).save(tmp_path / "own.keras")
