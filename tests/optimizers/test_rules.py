"""The rules of embedding tables: configuration, and what matches a Keras optimizer."""

from __future__ import annotations

import keras
import pytest

from merlin_models import optimizers


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
