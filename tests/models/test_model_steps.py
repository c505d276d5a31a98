"""What comes before a step, how often metrics are computed, and targets among the features."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from model_data import LOGS, TASK, ratings, small_model

import merlin_models.tf as ml
from merlin_models.models.steps import run_pre


class Recorder:
    """A function for ``pre`` that keeps what it was called with."""

    def __init__(self, change=lambda x, y: (x, y)):
        self.change, self.calls = change, []

    def __call__(self, inputs, targets, training, testing):
        self.calls.append((training, testing))
        return self.change(inputs, targets)


def compiled(**kwargs):
    model = small_model(dim=4)
    model.compile("adam", **kwargs)
    return model


def flip(inputs, targets):
    return inputs, 1 - targets


def test_pre_of_training_validation_and_evaluation():
    keras.utils.set_random_seed(1)  # weights that tell targets and flipped ones apart
    (features, targets), model = ratings(64), compiled()
    pre = Recorder(flip)
    logs = model.fit(features, targets, validation_data=(features, targets), pre=pre, verbose=0).history
    assert sorted(set(pre.calls)) == [(False, True), (True, False)]
    plain = model.evaluate(features, 1 - targets, verbose=0, return_dict=True)
    assert model.evaluate(features, targets, pre=flip, verbose=0, return_dict=True) == pytest.approx(plain, rel=1e-5)
    assert logs["val_loss"][0] == pytest.approx(plain["loss"], rel=1e-5)
    other = model.evaluate(features, targets, verbose=0, return_dict=True)  # no pre is left over
    assert abs(other["loss"] - plain["loss"]) > 0.002


def test_pre_changes_what_is_learnt():
    (features, targets), models = ratings(64), []
    for given, options in [(targets, {}), (1 - targets, {"pre": flip}), (targets, {"pre": flip})]:
        keras.utils.set_random_seed(3)
        models.append(compiled(run_eagerly=True))
        models[-1].fit(features, given, shuffle=False, verbose=0, **options)
    same, again, other = (model.predict(features, verbose=0) for model in models)
    np.testing.assert_array_equal(same, again)
    assert np.abs(same - other).max() > 1e-4
    before = [weight.numpy() for weight in models[1].weights]
    models[1].train_on_batch(features, targets)  # without the pre of fit
    models[0].train_on_batch(features, targets)
    for one, two, old in zip(models[0].weights, models[1].weights, before, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())
        assert one.shape == old.shape


class Doubled(keras.layers.Layer):
    """Each row twice, the second time with half the weight."""

    def call(self, inputs, targets=None, sample_weight=None, training=None):
        twice = keras.tree.map_structure(lambda x: keras.ops.concatenate([x, x], 0), (inputs, targets))
        ones = keras.ops.ones(keras.ops.shape(targets)[0])
        return ml.Prediction(*twice, keras.ops.concatenate([ones, 0.5 * ones], 0))


def test_a_layer_as_pre_with_weights():
    (features, targets), model = ratings(64), compiled()
    plain = model.evaluate(features, targets, verbose=0, return_dict=True)
    logs = model.evaluate(features, targets, pre=Doubled(), verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(0.75 * plain["loss"], rel=1e-5)
    assert len(model.layers) == 3


@pytest.mark.parametrize(
    ("pre", "expected"),
    [
        (lambda inputs: inputs + 1, (2, 10, 100)),
        (lambda inputs, targets: (inputs, targets + 1), (1, 11, 100)),
        (lambda inputs, sample_weight: (inputs, 0, sample_weight * 2), (1, 0, 200)),
        (lambda inputs, targets: ml.Prediction(inputs, targets), (1, 10, 100)),
        (lambda inputs, targets, sample_weight: ml.Prediction(inputs, targets), (1, 10, None)),
        (lambda inputs, testing, training: ml.Prediction((testing, training)), ((False, True), None, 100)),
    ],
)
def test_what_pre_returns(pre, expected):
    assert run_pre(pre, 1, 10, 100, training=True, testing=False) == expected


def _raise(inputs):
    raise ValueError("no such batch")


@pytest.mark.parametrize(
    ("step", "wrong"),
    [
        ("fit", "targets"),
        ("fit", "features"),
        ("fit", "pre"),
        ("train_on_batch", "targets"),
        ("train_on_batch", "features"),
    ],
)
def test_what_failed_runs_with_the_right_data(step, wrong, tmp_path):
    """An error of the first batch, in a trace, leaves neither a function nor an optimizer behind that cannot be used."""
    (features, targets), model, whole = ratings(64), compiled(), compiled()
    whole.set_weights(model.get_weights())
    bad_features = {name: value for name, value in features.items() if name != "userId"}
    batches = {"targets": (features, np.ones((64, 2))), "features": (bad_features, targets), "pre": (features, targets)}
    options = {} if step == "train_on_batch" else {"shuffle": False, "verbose": 0}
    with pytest.raises(ValueError, match=r"must have|no such batch"):
        getattr(model, step)(*batches[wrong], **options, **({"pre": _raise} if wrong == "pre" else {}))
    model.save(tmp_path / "model.keras")  # in between, too
    keras.models.load_model(tmp_path / "model.keras")
    for each in (model, whole):
        getattr(each, step)(features, targets, **options)
    for own, expected in zip(model.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(own, expected)
    with pytest.raises(ValueError, match="must have all features"):
        model.predict(bad_features, verbose=0)
    assert model.predict(features, verbose=0).shape == (64, 1)
    with pytest.raises(ValueError, match="must have the shape"):
        model.evaluate(features, np.ones((64, 2)), verbose=0)
    assert np.isfinite(model.evaluate(features, targets, verbose=0)).all()


def test_wrong_pre():
    (features, targets), model = ratings(8), compiled(run_eagerly=True)
    for call in (model.fit, model.evaluate):
        with pytest.raises(TypeError, match=r"pre must be a layer, a function or None. Received: 3"):
            call(features, targets, pre=3)
    with pytest.raises(TypeError, match="Received: a tuple of 4"):
        model.fit(features, targets, pre=lambda inputs: (inputs,) * 4, verbose=0)
    for wrong in (-1, 0.5):
        with pytest.raises(ValueError, match="train_metrics_steps must be an integer, 0 or more"):
            model.fit(features, targets, train_metrics_steps=wrong)


@keras.saving.register_keras_serializable(package="tests")
class Count(keras.metrics.Sum):
    """The number of updates."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(1.0)


@pytest.mark.parametrize(("steps", "updates"), [(1, 8), (3, 3), (0, 0)])
def test_metrics_of_every_nth_batch(steps, updates):
    (features, targets), model = ratings(64), compiled(metrics=[Count(name="count")])
    logs = model.fit(features, targets, batch_size=8, train_metrics_steps=steps, verbose=0).history
    assert logs[f"{TASK}/count"] == [updates]
    assert logs["loss"][0] > 0
    if steps == 0:
        assert model.evaluate(features, targets, batch_size=8, verbose=0, return_dict=True)[f"{TASK}/count"] == 8
        logs = model.fit(features, targets, batch_size=8, verbose=0).history  # and back
        assert logs[f"{TASK}/count"] == [8]


def test_targets_among_the_features():
    (features, targets), model = ratings(64), compiled()
    together = {**features, "rating_b": targets[:, None]}
    plain = model.evaluate(features, targets, verbose=0, return_dict=True)
    assert model.evaluate(together, verbose=0, return_dict=True) == pytest.approx(plain, rel=1e-5)
    assert set(model.fit(together, verbose=0).history) == LOGS
    with pytest.raises(ValueError, match="must get targets"):
        model.evaluate(features, verbose=0)


def test_examples_per_second(monkeypatch, capsys):
    ticks = iter(range(1000))
    monkeypatch.setattr("merlin_models.models.callbacks.time.perf_counter", lambda: float(next(ticks)))
    callback = ml.ExamplesPerSecondCallback(8, every_n_steps=2, log_as_print=True)
    (features, targets), model = ratings(64), compiled()
    logs = model.fit(features, targets, batch_size=8, epochs=2, callbacks=[callback], verbose=0).history
    assert logs["examples_per_second"] == [8.0, 8.0]  # a step a second
    assert callback.history == [(epoch, step, 8.0) for epoch in (0, 1) for step in (3, 5, 7)]
    assert "epoch 2, step 7: 8 examples per second" in capsys.readouterr().out


def test_examples_per_second_of_too_few_steps():
    callback = ml.ExamplesPerSecondCallback(8, every_n_steps=None)
    logs = {}
    callback.on_epoch_begin(0)
    callback.on_train_batch_end(0)
    callback.on_epoch_end(0, logs)
    assert logs == {}
    for wrong in ({"batch_size": 0}, {"batch_size": 8, "every_n_steps": 0}, {"batch_size": 8, "skip_steps": -1}):
        with pytest.raises(ValueError, match=r"must be an integer of at least"):
            ml.ExamplesPerSecondCallback(**wrong)
