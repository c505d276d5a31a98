"""EmbeddingBagCollection over a schema: its tables, their files, and penalties on what a batch reads."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from merlin_models.layers import (
    DotInteraction,
    EmbeddingBagCollection,
    EmbeddingOptions,
    FeatureConfig,
    TableConfig,
    TensorInitializer,
    infer_embedding_dim,
)
from merlin_models.ops import record_lookups
from merlin_models.optimizers import RowSparse, RowSparseTraining
from merlin_models.optimizers.row_sparse import is_table
from merlin_models.schema import ColumnSchema, Domain, Schema, Tags

MOVIES = Domain(0, 9, "movies", True)
SCHEMA = Schema(
    [
        ColumnSchema("seen", np.int64, ("categorical",), MOVIES, value_count=(0, 5)),
        ColumnSchema("movie", np.int64, ("categorical", "item_id"), MOVIES),
        ColumnSchema.create_categorical("user", 9999, tags=[Tags.USER_ID]),
    ]
)
SEEN = np.array([[1, 2, 2], [5, 0, 0], [0, 0, 0]])
INPUTS = {"seen": SEEN, "movie": np.array([2, 0, 9]), "user": np.array([7, 7, 8])}


def by_hand(table: np.ndarray, ids) -> float:
    return float(np.sum(np.square(table[np.asarray(ids, np.int64)])))


# ---- from a schema ----


def test_tables_of_a_schema():
    options = EmbeddingOptions(embedding_dims={"seen": 3}, infer_embedding_sizes=True, combiner="sum")
    layer = EmbeddingBagCollection.from_schema(SCHEMA, options)
    shapes = {name: tuple(table.shape) for name, table in layer.tables.items()}
    assert shapes == {"movies": (10, 3), "user": (10_000, 20)}  # ceil(10000 ** 0.25 * 2)
    assert infer_embedding_dim(SCHEMA["user"], 2.0, multiple_of_8=False) == 20
    assert layer.table("seen") is layer.table("movie") is layer.table("movies")
    out = layer(INPUTS)
    movies = layer.table("movies").numpy()
    assert list(out) == ["movie", "seen", "user"]
    np.testing.assert_array_equal(out["movie"], movies[[2, 0, 9]])  # id 0 is padding in lists only
    np.testing.assert_allclose(out["seen"], [movies[1] + 2 * movies[2], movies[5], 0 * movies[0]], rtol=1e-6)
    concat = EmbeddingBagCollection.from_schema(SCHEMA, options, output="concat", name="tables")
    assert concat(INPUTS).shape == (3, 3 + 3 + 20)
    assert concat.name == "tables"


def test_defaults_and_tags():
    layer = EmbeddingBagCollection.from_schema(SCHEMA, tags=Tags.USER_ID)
    assert [feature.name for feature in layer.features] == ["user"]
    assert layer.table_config("user").output_dim == 64
    assert not layer.penalizes


@pytest.mark.parametrize("policy", ["float16", "mixed_float16", "bfloat16"])
def test_dtype_policies(policy):
    layer = EmbeddingBagCollection.from_schema(
        SCHEMA, EmbeddingOptions(embedding_dim_default=8, embeddings_rows_l2_reg=0.5), dtype=policy
    )
    out = layer(INPUTS)
    compute = policy.removeprefix("mixed_")
    assert {keras.backend.standardize_dtype(vectors.dtype) for vectors in out.values()} == {compute}
    movies, user = (keras.ops.convert_to_numpy(keras.ops.cast(layer.table(n), "float32")) for n in ("movies", "user"))
    expected = by_hand(movies, [1, 2, 2, 5]) + by_hand(movies, INPUTS["movie"]) + by_hand(user, INPUTS["user"])
    assert float(sum(layer.losses)) == pytest.approx(0.5 * expected, rel=1e-5)
    assert all(loss.dtype == "float32" for loss in layer.losses)


def test_schemas_that_do_not_fit():
    make = EmbeddingBagCollection.from_schema
    with pytest.raises(ValueError, match=r"schema must have a column for an embedding. Received: none"):
        make(SCHEMA, tags=Tags.SESSION)
    with pytest.raises(ValueError, match=r"must have an int_domain"):
        make(Schema([ColumnSchema.create_continuous("age")]))
    with pytest.raises(ValueError, match=r"embeddings_rows_l2_reg must agree for features of one table, 'movies'"):
        make(SCHEMA, EmbeddingOptions(embeddings_rows_l2_reg={"seen": 0.1, "movie": 0.2}))
    with pytest.raises(ValueError, match=r"rows_l2_reg of table 'movies' must not be negative"):
        make(SCHEMA, EmbeddingOptions(embeddings_rows_l2_reg={"seen": -0.1}))


# ---- files ----


def test_parquet_out_and_in(tmp_path):
    options = EmbeddingOptions(embedding_dim_default=4)
    layer = EmbeddingBagCollection.from_schema(SCHEMA, options)
    values = layer.table("movies").numpy()
    layer.export_embedding_table("seen", tmp_path / "movies.parquet")
    np.testing.assert_array_equal(layer.embedding_table_df("movie").to_numpy(), values)
    np.testing.assert_allclose(np.linalg.norm(layer.embedding_table_df("movies", True), axis=1), 1.0, rtol=1e-6)
    fresh = EmbeddingBagCollection.from_schema(SCHEMA, options, dtype="float16")
    fresh.load_embedding_table("movies", tmp_path / "movies.parquet")
    np.testing.assert_array_equal(fresh.table("movies").numpy(), values.astype(np.float16))
    pretrained = TensorInitializer.from_dataset(tmp_path / "movies.parquet")
    chosen = EmbeddingOptions(embedding_dim_default=4, embeddings_initializers={"movie": pretrained})
    np.testing.assert_array_equal(EmbeddingBagCollection.from_schema(SCHEMA, chosen).table("seen").numpy(), values)
    with pytest.raises(ValueError, match=r"data must have the shape of table 'seen', \(10, 4\). Received: \(3, 4\)"):
        fresh.load_embedding_table("seen", np.zeros((3, 4)))
    with pytest.raises(KeyError, match=r"no feature 'nothing'"):
        fresh.export_embedding_table("nothing", tmp_path / "nothing.parquet")


# ---- penalties ----


def penalized(combiner="mean", output="dict", padding=0, factor=0.5, **table) -> EmbeddingBagCollection:
    movies = TableConfig("movies", 10, 4, combiner, rows_l2_reg=factor, **table)
    free = TableConfig("free", 10, 3, combiner)
    features = [FeatureConfig("seen", movies, padding), FeatureConfig("movie", movies), FeatureConfig("user", free)]
    return EmbeddingBagCollection(features, output)


RAGGED = tf.RaggedTensor.from_row_lengths(tf.constant([1, 2, 2, 5], tf.int64), [3, 1, 0])


@pytest.mark.parametrize("output", ["dict", "concat"])
@pytest.mark.parametrize("combiner", ["sum", "mean", "sqrtn", "max"])
def test_every_row_that_is_looked_up_counts(combiner, output):
    layer = penalized(combiner, output)
    inputs = {**INPUTS, "user": np.array([1, 2, 3])}
    layer(inputs)
    table = layer.table("movies").numpy()
    expected = 0.5 * (by_hand(table, [1, 2, 2, 5]) + by_hand(table, [2, 0, 9]))
    assert float(sum(layer.losses)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("form", ["int32", "ragged", "sparse", "pair", "weights", "empty"])
def test_rows_in_every_form(form):
    ids = {
        "int32": SEEN.astype(np.int32),
        "ragged": RAGGED,
        "sparse": RAGGED.to_sparse(),
        "pair": (RAGGED.values, RAGGED.row_splits),
        "weights": RAGGED,
        "empty": np.zeros((0, 3), np.int64),
    }[form]
    weights = {"seen": RAGGED.with_values(tf.constant([0.0, 2.0, -1.0, 3.0]))} if form == "weights" else None
    layer = penalized()
    others = {name: INPUTS["movie"][: 0 if form == "empty" else 3] for name in ("movie", "user")}
    layer({"seen": ids, **others}, weights)
    table = layer.table("movies").numpy()
    expected = 0.0 if form == "empty" else 0.5 * (by_hand(table, [1, 2, 2, 5]) + by_hand(table, [2, 0, 9]))
    assert float(sum(layer.losses)) == pytest.approx(expected, rel=1e-6)


def test_a_weight_of_a_single_id_does_not_weigh_its_row():
    layer = penalized()
    weights = {"movie": np.array([0.0, 2.0, 3.0], np.float32)}
    layer({**INPUTS, "seen": np.zeros((3, 1), np.int64), "user": np.array([1, 2, 3])}, weights)
    expected = 0.5 * by_hand(layer.table("movies").numpy(), INPUTS["movie"])
    assert float(sum(layer.losses)) == pytest.approx(expected, rel=1e-6)


def test_small_penalties_survive_half_precision():
    """Rows are squared in float32: under mixed_float16 a factor of 1e-6 still moves them."""
    table = TableConfig("movies", 10, 4, rows_l2_reg=1e-6)
    layer = EmbeddingBagCollection([FeatureConfig("movie", table)], dtype="mixed_float16")
    with tf.GradientTape() as tape:
        layer({"movie": INPUTS["movie"]})
        loss = tf.add_n(layer.losses)
    gradient = tape.gradient(loss, layer.table("movies").value)
    rows = layer.table("movies").numpy()[gradient.indices.numpy()]
    np.testing.assert_allclose(gradient.values, 2e-6 * rows, rtol=1e-5)


def test_gradient_has_the_rows_of_the_batch():
    layer = penalized()
    inputs = {**INPUTS, "user": np.array([1, 2, 3])}
    with tf.GradientTape() as tape:
        layer(inputs)
        loss = tf.add_n(layer.losses)
    gradient = tape.gradient(loss, layer.table("movies").value)
    assert isinstance(gradient, tf.IndexedSlices)
    assert sorted(set(gradient.indices.numpy())) == [0, 1, 2, 5, 9]
    counts = np.bincount([1, 2, 2, 5, 2, 0, 9], minlength=10)[:, np.newaxis]
    np.testing.assert_allclose(tf.convert_to_tensor(gradient), counts * layer.table("movies").numpy(), rtol=1e-6)


class Recommender(RowSparseTraining, keras.Model):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.head = layer, keras.layers.Dense(1)

    def call(self, inputs):
        return self.head(keras.ops.concatenate(list(self.layer(inputs).values()), axis=-1))


def trained(optimizer, layer):
    keras.utils.set_random_seed(1)
    model = Recommender(layer)
    inputs = {**INPUTS, "user": np.array([1, 2, 3])}
    model(inputs)
    before = model.layer.table("movies").numpy()
    model.compile(optimizer, loss="mse", jit_compile=False)
    model.fit(inputs, np.array([1.0, -1.0, 2.0]), batch_size=3, epochs=2, shuffle=False, verbose=0)
    return model, before


def test_training_by_rows_equals_that_of_all_rows():
    """The penalty does not turn training by rows off, and gives what a dense step gives."""
    ours, before = trained(RowSparse(keras.optimizers.SGD(0.1)), penalized())
    theirs, _ = trained(keras.optimizers.SGD(0.1), penalized())
    free, _ = trained(RowSparse(keras.optimizers.SGD(0.1)), penalized(factor=0.0))
    for one, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-5, atol=1e-6)
    after = ours.layer.table("movies").numpy()
    assert np.flatnonzero((after != before).any(axis=1)).tolist() == [0, 1, 2, 5, 9]
    assert np.linalg.norm(after) < np.linalg.norm(free.layer.table("movies").numpy())
    assert is_table(ours.layer.table("movies"))


def test_the_step_by_rows_gets_the_penalty_without_a_gradient_of_the_table():
    layer = penalized()
    layer.build()
    with tf.GradientTape() as tape, record_lookups(tape, is_table) as recorder:
        layer({**INPUTS, "user": np.array([1, 2, 3])})
        loss = tf.add_n(layer.losses)
    assert tape.gradient(loss, layer.table("movies").value) is None
    assert [len(lookup.features) for lookup in recorder.lookups] == [3, 1]  # bags of one id are not looked up again


def test_frozen_rows_are_not_penalized():
    layer = penalized(trainable=False)
    layer({**INPUTS, "user": np.array([1, 2, 3])})
    assert not layer.losses


@pytest.mark.parametrize("output", ["dict", "concat"])
@pytest.mark.parametrize("l2_reg", [0.1, {"seen": 0.1, "user": 0.2}])
def test_penalty_on_outputs(output, l2_reg):
    options = EmbeddingOptions(embedding_dim_default=4, embeddings_l2_reg=0.1)
    layer = EmbeddingBagCollection.from_schema(SCHEMA, options, l2_reg=l2_reg, output=output)
    out = layer(INPUTS)
    parts = out if output == "dict" else dict(zip(["movie", "seen", "user"], np.split(out, 3, axis=1), strict=True))
    factors = l2_reg if isinstance(l2_reg, dict) else dict.fromkeys(parts, l2_reg)
    expected = sum(factor * np.sum(np.square(parts[name])) for name, factor in factors.items())
    assert float(sum(layer.losses)) == pytest.approx(expected, rel=1e-5)
    assert EmbeddingBagCollection.from_schema(SCHEMA, options).l2_reg == 0.1


def test_fused_interaction_does_not_lose_penalties(monkeypatch):
    monkeypatch.setattr("merlin_models.layers.dot_interaction.fuses_here", lambda: True)
    inputs = {name: INPUTS["movie"] for name in ("seen", "movie")}
    for options, fused in (({}, True), ({"rows_l2_reg": 0.1}, False)):
        table = TableConfig("movies", 10, 16, **options)
        layer = EmbeddingBagCollection([FeatureConfig("seen", table), FeatureConfig("movie", table)])
        layer.build()
        assert (DotInteraction().of_lookups(layer, inputs) is not None) == fused


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf"), "0.1", True])
def test_wrong_factors(wrong):
    with pytest.raises(ValueError, match=r"rows_l2_reg of table 'movies' must not be negative, and be a finite number"):
        TableConfig("movies", 10, 4, rows_l2_reg=wrong)
    with pytest.raises(ValueError, match=r"l2_reg must not be negative, and be a finite number"):
        EmbeddingBagCollection([FeatureConfig("a", TableConfig("a", 10, 4))], l2_reg=wrong)
    with pytest.raises(ValueError, match=r"l2_reg must be given for features of the layer, \['a'\]. Received: \['b'\]"):
        EmbeddingBagCollection([FeatureConfig("a", TableConfig("a", 10, 4))], l2_reg={"b": 0.1})


# ---- saving ----


@pytest.mark.parametrize("l2_reg", [0.0, {"seen": 0.25}])
def test_config_and_file(tmp_path, l2_reg):
    options = EmbeddingOptions(
        embedding_dim_default=4,
        embeddings_rows_l2_reg=0.5,
        embeddings_initializers={"movie": TensorInitializer(np.eye(10, 4))},
    )
    layer = EmbeddingBagCollection.from_schema(SCHEMA, options, output="concat", l2_reg=l2_reg)
    assert EmbeddingBagCollection.from_config(layer.get_config()).get_config() == layer.get_config()
    old = layer.get_config()
    old.pop("l2_reg")
    old["tables"] = [{k: v for k, v in table.items() if k != "rows_l2_reg"} for table in old["tables"]]
    assert not EmbeddingBagCollection.from_config(old).penalizes  # a file from before these options
    ids = {
        name: keras.Input(shape, dtype="int64", name=name)
        for name, shape in [("seen", (3,)), ("movie", ()), ("user", ())]
    }
    model = keras.Model(ids, keras.layers.Dense(1)(layer(ids)))
    model.compile("sgd", "mse")
    target = np.ones((3, 1))
    model.fit(INPUTS, target, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(INPUTS, verbose=0), model.predict(INPUTS, verbose=0))
    assert again.evaluate(INPUTS, target, verbose=0) == pytest.approx(model.evaluate(INPUTS, target, verbose=0))
    assert next(x for x in again.layers if isinstance(x, EmbeddingBagCollection)).get_config() == layer.get_config()


def test_embedding_options_are_of_their_class():
    with pytest.raises(TypeError, match=r"embedding_options must be EmbeddingOptions\. Received: \{'infer"):
        EmbeddingBagCollection.from_schema(SCHEMA, {"infer_embedding_sizes": True})
