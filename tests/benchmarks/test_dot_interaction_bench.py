"""The dot_interaction benchmark: right providers pass, wrong ones are refused, bytes by hand."""

from __future__ import annotations

import collections

import numpy as np
import pytest

from benchmarks.harness import NotEqual, Provider, load_provider
from benchmarks.ops import bench_dot_interaction as bench


class NumpyProvider(Provider):
    """The products of einsum, scaled on demand."""

    def __init__(self, problem, scale=1.0):
        self._problem, self._scale = problem, scale
        self._x = np.tile(problem.vectors, (problem.repeats, 1, 1))
        if problem.rows:
            self._x[:, 1:] = problem.tables()[problem.ids].sum(2).swapaxes(0, 1)

    def forward(self, i):
        rows, columns = np.tril_indices(self._problem.features, -1)
        return np.einsum("bfd,bgd->bfg", self._x, self._x)[:, rows, columns]

    def full(self, i, g):
        rows, columns = np.tril_indices(self._problem.features, -1)
        square = np.zeros((len(self._x), self._problem.features, self._problem.features))
        square[:, rows, columns] = np.tile(self._problem.grad, (self._problem.repeats, 1))
        return (square + square.transpose(0, 2, 1)) @ self._x

    def outputs(self, output):
        return output[:16]

    def gradients(self, output):
        return self._scale * output[:16]


LOOKUPS = ("lookup_b64_f5_d16_fp32", "lookup_b64_f5_d16_hot3_fp32")


@pytest.mark.parametrize("name", ["b64_f5_d16_fp32", "b64_f5_d16_bf16", *LOOKUPS])
def test_check(name):
    problem = bench.CASES[name].build()
    assert bench.check(NumpyProvider(problem), problem, "full", "") < 1e-6
    with pytest.raises(NotEqual, match=r"error 1.0e-01"):
        bench.check(NumpyProvider(problem, 1.1), problem, "full", "")


OURS = ("merlin_tf", "merlin_tf_two_ops", "merlin_tf_loop", "merlin_tf_two_ops_loop")


def _ready(name, case=LOOKUPS[0]):
    problem = bench.CASES[case].build()
    provider = load_provider(bench, name)
    provider.setup(problem, "cpu", "forward", "")
    return provider, problem


@pytest.mark.parametrize("case", LOOKUPS)
@pytest.mark.parametrize("name", OURS)
def test_our_ops_pass_the_check(name, case):
    provider, problem = _ready(name, case)
    assert bench.check(provider, problem, "forward", "") < 1e-6


@pytest.mark.parametrize("name", OURS)
def test_every_step_of_a_call_is_computed(name):
    """Nothing is taken for equal, or left out as unread, when TensorFlow makes the graph ready to run."""
    from tensorflow.python.eager import context

    provider, _ = _ready(name)
    context.enable_run_metadata()
    try:
        provider.forward(0)
        ready = [graph.post_optimization_graph for graph in context.export_run_metadata().function_graphs]
    finally:
        context.disable_run_metadata()
    run = collections.Counter(node.op for graph in ready for node in graph.node if node.op.startswith("Merlin"))
    ops = ["MerlinResourceEmbeddingBag", "MerlinDotInteraction"] if "two" in name else ["MerlinLookupInteraction"]
    assert run == dict.fromkeys(ops, provider.steps_a_call)
    assert provider.steps_a_call == (8 if "loop" in name else 1)


@pytest.mark.parametrize("name", ["merlin_tf_loop", "merlin_tf_two_ops_loop"])
def test_a_loop_is_refused_for_one_wrong_step(name):
    provider, problem = _ready(name)
    right = provider.forward(0)
    provider.forward = lambda i: [*right[:3], 1.1 * right[3], *right[4:]]
    with pytest.raises(NotEqual, match=r"error 1.0e-01"):
        bench.check(provider, problem, "forward", "")


@pytest.mark.parametrize("name", ["merlin_tf_loop", "merlin_tf_two_ops_loop"])
@pytest.mark.parametrize(
    ("case", "device", "mode", "reason"),
    [
        ("lookup_b65536_f27_d128_fp32", "cuda", "forward", ""),
        ("lookup_b65536_f27_d128_fp32", "cuda", "full", "the tables' gradient is not measured here"),
        ("lookup_b4096_f27_d128_fp32", "cpu", "forward", "lookups on a GPU: a call costs little beside the others"),
        ("b65536_f27_d128_fp32", "cuda", "forward", "there is nothing to look up"),
    ],
)
def test_what_loops_are_for(name, case, device, mode, reason):
    assert load_provider(bench, name).unsupported(bench.CASES[case], device, mode, "") == reason


def test_bytes_by_hand():
    problem = bench.CASES["b64_f5_d16_bf16"].build()
    forward = 64 * 2 * (5 * 16 + 10)
    assert bench.traffic(problem, "forward", "") == (forward, forward)
    total = forward + 64 * 2 * (2 * 5 * 16 + 10)
    assert bench.traffic(problem, "full", "") == (total, total)


def test_bytes_of_lookups_by_hand():
    problem = bench.CASES["lookup_b64_f5_d16_hot3_fp32"].build()
    read, pairs = 16 * 4 + 4 * 3 * (16 * 4 + 8), 10 * 4
    assert bench.traffic(problem, "forward", "")[0] == 64 * (read + pairs)
    assert bench.traffic(problem, "full", "")[0] == 64 * (2 * read + 2 * pairs + 5 * 16 * 4)
