"""tf.distribute: a strategy of one device trains to the same bits as none; those that copy variables are refused."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from reliability_data import assert_same_state, loader, rows, small_model, table

import merlin_models.tf as ml

IDS = {"user": ml.Tags.USER_ID, "item": ml.Tags.ITEM_ID}
CPUS = """
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])
import keras, merlin_models.tf as ml

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
schema = ml.Schema([ml.ColumnSchema.create_categorical("item", 20)])
make = lambda: ml.Model(ml.InputBlock(schema), ml.MLPBlock([4]), ml.BinaryClassificationTask("y"))

def refused(compile):
    try:
        compile()
    except NotImplementedError as error:
        assert "A Model must run on one device" in str(error), error
        assert "Received: MirroredStrategy" in str(error), error
        return True

with strategy.scope():
    mirrored = make()
    assert refused(lambda: mirrored.compile("sgd"))
    assert refused(lambda: mirrored.compile("sgd", embedding_optimizer="dense"))
assert refused(lambda: mirrored.compile("sgd"))
model = make()
with strategy.scope():
    assert refused(lambda: model.compile("sgd"))
model.compile("sgd")
import numpy as np
model.fit({"item": np.array([1, 2])}, np.array([0, 1]), verbose=0)
"""


@pytest.mark.parametrize("data", ["arrays", "loader"])
def test_one_device(data):
    def fit(model):
        if data == "loader":
            return model.fit(loader(table(), shuffle=False), shuffle=False, verbose=0).history
        features, targets = rows()
        return model.fit(features, targets, shuffle=False, verbose=0).history

    alone = small_model()
    expected = fit(alone)
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        model = small_model()
    assert fit(model) == expected
    assert_same_state(model, alone)
    features, targets = rows()
    assert model.evaluate(features, targets, verbose=0) == alone.evaluate(features, targets, verbose=0)
    np.testing.assert_array_equal(model.predict(features, verbose=0), alone.predict(features, verbose=0))


def test_a_retrieval_model_on_one_device():
    columns = [ml.ColumnSchema.create_categorical(name, 20, tags=[tag]) for name, tag in IDS.items()]
    pairs = {name: np.arange(64) % 20 + 1 for name in IDS}
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        model = ml.MatrixFactorizationModel(ml.Schema(columns), dim=4)
        model.compile("adam")
    assert np.isfinite(model.fit(pairs, verbose=0).history["loss"]).all()


@pytest.mark.parametrize("kind", ["MirroredStrategy", "MultiWorkerMirroredStrategy"])
def test_copies_of_variables_are_refused(kind):
    message = r"A Model must run on one device.*Received: (Mirror|Collective)"
    with getattr(tf.distribute, kind)().scope(), pytest.raises(NotImplementedError, match=message):
        small_model()


def test_two_devices_are_refused(run_python):
    run_python(CPUS)
