"""Cross networks, residual blocks, factorization machines, encodings and crosses: against plain formulas."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from block_data import GENRES, SCHEMA, batch

import merlin_models.tf as ml


def randomize(layer, rng):
    for weight in layer.weights:
        weight.assign(rng.normal(size=weight.shape))


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize("rank", [None, 3])
def test_cross(rng, rank):
    x = rng.normal(size=(5, 7)).astype(np.float32)
    block = ml.CrossBlock(depth=3, low_rank_dim=rank)
    block(x)
    randomize(block, rng)
    expected = wide = x.astype(np.float64)
    for layers in block.projections:
        kernel = np.eye(7)
        for layer in layers:
            kernel = kernel @ layer.kernel.numpy().astype(np.float64)
        expected = wide * (expected @ kernel + layers[-1].bias.numpy()) + expected
    np.testing.assert_allclose(block(x), expected, rtol=1e-4, atol=1e-3)
    assert len(block.projections) == 3
    again = ml.CrossBlock.from_config(block.get_config())
    assert again(x).shape == (5, 7)


def test_cross_on_dictionaries():
    inputs = {"b": np.ones((4, 2), np.float32), "a": np.zeros((4, 3), np.float32), "c": np.ones((4, 9), np.float32)}
    assert ml.CrossBlock(2)(inputs).shape == (4, 14)
    assert ml.CrossBlock(2, filter=["a", "b"])(inputs).shape == (4, 5)
    assert ml.CrossBlock(2).compute_output_shape((None, 6)) == (None, 6)


@pytest.mark.parametrize("depth", [0, -1])
def test_cross_depth_must_be_positive(depth):
    with pytest.raises(ValueError, match=rf"Number of cross layers \(depth\) should be positive but is {depth}"):
        ml.CrossBlock(depth)
    with pytest.raises(ValueError, match="depth must be a positive integer"):
        ml.DenseResidualBlock(depth=depth)


def test_wrong_options():
    with pytest.raises(ValueError, match=r"low_rank_dim must be a positive integer or None. Received: 0"):
        ml.CrossBlock(low_rank_dim=0)
    with pytest.raises(ValueError, match=r"dropout must be None or in \[0, 1\). Received: 1.5"):
        ml.DenseResidualBlock(dropout=1.5)
    with pytest.raises(ValueError, match=r"normalization must be 'batch_norm' or None. Received: 'layer'"):
        ml.DenseResidualBlock(normalization="layer")


@pytest.mark.usefixtures("on_device")
def test_dense_residual(rng):
    x = rng.normal(size=(6, 5)).astype(np.float32)
    block = ml.DenseResidualBlock(normalization=None, depth=2, activation="tanh", low_rank_dim=2)
    block(x)
    randomize(block, rng)
    expected = x.astype(np.float64)
    for layers in block.residuals:
        expected = np.tanh(
            expected + expected @ layers[0].kernel.numpy() @ layers[1].kernel.numpy() + layers[1].bias.numpy()
        )
    np.testing.assert_allclose(block(x), expected, rtol=1e-4, atol=1e-5)
    full = ml.DenseResidualBlock(dropout=0.2, depth=2)
    assert full(x, training=True).shape == (6, 5)
    assert len(full.non_trainable_weights) == 2 * 2  # moving means and variances
    assert ml.DenseResidualBlock.from_config(full.get_config()).get_config() == full.get_config()


@pytest.mark.usefixtures("on_device")
def test_factorization_machine(rng):
    x = rng.normal(size=(4, 5, 3)).astype(np.float32)
    expected = sum(x[:, i].astype(np.float64) * x[:, j] for i in range(5) for j in range(i))
    np.testing.assert_allclose(ml.FMPairwiseInteraction()(x), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"inputs must have shape \(batch, features, dim\). Received: \(.*, 5\)"):
        ml.FMPairwiseInteraction()(x[:, :, 0])


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize("kind", [None, "field_all", "field_each", "field_interaction"])
@pytest.mark.parametrize("self_interaction", [False, True])
def test_dot_product_interaction(rng, kind, self_interaction):
    x = rng.normal(size=(3, 4, 6)).astype(np.float32)
    layer = ml.DotProductInteraction(kind, self_interaction=self_interaction)
    actual = np.asarray(layer(x))
    wide = x.astype(np.float64)
    pairs = [(i, j) for i in range(4) for j in range(i if self_interaction else i + 1, 4)]
    kernel = None if kind is None else layer.kernel.numpy().astype(np.float64)
    expected = []
    for p, (i, j) in enumerate(pairs):
        weight = {None: None, "field_all": kernel}.get(kind)
        if kind == "field_each":
            weight = kernel[i]
        elif kind == "field_interaction":
            weight = kernel[p]
        left = wide[:, i] if weight is None else wide[:, i] @ weight
        expected.append((left * wide[:, j]).sum(axis=-1))
    np.testing.assert_allclose(actual, np.stack(expected, axis=1), rtol=1e-4, atol=1e-5)
    assert ml.DotProductInteraction.from_config(layer.get_config())(x).shape == actual.shape
    assert layer.compute_output_shape((None, 4, 6)) == (None, len(pairs))
    with pytest.raises(ValueError, match="interaction_type must be one of"):
        ml.DotProductInteraction("all")


FORMS = {
    "dense": lambda ids: ids,
    "ragged": lambda ids: tf.RaggedTensor.from_tensor(tf.constant(ids), padding=0),
    "int32": lambda ids: ids.astype(np.int32),
    "sparse": lambda ids: tf.sparse.from_dense(tf.constant(ids)),
}


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("mode", ["one_hot", "multi_hot", "count"])
@pytest.mark.parametrize("sparse", [False, True])
def test_category_encoding(form, mode, sparse):
    ids = np.array([[1, 3, 3, 0], [2, 0, 0, 0], [0, 0, 0, 0]])
    block = ml.CategoryEncoding(SCHEMA.select_by_name(["genres", "userId"]), mode, sparse=sparse)
    out = block({**batch(), "genres": FORMS[form](ids)})
    if sparse:
        assert isinstance(out["genres"], tf.SparseTensor)
        out = {name: tf.sparse.to_dense(value) for name, value in out.items()}
    expected = [[0, 1, 0, 2 if mode == "count" else 1], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert np.asarray(out["genres"]).tolist() == expected
    assert np.asarray(out["userId"]).tolist() == np.eye(5)[[1, 2, 4]].tolist()
    assert ml.CategoryEncoding.from_config(block.get_config()).get_config() == block.get_config()


def test_category_encoding_counts_weights():
    schema = SCHEMA.select_by_name("genres")
    block = ml.CategoryEncoding(schema, "count", count_weights="w", aggregation="concat")
    weights = np.array([[0.5, 2, 9, 9], [3, 9, 9, 9], [9, 9, 9, 9]], np.float32)
    out = block({"genres": GENRES, "w": weights})
    assert np.asarray(out).tolist() == [[0, 0.5, 0, 2], [0, 0, 3, 0], [0, 0, 0, 0]]


def test_category_encoding_refuses():
    schema = SCHEMA.select_by_name("userId")
    with pytest.raises(ValueError, match="output_mode must be one of"):
        ml.CategoryEncoding(schema, "tf_idf")
    with pytest.raises(ValueError, match="count_weights is for output_mode 'count'"):
        ml.CategoryEncoding(schema, count_weights="w")
    with pytest.raises(ValueError, match="sparse must not be combined with an aggregation"):
        ml.CategoryEncoding(schema, sparse=True, aggregation="concat")
    with pytest.raises(ValueError, match="schema must have a column to encode"):
        ml.CategoryEncoding(ml.Schema())
    with pytest.raises(ValueError, match=r"Inputs must have the features \['userId'\]. Received: \['age'\]"):
        ml.CategoryEncoding(schema)({"age": np.ones(2)})
    for wrong in (5, -1):
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"Ids of 'userId' must be in \[0, 5\)"):
            ml.CategoryEncoding(schema)({"userId": np.array([wrong])})


PAIR = SCHEMA.select_by_name(["userId", "movieId"])
TWO = ml.Schema([ml.ColumnSchema.create_continuous(name) for name in ("age", "price")])


def test_hashed_cross():
    block = ml.HashedCross(PAIR, num_bins=7)
    inputs = {"userId": np.array([1, 2, 1, 1]), "movieId": np.array([[5], [0], [5], [4]])}
    out = block(inputs)
    assert list(out) == ["cross_movieId_userId"]
    hashed = np.asarray(out["cross_movieId_userId"])
    assert hashed.shape == (4, 7)
    assert (hashed.sum(axis=1) == 1).all()
    assert (hashed[0] == hashed[2]).all()
    numbers = ml.HashedCross(PAIR, num_bins=7, output_mode="int", output_name="both")(inputs)["both"]
    assert np.asarray(numbers)[:, 0].tolist() == hashed.argmax(axis=1).tolist()
    narrow = {name: value.astype(np.int32) for name, value in inputs.items()}
    np.testing.assert_array_equal(block(narrow)["cross_movieId_userId"], hashed)
    assert ml.HashedCross.from_config(block.get_config()).get_config() == block.get_config()
    assert ml.HashedCross(PAIR, infer_num_bins=True).num_bins == 5 * 6
    assert ml.HashedCross(PAIR, infer_num_bins=True, max_num_bins=11).num_bins == 11
    spread = ml.HashedCross(PAIR, num_bins=1000, output_mode="int")
    users, movies = (grid.reshape(-1) for grid in np.meshgrid(np.arange(5), np.arange(6)))
    bins = np.asarray(spread({"userId": users, "movieId": movies})["cross_movieId_userId"])
    assert len(np.unique(bins)) > 25  # of 30


def test_hashed_cross_is_the_same_in_another_process(run_python):
    code = (
        "import numpy as np, merlin_models.tf as ml\n"
        "schema = ml.Schema([ml.ColumnSchema.create_categorical(name, 99) for name in 'ab'])\n"
        "out = ml.HashedCross(schema, num_bins=1000, output_mode='int')({'a': np.arange(20), 'b': np.arange(20)})\n"
        "print(np.asarray(out['cross_a_b'])[:, 0].tolist())"
    )
    runs = [run_python(code) for _ in range(2)]
    assert runs[0].stdout == runs[1].stdout
    assert runs[0].stdout.count(",") == 19


def test_hashed_cross_all():
    columns = [ml.ColumnSchema.create_categorical(name, 9) for name in "abc"]
    schema = ml.Schema(columns)
    block = ml.HashedCrossAll(schema, num_bins=5, max_level=3, ignore_combinations=[["b", "a"]])
    out = block({name: np.array([1, 2]) for name in "abc"})
    assert sorted(out) == ["cross_a_b_c", "cross_a_c", "cross_b_c"]
    with pytest.raises(ValueError, match=r"max_level must be 2 or 3. Received: 4"):
        ml.HashedCrossAll(schema, 5, max_level=4)
    with pytest.raises(ValueError, match="schema must have columns to cross"):
        ml.HashedCrossAll(schema.select_by_name("a"), 5)


def test_hashed_cross_refuses():
    with pytest.raises(ValueError, match=r"at least two columns to cross. Received: \['userId'\]"):
        ml.HashedCross(SCHEMA.select_by_name("userId"), 5)
    with pytest.raises(ValueError, match=r"Columns to cross must not be lists. Received: \['genres'\]"):
        ml.HashedCross(SCHEMA.select_by_name(["userId", "genres"]), 5)
    with pytest.raises(ValueError, match="Either num_bins or infer_num_bins must be given"):
        ml.HashedCross(PAIR)
    with pytest.raises(ValueError, match="output_mode must be 'one_hot' or 'int'"):
        ml.HashedCross(PAIR, 5, output_mode="multi_hot")


def test_linear_features_are_a_dense_layer_over_one_hot_vectors(rng):
    block = ml.LinearFeatures(SCHEMA)
    block(batch())
    randomize(block, rng)
    tables = {name: block.weights_of_ids.table(name).numpy()[:, 0] for name in ("userId", "movieId", "genres")}
    age = block.dense.kernel.numpy()[0, 0]
    expected = [
        tables["userId"][u] + tables["movieId"][m] + sum(tables["genres"][g] for g in row if g) + a * age
        for u, m, row, a in zip([1, 2, 4], [5, 0, 3], GENRES, [20, 30, 40], strict=True)
    ]
    actual = np.asarray(block(batch()))
    np.testing.assert_allclose(actual[:, 0], np.array(expected) + block.bias.numpy()[0], rtol=1e-5, atol=1e-5)
    assert block.schema.column_names == ["userId", "movieId", "genres", "age"]
    assert ml.LinearFeatures.from_config(block.get_config())(batch()).shape == (3, 1)
    with pytest.raises(ValueError, match="schema must have categorical or continuous columns"):
        ml.LinearFeatures(SCHEMA.select_by_name("rating_b"))


def test_continuous_embedding():
    block = ml.ContinuousEmbedding(ml.InputBlock(SCHEMA), ml.MLPBlock([6]), aggregation="concat")
    assert block(batch()).shape == (3, 6 + 3 * 64)
    plain = ml.ContinuousEmbedding(ml.InputBlock(SCHEMA), ml.MLPBlock([6]))
    assert sorted(plain(batch())) == ["continuous", "genres", "movieId", "userId"]
    summed = ml.ContinuousEmbedding(ml.InputBlock(TWO), keras.layers.Dense(1), None, "sum")
    out = summed({"age": np.array([20.0]), "price": np.array([3.0])})
    assert float(out["continuous"][0, 0]) == pytest.approx(23.0 * float(summed.embedding_block.kernel[0, 0]))
    again = ml.ContinuousEmbedding.from_config(summed.get_config())
    assert type(again.continuous_aggregation) is type(summed.continuous_aggregation)
    again = ml.ContinuousEmbedding.from_config(plain.get_config())
    assert sorted(again(batch())) == ["continuous", "genres", "movieId", "userId"]
    with pytest.raises(ValueError, match="continuous_features must be given, or inputs have continuous columns"):
        ml.ContinuousEmbedding(ml.InputBlock(SCHEMA.select_by_name("userId")), ml.MLPBlock([6]))


def test_deep_fm_logit(rng):
    block = ml.DeepFMBlock(SCHEMA, 5, ml.MLPBlock([4]))
    block(batch())
    randomize(block.linear, rng)
    vectors = block.embeddings(batch())
    names = ["genres", "movieId", "userId"]
    x = np.stack([vectors[name] for name in names], axis=1).astype(np.float64)
    second = sum((x[:, i] * x[:, j]).sum(axis=-1) for i in range(3) for j in range(i))
    # in the order of names: age comes first
    deep_inputs = np.concatenate([np.array([[20.0], [30.0], [40.0]]), x.reshape(3, -1)], axis=1)
    deep = np.asarray(block.deep_logit(block.deep_block(deep_inputs)))[:, 0]
    expected = np.asarray(block.linear(batch()))[:, 0] + second + deep
    np.testing.assert_allclose(np.asarray(block(batch()))[:, 0], expected, rtol=1e-4, atol=1e-4)
    given = ml.DeepFMBlock(SCHEMA, embeddings=block.embeddings)
    assert given.embeddings is block.embeddings
    with pytest.raises(ValueError, match="embeddings must not be given together with"):
        ml.DeepFMBlock(SCHEMA, 5, embeddings=block.embeddings)
    with pytest.raises(ValueError, match="DeepFM requires categorical features"):
        ml.DeepFMBlock(SCHEMA.select_by_name("age"), 5)


def test_ncf_needs_a_user_and_an_item():
    with pytest.raises(ValueError, match="The schema of NCF must have one column tagged user_id"):
        ml.NCFBlock(SCHEMA.select_by_name(["movieId", "age"]), 4)
    block = ml.NCFBlock(SCHEMA, 4, ml.MLPBlock([3]))
    out = np.asarray(block(batch()))
    product = block.product_embeddings(batch())
    np.testing.assert_allclose(out[:, :4], np.asarray(product["userId"]) * np.asarray(product["movieId"]), rtol=1e-6)
    assert out.shape == (3, 7)
    assert keras.saving.get_registered_name(ml.NCFBlock) == "merlin_models>NCFBlock"


def test_a_bare_tensor_is_the_only_feature():
    user = SCHEMA.select_by_name("userId")
    ids = np.array([1, 2, 4])
    for block in (ml.LinearFeatures(user), ml.CategoryEncoding(user, aggregation="concat"), ml.DeepFMBlock(user, 4)):
        np.testing.assert_array_equal(block(ids), block({"userId": ids}))
    with pytest.raises(
        TypeError, match=r"Inputs must be a dictionary from feature to tensor with \['userId', 'movieId'\]"
    ):
        ml.HashedCross(PAIR, 5)(ids)
