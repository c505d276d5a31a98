"""BruteForceTopK: against a sort of all scores, with excluded candidates, in graphs, saved."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops

from merlin_models.layers import BruteForceTopK, TopKPrediction
from merlin_models.layers.catalogue import Catalogue, pad_lists

BIG = 2**33 + 1


def reference(queries, candidates, identifiers, k, exclude=None):
    """All scores, sorted: by score, then by identifier."""
    scores = queries.astype(np.float64) @ candidates.T.astype(np.float64)
    rows = []
    for index, row in enumerate(scores):
        seen = set() if exclude is None else set(np.asarray(exclude[index]).tolist())
        left = [(-score, each) for score, each in zip(row, identifiers.tolist(), strict=True) if each not in seen]
        best = sorted(left)[:k]
        rows.append([(-score, each) for score, each in best] + [(-np.inf, -1)] * (k - len(best)))
    return np.array([[s for s, _ in row] for row in rows]), np.array([[i for _, i in row] for row in rows])


def problem(rng, number, batch=5, dim=6):
    """Small whole numbers: scores are exact, and many are equal."""
    candidates = rng.integers(-2, 3, (number, dim)).astype(np.float32)
    identifiers = rng.permutation(np.arange(3 * number))[:number] * 1_000_003 + BIG
    return rng.integers(-2, 3, (batch, dim)).astype(np.float32), candidates, identifiers


@pytest.mark.parametrize("number", [1, 31, 33, 129, 200])
@pytest.mark.parametrize("chunk_size", [7, 64, 1000])
def test_against_the_reference(rng, number, chunk_size):
    queries, candidates, identifiers = problem(rng, number)
    k = min(9, number)
    seen = np.concatenate([identifiers[rng.integers(0, number, (5, 20))], [[-1, 0, 5]] * 5], axis=1)
    seen[0] = -1
    layer = BruteForceTopK(k, chunk_size=chunk_size).index(candidates, identifiers)
    assert layer.num_candidates == number
    for exclude in (None, seen):
        result = layer(queries, exclude=exclude)
        scores, ids = reference(queries, candidates, identifiers, k, exclude)
        assert isinstance(result, TopKPrediction)
        np.testing.assert_array_equal(result.scores, scores)
        np.testing.assert_array_equal(result.identifiers, ids)
        assert keras.backend.standardize_dtype(result.identifiers.dtype) == "int64"


def test_random_floats(rng):
    queries, candidates = rng.normal(size=(20, 32)).astype(np.float32), rng.normal(size=(3000, 32)).astype(np.float32)
    result = BruteForceTopK(20, chunk_size=512).index(candidates)(queries)
    scores, ids = reference(queries, candidates, np.arange(3000), 20)
    np.testing.assert_allclose(result.scores, scores, rtol=1e-5)
    np.testing.assert_array_equal(result.identifiers, ids)


def test_forms_of_exclude(rng):
    queries, candidates, identifiers = problem(rng, 40, batch=3)
    layer = BruteForceTopK(4, chunk_size=16).index(candidates, identifiers)
    seen = [identifiers[:3].tolist(), [], identifiers[20:30].tolist()]
    _, expected = reference(queries, candidates, identifiers, 4, seen)
    padded = pad_lists(seen)
    column = np.array([np.array(row) for row in seen], dtype=object)  # of a data frame
    ragged = pytest.importorskip("tensorflow").ragged.constant(seen, dtype="int64")
    for exclude in (seen, padded, ops.convert_to_numpy(padded), pad_lists(column), ragged):
        np.testing.assert_array_equal(layer(queries, exclude=exclude).identifiers, expected)
    low = BruteForceTopK(4).index(candidates)  # identifiers that fit int32
    none = low(queries, exclude=np.zeros((3, 0), np.int32))
    np.testing.assert_array_equal(none.identifiers, low(queries).identifiers)
    excluded = low(queries, exclude=np.arange(37, dtype=np.int32)[None].repeat(3, axis=0))
    assert sorted(excluded.identifiers[0].numpy().tolist()) == [-1, 37, 38, 39]
    assert np.isneginf(excluded.scores[:, 3]).all()


def test_empty_batch(rng):
    _, candidates, identifiers = problem(rng, 40)
    result = BruteForceTopK(4, chunk_size=16).index(candidates, identifiers)(np.zeros((0, 6), np.float32))
    assert tuple(result.scores.shape) == tuple(result.identifiers.shape) == (0, 4)


def test_another_catalogue(rng):
    queries, candidates, identifiers = problem(rng, 40)
    layer = BruteForceTopK(4, capacity=50, chunk_size=16)
    for number in (40, 9, 33):
        layer.index(candidates[:number], identifiers[:number])
        _, ids = reference(queries, candidates[:number], identifiers[:number], 4)
        np.testing.assert_array_equal(layer(queries).identifiers, ids)
    layer.k = 7
    assert layer(queries).scores.shape[1] == 7
    with pytest.raises(
        ValueError, match=r"k must be at least 1 and at most the number of candidates, 33. Received: 34"
    ):
        layer.k = 34
    with pytest.raises(ValueError, match=r"candidates must be at most the capacity, 50, .* Received: 51"):
        layer.index(np.zeros((51, 6)))


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "bfloat16"])
def test_predict_and_file(rng, policy, tmp_path):
    queries, candidates, identifiers = problem(rng, 100, batch=7)
    layer = BruteForceTopK(5, chunk_size=32, dtype=policy).index(candidates, identifiers)
    inputs, seen = keras.Input((6,)), keras.Input((None,), dtype="int64")
    model = keras.Model([inputs, seen], layer(inputs, exclude=seen))
    exclude = identifiers[rng.integers(0, 100, (7, 3))]
    _, expected = reference(queries, candidates, identifiers, 5, exclude)
    result = model.predict([queries, exclude], batch_size=3, verbose=0)
    np.testing.assert_array_equal(result.identifiers, expected)
    assert result.scores.dtype == np.float32
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict([queries, exclude], verbose=0)[1], expected)
    loaded = again.layers[-1]
    assert (loaded.num_candidates, loaded.k, loaded.capacity, loaded.chunk_size) == (100, 5, 100, 32)
    assert not loaded.trainable_variables


def test_catalogue(rng, tmp_path):
    _, candidates, identifiers = problem(rng, 20)
    catalogue = Catalogue(chunk_size=7).index(candidates, identifiers)
    ids, vectors = catalogue.items()
    np.testing.assert_array_equal(ids, np.sort(identifiers))
    np.testing.assert_array_equal(vectors, candidates[np.argsort(identifiers)])
    wanted = np.array([[identifiers[3], -1], [identifiers[0], np.iinfo(np.int64).max]])
    expected = np.stack([[candidates[3], 0 * candidates[0]], [candidates[0], 0 * candidates[0]]])
    np.testing.assert_array_equal(catalogue(wanted), expected)
    model = keras.Sequential([keras.Input((2,), dtype="int64"), catalogue])
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(wanted), expected)
    with pytest.raises(ValueError, match=r"index\(\) must be called before the layer is used"):
        Catalogue()(wanted)
    with pytest.raises(ValueError, match=r"index\(\) must be called before there are items"):
        Catalogue().items()


@pytest.mark.parametrize("kind", [BruteForceTopK, Catalogue])
def test_the_index_of_a_frame_are_the_identifiers(kind, rng):
    frame = pd.DataFrame(rng.normal(size=(4, 3)), index=pd.Index([7, BIG, 3, 5], name="movieId"))
    options = {"k": 2} if kind is BruteForceTopK else {}
    by_index, given = kind(**options).index(frame), kind(**options).index(frame.to_numpy(), frame.index.to_numpy())
    for one, other in zip(by_index.items(), given.items(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert kind(**options).index(frame, [0, 1, 2, 3]).candidate_ids().tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="identifiers must be integers"):
        kind(**options).index(frame.set_index(pd.Index(list("abcd"))))


def test_config_round_trip():
    layer = BruteForceTopK(3, capacity=9, chunk_size=4)
    again = BruteForceTopK.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.num_candidates == 0


def test_wrong_arguments(rng):
    queries, candidates, identifiers = problem(rng, 10)
    for options, text in (
        ({"k": 0}, "k must be at least 1. Received: 0"),
        ({"chunk_size": 0}, "chunk_size must be at least 1. Received: 0"),
        ({"k": 5, "capacity": 4}, "capacity must be at least k = 5. Received: 4"),
    ):
        with pytest.raises(ValueError, match=text):
            BruteForceTopK(**options)
    layer = BruteForceTopK(3)
    with pytest.raises(ValueError, match=r"index\(\) must be called, or capacity given"):
        layer(queries)
    with pytest.raises(ValueError, match=r"k must be at most the number of candidates, 2. Received: 3"):
        layer.index(candidates[:2])
    with pytest.raises(ValueError, match=r"candidates must have the shape \(candidates, dim\). Received: \(10,\)"):
        layer.index(candidates[:, 0])
    with pytest.raises(ValueError, match=r"identifiers must be integers of the shape \(10,\). Received: int64 \(9,\)"):
        layer.index(candidates, identifiers[:9])
    with pytest.raises(ValueError, match=r"identifiers must be integers .* Received: float64 \(10,\)"):
        layer.index(candidates, identifiers * 1.0)
    with pytest.raises(ValueError, match=rf"contains unique indices. Received twice: \[{BIG}\]"):
        layer.index(candidates, [BIG, BIG, *range(8)])
    layer.index(candidates, identifiers)
    with pytest.raises(ValueError, match=r"queries must have the shape \(batch, 6\). Received: \(5, 5\)"):
        layer(queries[:, :5])
    with pytest.raises(ValueError, match=r"exclude must have the shape \(batch, any number\). Received: \(5,\)"):
        layer(queries, exclude=identifiers[:5])
    with pytest.raises(TypeError, match=r"Identifiers must be integers"):
        layer(queries, exclude=[[0.5]] * 5)
    with pytest.raises(ValueError, match=r"candidates must have the dim 6. Received: 5"):
        layer.index(candidates[:, :5])
