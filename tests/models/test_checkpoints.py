"""tf.train.Checkpoint has all weights of models and blocks, and the optimizer's state, of tables too."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from retrieval_data import SCHEMA, interactions

import merlin_models.tf as ml
from merlin_models.transformers.encoder import TransformerEncoder

X = interactions(32)
Y = (X["movieId"] % 2).astype("float32")


def branches():
    deep, wide = ml.MLPBlock([8, 4], dropout=0.2), ml.MLPBlock([4]).connect_with_residual(ml.MLPBlock([4]))
    body = ml.ParallelBlock({"deep": deep, "wide": wide}, aggregation="concat")
    return ml.Model(ml.InputBlock(SCHEMA), body, ml.BinaryClassificationTask("like")), Y


def towers():
    return ml.TwoTowerModel(SCHEMA, query_tower=ml.MLPBlock([8])), None


def tasks():
    tasks = ml.ParallelPredictionBlock(ml.BinaryClassificationTask("like"), ml.RegressionTask("stars"))
    experts = ml.MMOEBlock(tasks, ml.MLPBlock([4]), num_experts=2)
    return ml.Model(ml.InputBlock(SCHEMA), ml.MLPBlock([8]), experts, tasks), {"like": Y, "stars": 2 * Y}


def transformer():
    """Layers of this library in a Keras model."""

    class Plain(keras.Model):
        def __init__(self):
            super().__init__()
            self.tables = ml.EmbeddingBagCollection.from_schema(SCHEMA)
            self.rest = ml.MLPBlock([8]).connect(ml.CrossBlock(1))
            self.encoder = TransformerEncoder(d_model=8, n_head=2, n_layer=2)
            self.head = keras.layers.Dense(1)

        def call(self, x):
            vectors = self.rest(keras.ops.concatenate([each for _, each in sorted(self.tables(x).items())], axis=-1))
            states = self.encoder(keras.ops.expand_dims(vectors, 1))["last_hidden_state"]
            return self.head(states[:, 0])

    return Plain(), Y


def multi():
    model, targets = branches()
    return model, targets, ml.MultiOptimizer([ml.OptimizerBlocks(ml.RowwiseAdagrad(0.05), model[0])], "adam")


MAKERS = [branches, towers, tasks, transformer, multi]


def compiled(make, seed):
    keras.utils.set_random_seed(seed)
    model, targets, *optimizer = make()
    optimizer = optimizer[0] if optimizer else ml.RowSparse("adam")
    options = {} if isinstance(model, ml.Model) else {"loss": "mse"}
    if not model.built:
        model(X)
    model.compile(optimizer, run_eagerly=True, **options)
    return model, targets


def fit(model, targets):
    model.fit(X, targets, batch_size=32, shuffle=False, verbose=0)


def assert_same(one, other):
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("make", MAKERS)
def test_weights_and_state_come_back(tmp_path, make):
    model, targets = compiled(make, 1)
    fit(model, targets)
    path = tf.train.Checkpoint(model=model).save(tmp_path / "x")

    # A new model whose optimizer is not built yet: its state comes with the first step.
    new, _ = compiled(make, 2)
    tf.train.Checkpoint(model=new).restore(path).assert_existing_objects_matched()
    assert_same(model.variables, new.variables)

    other, _ = compiled(make, 3)
    fit(other, targets)
    with np.testing.assert_raises(AssertionError):
        assert_same(model.weights, other.weights)
    tf.train.Checkpoint(model=other).restore(path).assert_consumed()
    assert_same(model.variables, other.variables)
    assert_same(model.optimizer.variables, other.optimizer.variables)

    for each in (model, new, other):
        fit(each, targets)
    assert_same(model.weights, new.weights)
    assert_same(model.weights, other.weights)
    assert_same(model.optimizer.variables, new.optimizer.variables)


def test_a_model_that_is_built_later(tmp_path):
    """Without a schema, by its first batch."""
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    models = []
    for seed in range(2):
        keras.utils.set_random_seed(seed)
        models.append(ml.Model(ml.MLPBlock([4]), ml.MLPBlock([4, 2]), ml.BinaryClassificationTask("like")))
    models[0](x)
    path = tf.train.Checkpoint(model=models[0]).save(tmp_path / "x")
    status = tf.train.Checkpoint(model=models[1]).restore(path)
    assert not models[1].built
    models[1].predict(x, verbose=0)  # in a graph
    status.assert_consumed()
    assert_same(models[0].weights, models[1].weights)


def test_names_do_not_count_up(tmp_path):
    models = [branches()[0] for _ in range(2)]
    names = []
    for number, model in enumerate(models):
        path = tf.train.Checkpoint(model=model).save(tmp_path / str(number))
        names.append([name for name, _ in tf.train.list_variables(path)])
    assert names[0] == names[1]
    assert any("ParallelBlock_1-MLPBlock_0-Dense_1-kernel" in name for name in names[0]), names[0]


def test_a_checkpoint_of_another_model_is_told(tmp_path):
    def encoder(*units):
        return ml.Encoder(SCHEMA, ml.MLPBlock(units))

    path = tf.train.Checkpoint(model=encoder(4, 4)).save(tmp_path / "x")
    with pytest.raises(AssertionError, match="not bound to checkpointed values"):
        tf.train.Checkpoint(model=encoder(4, 4, 4)).restore(path).assert_existing_objects_matched()
    with pytest.raises(AssertionError, match="Unresolved object in checkpoint"):
        tf.train.Checkpoint(model=encoder(4)).restore(path).assert_consumed()


def test_encoders(tmp_path):
    encoders = [ml.Encoder(SCHEMA, ml.MLPBlock([8, 4])) for _ in range(2)]
    path = tf.train.Checkpoint(model=encoders[0]).save(tmp_path / "x")
    tf.train.Checkpoint(model=encoders[1]).restore(path).assert_consumed()
    assert_same(encoders[0].weights, encoders[1].weights)
