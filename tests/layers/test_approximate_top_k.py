"""ApproximateTopK beside BruteForceTopK."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from merlin_models.layers import ApproximateTopK, BruteForceTopK

pytest.importorskip("faiss", reason="faiss-cpu, the extra `ann`, is not installed")
BIG = 2**33 + 1


@pytest.fixture
def problem(rng):
    candidates = rng.normal(size=(1500, 16)).astype(np.float32)
    return rng.normal(size=(60, 16)).astype(np.float32), candidates, rng.permutation(1500) + BIG


def recall(found, best):
    pairs = zip(np.asarray(found.identifiers).tolist(), np.asarray(best.identifiers).tolist(), strict=True)
    return np.mean([len(set(one) & set(other)) / len(other) for one, other in pairs])


def test_recall(problem, rng):
    queries, candidates, identifiers = problem
    exact = BruteForceTopK(10).index(candidates, identifiers)
    layer = ApproximateTopK(10).index(candidates, identifiers)
    assert layer.num_candidates == 1500
    exclude = np.concatenate([np.asarray(exact(queries).identifiers)[:, :7], np.full((60, 3), -1)], axis=1)
    for options in ({}, {"exclude": exclude}):
        found, best = layer(queries, **options), exact(queries, **options)
        assert recall(found, best) > 0.98
        np.testing.assert_allclose(np.sort(found.scores)[:, ::-1], found.scores)
        same = np.asarray(found.identifiers) == np.asarray(best.identifiers)
        np.testing.assert_allclose(np.asarray(found.scores)[same], np.asarray(best.scores)[same], rtol=1e-4)
    assert not (np.asarray(found.identifiers)[:, :, None] == exclude[:, None, :]).any()
    few = ApproximateTopK(3).index(candidates[:4], identifiers[:4])(queries[:1], exclude=identifiers[None, :2])
    assert np.asarray(few.identifiers)[0, 2] == -1
    assert np.isneginf(np.asarray(few.scores)[0, 2])
    assert layer(queries[:0]).scores.shape == (0, 10)


def test_file(problem, tmp_path):
    queries, candidates, identifiers = problem
    layer = ApproximateTopK(5, neighbours=8, ef_construction=40, ef_search=50).index(candidates, identifiers)
    inputs = keras.Input((16,))
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    again.compile(run_eagerly=True)
    found = again.predict(queries, batch_size=25, verbose=0)
    np.testing.assert_array_equal(found[1], layer(queries).identifiers)
    assert again.layers[-1].get_config() == layer.get_config()


def test_wrong_arguments(problem):
    queries, candidates, identifiers = problem
    with pytest.raises(ValueError, match=r"ef_search must be at least 1. Received: 0"):
        ApproximateTopK(ef_search=0)
    layer = ApproximateTopK(10)
    with pytest.raises(ValueError, match=r"index\(\) must be called before the layer is used"):
        layer(queries)
    with pytest.raises(ValueError, match=r"k must be at most the number of candidates, 9. Received: 10"):
        layer.index(candidates[:9])
    with pytest.raises(ValueError, match=r"contains unique indices"):
        layer.index(candidates, identifiers // 2)
    layer.index(candidates)
    with pytest.raises(ValueError, match=r"queries must have the shape \(batch, 16\). Received: \(60, 15\)"):
        layer(queries[:, :15])
    layer.k = 1501
    with pytest.raises(ValueError, match=r"k must be at most the number of candidates, 1500. Received: 1501"):
        layer(queries)
    layer.k = 5
    model = keras.Sequential([layer])
    with pytest.raises(RuntimeError, match="must be called with values, outside of compiled functions"):
        model.predict(queries, verbose=0)
