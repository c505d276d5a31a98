"""PopularityLogitsCorrection and LogitsTemperature."""

from __future__ import annotations

import keras
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

import merlin_models.tf as ml

FREQUENCIES = np.array([5, 0, 3, 2])
LOG_P = np.log([0.5, 0.2, 0.3, 0.2])  # the second never occurs, and counts as the rarest


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_correction(rng, dtype):
    logits, ids = rng.normal(size=(5, 4)).astype(np.float32), np.array([3, 1, 0, 2], dtype)
    for options, factor in (({}, 1), ({"reg_factor": 0.5}, 0.5)):
        layer = ml.PopularityLogitsCorrection(FREQUENCIES, **options)
        np.testing.assert_allclose(layer(logits, ids, training=True), logits - factor * LOG_P[ids], rtol=1e-5)
        each = np.tile(ids, (5, 1))
        np.testing.assert_allclose(layer(logits, each, training=True), logits - factor * LOG_P[ids], rtol=1e-5)
        np.testing.assert_allclose(layer.log_q(ids), factor * LOG_P[ids], rtol=1e-6)
        np.testing.assert_array_equal(layer(logits, ids), logits)
    distribution = ml.PopularityLogitsCorrection(FREQUENCIES / 10, is_prob_distribution=True)
    np.testing.assert_allclose(distribution.log_q(ids), LOG_P[ids], rtol=1e-6)


def test_parquet_and_update(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"n": [2, 3, 5], "id": [3, 2, 0]}), tmp_path / "items.parquet")
    layer = ml.PopularityLogitsCorrection.from_parquet(tmp_path / "items.parquet", "n", id_column="id")
    np.testing.assert_allclose(layer.log_probabilities, LOG_P, rtol=1e-6)
    rows = ml.PopularityLogitsCorrection.from_parquet(tmp_path / "items.parquet", "n", reg_factor=2)
    np.testing.assert_allclose(rows.log_q([0, 1, 2]), 2 * np.log([0.2, 0.3, 0.5]), rtol=1e-6)
    layer.update([1, 1, 1, 1])
    np.testing.assert_allclose(layer.log_q([0, 3]), np.log([0.25, 0.25]), rtol=1e-6)
    with pytest.raises(ValueError, match=r"item_freq_probs must have 4 items as before. Received: 3"):
        layer.update([1, 1, 1])
    pyarrow.parquet.write_table(pyarrow.table({"n": [2, 3], "id": [3, 3]}), tmp_path / "twice.parquet")
    with pytest.raises(ValueError, match=r"'id' must have ids of at least 0, each once. Received: \[3, 3\]"):
        ml.PopularityLogitsCorrection.from_parquet(tmp_path / "twice.parquet", "n", id_column="id")


def test_file(tmp_path):
    logits, ids = keras.Input((4,)), keras.Input((4,), dtype="int64")
    scaled = ml.LogitsTemperatureScaler(0.25, dtype="mixed_float16")(logits)
    corrected = ml.PopularityLogitsCorrection(FREQUENCIES, dtype="mixed_float16")(scaled, ids, training=True)
    model = keras.Model([logits, ids], corrected)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    values, places = np.array([[1.0, 2, 3, 4]], np.float32), np.array([[0, 1, 2, 3]])
    np.testing.assert_array_equal(again([values, places]), model([values, places]))
    np.testing.assert_allclose(model([values, places]), 4 * values - LOG_P, rtol=1e-2)


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"reg_factor must be at least 0. Received: -1"):
        ml.PopularityLogitsCorrection(FREQUENCIES, reg_factor=-1)
    with pytest.raises(ValueError, match=r"item_freq_probs must sum to 1"):
        ml.PopularityLogitsCorrection(FREQUENCIES, is_prob_distribution=True)
    with pytest.raises(ValueError, match=r"temperature must be a positive number. Received: 0"):
        ml.LogitsTemperatureScaler(0)
    with pytest.raises(TypeError, match=r"ids must be integers"):
        ml.PopularityLogitsCorrection(FREQUENCIES).log_q([0.5])
