"""EmbeddingBag and EmbeddingBagCollection: values, config, save and load, training, mixed precision, wrong input."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from merlin_models.layers import EmbeddingBag, EmbeddingBagCollection, FeatureConfig, TableConfig

MOVIES = TableConfig("movie", 50, 8, combiner="sum")
GENRES = TableConfig("genre", 7, 4, combiner="mean")
FEATURES = [
    FeatureConfig("seen", MOVIES, padding_id=0),
    FeatureConfig("movie", MOVIES),
    FeatureConfig("genres", GENRES, padding_id=0),
]
INPUTS = {
    "movie": np.array([3, 4, 5], np.int64),
    "seen": np.array([[1, 2, 0], [0, 0, 0], [7, 7, 7]], np.int64),
    "genres": np.array([[1, 2], [3, 0], [0, 0]], np.int64),
}


@pytest.fixture(autouse=True)
def _policy():
    yield
    keras.config.set_dtype_policy("float32")


def test_collection_by_hand(device):
    with tf.device(f"/{device}:0"):
        layer = EmbeddingBagCollection(FEATURES)
        movies, genres = (layer.tables[name].numpy() for name in ("movie", "genre"))
        out = layer(INPUTS)
    assert list(out) == ["seen", "movie", "genres"]
    np.testing.assert_allclose(out["movie"], movies[[3, 4, 5]])
    np.testing.assert_allclose(out["seen"], [movies[1] + movies[2], 0 * movies[0], 3 * movies[7]], rtol=1e-6)
    np.testing.assert_allclose(out["genres"], [(genres[1] + genres[2]) / 2, genres[3], 0 * genres[0]], rtol=1e-6)
    assert len(layer.weights) == 2  # two features share one table


def test_collection_concat_is_the_same(device):
    with tf.device(f"/{device}:0"):
        layer = EmbeddingBagCollection(FEATURES, output="concat")
        parts = EmbeddingBagCollection(FEATURES)
        for name, table in parts.tables.items():
            table.assign(layer.tables[name])
        expected = np.concatenate([parts(INPUTS)[f.name] for f in FEATURES], axis=1)
        np.testing.assert_array_equal(layer(INPUTS), expected)


def test_weights_reach_the_op():
    layer = EmbeddingBagCollection([FeatureConfig("seen", MOVIES)])
    weights = np.array([[0.5, 2.0, 0.0]], np.float32)
    out = layer({"seen": INPUTS["seen"][:1]}, weights={"seen": weights})["seen"]
    table = layer.tables["movie"].numpy()
    np.testing.assert_allclose(out[0], 0.5 * table[1] + 2.0 * table[2], rtol=1e-6)


@pytest.mark.parametrize("combiner", ["sum", "mean", "sqrtn", "max"])
@pytest.mark.parametrize("form", ["dense", "ragged", "sparse", "csr"])
def test_bag_layer_forms(combiner, form):
    layer = EmbeddingBag(20, 4, combiner=combiner, padding_id=0 if form == "dense" else None)
    ragged = tf.ragged.constant([[1, 2], [3]], dtype=tf.int64)
    ids = {
        "dense": ragged.to_tensor(),
        "ragged": ragged,
        "sparse": ragged.to_sparse(),
        "csr": (ragged.values, ragged.row_splits),
    }[form]
    out = layer(ids)
    rows = layer.embeddings.numpy()
    two = {
        "sum": rows[1] + rows[2],
        "mean": (rows[1] + rows[2]) / 2,
        "sqrtn": (rows[1] + rows[2]) / np.sqrt(2),
        "max": np.maximum(rows[1], rows[2]),
    }[combiner]
    np.testing.assert_allclose(out, [two, rows[3]], rtol=1e-6)


def test_config_round_trip():
    layer = EmbeddingBagCollection(FEATURES, output="concat", name="tables")
    again = EmbeddingBagCollection.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.features[0].table == again.features[1].table
    bag = EmbeddingBag(9, 3, "sqrtn", "zeros", "l2", "non_neg", padding_id=4, embeddings_dtype="bfloat16")
    assert EmbeddingBag.from_config(bag.get_config()).get_config() == bag.get_config()


def functional(layer) -> keras.Model:
    inputs = {
        "movie": keras.Input((), dtype="int64", name="movie"),
        "seen": keras.Input((3,), dtype="int64", name="seen"),
        "genres": keras.Input((2,), dtype="int64", name="genres"),
    }
    out = layer(inputs)
    if isinstance(out, dict):
        out = keras.layers.Concatenate()(list(out.values()))
    return keras.Model(inputs, keras.layers.Dense(1, dtype="float32")(out))


@pytest.mark.parametrize("output", ["dict", "concat"])
@pytest.mark.parametrize("eager", [False, True])
def test_functional_fit_save_load(tmp_path, device, output, eager):
    keras.utils.set_random_seed(1)
    with tf.device(f"/{device}:0"):
        model = functional(EmbeddingBagCollection(FEATURES, output=output))
        model.compile(keras.optimizers.Adam(0.05), "mse", run_eagerly=eager)
        target = np.array([[1.0], [-1.0], [2.0]])
        first = model.evaluate(INPUTS, target, verbose=0)
        model.fit(INPUTS, target, epochs=20, verbose=0)
        assert model.evaluate(INPUTS, target, verbose=0) < 0.3 * first
        model.save(tmp_path / "model.keras")
        model.save_weights(tmp_path / "model.weights.h5")
        expected = model.predict(INPUTS, verbose=0)
        loaded = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(loaded.predict(INPUTS, verbose=0), expected)
        fresh = functional(EmbeddingBagCollection(FEATURES, output=output))
        fresh.load_weights(tmp_path / "model.weights.h5")
        np.testing.assert_array_equal(fresh.predict(INPUTS, verbose=0), expected)


def test_only_touched_rows_move_under_sgd():
    model = functional(EmbeddingBagCollection(FEATURES))
    model.compile("sgd", "mse")
    table = _collection(model).tables["movie"]
    before = table.numpy()
    model.train_on_batch(INPUTS, np.array([[1.0], [-1.0], [2.0]]))
    moved = np.nonzero((table.numpy() != before).any(axis=1))[0]
    assert moved.tolist() == [1, 2, 3, 4, 5, 7]


def _collection(model) -> EmbeddingBagCollection:
    return next(layer for layer in model.layers if isinstance(layer, EmbeddingBagCollection))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16", "float16"])
@pytest.mark.parametrize("output", ["dict", "concat"])
def test_mixed_precision(device, policy, output):
    keras.config.set_dtype_policy(policy)
    with tf.device(f"/{device}:0"):
        layer = EmbeddingBagCollection(FEATURES, output=output)
        model = functional(layer)
        out = layer(INPUTS)
        compute = policy.removeprefix("mixed_")
        assert all(keras.backend.standardize_dtype(x.dtype) == compute for x in tf.nest.flatten(out))
        expected = "float32" if policy.startswith("mixed") else policy
        assert keras.backend.standardize_dtype(layer.tables["movie"].dtype) == expected
        model.compile("sgd", "mse")
        assert np.isfinite(model.train_on_batch(INPUTS, np.ones((3, 1), np.float32)))


def test_half_table_under_float32_policy():
    layer = EmbeddingBag(20, 4, embeddings_dtype="float16")
    out = layer(np.array([[1, 2]]))
    assert out.dtype == tf.float32
    assert layer.embeddings.dtype == "float16"


def test_regularizer_and_frozen_table():
    frozen = TableConfig("frozen", 5, 2, trainable=False)
    layer = EmbeddingBagCollection(
        [
            FeatureConfig("a", TableConfig("a", 5, 2, initializer="ones", regularizer=keras.regularizers.L2(0.5))),
            FeatureConfig("b", frozen),
        ]
    )
    layer({"a": np.array([1]), "b": np.array([1])})
    assert float(sum(layer.losses)) == pytest.approx(5.0)
    assert [w.name for w in layer.trainable_weights] == ["a"]
    layer.trainable = False
    layer.trainable = True  # Keras passes on changes only
    assert [w.name for w in layer.trainable_weights] == ["a", "frozen"]
    layer.tables["a"].trainable = False
    again = EmbeddingBagCollection.from_config(layer.get_config())
    assert [name for name, table in again.tables.items() if table.trainable] == ["frozen"]


def test_ragged_symbolic_and_in_tf_function():
    layer = EmbeddingBag(20, 4)

    @tf.function(input_signature=[tf.RaggedTensorSpec((None, None), tf.int32)])
    def call(ids):
        return layer(ids)

    assert call(tf.ragged.constant([[1, 2], []], dtype=tf.int32)).shape == (2, 4)


def test_explicit_xla_warns_and_runs_without():
    """The op has no XLA kernel: the layer says so, and Keras warns and goes on without XLA."""
    model = functional(EmbeddingBagCollection(FEATURES))
    with pytest.warns(UserWarning, match="doesn't support `jit_compile=True`"):
        model.compile("sgd", "mse", jit_compile=True)
    assert np.isfinite(model.train_on_batch(INPUTS, np.ones((3, 1))))
    model.compile("sgd", "mse", jit_compile="auto")
    assert model.jit_compile is False


OTHER = TableConfig("movie", 51, 8, combiner="sum")
WRONG = [
    (lambda: TableConfig("t", 0, 4), ValueError, "input_dim of table 't' must be a positive integer. Received: 0"),
    (lambda: TableConfig("t", 4, 4, combiner="x"), ValueError, "combiner of table 't' must be one of"),
    (lambda: TableConfig("t", 4, 4, dtype="float64"), ValueError, "dtype of table 't' must be one of"),
    (lambda: EmbeddingBagCollection([]), ValueError, "features must hold at least one FeatureConfig"),
    (lambda: EmbeddingBagCollection(FEATURES, output="list"), ValueError, "output must be 'dict' or 'concat'"),
    (lambda: EmbeddingBagCollection([FEATURES[0], FEATURES[0]]), ValueError, "Names of features must be unique"),
    (
        lambda: EmbeddingBagCollection([FEATURES[0], FeatureConfig("x", OTHER)]),
        ValueError,
        "two different tables named 'movie'",
    ),
    (lambda: EmbeddingBagCollection(FEATURES)({"movie": np.array([1])}), ValueError, r"missing: \['seen', 'genres'\]"),
    (lambda: EmbeddingBag(0, 4), ValueError, "input_dim must be a positive integer. Received: 0"),
    (lambda: EmbeddingBag(4, 4, combiner="x"), ValueError, "combiner must be one of"),
    (lambda: EmbeddingBag(4, 4, embeddings_dtype="int8"), ValueError, "embeddings_dtype must be one of"),
    (lambda: EmbeddingBag(4, 4)(np.array([1.5])), TypeError, "must have dtype int32 or int64"),
    (
        lambda: EmbeddingBagCollection(FEATURES)(INPUTS, weights={"other": 1}),
        ValueError,
        r"weights must belong to one of the features .* Received: \['other'\]",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_wrong_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
