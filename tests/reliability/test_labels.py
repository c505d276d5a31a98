"""Labels that are not one for each row are errors, also where their shape is known in the graph's run alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from reliability_data import ITEMS, loader, rows, small_model, table

import merlin_models.tf as ml

SPECS = {
    "item": tf.TensorSpec([None], tf.int64),
    "bag": tf.TensorSpec([None, 5], tf.int64),
    "age": tf.TensorSpec([None], tf.float32),
}
ONE_EACH = "targets_must_have_the_shape_of_predictions"


def batches(features, labels, rank):
    """A tf.data.Dataset of one batch, of whose shapes TensorFlow knows the rank."""
    specs = SPECS, tf.TensorSpec([None] * rank, tf.int64)
    return tf.data.Dataset.from_generator(lambda: iter([(features, labels)]), output_signature=specs)


@pytest.mark.parametrize("step", ["fit", "evaluate"])
@pytest.mark.parametrize("shape", [(32, 3), (1, 1), (31, 1)], ids=str)
def test_numbers_of_labels(step, shape):
    features, _ = rows(32)
    model = small_model(metrics=[])
    with pytest.raises(tf.errors.InvalidArgumentError, match=ONE_EACH):
        getattr(model, step)(batches(features, np.ones(shape, np.int64), len(shape)), verbose=0)
    if step == "fit":
        fresh = small_model(metrics=[])
        assert all(np.array_equal(one, other) for one, other in zip(model.weights, fresh.weights, strict=True))


def with_lists(lists):
    return table(64).set_column(3, "y", pa.array(lists * (64 // len(lists)), pa.list_(pa.int64())))


@pytest.mark.parametrize("step", ["fit", "evaluate"])
@pytest.mark.parametrize("lists", [[[1]], [[1, 0]], [[1, 0], []]], ids=str)
def test_lists_of_labels(step, lists):
    message = r"Targets must be one for each row where predictions are, and no lists\. Received: a ragged tensor"
    with pytest.raises(ValueError, match=message):
        getattr(small_model(metrics=[]), step)(loader(with_lists(lists)), verbose=0)


def test_lists_are_labels_of_positions():
    item = ml.ColumnSchema.create_categorical("item", ITEMS, value_count=(0, 5), tags=[ml.Tags.SEQUENCE])
    inputs = ml.InputBlock(ml.Schema([item]), seq=True)
    model = ml.Model(inputs, ml.MLPBlock([8]), ml.BinaryClassificationTask("y"))
    model.compile("adam")
    data = pa.table({"item": [[1, 2], [3], [4, 5, 6]] * 8, "y": [[1, 0], [1], [0, 1, 1]] * 8})
    assert np.isfinite(model.fit(loader(data, batch_size=6), verbose=0).history["loss"]).all()
