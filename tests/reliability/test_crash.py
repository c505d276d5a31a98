"""Training that is interrupted goes on as if it had not been: the same numbers to the bit, on a CPU."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import keras
import pyarrow.parquet as pq
import pytest
from reliability_data import assert_same_state, loader, rows, small_model, table

EPOCHS = 4


def schedule():
    return keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9), momentum=0.9)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "optimizer", ["adam", *(pytest.param(other, marks=SLOW) for other in ("adagrad", schedule, "ftrl"))]
)
def test_from_a_file(tmp_path, optimizer):
    """With dropout, a shuffled loader and a new process' seeds."""
    make = optimizer if callable(optimizer) else lambda: optimizer
    whole = small_model(make(), dropout=0.3)
    whole.fit(loader(table(), seed=5), epochs=EPOCHS, verbose=0)
    first = small_model(make(), dropout=0.3)
    first.fit(loader(table(), seed=5), epochs=2, verbose=0)
    first.save(tmp_path / "model.keras")
    keras.utils.set_random_seed(99)
    second = keras.models.load_model(tmp_path / "model.keras")
    data = loader(table(), seed=5)
    done = int(second.optimizer.iterations) // len(data)
    second.fit(data.skip_passes(done), initial_epoch=done, epochs=EPOCHS, verbose=0)
    assert_same_state(second, whole)


@pytest.mark.parametrize("optimizer", ["adam", schedule])
def test_from_weights(tmp_path, optimizer):
    """Of a model that is compiled, and has not been trained."""
    make, (features, targets) = optimizer if callable(optimizer) else lambda: optimizer, rows()
    options = {"batch_size": 32, "shuffle": False, "verbose": 0}
    whole = small_model(make(), dropout=0.3)
    whole.fit(features, targets, **options)
    whole.save_weights(tmp_path / "model.weights.h5")
    whole.fit(features, targets, **options)
    second = small_model(make(), dropout=0.3, seed=99)
    second.load_weights(tmp_path / "model.weights.h5")
    second.fit(features, targets, **options)
    assert_same_state(second, whole)


class Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def test_backup_and_restore(tmp_path):
    features, targets = rows()
    options = {"batch_size": 32, "shuffle": False, "epochs": EPOCHS, "verbose": 0}
    whole = small_model(dropout=0.3)
    whole.fit(features, targets, **options)
    backup = [keras.callbacks.BackupAndRestore(tmp_path / "backup"), Interrupt()]
    with pytest.raises(KeyboardInterrupt):
        small_model(dropout=0.3).fit(features, targets, callbacks=backup, **options)
    second = small_model(dropout=0.3, seed=99)
    history = second.fit(features, targets, callbacks=backup[:1], **options)
    assert len(history.epoch) == 2
    assert_same_state(second, whole)


TRAINING = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
sys.path.insert(0, {folder!r})
import keras
from reliability_data import loader, small_model
rows, checkpoint, final = sys.argv[1:]

class Slowly(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        import time
        time.sleep(0.005)

data = loader(rows, seed=5)
done = 0
if os.path.exists(checkpoint):
    model = keras.models.load_model(checkpoint)
    done = int(model.optimizer.iterations) // len(data)
    data.skip_passes(done)
else:
    model = small_model(dropout=0.3)
callbacks = [Slowly(), keras.callbacks.ModelCheckpoint(checkpoint)]
print(done, flush=True)
model.fit(data, initial_epoch=done, epochs=30, callbacks=callbacks, verbose=0)
model.save(final)
"""


@pytest.mark.slow
def test_kill_9(tmp_path):
    """Processes that are killed at any moment, also while they write, until one is let through."""
    pq.write_table(table(), tmp_path / "rows.parquet", row_group_size=50)
    script = tmp_path / "training.py"
    script.write_text(TRAINING.format(folder=os.path.dirname(__file__)))
    moments = random.Random(8)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def start(name):
        arguments = [str(tmp_path / part) for part in ("rows.parquet", f"{name}.keras", f"{name}-final.keras")]
        return subprocess.Popen(
            [sys.executable, script, *arguments], env=environment, stdout=subprocess.PIPE, text=True
        )

    assert start("whole").wait(timeout=300) == 0
    kills, reached = 0, []
    for _ in range(8):
        process = start("killed")
        reached.append(int(process.stdout.readline()))
        time.sleep(moments.uniform(1.5, 3.0))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait(timeout=60)
    assert start("killed").wait(timeout=300) == 0
    assert kills >= 3
    assert reached == sorted(reached)  # nothing is lost but the steps since
    assert reached[-1] > 0
    final = keras.models.load_model(tmp_path / "killed-final.keras")
    assert_same_state(final, keras.models.load_model(tmp_path / "whole-final.keras"))
    parts = [name for name in os.listdir(tmp_path) if name.startswith(".")]
    assert len(parts) <= kills
    shutil.rmtree(tmp_path)


def test_skip_passes(tmp_path):
    def orders(data, count):
        return [[int(row) for features, _ in data for row in features["item"].numpy()[:, 0]] for _ in range(count)]

    every = orders(loader(table(), seed=5), 4)
    assert orders(loader(table(), seed=5).skip_passes(2), 2) == every[2:]
    seeds = iter(range(10))
    every = orders(loader(table(), seed_fn=lambda: next(seeds)), 3)
    again = iter(range(10))
    assert orders(loader(table(), seed_fn=lambda: next(again)).skip_passes(2), 1) == every[2:]
    stored = loader(table(), shuffle=False).skip_passes(3)
    assert orders(stored, 1) == orders(loader(table(), shuffle=False), 1)
    with pytest.raises(ValueError, match=r"count must be .* Received: -1"):
        stored.skip_passes(-1)
    read = loader(table(), seed=5)
    read.peek()
    with pytest.raises(RuntimeError, match="before the loader is read"):
        read.skip_passes(1)
