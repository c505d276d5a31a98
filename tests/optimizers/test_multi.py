"""MultiOptimizer: every variable is stepped by its own optimizer, tables by rows; saving, resuming and errors."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import merlin_models.tf as ml
from merlin_models.optimizers import SGD, Adagrad, RowSparse, keras_like, rule_like

on_device = pytest.mark.usefixtures("on_device")

SCHEMA = ml.Schema(
    [ml.ColumnSchema.create_categorical(name, rows) for name, rows in (("large", 49), ("small", 9), ("other", 9))]
)


def batch(rows=32, seed=3):
    rng = np.random.default_rng(seed)
    features = {column.name: rng.integers(0, column.cardinality, (rows, 1)) for column in SCHEMA}
    return features, (features["small"][:, 0] % 2).astype(np.float32)


def model_with(make, policy=None, **options):
    """A compiled model of tables "large", "small" and "other", an MLP and a head; ``make(model, large, small)`` optimizes."""
    keras.utils.set_random_seed(5)
    inputs = ml.InputBlock(SCHEMA, embedding_options=ml.EmbeddingOptions(embedding_dim_default=4))
    model = ml.Model(inputs, ml.MLPBlock([8]), ml.BinaryClassificationTask("click"))
    large, rest = ml.split_embeddings_on_size(inputs, threshold=20)
    small = [type(rest[0])(rest[0].collection, ("small",))]
    model.compile(make(model, large, small), **options)
    return model


def three(model, large, small):
    """Rules of their own for two tables, one for the MLP, and one for the rest: the table "other" and the head."""
    return ml.MultiOptimizer(
        [
            ml.OptimizerBlocks(ml.RowwiseAdagrad(0.1), large),
            ml.OptimizerBlocks(keras.optimizers.SGD(0.5), [*small]),
            ml.OptimizerBlocks("adagrad", model[1]),
        ],
        default_optimizer=keras.optimizers.Adam(0.02),
    )


def values(model):
    return {variable.path.split("/", 1)[1]: variable.numpy() for variable in model.trainable_variables}


def gradients(model, features, targets):
    with tf.GradientTape() as tape:
        loss = keras.ops.mean(keras.losses.binary_crossentropy(targets[:, None], model(features)))
    grads = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    return {name: tf.convert_to_tensor(grad).numpy() for name, grad in zip(values(model), grads, strict=True)}


@on_device
@pytest.mark.parametrize("recorded", [True, False])
def test_a_step_by_hand(recorded):
    (features, targets), model = batch(), model_with(three, run_eagerly=True)
    before, grads = values(model), gradients(model, features, targets)
    if recorded:
        model.train_on_batch(features, targets)
    else:  # as with a plain keras.Model: gradients of the tables themselves
        model.optimizer.apply([tf.constant(grad) for grad in grads.values()], model.trainable_variables)
    rules = {
        "large": lambda w, g: w - 0.1 * g / np.sqrt(0.1 + np.mean(g**2, axis=1, keepdims=True) + 1e-7),
        "small": lambda w, g: w - 0.5 * g,
        "other": lambda w, g: w - 0.02 * g / (np.abs(g) + 1e-7 / np.sqrt(0.001)),  # Adam's first step
        "mlp": lambda w, g: w - 0.001 * g / np.sqrt(0.1 + g**2 + 1e-7),
        "binary": lambda w, g: w - 0.02 * g / (np.abs(g) + 1e-7 / np.sqrt(0.001)),
    }
    for name, after in values(model).items():
        (rule,) = [rules[key] for key in rules if f"/{key}" in f"/{name}"]
        np.testing.assert_allclose(after, rule(before[name], grads[name]), rtol=1e-3, atol=2e-5, err_msg=name)


def test_tables_have_the_state_of_their_rule():
    model = model_with(three)
    model.fit(*batch(), verbose=0)
    optimizer, tables = model.optimizer, [model[0]["categorical"].table(name) for name in ("other", "large", "small")]
    state = [
        [variable.shape for variable in part.table_state(table)]
        for part, table in zip(optimizer.parts, tables, strict=False)
    ]
    assert state == [[(10, 4), (10, 4)], [(50,)], []]
    with pytest.raises(ValueError, match="must be one that the optimizer was built with"):
        optimizer.parts[0].table_state(tables[1])
    assert [int(part.iterations) for part in optimizer.parts] == [1, 1, 1, 1]


@on_device
def test_rows_outside_of_the_batch_do_not_move():
    (features, targets), model = batch(), model_with(three, run_eagerly=True)
    model.fit(features, targets, verbose=0)
    tables = {name: model[0]["categorical"].table(name) for name in features}
    before = {name: table.numpy() for name, table in tables.items()}
    features = {name: np.full_like(value, 7) for name, value in features.items()}
    model.fit(features, targets, verbose=0)
    for name, table in tables.items():
        assert list(np.flatnonzero((table.numpy() != before[name]).any(axis=1))) == [7], name


def test_no_gradient_of_a_table_is_computed(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "merlin_models.optimizers.row_sparse.contribution_of", lambda table, grad: seen.append(table.name)
    )
    for options in ({}, {"run_eagerly": True}):
        model = model_with(three, **options)
        model.fit(*batch(), verbose=0)
    assert seen == []


@pytest.mark.parametrize("train_first", [True, False])
def test_resumed_training_goes_on_as_if_not_stopped(tmp_path, on_device, train_first):
    """To the bit on a CPU; on a GPU the sums of dense layers are not the same in every run."""
    data = batch(64)
    options = {"batch_size": 16, "shuffle": False, "verbose": 0}
    whole, half = model_with(three), model_with(three)
    if train_first:
        whole.fit(*data, **options)
        half.fit(*data, **options)
    half.save(tmp_path / "half.keras")
    resumed = keras.models.load_model(tmp_path / "half.keras")
    assert isinstance(resumed.optimizer, ml.MultiOptimizer)
    whole.fit(*data, **options)
    resumed.fit(*data, **options)
    tolerance = 0 if on_device == "cpu" else 1e-4
    for one, other in zip(
        whole.weights + whole.optimizer.variables, resumed.weights + resumed.optimizer.variables, strict=True
    ):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=tolerance, atol=tolerance, err_msg=one.path)


@on_device
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    try:
        model = model_with(three)
        logs = model.fit(*batch(128), batch_size=32, epochs=10, verbose=0).history
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (policy == "mixed_float16")
    assert logs["loss"][-1] < 0.9 * logs["loss"][0]
    assert again.evaluate(*batch(), verbose=0) == pytest.approx(model.evaluate(*batch(), verbose=0), rel=1e-3)


def test_learning_rates():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    model = model_with(
        lambda model, large, small: ml.MultiOptimizer(
            [ml.OptimizerBlocks(ml.LazyAdam(schedule), large), ml.OptimizerBlocks("sgd", small)],
            keras.optimizers.Adam(0.02),
        ),
        run_eagerly=True,
    )
    optimizer = model.optimizer
    assert float(optimizer.learning_rate) == pytest.approx(0.02)
    optimizer.learning_rate = 0.03
    model.fit(*batch(64), batch_size=32, verbose=0)
    assert float(optimizer.parts[0].learning_rate) == pytest.approx(0.03)
    assert float(optimizer.parts[1].embedding_learning_rate) == pytest.approx(0.025)  # two steps
    assert float(optimizer.parts[2].learning_rate) == pytest.approx(0.01)
    assert int(optimizer.iterations) == 2


def test_frozen_blocks():
    model = model_with(three, run_eagerly=True)
    model.fit(*batch(), verbose=0)
    model.freeze_blocks([model[0], "MLPBlock"])
    before = values(model), {w.path: w.numpy() for w in model.weights}
    model.fit(*batch(), verbose=0)
    moved = {w.path for w in model.weights if (w.numpy() != before[1][w.path]).any()}
    assert {path.split("/")[1].split("_classification")[0] for path in moved} == {"binary"}
    assert [int(part.iterations) for part in model.optimizer.parts] == [2, 2, 2, 2]


def test_optimizers_without_a_row_sparse_form():
    def make(model, large, small):
        return ml.MultiOptimizer([ml.OptimizerBlocks("nadam", small), ml.OptimizerBlocks("nadam", model[1])], "sgd")

    model = model_with(make, run_eagerly=True)
    with pytest.warns(UserWarning, match="Nadam is none of") as warned:
        model.fit(*batch(), verbose=0)
    assert len([each for each in warned if "Nadam" in str(each.message)]) == 1  # not for the MLP


def test_rules_as_the_only_optimizer():
    made = [
        model_with(lambda *_: ml.LazyAdam(0.02), run_eagerly=True),
        model_with(lambda *_: keras.optimizers.Adam(0.02), embedding_optimizer=ml.LazyAdam(0.02), run_eagerly=True),
    ]
    for model in made:
        model.fit(*batch(), shuffle=False, verbose=0)
    for one, other in zip(*(values(model).values() for model in made), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "rule",
    [
        SGD(0.1, momentum=0.9, nesterov=True),
        Adagrad(0.1, initial_accumulator_value=0.2),
        ml.LazyAdam(0.1, beta_1=0.8, weight_decay=0.1),
        ml.LazyAdamW(),
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(ml.LazyAdam())),
        rule_like(keras.optimizers.RMSprop(rho=0.7)),
        rule_like(keras.optimizers.Ftrl(l1_regularization_strength=0.1, l2_regularization_strength=0.2)),
    ],
)
def test_keras_form_of_a_rule(rule):
    optimizer = keras_like(rule)
    again = rule_like(optimizer)
    expected = {**rule.get_config(), "learning_rate": None}
    assert again.get_config() == pytest.approx(expected)
    if rule.learning_rate is not None:
        assert float(optimizer.learning_rate) == pytest.approx(rule.learning_rate)
    assert isinstance(keras_like(ml.RowwiseAdagrad()), keras.optimizers.Adagrad)


def test_split_on_size():
    inputs = ml.Embeddings(SCHEMA, dim=4)
    large, small = ml.split_embeddings_on_size(inputs, threshold=50)
    assert [each.names for each in large] == [("large",)]
    assert [each.names for each in small] == [("other", "small")]
    assert large[0].variables == []
    assert ml.split_embeddings_on_size(inputs, threshold=51)[0] == []
    tables = [ml.EmbeddingBag(rows, 4) for rows in (5, 50)]
    keras_own = keras.layers.Embedding(60, 4)
    assert ml.split_embeddings_on_size(ml.ParallelBlock(*tables, keras_own), 20) == (
        [tables[1], keras_own],
        [tables[0]],
    )
    with pytest.raises(ValueError, match="must be a block with embedding tables"):
        ml.split_embeddings_on_size(ml.MLPBlock([2]), 20)


def test_wrong_arguments():
    dense = keras.layers.Dense(1)
    with pytest.raises(ValueError, match=r"must hold one or several OptimizerBlocks. Received: \[\]"):
        ml.MultiOptimizer([])
    with pytest.raises(ValueError, match="must hold one or several OptimizerBlocks"):
        ml.MultiOptimizer([("adam", dense)])
    with pytest.raises(TypeError, match="blocks must be layers, or tables"):
        ml.OptimizerBlocks("adam", "mlp")
    with pytest.raises(ValueError, match="must not be a wrapper"):
        ml.MultiOptimizer([ml.OptimizerBlocks(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()), dense)])
    one = ml.MultiOptimizer([ml.OptimizerBlocks("adam", dense)])
    with pytest.raises(ValueError, match="must not be a MultiOptimizer"):
        ml.MultiOptimizer([ml.OptimizerBlocks(one, dense)])
    with pytest.raises(ValueError, match="MultiOptimizer takes optimizer_blocks"):
        ml.MultiOptimizer([ml.OptimizerBlocks("adam", dense)], learning_rate=0.1)
    with pytest.raises(ValueError, match="the same loss_scale_factor"):
        ml.MultiOptimizer([ml.OptimizerBlocks(keras.optimizers.Adam(loss_scale_factor=2.0), dense)])
    with pytest.raises(ValueError, match="must be built to be saved"):
        one.get_config()
    with pytest.raises(ValueError, match="must be given once"):
        model_with(three, embedding_optimizer=ml.LazyAdam())
    with pytest.raises(ValueError, match="must not be 'dense' where the optimizer is a RowSparse or a MultiOptimizer"):
        model_with(three, embedding_optimizer="dense")


def test_wrong_blocks():
    def shared(model, large, small):
        return ml.MultiOptimizer([ml.OptimizerBlocks("sgd", model[0]), ml.OptimizerBlocks("adam", large)])

    with pytest.raises(ValueError, match=r"must not share weights. Received: '.*large' in optimizer_blocks \[0, 1\]"):
        model_with(shared, run_eagerly=True).fit(*batch(), verbose=0)

    def foreign(model, large, small):
        block = ml.MLPBlock([2])
        block(np.ones((1, 2)))
        return ml.MultiOptimizer([ml.OptimizerBlocks("sgd", block)])

    def never_built(model, large, small):
        return ml.MultiOptimizer([ml.OptimizerBlocks("sgd", ml.MLPBlock([2]))])

    for make in (foreign, never_built):
        with pytest.raises(ValueError, match="Blocks of a MultiOptimizer must be of the model"):
            model_with(make, run_eagerly=True).fit(*batch(), verbose=0)
    model = model_with(three)
    with pytest.raises(ValueError, match="No gradients provided for any variable"):
        model.optimizer.apply([None] * len(model.trainable_variables), model.trainable_variables)
    with pytest.raises(ValueError, match=r"must be those that the optimizer was built with. Received: 'mine'"):
        model.optimizer.apply([np.ones(1)], [keras.Variable(np.ones(1), name="mine")])


def test_config_round_trip():
    model = model_with(three)
    model.optimizer.build(model.trainable_variables)
    again = ml.MultiOptimizer.from_config(model.optimizer.get_config())
    config = again.get_config()
    assert config["assignment"] == model.optimizer.get_config()["assignment"]
    assert config["embeddings"][1]["class_name"] == "RowwiseAdagrad"
    assert ml.MultiOptimizer.from_config(config).get_config() == config
    assert isinstance(again.parts[1], RowSparse)
    with pytest.raises(ValueError, match=r"must have the 7 trained variables .* Received: 1"):
        again.build([keras.Variable(1.0)])
    fresh = keras.optimizers.deserialize(keras.optimizers.serialize(model.optimizer))
    fresh.build(model.trainable_variables)
    assert [v.shape for v in fresh.variables] == [v.shape for v in model.optimizer.variables]


def test_a_plain_keras_model():
    bag, dense = ml.EmbeddingBag(50, 4), keras.layers.Dense(1)
    model = keras.Sequential([keras.Input((2,), dtype="int64"), bag, dense])
    model.compile(ml.MultiOptimizer([ml.OptimizerBlocks(ml.RowwiseAdagrad(0.1), bag)], "adam"), loss="mse")
    ids = np.array([[1, 2], [3, 3]])
    model(ids)
    before = bag.embeddings.numpy()
    model.fit(ids, np.array([0.0, 1.0]), verbose=0)
    assert list(np.flatnonzero((bag.embeddings.numpy() != before).any(axis=1))) == [1, 2, 3]
    assert [v.shape for v in model.optimizer.parts[1].table_state(bag.embeddings)] == [(50,)]
