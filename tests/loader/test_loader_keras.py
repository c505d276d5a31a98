"""fit, evaluate and predict of plain Keras models, dense and ragged."""

from __future__ import annotations

import itertools
import warnings

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from loader_data import numbered_table, wait_for_threads, write_numbered

from merlin_models.loader import epochs
from merlin_models.loader.tensorflow import KerasSequenceLoader, KerasSequenceValidater


class RaggedSum(keras.layers.Layer):
    """Sums each list; counts how often it is traced."""

    traces = 0

    def call(self, inputs):
        type(self).traces += 1
        return tf.cast(tf.reduce_sum(inputs, axis=1, keepdims=True), tf.float32)

    def compute_output_shape(self, shape):
        return (shape[0], 1)


def ragged_model(**compile_arguments):
    row = keras.Input((1,), name="row", dtype="int64")
    bag = keras.Input((None,), name="bag", dtype="int64", ragged=True)
    total = RaggedSum()(bag)
    outputs = keras.layers.Dense(1, name="y")(keras.layers.Concatenate()([keras.ops.cast(row, "float32"), total]))
    model = keras.Model({"row": row, "bag": bag}, outputs)
    model.compile(**{"optimizer": keras.optimizers.SGD(0.0), "loss": "mse", **compile_arguments})
    return model


def dense_model():
    inputs = {
        "row": keras.Input((1,), name="row", dtype="int64"),
        "bag": keras.Input((3,), name="bag", dtype="int64"),
    }
    wide = keras.layers.Concatenate()([keras.ops.cast(inputs[name], "float32") for name in inputs])
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(wide))
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    return model


class Recorder(keras.Model):
    """Keeps the rows of each step, in order, and predicts them."""

    def __init__(self):
        super().__init__()
        self.rows = []
        self.bias = self.add_weight(shape=(1,), initializer="zeros", name="bias")

    def note(self, rows):
        self.rows.append(rows.ravel().tolist())
        return np.int64(0)

    def call(self, inputs, training=None):
        if training:
            tf.numpy_function(self.note, [inputs["row"]], tf.int64)
        return keras.ops.cast(inputs["row"], "float32") + self.bias


def recorder():
    model = Recorder()
    model.compile(loss="mse", optimizer=keras.optimizers.SGD(0.0), run_eagerly=True)
    return model


class RowsOf(keras.callbacks.Callback):
    """Rows that each epoch of a `Recorder` trained on."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append([row for rows in self.model.rows for row in rows])
        self.model.rows = []


def load(data, batch_size=16, **kwargs):
    return KerasSequenceLoader(data, batch_size, label_names=["y"], seed=0, **kwargs)


def fit_rows(loader, **kwargs):
    model, rows = recorder(), RowsOf()
    model.fit(loader, callbacks=[rows], verbose=0, **kwargs)
    return rows.epochs


def test_ragged_fit_evaluate_predict(tmp_path):
    paths = write_numbered(tmp_path)
    model = ragged_model()
    history = model.fit(load(paths, buffer_size=1), epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2
    weights = model.get_weights()
    rows = np.arange(120)
    expected = (np.stack([rows, rows * (rows % 4)], 1) @ weights[0] + weights[1]).ravel()
    loader = load(paths, shuffle=False)
    assert np.allclose(model.predict(loader, verbose=0).ravel(), expected, rtol=1e-5)
    loss = model.evaluate(loader, verbose=0)
    assert loss == pytest.approx(((expected - rows % 2) ** 2).mean(), rel=1e-4)
    assert history.history["loss"][0] == pytest.approx(loss, rel=1e-4)
    assert not wait_for_threads()


def test_ragged_batches_do_not_retrace(tmp_path):
    model = ragged_model()
    loader = load(write_numbered(tmp_path), batch_size=7)
    RaggedSum.traces = 0
    model.fit(loader, epochs=3, verbose=0)
    assert RaggedSum.traces <= 2
    assert model.train_function is not None


def test_predict_without_labels_and_with(tmp_path):
    paths = write_numbered(tmp_path)
    model = ragged_model()
    features_only = KerasSequenceLoader(paths, 16, cat_names=["row", "bag"], shuffle=False)
    with_labels = load(paths, shuffle=False)
    assert np.array_equal(model.predict(features_only, verbose=0), model.predict(with_labels, verbose=0))


def test_dense_fit_with_the_tutorial_s_map(tmp_path):
    loader = load(write_numbered(tmp_path), sparse_names=["bag"], sparse_max={"bag": 3}, sparse_as_dense=True).map(
        lambda X, y: (X, tf.reshape(y, (-1,)))
    )
    model = dense_model()
    history = model.fit(loader, epochs=2, verbose=0)
    assert len(history.epoch) == 2
    assert set(model.evaluate(loader, return_dict=True, verbose=0)) == {"loss", "accuracy"}
    assert model.predict(loader, verbose=0).shape == (120, 1)
    assert not wait_for_threads()


def test_each_epoch_of_fit_sees_each_row_once_in_a_new_order(tmp_path):
    epochs = fit_rows(load(write_numbered(tmp_path), buffer_size=1), epochs=3)
    assert len(epochs) == 3
    assert all(sorted(rows) == list(range(120)) for rows in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs == fit_rows(load(write_numbered(tmp_path), buffer_size=1), epochs=3)


def test_fit_in_stored_order(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        epochs = fit_rows(load(write_numbered(tmp_path), shuffle=False), epochs=2, shuffle=False)
    assert epochs == [list(range(120))] * 2


def test_fit_shuffles_batches_of_a_loader_in_stored_order_with_a_warning(tmp_path):
    loader = load(write_numbered(tmp_path), shuffle=False, buffer_size=1)
    with pytest.warns(UserWarning, match="Keras asks for its batches in random order"):
        (rows,) = fit_rows(loader)
    assert sorted(rows) == list(range(120))


def test_steps_per_epoch_goes_on_where_it_stopped(tmp_path):
    loader = load(write_numbered(tmp_path), batch_size=10)
    epochs = fit_rows(loader, epochs=3, steps_per_epoch=4)
    assert [len(rows) for rows in epochs] == [40, 40, 40]
    assert sorted(itertools.chain(*epochs)) == list(range(120))


def test_evaluate_with_steps_is_repeatable(tmp_path):
    model = recorder()
    loader = load(write_numbered(tmp_path), shuffle=False)
    results = [model.evaluate(loader, steps=3, verbose=0) for _ in range(2)]
    rows = np.arange(48)
    assert results == pytest.approx([((rows - rows % 2) ** 2).mean()] * 2, rel=1e-5)


def test_fit_again_after_an_interruption(tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                raise KeyboardInterrupt

    loader = load(write_numbered(tmp_path), batch_size=10, buffer_size=1)
    with pytest.raises(KeyboardInterrupt):
        recorder().fit(loader, callbacks=[Interrupt()], verbose=0)
    epochs = fit_rows(loader, epochs=2)
    assert [sorted(rows) for rows in epochs] == [list(range(120))] * 2


@pytest.mark.parametrize("workers", [1, 3])
def test_validation_data_and_workers(tmp_path, workers):
    paths = write_numbered(tmp_path)
    train, valid = load(paths), load(paths, batch_size=50)
    train.workers = workers
    history = ragged_model().fit(train, validation_data=valid, epochs=2, verbose=0)
    assert history.history["val_loss"] == pytest.approx(history.history["loss"], rel=1e-4)


def test_class_weight_and_sample_weight_work():
    table = numbered_table(0, 4).select(["row", "y"])
    plain, weighted = recorder(), recorder()
    loss = plain.fit(load(table), verbose=0).history["loss"][0]
    heavy = weighted.fit(load(table), class_weight={0: 2.0, 1: 2.0}, verbose=0).history["loss"][0]
    assert heavy == pytest.approx(2 * loss)
    loader = load(table).map(lambda x, y: (x, y, 3.0 * tf.ones_like(y, tf.float32)))
    assert recorder().fit(loader, verbose=0).history["loss"][0] == pytest.approx(3 * loss)


def test_several_labels_in_fit():
    table = pa.table({"x": [0.0, 1.0, 2.0, 3.0], "a": [0, 0, 1, 1], "b": [0.5, 1.0, 1.5, 2.0]})
    loader = KerasSequenceLoader(table, 2, cont_names=["x"], label_names=["a", "b"])
    inputs = keras.Input((1,), name="x")
    outputs = {"b": keras.layers.Dense(1)(inputs), "a": keras.layers.Dense(1, activation="sigmoid")(inputs)}
    model = keras.Model({"x": inputs}, outputs)
    model.compile(optimizer="sgd", loss={"a": "binary_crossentropy", "b": "mse"})
    assert np.isfinite(model.fit(loader, verbose=0).history["loss"][0])
    predicted = model.predict(loader, verbose=0)["b"]
    order = np.concatenate([labels["b"] for _, labels in loader])
    assert predicted.shape == order.shape


def test_one_and_two_batches(tmp_path):
    for rows in (3, 20):
        epochs = fit_rows(load(numbered_table(0, rows).select(["row", "y"])), epochs=2)
        assert [sorted(found) for found in epochs] == [list(range(rows))] * 2


def test_validater(tmp_path):
    paths = write_numbered(tmp_path)
    model = ragged_model(metrics=["mae"])
    callback = KerasSequenceValidater(load(paths, batch_size=50))
    history = model.fit(load(paths), callbacks=[callback], epochs=2, verbose=0).history
    assert set(history) == {"loss", "mae", "val_loss", "val_mae"}
    assert history["val_mae"] == pytest.approx(history["mae"], rel=1e-4)


def test_reading_error_reaches_fit():
    table = pa.table({"row": pa.array([1, None]), "y": [0, 1]})
    with pytest.raises(ValueError, match="Column 'row' must not hold nulls"):
        recorder().fit(load(table), verbose=0)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_fit_and_evaluate_after_a_reading_error(tmp_path, monkeypatch, workers, shuffle):
    """The next call begins anew, in the order that failed: whoever goes on from a checkpoint loses nothing."""
    monkeypatch.setattr(epochs, "BLOCK_ROWS", 10)
    paths = write_numbered(tmp_path)
    loader = load(paths, batch_size=10, buffer_size=1, shuffle=shuffle)
    loader.workers = workers
    file = tmp_path / "part_1.parquet"
    raw = file.read_bytes()
    file.unlink()
    for _ in range(2):
        with pytest.raises(Exception, match=r"part_1.parquet"):
            recorder().fit(loader, shuffle=shuffle, verbose=0)
    file.write_bytes(raw)
    seen = fit_rows(loader, epochs=2, shuffle=shuffle)
    assert [sorted(rows) for rows in seen] == [list(range(120))] * 2
    if workers == 1:
        assert seen == fit_rows(load(paths, batch_size=10, buffer_size=1, shuffle=shuffle), epochs=2, shuffle=shuffle)
    file.unlink()
    with pytest.raises(Exception, match=r"part_1.parquet"):
        recorder().evaluate(loader, verbose=0)
    file.write_bytes(raw)
    rows = np.arange(120)
    assert recorder().evaluate(loader, verbose=0) == pytest.approx(((rows - rows % 2) ** 2).mean(), rel=1e-5)
