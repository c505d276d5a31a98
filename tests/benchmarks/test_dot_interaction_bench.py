"""The dot_interaction benchmark: right providers pass, wrong ones are refused, bytes by hand."""

from __future__ import annotations

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
            self._x[:, 1:] = problem.tables()[problem.ids[:, :, 0].T]

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


@pytest.mark.parametrize("name", ["b64_f5_d16_fp32", "b64_f5_d16_bf16", "lookup_b64_f5_d16_fp32"])
def test_check(name):
    problem = bench.CASES[name].build()
    assert bench.check(NumpyProvider(problem), problem, "full", "") < 1e-6
    with pytest.raises(NotEqual, match=r"error 1.0e-01"):
        bench.check(NumpyProvider(problem, 1.1), problem, "full", "")


def test_our_op_passes_the_check():
    problem = bench.CASES["lookup_b64_f5_d16_fp32"].build()
    provider = load_provider(bench, "merlin_tf")
    provider.setup(problem, "cpu", "forward", "")
    assert bench.check(provider, problem, "forward", "") < 1e-6


def test_bytes_by_hand():
    problem = bench.CASES["b64_f5_d16_bf16"].build()
    forward = 64 * 2 * (5 * 16 + 10)
    assert bench.traffic(problem, "forward", "") == (forward, forward)
    total = forward + 64 * 2 * (2 * 5 * 16 + 10)
    assert bench.traffic(problem, "full", "") == (total, total)
