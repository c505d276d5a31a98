"""What notebooks of the older library rely on and no other test says: widths of DCN, rows that LazyAdam steps."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import merlin_models.tf as ml

SCHEMA = ml.Schema(
    [
        ml.ColumnSchema.create_categorical("user_id", 20, tags=[ml.Tags.USER_ID]),
        ml.ColumnSchema.create_categorical("item_id", 30, tags=[ml.Tags.ITEM_ID]),
        ml.ColumnSchema.create_continuous("age"),
        ml.ColumnSchema.create_continuous("price"),
        ml.ColumnSchema("click", tags=[ml.Tags.BINARY_CLASSIFICATION, ml.Tags.TARGET]),
    ]
)
INPUTS = 2 * 8 + 2  # two tables of 8, two numbers


@pytest.mark.parametrize(("stacked", "width"), [(True, 6), (False, INPUTS + 6)])
def test_widths_of_dcn(rng, stacked, width):
    options = ml.EmbeddingOptions(embedding_dim_default=8)
    model = ml.DCNModel(SCHEMA, 2, ml.MLPBlock([12, 6]), stacked=stacked, embedding_options=options)
    rows = {
        "user_id": rng.integers(1, 21, 100),
        "item_id": rng.integers(1, 31, 100),
        "age": rng.random(100),
        "price": rng.random(100),
    }
    assert model(rows).shape == (100, 1)
    assert model[0](rows).shape == (100, width)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_lazy_adam_is_adam_on_the_rows_of_the_batch(rng, dtype):
    """One step, ids repeated: rows of the batch move as with Keras' Adam, which sees all rows; no other row moves."""
    ids = np.array([3, 3, 1, 7, 3], dtype)
    column = ml.ColumnSchema.create_categorical("item_id", 9)
    start = rng.normal(size=(10, 4)).astype(np.float32)

    def train(embedding_optimizer):
        model = ml.Model(
            ml.InputBlock(ml.Schema([column]), embedding_options=ml.EmbeddingOptions(embedding_dim_default=4)),
            ml.RegressionTask("rating", task_block=keras.layers.Dense(3, kernel_initializer="ones")),
        )
        batch = {"item_id": ids}
        model(batch)
        table = next(weight for weight in model.trainable_weights if tuple(weight.shape) == (10, 4))
        table.assign(start)
        for weight in model.trainable_weights:
            if weight is not table:
                weight.assign(np.ones(weight.shape))
        model.compile(optimizer=keras.optimizers.Adam(0.1), embedding_optimizer=embedding_optimizer)
        model.fit(batch, np.arange(5.0), batch_size=5, epochs=1, verbose=0)
        return np.asarray(table)

    lazy, dense = train(ml.LazyAdam(0.1)), train("dense")
    touched = np.unique(ids)
    np.testing.assert_allclose(lazy[touched], dense[touched], rtol=1e-5, atol=1e-6)
    assert np.abs(lazy[touched] - start[touched]).min() > 0.05
    others = np.setdiff1d(np.arange(10), touched)
    np.testing.assert_array_equal(lazy[others], start[others])
