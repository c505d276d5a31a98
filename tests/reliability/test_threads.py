"""Eight threads that use one thing at a time: the numbers of one thread, and no error."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from reliability_data import loader, rows, small_model, table

import merlin_models.tf as ml
from merlin_models import _native

THREADS = 8


def in_threads(work, repeats=5):
    """What ``work(thread)`` gives in each thread, called some times by all at once."""
    results, errors = [[] for _ in range(THREADS)], []
    barrier = threading.Barrier(THREADS)

    def run(thread):
        try:
            for _ in range(repeats):
                barrier.wait(timeout=120)
                results[thread].append(work(thread))
        except BaseException as error:  # whatever a thread raises is for the test to show
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


@pytest.mark.parametrize("how", ["call", "predict", "predict first"])
def test_one_model(how):
    model, (features, _) = small_model(), rows()
    expected = np.array(model(features)) if how == "call" else small_model().predict(features, verbose=0)
    if how == "predict":
        model.predict(features, verbose=0)
    work = (lambda _: np.array(model(features))) if how == "call" else lambda _: model.predict(features, verbose=0)
    for results in in_threads(work, repeats=10 if how == "call" else 3):
        for result in results:
            np.testing.assert_array_equal(result, expected)


def test_one_model_with_rows_of_each_thread():
    model = small_model()
    features = [rows(16 + thread, seed=thread)[0] for thread in range(THREADS)]
    expected = [np.array(model(each)) for each in features]
    for thread, results in enumerate(in_threads(lambda thread: np.array(model(features[thread])), repeats=10)):
        for result in results:
            np.testing.assert_array_equal(result, expected[thread])


def test_one_encoder():
    schema = ml.Schema([ml.ColumnSchema.create_categorical("item", 20)])
    encoder = ml.Encoder(schema, ml.MLPBlock([8]))
    features = {"item": rows()[0]["item"]}
    expected = np.array(encoder(features))
    for results in in_threads(lambda _: np.array(encoder(features))):
        for result in results:
            np.testing.assert_array_equal(result, expected)


def batches_of(data):
    return [(features["item"].numpy(), features["bag"].to_list()) for features, _ in data]


@pytest.mark.parametrize("shared", [False, True], ids=["a loader each", "one loader"])
def test_loaders(shared):
    data = table(500)
    one = loader(data, shuffle=False)
    expected = batches_of(one)

    def work(_):
        return batches_of(one if shared else loader(data, shuffle=False))

    for results in in_threads(work, repeats=2):
        for batches in results:
            for (items, bags), (expected_items, expected_bags) in zip(batches, expected, strict=True):
                np.testing.assert_array_equal(items, expected_items)
                assert bags == expected_bags


@pytest.mark.parametrize("num_threads", [0, 1, 3])
def test_native_functions(num_threads):
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(500, 16)).astype(np.float32)
    splits = np.arange(0, 3001, 3)
    ids, grad = rng.integers(0, 500, 3000), rng.normal(size=(1000, 16)).astype(np.float32)
    native = _native.module()
    bags = ([numbers], [ids], [splits], [None], [0], ["sum"], [None])

    def lookup(_):
        output = np.empty_like(grad)
        native.embedding_bag_forward(*bags, [output], num_threads=num_threads)
        return output

    def step(_):
        mine, slot = numbers.copy(), np.full_like(numbers, 0.1)
        rule = {"name": "adagrad", "epsilon": 1e-7}
        update = native.EmbeddingBagUpdate([mine], [[slot]], *bags[1:], [grad], rule)
        update.step(0.1, 0, num_threads=num_threads)
        return np.stack([mine, slot])

    for work in (lookup, step):
        expected = work(0)
        for results in in_threads(work, repeats=20):
            for result in results:
                np.testing.assert_array_equal(result, expected)


# A child of fork() has none of its parent's threads. In a process of its own, where a framework has started none.
AFTER_FORK = """
import os
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
import numpy as np
from merlin_models import _native

native = _native.module()
table, output = np.ones((1000, 64), np.float32), np.zeros((20_000, 64), np.float32)
ids, splits = np.zeros(40_000, np.int64), np.arange(0, 40_001, 2)
call = ([table], [ids], [splits], [None], [0], ["sum"], [None], [output])

def works():
    output[:] = 0
    native.embedding_bag_forward(*call, num_threads=4)
    return (output == 2).all() and threads() == 4

def threads():
    return len(os.listdir("/proc/self/task"))

assert threads() == 1
assert works() and works()
child = os.fork()
if child == 0:
    os._exit(0 if threads() == 1 and works() and works() else 1)
assert os.waitpid(child, 0)[1] == 0
assert works()
"""


def test_kept_threads_after_fork(run_python):
    run_python(AFTER_FORK)


def test_as_many_threads_as_asked_for_and_no_more(run_python):
    run_python(
        "import concurrent.futures\n"
        + AFTER_FORK.split("assert threads() == 1")[0]
        + """
outputs = [np.zeros_like(output) for _ in range(6)]
with concurrent.futures.ThreadPoolExecutor(6) as pool:
    before = threads()
    for _ in range(20):
        list(pool.map(lambda mine: native.embedding_bag_forward(*call[:-1], [mine], num_threads=3), outputs))
    callers = threads() - before - max(3, len(os.sched_getaffinity(0))) + 1
    assert callers <= 6, callers
assert all((mine == 2).all() for mine in outputs)
"""
    )


# In a process of its own: threads that wait for each other never end.
VARIABLES_IN_ANOTHER_ORDER = """
import os, threading, time
import tensorflow as tf
from merlin_models.ops import UpdateRule, embedding_bag, embedding_bag_update, lookup_interaction, to_bags

tables = [tf.Variable(tf.zeros((10, 4))) for _ in range(100)]
slots = [[tf.Variable(tf.zeros((10, 4)))] for _ in tables]
bags = [to_bags(tf.constant([[0], [1]], tf.int64)) for _ in tables]
grads = [tf.ones((2, 4)) for _ in tables]

def update(tables, slots):
    embedding_bag_update(
        tables, slots, bags, grads, combiners="sum", rule=UpdateRule("momentum"), learning_rate=tf.constant(0.1)
    )

calls = [
    lambda: embedding_bag(tables, bags, combiners="sum"),
    lambda: lookup_interaction(tables[1::2] + tables[::2], bags, range(100), ["sum"] * 100),
    lambda: update(tables[::-1], slots[::-1]),
    lambda: update(tables[::2] + tables[1::2], slots[::2] + slots[1::2]),
]

calls = [tf.function(call) for call in calls]
for call in calls:
    call()  # is traced
end = time.monotonic() + 4

def repeat(call):
    while time.monotonic() < end:
        call()

threads = [threading.Thread(target=repeat, args=(call,), daemon=True) for call in calls]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(timeout=max(0, end + 20 - time.monotonic()))
waiting = sum(thread.is_alive() for thread in threads)
print(waiting, "of the threads wait for each other", flush=True)
os._exit(0)
"""


def test_ops_that_name_the_same_variables_in_another_order(run_python):
    assert run_python(VARIABLES_IN_ANOTHER_ORDER).stdout.startswith("0 of the threads wait")


@pytest.mark.slow
def test_one_model_for_long():
    """1,000 calls of each of 8 threads."""
    model, (features, _) = small_model(), rows(32)
    expected = np.array(model(features))

    def work(_):
        for _ in range(100):
            np.testing.assert_array_equal(np.array(model(features)), expected)

    in_threads(work, repeats=10)
