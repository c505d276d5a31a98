"""Models train their tables by rows: the choice in compile, saving and resuming, and what moves."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from model_data import TASK, ratings, small_model

from merlin_models.optimizers import LazyAdam, RowSparse, RowwiseAdagrad


def fit(model, epochs=1, **kwargs):
    features, targets = ratings(256)
    return model.fit(features, targets, batch_size=64, epochs=epochs, shuffle=False, verbose=0, **kwargs)


def compiled(**kwargs):
    keras.utils.set_random_seed(5)
    model = small_model()
    model.compile(**kwargs)
    return model


@pytest.mark.usefixtures("on_device")
def test_tables_are_stepped_by_rows_by_default():
    model = compiled(optimizer="adam")
    assert isinstance(model.optimizer, RowSparse)
    assert isinstance(model.optimizer.embeddings, LazyAdam)
    table = model[0]["categorical"].table("movieId")
    before = table.numpy()
    features, targets = ratings(64)
    features["movieId"][:] = 7
    model.fit(features, targets, batch_size=64, epochs=3, verbose=0)
    moved = np.flatnonzero((table.numpy() != before).any(axis=1))
    assert list(moved) == [7]
    assert [v.shape for v in model.optimizer.table_state(table)] == [(41, 8), (41, 8)]


def test_other_optimizers_for_tables():
    model = compiled(optimizer="adam", embedding_optimizer=RowwiseAdagrad(0.1))
    fit(model)
    table = model[0]["categorical"].table("movieId")
    assert [v.shape for v in model.optimizer.table_state(table)] == [(41,)]
    dense = compiled(optimizer="adam", embedding_optimizer="dense")
    assert type(dense.optimizer) is keras.optimizers.Adam
    before = dense[0]["categorical"].table("movieId").numpy()
    features, targets = ratings(64)
    dense.fit(features, targets, batch_size=64, epochs=1, verbose=0)
    features["movieId"][:] = 7
    middle = dense[0]["categorical"].table("movieId").numpy()
    dense.fit(features, targets, batch_size=64, epochs=1, verbose=0)
    after = dense[0]["categorical"].table("movieId").numpy()
    assert (before != middle).any()
    assert (middle[8:] != after[8:]).any()  # Adam's momentum goes on for rows outside of the batch
    with pytest.raises(
        ValueError, match=r"embedding_optimizer must be 'auto', 'dense' or an EmbeddingOptimizer.*'adam'"
    ):
        compiled(optimizer="adam", embedding_optimizer="adam")
    given = RowSparse("sgd", embeddings=LazyAdam())
    assert compiled(optimizer=given).optimizer is given
    assert compiled(optimizer=given, embedding_optimizer=LazyAdam()).optimizer is given
    with pytest.raises(ValueError, match=r"must be given once.*LazyAdam\(.*RowwiseAdagrad\("):
        compiled(optimizer=given, embedding_optimizer=RowwiseAdagrad())
    with pytest.raises(ValueError, match="must not be 'dense' where the optimizer is a RowSparse"):
        compiled(optimizer=given, embedding_optimizer="dense")
    with pytest.warns(UserWarning, match="Nadam is none of"):
        model = compiled(optimizer="nadam")
    fit(model)


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam"},
        {"optimizer": "sgd", "embedding_optimizer": RowwiseAdagrad(0.1)},
        {"optimizer": "adam", "embedding_optimizer": "dense"},
        {"optimizer": lambda: keras.optimizers.Adagrad(0.01, gradient_accumulation_steps=3)},  # stopped amid a step
        {"optimizer": lambda: keras.optimizers.RMSprop(keras.optimizers.schedules.ExponentialDecay(0.01, 3, 0.5))},
    ],
)
def test_resumed_training_goes_on_as_if_not_stopped(tmp_path, on_device, options):
    """To the bit on a CPU; on a GPU the sums of dense layers, and of Keras' dense gradients, differ from run to run."""

    def make(optimizer, **options):
        return compiled(optimizer=optimizer if isinstance(optimizer, str) else optimizer(), **options)

    whole = make(**options)
    fit(whole, epochs=2)
    half = make(**options)
    fit(half)
    half.save(tmp_path / "half.keras")
    resumed = keras.models.load_model(tmp_path / "half.keras")
    assert type(resumed.optimizer) is type(half.optimizer)
    assert int(resumed.optimizer.iterations) == int(half.optimizer.iterations) > 0
    for one, other in zip(half.optimizer.variables, resumed.optimizer.variables, strict=True):
        assert np.array_equal(one.numpy(), other.numpy()), one.path
    fit(resumed)
    tolerance = 0 if on_device == "cpu" else 1e-4
    for one, other in zip(
        whole.weights + whole.optimizer.variables, resumed.weights + resumed.optimizer.variables, strict=True
    ):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=tolerance, atol=tolerance, err_msg=one.path)


def test_resume_with_a_checkpoint_of_the_optimizer(tmp_path, on_device):
    model = compiled(optimizer="adagrad")
    fit(model)
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    fit(model, epochs=1, callbacks=[checkpoint])
    loaded = keras.models.load_model(tmp_path / "1.keras")
    logs = [m.fit(*ratings(256), batch_size=64, shuffle=False, verbose=0).history["loss"] for m in (model, loaded)]
    assert logs[0] == (logs[1] if on_device == "cpu" else pytest.approx(logs[1], rel=1e-5))


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = compiled(optimizer=keras.optimizers.Adam(0.02))
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (policy == "mixed_float16")
        logs = fit(model, epochs=30).history
    finally:
        keras.config.set_dtype_policy("float32")
    assert logs["loss"][-1] < 0.8 * logs["loss"][0]
    assert logs[f"{TASK}/auc"][-1] > 0.8


def test_learns_as_well_as_with_dense_steps():
    aucs = []
    for choice in ("auto", "dense"):
        model = compiled(optimizer=keras.optimizers.Adam(0.02), embedding_optimizer=choice)
        aucs.append(fit(model, epochs=30).history[f"{TASK}/auc"][-1])
    assert min(aucs) > 0.85
    assert abs(aucs[0] - aucs[1]) < 0.1
