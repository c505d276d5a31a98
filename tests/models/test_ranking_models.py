"""Ranking models from a schema: DLRM, DCN, DeepFM, Wide & Deep, NCF: built, trained, saved, in mixed precision."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import merlin_models.tf as ml

SCHEMA = ml.Schema(
    [
        ml.ColumnSchema.create_categorical("user", 30, tags=[ml.Tags.USER_ID]),
        ml.ColumnSchema.create_categorical("movie", 40, tags=[ml.Tags.ITEM_ID]),
        ml.ColumnSchema.create_categorical("genres", 8, value_count=(0, 4), tags=[ml.Tags.ITEM]),
        ml.ColumnSchema.create_categorical("color", 5),
        ml.ColumnSchema.create_continuous("age"),
        ml.ColumnSchema.create_continuous("price"),
        # A target that is tagged categorical, too, as in the e-commerce data.
        ml.ColumnSchema.create_categorical("click", 1, tags=[ml.Tags.TARGET, ml.Tags.BINARY_CLASSIFICATION]),
    ]
)


def data(rows=512, seed=3):
    rng = np.random.default_rng(seed)
    x = {
        "user": rng.integers(1, 31, (rows, 1)),
        "movie": rng.integers(1, 41, (rows, 1)),
        "genres": rng.integers(0, 9, (rows, 4)),
        "color": rng.integers(0, 6, (rows, 1)),
        "age": rng.normal(size=(rows, 1)).astype(np.float32),
        "price": rng.normal(size=(rows, 1)).astype(np.float32),
    }
    y = ((x["user"] % 3 == 0) ^ (x["movie"] % 2 == 0) ^ (x["age"] > 0)).astype(np.int64)
    return x, y


def wide_and_deep(**options):
    return ml.WideAndDeepModel(SCHEMA, ml.MLPBlock([16]), **options)


def residual():
    inputs = ml.InputBlock(SCHEMA, embedding_options=ml.EmbeddingOptions(embedding_dim_default=8))
    mlp = ml.MLPBlock([16, 8], activation=["relu", None], dropout=0.1, normalization="batch_norm")
    return ml.Model(
        ml.ContinuousEmbedding(inputs, ml.MLPBlock([4]), aggregation="concat"),
        ml.DenseResidualBlock(low_rank_dim=4, dropout=0.1, depth=2),
        mlp,
        ml.BinaryClassificationTask("click"),
    )


def crosses():
    ids = SCHEMA.select_by_name(["user", "movie", "color"])
    wide = ml.HashedCrossAll(ids, 64, max_level=3, aggregation="concat")
    rest = ml.ContinuousFeatures(schema=SCHEMA.select_by_name("age"), aggregation="concat")
    body = ml.ParallelBlock({"wide": wide, "rest": rest}, aggregation="concat", is_input=True)
    return ml.Model(body, ml.CrossBlock(2), ml.MLPBlock([16]), ml.BinaryClassificationTask("click"))


def interactions():
    ids = SCHEMA.remove_by_tag(ml.Tags.TARGET).select_by_tag(ml.Tags.CATEGORICAL)
    options = ml.EmbeddingOptions(embedding_dim_default=8)
    vectors = ml.EmbeddingFeatures.from_schema(ids, options, aggregation=ml.StackFeatures(axis=1))
    pairs = {
        "plain": ml.DotProductInteraction(self_interaction=True),
        "bilinear": ml.DotProductInteraction("field_interaction"),
        "machine": ml.FMPairwiseInteraction(),
    }
    branches = {
        "pairs": vectors.connect(ml.ParallelBlock(pairs, aggregation="concat")),
        "rest": ml.ContinuousFeatures(schema=SCHEMA.select_by_name("age"), aggregation="concat"),
    }
    body = ml.ParallelBlock(branches, aggregation="concat", is_input=True)
    return ml.Model(body, ml.MLPBlock([16]), ml.BinaryClassificationTask("click"))


CROSSED = SCHEMA.select_by_name(["user", "movie"])
MODELS = {
    "dlrm": lambda: ml.DLRMModel(SCHEMA, bottom_block=ml.MLPBlock([16, 8]), top_block=ml.MLPBlock([16])),
    "dcn": lambda: ml.DCNModel(SCHEMA, depth=2, deep_block=ml.MLPBlock([16])),
    "dcn_parallel": lambda: ml.DCNModel(
        SCHEMA, 2, ml.MLPBlock([16]), stacked=False, cross_block=ml.CrossBlock(2, low_rank_dim=4)
    ),
    "deepfm": lambda: ml.DeepFMModel(SCHEMA, embedding_dim=8, deep_block=ml.MLPBlock([16])),
    "wide_and_deep": wide_and_deep,
    "wide_and_deep_crossed": lambda: wide_and_deep(
        wide_schema=CROSSED, wide_preprocess=ml.HashedCross(CROSSED, 64, sparse=True)
    ),
    "wide_and_deep_encoded": lambda: wide_and_deep(wide_preprocess=ml.CategoryEncoding(CROSSED, sparse=True)),
    "ncf": lambda: ml.NCFModel(SCHEMA, embedding_dim=8, mlp_block=ml.MLPBlock([16, 8])),
    "residual": residual,
    "crosses": crosses,
    "interactions": interactions,
}


@pytest.fixture(params=list(MODELS))
def make(request):
    def make_model():
        keras.utils.set_random_seed(11)
        return MODELS[request.param]()

    return make_model


def test_learns_and_is_restored(make, tmp_path):
    x, y = data()
    model = make()
    model.compile(optimizer=keras.optimizers.Adam(0.02))
    history = model.fit(x, y, batch_size=64, epochs=6, verbose=0).history
    assert history["loss"][-1] < 0.95 * history["loss"][0]
    assert history["loss"][-1] < 0.67
    predictions = model(x).numpy()
    assert predictions.shape == (512, 1)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), predictions)
    assert int(again.optimizer.iterations) == int(model.optimizer.iterations)
    for one, other in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one, other)


def test_config_round_trip(make):
    model = make()
    config = model.get_config()
    again = ml.Model.from_config(config)
    shapes = sorted(tuple(weight.shape) for weight in model.weights)
    assert sorted(tuple(weight.shape) for weight in again.weights) == shapes
    assert len(shapes) > 3


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(make, policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = make()
    finally:
        keras.config.set_dtype_policy("float32")
    x, y = data(256)
    model.compile(optimizer=keras.optimizers.Adam(0.02))
    history = model.fit(x, y, batch_size=64, epochs=5, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < history["loss"][0]
    assert model(x).dtype == "float32"
    assert {weight.dtype for weight in model.trainable_weights} == {"float32"}


def test_other_forms_of_inputs(make):
    x, y = data(16)
    model = make()
    flat = {name: value if name == "genres" else value[:, 0] for name, value in x.items()}
    np.testing.assert_allclose(model(flat), model(x), rtol=1e-5, atol=1e-6)
    narrow = {**x, "user": x["user"].astype(np.int32), "movie": x["movie"].astype(np.int32)}
    narrow["genres"] = x["genres"].astype(np.int32)
    np.testing.assert_allclose(model(narrow), model(x), rtol=1e-5, atol=1e-6)
    assert model({name: value[:0] for name, value in x.items()}).shape == (0, 1)
    with pytest.raises(ValueError, match=r"Inputs must have all features of the model"):
        model({name: value for name, value in x.items() if name != "user"})
    model.compile("sgd")
    assert np.isfinite(model.evaluate(x, {"click": y}, verbose=0, return_dict=True)["loss"])


def test_the_wide_part_sees_its_schema_alone():
    encoding = ml.CategoryEncoding(CROSSED, sparse=True)
    model = wide_and_deep(wide_schema=CROSSED, wide_preprocess=encoding)
    x, _ = data(8)
    assert model(x).shape == (8, 1)
    with pytest.raises(ValueError, match=r"Inputs must have the features .* missing: \['movie'\]"):
        wide_and_deep(wide_schema=SCHEMA.select_by_name("user"), wide_preprocess=encoding)
    linear = wide_and_deep(wide_schema=SCHEMA.select_by_name("user"))
    (weights,) = [w for w in linear.weights if "linear_features" in w.path and w.shape[-1] == 1 and len(w.shape) == 2]
    assert weights.shape == (31, 1)


def test_wrong_arguments():
    options = ml.EmbeddingOptions(embedding_dim_default=8)
    inputs = ml.InputBlock(SCHEMA)
    with pytest.raises(ValueError, match="input_block and embedding_options must not be given together"):
        ml.DCNModel(SCHEMA, 2, input_block=inputs, embedding_options=options)
    with pytest.raises(ValueError, match="input_block and embedding_options must not be given together"):
        wide_and_deep(deep_input_block=inputs, embedding_options=options)
    with pytest.raises(ValueError, match=r"Number of cross layers \(depth\) should be positive but is 0"):
        ml.DCNModel(SCHEMA, 0)
    with pytest.raises(ValueError, match="embedding_dim and embedding_options must not be given together"):
        ml.DeepFMModel(SCHEMA, 8, embedding_options=options)
