"""The rules of embedding tables: configuration, what matches a Keras optimizer, and a model trained by each."""

from __future__ import annotations

import keras
import ml_dtypes
import numpy as np
import pytest

from merlin_models import optimizers
from merlin_models.layers import EmbeddingBag
from merlin_models.ops import embedding_bag_update_reference


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        (optimizers.SGD(0.1), "sgd"),
        (optimizers.SGD(momentum=0.9, nesterov=True), "momentum"),
        (optimizers.Adagrad(epsilon=1e-3, initial_accumulator_value=0.5), "adagrad"),
        (optimizers.RowwiseAdagrad(clipnorm=1.0), "rowwise_adagrad"),
        (optimizers.LazyAdam(beta_1=0.8, l2=0.1), "adam"),
        (optimizers.LazyAdamW(), "adam"),
        (optimizers.RMSprop(rho=0.8), "rmsprop"),
        (optimizers.Ftrl(l1=0.1, l2=0.2, stochastic_rounding=True, seed=3), "ftrl"),
        (optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)), "sgd"),
    ],
)
def test_config_round_trip(rule, name):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(rule))
    assert type(again) is type(rule)
    assert again.get_config() == rule.get_config()
    assert again.update_rule() == rule.update_rule()
    assert rule.update_rule().name == name


def test_rules_of_keras_optimizers():
    k = keras.optimizers
    assert optimizers.rule_like(k.SGD(0.1)).update_rule().name == "sgd"
    momentum = optimizers.rule_like(k.SGD(0.1, momentum=0.9, nesterov=True)).update_rule()
    assert (momentum.name, momentum.momentum, momentum.nesterov) == ("momentum", 0.9, True)
    adam = optimizers.rule_like(k.Adam(beta_1=0.8, beta_2=0.9, epsilon=1e-4)).update_rule()
    assert (adam.name, adam.beta_1, adam.beta_2, adam.epsilon, adam.weight_decay) == ("adam", 0.8, 0.9, 1e-4, 0.0)
    assert optimizers.rule_like(k.AdamW(weight_decay=0.3)).update_rule().weight_decay == 0.3
    adagrad = optimizers.rule_like(k.Adagrad(initial_accumulator_value=0.7)).update_rule()
    assert (adagrad.name, adagrad.initial_accumulator_value) == ("adagrad", 0.7)
    assert optimizers.rule_like(k.RMSprop(rho=0.6)).update_rule().beta_2 == 0.6
    ftrl = optimizers.rule_like(k.Ftrl(l1_regularization_strength=0.1, l2_regularization_strength=0.2)).update_rule()
    assert (ftrl.name, ftrl.l1, ftrl.l2) == ("ftrl", 0.1, 0.2)


@pytest.mark.parametrize(
    ("optimizer", "why"),
    [
        (keras.optimizers.Nadam(), "Nadam is none of"),
        (keras.optimizers.Adam(amsgrad=True), "Adam has amsgrad=True"),
        (keras.optimizers.RMSprop(centered=True), "RMSprop has centered=True"),
        (keras.optimizers.RMSprop(momentum=0.9), "RMSprop has momentum=0.9"),
        (keras.optimizers.SGD(use_ema=True), "SGD has use_ema=True"),
        (keras.optimizers.Adam(clipnorm=1.0), "Adam has clipnorm=1.0"),
        (keras.optimizers.Adam(global_clipnorm=1.0), "Adam has global_clipnorm=1.0"),
        (keras.optimizers.Ftrl(learning_rate_power=-0.6), "Ftrl has learning_rate_power=-0.6"),
    ],
)
def test_optimizers_without_a_rule(optimizer, why):
    assert why in optimizers.why_no_rule(optimizer)
    assert optimizers.rule_like(optimizer) is None
    with pytest.warns(UserWarning, match=r"no row-sparse form"):
        wrapped = optimizers.RowSparse(optimizer)
    assert not wrapped.steps_rows
    assert optimizers.RowSparse(optimizer, optimizers.LazyAdam()).steps_rows


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"learning_rate must be None, a schedule or a number.*-1"):
        optimizers.SGD(-1.0)
    with pytest.raises(ValueError, match=r"clipnorm must be None or positive. Received: 0"):
        optimizers.SGD(clipnorm=0)
    with pytest.raises(ValueError, match=r"beta_1 must be in \[0, 1\)"):
        optimizers.LazyAdam(beta_1=1.5)
    with pytest.raises(ValueError, match=r"optimizer must not be a wrapper. Received: RowSparse"):
        optimizers.RowSparse(optimizers.RowSparse("sgd"))
    with pytest.raises(TypeError, match=r"embeddings must be an EmbeddingOptimizer or None. Received: str"):
        optimizers.RowSparse("sgd", embeddings="adam")
    with pytest.raises(ValueError, match=r"RowSparse takes optimizer, embeddings and name. Received: \['clipnorm'\]"):
        optimizers.RowSparse("sgd", clipnorm=1.0)


class Rows(optimizers.RowSparseTraining, keras.Model):
    """Means of three rows: with the loss ``products`` their gradient is known."""

    def __init__(self, dtype):
        super().__init__()
        self.bag = EmbeddingBag(30, 8, combiner="mean", embeddings_dtype=dtype)

    def call(self, ids):
        return self.bag(ids)


def products(y, outputs):
    return keras.ops.sum(y * outputs, axis=-1)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(np.float32, 6e-5), (np.float16, 6e-3), (ml_dtypes.bfloat16, 5e-2)],
    ids=["float32", "float16", "bfloat16"],
)
@pytest.mark.parametrize(
    "rule",
    [
        optimizers.SGD(0.1, l2=0.1),
        optimizers.SGD(0.1, momentum=0.9),
        optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.2),
        optimizers.Adagrad(0.1),
        optimizers.RowwiseAdagrad(0.1, clipnorm=0.05),
        optimizers.LazyAdam(0.1, beta_1=0.8),
        optimizers.LazyAdamW(0.1, weight_decay=0.2),
        optimizers.RMSprop(0.1, rho=0.8),
        optimizers.Ftrl(0.1, l1=0.01, l2=0.02),
    ],
    ids=lambda rule: rule.update_rule().name,
)
@pytest.mark.usefixtures("on_device")
def test_a_model_is_trained_by_every_rule(rng, rule, dtype, tolerance):
    """Four steps of ``fit`` against the reference, of tables of every dtype; rows 20 to 29 are in no batch."""
    ids, y = rng.integers(0, 20, (32, 3)), rng.normal(size=(32, 8)).astype(np.float32)
    keras.utils.set_random_seed(2)
    model = Rows(np.dtype(dtype).name)
    model(ids)
    model.compile(optimizers.RowSparse("sgd", rule), loss=products)
    first = keras.ops.convert_to_numpy(model.bag.embeddings).astype(np.float64)
    table, update_rule = first, rule.update_rule()
    slots = [np.full(slot.shape(30, 8), slot.initial_value) for slot in update_rule.slots()]
    for step in range(4):
        batch = slice(16 * (step % 2), 16 * (step % 2) + 16)
        grad = np.zeros((30, 8))
        given = (y[batch, None, :] / 16).astype(dtype)  # the layer's vectors, and so their gradients, are of this dtype
        np.add.at(grad, ids[batch], given.astype(np.float64) / 3)
        (table,), (slots,) = embedding_bag_update_reference(
            [table], [slots], [grad], [np.unique(ids[batch])], update_rule, rule.learning_rate, step
        )
        table = table.astype(dtype).astype(np.float64)  # the next step begins from what is stored
    model.fit(ids, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    after = keras.ops.convert_to_numpy(model.bag.embeddings).astype(np.float64)
    assert np.array_equal(after[20:], first[20:])
    assert np.abs(after - table).max() <= tolerance * np.abs(table).max()
    assert np.abs(table - first).max() > 5 * tolerance * np.abs(table).max()
    for slot, expected in zip(model.optimizer.table_state(model.bag.embeddings), slots, strict=True):
        assert np.abs(slot.numpy() - expected).max() <= tolerance * np.abs(expected).max(), slot.path
