"""The seed of a loader that is given none: Python's `random`, which `keras.utils.set_random_seed` seeds."""

from __future__ import annotations

import random

import keras
import pyarrow as pa
import pytest

from merlin_models.loader.tensorflow import KerasSequenceLoader

TABLE = pa.table({"item": range(200)})


@pytest.fixture(autouse=True)
def state_of_random():
    state = random.getstate()
    yield
    random.setstate(state)


def orders(passes=2, **options):
    loader = KerasSequenceLoader(TABLE, 200, **options)
    return [next(iter(loader))["item"].numpy()[:, 0].tolist() for _ in range(passes)]


def seeded(**options):
    keras.utils.set_random_seed(11)
    return [orders(**options) for _ in range(2)]


def test_the_seed_of_keras_fixes_the_order():
    first, second = seeded()
    assert [first, second] == seeded()
    assert first != second  # loaders that are made one after the other have orders of their own
    assert first[0] != first[1]
    keras.utils.set_random_seed(12)
    assert orders() != first


def test_ranks_agree_on_it():
    shares = [seeded(global_size=2, global_rank=rank)[0] for rank in (0, 1)]
    assert shares == [seeded(global_size=2, global_rank=rank)[0] for rank in (0, 1)]
    for one, other in zip(*shares, strict=True):
        assert sorted(one + other) == list(range(200))


def test_processes_without_a_seed_differ():
    """Python seeds `random` by the system, when it starts and in each forked process, as here."""
    random.seed()
    first = orders()
    random.seed()
    assert orders() != first


def test_a_given_seed_comes_first():
    fixed = orders(seed=3)
    keras.utils.set_random_seed(11)
    assert orders(seed=3) == fixed
